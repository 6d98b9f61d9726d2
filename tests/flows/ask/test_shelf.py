"""Lists of students and datasets with their settings, measures and uses, and names for students."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import DistillSettings, Settings
from data_catalog.plan.source import SourceReader
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.names import NAMES, check_name, give_name, names_of, read_exports, read_names
from data_catalog.products.snapshot import list_snapshots
from data_catalog.products.students import list_students, open_dataset, recorded_digest, student_entry
from data_catalog.samples.encoding import encode_json
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from data_catalog.workspace import Workspace
from flows.ask.shelf import compare_with_profile, describe_datasets, describe_students, promote, recorded_settings
from flows.run.products import find_dataset, find_student
from flows.track.model_versions import TAG, model_versions
from tasks.stages import STAGES
from tests.flows.cli.test_cli import HEAVY, stillroom
from tests.worlds import pupil
from tests.worlds.declared import Workshop

Document = dict[str, Any]

PROFILE = load_settings("demo")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Two datasets with a student each; the second is edited in seven steps, and its student has another seed."""
    shop = Workshop(tmp_path_factory.mktemp("built"))
    for age, overrides in enumerate(([], ["edit.steps=7", "distill.seed=3"])):
        shop.overrides = overrides
        shop.build(until="distill")
        manifest = shop.publish().folder / "manifest.json"
        os.utime(manifest, (1_800_000_000 + age,) * 2)
    return shop


