"""The exam of the teacher: every look of held-out people, from the portrait's camera and from four others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import camera, procedural
from models.pixels import signed, to_bytes
from models.zoo import zoo
from tasks.lab.pretraining.exam.edits import name_look
from tasks.lab.pretraining.marks import Examined, Mark, Sheet, grade, mean_of, median_of, share_of
from tasks.lab.pretraining.networks.teacher import CHANGE
from tasks.lab.pretraining.pictures import LOOKS, SIZE_PX, VALIDATION_SEEDS, Pictures
from tasks.pictures.inline import colour_depth, fit_cell
from tasks.pictures.sheets import contact_sheet

TAUGHT = 24  # people
YAWS = (-0.6, -0.35, 0.35, 0.6)  # rad
NEAR, FAR = [1, 2], [0, 3]  # places in YAWS
MIN_NEAR_DB, MIN_FAR_DB, MAX_DEPTH_ERROR = 24.0, 21.0, 0.03
SHOWN_NEAR, SHOWN_FAR = 2, 0  # views of the sheet
SCALE = 2


class _Found:
    """Numbers of N people: views in the order of YAWS, looks in that of LOOKS."""

    def __init__(self, people: int) -> None:
        self.input_db = np.zeros((people, len(LOOKS)))
        self.novel_db = np.zeros((people, len(YAWS), len(LOOKS)))
        self.depth = np.zeros((people, len(YAWS), len(LOOKS)))  # relative error, median over the head
        self.wrong = np.zeros((people, len(LOOKS)))  # inside the region that the look changes
        self.unedited = np.zeros((people, len(LOOKS)))


def examine_teacher(pictures: Pictures) -> Examined:
    people = min(TAUGHT, len(pictures.crops))
    found = _Found(people)
    cells: list[list[list[np.ndarray]]] = []
    for person in range(people):
        seen = _examine_person(pictures, person, found)
        cells = cells or seen
    return Examined(_grade(found), [_sheet(pictures, cells)])


@torch.no_grad()
def _examine_person(pictures: Pictures, person: int, found: _Found) -> list[list[list[np.ndarray]]]:
    """Fill in the numbers of one person; returns by view the rows (looks) of picture, truth, depth and true depth."""
    teacher, head = zoo.load("teacher", "embedded"), procedural.portrait(VALIDATION_SEEDS + person)
    portraits = signed(pictures.crops[person])
    triplane = teacher.encode(portraits)
    labels = [torch.from_numpy(pictures.crop_cameras[person])[None], *(camera.orbit_label(yaw, 0.0) for yaw in YAWS)]
    renders = [teacher.render(triplane, label.expand(len(portraits), -1)) for label in labels]
    found.input_db[person] = _psnr(renders[0].image, portraits)
    rows: list[list[list[np.ndarray]]] = []
    for view, (label, render) in enumerate(zip(labels[1:], renders[1:], strict=True)):
        truth = procedural.render_styles(head, label[0], SIZE_PX, list(LOOKS))
        images = torch.stack([picture.rgb for picture in truth]).permute(0, 3, 1, 2) * 2 - 1
        depths = torch.stack([picture.depth for picture in truth])[:, None]
        found.novel_db[person, view] = _psnr(render.image, images)
        found.depth[person, view] = _depth_error(render.depth, depths)
        change = (images - images[:1]).abs()
        region = change.amax(dim=1, keepdim=True) > 2 * CHANGE
        found.wrong[person] += ((render.image - images).abs() * region).sum(dim=(1, 2, 3)).numpy()
        found.unedited[person] += (change * region).sum(dim=(1, 2, 3)).numpy()
        if view in (SHOWN_NEAR, SHOWN_FAR):
            shapes = zip(_hide(render.depth, render.opacity), depths[:, 0].numpy(), strict=True)
            pairs = zip(to_bytes(render.image), to_bytes(images), strict=True)
            drawn = [[fit_cell(colour_depth(depth), SIZE_PX) for depth in pair] for pair in shapes]
            rows.append([[*pair, *depth] for pair, depth in zip(pairs, drawn, strict=True)])
    return rows


def _psnr(output: Tensor, target: Tensor) -> np.ndarray:
    """dB (B,) of pictures in [-1, 1]."""
    error = ((output.clamp(-1, 1) - target) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * torch.log10(error)).numpy()


def _depth_error(depth: Tensor, truth: Tensor) -> np.ndarray:
    """Relative, median over the rays that meet the head with all their pixels.

    depth: (B, 1, h, h) world units.  truth: (B, 1, 2h, 2h), inf off the head.  Returns (B,).
    """
    factor = truth.shape[-1] // depth.shape[-1]
    finite = torch.isfinite(truth)
    mean = nn.functional.avg_pool2d(torch.where(finite, truth, torch.zeros(())), factor)
    inside = nn.functional.avg_pool2d(finite.float(), factor) == 1
    error = (depth - mean).abs() / mean
    return np.array([float(one[where].median()) for one, where in zip(error, inside, strict=True)])


def _hide(depth: Tensor, opacity: Tensor) -> np.ndarray:
    """Depths (B, h, h), inf where there is no head."""
    return torch.where(opacity > 0.5, depth, torch.inf)[:, 0].numpy()


def _grade(found: _Found) -> list[Mark]:
    people = len(found.input_db)
    near, far = found.novel_db[:, NEAR], found.novel_db[:, FAR]
    marks = [
        grade("input_psnr_db", "PSNR at the portrait's view, dB", people, mean_of(found.input_db)),
        grade("novel_psnr_db_0.35", "PSNR at yaw ±0.35, dB", people, mean_of(near), bar=MIN_NEAR_DB),
        grade("novel_psnr_db_0.6", "PSNR at yaw ±0.6, dB", people, mean_of(far), bar=MIN_FAR_DB),
        grade("depth_error", "depth error, relative, median", people, median_of(found.depth),
              bar=MAX_DEPTH_ERROR, higher=False),
    ]  # fmt: skip
    for place, look in enumerate(LOOKS):
        about: dict[str, Any] = {"subject": name_look(look)}
        marks += [
            grade("novel_psnr_db_0.35", "PSNR at yaw ±0.35, dB", people, mean_of(near[:, :, place]), **about),
            grade("novel_psnr_db_0.6", "PSNR at yaw ±0.6, dB", people, mean_of(far[:, :, place]), **about),
        ]
        if look is not None:
            inside = share_of(found.wrong[:, place], found.unedited[:, place])
            marks.append(grade("inside", "error inside the look, of the plain head's", people, inside,
                               higher=False, **about))  # fmt: skip
    return marks


def _sheet(pictures: Pictures, cells: list[list[list[np.ndarray]]]) -> Sheet:
    """Draw one person in every look."""
    far, near = cells
    rows = [[pictures.crops[0, place], *near[place], *far[place]] for place in range(len(LOOKS))]
    sides = [f"yaw {YAWS[view]:+.2f}" for view in (SHOWN_NEAR, SHOWN_FAR)]
    columns = ["portrait", *(name for side in sides for name in (side, "truth", "depth", "true depth"))]
    title = f"One row a look: {', '.join(name_look(look) for look in LOOKS)}"
    return Sheet(title, columns, contact_sheet(rows, SCALE))
