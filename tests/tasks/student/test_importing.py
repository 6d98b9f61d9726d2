"""The authors' student: from a file in the public layout into the store, and used from there like one of ours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from data_catalog.care.verify import verify
from data_catalog.config.errors import UserError
from data_catalog.config.settings import AdaptSettings, EvaluateSettings, Settings
from data_catalog.products.students import DELTA, student_entry
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.workspace import Workspace
from flows.ask.shelf import describe_students
from flows.cli.commands import app
from flows.run.products import find_student
from models.checkpoints import WeightsError, file_digest
from models.three_d import mae, student
from models.three_d.student import Student as Network
from models.three_d.student import StudentConfig
from models.zoo import public, zoo
from stillroom import Student
from tasks.adaptation import adapt
from tasks.adaptation.pairs import choose_pairs, copy_sample, write_pairs
from tasks.evaluate import evaluate
from tasks.evaluation.methods import Models
from tasks.evaluation.metrics import Judges
from tasks.student.export import export_student
from tasks.student.importing import import_student, store_student
from tasks.tables.samples import SAMPLE_ROWS
from tasks.training.student_files import load_student
from tests.worlds import pupil, taught
from tests.worlds.tiny import tiny_clip, tiny_editor

# The layout of the public file, the MAE in E_p included, at the sizes of the embedded world.
SMALL = replace(student.EMBEDDED, mae=mae.EMBEDDED, image_token_size=mae.EMBEDDED.width)


def write_public(path: Path, config: StudentConfig = SMALL, seed: int = 0) -> Path:
    """A file of random weights as 3DPE's coach saves it."""
    torch.manual_seed(seed)
    network = Network(config)
    if config is SMALL:  # with the shipped teacher's branches and renderer, so that there is something to see
        network.load_state_dict(zoo.load("teacher", "embedded").state_dict(), strict=False)
        torch.nn.init.normal_(network.encoder.Ref_encoder.proj_tail.weight, std=0.02)
    parts = {"encoder_state_dict": network.encoder.state_dict(), "renderer_state_dict": network.renderer.state_dict()}
    torch.save({**parts, "step": 60000, "opts": {}}, path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("STILLROOM_DATA", str(root))
    return Workspace.open("demo")


@pytest.fixture
def imported(workspace: Workspace, tmp_path: Path) -> Record:
    path = write_public(tmp_path / "3dpe.pt")
    return store_student(public.load_student(path, SMALL), path.name, file_digest(path), workspace)


def test_the_same_file_is_the_same_student_and_its_record_names_the_file(
    imported: Record, workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "3dpe.pt"
    again = store_student(public.load_student(path, SMALL), "other-name.pt", file_digest(path), workspace)
    assert again == imported
    assert imported.fingerprint_inputs["settings"] == {"imported": file_digest(path)}
    seen = verify(workspace.root)
    assert (seen.records, seen.damaged) == (1, [])
    row = next(row for row in describe_students(workspace)["students"] if row["digest"] == imported.digest)
    assert (row["imported"], row["dataset"]) == ("3dpe.pt", None)
    assert not row["settings"]  # what it was trained with is not known
    with pytest.raises(UserError, match="there is no student"):  # it is never the one that the settings made
        Student.from_workspace(workspace)


def test_it_edits_by_words_and_by_pictures_with_the_weights_of_the_file(
    imported: Record, workspace: Workspace, tmp_path: Path
) -> None:
    loaded, portrait = Student.from_workspace(workspace, imported.digest), pupil.aligned_portrait()
    assert loaded.network.config.own_encoders == ("image",)
    published = torch.load(tmp_path / "3dpe.pt", weights_only=True)["encoder_state_dict"]
    own = loaded.network.encoder.state_dict()
    assert set(own) == set(published)
    assert all(own[name].equal(value) for name, value in published.items())
    by_words = loaded.edit(portrait, "make the hair red")
    by_picture = loaded.edit(portrait, reference=pupil.aligned_portrait(1))
    assert not by_words.triplane.equal(by_picture.triplane)
    with torch.no_grad():
        loaded.network.encoder.Ref_encoder.mae_encoder.pos_embed.add_(1.0)  # type: ignore[union-attr]
    again = Student(loaded.network, loaded.companions, loaded.settings)
    assert not again.edit(portrait, reference=pupil.aligned_portrait(1)).triplane.equal(by_picture.triplane)


def test_it_is_exported_and_loaded_with_its_origin_on_the_card(
    imported: Record, workspace: Workspace, tmp_path: Path
) -> None:
    export_student(tmp_path / "out", imported.digest, workspace)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| imported from | `3dpe.pt`, sha256 `{file_digest(tmp_path / '3dpe.pt')}` |" in card
    again, portrait = Student.load(tmp_path / "out"), pupil.aligned_portrait()
    there = Student.from_workspace(workspace, imported.digest).edit(portrait, "make the hair red")
    assert np.array_equal(again.edit(portrait, "make the hair red").render(0.2), there.render(0.2))


def test_it_is_evaluated_and_adapted_on_the_dataset_of_the_settings(
    imported: Record, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match="there is no dataset yet"):
        find_student(imported.digest, workspace)
    dataset = pupil.store_dataset(workspace.root)
    pins = find_student(imported.digest, Workspace.open("demo"))
    assert pins == {"distill/all": imported.digest, "dataset/all": dataset.digest}
    assert "whether it met these portraits in its training is not known" in caplog.text


def test_it_goes_through_an_evaluation_and_learns_one_more_style(
    imported: Record, workspace: Workspace, tmp_path: Path
) -> None:
    networks = taught.untrained_networks()
    networks = replace(networks, clip=zoo.load("clip", "embedded"), mae=zoo.load("mae", "embedded"))
    dataset, folder = taught.write_dataset(tmp_path, networks.teacher), workspace.store.folder_of(imported)
    own = EvaluateSettings(timing_repeats=0, bootstrap=100, pictures_per_style=1, turntable_frames=2, samples=1)
    settings = Settings(evaluate=own)
    judges = Judges(zoo.load_recogniser("embedded"), networks.clip, networks.perceptual)
    editor = tiny_editor(tiny_clip())
    evaluated = taught.work_on("evaluate", tmp_path, dataset, settings, distill=folder)
    models = Models(load_student(folder), networks.teacher, editor, networks.clip, networks.mae, judges)
    assert evaluate(evaluated, models).metrics["student.id"] > 0
    document = json.loads((evaluated.folder / "table.json").read_text(encoding="utf-8"))
    assert document["image_prompts"]["clip_image"] is not None

    learning = AdaptSettings(seconds=1.0, looks_s=(), held_out=1, pairs=2, rehearsals=0, batch_size=2, old_samples=1)
    settings = Settings(adapt=learning)
    rows = [row for row in SAMPLE_ROWS.read(dataset) if row.style == "clown"]
    chosen = sorted(choose_pairs(rows, settings), key=lambda row: row.key)
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs", (copy_sample(row, tmp_path) for row in chosen), chosen)
    adapted = taught.work_on("adapt", tmp_path, dataset, settings, distill=folder, pairs=tmp_path / "pairs")
    adapted = replace(adapted, partition=Partition("adapt", "clown"), working=tmp_path / "working")
    assert adapt.adapt(adapted, networks).samples == 2
    learned = load_file(adapted.folder / DELTA)
    assert any(".mae_encoder." in name for name in learned)  # E_p as a whole learns
    assert (adapted.folder / adapt.LOOKS).is_file()


def test_a_mistake_is_said(workspace: Workspace, imported: Record, tmp_path: Path) -> None:
    path = write_public(tmp_path / "small.pt")
    with pytest.raises(UserError, match="this profile's world is another"):
        import_student(path, "authors", workspace)
    paper = Workspace.open("paper", ["run.device=cpu"])
    with pytest.raises(UserError, match="there is no such file"):
        import_student(tmp_path / "none.pt", "authors", paper)
    with pytest.raises(WeightsError, match="3DPE's student"):
        import_student(path, "authors", paper)  # the sizes are not the public ones
    with pytest.raises(UserError, match="cannot be a student's name"):
        import_student(path, "latest", paper)
    with pytest.raises(UserError, match="the student is of the world 'embedded'"):
        Student.from_workspace(paper, student_entry(paper.catalog, imported.digest).digest)


@pytest.mark.slow
def test_the_command_imports_a_file_of_the_public_sizes_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    path = write_public(tmp_path / "3dpe.pt", student.PAPER)
    result: Any = CliRunner().invoke(app, ["import-student", str(path)])
    assert result.exit_code == 0, result.output
    entry = student_entry(Workspace.open("paper").catalog, "authors")
    assert entry.bytes > 600e6
