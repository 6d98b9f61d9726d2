"""Recipes of all embedded networks; training of one in its own process, and the folder of its weights."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import yaml

from models.zoo import zoo

# Networks that must be trained first: the editor needs the autoencoder's latents and CLIP's words, and LPIPS judges
# the pictures of both while they learn. Prerequisites come first.
NEEDS: dict[str, tuple[str, ...]] = {
    "perceptual": (),
    "autoencoder": ("perceptual",),
    "clip": (),
    "editor": ("autoencoder", "clip", "perceptual"),
    "teacher": (),
    "identity": (),
    "landmarks": (),
    "mae": (),
    "generator": ("teacher", "perceptual"),
}
# Further exams that a network takes part in.
JUDGED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("autoencoder", "clip", "identity", "perceptual"), ("editor",)),
    "editor": ("autoencoder",),  # the editor's pipeline holds it
}
WEIGHTS = zoo.ROOT / "models" / "weights" / "embedded"
PEOPLE, BLOCK = 3456, 128
HELD_OUT = 128


def render(work: Path, kind: str, first_seed: int, count: int) -> str:
    """Render one block of training pictures ("pictures") or faces ("faces")."""
    module = importlib.import_module(f"tasks.lab.pretraining.{kind}")
    return str(module.render_block(work / kind, first_seed, count))


def train_network(
    name: str, pictures: Path, steps: int | None = None, weights: Path | None = None, work: Path | None = None
) -> None:
    """Train one network to its end, and write its weights. One thread.

    pictures: where the folders of pictures and faces are.  work: for checkpoint, curve and card, the same folder
    unless given.  weights: of all embedded networks, the project's own unless given.
    """
    import dataclasses

    import torch

    from tasks.lab.pretraining.faces import load_faces
    from tasks.lab.pretraining.loop import Recipe, train
    from tasks.lab.pretraining.pictures import TRAINING_SEEDS, load_pictures

    weights, work = weights or WEIGHTS, work or pictures
    torch.set_num_threads(1)
    recipe: Recipe = importlib.import_module(f"tasks.lab.pretraining.networks.{name}").RECIPE
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=steps)
    load, folder = (load_faces, pictures / "faces") if recipe.faces else (load_pictures, pictures / "pictures")
    network = train(recipe, load(folder, TRAINING_SEEDS, 10**6), weights, work / name)
    weights.mkdir(parents=True, exist_ok=True)
    recipe.save(network, weights)
    learned = {"steps": recipe.steps, "optimizer": recipe.optimizer, "lr": recipe.lr, "seed": recipe.seed}
    (work / name / "card.json").write_text(json.dumps(learned, indent=1))


def read_curve(work: Path, name: str) -> list[dict[str, float]]:
    """Read the curve points that a training has written so far."""
    path = work / name / "curve.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def registry_of(weights: Path) -> Path:
    """The list of networks that names the weights in a folder."""
    return zoo.REGISTRY if weights == WEIGHTS else weights / "models.yaml"


def copy_weights(target: Path) -> None:
    """Copy the project's weights into a user's own folder, with a list of networks for STILLROOM_MODELS."""
    registry = registry_of(target)
    if registry.exists():
        return
    shutil.copytree(WEIGHTS, target, dirs_exist_ok=True)
    shipped = WEIGHTS.relative_to(zoo.ROOT).as_posix()
    # Written last: the list says that the copy is whole.
    registry.write_text(zoo.REGISTRY.read_text(encoding="utf-8").replace(shipped, str(target)), encoding="utf-8")


def write_digests(weights: Path | None = None) -> dict[str, str]:
    """Write the digests of the present weights into their list of networks."""
    registry = registry_of(weights or WEIGHTS)
    text = registry.read_text(encoding="utf-8")
    digests = {}
    for name, entry in yaml.safe_load(text)["embedded"].items():
        folder = zoo.ROOT / entry["path"]
        if folder.exists():
            digests[name] = zoo.files_digest(folder)
            line = f"  {name}: {{path: {entry['path']}"
            entry_now = f"{line}, sha256: {digests[name]}}}"
            # What stands behind an entry is a note of people.
            rows = [entry_now + row.partition("}")[2] if row.startswith(line) else row for row in text.splitlines()]
            text = "\n".join(rows) + "\n"
    registry.write_text(text, encoding="utf-8")
    return digests
