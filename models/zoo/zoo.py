"""Registry of networks: the source of their weights, their digest, and their loader.

`configs/models.yaml`, or the file that STILLROOM_MODELS names, lists the networks of each world. Weights are part of
every fingerprint that depends on them, so their digest is taken from the files (or from the hub id and revision)
without loading torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from models.checkpoints import WeightsError, file_digest

if TYPE_CHECKING:
    from models.faces.recognition import Recogniser
    from models.three_d.eg3d import Inverter

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = ROOT / "configs" / "models.yaml"
FETCHED = ROOT / "models" / "weights" / "fetched"  # files from public addresses, see flows/care/fetch.py
MODULES: dict[str, tuple[str, ...]] = {  # of each network, in the order of lists
    "editor": ("models.editing.editor",),
    "teacher": ("models.three_d.live3d",),
    "clip": ("models.judges.clip",),
    "identity": ("models.judges.identity", "models.faces.recognition"),
    "landmarks": ("models.faces.landmarks",),
    "faces": ("models.faces.photo_faces",),
    "mae": ("models.three_d.mae",),
    "lpips": ("models.judges.perceptual",),
    "safety": ("models.judges.safety",),
    "matting": ("models.faces.matting",),
    "face_api": ("models.judges.face_api",),
    "generator": ("models.three_d.eg3d",),
    "captioner": ("models.judges.captioner",),
}
PAPER_MODULES = {
    "landmarks": ("models.faces.photo_faces", "models.faces.mediapipe_faces"),
    "identity": ("models.judges.arcface", "models.faces.recognition"),
    "lpips": ("models.judges.perceptual", "models.judges.lpips_alex"),
}
TOKENIZER = "tokenizer.json"
ABSENT = "absent"  # digest of an optional network that was not given


def modules(name: str, world: str = "embedded") -> tuple[str, ...]:
    """Return the first-party modules that define a network."""
    return MODULES[name] if world == "embedded" else PAPER_MODULES.get(name, MODULES[name])


def digest(name: str, world: str) -> str:
    """Identity of a network's weights: sha256 over its files, or hub id and revision.

    Raises WeightsError when files are missing or are not the ones that the registry names.
    """
    entry = _entry(name, world)
    if _is_absent(entry):
        return ABSENT
    if "hub" in entry:
        return hashlib.sha256(f"{entry['hub']}@{entry['revision']}".encode()).hexdigest()
    found = _checked_digest(name, world)
    expected = entry.get("sha256")
    if expected is not None and found != expected:
        raise WeightsError(
            f"the weights of {name} ({world}) are not the ones in configs/models.yaml\n"
            f"  folder    {_folder(entry)}\n  expected  sha256:{expected}\n  found     sha256:{found}\n"
            f"  hint      git checkout -- {entry['path']}    or, if you trained them yourself: stillroom run "
            "pretrain-embedded    (writes the new digest)"
        )
    return found


def missing(name: str, world: str) -> str:
    """Return why a network cannot be loaded, and how to get it; empty where its weights are there."""
    try:
        return str(_entry(name, world)["get"]) if digest(name, world) == ABSENT else ""
    except WeightsError as error:
        return str(error)


def files_digest(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's files, or of one file."""
    whole = hashlib.sha256()
    for file in _files(folder):
        name = file.relative_to(folder).as_posix() if folder.is_dir() else ""
        stat = file.stat()
        whole.update(f"{name}\0{_file_digest(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return whole.hexdigest()


def _files(folder: Path) -> list[Path]:
    """The files of a folder, in order; of a file, itself."""
    return sorted(file for file in (folder.rglob("*") if folder.is_dir() else [folder]) if file.is_file())


def describe(world: str) -> list[dict[str, Any]]:
    """Describe each network in a row: name, source, size in bytes, digest, state, and the problem if there is one."""
    rows = []
    for name in MODULES:
        if name not in _registry(registry_file())[world]:
            continue
        entry = _entry(name, world)
        row: dict[str, Any] = {"name": name, "source": entry.get("hub") or entry.get("path") or "not given"}
        row["hub"] = [entry["hub"], entry["revision"]] if "hub" in entry else None
        row |= {field: entry.get(field) for field in ("url", "licence", "get", "sha256_begins")}
        row["listed"] = entry.get("sha256")
        folder = _folder(entry) or (hub_folder(*row["hub"]) if row["hub"] else None)
        try:
            state = ABSENT if _is_absent(entry) else "ready" if folder else "not fetched"
            row |= {"digest": digest(name, world), "state": state, "problem": ""}
        except WeightsError as error:
            row |= {"digest": "", "state": "missing", "problem": str(error)}
        row["bytes"] = sum(file.stat().st_size for file in _files(folder)) if folder else 0
        rows.append(row)
    return rows


def find_words(world: str) -> Path | None:
    """Return the file of the text encoder's tokenizer, if it is on this machine."""
    entry = _entry("clip", world)
    folder = _folder(entry) if "hub" not in entry else hub_folder(entry["hub"], entry["revision"])
    path = None if folder is None else folder / TOKENIZER
    return path if path is not None and path.is_file() else None


def hub_folder(repository: str, revision: str) -> Path | None:
    """The snapshot of a hub repository in this machine's cache; None where it was not fetched, or only in part."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has the weights of each of its networks: a fetch that broke off leaves gaps and dead links."""
    found, index = list(folder.rglob("*")), folder / "model_index.json"
    if not all(path.exists() for path in found):
        return False
    parts = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    named = {folder / name for name, part in parts.items() if isinstance(part, list) and all(part)}
    networks = {path.parent for path in found if path.name == "config.json"}
    return bool(networks) and all(map(Path.is_dir, named)) and all(any(each.glob("*.safetensors")) for each in networks)


def fetched_file(url: str) -> Path:
    """Path that a published file is fetched to."""
    return FETCHED / PurePosixPath(urlsplit(url).path).name


@cache
def load(name: str, world: str, device: str = "cpu") -> Any:
    """Load the network of a name, in evaluation mode, once per process; None where the world does without it."""
    entry = _entry(name, world)
    if digest(name, world) == ABSENT:
        return None
    source = _folder(entry) or entry["hub"]
    revision = entry.get("revision")
    if name == "faces":
        return _load_faces(source)
    if name == "matting":
        from models.faces.matting import Matting

        return Matting(source)
    if name == "face_api":
        from models.judges.face_api import FaceDescriptor

        return FaceDescriptor(source).to(device)
    if name == "editor":
        from models.editing.editor import Editor

        return Editor.load(source, device, revision)
    if name == "clip":
        from models.judges.clip import Clip

        return Clip.load(source, revision).to(device)
    if name == "safety":
        from models.judges.safety import SafetyChecker

        return SafetyChecker(source, device, revision)
    if name == "captioner":
        from models.judges.captioner import Blip

        return Blip(source, device, revision)
    return _load_own(name, source, device) if world == "embedded" else _load_public(name, source, device)


def load_recogniser(world: str, device: str = "cpu") -> Recogniser:
    """Return the identity network of a world with the detector, if there is one, of the points that it aligns by."""
    from models.faces.recognition import Recogniser

    return Recogniser(load("identity", world, device), load("landmarks", world, device), world)


def _load_own(name: str, folder: Path, device: str) -> Any:
    import torch
    from safetensors.torch import load_file

    def state(file: str) -> dict[str, torch.Tensor]:
        return {key: value.float() for key, value in load_file(folder / file).items()}

    if name == "generator":
        return _load_inverter(folder, state("generator.safetensors"), state("encoder.safetensors"), device)
    if name == "mae":
        from models.three_d.mae import Mae

        return Mae.from_state(json.loads((folder / "config.json").read_text()), state("mae.safetensors"))
    if name == "lpips":
        from models.judges.perceptual import Perceptual

        return Perceptual.load(folder).to(device)
    network: torch.nn.Module
    if name == "teacher":
        from models.three_d.live3d import Live3D, Live3DConfig

        network = Live3D(Live3DConfig.from_dict(json.loads((folder / "config.json").read_text())))
    elif name == "identity":
        from models.judges.identity import IdentityNet

        network = IdentityNet()
    else:
        from models.faces.landmarks import LandmarkNet

        network = LandmarkNet()
    network.load_state_dict(state(f"{name}.safetensors"))
    return network.eval().requires_grad_(False).to(device)


def _load_public(name: str, file: Path, device: str) -> Any:
    """A network of the paper from the file that its authors published."""
    from models.zoo import public

    if name == "teacher":
        return public.load_live3d(file).to(device)
    if name == "generator":
        return public.load_eg3d(file).to(device), None
    if name == "identity":
        return public.load_arcface(file).to(device)
    if name == "lpips":
        return public.load_lpips(file).to(device)
    if name == "mae":
        mae = public.load_mae(file)
        mae.encoder.to(device)
        return mae
    if name == "landmarks":
        return _load_faces(file)
    raise WeightsError(f"{name} of the world 'paper' cannot be loaded by this version")


def _load_faces(path: Path) -> Any:
    """The detector of photographs in a folder as `models/weights/photo/faces`, or MediaPipe's in a file."""
    if path.is_dir():
        from models.faces.photo_faces import PhotoFaces

        return PhotoFaces(path)
    from models.faces.mediapipe_faces import MediaPipeFaces

    return MediaPipeFaces.load(path)


def _load_inverter(folder: Path, state: dict[str, Any], encoder_state: dict[str, Any], device: str) -> Inverter:
    """The generator, and its encoder to w+, which the public one lacks."""
    from models.three_d.eg3d import Generator, GeneratorConfig, LatentEncoder

    config = GeneratorConfig.from_dict(json.loads((folder / "config.json").read_text()))
    generator, encoder = Generator(config), LatentEncoder(config)
    generator.load_state_dict(state)
    encoder.load_state_dict(encoder_state)
    for network in (generator, encoder):
        network.eval().requires_grad_(False).to(device)
    return generator, encoder


def registry_file() -> Path:
    """Return the registry file: STILLROOM_MODELS, or the project's own."""
    given = os.environ.get("STILLROOM_MODELS")
    return Path(given).expanduser() if given else REGISTRY


@cache
def _registry(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _entry(name: str, world: str) -> dict[str, Any]:
    path = registry_file()
    worlds = _registry(path)
    if world not in worlds or name not in worlds[world]:
        raise WeightsError(f"{path} has no {name} for the world {world!r}; worlds: {', '.join(worlds)}")
    return worlds[world][name]


def _is_absent(entry: dict[str, Any]) -> bool:
    """Whether a network is optional and was not given."""
    return bool(entry.get("optional")) and _folder(entry) is None and "hub" not in entry


def _folder(entry: dict[str, Any]) -> Path | None:
    """The file or folder of an entry: the given one, or the one that was fetched from its address."""
    if not entry.get("path"):
        fetched = fetched_file(entry["url"]) if "url" in entry else None
        return fetched if fetched is not None and fetched.is_file() else None
    path = Path(entry["path"]).expanduser()
    return path if path.is_absolute() else ROOT / path


def _checked_digest(name: str, world: str) -> str:
    entry = _entry(name, world)
    folder = _folder(entry)
    if folder is None:
        raise WeightsError(
            f"no weights given for {name} ({world})\n  file      configs/models.yaml, {world}.{name}.path\n"
            f"  hint      {f'stillroom models fetch {name}    or: ' if 'url' in entry else ''}"
            f"{entry.get('get', 'set the path to the file')}"
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        raise WeightsError(
            f"the weights of {name} ({world}) are missing\n  expected  {folder}\n"
            f"  hint      {entry.get('get', 'git checkout -- ' + str(entry['path']))}"
        )
    return files_digest(folder)


@cache
def _file_digest(file: Path, size: int, mtime_ns: int) -> str:
    return file_digest(file)
