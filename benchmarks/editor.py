"""The 2D editor: samples a second, diffusers' plain pipeline against ours at equal steps; what the shortcuts cost.

    .venv/bin/python -m benchmarks.editor [--parts speed quality] [--steps 20] [--samples 4] [--out FILE.json]

Speed: on one thread, warm, in turns; the limit is that of the UNet's arithmetic at the rate of a plain matrix product
in the same run. Quality: heads that no network met, edited with fewer steps or with guidance in a part of them, against
the true edit.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from data_catalog.config.profiles import load_settings
from models import camera, procedural
from models.editing.editor import Editor, Scales
from models.pixels import to_levels
from models.zoo import zoo
from tasks.evaluation.stopwatch import time_methods

UNSEEN = 900_000  # seeds of heads from here on are in no training
CHANGED = 4 / 255  # of values in [0, 1]: where the true edit moves a pixel by more
SIZE = 64
PROMPTS = {
    "bronze-statue": "turn her into a bronze statue",
    "clown": "make him look like a clown",
    "elf-ears": "give her elf ears",
    "marble-statue": "turn him into a marble statue",
    "neon": "as a neon portrait",
    "pencil-sketch": "as a pencil sketch",
    "red-hair": "make the hair red",
    "zombie": "turn him into a zombie",
}
SHORTCUTS: tuple[tuple[int, tuple[float, float]], ...] = (
    (44, (0.0, 1.0)), (30, (0.0, 1.0)), (20, (0.0, 1.0)), (15, (0.0, 1.0)), (10, (0.0, 1.0)), (5, (0.0, 1.0)),
    (20, (0.0, 0.75)), (20, (0.0, 0.5)), (20, (0.0, 0.25)), (20, (0.25, 1.0)), (20, (0.5, 1.0)), (20, (0.0, 0.0)),
)  # fmt: skip


def portraits(count: int, first: int, styles: list[str | None]) -> np.ndarray:
    """(count, styles, SIZE, SIZE, 3) uint8."""
    label = camera.orbit_label(0.1, 0.0)[0]
    rendered = [procedural.render_styles(procedural.portrait(first + i), label, SIZE, styles) for i in range(count)]
    pictures = [[to_levels(view.rgb) for view in head] for head in rendered]
    return np.array(pictures)


def measure_speed(editor: Editor, steps: int, samples: int, repeats: int) -> tuple[dict[str, Any], list[Row]]:
    """Seconds a sample of each way, and rows of the table."""
    edit = load_settings("demo").edit
    scales = Scales(edit.guidance_scale, edit.image_guidance_scale)
    pictures = portraits(samples, UNSEEN, [None])[:, 0]
    prompts, seeds = list(PROMPTS.values())[:samples], list(range(samples))

    def plain(chosen: slice) -> object:
        return editor.pipeline(
            prompt=prompts[chosen],
            image=torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float() / 255,
            num_inference_steps=steps,
            guidance_scale=scales.text,
            image_guidance_scale=scales.image,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[chosen]],
            output_type="np",
        )

    def ours(chosen: slice, image_scale: float = scales.image, keep: bool = False) -> object:
        given = pictures[chosen], prompts[chosen], seeds[chosen]
        return editor.edit(*given, steps, scales.text, image_scale, keep_portraits=keep)

    alone, whole = [slice(i, i + 1) for i in range(samples)], slice(samples)
    methods: dict[str, Callable[[], object]] = {
        "plain, one by one": lambda: [plain(each) for each in alone],
        "plain, one batch": lambda: plain(whole),
        "ours, one by one": lambda: [ours(each) for each in alone],
        "ours, as the stage": lambda: ours(whole, keep=True),
        "ours, as the stage, image scale 1": lambda: ours(whole, 1.0, keep=True),
    }
    seconds = {name: spent / samples for name, spent in time_methods(methods, repeats, "cpu").items()}
    limit = seconds_of_arithmetic(editor, steps)
    best = min(seconds["plain, one by one"], seconds["plain, one batch"])
    own = seconds["ours, as the stage"]
    row = Row(
        f"edits, {steps} steps", "/s", 1 / own, "diffusers' pipeline, the faster of loop and batch", 1 / best,
        ratio=best / own, limit=1 / limit, target="faster than the plain pipeline", reached=own < best,
    )  # fmt: skip
    return {"steps": steps, "threads": 1, "seconds_a_sample": seconds, "seconds_of_arithmetic": limit}, [row]


def seconds_of_arithmetic(editor: Editor, steps: int) -> float:
    """For one sample, if the UNet's three predictions ran as fast as a large matrix product does."""
    config = editor.unet.config
    latents = torch.zeros(3, config.in_channels, config.sample_size, config.sample_size)
    tokens = torch.zeros(3, editor.pipeline.tokenizer.model_max_length, config.cross_attention_dim)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        editor.unet(latents, torch.tensor(1), encoder_hidden_states=tokens)
    matrix = torch.randn(1024, 1024)
    spent = time_methods({"product": lambda: matrix @ matrix}, 10, "cpu")["product"]
    return steps * counter.get_total_flops() * spent / (2 * 1024**3)


