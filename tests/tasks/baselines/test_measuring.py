"""A method's partition: a row for each edit, rejections counted, nothing that another method's setting changes."""

import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from data_catalog.config.errors import UserError
from data_catalog.config.settings import BaselinesSettings, EditSettings, EvaluateSettings, PromptsSettings, Settings
from data_catalog.products.snapshot import write_snapshot_files
from data_catalog.store.stage import Partition, Work
from models.three_d.live3d import Render
from tasks.baselines import ip2p_live3d, live3d_styleclip, protocol
from tasks.baselines.measuring import IMAGE, PICTURES, ROWS, TEXT, Method, choose_edits, run_method
from tasks.baselines.methods import METHODS, OURS, STAGES
from tasks.baselines.page import choose_shown, write_page
from tasks.baselines.protocol import Diverged, Edited, Networks, Portrait, Prompt, Seen
from tasks.baselines.table import conclude, make_table
from tasks.evaluation.metrics import MEASURES, TRUE_MEASURES
from tasks.tables.samples import SAMPLE_ROWS
from tasks.training.data import read_samples
from tests.worlds import taught

SETTINGS = Settings(
    prompts=PromptsSettings(styles=["clown", "red-hair"]),
    edit=EditSettings(steps=2),
    evaluate=EvaluateSettings(bootstrap=100),
    baselines=BaselinesSettings(portraits=2, styleclip_steps=2),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The work of a method on clowns, whose dataset has two test portraits."""
    root = tmp_path_factory.mktemp("data")
    work = taught.work_on("baseline/x", root, taught.write_dataset(root, taught.untrained_teacher()), SETTINGS)
    return dataclasses.replace(work, partition=Partition("baseline/x", "clown"))


def fresh(work: Work, folder: Path) -> Work:
    folder.mkdir()
    return dataclasses.replace(work, folder=folder)


def test_a_row_for_each_portrait_and_kind_of_prompt_with_the_keys_of_evaluate(work: Work, tmp_path: Path) -> None:
    here = fresh(work, tmp_path / "made")
    summary = run_method(here, live3d_styleclip.METHOD, live3d_styleclip.edit)
    rows = pq.read_table(here.folder / ROWS).to_pylist()
    assert summary.samples == len(rows) == 4
    assert {(row["portrait_id"], row["kind"]) for row in rows} == {
        (portrait, kind) for portrait in ("p0000000005", "p0000000006") for kind in (TEXT, IMAGE)
    }
    for row in rows:
        assert {*MEASURES, *TRUE_MEASURES} <= set(row)
        assert row["method"] == "live3d-styleclip"
        assert row["seconds_per_image"] > 0
        assert row["reconstruction_psnr"] > 15
        assert all(np.isfinite(row[name]) for name in ("id", "clip", "three_d", "lpips", "psnr_novel", "depth_error"))
        assert (here.folder / PICTURES / f"{row['key']}-{row['kind']}.png").is_file()
    # A stage's own `seconds` are those of its run.
    assert summary.metrics["seconds_per_image"] == pytest.approx(np.mean([row["seconds_per_image"] for row in rows]))
    assert "seconds" not in summary.metrics
    assert summary.metrics["id"] == pytest.approx(np.mean([row["id"] for row in rows]))


def test_an_edit_that_diverges_is_rejected_with_its_reason_and_the_others_are_kept(work: Work, tmp_path: Path) -> None:
    def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
        if prompt.picture is not None:
            raise Diverged("StyleCLIP: the loss is not a number")
        return Edited(networks.teacher, networks.teacher.encode(portrait.image))

    summary = run_method(fresh(work, tmp_path / "made"), live3d_styleclip.METHOD, edit)
    assert summary.samples == 2
    assert summary.rejected == {"StyleCLIP: the loss is not a number": 2}


def test_a_dataset_that_leaks_from_train_to_test_is_refused(tmp_path: Path) -> None:
    folder = taught.write_dataset(tmp_path, taught.untrained_teacher())
    rows = SAMPLE_ROWS.read(folder)
    leaking = [dataclasses.replace(row, prompt=rows[0].prompt) if row.split == "test" else row for row in rows]
    shutil.rmtree(folder)
    folder.mkdir()
    write_snapshot_files(folder, SAMPLE_ROWS.of(leaking), {"samples": len(rows)})
    work = taught.work_on("baseline/x", tmp_path, folder, SETTINGS)
    with pytest.raises(UserError, match="leaks from train to test"):
        run_method(
            dataclasses.replace(work, partition=Partition("baseline/x", "clown")),
            live3d_styleclip.METHOD,
            live3d_styleclip.edit,
        )


def test_a_method_whose_edits_all_diverge_leaves_an_empty_table(work: Work, tmp_path: Path) -> None:
    def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
        return Edited(networks.teacher, networks.teacher.encode(portrait.image) * float("nan"))

    here = fresh(work, tmp_path / "made")
    summary = run_method(here, live3d_styleclip.METHOD, edit)
    assert (summary.samples, sum(summary.rejected.values())) == (0, 4)
    assert pq.read_table(here.folder / ROWS).num_rows == 0


def test_seconds_run_from_the_portrait_to_one_view_and_a_single_pass_is_warm(work: Work, tmp_path: Path) -> None:
    class Slow:
        def __init__(self, model: Seen) -> None:
            self.model = model

        def render(self, triplane: Tensor, cameras: Tensor) -> Render:
            time.sleep(0.2)
            return self.model.render(triplane, cameras)

    calls: list[str] = []

    def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
        calls.append("")
        time.sleep(1.0 if len(calls) == 1 else 0.0)  # a first call loads kernels
        return Edited(Slow(networks.teacher), networks.teacher.encode(portrait.image))

    method = dataclasses.replace(live3d_styleclip.METHOD, steered=False)
    here = fresh(work, tmp_path / "made")
    run_method(here, method, edit)
    assert len(calls) == 5
    seconds = [row["seconds_per_image"] for row in pq.read_table(here.folder / ROWS).to_pylist()]
    assert 0.2 < min(seconds) <= max(seconds) < 1.0


def test_clip_judges_by_the_prompt_as_it_was_given(work: Work, tmp_path: Path) -> None:
    def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
        source = prompt.picture if prompt.picture is not None else portrait.picture
        return Edited(networks.teacher, networks.teacher.encode(protocol.signed(source[None])))

    here = fresh(work, tmp_path / "made")
    run_method(here, live3d_styleclip.METHOD, edit)
    rows = pq.read_table(here.folder / ROWS).to_pylist()
    by_picture = [row["clip"] for row in rows if row["kind"] == IMAGE]
    by_words = [row["clip"] for row in rows if row["kind"] == TEXT]
    assert min(by_picture) > 0.8 > max(by_words)  # a clown is near the clown that asked for it, a plain head is not


def test_portraits_are_the_same_for_each_style_and_a_style_without_any_is_said(work: Work) -> None:
    samples = read_samples(work.input("dataset").folder, work.root)
    chosen = [
        choose_edits(dataclasses.replace(work, partition=Partition("baseline/x", style)), samples)[0]
        for style in ("clown", "red-hair")
    ]
    assert [each.portrait_id for each in chosen[0]] == [each.portrait_id for each in chosen[1]]
    with pytest.raises(UserError, match="no test samples of this style"):
        choose_edits(dataclasses.replace(work, partition=Partition("baseline/x", "neon")), samples)


def test_a_setting_of_one_method_makes_that_one_again_and_no_other() -> None:
    def read(settings: Settings) -> dict[str, object]:
        return {name: stage.reads(settings, Partition(stage.name, "clown")) for name, stage in STAGES.items()}

    def changed(**values: object) -> set[str]:
        other = SETTINGS.model_copy(update={"baselines": SETTINGS.baselines.model_copy(update=values)})
        before, after = read(SETTINGS), read(other)
        return {name for name in STAGES if before[name] != after[name]}

    assert changed(pti_steps=7) == {"pti-styleclip"}
    assert changed(nada_rate=7.0) == {"spi-nada"}
    assert changed(live3d_rate=7.0) == {"live3d-styleclip"}
    assert changed(styleclip_steps=7) == {"pti-styleclip", "live3d-styleclip"}
    assert changed(tune_rate=7.0) == {"pti-styleclip", "spi-nada"}
    assert changed(portraits=7) == set(STAGES)
    edit = SETTINGS.model_copy(update={"edit": EditSettings(steps=3)})
    assert {name for name in STAGES if read(SETTINGS)[name] != read(edit)[name]} == {"ip2p-live3d"}


def test_partitions_lie_by_method_and_style_and_only_ours_needs_the_student() -> None:
    for name, stage in STAGES.items():
        (partition,) = stage.partitions(["zombie"], [])
        assert partition.key == f"baseline/{name}/zombie"
        assert Partition.parse(partition.key) == partition
        assert {need.stage for need in stage.needs} == {"dataset"} | ({"distill"} if name == "ours" else set())
    assert Partition.parse("edit/zombie/0003-a1") == Partition("edit", "zombie", 3, 1)


def test_words_for_a_picture_name_its_style(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
        assert networks.captioner is not None
        if prompt.picture is not None:
            said.append(ip2p_live3d.INSTRUCTION.format(caption=networks.captioner.caption(prompt.picture)))
        return Edited(networks.teacher, networks.teacher.encode(portrait.image))

    run_method(fresh(work, tmp_path / "made"), ip2p_live3d.METHOD, edit)
    assert said == ["turn them into a photo of a clown"] * 2


def rows_of(method: Method, values: list[float], kind: str = TEXT) -> list[dict[str, object]]:
    """A row a portrait, whose measures are all the same number."""
    measures = dict.fromkeys((*MEASURES, *TRUE_MEASURES, "reconstruction_psnr"))
    return [
        {"key": f"k{i}", "style": "clown", "portrait_id": f"p{i}", "method": method.name, "kind": kind, "prompt": ""}
        | {
            **measures,
            "id": value,
            "clip": value,
            "three_d": value,
            "seconds_per_image": 10.0 * (1 + METHODS.index(method)),
        }
        for i, value in enumerate(values)
    ]


def test_the_order_is_judged_edit_by_edit_and_a_steered_method_is_not_judged_by_clip() -> None:
    pti, _, _, ip2p, own = METHODS
    rows = rows_of(own, [0.5, 0.6, 0.7]) + rows_of(ip2p, [0.4, 0.5, 0.6]) + rows_of(pti, [0.6, 0.7, 0.8])
    document = make_table(rows, {"pti-styleclip": 2}, SETTINGS)
    order = {each["column"]: each for each in document["order"]}
    assert order["ID_t"]["compared"][ip2p.title]["verdict"] == "ahead"
    assert order["ID_t"]["compared"][pti.title]["verdict"] == "behind"
    assert order["ID_t"]["verdict"] == "opposite"
    assert pti.title not in order["CLIP_r"]["compared"]
    assert order["CLIP_r"]["verdict"] == "as in the paper"
    assert order["seconds"]["verdict"] == "opposite"  # ours is last in METHODS, and so the slowest here
    assert [row["method"] for row in document["table"]] == [pti.title, ip2p.title, OURS]
    assert [row["steered"] for row in document["table"]] == [True, False, False]
    assert [row["rejected"] for row in document["table"]] == [2, 0, 0]
    assert document["table"][2]["id"] == pytest.approx(0.6)


def test_a_single_portrait_has_no_interval_and_decides_nothing_but_the_seconds() -> None:
    rows = rows_of(METHODS[4], [0.5]) + rows_of(METHODS[3], [0.4])
    document = make_table(rows, {}, SETTINGS)
    assert document["intervals"] == {METHODS[3].title: {}, OURS: {}}
    assert [each["verdict"] for each in document["order"]] == ["undecided"] * 3 + ["opposite"]


def test_a_method_without_one_edit_keeps_its_row_and_is_not_judged(tmp_path: Path) -> None:
    rows = rows_of(METHODS[4], [0.5, 0.6]) + rows_of(METHODS[3], [0.4, 0.5])
    document = make_table(rows, {"spi-nada": 8}, SETTINGS)
    row = document["table"][0]
    assert (row["method"], row["edits"], row["rejected"], row["id"]) == (METHODS[2].title, 0, 8, None)
    assert all(METHODS[2].title not in each["compared"] for each in document["order"])
    page = write_page(tmp_path, "stillroom baselines", document, SETTINGS, {"PTI + StyleCLIP": "no generator: get it"})
    text = page.read_text(encoding="utf-8")
    assert "| SPI + StyleGAN-NADA | – | – | – | – | 0 | 8 |" in text
    assert "**PTI + StyleCLIP did not run**: no generator: get it" in text
    assert "| ID_t | – | [0.100, 0.100] ahead | **as in the paper** |" in text


def test_a_verdict_needs_all_others() -> None:
    ahead, undecided, behind = ({"verdict": name} for name in ("ahead", "undecided", "behind"))
    assert conclude([ahead, ahead]) == "as in the paper"
    assert conclude([ahead, undecided]) == "undecided"
    assert conclude([ahead, undecided, behind]) == "opposite"
    assert conclude([]) == "not measured"


def test_the_sheet_shows_edits_that_every_method_made() -> None:
    own, ip2p = METHODS[4], METHODS[3]
    rows = rows_of(own, [0.1, 0.2]) + rows_of(ip2p, [0.1, 0.2])[1:] + rows_of(own, [0.1], IMAGE)
    assert choose_shown(rows, [own.name, ip2p.name]) == [("k1", TEXT)]
    assert choose_shown(rows, [own.name]) == [("k0", TEXT), ("k0", IMAGE)]