@pytest.fixture
def shop(built: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    copy = Workshop(tmp_path)
    shutil.copytree(built.root, copy.root)
    copy.styles, copy.overrides = built.styles, []
    monkeypatch.setenv("STILLROOM_DATA", str(copy.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy


@pytest.fixture
def pair(shop: Workshop) -> list[Entry]:
    """The students of the shop, the newest first."""
    return list_students(Catalog(Store(shop.root)))


def profile_of(shop: Workshop) -> list[str]:
    return [f"prompts.styles_dir={shop.styles}", "portraits.count=4", "portraits.block_size=2"]


def store_partition(root: Path, key: str, inputs: dict[str, str], **files: Document) -> Record:
    """A partition with these JSON files, made from these inputs."""
    store, partition = Store(root), Partition.parse(key)
    fingerprint = digest_json({"inputs": inputs})
    folder = store.begin(partition, fingerprint)
    for name, document in files.items():
        (folder / f"{name}.json").write_bytes(encode_json(document))
    about: Document = {"partition": key, "stage": partition.stage, "version": 1, "files": {}, "digest": ""}
    return store.commit(folder, Record(fingerprint=fingerprint, fingerprint_inputs={"inputs": inputs}, **about))


def test_students_come_newest_first_with_the_settings_that_differ(shop: Workshop, pair: list[Entry]) -> None:
    rows = describe_students(Workspace.open("demo", profile_of(shop)))["students"]
    assert [row["digest"] for row in rows] == [entry.digest for entry in pair]
    assert [row["dataset"] for row in rows] == [each.digest for each in reversed(list_snapshots(shop.root))]
    steps, seed = load_settings("demo").edit.steps, load_settings("demo").distill.seed
    other = [
        {"setting": "edit.steps", "value": 7, "profile": steps},
        {"setting": "distill.seed", "value": 3, "profile": seed},
    ]
    assert [row["settings"] for row in rows] == [other, []]
    same = describe_students(Workspace.open("demo", [*profile_of(shop), "edit.steps=7", "distill.seed=3"]))["students"]
    assert same[0]["settings"] == []
    assert [row["setting"] for row in same[1]["settings"]] == ["edit.steps", "distill.seed"]


def test_settings_of_a_run_are_those_of_the_student_or_the_dataset_that_it_takes(
    shop: Workshop, pair: list[Entry]
) -> None:
    workspace = Workspace.open("demo", profile_of(shop))
    of_student = recorded_settings(workspace, {STUDENT: pair[0].digest})
    assert (of_student["distill"]["seed"], of_student["edit"]["steps"]) == (3, 7)
    dataset = workspace.catalog.read(pair[0]).fingerprint_inputs["inputs"][DATASET]
    of_dataset = recorded_settings(workspace, {DATASET: dataset})
    assert (of_dataset["edit"]["steps"], "distill" in of_dataset) == (7, False)
    assert recorded_settings(workspace, {}) == {}


def test_what_a_record_leaves_out_has_the_default_on_both_sides() -> None:
    rendered = {row["setting"]: row for row in compare_with_profile({"distill": {"teacher": "rendered"}}, PROFILE)}
    assert rendered["distill.teacher"] == {"setting": "distill.teacher", "value": "rendered", "profile": "cached"}
    assert rendered["distill.optimizer"]["value"] == DistillSettings().optimizer != PROFILE.distill.optimizer
    assert "distill.memory_mb" not in rendered
    assert "distill.view_yaw_range" not in rendered


def test_a_student_tells_its_measures_and_what_uses_it(shop: Workshop, pair: list[Entry]) -> None:
    table = {"table": [{"method": "no edit", "id": 0.9}, {"method": "student", "id": 0.5, "lpips": 1.4}]}
    store_partition(shop.root, "evaluate/all", {STUDENT: pair[1].digest}, table=table)
    store_partition(
        shop.root, "adapt/bald", {STUDENT: pair[1].digest}, adapted={"style": "bald", "student": pair[1].digest}
    )
    give_name(shop.root, "champion", pair[1].digest)
    new, old = describe_students(Workspace.open("demo", profile_of(shop)))["students"]
    assert old["evaluation"] == {"method": "student", "id": 0.5, "lpips": 1.4}
    assert (old["adapted_styles"], old["names"]) == (["bald"], ["champion"])
    assert (new["evaluation"], new["adapted_styles"], new["names"], new["model_versions"]) == (None, [], [], [])


def test_metrics_of_a_student_are_those_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    record = pupil.store_student(tmp_path)
    (row,) = describe_students(Workspace.open())["students"]
    learned_from = recorded_digest(pupil.store_dataset(tmp_path))
    assert (row["digest"], row["metrics"], row["dataset"]) == (record.digest, {"val_l1": 0.25}, learned_from)


def test_datasets_tell_their_samples_settings_and_students(shop: Workshop, pair: list[Entry]) -> None:
    give_name(shop.root, "champion", pair[1].digest)
    new, old = describe_datasets(Workspace.open("demo", profile_of(shop)))["datasets"]
    assert [new["digest"], old["digest"]] == [each.digest for each in reversed(list_snapshots(shop.root))]
    assert [row["students"] for row in (new, old)] == [[entry.digest] for entry in pair]
    assert [row["names"] for row in (new, old)] == [[], ["champion"]]
    assert [row["latest"] for row in (new, old)] == [True, False]
    assert [row["samples"] for row in (new, old)] == [2, 2]
    assert [row["setting"] for row in new["settings"]] == ["edit.steps"]
    assert old["settings"] == []


def test_a_dataset_without_its_partition_has_the_settings_of_its_manifest(shop: Workshop) -> None:
    (folder,) = {each.folder for each in list_snapshots(shop.root)[:1]}
    shutil.rmtree(shop.root / "store" / "dataset")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps(manifest | {"profile": "paper", "settings": {"edit": {"steps": 9}}})
    )
    os.utime(folder / "manifest.json", (1_700_000_000,) * 2)
    row = describe_datasets(Workspace.open())["datasets"][-1]
    told = {each["setting"]: each["value"] for each in row["settings"]}
    assert (told["profile"], told["edit.steps"]) == ("paper", 9)


def test_a_name_stands_for_a_student_and_for_the_dataset_it_learned_from(shop: Workshop, pair: list[Entry]) -> None:
    catalog, old = Catalog(Store(shop.root)), pair[1]
    give_name(shop.root, "champion", old.digest)
    for given in ("champion", old.digest, old.digest[:12]):
        assert student_entry(catalog, given).digest == old.digest
    assert student_entry(catalog).digest == student_entry(catalog, "latest").digest == pair[0].digest
    assert open_dataset(shop.root, "champion") == list_snapshots(shop.root)[0]
    learned = catalog.read(old).fingerprint_inputs["inputs"][DATASET]
    workspace = Workspace(Settings(), shop.root)
    assert find_dataset("champion", workspace) == {DATASET: learned}
    assert find_student("champion", workspace) == {STUDENT: old.digest, DATASET: learned}


def test_how_things_are_found_is_no_code_of_any_stage() -> None:
    reader = SourceReader()
    reached = {name for stage in STAGES for name in reader.digest([stage.run.__module__]).definitions}
    assert any(name.startswith("data_catalog.products.snapshot.") for name in reached)
    assert not [
        name for name in reached if name.startswith(("data_catalog.products.names.", "data_catalog.products.students."))
    ]


def test_an_unknown_name_is_answered_with_the_names_and_digests_there_are(shop: Workshop, pair: list[Entry]) -> None:
    give_name(shop.root, "champion", pair[1].digest)
    ended = stillroom("evaluate", "--student", "champ", root=shop.root)
    assert ended.returncode == 1
    assert "error: there is no student 'champ'" in ended.stderr
    assert f"champion ({pair[1].digest[:16]})" in ended.stderr
    assert all(entry.digest[:16] in ended.stderr for entry in pair)
    ended = stillroom("distill", "--dataset", "champ", root=shop.root)
    assert ended.returncode == 1
    assert all(each.folder.name in ended.stderr for each in list_snapshots(shop.root))
    assert "champion" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_beginning_of_two_digests_and_a_name_of_a_student_that_is_gone_are_said(
    shop: Workshop, pair: list[Entry]
) -> None:
    catalog = Catalog(Store(shop.root))
    with pytest.raises(UserError, match="2 students start with ''"):
        student_entry(catalog, "")
    give_name(shop.root, "champion", "f" * 64)
    with pytest.raises(UserError, match=f"the student named 'champion', {'f' * 16}, is no longer in the store"):
        student_entry(catalog, "champion")
    give_name(shop.root, "champion", pair[1].digest)
    shutil.rmtree(shop.root / "store" / "dataset")
    with pytest.raises(UserError, match="no longer holds the dataset that the student 'champion' learned from"):
        open_dataset(shop.root, "champion")


def test_promote_moves_a_name_and_says_from_where_to_where(shop: Workshop, pair: list[Entry]) -> None:
    new, old = pair
    first = stillroom("promote", old.digest[:12], "champion", root=shop.root)
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, f"champion is {old.digest[:16]}")
    assert "no version of a registered model in MLflow holds this student" in first.stdout
    moved = stillroom("promote", "latest", "champion", root=shop.root)
    assert moved.stdout.splitlines()[0] == f"champion was {old.digest[:16]} and is now {new.digest[:16]}"
    assert read_names(shop.root) == {"champion": new.digest}
    document = json.loads(stillroom("promote", "champion", "best", "--json", root=shop.root).stdout)
    assert (document["student"], document["before"]) == (new.digest, None)
    assert names_of(shop.root, new.digest) == ["best", "champion"]
    assert not (shop.root / "mlflow").exists()


@pytest.mark.parametrize("name", ["", "Champion", "1st", "best of all", "a/b", "latest", "beef", "a" * 65, "ÿ", "a\n"])
def test_what_cannot_be_a_name_is_said(name: str, shop: Workshop) -> None:
    with pytest.raises(UserError, match="cannot be a student's name") as caught:
        promote("latest", name, Workspace.open())
    check_name(str(caught.value.hint).removeprefix("for example "))
    assert not (shop.root / NAMES).exists()


def test_names_given_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    names = [f"student-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: give_name(tmp_path, name, digest_json(name)), names))
    assert read_names(tmp_path) == {name: digest_json(name) for name in names}


def test_a_damaged_file_of_names_is_one_message(shop: Workshop) -> None:
    for text in ('{"champion": ', "[]"):
        (shop.root / NAMES).write_text(text)
        ended = stillroom("students", root=shop.root)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("error: names.json ")
        assert "Traceback" not in ended.stderr


def test_the_lists_import_no_engine_and_write_nothing(shop: Workshop, pair: list[Entry], mlflow_uri: str) -> None:
    give_name(shop.root, "champion", pair[1].digest)
    MlflowClient(mlflow_uri).search_registered_models()
    (shop.root / "mlflow").mkdir()
    shutil.copyfile(mlflow_uri.removeprefix("sqlite:///"), shop.root / "mlflow" / "mlflow.db")
    before = {path: path.stat().st_mtime_ns for path in shop.root.rglob("*")}
    script = (
        "import sys, contextlib, io\n"
        "from flows.cli import main\n"
        "for command in ('students', 'datasets'):\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()): main([command])\n"
        "    except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr
    assert {path: path.stat().st_mtime_ns for path in shop.root.rglob("*")} == before


def test_the_tables_name_what_there_is(shop: Workshop, pair: list[Entry]) -> None:
    give_name(shop.root, "champion", pair[1].digest)
    students = stillroom("students", root=shop.root).stdout
    lines = [line for line in students.splitlines() if line and not line.startswith(" ")]
    assert [line.split()[0] for line in lines[1:3]] == [entry.digest[:16] for entry in pair]
    assert lines[2].split()[-1] == "champion"
    assert "edit.steps: 7 (profile 5)" in students
    datasets = stillroom("datasets", root=shop.root).stdout
    assert all(each.folder.name in datasets for each in list_snapshots(shop.root))
    assert f"used by: datasets/latest, student {pair[0].digest[:16]}" in datasets


def test_an_empty_root_has_nothing_to_list(tmp_path: Path) -> None:
    for command in ("students", "datasets"):
        assert json.loads(stillroom(command, "--json", root=tmp_path / "data").stdout)[command] == []
        assert "there is no" in stillroom(command, root=tmp_path / "data").stdout
    assert not (tmp_path / "data").exists()


@pytest.fixture
def registry(shop: Workshop, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """MLflow's registered models, as `--set run.mlflow_uri` and the lists meet them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    client = MlflowClient(mlflow_uri)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    return client


def register(client: MlflowClient, name: str, student: str) -> None:
    if name not in [model.name for model in client.search_registered_models()]:
        client.create_registered_model(name)
    client.create_model_version(name, source="/nowhere", tags={TAG: student})


def test_versions_of_registered_models_are_read_without_mlflow(
    shop: Workshop, pair: list[Entry], registry: MlflowClient
) -> None:
    new, old = (entry.digest for entry in pair)
    for student in (old, new, new):
        register(registry, "stillroom-demo", student)
    registry.delete_model_version("stillroom-demo", "3")
    registry.set_registered_model_alias("stillroom-demo", "tried", "1")
    known = model_versions(shop.root, load_settings("demo"))
    assert [(each.version, each.student, each.aliases) for each in known] == [(1, old, ("tried",)), (2, new, ())]
    assert str(known[0]) == "stillroom-demo version 1 @tried"
    rows = describe_students(Workspace.open())["students"]
    assert rows[1]["model_versions"] == [{"name": "stillroom-demo", "version": 1, "aliases": ["tried"]}]
    assert model_versions(shop.root, load_settings("demo", ["run.mlflow_uri=http://127.0.0.1:9"])) == []


def test_a_version_is_known_by_the_tag_of_its_run_too(shop: Workshop, registry: MlflowClient) -> None:
    run = registry.create_run(registry.create_experiment(f"runs of {shop.root}", (shop.root / "mlflow").as_uri()))
    registry.set_tag(run.info.run_id, TAG, "a" * 64)
    registry.create_registered_model("older")
    registry.create_model_version("older", source="/nowhere", run_id=run.info.run_id)
    assert [each.student for each in model_versions(shop.root, load_settings("demo"))] == ["a" * 64]


def test_promote_moves_the_alias_with_the_name(shop: Workshop, pair: list[Entry], registry: MlflowClient) -> None:
    new, old = (entry.digest for entry in pair)
    for student in (old, new, new):
        register(registry, "stillroom-demo", student)
    register(registry, "of-its-own", old)
    told = promote(old, "champion", Workspace.open())["mlflow"]
    assert told == ["models:/of-its-own@champion is version 1", "models:/stillroom-demo@champion is version 1"]
    assert promote(new, "champion", Workspace.open())["mlflow"] == [
        "the alias 'champion' was taken from of-its-own version 1",
        "models:/stillroom-demo@champion is version 3",
    ]
    found = registry.get_model_version_by_alias("stillroom-demo", "champion")
    assert (int(found.version), found.tags[TAG]) == (3, new)
    assert registry.get_registered_model("of-its-own").aliases == {}
    (line,) = promote(new, "v.2", Workspace.open())["mlflow"]
    assert line.startswith("MLflow takes no such alias for stillroom-demo: ")
    assert read_names(shop.root)["v.2"] == new


def test_a_database_that_cannot_be_read_is_one_message(shop: Workshop) -> None:
    (shop.root / "mlflow").mkdir()
    (shop.root / "mlflow" / "mlflow.db").touch()  # as at the first moment of its making
    assert describe_students(Workspace.open())["students"][0]["model_versions"] == []
    (shop.root / "mlflow" / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="MLflow's database cannot be read"):
        describe_students(Workspace.open())


def test_a_named_student_loads_also_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillroom import Student

    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    old = pupil.store_student(tmp_path / "data", 1)
    pupil.store_student(tmp_path / "data", 0)
    give_name(tmp_path / "data", "champion", old.digest)
    weight = Student.load(old.digest).network.encoder.Ref_encoder.proj_tail.weight
    assert Student.load("champion").network.encoder.Ref_encoder.proj_tail.weight.equal(weight)
    assert not Student.load().network.encoder.Ref_encoder.proj_tail.weight.equal(weight)
    (tmp_path / "champion").mkdir()
    assert Student.load("champion").network.encoder.Ref_encoder.proj_tail.weight.equal(weight)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="there is no student here"):
        Student.load("other")


def test_an_export_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.student.export import export_student

    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    digest = pupil.store_student(tmp_path / "data").digest
    give_name(tmp_path / "data", "champion", digest)
    assert export_student(tmp_path / "out", "champion", Workspace.open())["student"] == digest
    assert read_exports(tmp_path / "data") == {digest: [str(tmp_path / "out")]}
    (row,) = describe_students(Workspace.open())["students"]
    assert row["exports"] == [str(tmp_path / "out")]
