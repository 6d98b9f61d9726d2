import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import SelectSettings, Settings
from data_catalog.store.stage import Input, Partition, Work
from tasks import select
from tasks.gating.gates import Candidate, Limits, gate_limits
from tasks.language.encoder import KNOWN
from tasks.select import count_funnel, judge
from tasks.tables.scores import SCORES

OPEN = SelectSettings(min_clip_direction=None, max_ssim=None)
GOOD: dict[str, Any] = {
    "decodes": True,
    "reason": "",
    "score_clip_image": 0.8,
    "score_clip_text": 0.3,
    "score_clip_direction": 0.3,
    "score_identity": 0.6,
    "score_ssim": 0.5,
    "score_lpips": 0.3,
    "score_camera_drift_deg": 2.0,
    "score_constant": False,
    "score_unsafe": None,
}


def row(key: str, split: str = "train", block: int = 0, **scores: Any) -> Candidate:
    place = f"{block:04d}"
    return Candidate(key=key, split=split, portrait_id=key, block=block, attempt=0, place=place, **{**GOOD, **scores})


def judged(rows: list[Candidate], settings: SelectSettings) -> dict[str, Candidate]:
    return {each.key: each for each in judge(rows, Limits.of(rows, settings))}


@pytest.mark.parametrize(
    ("gate", "limit", "bad", "step"),
    [
        ("min_clip_image", 0.5, {"score_clip_image": 0.4}, "clip"),
        ("min_clip_text", 0.2, {"score_clip_text": 0.1}, "clip"),
        ("min_clip_direction", 0.2, {"score_clip_direction": 0.1}, "clip"),
        ("min_ssim", 0.4, {"score_ssim": 0.3}, "change"),
        ("max_ssim", 0.9, {"score_ssim": 0.95}, "change"),
        ("min_lpips", 0.2, {"score_lpips": 0.1}, "change"),
        ("max_lpips", 0.5, {"score_lpips": 0.6}, "change"),
        ("min_identity", 0.5, {"score_identity": 0.4}, "identity"),
        ("max_camera_drift_deg", 10, {"score_camera_drift_deg": 12.0}, "camera"),
    ],
)
def test_each_gate_stops_what_it_measures(gate: str, limit: float, bad: dict[str, float], step: str) -> None:
    rows = [row("a"), row("b", **bad)]
    result = judged(rows, OPEN.model_copy(update={gate: limit}))
    assert (result["a"].kept, result["b"].kept) == (True, False)
    assert (result["b"].reason, result["b"].step) == (gate, step)
    assert all(each.kept for each in judged(rows, OPEN).values())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"decodes": False}, "no picture"),
        ({"score_constant": True}, "constant frame"),
        ({"score_unsafe": True}, "unsafe"),
    ],
)
def test_pictures_that_are_none_need_no_gate(bad: dict[str, Any], reason: str) -> None:
    assert judged([row("a", **bad)], OPEN)["a"].reason == reason


def test_test_samples_pass_every_gate_so_that_the_evaluation_is_not_made_easier() -> None:
    strict = OPEN.model_copy(update={"min_identity": 0.99, "max_ssim": 0.0})
    result = judged([row("a", "test")], strict)
    assert (result["a"].kept, result["a"].reason) == (True, "")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_unsafe_and_constant_pictures_are_lost_in_every_split(split: str) -> None:
    rows = [row("a", split, score_constant=True), row("b", split, score_unsafe=True), row("c", split)]
    result = judged(rows, OPEN)
    assert {key: each.reason for key, each in result.items()} == {"a": "constant frame", "b": "unsafe", "c": ""}


def test_an_unknown_camera_is_no_drift() -> None:
    gate = OPEN.model_copy(update={"max_camera_drift_deg": 1.0})
    assert judged([row("a", score_camera_drift_deg=None)], gate)["a"].kept


def test_quantile_calibration_follows_the_style_and_not_its_test_samples() -> None:
    settings = OPEN.model_copy(update={"min_identity": 0.9, "calibration": "quantile", "quantile": 0.25})
    rows = [row(f"k{i}", score_identity=i / 10) for i in range(5)]
    rows += [row(f"t{i}", "test", score_identity=-1.0) for i in range(5)]
    assert gate_limits(rows, settings) == {"min_identity": pytest.approx(0.1)}
    kept = [key for key, each in judged(rows, settings).items() if each.kept and key.startswith("k")]
    assert kept == ["k1", "k2", "k3", "k4"]
    upper = OPEN.model_copy(update={"max_lpips": 0.0, "calibration": "quantile", "quantile": 0.25})
    rows = [row(f"k{i}", score_lpips=i / 10) for i in range(5)]
    assert gate_limits(rows, upper) == {"max_lpips": pytest.approx(0.3)}


