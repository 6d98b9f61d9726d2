import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import EditSettings
from data_catalog.samples.encoding import encode_png
from data_catalog.store.stage import Partition
from models.editing.editor import Editor
from tasks import edit, evaluate
from tasks.edit import adjust_to_style, edit_batch, make_edits, plan_edits
from tasks.tables.faces import Face
from tests.models.test_editor import OLD_NUMPY
from tests.worlds.tiny import noise_picture, tiny_clip, tiny_editor

BOOK = {
    "style": "zombie",
    "train": [{"number": n, "text": f"make it a zombie, way {n}"} for n in range(8)],
    "test": [{"number": n, "text": f"as a zombie, way {n}"} for n in range(8, 13)],
}
QUICK = EditSettings(steps=2)


@pytest.fixture(scope="module")
def editor() -> Editor:
    return tiny_editor(tiny_clip())


def portraits(count: int) -> list[Face]:
    splits = ("train", "test", "val")
    return [Face(portrait_id=f"p{i:010x}", split=splits[i % 3]) for i in range(count)]


def aligned_folder(folder: Path, count: int) -> Path:
    (folder / "aligned").mkdir(parents=True)
    for i, portrait in enumerate(portraits(count)):
        (folder / "aligned" / f"{portrait.portrait_id}.png").write_bytes(encode_png(noise_picture(i)))
    return folder / "aligned"


def made(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "pseudo_labels").iterdir())}


def test_test_portraits_get_test_prompts_and_only_they() -> None:
    edits = plan_edits(portraits(30), BOOK, EditSettings(prompts_per_portrait=3))
    assert len(edits) == 90
    assert {(each.split, each.prompt_split) for each in edits} == {
        ("train", "train"),
        ("val", "train"),
        ("test", "test"),
    }
    assert all((each.prompt_number >= 8) == (each.split == "test") for each in edits)
    assert len({each.key for each in edits}) == len({each.seed for each in edits}) == 90
    assert [each.key for each in edits] == sorted(each.key for each in edits)


def test_all_prompts_are_used_over_many_portraits() -> None:
    edits = plan_edits(portraits(120), BOOK, EditSettings())
    assert {each.prompt_number for each in edits} == set(range(13))


def test_the_edits_of_a_portrait_do_not_depend_on_the_other_portraits() -> None:
    alone = plan_edits(portraits(5)[3:4], BOOK, EditSettings())
    among_others = plan_edits(portraits(5), BOOK, EditSettings())
    assert alone == [each for each in among_others if each.portrait_id == alone[0].portrait_id]


def test_a_rejected_portrait_is_not_edited() -> None:
    rows = portraits(3)
    rows[1] = dataclasses.replace(rows[1], status="rejected")
    assert len(plan_edits(rows, BOOK, EditSettings())) == 2


def test_a_sample_does_not_depend_on_the_batch_size_or_on_its_neighbours(editor: Editor, tmp_path: Path) -> None:
    aligned, edits = aligned_folder(tmp_path, 4), plan_edits(portraits(4), BOOK, QUICK)
    bytes_made: dict[str, set[bytes]] = {}
    for name, chosen, batch_size in (("all", edits, 4), ("pairs", edits, 2), ("alone", edits[2:3], 1)):
        (tmp_path / name).mkdir()
        settings = QUICK.model_copy(update={"batch_size": batch_size})
        assert make_edits(editor, chosen, aligned, tmp_path / name, settings).samples == len(chosen)
        for key, data in made(tmp_path / name).items():
            bytes_made.setdefault(key, set()).add(data)
    assert len(bytes_made) == 4
    assert all(len(versions) == 1 for versions in bytes_made.values())


def test_a_batch_draws_the_noise_of_each_sample_by_itself(editor: Editor) -> None:
    edits = plan_edits(portraits(3), BOOK, QUICK)
    pictures = [noise_picture(i) for i in range(3)]
    together = edit_batch(editor, pictures, edits, QUICK)
    for picture, one, batched in zip(pictures, edits, together, strict=True):
        (alone,) = edit_batch(editor, [picture], [one], QUICK)
        # Convolutions of other batch sizes add in another order: a level of rounding, here and there.
        assert np.abs(np.asarray(alone, int) - np.asarray(batched, int)).max() <= 1


def test_a_batch_that_fails_is_made_one_by_one(editor: Editor) -> None:
    edits = plan_edits(portraits(3), BOOK, QUICK)
    # Not of the others' size: no batch holds both, and one pixel is too small for the autoencoder alone.
    pictures = [noise_picture(0), noise_picture(1, size=1), noise_picture(2)]
    kinds = [isinstance(each, np.ndarray) for each in edit_batch(editor, pictures, edits, QUICK)]
    assert kinds == [True, False, True]


