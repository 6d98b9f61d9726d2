"""Do the gates know a good pseudo-label, and does a student learn more from what they keep? Against known truth.

    .venv/bin/python -m benchmarks.gates --root FOLDER [--figure docs/gates.png]

A pool of pseudo-labels is made by the project's own stages from four settings of the embedded editor, from careful
to careless. In the procedural world the true edit of each portrait is known: a pseudo-label is *close* when at least
half of the distance to it is gone, inside the region that the edit changes. Then students learn from what the gates
keep, from as many chosen by lot, and from everything; each with three seeds.

Everything is kept below FOLDER: the same command goes on where it was interrupted, and at the end only draws.
"""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gate_pool import OPEN, VARIANTS, Pool, Row, kept_by, make_pool, measure_truth, read_pool, write_dataset
from data_catalog.config.profiles import load_settings
from data_catalog.products.keys import DATASET
from data_catalog.samples.seeds import fraction
from data_catalog.store.record import Record
from data_catalog.store.stage import Input, Partition, Work

log = logging.getLogger(__name__)

CLOSE = 0.5  # of the distance to the true edit is gone
SEEDS = (0, 1, 2)
CALIBRATED = {  # every gate against a bad edit, each dropping this share of a style by the style's own scores
    "min_clip_text": 0.0,
    "min_clip_direction": 0.0,
    "min_ssim": 0.0,
    "max_lpips": 0.0,
    "min_identity": 0.0,
    "max_camera_drift_deg": 0.0,
    "calibration": "quantile",
    "quantile": 0.15,
}
TRAINING = ["distill.iterations=300", "distill.triplane_iterations=300", "distill.image_prompt_fraction=0"]
SCORES = {  # larger is better with this sign
    "score_clip_image": 1,
    "score_clip_text": 1,
    "score_clip_direction": 1,
    "score_identity": 1,
    "score_ssim": -1,
    "score_lpips": -1,
    "score_camera_drift_deg": -1,
    "score_teacher_lpips": -1,
    "score_view_identity": 1,
}


def single_gates() -> dict[str, dict[str, Any]]:
    """The demo's gates, all calibrated ones, and each of those alone."""
    sets: dict[str, dict[str, Any]] = {"the demo's gates": {}, "all, calibrated": {**OPEN, **CALIBRATED}}
    how = {name: CALIBRATED[name] for name in ("calibration", "quantile")}
    for gate in CALIBRATED.keys() - how.keys():
        sets[f"{gate}, calibrated"] = {**OPEN, **how, gate: 0.0}
    return dict(sorted(sets.items(), key=lambda each: (", calibrated" in each[0], len(each[1]) < 6, each[0])))


def share_close(pool: Pool, closed: dict[str, float], variant: str) -> float:
    """How many of a variant's training samples are close to the true edit."""
    mine = [row["key"] for row in pool.learned if row["variant"] == variant and row["key"] in closed]
    return float(np.mean([closed[key] >= CLOSE for key in mine]))


def judge_gates(pool: Pool, closed: dict[str, float]) -> list[Row]:
    """Precision and recall of `kept` against `close`, for each set of gates; the first row keeps everything."""
    rows = [row for row in pool.learned if row["key"] in closed]
    close = {row["key"] for row in rows if closed[row["key"]] >= CLOSE}
    table = []
    for name, gates in {"no gate": None, **single_gates()}.items():
        kept = {row["key"] for row in rows} if gates is None else kept_by(rows, gates)
        right = len(kept & close)
        values = {"kept": len(kept) / len(rows), "precision": right / max(len(kept), 1), "recall": right / len(close)}
        table.append({"gates": name} | values)
    return table