def measure_quality(editor: Editor, heads: int) -> list[dict[str, Any]]:
    """For each shortcut, what it leaves of the error of no edit where the true edit changes the picture."""
    edit = load_settings("demo").edit
    pictures = portraits(heads, UNSEEN, [None, *PROMPTS])
    plain = pictures[:, 0].astype(np.float32) / 255
    rows = []
    for steps, interval in SHORTCUTS:
        left, outside, seconds = {}, [], time.process_time()
        for number, (style, prompt) in enumerate(PROMPTS.items(), start=1):
            made = editor.edit(
                pictures[:, 0], [prompt] * heads, range(heads), steps, edit.guidance_scale,
                edit.image_guidance_scale, interval, keep_portraits=True,
            ).astype(np.float32) / 255  # fmt: skip
            truth = pictures[:, number].astype(np.float32) / 255
            region = (np.abs(truth - plain).max(-1) > CHANGED)[..., None]
            left[style] = float((np.abs(made - truth) * region).sum() / (np.abs(plain - truth) * region).sum())
            outside.append(float((np.abs(made - truth) * ~region).sum() / max(1, 3 * (~region).sum())))
        spent = (time.process_time() - seconds) / heads / len(PROMPTS)
        mean, worst = float(np.mean(list(left.values()))), max(left, key=lambda style: left[style])
        numbers = {
            "cpu_s": spent,
            "error_left": mean,
            "error_left_worst": left[worst],
            "outside_l1": sum(outside) / len(outside),
        }
        rounded = {name: round(value, 4) for name, value in numbers.items()}
        rows.append({"steps": steps, "guidance_interval": list(interval), "worst": worst, **rounded})
        print(rows[-1], flush=True)
    return rows


def show_quality(rows: list[dict[str, Any]]) -> None:
    table = Table("steps", "guided share", "CPU s", "error left", "worst style", "outside", box=None)
    for row in rows:
        low, high = row["guidance_interval"]
        worst = f"{row['error_left_worst']:.3f} {row['worst']}"
        cells = f"{low:g} to {high:g}", f"{row['cpu_s']:.3f}", f"{row['error_left']:.3f}", worst
        table.add_row(str(row["steps"]), *cells, f"{row['outside_l1']:.4f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=["speed", "quality"], default=["speed"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--heads", type=int, default=5, help="unseen heads, each in every style")
    parser.add_argument("--out", type=Path, help="default: in benchmarks/results")
    options = parser.parse_args()
    editor: Editor = zoo.load("editor", "embedded")
    if "speed" in options.parts:
        document, rows = measure_speed(editor, options.steps, options.samples, options.repeats)
        show_rows(rows)
        write_results(options.out or RESULTS / "editor.json", document, rows)
    if "quality" in options.parts:
        torch.set_num_threads(1)
        measured = measure_quality(editor, options.heads)
        show_quality(measured)
        out = options.out or RESULTS / "editor-quality.json"
        write_results(out, {"heads": options.heads, "styles": list(PROMPTS), "quality": measured}, [])


if __name__ == "__main__":
    main()
