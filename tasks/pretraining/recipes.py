"""All embedded networks, how to train one in a process of its own, and the card that says what came out."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import yaml

from models import zoo

# What must be trained before it; the editor works between the autoencoder's latents and CLIP's words.
NEEDS: dict[str, tuple[str, ...]] = {
    "autoencoder": (),
    "clip": (),
    "teacher": (),
    "identity": (),
    "landmarks": (),
    "mae": (),
    "perceptual": (),
    "editor": ("autoencoder", "clip"),
}
WEIGHTS = zoo.ROOT / "models" / "weights" / "embedded"
PEOPLE, BLOCK = 3456, 128
FACES, FACE_BLOCK = 768, 128
HELD_OUT = 128


def render(work: Path, kind: str, first_seed: int, count: int) -> str:
    """Render one block of training pictures ("pictures") or faces ("faces")."""
    module = importlib.import_module(f"tasks.pretraining.{kind}")
    return str(module.render_block(work / kind, first_seed, count))


def train_network(name: str, work: Path, steps: int | None = None) -> dict[str, float]:
    """Train one network to its end, write its weights, return the numbers of its card. One thread."""
    import dataclasses

    import torch

    from tasks.pretraining.faces import load_faces
    from tasks.pretraining.loop import Recipe, train
    from tasks.pretraining.pictures import TRAINING_SEEDS, VALIDATION_SEEDS, load_pictures

    torch.set_num_threads(1)
    recipe: Recipe = importlib.import_module(f"tasks.pretraining.{name}").RECIPE
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=steps)
    load, folder = (load_faces, work / "faces") if recipe.faces else (load_pictures, work / "pictures")
    network = train(recipe, load(folder, TRAINING_SEEDS, 10**6), WEIGHTS, work / name)
    numbers = recipe.measure(network, load(folder, VALIDATION_SEEDS, 10**6))
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    recipe.save(network, WEIGHTS)
    document = {"steps": recipe.steps, "lr": recipe.lr, "seed": recipe.seed, "measured": numbers}
    (work / name / "card.json").write_text(json.dumps(document, indent=1))
    return numbers


def read_curve(work: Path, name: str) -> list[dict[str, float]]:
    """The curve points that a training has written so far."""
    path = work / name / "curve.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def write_card(work: Path) -> Path:
    """models/weights/embedded/README.md: how each network was trained and what it measures, from `card.json` files."""
    lines = [
        "# The embedded networks",
        "",
        "Trained from nothing on the procedural world (`models/procedural`) by the flow `pretrain-embedded`; stored in",
        f"half precision. Training saw {PEOPLE} people ({FACES} for identity); the numbers are from {HELD_OUT} people",
        "never trained on. They are good for the procedural world only: real photographs are out of their reach.",
        "",
    ]
    for name in NEEDS:
        path = work / name / "card.json"
        if not path.exists():
            continue
        card = json.loads(path.read_text())
        trained = f"{card['steps']} steps, learning rate {card['lr']}, seed {card['seed']}.{card.get('remark', '')}"
        lines += [f"## {name}", "", trained, ""]
        lines += ["| measured | value |", "| --- | --- |"]
        lines += [f"| {key} | {value:.4g} |" for key, value in card["measured"].items()]
        lines.append("")
    target = WEIGHTS / "README.md"
    target.write_text("\n".join(lines))
    return target


def write_digests() -> dict[str, str]:
    """Put the digests of the weights that are there into configs/models.yaml."""
    text = zoo.REGISTRY.read_text(encoding="utf-8")
    digests = {}
    for name, entry in yaml.safe_load(text)["embedded"].items():
        folder = zoo.ROOT / entry["path"]
        if folder.exists():
            digests[name] = zoo.files_digest(folder)
            line = f"  {name}: {{path: {entry['path']}"
            rows = [f"{line}, sha256: {digests[name]}}}" if row.startswith(line) else row for row in text.splitlines()]
            text = "\n".join(rows) + "\n"
    zoo.REGISTRY.write_text(text, encoding="utf-8")
    return digests