def test_the_same_batch_gives_the_same_bytes(editor: Editor, tmp_path: Path) -> None:
    aligned, edits = aligned_folder(tmp_path, 3), plan_edits(portraits(3), BOOK, QUICK)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        make_edits(editor, edits, aligned, tmp_path / name, QUICK)
    assert made(tmp_path / "first") == made(tmp_path / "second")
    tables = [(tmp_path / name / "edit.parquet").read_bytes() for name in ("first", "second")]
    assert tables[0] == tables[1]


def test_one_damaged_portrait_costs_one_sample(editor: Editor, tmp_path: Path) -> None:
    aligned, edits = aligned_folder(tmp_path, 4), plan_edits(portraits(4), BOOK, QUICK)
    (aligned / f"{edits[1].portrait_id}.png").write_bytes(b"")
    summary = make_edits(editor, edits, aligned, tmp_path, QUICK)
    assert (summary.samples, summary.rejected) == (3, {"portrait: empty file": 1})
    row = pq.read_table(tmp_path / "edit.parquet").to_pylist()[1]
    assert (row["status"], row["reason"], row["pseudo_label_digest"]) == (
        "rejected",
        "portrait: empty file",
        None,
    )
    assert f"{edits[1].key}.png" not in made(tmp_path)


def test_a_portrait_that_the_editor_refuses_is_rejected_and_the_others_are_made(editor: Editor, tmp_path: Path) -> None:
    aligned, edits = aligned_folder(tmp_path, 4), plan_edits(portraits(4), BOOK, QUICK)
    (aligned / f"{edits[2].portrait_id}.png").write_bytes(encode_png(noise_picture(0, size=1)))
    summary = make_edits(editor, edits, aligned, tmp_path, QUICK)
    assert summary.samples == 3
    ((reason, count),) = summary.rejected.items()
    assert reason.startswith("editor: ")
    assert count == 1


def test_an_editor_that_fails_on_everything_is_an_error_not_an_empty_dataset(editor: Editor, tmp_path: Path) -> None:
    aligned, edits = aligned_folder(tmp_path, 2), plan_edits(portraits(2), BOOK, QUICK)
    for portrait in edits:
        (aligned / f"{portrait.portrait_id}.png").write_bytes(encode_png(noise_picture(0, size=1)))
    with pytest.raises((RuntimeError, ValueError)):
        make_edits(editor, edits, aligned, tmp_path, QUICK)


def test_a_style_may_bring_its_own_guidance() -> None:
    adjusted = adjust_to_style(EditSettings(), BOOK | {"guidance_scale": 3.0, "image_guidance_scale": None})
    assert (adjusted.guidance_scale, adjusted.image_guidance_scale) == (3.0, EditSettings().image_guidance_scale)


def test_the_batch_size_is_in_no_fingerprint() -> None:
    small, large, free = (load_settings("demo", [f"edit.batch_size={size}"]) for size in (1, 64, "auto"))
    fewer = load_settings("demo", ["edit.steps=3"])
    for stage, partition in ((edit, Partition("edit", "zombie", 0)), (evaluate, Partition("evaluate"))):
        assert stage.reads(small, partition) == stage.reads(large, partition) == stage.reads(free, partition)
        assert stage.reads(small, partition) != stage.reads(fewer, partition)


def test_an_interval_of_guidance_and_the_sampler_are_in_the_fingerprint() -> None:
    partition = Partition("edit", "zombie", 0)
    changes = ([], ["edit.guidance_interval=[0,0.5]"], ["edit.scheduler=dpmpp"])
    usual, limited, sampled = (edit.reads(load_settings("demo", each), partition) for each in changes)
    assert {name for name in usual if usual[name] != limited[name]} == {"guidance_interval"}
    assert {name for name in usual if usual[name] != sampled[name]} == {"scheduler"}


@OLD_NUMPY
def test_another_scheduler_makes_other_pictures(editor: Editor, tmp_path: Path) -> None:
    aligned, edits = aligned_folder(tmp_path, 2), plan_edits(portraits(2), BOOK, QUICK)
    for name in ("ddim", "dpmpp"):
        (tmp_path / name).mkdir()
        make_edits(editor, edits, aligned, tmp_path / name, QUICK.model_copy(update={"scheduler": name}))
    assert not set(made(tmp_path / "ddim").values()) & set(made(tmp_path / "dpmpp").values())
