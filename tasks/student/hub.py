"""Exported students on the Hugging Face hub, and in its cache on this machine."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from data_catalog.config.errors import UserError

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_SECONDS = 5.0  # seconds to wait for an answer of the hub


def download(name: str, **given: Any) -> Path:
    """Download an exported student from the hub, unless it is in its cache. Returns the folder."""
    hint = "a folder that `stillroom export FOLDER` has written, or ORG/NAME on the Hugging Face hub"
    if not HUB_NAME.fullmatch(name):
        raise UserError("there is no exported student here", folder=name, hint=hint)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    away = not (given.get("local_files_only") or constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT))
    if away:  # the library would try for minutes
        given["local_files_only"] = True
    try:
        return Path(snapshot_download(name, etag_timeout=HUB_SECONDS, **given))
    except LocalEntryNotFoundError as error:
        why = f"{constants.ENDPOINT} does not answer" if away else "the hub may not be asked"
        raise UserError(
            f"the student {name} is not in the cache, and {why}",
            revision=given.get("revision") or "main",
            cache=given.get("cache_dir") or constants.HF_HUB_CACHE,
            hint=hint if away else "without local_files_only and HF_HUB_OFFLINE it is downloaded",
        ) from error
    except Exception as error:  # of the hub, of the web, or of what the cache is written with
        said = " ".join(str(error).split())
        raise UserError(f"the student {name} cannot be loaded from the hub", says=said, hint=hint) from error


def _answers(address: str) -> bool:
    """Whether a server answers, with whatever: its client knows more of rights and certificates."""
    try:
        urlopen(address, timeout=HUB_SECONDS).close()
    except HTTPError:
        return True
    except (OSError, ValueError) as error:
        return isinstance(getattr(error, "reason", None), ssl.SSLError)
    return True
