"""Fetch published weights: hub snapshots, and files with a public address, which resume and are verified."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.workspace import Workspace

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0  # to connect, and between two pieces of an answer
# Of a repository on the hub: the parts of a pipeline as safetensors, not the same weights in other forms.
WANTED = ["*.json", "*.txt", "*/*.safetensors", "model.safetensors"]
UNWANTED = ["*fp16*"]


def fetch_models(names: Sequence[str], workspace: Workspace) -> dict[str, Any]:
    """Fetch the named models of the profile's world, or all. Returns a row for each.

    `state` is ready (it was there, or is now), by hand (no public address: `get` says where it is from) or failed.
    Raises UserError, before anything is fetched, where none of the addresses answers.
    """
    from models.zoo import zoo

    world = workspace.settings.world
    known = {row["name"]: row for row in zoo.describe(world)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"there is no model '{unknown[0]}' in the world {world}", models=", ".join(known))
    wanted = [known[name] for name in names or known]
    _check_network([row for row in wanted if row["state"] != "ready"])
    rows = [_fetch(row, world) for row in wanted]
    return {"profile": workspace.profile, "world": world, "models": rows}


def _check_network(rows: Sequence[dict[str, Any]]) -> None:
    """Raise UserError where no address of these models answers; models without an address do not count."""
    import httpx
    from huggingface_hub import constants

    addresses = {
        row["name"]: constants.ENDPOINT if row["hub"] else row["url"] for row in rows if row["hub"] or row["url"]
    }
    hosts = {httpx.URL(address).copy_with(path="/", query=None) for address in addresses.values()}
    causes = {}
    for host in sorted(hosts, key=str):
        if constants.HF_HUB_OFFLINE and str(host).startswith(constants.ENDPOINT):
            causes[host.host] = "HF_HUB_OFFLINE is set"
            continue
        try:
            httpx.head(host, timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            causes[host.host] = str(error) or type(error).__name__
            continue
        return
    if causes:
        raise UserError(
            f"no weights can be fetched: {', '.join(causes)} cannot be reached",
            cause="; ".join(dict.fromkeys(causes.values())),
            models=", ".join(addresses),
            hint="on a machine with a network: the same command; then copy its HF_HOME and models/weights/fetched",
        )


def _fetch(row: dict[str, Any], world: str) -> dict[str, Any]:
    from models.zoo import zoo

    name = row["name"]
    done: dict[str, Any] = {"model": name, "state": row["state"], "where": row["source"], "get": ""}
    try:
        if row["state"] == "ready":
            return done
        if row["hub"]:
            return done | {"state": "ready", "where": str(_from_hub(*row["hub"]))}
        if row["url"]:
            file = zoo.fetched_file(row["url"])
            log.info("%s: %s (licence: %s)", name, row["url"], row["licence"] or "see there")
            digest = download(row["url"], file, row["sha256_begins"] or "")
            return done | {"state": "ready", "where": str(file), "get": f"sha256:{digest}"}
    except UserError as error:
        return done | {"state": "failed", "get": str(error)}
    return done | {"state": "by hand", "get": f"{row['get']} ({zoo.registry_file().name}, {world}.{name}.path)"}


def _from_hub(repository: str, revision: str) -> Path:
    import httpx
    from huggingface_hub import constants, snapshot_download

    log.info("%s at %s, from the hub", repository, revision[:12])
    try:
        if not constants.HF_HUB_OFFLINE:
            httpx.head(constants.ENDPOINT, timeout=TIMEOUT_S)  # the hub's client would try for half a minute
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED, etag_timeout=TIMEOUT_S
            )
        )
    except Exception as error:  # the hub's client raises those of several libraries
        raise UserError(
            f"{repository} cannot be fetched from the hub",
            cause=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            hint=f"on a machine with a network: hf download {repository} --revision {revision}; then copy its HF_HOME",
        ) from None


def download(url: str, file: Path, sha256_begins: str = "") -> str:
    """Download to a file and return its sha256. A download that broke off is continued.

    sha256_begins: the expected sum or its first digits; what does not match is deleted.
    """
    import httpx

    part = file.with_name(f"{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    try:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as answer:
            if answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # else it was whole already
                answer.raise_for_status()
                goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
                with part.open("ab" if goes_on else "wb") as out:
                    for piece in answer.iter_raw():  # as it arrives, so that what came before a break is kept
                        out.write(piece)
    except httpx.HTTPError as error:
        got = part.stat().st_size if part.exists() else 0
        raise UserError(
            f"{url} cannot be fetched",
            cause=f"{type(error).__name__}: {error}",
            kept=f"{got} bytes in {part}; the same command goes on from there",
            hint="or download it elsewhere, and write its path into configs/models.yaml",
        ) from None
    with part.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    if not digest.startswith(sha256_begins):
        part.unlink()
        raise UserError(
            f"{url} is not the file that configs/models.yaml describes",
            expected=f"sha256:{sha256_begins}...",
            found=f"sha256:{digest}",
            hint="a proxy or a login page may have answered; try again",
        )
    part.replace(file)
    return digest
