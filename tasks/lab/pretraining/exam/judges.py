"""The exam of the networks that measure or read: landmarks and the camera they give, CLIP, identity, LPIPS, MAE."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from data_catalog.config.profiles import load_settings
from models import procedural
from models.pixels import signed
from models.zoo import zoo
from tasks.align import Clues, align_portrait
from tasks.lab.pretraining import captions
from tasks.lab.pretraining.exam.edits import HELD_OUT, TRAINED, name_look, style_texts
from tasks.lab.pretraining.faces import Faces
from tasks.lab.pretraining.marks import Examined, Mark, Sheet, Statistic, grade, mean_of, median_of
from tasks.lab.pretraining.pictures import LOOKS, SIZE_PX, VALIDATION_SEEDS, Pictures
from tasks.pictures.sheets import contact_sheet
from tasks.tables.portraits import Portrait

ALIGNED = 48  # people
MAX_LANDMARK_PX, MAX_ROTATION_DEG = 1.5, 3.0
IDENTITY_DRAWS = 200  # of the bootstrap: a draw weighs a million pairs
DRAWN, MARKER_SCALE = 8, 4
TRUTH_RGB, FOUND_RGB = (40, 230, 90), (255, 60, 60)


def examine_landmarks(pictures: Pictures) -> Examined:
    """Points on photographs and on crops in every look; and the camera that the stage align finds through them."""
    detector = zoo.load("landmarks", "embedded")
    found, _ = detector.detect(pictures.photos)
    error = np.linalg.norm(found - pictures.photo_landmarks, axis=-1) * SIZE_PX
    title = "error on photographs, px of 64, median"
    marks = [grade("photo_error_px", title, len(error), median_of(error), bar=MAX_LANDMARK_PX, higher=False)]
    for place, look in enumerate(LOOKS):
        points, _ = detector.detect(pictures.crops[:, place])
        away = np.linalg.norm(points - pictures.crop_landmarks, axis=-1) * SIZE_PX
        marks.append(grade("crop_error_px", "error on crops, px of 64, median", len(away), median_of(away),
                           bar=MAX_LANDMARK_PX, higher=False, subject=name_look(look)))  # fmt: skip
    turned = _rotation_errors(min(ALIGNED, len(error)))
    title = "rotation error of align's camera, degrees, median"
    marks.insert(1, grade("rotation_error_deg", title, len(turned), median_of(turned),
                          bar=MAX_ROTATION_DEG, higher=False))  # fmt: skip
    cells = [_draw_points(*each) for each in zip(pictures.photos, pictures.photo_landmarks, found, strict=True)][:DRAWN]
    rows = [cells[start : start + DRAWN // 2] for start in range(0, len(cells), DRAWN // 2)]
    return Examined(marks, [Sheet("Circles: the truth. Crosses: what is found", [], contact_sheet(rows))])


def _rotation_errors(people: int) -> np.ndarray:
    """Degrees (N,) by the stage's own code, on raw photographs with yaws to +-0.5; infinite for a rejected face."""
    settings = load_settings("demo", [])
    clues = Clues(detector=zoo.load("landmarks", "embedded"))
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(VALIDATION_SEEDS, VALIDATION_SEEDS + people):
            photo = procedural.raw_photo(seed)
            portrait = Portrait(portrait_id=str(seed), name=str(seed), seed=seed, camera_true=photo.label.tolist())
            error = align_portrait(portrait, photo.rgb, clues, settings, Path(folder))[0].rotation_error_deg
            errors.append(np.inf if error is None else error)
    return np.array(errors)


def _draw_points(photo: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """photo: (H, W, 3) uint8.  truth, found: (5, 2) in [0, 1].  Returns it larger, with both."""
    large = cv2.resize(photo, None, fx=MARKER_SCALE, fy=MARKER_SCALE, interpolation=cv2.INTER_NEAREST)
    size = large.shape[0]
    for x, y in (truth * size).round().astype(int):
        cv2.circle(large, (int(x), int(y)), 6, TRUTH_RGB, 1, cv2.LINE_AA)
    for x, y in (found * size).round().astype(int):
        cv2.drawMarker(large, (int(x), int(y)), FOUND_RGB, cv2.MARKER_CROSS, 7, 1, cv2.LINE_AA)
    return large


def examine_clip(pictures: Pictures) -> Examined:
    """Measure how often a picture of a style scores above all other pictures for a sentence about the style."""
    clip = zoo.load("clip", "embedded")
    features = np.stack([clip.embed_images(crops).numpy() for crops in pictures.crops])  # (N, looks, D)
    people = len(features)
    marks: list[Mark] = []
    for wording, say in ((TRAINED, captions.caption), (HELD_OUT, captions.held_out_instruction)):
        scores = features @ style_texts(clip, say).T  # (N, looks, styles)
        won = np.stack([wins_of(scores[:, :, place], place + 1) for place in range(len(LOOKS) - 1)])
        named = scores[:, 1:].argmax(axis=-1) == np.arange(len(LOOKS) - 1)
        by_style = zip(map(name_look, LOOKS[1:]), won, named.T, strict=True)
        for subject, wins, right in [("", won.mean(0), named), *by_style]:
            about: dict[str, Any] = {"subject": subject, "group": wording}
            marks += [
                grade("auc", "AUC, the style's pictures above all others", people, _mean_pair(wins), **about),
                grade("named", "true edit named among the styles", people, mean_of(right), **about),
            ]
    return Examined(marks)


def wins_of(scores: np.ndarray, place: int) -> np.ndarray:
    """(N, N): how often a person's picture in the look beats another person's pictures without.  scores: (N, looks)."""
    own, others = scores[:, place], np.delete(scores, place, axis=1)
    difference = own[:, None, None] - others[None]
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=-1)


