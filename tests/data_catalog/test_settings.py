"""Profiles and overrides, and the message for each way to get one wrong."""

import pickle
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROFILES, data_root
from data_catalog.config.profiles import list_profiles, load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.seeds import derive, fraction


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "demo.yaml").write_text("# For tests.\nedit:\n  steps: 7\n")
    return tmp_path


def said(folder: Path, *overrides: str, profile: str = "demo") -> str:
    with pytest.raises(UserError) as caught:
        load_settings(profile, list(overrides), folder)
    return str(caught.value)


@pytest.mark.parametrize("profile", list_profiles())
def test_every_profile_loads_and_says_what_it_is_for(profile: str) -> None:
    assert load_settings(profile).profile == profile
    assert (PROFILES / f"{profile}.yaml").read_text().startswith("# ")


def test_defaults_then_profile_then_overrides(folder: Path) -> None:
    settings = load_settings("demo", ["edit.seed=3", "prompts.styles=[zombie, neon]", "world=paper"], folder)
    assert (settings.edit.steps, settings.edit.seed, settings.world) == (7, 3, "paper")
    assert settings.edit.guidance_scale == Settings().edit.guidance_scale
    assert settings.prompts.styles == ["zombie", "neon"]
    assert load_settings("demo", ["edit.steps=9", "edit.steps=10"], folder).edit.steps == 10


def test_an_empty_profile_is_all_defaults(folder: Path) -> None:
    (folder / "empty.yaml").write_text("# Nothing differs.\n")
    assert load_settings("empty", [], folder) == Settings(profile="empty")


@pytest.mark.parametrize(
    ("profile", "overrides", "count"),
    [
        ("demo", [], 112),
        ("demo", ["source=/x"], None),
        ("demo", ["source=/x", "count=112"], 112),
        ("demo", ["count=5", "source=/x"], 5),
        ("demo", ["source=/x", "source=procedural"], 112),
        ("paper", [], 1400),  # its own wish, of whichever copy of FFHQ
        ("paper", ["source=/x"], 1400),
    ],
)
def test_a_folder_of_the_users_is_taken_whole_unless_a_count_is_set(
    profile: str, overrides: list[str], count: int | None
) -> None:
    assert load_settings(profile, [f"portraits.{each}" for each in overrides]).portraits.count == count


