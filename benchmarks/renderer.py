"""Our volume renderer beside one that goes about it as EG3D's does: seconds and memory, forward and in training.

    .venv/bin/python -m benchmarks.renderer [--resolution 128] [--repeats 3] [--device cpu] [--out FILE.json]

Both render the same triplane with the same decoder, 48 + 48 samples a ray; the pictures and the gradients are compared
first. Times are CPU time of one thread (on a GPU: wall time), the two take turns and the fastest turn counts. Memory is
the peak of a process that does nothing else, less what it held before.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from models.camera import orbit_label
from models.three_d.rendering import RayOptions, TriplaneDecoder, VolumeRenderer, sample_rays

Render = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # planes to features, depth, opacity
OPTIONS = RayOptions()
PLANE_CHANNELS, PLANE_SIZE = 32, 256
WAVES = 16


class AsEg3d:
    """Two passes as the reference carries them out: every step a tensor of its own, all samples sorted by depth."""

    # Rows: the two axes of each plane, and the one that it is seen along.
    AXES = torch.tensor(
        [[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
    )

    def __init__(self, decoder: TriplaneDecoder, origins: Tensor, directions: Tensor) -> None:
        self.decoder, self.origins, self.directions = decoder, origins, directions

    def __call__(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, rays = self.origins.shape[:2]
        count = OPTIONS.coarse_samples
        step = (OPTIONS.ray_end - OPTIONS.ray_start) / (count - 1)
        near = torch.linspace(OPTIONS.ray_start, OPTIONS.ray_end, count, device=planes.device)
        coarse = (near.view(1, 1, count, 1) + 0.5 * step).expand(batch, rays, count, 1)
        colours, densities = self.run(planes, coarse)
        weights = self.march(colours, densities, coarse)[2]
        fine = self.importance(coarse, weights)
        more_colours, more_densities = self.run(planes, fine)
        depths = torch.cat([coarse, fine], dim=-2)
        colours, densities = torch.cat([colours, more_colours], dim=-2), torch.cat([densities, more_densities], dim=-2)
        depths, order = torch.sort(depths, dim=-2)
        colours = torch.gather(colours, -2, order.expand(-1, -1, -1, colours.shape[-1]))
        densities = torch.gather(densities, -2, order)
        features, depth, weights = self.march(colours, densities, depths)
        return features, depth, weights.sum(2)[..., 0]

    def run(self, planes: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (B, R, S, F) and raw densities (B, R, S, 1) at depths (B, R, S, 1)."""
        batch, rays, count = depths.shape[:3]
        points = (self.origins[:, :, None] + depths * self.directions[:, :, None]).reshape(batch, -1, 3)
        points = (2 / OPTIONS.box_warp) * points
        repeated = points[:, None].expand(-1, 3, -1, -1).reshape(batch * 3, -1, 3)
        projected = torch.bmm(repeated, self.AXES.to(planes).transpose(1, 2).repeat(batch, 1, 1))[..., :2]
        split = planes.reshape(batch * 3, PLANE_CHANNELS, PLANE_SIZE, PLANE_SIZE)
        sampled = F.grid_sample(split, projected[:, None], align_corners=False)
        sampled = sampled.permute(0, 3, 2, 1).reshape(batch, 3, -1, PLANE_CHANNELS).mean(1)
        hidden = self.decoder.net(sampled.reshape(-1, PLANE_CHANNELS)).view(batch, rays, count, -1)
        return torch.sigmoid(hidden[..., 1:]) * (1 + 2 * 0.001) - 0.001, hidden[..., :1]

    def march(self, colours: Tensor, densities: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, R, F), depth (B, R) and weights (B, R, S-1, 1) of samples in their order."""
        deltas = depths[:, :, 1:] - depths[:, :, :-1]
        between = (colours[:, :, :-1] + colours[:, :, 1:]) / 2
        sigma = F.softplus((densities[:, :, :-1] + densities[:, :, 1:]) / 2 - 1)
        middles = (depths[:, :, :-1] + depths[:, :, 1:]) / 2
        alpha = 1 - torch.exp(-sigma * deltas)
        shifted = torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], -2)
        weights = alpha * torch.cumprod(shifted, -2)[:, :, :-1]
        total = weights.sum(2)
        depth = torch.nan_to_num(torch.sum(weights * middles, -2) / total, float("inf"))
        return torch.sum(weights * between, -2), torch.clamp(depth, depths.min(), depths.max())[..., 0], weights

    @torch.no_grad()
    def importance(self, depths: Tensor, weights: Tensor) -> Tensor:
        """More depths (B, R, K, 1) where the weights are, evenly in their distribution."""
        batch, rays = depths.shape[:2]
        flat, weights = depths.reshape(batch * rays, -1), weights.reshape(batch * rays, 1, -1)
        smooth = F.avg_pool1d(F.max_pool1d(weights, 2, 1, padding=1), 2, 1).squeeze(1) + 0.01
        edges, pdf = 0.5 * (flat[:, :-1] + flat[:, 1:]), smooth[:, 1:-1] + 1e-5
        cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), -1)
        cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], -1)
        u = torch.linspace(0, 1, OPTIONS.fine_samples, device=depths.device).expand(len(flat), -1).contiguous()
        index = torch.searchsorted(cdf, u, right=True)
        below, above = (index - 1).clamp_min(0), index.clamp_max(pdf.shape[-1])
        both = torch.stack([below, above], -1).view(len(flat), -1)
        cdfs, bins = (torch.gather(values, 1, both).view(len(flat), -1, 2) for values in (cdf, edges))
        width = cdfs[..., 1] - cdfs[..., 0]
        width = torch.where(width < 1e-5, torch.ones_like(width), width)
        fine = bins[..., 0] + (u - cdfs[..., 0]) / width * (bins[..., 1] - bins[..., 0])
        return fine.view(batch, rays, OPTIONS.fine_samples, 1)


def scene(resolution: int, device: str) -> tuple[Tensor, TriplaneDecoder, Tensor, Tensor]:
    """Planes (1, 96, 256, 256) of cosines, a decoder, origins and directions of all rays of a view."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(3 * PLANE_CHANNELS, WAVES, WAVES, generator=generator)
    places = (torch.arange(PLANE_SIZE) + 0.5) / PLANE_SIZE
    basis = torch.cos(torch.pi * torch.arange(WAVES)[:, None] * places)
    planes = torch.einsum("cab,ai,bj->cij", waves, basis, basis)
    planes = (1.5 * planes / planes.std())[None].to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = TriplaneDecoder(PLANE_CHANNELS, 64, 32).to(device)
    origins, directions = sample_rays(orbit_label(0.2, 0.1).to(device), resolution)
    return planes, decoder, origins, directions