def test_the_funnel_counts_what_each_step_leaves() -> None:
    gate = OPEN.model_copy(update={"min_identity": 0.5, "min_clip_text": 0.2})
    rows = [
        row("a"),
        row("b", score_identity=0.1),
        row("c", score_clip_text=0.1, score_identity=0.1),
        row("d", score_constant=True),
        row("e", decodes=False, score_identity=None),
        row("f", "test", score_identity=0.1),
    ]
    funnel = count_funnel(judge(rows, Limits.of(rows, gate)))
    assert {step["step"]: step["left"] for step in funnel["steps"]} == {
        "made": 5,
        "decodes": 4,
        "not constant": 3,
        "safe": 3,
        "face": 3,
        "clip": 2,
        "change": 2,
        "identity": 1,
        "camera": 1,
        "kept": 1,
    }
    assert (funnel["yield"], funnel["test"]) == (0.2, 1)
    assert funnel["reasons"]["min_identity"] == 1


def work_on(folder: Path, rows: list[Candidate], settings: Settings) -> Work:
    inputs = []
    for block in sorted({each.block for each in rows}):
        scored = folder / "score" / str(block)
        scored.mkdir(parents=True, exist_ok=True)
        mine = [each for each in rows if each.block == block]
        SCORES.write(scored, mine)
        record: Any = SimpleNamespace()
        inputs.append(Input(Partition("score", "zombie", block), scored, "", record))
    out = folder / "select"
    out.mkdir(exist_ok=True)
    return Work(Partition("select", "zombie"), {"score": inputs}, settings, {}, out, folder)


def with_select(**changes: Any) -> Settings:
    return Settings(select=OPEN.model_copy(update=changes))


def test_a_moved_threshold_changes_the_digest_of_only_the_blocks_that_lose_a_sample(tmp_path: Path) -> None:
    rows = [row("a", block=0), row("b", block=0), row("c", block=1), row("d", block=1, score_identity=0.3)]
    before = select.run(work_on(tmp_path / "before", rows, with_select()))
    after = select.run(work_on(tmp_path / "after", rows, with_select(min_identity=0.5)))
    assert before.parts["0000"] == after.parts["0000"]
    assert before.parts["0001"] != after.parts["0001"]
    assert (before.samples, after.samples, after.rejected) == (4, 3, {"min_identity": 1})


def test_what_is_written_says_which_samples_why_and_by_which_gates(tmp_path: Path) -> None:
    work = work_on(tmp_path, [row("a"), row("b", score_identity=0.1)], with_select(min_identity=0.5))
    select.run(work)
    table = {each["key"]: each for each in pq.read_table(work.folder / "select.parquet").to_pylist()}
    assert table["a"] == {"key": "a", "block": 0, "attempt": 0, "split": "train", "kept": True, "reason": "", "rank": 0}
    assert (table["b"]["kept"], table["b"]["reason"], table["b"]["rank"]) == (False, "min_identity", None)
    gates = json.loads((work.folder / "gates.json").read_text())
    assert gates == {"style": "zombie", "gates": {"min_identity": 0.5}}


def test_a_style_that_keeps_too_little_fails_loudly_with_its_funnel(tmp_path: Path) -> None:
    rows = [row("a")] + [row(f"b{i}", score_identity=0.1) for i in range(9)]
    with pytest.raises(UserError) as caught:
        select.run(work_on(tmp_path, rows, with_select(min_identity=0.5, min_yield=0.5)))
    text = str(caught.value)
    assert "style zombie keeps 10% of its samples" in text
    assert "made 10 -> decodes 10" in text
    assert "min_identity 9" in text
    assert "at least 50%" in text
    assert hints(text) == [
        "stillroom retry --set select.min_identity=null    (opens the gate that took most)",
        "stillroom retry --set select.on_low_yield=leave_out    (goes on without styles that keep too little)",
    ]