def _mean_pair(values: np.ndarray) -> Statistic:
    """The mean over ordered pairs of people.  values: (N, N)."""
    return lambda people: float(values[np.ix_(people, people)].mean())


def examine_identity(faces: Faces) -> Examined:
    """Verification on people never trained on. `evaluate` compares plain with styled (ID) and two in one style (3D)."""
    network = zoo.load("identity", "embedded")
    embedding = np.stack([network.embed(images).numpy() for images in faces.images])
    count, pictures, _ = embedding.shape
    flat = embedding.reshape(count * pictures, -1)
    first, second = np.triu_indices(len(flat), 1)
    cosine = np.concatenate([flat[i] @ flat[i + 1 :].T for i in range(len(flat) - 1)])
    looks = faces.looks.reshape(-1)
    plain = looks == 0
    kinds = {
        "auc_plain": ("AUC, two plain pictures", plain[first] & plain[second]),
        "auc_plain_to_styled": ("AUC, a plain picture and a styled one", plain[first] ^ plain[second]),
        "auc_one_style": ("AUC, two pictures in one style", ~plain[first] & (looks[first] == looks[second])),
        "auc_all": ("AUC, any two pictures", np.ones_like(first, dtype=bool)),
    }
    return Examined([
        grade(kind, title, count, verification(cosine[which], first[which] // pictures, second[which] // pictures),
              IDENTITY_DRAWS)
        for kind, (title, which) in kinds.items()
    ])  # fmt: skip


def verification(cosine: np.ndarray, first: np.ndarray, second: np.ndarray) -> Statistic:
    """AUC of "the same person" by the cosine of pairs of pictures of the people `first` and `second`, all (P,)."""
    order = np.argsort(cosine, kind="stable")
    first, second = first[order], second[order]
    same = first == second

    def auc(people: np.ndarray) -> float:
        times = np.bincount(people, minlength=int(max(first.max(), second.max())) + 1).astype(np.float64)
        # Two copies of one person are neither a pair of the same nor of two people.
        weight = np.where(same, times[first], times[first] * times[second])
        other = np.where(same, 0.0, weight)
        below = np.cumsum(other) - other / 2
        own = np.where(same, weight, 0.0)
        total = own.sum() * other.sum()
        return float((own * below).sum() / total) if total > 0 else float("nan")

    return auc


@torch.no_grad()
def examine_perceptual(pictures: Pictures) -> Examined:
    """Measure whether a disturbed picture is nearer than another person's, and a blurred edit nearer than no edit."""
    metric = zoo.load("lpips", "embedded")
    plain = signed(pictures.crops[:, 0])
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    disturbed, other = (plain + 0.05 * noise).clamp(-1, 1), plain.roll(1, dims=0)
    nearer = (metric(plain, disturbed) < metric(plain, other)).numpy()
    title = "a disturbed picture is nearer than another person's"
    marks = [grade("disturbed_nearer", title, len(nearer), mean_of(nearer))]
    for place, look in enumerate(LOOKS[1:], start=1):
        edit = signed(pictures.crops[:, place])
        blurred = nn.functional.avg_pool2d(edit, 3, 1, padding=1, count_include_pad=False)
        nearer = (metric(edit, blurred) < metric(edit, plain)).numpy()
        title = "a blurred edit is nearer to the edit than no edit"
        marks.append(grade("edit_seen", title, len(nearer), mean_of(nearer), subject=name_look(look)))
    return Examined(marks)


@torch.no_grad()
def examine_mae(pictures: Pictures) -> Examined:
    """Measure how well the mean token names the look, by the nearest mean over the other half of the people."""
    mae = zoo.load("mae", "embedded")
    features = torch.stack([mae.tokens(crops)[:, 1:].mean(1) for crops in pictures.crops]).numpy()  # (N, looks, D)
    half = len(features) // 2
    centres, deviation = features[:half].mean(0), features[:half].std((0, 1)) + 1e-6
    distance = (((features[half:, :, None] - centres) / deviation) ** 2).sum(-1)
    right = distance.argmin(-1) == np.arange(len(LOOKS))
    return Examined([grade("look_named", "look told by the mean token", len(right), mean_of(right))])
