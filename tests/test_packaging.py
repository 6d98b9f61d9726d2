"""The packages are ours, the pins fit the dependencies, and what is deployed is there."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from data_catalog.config.places import PROJECT
from flows.cli.commands import PIPELINE
from tests.worlds import pupil

PACKAGES = ("flows", "tasks", "models", "data_catalog")
FLOWS = ("build_dataset", "distill", "evaluate", "reproduce", "edit_video", "lab/claims", "lab/pretrain_embedded")
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
SET_UP = re.findall(r"-e '\.\[(.+)\]'", (PROJECT / "Makefile").read_text(encoding="utf-8"))[0].split(",")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PINS = {
    _plain(name): version
    for name, _, version in (
        line.partition("==") for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    )
}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_imported_from_this_checkout(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ == str(PROJECT / name / "__init__.py")


def test_the_distribution_names_the_four_packages_and_the_configs() -> None:
    include = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert set(include) == {f"{name}*" for name in (*PACKAGES, "configs")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Names of the files in a wheel that is built from a copy of this checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (*PACKAGES, "configs"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "stillroom.py"):
        shutil.copy(PROJECT / name, copy / name)
    script = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "dist").iterdir()
    with zipfile.ZipFile(built) as archive:
        return frozenset(archive.namelist())


def test_a_wheel_holds_every_file_that_lies_beside_the_code(wheel: frozenset[str]) -> None:
    folders = [PROJECT / name for name in (*PACKAGES, "configs")]
    there = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    kept = {path.relative_to(PROJECT).as_posix() for path in there if path.suffix not in (".pyc", ".md")}
    assert {f"{name}/py.typed" for name in PACKAGES} <= kept  # annotations count for other projects too
    assert kept | {"stillroom.py"} <= wheel


def test_a_wheel_holds_the_licence_and_the_notice(wheel: frozenset[str]) -> None:
    assert {Path(name).name for name in wheel if ".dist-info/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_console_script_is_the_command_line() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="stillroom")
    assert script.load() is importlib.import_module("flows.cli").main


def test_every_dependency_is_pinned_to_an_allowed_version() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    for text in [*PYPROJECT["project"]["dependencies"], *(text for name in SET_UP for text in extras[name])]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(PINS[_plain(requirement.name)]), text


def test_whatever_the_set_up_brings_along_is_pinned() -> None:
    needed = {"stillroom": set(SET_UP)}
    waiting = ["stillroom"]
    while waiting:
        name = waiting.pop()
        for requirement in map(Requirement, metadata.requires(name) or []):
            extras = needed.get(_plain(requirement.name), set())
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *needed[name])
            )
            if wanted and (_plain(requirement.name) not in needed or not requirement.extras <= extras):
                needed[_plain(requirement.name)] = extras | requirement.extras
                waiting.append(_plain(requirement.name))
    # A CUDA build of torch names the versions of NVIDIA's libraries itself.
    own = {name for name in needed if re.match("stillroom|setuptools|nvidia|cuda|triton", name)}
    assert needed.keys() - own <= PINS.keys()


# Hides modules from imports and from look-ups, as if they were not installed.
HIDE = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else super().find_spec(name, path, target)

sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


def without_the_pipeline(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that has none of the modules of the extra `pipeline`."""
    command = [sys.executable, "-c", HIDE.format(hidden=sorted(PIPELINE)) + script, *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def test_the_modules_of_the_pipeline_are_those_of_its_extra() -> None:
    names = [Requirement(text).name for text in PYPROJECT["project"]["optional-dependencies"]["pipeline"]]
    modules = metadata.packages_distributions()
    found = {module for module in PIPELINE if {_plain(name) for name in modules[module]} & set(map(_plain, names))}
    assert found == PIPELINE
    assert len(found) == len(names)


def test_a_student_is_used_without_the_pipeline(tmp_path: Path) -> None:
    pupil.student().save_pretrained(tmp_path / "student")
    (photo,) = pupil.write_photos(tmp_path, 1)
    script = """
from stillroom import Student

student = Student.load(sys.argv[1])
head = student.edit(sys.argv[2], "turn her into a bronze statue")
head.render(0.3, 0.1).save(sys.argv[3] + "/side.png")
head.save_mesh(sys.argv[3] + "/head.ply")
head.save_video(sys.argv[3] + "/turn.mp4", seconds=0.2)
student.speed_up().edit(sys.argv[2], reference=sys.argv[2])
"""
    done = without_the_pipeline(script, str(tmp_path / "student"), str(photo), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name).is_file() for name in ("side.png", "head.ply", "turn.mp4"))


@pytest.mark.parametrize("command", ["build", "doctor"])
def test_a_command_that_needs_the_pipeline_says_how_to_install_it(command: str) -> None:
    done = without_the_pipeline(f"from flows.cli import main; main(['{command}'])")
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: this command needs \w+, which is not installed\n"
        r"  hint      pip install 'stillroom\[pipeline\]'    \(in a checkout: make setup\)\n",
        done.stderr,
    )


def test_planning_needs_no_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    done = without_the_pipeline("from flows.cli import main; main(['plan', '--json'])")
    assert (done.returncode, done.stderr) == (0, "")


def test_prefect_yaml_deploys_every_flow_for_each_profile_that_has_a_use_for_it() -> None:
    entries = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    deployed = {(entry["entrypoint"], entry["name"]) for entry in entries}
    for flow in FLOWS:
        profiles = {name for entrypoint, name in deployed if entrypoint == f"flows/{flow}.py:{Path(flow).name}"}
        assert profiles == ({"demo"} if flow == "lab/pretrain_embedded" else {"demo", "paper"}), flow


@pytest.mark.parametrize("name", FLOWS)
def test_every_deployed_entrypoint_is_a_flow_of_that_name(name: str) -> None:
    module = importlib.import_module(f"flows.{name.replace('/', '.')}")
    function = Path(name).name
    assert getattr(module, function).name == function.replace("_", "-")