def hints(text: str) -> list[str]:
    """The lines of an error's hint."""
    return [line.strip() for line in text.partition("  hint      ")[2].splitlines()]


def test_a_hint_names_the_profile_the_words_that_are_not_known_and_the_gate_of_the_styles_own_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "zombie.yaml").write_text("prompts: [make her a robot]\ngates: {min_identity: 0.5}\n")
    settings = with_select(min_yield=0.5)
    given = settings.prompts.model_copy(update={"styles_dir": str(tmp_path)})
    settings = settings.model_copy(update={"profile": "mine", "prompts": given})
    with pytest.raises(UserError) as caught:
        select.run(work_on(tmp_path, [row(f"b{i}", score_identity=0.1) for i in range(9)], settings))
    unknown, gate, leave_out = hints(str(caught.value))
    assert unknown.startswith(f"another prompt in {tmp_path}/zombie.yaml: the text encoder does not know: robot; ")
    assert unknown.endswith("; then stillroom retry --profile mine")
    assert KNOWN in unknown
    assert gate.startswith("a looser min_identity, which took most, in the style's file")
    assert leave_out.startswith("stillroom retry --profile mine --set select.on_low_yield=leave_out    (")


def test_the_hint_of_a_style_that_stays_short_names_values_that_are_enough(tmp_path: Path) -> None:
    short = {"keep": 5, "attempts": 1, "min_yield": 0.0, "min_identity": 0.5}
    rows = [row("a"), row("b"), row("c", score_identity=0.1)]
    with pytest.raises(UserError) as caught:
        select.run(work_on(tmp_path / "two", rows, with_select(**short)))
    assert [line.split("    (")[0] for line in hints(str(caught.value))[:2]] == [
        "stillroom retry --set select.keep=2",
        "stillroom retry --set select.attempts=3",  # three more samples at two an attempt
    ]
    with pytest.raises(UserError) as caught:
        select.run(work_on(tmp_path / "none", rows[2:], with_select(**short)))
    assert "select.keep=0" not in str(caught.value)


def test_a_sample_without_a_picture_is_counted_where_it_was_lost_and_not_again(tmp_path: Path) -> None:
    summary = select.run(work_on(tmp_path, [row("a"), row("b", decodes=False, reason="editor: X")], with_select()))
    assert (summary.samples, summary.rejected) == (1, {})


def test_an_unused_quantile_is_in_no_fingerprint() -> None:
    partition = Partition("select", "zombie")
    plain, moved = load_settings("demo"), load_settings("demo", ["select.quantile=0.1"])
    assert select.reads(plain, partition) == select.reads(moved, partition)


def test_a_style_that_keeps_too_little_is_left_out_where_the_settings_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row("a"), row("t", "test")] + [row(f"b{i}", score_identity=0.1) for i in range(9)]
    settings = with_select(min_identity=0.5, min_yield=0.5, on_low_yield="leave_out")
    work = work_on(tmp_path, rows, settings)
    summary = select.run(work)
    assert summary.samples == 0
    assert summary.rejected == {"min_identity": 9, "low yield of its style": 2}
    assert summary.metrics["yield"] == pytest.approx(0.1)
    assert "style zombie keeps 10% of its samples" in caplog.text
    funnel = json.loads((work.folder / "funnel.json").read_text())["funnel"]
    assert [step["left"] for step in funnel["steps"] if step["step"] in ("camera", "yield", "kept")] == [1, 0, 0]
    assert (funnel["yield"], funnel["test"]) == (pytest.approx(0.1), 0)
    enough = select.run(work_on(tmp_path / "enough", rows, with_select(min_yield=0.5, on_low_yield="leave_out")))
    assert (enough.samples, enough.rejected) == (11, {})


def test_a_style_that_stays_short_of_keep_goes_on_with_what_it_has_where_the_settings_say_so(tmp_path: Path) -> None:
    short = {"keep": 5, "attempts": 1, "min_yield": 0.0}
    rows = [row("a"), row("b")]
    with pytest.raises(UserError, match="keeps 2 training samples"):
        select.run(work_on(tmp_path / "stop", rows, with_select(**short)))
    summary = select.run(work_on(tmp_path / "on", rows, with_select(**short, on_low_yield="leave_out")))
    assert (summary.samples, summary.parts.get("more")) == (2, None)
