"""The table: what each measure says of pictures whose answer is known, and the whole stage on untrained networks."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import DistillSettings, EvaluateSettings, Settings
from flows.cli.run import evaluation_table
from flows.cli.screen import plain_console
from models.camera import orbit_label
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.three_d import mae
from models.three_d.mae import Mae, MaeEncoder
from tasks.distill import make_student
from tasks.evaluate import choose_references, choose_tested, evaluate, training_poses
from tasks.evaluation import scene
from tasks.evaluation.figure import list_lines
from tasks.evaluation.methods import Models
from tasks.evaluation.metrics import (
    MEASURES,
    TRUE_MEASURES,
    WITHOUT_TARGET,
    Asked,
    Judges,
    Truth,
    Views,
    bootstrap_intervals,
    improvement,
    measure,
    summarise,
    true_heads,
)
from tasks.evaluation.operations import counted_speedup
from tasks.evaluation.stopwatch import time_all, time_methods
from tasks.evaluation.table import (
    BESIDE,
    IMAGE_PROMPT,
    METHODS,
    NO_EDIT,
    STUDENT,
    TEACHERS,
    TEACHERS_AS_EDITED,
    TRUE_HEAD,
    make_table,
)
from tasks.progress import Progress, listening
from tasks.reports.evaluation import MEASURES as COLUMNS_SHOWN
from tasks.reports.evaluation import describe_evaluation, show_difference
from tasks.training.data import read_samples
from tests.worlds import taught
from tests.worlds.tiny import tiny_clip, tiny_editor

EVALUATE = EvaluateSettings(
    timing_repeats=1, bootstrap=100, pictures_per_style=1, turntable_frames=4, timed_editor_steps=6
)
TITLES = ["method", "ID", "CLIP", "3D", "LPIPS", "L1 of the edit", "vs no edit", "s / image"]
COLUMNS = ["method", "id", "clip", "three_d", "lpips", "seconds_per_image"]


@pytest.fixture(scope="module")
def judges() -> Judges:
    torch.manual_seed(0)
    return Judges(Recogniser(IdentityNet().eval()), tiny_clip(), Perceptual.untrained().eval())


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, judges: Judges) -> Path:
    """The folder of a whole evaluation of a new student."""
    from tasks.training.batches import Prompts

    root, teacher = tmp_path_factory.mktemp("data"), taught.untrained_teacher()
    dataset = taught.write_dataset(root, teacher)
    mae_small = Mae(MaeEncoder(mae.EMBEDDED))
    settings = Settings(evaluate=EVALUATE, distill=DistillSettings()).model_copy(
        update={"edit": Settings().edit.model_copy(update={"steps": 2})}
    )
    prompts = Prompts(read_samples(dataset, root), judges.clip, mae_small)
    student = make_student(teacher, prompts, settings).eval()
    work = taught.work_on("evaluate", root, dataset, settings, distill=root)
    renders: list[int] = []
    teacher.renderer.register_forward_pre_hook(lambda _, inputs: renders.append(len(inputs[1])))
    models = Models(student, teacher, tiny_editor(judges.clip), judges.clip, mae_small, judges)
    known: list[tuple[int, int]] = []  # true heads, when progress is told
    paced: list[tuple[int | None, int | None]] = []
    heads = mock.Mock(wraps=true_heads)

    def hear(progress: Progress) -> None:
        known.append((progress.step, heads.call_count))
        paced.append((progress.total, progress.until))

    told = listening(hear)
    edit = mock.Mock(wraps=models.editor.edit)
    with told, mock.patch.object(scene, "true_heads", heads), mock.patch.object(models.editor, "edit", edit):
        summary = evaluate(work, models)
    steps = [call.args[3] for call in edit.call_args_list]
    assert steps == [EVALUATE.timed_editor_steps, settings.edit.steps] * 2  # in each of two turns
    # A portrait's true heads are found when its turn comes. Two turns of timing follow, of another pace.
    assert known == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)]
    assert paced == [(6, 4)] * 4 + [(6, None)] * 2
    together = 1 + EVALUATE.novel_views + 2 * EVALUATE.pose_pairs
    views, turns = renders.count(together), renders.count(EVALUATE.turntable_frames)
    assert (views, turns) == (4 + 2, 2 * 2)  # of the teacher: pseudo-labels and portraits; nothing twice to be drawn
    assert heads.call_count == 2  # nor are the true heads of a portrait
    assert summary.samples == 4  # two styles of two test portraits
    assert summary.metrics["speedup"] > 0
    return work.folder


def ask(
    portrait: np.ndarray, prompt: str, pseudo_label: np.ndarray, cameras: np.ndarray | None = None, pairs: int = 0
) -> Asked:
    """An edit that is seen from three cameras, and from the first `pairs` times two again."""
    seen = orbit_label(torch.tensor([0.0, -0.35, 0.35]), 0.0).numpy() if cameras is None else cameras
    return Asked(portrait, prompt, pseudo_label, seen, np.repeat(seen[:1], 2 * pairs, axis=0))


def test_the_table_has_the_contracts_methods_and_columns(evaluated: Path) -> None:
    document = json.loads((evaluated / "table.json").read_text())
    assert [row["method"] for row in document["table"]] == list(METHODS)
    for row in document["table"]:
        assert set(COLUMNS) <= set(row)
        assert all(isinstance(row[name], float) for name in (*COLUMNS[1:], "l1_changed", "psnr_novel"))
    assert set(document["per_style"]) == set(taught.STYLES)
    assert document["samples"] == 4
    assert document["lpips_to"] == "true styled head"


def test_a_student_that_has_not_learned_is_exactly_no_edit(evaluated: Path) -> None:
    document = json.loads((evaluated / "table.json").read_text())
    student, _, no_edit = document["table"]
    assert student["improvement"] == pytest.approx(0.0, abs=1e-6)
    for name in (*MEASURES, *TRUE_MEASURES):
        if name != "clip_image":  # of prompts that are pictures
            assert student[name] == pytest.approx(no_edit[name], abs=1e-4), name


def test_every_sample_has_a_row_for_each_method(evaluated: Path) -> None:
    rows = pq.read_table(evaluated / "per_sample.parquet").to_pylist()
    assert {row["method"] for row in rows} == {*METHODS, *BESIDE}
    assert len({(row["key"], row["method"]) for row in rows}) == len(rows) == 24
    assert all(row["portrait_id"] in ("p0000000005", "p0000000006") for row in rows)  # the test split


def test_the_true_head_is_measured_by_what_needs_no_truth_to_compare_with(evaluated: Path) -> None:
    document = json.loads((evaluated / "table.json").read_text())
    rows = pq.read_table(evaluated / "per_sample.parquet").to_pylist()
    mine = [row for row in rows if row["method"] == TRUE_HEAD]
    for name in (*MEASURES, *TRUE_MEASURES):
        if name in WITHOUT_TARGET:
            assert document["true_heads"][name] == pytest.approx(sum(row[name] for row in mine) / 4)
            low, high = document["intervals"][TRUE_HEAD][name]
            assert low <= document["true_heads"][name] <= high
        else:
            assert {row[name] for row in mine} == {None}
    with_truth = list_lines(document)["all"]
    assert set(with_truth[TRUE_HEAD]) == set(WITHOUT_TARGET)
    page = describe_evaluation(evaluated)
    assert [row["method"] for row in page["rows"]] == [*METHODS, IMAGE_PROMPT, TRUE_HEAD]


def test_the_report_shows_prompts_that_are_pictures_by_their_own_measure(evaluated: Path) -> None:
    document, page = json.loads((evaluated / "table.json").read_text()), describe_evaluation(evaluated)
    place = [measure.title for measure in page["measures"]].index("CLIP picture")
    cells = {row["method"]: row["cells"][place]["text"] for row in page["rows"]}
    assert cells[IMAGE_PROMPT] == f"{document['image_prompts']['clip_image']:.3f}"
    assert cells[STUDENT] == cells[TEACHERS] == "\N{EN DASH}"
    rows = [row for row in pq.read_table(evaluated / "per_sample.parquet").to_pylist() if row["clip_image"] is not None]
    assert {row["method"] for row in rows} == {IMAGE_PROMPT}
    assert document["image_prompts"]["clip_image"] == pytest.approx(np.mean([row["clip_image"] for row in rows]))


def test_pictures_are_where_the_table_says(evaluated: Path) -> None:
    pictures = json.loads((evaluated / "table.json").read_text())["pictures"]
    assert set(pictures) == set(taught.STYLES)
    for shown in pictures.values():
        with Image.open(evaluated / shown["comparison"]) as sheet:
            assert sheet.width > 7 * 128
        with Image.open(evaluated / shown["turntable"]) as turntable:
            assert getattr(turntable, "n_frames", 1) >= 3  # equal neighbours become one
        assert len(shown["columns"]) == 7


def test_the_figure_has_a_line_for_all_for_each_kind_of_prompt_and_for_each_style(evaluated: Path) -> None:
    table = json.loads((evaluated / "table.json").read_text())
    lines = list_lines(table)
    assert list(lines) == ["all", "all, words of the training", "all, asked by a picture", *sorted(table["per_style"])]
    mean, (low, high) = lines["all"]["student"]["lpips"]
    assert low <= mean <= high
    assert mean == next(row["lpips"] for row in table["table"] if row["method"] == "student")
    with Image.open(evaluated / "evaluation.png") as picture:
        assert picture.width > picture.height > 300


def test_the_true_edit_scores_perfectly_and_the_plain_head_does_not(judges: Judges) -> None:
    cameras = torch.cat([orbit_label(0.1, 0.0), orbit_label(torch.tensor([-0.35, 0.35]), 0.0)]).numpy()
    heads = true_heads(3, cameras, 64, ["clown", "unheard-of"])
    assert set(heads) == {"clown"}
    truth = heads["clown"]
    assert truth.changed.any(axis=(1, 2)).all()
    plain_truth = true_heads(3, cameras, 64, ["red-hair"])["red-hair"]
    asked = ask(truth.pictures[0], "a clown", truth.pictures[0], cameras)
    perfect = measure(judges, truth.pictures, asked, truth)
    assert perfect["l1_changed"] == perfect["l1_outside"] == 0.0
    assert perfect["lpips"] == pytest.approx(0.0, abs=1e-6)
    assert perfect["id"] == pytest.approx(1.0, abs=1e-4)
    wrong = measure(judges, plain_truth.pictures, asked, truth)
    assert wrong["l1_changed"] is not None
    assert wrong["l1_changed"] > 0.05
    assert wrong["lpips"] is not None
    assert wrong["lpips"] > 0.001


def test_a_shape_is_compared_where_both_heads_are(judges: Judges) -> None:
    cameras = torch.cat([orbit_label(0.0, 0.0), orbit_label(torch.tensor([-0.35, 0.35]), 0.2)]).numpy()
    heads = true_heads(3, cameras, 64, ["elf-ears", "red-hair"], rays=32)
    truth, plain = heads["elf-ears"], heads["red-hair"]
    assert truth.depth is not None
    assert plain.depth is not None
    assert truth.depth.shape == (3, 32, 32)
    assert np.isfinite(truth.depth).sum() > np.isfinite(plain.depth).sum()  # ears are added

    def seen(depth: np.ndarray) -> dict[str, float | None]:
        solid = np.isfinite(depth)
        views = Views(truth.pictures, np.where(solid, depth, 0.0), solid.astype(np.float32))
        return measure(judges, views, ask(truth.pictures[0], "x", truth.pictures[0], cameras), truth)

    perfect, without_ears, farther = seen(truth.depth), seen(plain.depth), seen(truth.depth * 1.02)
    assert (perfect["depth_error"], perfect["silhouette_iou"]) == (0.0, 1.0)
    assert 0.8 < (without_ears["silhouette_iou"] or 0) < 1.0
    assert farther["depth_error"] == pytest.approx(0.02, abs=1e-4)
    assert farther["silhouette_iou"] == 1.0
    asked = ask(truth.pictures[0], "x", truth.pictures[0], cameras)
    assert measure(judges, truth.pictures, asked, truth)["depth_error"] is None


def test_regions_and_views_are_kept_apart(judges: Judges) -> None:
    truth = Truth(np.zeros((3, 64, 64, 3), np.uint8), np.zeros((3, 64, 64), bool))
    truth.changed[0, :32] = True  # nothing changes in the novel views
    views = np.zeros((3, 64, 64, 3), np.uint8)
    views[0, :32], views[0, 32:], views[1:] = 51, 102, 255
    found = measure(judges, views, ask(views[0], "x", views[0]), truth)
    assert found["l1_changed_input"] == pytest.approx(0.2)
    assert found["l1_changed_novel"] is None
    assert found["l1_outside"] == pytest.approx((0.4 * 0.5 + 1.0 + 1.0) / 2.5)
    assert found["psnr_input"] == pytest.approx(10.0)  # mean squared error (0.04 + 0.16) / 2


def test_a_picture_as_the_prompt_is_compared_with_the_picture_and_words_with_words(judges: Judges) -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    asked, reference = ask(views[1], "a clown", views[2]), np.full((64, 64, 3), 90, np.uint8)
    by_words, by_picture = measure(judges, views, asked, None), measure(judges, views, asked, None, reference)
    edited, wanted = judges.clip.embed_images(np.stack([views[0], reference]))
    assert by_picture["clip_image"] == pytest.approx(float(edited @ wanted), abs=1e-5)
    assert by_words["clip_image"] is None
    text = float(edited @ judges.clip.embed_texts(["a clown"])[0])
    assert by_words["clip"] == by_picture["clip"] == pytest.approx(text, abs=1e-5)
    assert by_picture["clip_image"] != pytest.approx(text, abs=1e-3)


def test_3d_is_the_mean_identity_of_pairs_of_views_and_of_no_others(judges: Judges) -> None:
    views = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
    asked = ask(views[0], "x", views[0], pairs=2)
    faces = judges.identity.embed_seen(views[3:], asked.poses)
    expected = [float(faces[0] @ faces[1]), float(faces[2] @ faces[3])]
    found = measure(judges, views, asked, None)
    assert found["three_d"] == pytest.approx(np.mean(expected), abs=1e-5)
    same = views.copy()
    same[4], same[6] = same[3], same[5]
    assert measure(judges, same, asked, None)["three_d"] == pytest.approx(1.0, abs=1e-5)
    assert measure(judges, views[:3], ask(views[0], "x", views[0]), None)["three_d"] is None


def test_pairs_of_views_are_poses_of_the_training_portraits(tmp_path: Path) -> None:
    samples = read_samples(taught.write_dataset(tmp_path, taught.untrained_teacher()), tmp_path)
    known = training_poses(samples)
    assert len(known) == taught.SPLITS.count("train")  # a portrait counts once, whatever its styles
    assert len(training_poses([sample for sample in samples if sample.split == "test"])) == taught.SPLITS.count("test")
    settings = Settings(evaluate=EvaluateSettings(pose_pairs=3))
    seen_by = scene.Scene(settings, known, rays=32)
    drawn: dict[str, np.ndarray] = {}
    for sample in (sample for sample in samples if sample.split == "test"):
        poses = seen_by.poses(sample)
        assert poses.shape == (6, 25)
        assert all((known == pose).all(axis=1).any() for pose in poses)
        assert all((one != other).any() for one, other in poses.reshape(3, 2, 25))
        assert (drawn.setdefault(sample.portrait_id, poses) == poses).all()  # the same for every style
    one, other = drawn.values()
    assert (one != other).any()


def test_a_hundred_test_pairs_are_as_many_of_each_style_and_of_drawn_portraits(tmp_path: Path) -> None:
    some = next(
        s for s in read_samples(taught.write_dataset(tmp_path, taught.untrained_teacher()), tmp_path)
        if s.split == "test"
    )  # fmt: skip
    styles = [f"style-{n:02d}" for n in range(20)]
    many = [replace(some, key=f"p{i:03d}-{style}", portrait_id=f"p{i:03d}", style=style)
            for style in styles for i in range(30)]  # fmt: skip
    chosen = choose_tested(many, EvaluateSettings(samples=100))
    assert Counter(sample.style for sample in chosen) == dict.fromkeys(styles, 5)
    assert len({sample.portrait_id for sample in chosen}) > 20  # not the first five of every style
    assert chosen == choose_tested(many, EvaluateSettings(samples=100))
    assert chosen != choose_tested(many, EvaluateSettings(samples=100, seed=1))
    assert choose_tested(many, EvaluateSettings(samples=10_000)) == many
    assert load_settings("paper", []).evaluate.samples == 100


def test_without_truth_lpips_is_to_the_pseudo_label(judges: Judges) -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    found = measure(judges, views, ask(views[1], "x", views[0]), None)
    assert found["lpips"] == pytest.approx(0.0, abs=1e-6)
    assert all(found[name] is None for name in TRUE_MEASURES)


def test_intervals_come_from_portraits_not_from_rows() -> None:
    rows = [
        dict.fromkeys((*MEASURES, *TRUE_MEASURES)) | {"portrait_id": f"p{i}", "id": float(i)}
        for i in range(4)
        for _ in range(50)
    ]
    low, high = bootstrap_intervals(rows, 500, seed=0)["id"] or [0.0, 0.0]
    assert low <= 0.75 <= 2.25 <= high  # four portraits say little, however many rows they have
    assert bootstrap_intervals(rows, 500, seed=0)["clip"] is None
    assert bootstrap_intervals(rows, 500, seed=0) == bootstrap_intervals(rows, 500, seed=0)
    assert summarise(rows)["id"] == 1.5


def test_improvement_is_the_share_of_the_error_that_is_gone() -> None:
    assert improvement(0.08, 0.10) == pytest.approx(0.2)
    assert improvement(None, 0.10) is None
    assert improvement(0.1, None) is None


def row(style: str, method: str, error: float) -> dict[str, object]:
    empty = dict.fromkeys((*MEASURES, *TRUE_MEASURES))
    own = {"key": style, "style": style, "portrait_id": "p", "method": method, "truth": True}
    return empty | own | {"l1_changed": error}


def test_improvement_is_averaged_over_styles_not_over_pixels() -> None:
    errors = {"neon": (0.2, 0.1, 0.4), "elf-ears": (0.009, 0.01, 0.01)}
    rows = [row(style, m, e) for style, of in errors.items() for m, e in zip(METHODS, of, strict=True)]
    table = make_table(rows, dict.fromkeys(METHODS, 1.0), Settings(evaluate=EVALUATE))
    assert table["table"][0]["improvement"] == pytest.approx((0.5 + 0.1) / 2)


def test_a_difference_is_told_edit_by_edit_where_the_means_alone_tell_nothing() -> None:
    hard = {"a": 0.1, "b": 0.9, "c": 0.5}  # portraits differ far more than the methods do
    rows = [
        row("neon", method, error + better) | {"key": portrait, "portrait_id": portrait, "lpips": None}
        for portrait, error in hard.items()
        for method, better in ((STUDENT, 0.01), (TEACHERS, 0.0), (NO_EDIT, 0.5))
    ]
    found = make_table(rows, dict.fromkeys(METHODS, 1.0), Settings())
    ours, theirs = (found["intervals"][method]["l1_changed"] for method in (STUDENT, TEACHERS))
    assert ours[0] < theirs[1]  # they overlap
    assert found["difference"]["means"]["l1_changed"] == pytest.approx(0.01)
    assert found["difference"]["intervals"]["l1_changed"] == pytest.approx([0.01, 0.01])
    assert found["difference"]["means"]["lpips"] is found["difference"]["intervals"]["lpips"] is None
    measures = [each for each in COLUMNS_SHOWN if each.name in ("lpips", "l1_changed")]
    unknown, known = show_difference(found["difference"], measures)
    assert unknown == {"text": "", "spread": "", "sure": False}
    assert known == {"text": "+0.0100", "spread": "+0.0100 to +0.0100", "sure": True}


def test_the_screen_shows_the_columns_of_the_readme_the_difference_and_each_style(evaluated: Path) -> None:
    document = json.loads((evaluated / "table.json").read_text()) | {"mlflow_run_id": "abc", "seconds": 1.0}
    screen = io.StringIO()
    evaluation_table(document, plain_console(file=screen, width=120))
    lines = screen.getvalue().splitlines()
    assert [name.strip() for name in re.split("  +", lines[0])] == TITLES
    assert [line.split("  ")[0].strip() for line in lines[1:5]] == [*METHODS, "difference *"]
    assert "?" in lines[4]  # of two portraits
    assert {line.split()[0] for line in lines[7:] if "%" in line} == set(taught.STYLES)
    assert "times at 6 editor steps" in screen.getvalue()
    assert "times at 2 editor steps" in screen.getvalue()
    assert f"{counted_speedup(6):.0f} to 1 at 6 editor steps" in screen.getvalue()
    assert f"CLIP {document['image_prompts']['clip_image']:.3f} to the picture" in screen.getvalue()


def test_the_speedup_is_of_the_timed_editor_steps_and_beside_it_that_of_the_dataset_s(evaluated: Path) -> None:
    document = json.loads((evaluated / "table.json").read_text())
    timing = document["timing"]
    seconds = {row["method"]: row["seconds_per_image"] for row in document["table"]}
    names = list(timing)
    assert seconds[TEACHERS] == timing[TEACHERS]
    assert names.index(TEACHERS) < names.index(TEACHERS_AS_EDITED)  # the order in which they were timed, 6 steps and 2
    assert (document["timed_editor_steps"], document["edit_steps"]) == (6, 2)
    assert document["speedup"] == pytest.approx(timing[TEACHERS] / timing[STUDENT])
    assert document["speedup_as_edited"] == pytest.approx(timing[TEACHERS_AS_EDITED] / timing[STUDENT])


def test_of_one_number_of_editor_steps_there_is_one_speedup() -> None:
    rows = [row("neon", method, 0.1) for method in METHODS]
    table = make_table(rows, {**dict.fromkeys(METHODS, 1.0), TEACHERS: 60.0}, Settings(evaluate=EvaluateSettings()))
    assert table["speedup"] == table["speedup_as_edited"] == 60.0
    assert table["timed_editor_steps"] == Settings().edit.steps


def test_methods_are_timed_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = time_methods({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, "cpu")
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


@pytest.fixture
def nap(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass on the stopwatch, and no others: a busy machine adds none."""
    now = [0.0]
    monkeypatch.setattr("tasks.evaluation.stopwatch.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def test_a_time_is_the_mean_of_the_repetitions_after_the_warm_up(nap: Callable[[float], None]) -> None:
    naps = iter([5.0, 0.0, 0.0, 0.6])
    assert time_methods({"a": lambda: nap(next(naps))}, 3, "cpu") == {"a": pytest.approx(0.2)}


def test_the_student_s_time_includes_the_encoding_of_its_prompt(nap: Callable[[float], None], tmp_path: Path) -> None:
    sample = read_samples(taught.write_dataset(tmp_path, taught.untrained_teacher()), tmp_path)[0]
    models = mock.Mock()
    models.student.config.own_encoders = ()
    models.clip.text_tokens.side_effect = lambda texts: [nap(3.0), torch.zeros(1, 4, 8)][-1]
    models.student.render.side_effect = lambda *given: nap(0.25)
    models.editor.edit.return_value = np.zeros((1, 64, 64, 3), np.uint8)
    timing = time_all(models, sample, Settings(evaluate=EvaluateSettings(timing_repeats=2)))
    assert (timing["student render"], timing["prompt"], timing[STUDENT]) == (0.25, 3.0, 3.25)


def test_without_repeats_the_cold_turn_counts() -> None:
    calls: list[str] = []
    seconds = time_methods({"a": lambda: calls.append("a")}, 0, "cpu")
    assert calls == ["a"]
    assert seconds["a"] > 0


def test_a_dataset_without_a_test_split_says_what_to_do(tmp_path: Path) -> None:
    samples = read_samples(taught.write_dataset(tmp_path, taught.untrained_teacher()), tmp_path)
    first = EvaluateSettings(max_samples_per_style=1)
    assert [s.style for s in choose_tested(samples, first)] == ["clown", "red-hair"]
    with pytest.raises(UserError, match="no test samples"):
        choose_tested([sample for sample in samples if sample.split != "test"], first)


def test_the_image_prompt_of_a_test_sample_is_a_test_sample_of_another_person(root: Path, dataset: Path) -> None:
    samples = read_samples(dataset, root)
    tested = [sample for sample in samples if sample.split == "test"]
    chosen = choose_references(samples)
    assert set(chosen) == {sample.key for sample in tested}
    for sample in tested:
        mate = chosen[sample.key]
        assert (mate.split, mate.style) == ("test", sample.style)
        assert mate.person != sample.person
    alone = [sample for sample in samples if sample.split != "test" or sample.person == tested[0].person]
    assert choose_references(alone) == {}
