"""An arm of the claims: what learns in it, what its looks cost, and that a killed one goes on."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from data_catalog.config.settings import DistillSettings, EvaluateSettings, PromptsSettings, Settings
from data_catalog.store.stage import Work
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.three_d import mae
from models.three_d.mae import Mae, MaeEncoder
from tasks.evaluation.methods import Models
from tasks.evaluation.metrics import Judges, Views, look
from tasks.evaluation.table import STUDENT, TEACHERS
from tasks.lab.claims.arm import CURVE, FROZEN, ROWS, WHOLE, Kind, learn_and_measure, picture_name
from tasks.lab.claims.exam import (
    HIGH,
    LIFTED,
    LIFTED_NO_HIGH,
    LIFTED_NO_LOW,
    LOW,
    NO_HIGH,
    NO_LOW,
    TRUE,
    Bench,
    Exam,
    colours,
    compare_heads,
    make_bench,
    with_random,
)
from tasks.lab.claims.training import STEPS, TimedTrainer, read_curve
from tasks.training.student_files import load_student
from tests.worlds import taught
from tests.worlds.tiny import noise_picture, tiny_clip, tiny_editor

STYLE = "clown"  # of the two in the dataset
SETTINGS = Settings(
    distill=DistillSettings(
        iterations=4, triplane_iterations=0, batch_size=2, grid_every=2, checkpoint_every=1, patch_rays=16, warmup=0
    ),
    evaluate=EvaluateSettings(novel_views=2),
    prompts=PromptsSettings(styles=[STYLE]),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    taught.write_dataset(folder, taught.untrained_teacher())
    return folder


@pytest.fixture(scope="module")
def bench(root: Path) -> Bench:
    torch.manual_seed(0)
    teacher, clip = taught.untrained_teacher(), tiny_clip()
    judges = Judges(Recogniser(IdentityNet().eval()), clip, Perceptual.untrained().eval())
    nobody: Any = teacher
    models = Models(nobody, teacher, tiny_editor(clip), clip, Mae(MaeEncoder(mae.EMBEDDED)), judges)
    return make_bench(dataset(root), root, SETTINGS, models)


def dataset(root: Path) -> Path:
    return root / "store" / "dataset" / "all" / "0123456789abcdef"


def work(root: Path, place: Path) -> Work:
    (place / "folder").mkdir(parents=True)
    made = taught.work_on("claim", root, dataset(root), SETTINGS)
    return dataclasses.replace(made, folder=place / "folder", working=place / "working")


@pytest.fixture(scope="module")
def frozen(root: Path, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return arm(root, tmp_path_factory.mktemp("frozen"), FROZEN, bench)


@pytest.fixture(scope="module")
def whole(root: Path, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return arm(root, tmp_path_factory.mktemp("whole"), WHOLE, bench)


def arm(root: Path, place: Path, kind: Kind, bench: Bench) -> Work:
    made = work(root, place)
    learn_and_measure(made, kind, bench)
    return made


def changed_parts(made: Work, bench: Bench) -> set[str]:
    """The parts of the encoder that left the teacher's weights."""
    weights = load_file(made.folder / "student.safetensors")
    before = bench.models.teacher.encoder.state_dict()
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(weights[f"encoder.{name}"], value)}


def test_a_frozen_arm_moves_e_t_alone_and_a_whole_one_the_branches_too(frozen: Work, whole: Work, bench: Bench) -> None:
    assert changed_parts(frozen, bench) == {"Final_encoder"}
    branches = {"encoder", "decoder", "F_encoder", "EHigh_encoder"}
    assert changed_parts(whole, bench) == {"Final_encoder", *branches}
    renderer = bench.models.teacher.renderer.state_dict()
    weights = load_file(whole.folder / "student.safetensors")
    assert all(torch.equal(weights[f"renderer.{name}"], value) for name, value in renderer.items())


def test_looks_are_taken_before_on_the_way_and_at_the_end(frozen: Work, bench: Bench) -> None:
    curve = pq.read_table(frozen.folder / CURVE).to_pylist()
    steps = sorted({row["step"] for row in curve})
    assert steps == [0, 2, 4]
    assert len(curve) == 3 * len(bench.tested)
    seconds = [next(row["seconds"] for row in curve if row["step"] == step) for step in steps]
    assert 0 == seconds[0] < seconds[1] < seconds[2]
    last = {row["key"]: row["lpips"] for row in curve if row["step"] == 4}
    rows = {row["key"]: row["lpips"] for row in pq.read_table(frozen.folder / ROWS).to_pylist()}
    assert last == pytest.approx(rows, rel=1e-4)  # there one view was rendered, here several at once


def test_an_arm_takes_only_the_chosen_styles(frozen: Work) -> None:
    assert {row["style"] for row in pq.read_table(frozen.folder / ROWS).to_pylist()} == {STYLE}