def test_a_profile_with_a_folder_takes_it_whole(folder: Path) -> None:
    (folder / "mine.yaml").write_text("# mine\nportraits: {source: /x}\n")
    assert load_settings("mine", folder=folder).portraits.count is None
    (folder / "mine.yaml").write_text("# mine\nportraits: {source: /x, count: 9}\n")
    assert load_settings("mine", folder=folder).portraits.count == 9
    assert load_settings("mine", ["portraits={source: /y}"], folder=folder).portraits.count is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("edit.stesp=3", "--set edit.stesp=3, edit: unknown key 'stesp'; did you mean 'steps'?"),
        ("edti.steps=3", "--set edti.steps=3: unknown key 'edti'; did you mean 'edit'?"),
        ("edit.steps=many", "--set edit.steps=many, edit.steps: input should be a valid integer"),
        ("edit.steps=0", "--set edit.steps=0, edit.steps: input should be greater than or equal to 1"),
        (
            "teach.triplane=q4",
            "--set teach.triplane=q4, teach.triplane: input should be 'none', 'q8' or 'fp16'",
        ),
        ("edit.batch_size=0", "edit.batch_size: value error, input should be a whole number from 1, or auto"),
        ("edit=3", "--set edit=3: 'edit' is a section"),
        ("edit.steps", "--set edit.steps: expected stage.key=value"),
        (".steps=1", "--set .steps=1: expected stage.key=value"),
        ("edit.steps=[1", "--set edit.steps=[1: the value is not YAML"),
        ("edit.steps.more=1", "--set edit.steps.more=1, edit.steps: input should be a valid integer"),
        ("profile=other", "--set profile=other: unknown key 'profile'"),
        ("edit.guidance_scale=.inf", "edit.guidance_scale: input should be a finite number"),
        ("distill.lr=.nan", "distill.lr: input should be a finite number"),
        ("edit.guidance_interval=[0, .nan]", "edit.guidance_interval.1: input should be a finite number"),
        ("portraits.seed=99999999999999999999999", "portraits.seed: input should be less than or equal to"),
        ("edit.seed=9223372036854775808", "edit.seed: value error, input should be a number of 64 bits at most"),
        ("portraits.count=1e30", "portraits.count"),
        ("align.size=63", "align.size: input should be a multiple of 8"),
        ("align.size=16", "align.size: input should be greater than or equal to 24"),
        ("align.size=1000000", "align.size: input should be less than or equal to 4096"),
        ("run.device=gpu", "run.device: value error, input should be cpu, cuda, or cuda:N for one of several"),
        ("run.device=cuda:-1", "run.device: value error, input should be cpu"),
    ],
)
def test_a_wrong_override_is_said(folder: Path, override: str, message: str) -> None:
    assert message in said(folder, override)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("edit:\n  stesp: 3\n", "broken.yaml, edit: unknown key 'stesp'; did you mean 'steps'?"),
        ("edit:\n  steps: x\n", "broken.yaml, edit.steps: input should be a valid integer"),
        ("edit: [1, 2]\n", "broken.yaml, edit: expected keys with values, found [1, 2]"),
        (
            "edit:\n  steps: 1\n  steps: 2\n",
            "broken.yaml, line 3, column 3: this is not YAML: the key 'steps' occurs",
        ),
        ("edit: {steps: 3\n", "this is not YAML"),
        ("\tedit: 3\n", "broken.yaml, line 1, column 1: this is not YAML"),
        ("just words\n", "broken.yaml: expected keys with values"),
    ],
)
def test_a_wrong_profile_is_said_with_file_and_key(folder: Path, content: str, message: str) -> None:
    (folder / "broken.yaml").write_text(content)
    assert message in said(folder, profile="broken")


def test_a_profile_that_is_not_utf8_is_said(folder: Path) -> None:
    (folder / "broken.yaml").write_bytes(b"# caf\xe9\n")
    assert "broken.yaml is not UTF-8" in said(folder, profile="broken")


@pytest.mark.parametrize("profile", ["dmeo", "../demo", ""])
def test_a_profile_that_is_not_there_is_said_with_those_that_are(folder: Path, profile: str) -> None:
    message = said(folder, profile=profile)
    assert f"there is no profile '{profile}'" in message
    assert "profiles  demo" in message


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:3", "mps"])
def test_devices_of_torch_are_settings(folder: Path, device: str) -> None:
    assert load_settings("demo", [f"run.device={device}", "edit.seed=9223372036854775807"]).run.device == device


def test_a_user_error_survives_pickling_whole() -> None:
    error = UserError("no such thing", hint="make one", file="a.txt", expected=3)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "no such thing\n  file      a.txt\n  expected  3\n  hint      make one"


def test_the_data_root_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("STILLROOM_DATA", "s3://bucket/data")
    with pytest.raises(UserError, match="must be a folder of this machine"):
        data_root()
    monkeypatch.delenv("STILLROOM_DATA")
    monkeypatch.chdir(tmp_path)
    assert data_root() == tmp_path / "data"


def test_seeds_are_fixed_for_ever_and_differ_by_every_part() -> None:
    assert derive("p00", "zombie", 1) == 2729418362262875197
    assert len({derive("a", 1), derive("a", "1"), derive("a1"), derive("a", 1, 0), derive(1, "a")}) == 5
    assert all(0 <= derive("x", n) < 2**63 for n in range(100))
    values = [fraction("split", n) for n in range(4000)]
    assert 0.47 < sum(values) / 4000 < 0.53
    assert 0 <= min(values) <= max(values) < 1
