"""The exam of the networks that draw in 2D: the autoencoder and the editor, against true edits of held-out people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_catalog.config.profiles import load_settings
from models.pixels import signed, to_bytes
from models.zoo import zoo
from tasks.evaluation.metrics import Judges
from tasks.lab.pretraining import captions
from tasks.lab.pretraining.marks import Examined, Mark, Sheet, grade, mean_of, share_of
from tasks.lab.pretraining.pictures import LOOKS, Pictures, changed_pixels
from tasks.pictures.sheets import contact_sheet

if TYPE_CHECKING:
    from models.judges.clip import Clip
    from models.libraries import diffusers

REBUILT, EDITED = 48, 32  # people
MIN_PSNR_DB = 30.0
MAX_INSIDE, MAX_OUTSIDE, MAX_LPIPS, MIN_NAMED, MAX_IDENTITY_LOSS = 0.5, 0.01, 1.0, 0.95, 0.1
MIN_OUTSIDE = 0.05  # of the pictures; an edit that leaves less unchanged has no outside worth a number
TRAINED, HELD_OUT = "trained wording", "held-out wording"
WORDINGS: dict[str, Callable[[str | None, np.random.Generator], str]] = {
    TRAINED: captions.instruction,
    HELD_OUT: captions.held_out_instruction,
}
SHOWN = 3  # people on a sheet
SHOWN_LOOKS = (None, "bronze-statue", "neon", "clown", "elf-ears")
SCALE = 2


def examine_autoencoder(pictures: Pictures) -> Examined:
    """Reconstruction of every look; the autoencoder is the one that the editor works with."""
    vae = zoo.load("editor", "embedded").pipeline.vae
    crops = pictures.crops[:REBUILT]
    rebuilt = np.stack([reconstruct(vae, person) for person in crops])
    error = (rebuilt.astype(np.float32) - crops) / 255.0
    psnr = -10 * np.log10(np.maximum((error**2).mean(axis=(2, 3, 4)), 1e-10))  # (N, looks)
    marks = [grade("psnr_db", "reconstruction PSNR, dB", len(psnr), mean_of(psnr), bar=MIN_PSNR_DB)]
    marks += [
        grade("psnr_db", "reconstruction PSNR, dB", len(psnr), mean_of(psnr[:, place]), subject=name_look(look))
        for place, look in enumerate(LOOKS)
    ]
    places = [LOOKS.index(look) for look in SHOWN_LOOKS]
    rows = [[image[p] for p in places for image in pair] for pair in zip(crops[:SHOWN], rebuilt[:SHOWN], strict=True)]
    columns = [column for look in SHOWN_LOOKS for column in (name_look(look), "rebuilt")]
    return Examined(
        marks, [Sheet("Pictures and what is left of them after coding", columns, contact_sheet(rows, SCALE))]
    )


@torch.no_grad()
def reconstruct(vae: diffusers.AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 through the latents and back."""
    return to_bytes(vae.decode(vae.encode(signed(images)).latent_dist.mode()).sample)


def name_look(look: str | None) -> str:
    """Return the name of a look for tables and columns."""
    return "no edit" if look is None else look.replace("-", " ")


def examine_editor(pictures: Pictures) -> Examined:
    """Examine each style by a prompt in words of the training, and by one in an unknown form."""
    rng = np.random.default_rng(0)
    judges = Judges(zoo.load_recogniser("embedded"), *(zoo.load(name, "embedded") for name in ("clip", "lpips")))
    names = style_texts(judges.clip)
    marks: list[Mark] = []
    rows: list[list[np.ndarray]] = []
    for place, style in enumerate(LOOKS[1:], start=1):
        portraits, truth = pictures.crops[:EDITED, 0], pictures.crops[:EDITED, place]
        edits = {wording: edit(portraits, [say(style, rng) for _ in portraits]) for wording, say in WORDINGS.items()}
        for wording, edited in edits.items():
            marks += grade_style(judges, names, portraits, truth, edited, place, wording)
        shown = zip(portraits[:SHOWN], truth[:SHOWN], edits[TRAINED][:SHOWN], edits[HELD_OUT][:SHOWN], strict=True)
        rows.append([cell for person in shown for cell in person])
    columns = ["portrait", "true edit", "edit", "held-out words"] * SHOWN
    title = f"One row a style: {', '.join(name_look(look) for look in LOOKS[1:])}"
    return Examined(marks, [Sheet(title, columns, contact_sheet(rows, SCALE))])