def judge_scores(pool: Pool, closed: dict[str, float]) -> list[Row]:
    """Of each score: the chance that a close sample scores better than one that is not, over all and within styles."""
    rows = [row for row in pool.learned if row["key"] in closed]
    styles = sorted({row["style"] for row in rows})
    table = []
    for score, sign in SCORES.items():
        known = [row for row in rows if row[score] is not None]
        within = [order_share([row for row in known if row["style"] == style], closed, score, sign) for style in styles]
        mean = [share for share in within if share is not None]
        share = order_share(known, closed, score, sign)
        table.append({"score": score, "all": share, "within styles": float(np.mean(mean)) if mean else None})
    return table


def order_share(rows: list[Row], closed: dict[str, float], score: str, sign: int) -> float | None:
    """The area under the curve; None where all samples are of one kind."""
    good = np.array([sign * row[score] for row in rows if closed[row["key"]] >= CLOSE])
    bad = np.array([sign * row[score] for row in rows if closed[row["key"]] < CLOSE])
    if not len(good) or not len(bad):
        return None
    difference = good[:, None] - bad[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def choose_arms(pool: Pool) -> dict[str, Callable[[int], list[Row]]]:
    """What each arm learns from, by seed. The first two have equally many samples of each style."""
    kept = kept_by(pool.learned, {**OPEN, **CALIBRATED})

    def draw_lots(seed: int) -> list[Row]:
        chosen: list[Row] = []
        for style in sorted({row["style"] for row in pool.learned}):
            mine = [row for row in pool.learned if row["style"] == style]
            lots = sorted(mine, key=lambda row: fraction("gates", seed, row["key"]))
            chosen += lots[: sum(row["key"] in kept for row in mine)]
        return chosen

    return {
        "kept by the gates": lambda seed: [row for row in pool.learned if row["key"] in kept],
        "as many by lot": draw_lots,
        "all": lambda seed: pool.learned,
    }


def train_student(root: Path, name: str, rows: list[Row], pool: Pool, seed: int) -> Path:
    """Distil a student from these rows; continues a run that was interrupted. Returns its folder."""
    from models.zoo import zoo
    from tasks.distill import Networks, distill

    settings = load_settings("demo", [*TRAINING, f"distill.seed={seed}"])
    rest = [row for row in pool.rows if row["split"] != "train"]
    dataset = write_dataset(root, f"{name}/dataset", rows + rest)
    folder = root / "gates" / name / "student"
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(
        partition=DATASET,
        stage="dataset",
        version=1,
        fingerprint="",
        fingerprint_inputs={},
        digest="",
        files={},
    )
    given = {"dataset": [Input(Partition("dataset"), dataset, "", record)]}
    work = Work(Partition("distill"), given, settings, {}, folder, root, root / "gates" / name / "working")
    names = ("teacher", "lpips", "clip", "mae")
    distill(work, Networks(*(zoo.load(each, settings.world, settings.run.device) for each in names)))
    return folder


def measure_student(folder: Path, pool: Pool, root: Path) -> dict[str, float]:
    """Error to the true styled head in the region that the edit changes, on portraits and prompts never met.

    `error` is the mean absolute difference in [0, 1], `less` how much smaller it is than of the unedited head,
    the mean over styles.
    """
    import torch

    from models.pixels import signed
    from models.three_d.inference import for_use
    from models.zoo import zoo
    from tasks.evaluation.metrics import render_views, true_heads
    from tasks.training.data import read_fields
    from tasks.training.student_files import load_student

    student, clip, teacher = (
        for_use(load_student(folder, "cpu")),
        *(zoo.load(n, "embedded") for n in ("clip", "teacher")),
    )
    errors: dict[str, list[tuple[float, float]]] = {}
    samples = [sample for sample in read_pool(pool, root) if sample.split == "test"]
    for portrait in sorted({sample.portrait_id for sample in samples}):
        mine = [sample for sample in samples if sample.portrait_id == portrait]
        camera = torch.tensor(mine[0].true_camera)[None]
        size = pool.settings.align.size
        truths = true_heads(mine[0].portrait_seed or 0, camera.numpy(), size, [sample.style for sample in mine])
        image = signed(read_fields(mine[0]).portrait[None], "cpu")
        with torch.no_grad():
            plain = render_views(teacher, teacher.encode(image), camera)[0]
        for sample in mine:
            where, truth = truths[sample.style].changed[0], truths[sample.style].pictures[0].astype(float)
            if not where.any():
                continue
            with torch.no_grad():
                triplane = student.encode(image, clip.text_tokens([sample.prompt]), "text")
            seen = render_views(student, triplane, camera)[0]
            pair = [float(np.abs(each - truth)[where].mean()) / 255 for each in (seen, plain)]
            errors.setdefault(sample.style, []).append((pair[0], pair[1]))
    means = {style: np.mean(pairs, axis=0) for style, pairs in errors.items()}
    return {
        "error": float(np.mean([mean[0] for mean in means.values()])),
        "less": float(np.mean([1 - mean[0] / mean[1] for mean in means.values()])),
        **{f"less {style}": float(1 - mean[0] / mean[1]) for style, mean in sorted(means.items())},
    }


def run_arms(pool: Pool, closed: dict[str, float], root: Path) -> dict[str, list[Row]]:
    """The students' numbers by arm; one that is there already is not trained again."""
    results: dict[str, list[Row]] = {}
    arms = choose_arms(pool)
    for seed in SEEDS:
        for arm, choose in arms.items():
            name = f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
            memory = root / "gates" / f"{name}.json"
            if not memory.exists():
                rows = choose(seed)
                folder = train_student(root, name, rows, pool, seed)
                share = float(np.mean([closed[row["key"]] >= CLOSE for row in rows if row["key"] in closed]))
                numbers = {"seed": seed, "samples": len(rows), "close": share} | measure_student(folder, pool, root)
                memory.write_text(json.dumps(numbers))
                log.info("%s: %s", name, numbers)
            results.setdefault(arm, []).append(json.loads(memory.read_text()))
    return results


def draw(document: Row, path: Path) -> None:
    """Left: precision and recall of each set of gates. Right: what students learned from each arm."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.2), width_ratios=(3, 2), layout="constrained")
    gates = document["gates"][::-1]
    places = np.arange(len(gates))
    for shift, name in ((0.27, "kept"), (0.0, "precision"), (-0.27, "recall")):
        values = [row[name] for row in gates]
        left.barh(places + shift, values, 0.25, label="share kept" if name == "kept" else name)
        for place, value in zip(places, values, strict=True):
            left.text(value + 0.01, place + shift, f"{value:.2f}", va="center", fontsize=7)
    left.set_yticks(places, [row["gates"] for row in gates])
    left.set_xlim(0, 1.12)
    left.set_title(f"kept against really close to the true edit ({document['pool']} pseudo-labels)", fontsize=10)
    left.legend(loc="lower right", fontsize=8)
    for number, rows in enumerate(document["students"].values()):
        values = [row["less"] for row in rows]
        right.scatter([number] * len(values), values, color="tab:blue", zorder=2)
        right.hlines(np.mean(values), number - 0.25, number + 0.25, color="black")
    names = [f"{arm}\n{rows[0]['samples']} samples" for arm, rows in document["students"].items()]
    right.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names], fontsize=8)
    right.set_ylim(0.4, 0.6)
    right.set_ylabel("less error than unedited, held-out portraits")
    right.set_title("students of each choice, three seeds", fontsize=10)
    right.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="data root of its own, kept between runs")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--until", choices=("pool", "gates", "students"), default="students")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pool = make_pool(options.root)
    if options.until == "pool":
        return
    closed = measure_truth(pool, options.root)
    document: Row = {
        "pool": len(closed),
        "close": float(np.mean([value >= CLOSE for value in closed.values()])),
        "variants": {name: share_close(pool, closed, name) for name in VARIANTS},
        "gates": judge_gates(pool, closed),
        "scores": judge_scores(pool, closed),
    }
    if options.until == "students":
        document["students"] = run_arms(pool, closed, options.root)
    (options.root / "gates" / "gates.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    if options.figure and "students" in document:
        draw(document, options.figure)


if __name__ == "__main__":
    main()
