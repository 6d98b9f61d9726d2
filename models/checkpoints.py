"""Checkpoint files of other projects: read without running their code, converted once to safetensors.

A `.pt` or `.pth` is a pickle, and a pickle may name any function to be called. Ours is read by PyTorch's restricted
unpickler: tensors and plain values come through, the few harmless classes below as empty stand-ins, all else is
refused by name.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

State = dict[str, "Tensor"]
NAMES_SHOWN = 6  # of keys in a message
CONVERTED, SUMS = ".safetensors", ".safetensors.sha256"  # are added to the name of the file


class WeightsError(Exception):
    """Weights that are missing or not the ones expected; the message names them and the next step."""


class _PlainDict:
    """Stand-in for a dictionary with attributes; it becomes a plain dictionary."""

    def __new__(cls) -> dict[str, Any]:  # type: ignore[misc]
        return {}


class _Ignored:
    """Stand-in for a NumPy number or its type, such as a best loss. It is no weight, so its value is dropped."""

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# By the name in the pickle. None of these runs code chosen by the file.
STAND_INS: tuple[tuple[type, str], ...] = (
    (_PlainDict, "dnnlib.EasyDict"),
    (_PlainDict, "dnnlib.util.EasyDict"),
    (_PlainDict, "easydict.EasyDict"),
    (argparse.Namespace, "argparse.Namespace"),
    (_Ignored, "numpy.dtype"),
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray.scalar"),
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: a dictionary of tensors, plain values and further dictionaries.

    Raises WeightsError when the file is missing, damaged, something else, or would run code.
    """
    _check_readable(path)
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    import torch

    try:
        with torch.serialization.safe_globals(list(STAND_INS)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, dict):
        raise _problem(f"{path.name} is not a checkpoint", path, found=f"a {type(content).__name__}")
    return content


def read_safetensors(path: Path) -> State:
    """The tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_readable(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def load_converted(path: Path, read: Callable[[Path], State]) -> State:
    """Return `read(path)`, converted once to a safetensors file beside the checkpoint.

    `read` checks what it reads. `NAME.safetensors.sha256` holds the digests of both files in the format of
    `sha256sum --check`; if either file has changed, it is converted again. In a read-only folder nothing is kept.
    """
    _check_readable(path)
    if path.suffix == ".safetensors":
        return read(path)
    converted, sums = path.with_name(path.name + CONVERTED), path.with_name(path.name + SUMS)
    if sums.is_file() and converted.is_file() and sums.read_text(encoding="utf-8") == _sums(path, converted):
        return read_safetensors(converted)
    state = read(path)
    try:
        _write_converted(state, converted, path.stat().st_mode)
        told = _sums(path, converted)
        _write_and_rename(sums, lambda temporary: temporary.write_text(told, encoding="utf-8"))
        log.info("%s was converted to %s", path.name, converted)
    except OSError as error:
        log.warning(
            "%s cannot be stored as safetensors (%s); it is read again each time", path, error.strerror or error
        )
    return state


def section(content: Mapping[str, Any], name: str, path: Path) -> State:
    """The state dict under a name of a checkpoint; a prefix `module.` that all keys share is dropped."""
    state = content.get(name)
    if not isinstance(state, dict):
        held = ", ".join(str(key) for key in list(content)[:NAMES_SHOWN])
        found = "" if name in content else f"; it holds {held}"
        raise _problem(f"{path.name} has no state dict '{name}'{found}", path)
    if state and all(str(key).startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def check_state(state: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], what: str, path: Path) -> None:
    """Check for exactly the expected keys and shapes, all finite. Raises WeightsError that names the difference."""
    import torch

    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    wrong = [
        f"{key} {tuple(tensors[key].shape)} for {expected[key]}"
        for key in expected
        if key in tensors and tuple(tensors[key].shape) != expected[key]
    ]
    faults = {
        "missing": [key for key in expected if key not in tensors],
        "unexpected": [key for key in state if key not in expected],
        "shapes": wrong,
    }
    if any(faults.values()):
        told = {name: _some(names) for name, names in faults.items() if names}
        raise _problem(f"{path.name} does not hold {what}", path, **told, expected=f"{len(expected)} tensors")
    spoilt = [key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if spoilt:
        raise _problem(f"{path.name} holds numbers that are not finite", path, tensors=_some(spoilt))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _check_readable(path: Path) -> None:
    """Check that the file exists and is not a page or pointer downloaded in its place."""
    if path.is_dir():
        raise _problem(f"{path} is a folder", path, expected="the checkpoint file itself")
    if not path.is_file():
        raise _problem(f"there is no file {path}", path)
    with path.open("rb") as stream:
        start = stream.read(512).lstrip()
    if not start:
        raise _problem(f"{path.name} is empty", path, hint="fetch it again")
    if start[:1] == b"<" and re.match(rb"<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise _problem(
            f"{path.name} is a web page, not weights", path, hint="open the link in a browser; it asks to confirm"
        )
    if start.startswith(b"version https://git-lfs"):
        raise _problem(f"{path.name} is a Git LFS pointer, not weights", path, hint="git lfs pull")


def _refused(path: Path, told: str) -> WeightsError:
    named = re.search(r"GLOBAL ([\w.]+)", told) or re.search(r"function <[\w ]*?(?:function )?([\w.]+)", told)
    if named is None:
        return _damaged(path, told.splitlines()[0])
    return _problem(
        f"{path.name} is refused: reading it would call {named[1]}",
        path,
        expected="tensors and plain values",
        hint="take the file from its publisher again; of a .pkl, take the state dict that is published as .pth",
    )


def _damaged(path: Path, error: object) -> WeightsError:
    cause = str(error).strip().splitlines()
    shown = cause[0][:160] if cause else type(error).__name__
    return _problem(f"{path.name} is damaged or no checkpoint", path, cause=shown, hint="fetch it again")


def _problem(message: str, path: Path, **fields: str) -> WeightsError:
    lines = [f"  {name:<9} {value}" for name, value in {"file": str(path), **fields}.items()]
    return WeightsError("\n".join([message, *lines]))


def _sums(path: Path, converted: Path) -> str:
    return "".join(f"{file_digest(file)}  {file.name}\n" for file in (path, converted))


def file_digest(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_converted(state: State, target: Path, mode: int) -> None:
    from safetensors.torch import save_file

    # Copy only tensors that are part of a larger storage: the file may be as large as the memory.
    whole = {
        key: value.contiguous() if value.nbytes == value.untyped_storage().nbytes() else value.clone()
        for key, value in state.items()
    }

    def save(temporary: Path) -> None:
        save_file(whole, temporary)
        temporary.chmod(mode)  # safetensors creates the file readable by its owner alone

    _write_and_rename(target, save)


def _write_and_rename(target: Path, write: Callable[[Path], object]) -> None:
    """Write under another name first: a reader meets the old file or the new one."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