def edit(portraits: np.ndarray, prompts: list[str]) -> np.ndarray:
    """Edits (N, H, W, 3) uint8 with the steps and the guidance of the demo."""
    demo = load_settings("demo", []).edit
    edited: np.ndarray = zoo.load("editor", "embedded").edit(
        portraits, prompts, range(len(portraits)), demo.steps, demo.guidance_scale, demo.image_guidance_scale,
        keep_portraits=True,
    )  # fmt: skip
    return edited


def style_texts(clip: Clip, say: Callable[[str | None, np.random.Generator], str] = captions.caption) -> np.ndarray:
    """(styles, D): the mean of a dozen sentences about each style."""
    rng = np.random.default_rng(0)
    texts = [clip.embed_texts([say(look, rng) for _ in range(12)]).mean(0) for look in LOOKS[1:]]
    return torch.stack(texts).numpy()


def grade_style(
    judges: Judges,
    names: np.ndarray,
    portraits: np.ndarray,
    truth: np.ndarray,
    edited: np.ndarray,
    place: int,
    wording: str,
) -> list[Mark]:
    """portraits, truth, edited: (N, H, W, 3) uint8.  place: of the style in LOOKS."""
    vae = zoo.load("editor", "embedded").pipeline.vae
    region = changed_pixels(truth, portraits)[:, 0].numpy() > 0
    errors = {
        name: np.abs(images.astype(np.float32) - truth).mean(axis=-1) / 255.0
        for name, images in (("edit", edited), ("no edit", portraits), ("rebuilt", reconstruct(vae, truth)))
    }
    inside = {name: (error * region).sum(axis=(1, 2)) for name, error in errors.items()}
    outside = {name: (error * ~region).sum(axis=(1, 2)) for name, error in errors.items()}
    far, near = (_distance(judges, images, truth) for images in (portraits, edited))
    named = (judges.clip.embed_images(edited).numpy() @ names.T).argmax(axis=1) == place - 1
    faces = [zoo.load("identity", "embedded").embed(images).numpy() for images in (portraits, edited, truth)]
    kept = (faces[0] * (faces[1] - faces[2])).sum(axis=1)
    count = len(portraits)
    about: dict[str, Any] = {"subject": name_look(LOOKS[place]), "group": wording}
    unchanged = (~region).sum(axis=(1, 2)) * float((~region).mean() >= MIN_OUTSIDE)
    beyond = share_of(outside["edit"] - outside["rebuilt"], unchanged)
    return [
        grade("inside", "error inside the edit, of no edit's", count, share_of(inside["edit"], inside["no edit"]),
              bar=MAX_INSIDE, higher=False, **about),
        grade("outside", "error outside, beyond the rebuilt picture's", count, beyond,
              bar=MAX_OUTSIDE, higher=False, **about),
        grade("lpips", "LPIPS to the true edit, of no edit's", count, share_of(near, far),
              bar=MAX_LPIPS, higher=False, **about),
        grade("named", "style named by CLIP", count, mean_of(named), bar=MIN_NAMED, **about),
        grade("identity", "identity, beyond the true edit's", count, mean_of(kept), bar=-MAX_IDENTITY_LOSS, **about),
    ]  # fmt: skip


@torch.no_grad()
def _distance(judges: Judges, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """LPIPS (N,) between pictures (N, H, W, 3) uint8."""
    distance: np.ndarray = judges.lpips(signed(first), signed(second)).numpy()
    return distance
