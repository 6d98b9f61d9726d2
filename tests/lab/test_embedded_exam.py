"""The exam of the embedded networks, their card and report, and the flow that trains one of them again."""

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from data_catalog.config.errors import UserError
from models.zoo import zoo
from tasks.evaluation.metrics import Judges
from tasks.lab.pretraining import card, curve, recipes
from tasks.lab.pretraining.exam import edits, generated, heads
from tasks.lab.pretraining.exam import judges as exam_judges
from tasks.lab.pretraining.faces import Faces
from tasks.lab.pretraining.marks import Mark, grade, mean_of, share_of
from tasks.lab.pretraining.pictures import (
    LOOKS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    Pictures,
    load_pictures,
    render_block,
)

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one person to learn from and two to examine with."""
    root = tmp_path_factory.mktemp("data")
    for first, count in ((TRAINING_SEEDS, 1), (VALIDATION_SEEDS, 2)):
        render_block(root / "pretrain" / "pictures", first, count)
    return root


@pytest.fixture(scope="module")
def held_out(rendered: Path) -> Pictures:
    return load_pictures(rendered / "pretrain" / "pictures", VALIDATION_SEEDS, 2)


def test_an_interval_is_over_people_and_more_pictures_of_them_make_it_no_narrower() -> None:
    one_each = RNG.normal(size=(20, 1))
    single = grade("m", "m", 20, mean_of(one_each))
    many = grade("m", "m", 20, mean_of(one_each.repeat(50, axis=1)))
    assert many.low == pytest.approx(single.low)
    assert many.high == pytest.approx(single.high)
    assert single.low is not None
    assert single.value is not None
    assert single.high is not None
    assert single.low < single.value < single.high
    assert single.high - single.low == pytest.approx(2 * 1.96 * one_each.std() / 20**0.5, rel=0.2)


def test_a_number_without_meaning_has_no_verdict() -> None:
    mark = grade("m", "m", 3, share_of(np.zeros(3), np.zeros(3)), bar=1.0)
    assert (mark.value, mark.reached) == (None, None)
    assert card.write_value(mark.describe()) == "–"


@pytest.mark.parametrize(("value", "higher", "reached"), [(2.0, True, True), (2.0, False, False), (1.0, False, True)])
def test_a_bar_is_reached_from_the_better_side(value: float, higher: bool, reached: bool) -> None:
    assert Mark("m", "m", value, value, value, 1, bar=1.0, higher=higher).reached is reached


def test_verification_is_the_auc_over_all_pairs() -> None:
    people, features = np.arange(10).repeat(4), RNG.normal(size=(40, 5))
    first, second = np.triu_indices(40, 1)
    cosine = (features[first] * features[second]).sum(1) + 2 * (people[first] == people[second])
    auc = exam_judges.verification(cosine, people[first], people[second])
    assert auc(np.arange(10)) == pytest.approx(roc_auc_score(people[first] == people[second], cosine))
    some = np.isin(people[first], (1, 2, 3)) & np.isin(people[second], (1, 2, 3))
    few = roc_auc_score((people[first] == people[second])[some], cosine[some])
    assert auc(np.array([1, 2, 3])) == pytest.approx(few)


def test_people_are_told_apart_by_kinds_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = np.tile([0, 0, 1, 1, 2, 2], (3, 1))
    images = np.stack([np.full(6, person) * 10 + looks[person] for person in range(3)])

    class Knows:
        """Tells people apart in one style alone: not in plain pictures, nor across styles."""

        def embed(self, faces: np.ndarray) -> Tensor:
            return torch.eye(40)[[0 if face % 10 == 0 else face for face in faces]]

    monkeypatch.setattr(zoo, "load", lambda *_: Knows())
    found = {mark.key: mark.value for mark in exam_judges.examine_identity(Faces(images, looks)).marks}
    assert found["auc_one_style"] == 1.0
    others = [found[key] for key in ("auc_plain", "auc_plain_to_styled", "auc_all")]
    assert max(others) < 0.9


def test_the_wins_of_a_look_make_its_auc() -> None:
    scores = RNG.normal(size=(6, 4))
    truth = np.zeros((6, 4))
    truth[:, 2] = 1
    assert exam_judges.wins_of(scores, 2).mean() == pytest.approx(roc_auc_score(truth.ravel(), scores.ravel()))


@pytest.fixture(scope="module")
def judges() -> Judges:
    return Judges(zoo.load_recogniser("embedded"), *(zoo.load(name, "embedded") for name in ("clip", "lpips")))


def test_no_edit_scores_as_no_edit_and_the_truth_as_perfect(held_out: Pictures, judges: Judges) -> None:
    place = LOOKS.index("clown")
    portraits, truth = held_out.crops[:, 0], held_out.crops[:, place]
    names = edits.style_texts(judges.clip)
    found: dict[str, dict[str, Mark]] = {}
    for name, edited in (("no edit", portraits), ("truth", truth)):
        marks = edits.grade_style(judges, names, portraits, truth, edited, place, "words")
        found[name] = {mark.measure: mark for mark in marks}
    values = {name: {key: mark.value for key, mark in marks.items()} for name, marks in found.items()}
    assert (values["no edit"]["inside"], values["no edit"]["lpips"]) == (1.0, 1.0)
    assert (values["truth"]["inside"], values["truth"]["lpips"]) == (0.0, 0.0)
    assert values["truth"]["outside"] is not None
    assert values["truth"]["outside"] < 0  # nearer than the autoencoder could draw it
    assert values["truth"]["identity"] == pytest.approx(0.0, abs=1e-6)
    assert values["truth"]["named"] == 1.0
    assert found["no edit"]["inside"].reached is False
    assert found["truth"]["inside"].reached is True


def test_the_teacher_is_examined_at_the_bars_own_cameras(held_out: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "TAUGHT", 1)
    found = heads.examine_teacher(held_out)
    whole = {mark.measure: mark for mark in found.marks if not mark.subject}
    assert {name: mark.bar for name, mark in whole.items() if mark.bar} == {
        "novel_psnr_db_0.35": 24.0,
        "novel_psnr_db_0.6": 21.0,
        "depth_error": 0.03,
    }
    assert all(mark.value and 15 < mark.value < 40 for name, mark in whole.items() if "psnr" in name)
    assert {mark.subject for mark in found.marks if mark.measure == "inside"} == {
        edits.name_look(look) for look in LOOKS[1:]
    }
    (sheet,) = found.sheets
    assert sheet.picture.shape[1] > sheet.picture.shape[0] * len(sheet.columns) / len(LOOKS) * 0.9


def test_the_generator_is_examined_by_inverting_and_by_sampled_heads(
    held_out: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("INVERTED", 1), ("STEPS", 3), ("SAMPLED", 4), ("ACROSS", 2), ("WAYS", 2), ("FRAMES", 3)):
        monkeypatch.setattr(generated, name, few)
    found = generated.examine_generator(held_out)
    marks = {mark.measure: mark for mark in found.marks}
    assert {name: mark.bar for name, mark in marks.items() if mark.bar} == {"inverted_db": 22.0, "jump": 3.0}
    assert all(mark.value and 12 < mark.value < 40 for name, mark in marks.items() if name.endswith("_db"))
    assert marks["jump"].value
    assert marks["jump"].value >= 1
    sampled, ways = found.sheets
    assert sampled.picture.shape[:2] == (258, 258)  # two rows of two heads, twice as large
    assert ways.picture.shape[:2] == (258, 388)
    still = [np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 40, np.uint8)]
    assert generated._largest_jump(still) == pytest.approx(1.5)


def points(*pairs: tuple[int, float]) -> list[dict[str, float]]:
    return [{"step": float(step), "loss": loss} for step, loss in pairs]


def test_a_curve_forgets_the_steps_that_a_killed_training_lost() -> None:
    resumed = points((50, 1.0), (100, 0.5), (150, 9.0), (100, 0.4), (150, 0.3))
    assert curve.draw_curve(resumed) == curve.draw_curve(points((50, 1.0), (100, 0.4), (150, 0.3)))
    assert curve.draw_curve(points((50, 1.0))) is None


def test_the_card_keeps_what_is_known_of_networks_that_were_not_trained_here(tmp_path: Path) -> None:
    def exam(value: float) -> dict[str, Any]:
        return Mark("inside", "error inside", value, value, value, 9, 0.5, False, "clown", "trained wording").describe()

    weights, first, second = tmp_path / "weights", tmp_path / "first", tmp_path / "second"
    for work, name, value in ((first, "editor", 0.25), (second, "teacher", 0.75)):
        (work / name).mkdir(parents=True)
        training = {"steps": 7, "lr": 0.1, "seed": 0, "remark": f" Of {work.name}."}
        (work / name / "card.json").write_text(json.dumps(training))
        (work / "exam.json").write_text(json.dumps({name: [exam(value)]}))
        text = card.write_card(work, weights).read_text()
    assert "7 steps, learning rate 0.1, seed 0. Of first." in text
    assert "| clown | 0.25 (0.25 to 0.25) |" in text
    assert "| clown | 0.75 (0.75 to 0.75) ✗ |" in text
    assert "| teacher | error inside, trained wording | ≤ 0.5 | 0 of 1 | 0.75 (0.75 to 0.75) clown |" in text


def test_one_network_is_trained_again_beside_the_shipped_ones(
    rendered: Path, tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from flows.lab.pretrain_embedded import pretrain_embedded

    monkeypatch.setenv("STILLROOM_DATA", str(rendered))
    for name, people in (("PEOPLE", 1), ("BLOCK", 1), ("HELD_OUT", 2)):
        monkeypatch.setattr(recipes, name, people)
    monkeypatch.setattr("flows.lab.pretrain_embedded.LANES", 1)
    shipped, listed = zoo.files_digest(recipes.WEIGHTS), zoo.REGISTRY.read_bytes()
    mine = tmp_path / "mine"
    outcome = pretrain_embedded.fn(networks="landmarks", steps=3, into=str(mine))
    assert (zoo.files_digest(recipes.WEIGHTS), zoo.REGISTRY.read_bytes()) == (shipped, listed)
    before = {name: zoo.digest(name, "embedded") for name in ("teacher", "landmarks")}
    monkeypatch.setenv("STILLROOM_MODELS", str(mine / "models.yaml"))
    assert zoo.digest("teacher", "embedded") == before["teacher"]
    assert zoo.digest("landmarks", "embedded") == outcome["digests"]["landmarks"] != before["landmarks"]
    assert list(outcome["exam"]) == ["landmarks"]
    assert outcome["exam"]["landmarks"]["photo_error_px"] > 1.5  # three steps: it was these weights that were examined
    assert "3 steps" in (mine / "README.md").read_text(encoding="utf-8")
    page = Path(outcome["report"]).read_text(encoding="utf-8")
    assert "data:image/webp" in page
    assert "http" not in page
    client = MlflowClient(tracking_uri=mlflow_uri)
    artifacts = {each.path for each in client.list_artifacts(outcome["mlflow_run_id"])}
    assert {"README.md", "report.html", "exam.json"} <= artifacts
    run = client.get_run(outcome["mlflow_run_id"])
    children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    by_name = {child.info.run_name: child.data.metrics for child in children}
    assert by_name["exam"]["landmarks.photo_error_px"] == outcome["exam"]["landmarks"]["photo_error_px"]


def test_a_metric_is_asked_of_each_style_whether_it_sees_it(
    held_out: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marks(sign: int) -> dict[str, float | None]:
        def metric(first: Tensor, second: Tensor) -> Tensor:
            return sign * (first - second).abs().mean(dim=(1, 2, 3))

        monkeypatch.setattr(zoo, "load", lambda *_: metric)
        return {mark.key: mark.value for mark in exam_judges.examine_perceptual(held_out).marks}

    assert len(marks(1)) == len(LOOKS)  # one a style, and one of plain portraits
    assert marks(1)["edit_seen.marble statue"] == marks(1)["disturbed_nearer"] == 1.0
    assert marks(-1)["edit_seen.marble statue"] == marks(-1)["disturbed_nearer"] == 0.0


def test_a_network_that_does_not_exist_is_named() -> None:
    from flows.lab.pretrain_embedded import choose

    assert choose(["editor", "clip"]) == ["clip", "editor"]
    with pytest.raises(UserError, match="no such embedded network"):
        choose(["vae"])


def test_a_network_is_trained_after_those_that_it_needs() -> None:
    from flows.lab.pretrain_embedded import choose, in_turn

    started: dict[str, Future[None]] = {}

    def start(name: str) -> Future[None]:
        started[name] = Future()
        if name == "editor":
            assert not started["teacher"].done()  # nothing waits for a network that it does not need
            started["teacher"].set_result(None)
        if name != "teacher":
            started[name].set_result(None)
        return started[name]

    in_turn(choose(["autoencoder", "clip", "editor", "mae", "perceptual", "teacher"]), start)
    assert list(started) == ["perceptual", "clip", "autoencoder", "teacher", "editor", "mae"]
    started.clear()
    in_turn(["clip"], start)
    assert list(started) == ["clip"]


def test_a_network_that_cannot_be_trained_stops_those_that_need_it() -> None:
    from flows.lab.pretrain_embedded import in_turn

    started = []

    def start(name: str) -> Future[None]:
        started.append(name)
        future: Future[None] = Future()
        future.set_exception(ValueError(name))
        return future

    with pytest.raises(ValueError, match="perceptual"):
        in_turn(["perceptual", "autoencoder"], start)
    assert started == ["perceptual"]