def renderers(resolution: int, device: str) -> tuple[Tensor, TriplaneDecoder, dict[str, Render]]:
    """Both, on one scene."""
    planes, decoder, origins, directions = scene(resolution, device)
    volume = VolumeRenderer(OPTIONS)
    ways: dict[str, Render] = {
        "as EG3D": AsEg3d(decoder, origins, directions),
        "ours": lambda given: volume(given, decoder, origins, directions),
    }
    return planes, decoder, ways


def forward(render: Render, planes: Tensor, decoder: TriplaneDecoder) -> list[Tensor]:
    with torch.no_grad():
        return list(render(planes))


def train(render: Render, planes: Tensor, decoder: TriplaneDecoder) -> list[Tensor]:
    """Forward and backward, to the planes and to the decoder. Returns the gradients."""
    given = planes.clone().requires_grad_(True)
    features, depth, opacity = render(given)
    loss = features.square().mean() + (depth * opacity).mean()
    return list(torch.autograd.grad(loss, [given, *decoder.parameters()]))


TASKS: dict[str, Callable[[Render, Tensor, TriplaneDecoder], list[Tensor]]] = {"forward": forward, "training": train}


def differences(resolution: int, device: str) -> dict[str, float]:
    """Largest difference of outputs and of gradients between the two, over the largest value."""
    planes, decoder, ways = renderers(resolution, device)
    found = {}
    for task, work in TASKS.items():
        pairs = zip(work(ways["as EG3D"], planes, decoder), work(ways["ours"], planes, decoder), strict=True)
        found[task] = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    return found


def seconds(task: str, resolution: int, device: str, repeats: int) -> dict[str, float]:
    """Return the seconds of the fastest turn, by renderer."""
    planes, decoder, ways = renderers(resolution, device)
    on_gpu = device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    best: dict[str, float] = {}
    for _ in range(repeats + 1):  # the first turn warms up, and is never the fastest
        for name, render in ways.items():
            started = clock()
            TASKS[task](render, planes, decoder)
            if on_gpu:
                torch.cuda.synchronize()
            best[name] = min(best.get(name, float("inf")), clock() - started)
    return best


def peak_mb(task: str, name: str, resolution: int, device: str) -> float:
    """Peak memory of one turn in a process of its own, beyond what it held before."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return float(pool.apply(_peak_mb, (task, name, resolution, device)))


def _peak_mb(task: str, name: str, resolution: int, device: str) -> float:
    torch.set_num_threads(1)
    planes, decoder, ways = renderers(resolution, device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        TASKS[task](ways[name], planes, decoder)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak; getrusage's comes down from the parent process
    before = _status_kb("VmRSS")
    TASKS[task](ways[name], planes, decoder)
    return (_status_kb("VmHWM") - before) * 1024 / 1e6


def _status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(resolution: int, device: str, repeats: int) -> dict[str, Any]:
    """Measure everything; returns a document."""
    document: dict[str, Any] = {
        "rays": resolution**2,
        "samples_per_ray": OPTIONS.coarse_samples + OPTIONS.fine_samples,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu, one thread",
        "differences": differences(min(resolution, 64), device),
    }
    for task in TASKS:
        spent = seconds(task, resolution, device, repeats)
        held = {name: peak_mb(task, name, resolution, device) for name in spent}
        document[task] = {name: {"seconds": spent[name], "peak_mb": round(held[name], 1)} for name in spent}
    return document


def rows_of(document: dict[str, Any]) -> list[Row]:
    """Seconds and memory of both."""
    rows = []
    for task in TASKS:
        theirs, ours = document[task]["as EG3D"], document[task]["ours"]
        for what, unit in (("seconds", "s"), ("peak_mb", "MB")):
            name = f"renderer at the paper's size, {task}" + (", memory" if unit == "MB" else "")
            rows.append(Row(name, unit, ours[what], "as EG3D", theirs[what], theirs[what] / ours[what]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "renderer.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    document = measure(options.resolution, options.device, options.repeats)
    rows = rows_of(document)
    show_rows(rows)
    Console().print(f"largest relative differences: {document['differences']}", highlight=False)
    write_results(options.out, document, rows)


if __name__ == "__main__":
    main()