@pytest.mark.parametrize(("name", "kind"), [("frozen", FROZEN), ("whole", WHOLE)])
def test_a_killed_arm_goes_on_to_the_same_student(
    name: str, kind: Kind, root: Path, bench: Bench, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    straight, killed = request.getfixturevalue(name), work(root, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimedTrainer, "step", dying_at(3, TimedTrainer.step))
        with pytest.raises(KeyboardInterrupt):
            learn_and_measure(killed, kind, bench)
    shutil.rmtree(killed.folder)
    killed.folder.mkdir()
    learn_and_measure(killed, kind, bench)
    for file in ("student.safetensors", ROWS, *(picture_name(each) for each in (TRUE, STUDENT))):
        assert (killed.folder / file).read_bytes() == (straight.folder / file).read_bytes(), file
    assert len((killed.working / STEPS).read_text().splitlines()) == SETTINGS.distill.iterations


Step = Callable[[TimedTrainer, bool], dict[str, Any]]


def dying_at(number: int, step: Step) -> Step:
    def take_step(trainer: TimedTrainer, with_views: bool) -> dict[str, Any]:
        if trainer.taken == number:
            raise KeyboardInterrupt
        return step(trainer, with_views)

    return take_step


def test_a_step_that_was_taken_twice_costs_once(tmp_path: Path) -> None:
    (tmp_path / STEPS).write_text("1 2.0\n2 8.0\n2 3.0\n3 1.0\n")
    for step in (0, 2, 3):
        (tmp_path / f"look-{step:08d}.json").write_text('[{"key": "k", "portrait_id": "p", "lpips": 1.0}]')
    assert [(row["step"], row["seconds"]) for row in read_curve(tmp_path)] == [(0, 0.0), (2, 5.0), (3, 6.0)]


def test_the_other_methods_are_measured_beside_the_student(frozen: Work, bench: Bench) -> None:
    exam = Exam(bench, load_student(frozen.folder))
    rows = exam.take((STUDENT, TEACHERS, NO_HIGH, NO_LOW))
    assert len(rows) == 4 * len(bench.tested)
    assert all(row["depth_error"] is not None or row["silhouette_iou"] == 0 for row in rows)
    sample = bench.tested[0]
    seen = {method: exam.views(method, sample).pictures for method in (STUDENT, NO_HIGH, NO_LOW)}
    assert not np.array_equal(seen[NO_HIGH], seen[STUDENT])
    assert not np.array_equal(seen[NO_LOW], seen[STUDENT])
    # Without a branch, what it saw of the portrait does not matter.
    student = exam.student
    with torch.no_grad():
        for parameter in student.encoder.EHigh_encoder.parameters():
            parameter.add_(1.0)
    assert np.array_equal(exam.views(NO_HIGH, sample).pictures, seen[NO_HIGH])
    assert not np.array_equal(exam.views(NO_LOW, sample).pictures, seen[NO_LOW])


def test_live3d_with_random_weights_in_a_branch_is_compared_with_itself(frozen: Work, bench: Bench) -> None:
    teacher = bench.models.teacher
    for parts in (LOW, HIGH):
        changed = with_random(teacher, parts, seed=0).encoder.state_dict()
        moved = {
            name.split(".")[0] for name, value in teacher.encoder.state_dict().items() if not changed[name].equal(value)
        }
        assert moved == set(parts)  # and nothing of Live3D itself was touched
    exam = Exam(bench, load_student(frozen.folder))
    rows = exam.take((STUDENT, LIFTED, LIFTED_NO_HIGH, LIFTED_NO_LOW))
    by_method = {method: [row for row in rows if row["method"] == method] for method in {row["method"] for row in rows}}
    assert {row["colours_moved"] for row in by_method[LIFTED]} == {0.0}
    for method in (LIFTED_NO_HIGH, LIFTED_NO_LOW):
        assert all(row["colours_moved"] > 0 for row in by_method[method])
        assert {row["id"] for row in by_method[method]} == {None}  # of an unedited portrait no edit is measured
    assert {row["colours_moved"] for row in by_method[STUDENT]} == {None}
    sample = bench.tested[0]
    lifted = exam.views(LIFTED, sample).pictures[0]
    portrait = exam.evaluation.encode(bench.fields[sample.key].portrait)
    expected = look(teacher, portrait, exam.evaluation.cameras(sample)[:1])
    assert np.abs(lifted.astype(int) - expected.pictures[0]).max() <= 1


def test_a_moved_head_is_measured_as_such() -> None:
    views = Views(np.full((1, 4, 4, 3), 100, np.uint8), np.full((1, 4, 4), 2.0), np.ones((1, 4, 4)))
    other = Views(np.full((1, 4, 4, 3), 151, np.uint8), np.full((1, 4, 4), 2.5), np.ones((1, 4, 4)))
    other.opacity[0, :2] = 0
    found = compare_heads(other, views)
    assert found == {"colours_moved": pytest.approx(0.2), "depth_moved": 0.25, "silhouette_kept": 0.5}


def test_colours_do_not_see_where_they_lie() -> None:
    picture = noise_picture(0)
    moved = np.random.default_rng(0).permutation(picture.reshape(-1, 3)).reshape(picture.shape)
    assert colours(picture, moved) == 0
    brighter = picture // 2 + 64
    assert colours(brighter, moved) == pytest.approx(colours(brighter, picture))
    assert colours(np.full_like(picture, 100), np.full_like(picture, 151)) == pytest.approx(0.2)
