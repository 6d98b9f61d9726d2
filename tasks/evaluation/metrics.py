"""Measures of an edited head: against the portrait, the prompt, its own views and, where known, the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models import procedural
from models.pixels import signed, to_bytes, to_levels
from models.procedural.render import CHANGED

if TYPE_CHECKING:
    from models.faces.recognition import Recogniser
    from models.judges.clip import Clip
    from models.judges.perceptual import Perceptual

# The paper's, CLIP by the kind of the prompt, and LPIPS to the truth or the pseudo-label.
MEASURES = ("id", "clip", "clip_image", "three_d", "lpips")
WITHOUT_TARGET = ("id", "clip", "three_d")  # measures that need the edited pictures only
TRUE_MEASURES = (  # only where the true styled head is known
    "l1_changed_input",  # inside the region that the true edit changes, at the input view
    "l1_changed_novel",  # the same at the novel views
    "l1_changed",  # the same over all views
    "l1_outside",  # where the true edit changes nothing, over all views
    "psnr_input",  # dB
    "psnr_novel",  # dB
    "lpips_novel",
    "depth_error",  # median over the head's pixels of all views, relative
    "silhouette_iou",  # of the head and its background, over all views
)


@dataclass(frozen=True)
class Judges:
    """Networks of the measures."""

    identity: Recogniser
    clip: Clip
    lpips: Perceptual


@dataclass(frozen=True)
class Views:
    """A head from V cameras; h is the ray resolution."""

    pictures: np.ndarray  # (V, H, W, 3) uint8
    depth: np.ndarray  # (V, h, h) world units along the ray; means nothing where opacity is near 0
    opacity: np.ndarray  # (V, h, h) in [0, 1]

    def part(self, places: slice) -> Views:
        """Return some of the views."""
        return Views(self.pictures[places], self.depth[places], self.opacity[places])


@dataclass(frozen=True)
class Asked:
    """Edit that is measured: its inputs, and the cameras that it is seen from."""

    portrait: np.ndarray  # (H, W, 3) uint8
    prompt: str
    pseudo_label: np.ndarray  # (H, W, 3) uint8
    cameras: np.ndarray  # (V, 25), the portrait's first
    poses: np.ndarray  # (2 * pairs, 25), random ones: 2 by 2 a pair of EG3D's protocol


@dataclass(frozen=True)
class Truth:
    """The true styled head from each camera, and where it differs from the plain one."""

    pictures: np.ndarray  # (V, H, W, 3) uint8
    changed: np.ndarray  # (V, H, W) bool
    depth: np.ndarray | None = None  # (V, h, h) world units along the ray, inf off the head
    posed: np.ndarray | None = None  # (2 * pairs, H, W, 3) uint8, from the pairs of random cameras


def true_heads(
    portrait_seed: int,
    cameras: np.ndarray,
    size: int,
    styles: Sequence[str],
    rays: int | None = None,
    poses: np.ndarray | None = None,
) -> dict[str, Truth]:
    """Render the true edits of a person of the procedural world, by style; unknown styles are left out.

    cameras: (V, 25).  rays: across the depths; without it there are none.  poses: (2 * pairs, 25), further cameras.
    """
    known = [style for style in styles if style in procedural.STYLES]
    person, count = procedural.portrait(portrait_seed), len(cameras)
    labels = cameras if poses is None else np.concatenate([cameras, poses])
    views = [
        procedural.render_styles(person, torch.from_numpy(label), size, [None, *known])
        for label in labels.astype(np.float32)
    ]
    rgb = np.stack([[picture.rgb.numpy() for picture in view] for view in views])
    changed = (np.abs(rgb - rgb[:, :1]) > CHANGED).any(axis=-1)
    levels = to_levels(rgb)
    heads = {
        style: Truth(levels[:count, i], changed[:count, i], posed=levels[count:, i])
        for i, style in enumerate(known, start=1)
    }
    if rays is None or not known:
        return heads
    shapes = [
        procedural.depths_of(person, torch.from_numpy(label), rays, known) for label in cameras.astype(np.float32)
    ]
    depths = np.stack([shape.numpy() for shape in shapes])
    return {style: replace(heads[style], depth=depths[:, i]) for i, style in enumerate(known)}


def measure(
    judges: Judges,
    views: Views | np.ndarray,
    asked: Asked,
    truth: Truth | None,
    reference: np.ndarray | None = None,
) -> dict[str, float | None]:
    """Compute the measures of one method on one sample; None where a measure is undefined.

    views: from all cameras of `asked`, those of its pairs last; or only their pictures (V + 2 * pairs, H, W, 3) uint8,
    without depths.  truth: from the cameras without the pairs.  reference: (H, W, 3) uint8, the picture that was the
    prompt; None where the text was.
    """
    seen, count = views.pictures if isinstance(views, Views) else views, len(asked.cameras)
    pictures = seen[:count]
    faces = judges.identity.embed_seen(
        np.stack([asked.portrait, seen[0], *seen[count:]]),
        np.concatenate([asked.cameras[:1], asked.cameras[:1], asked.poses]),
    )
    pairs = (faces[2::2] * faces[3::2]).sum(dim=1)
    looks, wanted = judges.clip.embed_images(pictures[:1]), judges.clip.embed_texts([asked.prompt])
    alike = None if reference is None else float(looks[0] @ judges.clip.embed_images(reference[None])[0])
    target = asked.pseudo_label[None] if truth is None else truth.pictures
    measured: dict[str, float | None] = dict.fromkeys(TRUE_MEASURES) | {
        "id": float(faces[0] @ faces[1]),
        "clip": float(looks[0] @ wanted[0]),
        "clip_image": alike,
        "three_d": float(pairs.mean()) if len(pairs) else None,
        "lpips": _lpips(judges.lpips, pictures[:1], target[:1]),
    }
    if truth is not None:
        measured |= _against_truth(pictures, truth) | {"lpips_novel": _lpips(judges.lpips, pictures[1:], target[1:])}
        if truth.depth is not None and isinstance(views, Views):
            measured |= _shape_against_truth(views.part(slice(count)), truth.depth)
    return measured


def _against_truth(views: np.ndarray, truth: Truth) -> dict[str, float | None]:
    error = np.abs(views.astype(np.float64) - truth.pictures) / 255.0
    per_pixel = error.mean(axis=-1)
    squared = (error**2).mean(axis=(1, 2, 3))
    psnr = -10.0 * np.log10(np.maximum(squared, 1e-10))
    return {
        "l1_changed_input": _mean(per_pixel[0], truth.changed[0]),
        "l1_changed_novel": _mean(per_pixel[1:], truth.changed[1:]),
        "l1_changed": _mean(per_pixel, truth.changed),
        "l1_outside": _mean(per_pixel, ~truth.changed),
        "psnr_input": float(psnr[0]),
        "psnr_novel": float(psnr[1:].mean()),
    }


def _shape_against_truth(views: Views, depth: np.ndarray) -> dict[str, float | None]:
    """depth: (V, h, h), inf off the head."""
    solid, head = views.opacity > 0.5, np.isfinite(depth)
    both, either = (solid & head).sum(), (solid | head).sum()
    seen, true = views.depth[solid & head], depth[solid & head]
    return {
        "depth_error": float(np.median(np.abs(seen - true) / true)) if both else None,
        "silhouette_iou": float(both / either) if either else None,
    }


def _mean(values: np.ndarray, where: np.ndarray) -> float | None:
    """The mean inside a region; None for an empty one (ears under long hair)."""
    return float(values[where].mean()) if where.any() else None


def _lpips(metric: Perceptual, first: np.ndarray, second: np.ndarray) -> float:
    device = next(metric.parameters()).device
    with torch.no_grad():
        return float(metric(signed(first, device), signed(second, device)).mean())


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each measure over the rows that have it."""
    means: dict[str, float | None] = {}
    for name in (*MEASURES, *TRUE_MEASURES):
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def bootstrap_intervals(rows: Sequence[dict[str, Any]], draws: int, seed: int) -> dict[str, list[float] | None]:
    """Return 95 % intervals of the means. Bootstrap over portraits: the styles of one portrait are not independent."""
    portraits = sorted({row["portrait_id"] for row in rows})
    place = {portrait: i for i, portrait in enumerate(portraits)}
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(portraits), np.full(len(portraits), 1 / len(portraits)), size=draws)
    intervals: dict[str, list[float] | None] = {}
    for name in (*MEASURES, *TRUE_MEASURES):
        sums, counts = np.zeros(len(portraits)), np.zeros(len(portraits))
        for row in rows:
            if row[name] is not None:
                sums[place[row["portrait_id"]]] += row[name]
                counts[place[row["portrait_id"]]] += 1
        drawn = times @ counts
        means = (times @ sums)[drawn > 0] / drawn[drawn > 0]
        intervals[name] = [float(q) for q in np.quantile(means, [0.025, 0.975])] if len(means) else None
    return intervals


