"""Pairs of one's own: joined by name, cut at the same place, and one message for a folder that will not do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.products.students import adapted_style, adapted_styles
from data_catalog.samples.encoding import encode_json, encode_png
from data_catalog.store.catalog import Catalog
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition, Work
from data_catalog.store.store import Store
from flows.run.engine import read_parameters
from models.procedural.photo import raw_photo
from models.three_d.adaptation import read_delta
from tasks.adaptation import folder as adapt_folder
from tasks.adaptation.folder import STAGE, cut_pair, find_pairs
from tasks.adaptation.pairs import read_pairs
from tasks.student.api import Student
from tasks.student.user_portrait import Detectors, find_detectors
from tasks.training.data import read_fields
from tests.worlds import pupil


def write_folder(folder: Path, inputs: dict[str, np.ndarray], edited: dict[str, np.ndarray] | None = None) -> Path:
    """input/ and edited/; without pictures given, an edited picture is the negative of its input."""
    for side, pictures in (("input", inputs), ("edited", edited or {n: 255 - p for n, p in inputs.items()})):
        (folder / side).mkdir(parents=True)
        for name, picture in pictures.items():
            (folder / side / f"{name}.png").write_bytes(encode_png(picture))
    return folder


def settings_of(folder: Path, **given: Any) -> Settings:
    return Settings.model_validate({"adapt": {"pairs_folder": str(folder), "prompt": "make it a negative", **given}})


def photos(count: int) -> dict[str, np.ndarray]:
    return {f"photo_{seed}": raw_photo(seed).rgb for seed in range(count)}


def test_a_folder_that_will_not_do_is_one_message(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 127, np.uint8)
    (tmp_path / "half" / "input").mkdir(parents=True)
    with pytest.raises(UserError, match="has no folder edited/"):
        find_pairs(tmp_path / "half")
    alone = write_folder(tmp_path / "alone", {"a": grey, "b": grey, "c": grey}, {"a": grey, "z": grey})
    (alone / "edited" / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match="without a partner") as raised:
        find_pairs(alone)
    assert raised.value.fields == {"only_in_input": "b, c", "only_in_edited": "z"}
    with pytest.raises(UserError, match="too few pairs"):
        find_pairs(write_folder(tmp_path / "few", {"a": grey, "b": grey}))
    pairs = find_pairs(write_folder(tmp_path / "good", {"b": grey, "a": grey, "c": grey}))
    assert [pair.name for pair in pairs] == ["a", "b", "c"]


def test_an_edited_picture_is_cut_where_its_input_is(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, photos(3))
    settings = settings_of(folder)
    portrait, edited = cut_pair(find_pairs(folder)[0], find_detectors(settings), settings)
    assert portrait.cropped
    assert portrait.rgb.shape == edited.shape == (64, 64, 3)
    assert np.abs(portrait.rgb.astype(int) + edited - 255).max() <= 2


def test_the_stage_names_every_network_that_looks_for_the_faces(tmp_path: Path) -> None:
    own = settings_of(tmp_path)
    photographs = own.model_copy(update={"portraits": own.portraits.model_copy(update={"source": str(tmp_path)})})
    assert {"landmarks", "faces"} <= {*STAGE.models(own)}
    assert "faces" in STAGE.models(photographs)
    assert len(set(STAGE.models(own))) == len(STAGE.models(own))


def test_an_edited_picture_may_have_another_resolution(tmp_path: Path) -> None:
    inputs = photos(3)
    twice = {name: picture.repeat(2, axis=0).repeat(2, axis=1) for name, picture in inputs.items()}
    folder = write_folder(tmp_path, inputs, twice)
    settings = settings_of(folder)
    portrait, edited = cut_pair(find_pairs(folder)[0], find_detectors(settings), settings)
    assert portrait.cropped
    assert np.abs(portrait.rgb.astype(int) - edited).mean() < 2


def test_two_pictures_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    for side in ("input", "edited"):
        folder = write_folder(tmp_path / side, photos(3))
        (folder / side / "photo_1.JPG").write_bytes(b"another person")
        with pytest.raises(UserError, match=f"{side} holds two pictures named 'photo_1'") as raised:
            find_pairs(folder)
        assert raised.value.fields == {"first": "photo_1.JPG", "second": "photo_1.png"}
        assert "rename" in str(raised.value.hint)


def test_pictures_of_two_shapes_and_a_portrait_that_comes_twice_are_refused(tmp_path: Path) -> None:
    inputs = photos(3)
    low = {name: picture[:-2] for name, picture in inputs.items()}
    folder = write_folder(tmp_path / "sizes", inputs, low)
    with pytest.raises(UserError, match="'photo_0' differ in shape") as raised:
        cut_pair(find_pairs(folder)[0], Detectors(None), settings_of(folder))
    assert raised.value.fields["edited"] == "128 x 126"
    assert "crop" in str(raised.value.hint)
    twice = settings_of(write_folder(tmp_path / "twice", inputs | {"again": inputs["photo_1"]}))
    with pytest.raises(UserError, match="the same portrait"):
        run_stage(tmp_path / "out", twice)


def run_stage(folder: Path, settings: Settings) -> Any:
    folder.mkdir()
    work = Work(Partition("pairs", "negative"), {}, settings, {}, folder, folder)
    return adapt_folder.run(work)


def test_a_folder_becomes_pairs_with_prompts_and_a_few_held_out(tmp_path: Path) -> None:
    settings = settings_of(write_folder(tmp_path / "mine", photos(5)), pairs=10, held_out=4)
    summary = run_stage(tmp_path / "out", settings)
    learned, held_out = read_pairs(tmp_path / "out")
    assert (len(learned), len(held_out), summary.metrics["pairs"]) == (4, 1, 4.0)
    assert all(sample.style == "negative" and sample.image_prompt for sample in learned)
    assert not {sample.prompt for sample in learned} & {sample.prompt for sample in held_out}
    fields = read_fields(learned[0])
    assert np.abs(fields.portrait.astype(int) + fields.pseudo_label - 255).max() <= 2
    partition = Partition("pairs", "negative")
    assert len(adapt_folder.sources(settings, partition)) == 10
    assert adapt_folder.reads(settings, partition) == adapt_folder.reads(
        settings.model_copy(update={"distill": settings.distill.model_copy(update={"lr": 1.0})}), partition
    )


def test_without_a_style_file_the_prompt_must_be_said(tmp_path: Path) -> None:
    settings = settings_of(write_folder(tmp_path / "mine", photos(3)), prompt=None)
    with pytest.raises(UserError, match="no style file for 'negative'") as raised:
        adapt_folder.sources(settings, Partition("pairs", "negative"))
    assert "--prompt" in str(raised.value)


def store_adapted(root: Path, style: str, base: str, shift: float) -> Record:
    """An adapted style as the stage leaves it: every weight that may learn is moved by `shift`."""
    from safetensors.torch import save_file

    store, partition = Store(root), Partition("adapt", style)
    number = f"{shift:.3f}".replace(".", "").ljust(64, "0")
    folder = store.begin(partition, number)
    moved = {name: value + shift for name, value in read_delta(Student.load().network).items()}
    save_file(moved, folder / "delta.safetensors")
    (folder / "adapted.json").write_bytes(encode_json({"style": style, "student": base}))
    record = Record(
        partition=partition.key,
        stage="adapt",
        version=1,
        fingerprint=number,
        fingerprint_inputs={},
        digest="",
        files={},
    )
    return store.commit(folder, record)


def test_deltas_of_several_styles_are_kept_and_chosen_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    base = pupil.store_student(tmp_path).digest
    first = store_adapted(tmp_path, "bald", base, 0.01)
    store_adapted(tmp_path, "afro", base, 0.02)
    store_adapted(tmp_path, "afro", "f" * 64, 0.03)
    catalog = Catalog(Store(tmp_path))
    assert sorted(each.style for each in adapted_styles(catalog)) == ["afro", "afro", "bald"]
    assert adapted_style(catalog, "bald").digest == adapted_style(catalog, first.digest[:12]).digest == first.digest
    assert adapted_style(catalog, "afro", base).base == base
    with pytest.raises(UserError, match="no student was adapted to 'elf'") as raised:
        adapted_style(catalog, "elf")
    assert raised.value.fields["adapted_styles"] == "afro, bald"
    portrait, prompt = pupil.aligned_portrait(), "make him bald"
    plain, bald = Student.load(), Student.load(adapted="bald")
    own = dict(bald.network.named_parameters())
    for name, value in plain.network.named_parameters():
        expected = value + 0.01 if name in read_delta(plain.network) else value
        assert own[name].equal(expected), name
    assert not plain.edit(portrait, prompt).triplane.equal(bald.edit(portrait, prompt).triplane)


def test_a_style_of_a_student_that_is_gone_is_not_put_into_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    base = pupil.store_student(tmp_path).digest
    store_adapted(tmp_path, "afro", "f" * 64, 0.03)
    with pytest.raises(UserError, match=f"the student {base[:16]} was not adapted to 'afro'"):
        Student.load(adapted="afro")


def test_a_flow_with_a_parameter_of_its_own_is_triggered_with_it_or_says_so() -> None:
    assert read_parameters("adapt-style", ["style=bald", "pairs=null"]) == {"style": "bald", "pairs": None}
    assert read_parameters("ablate", ["seeds=2"]) == {"seeds": 2}
    with pytest.raises(UserError, match="wrong parameters for the flow adapt-style") as raised:
        read_parameters("adapt-style", ["stlye=bald"])
    assert (raised.value.fields["missing"], raised.value.fields["unknown"]) == ("style", "stlye")
    assert "--param style=VALUE" in str(raised.value)