def differences(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of ours minus theirs, edit by edit. A portrait's difficulty cancels, so intervals are narrower."""
    other = {row["key"]: row for row in theirs}
    rows = []
    for row in ours:
        values = {name: (row[name], other[row["key"]][name]) for name in (*MEASURES, *TRUE_MEASURES)}
        changes = {name: None if None in pair else pair[0] - pair[1] for name, pair in values.items()}
        rows.append({"key": row["key"], "portrait_id": row["portrait_id"], **changes})
    return rows


def improvement(ours: float | None, baseline: float | None) -> float | None:
    """Return the relative decrease of an error from the baseline's: 0.2 is 20 % less."""
    return None if ours is None or not baseline else 1.0 - ours / baseline


def look(model: Any, triplane: Tensor, cameras: Tensor) -> Views:
    """A triplane (1, 3*C, h, w) from cameras (V, 25), each view as if rendered alone."""
    with torch.no_grad():
        seen = model.render(triplane.expand(len(cameras), -1, -1, -1), cameras.to(triplane.device))
    shape = (seen.depth[:, 0].float().cpu().numpy(), seen.opacity[:, 0].float().cpu().numpy())
    return Views(to_bytes(seen.image), *shape)


def render_views(model: Any, triplane: Tensor, cameras: Tensor) -> np.ndarray:
    """The pictures (V, H, W, 3) uint8 of `look`."""
    return look(model, triplane, cameras).pictures
