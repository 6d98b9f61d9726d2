"""The command line: each command has help; mistakes are messages."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from data_catalog.config.places import PROJECT
from flows.cli.chatter import PrintableFormatter
from flows.cli.commands import app
from flows.cli.help import GROUPS
from flows.cli.interrupted import KEPT, told

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]
HEAVY = ("torch", "prefect", "mlflow", "diffusers", "transformers", "distributed", "scipy", "cv2", "skimage", "PIL")


def stillroom(*arguments: str, root: Path) -> "subprocess.CompletedProcess[str]":
    """The real command in a process of its own, on a data root of its own."""
    environment = {**os.environ, "STILLROOM_DATA": str(root), "COLUMNS": "120", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False, timeout=120
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_the_common_options(name: str) -> None:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.help
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--profile", "--set", "--json"} <= options
    assert all(parameter.help for parameter in command.params if parameter.name != "flow")


def test_a_log_line_and_an_error_show_control_characters_as_escapes(tmp_path: Path) -> None:
    record = logging.makeLogRecord({"msg": "edited %s\n\tnext", "args": ("a\x1b[31mb\x07\udce9",)})
    assert PrintableFormatter().format(record) == "edited a\\x1b[31mb\\x07\\udce9\n\tnext"
    ended = stillroom("plan", "--profile", "a\x1b[31mb", root=tmp_path)
    assert ended.stderr.startswith("error: there is no profile 'a\\x1b[31mb'")


def test_help_and_plan_import_no_engine(tmp_path: Path) -> None:
    script = (
        "import sys, contextlib, io\n"
        "from flows.cli import main\n"
        "for arguments in (['--help'], ['plan', '--json']):\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()): main(arguments)\n"
        "    except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    environment = {**os.environ, "STILLROOM_DATA": str(tmp_path)}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_good_order_with_its_own_exit_code(number: signal.Signals) -> None:
    script = (
        "import os, signal\n"
        "from flows.cli import main\nfrom flows.cli.commands import app\n"
        "@app.command()\n"
        "def wait():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {number.value})\n"
        "        signal.pause()\n"
        "    finally: print('tidied up')\n"
        "main(['wait'])\n"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (128 + number, "tidied up\n")
    assert ended.stderr.splitlines()[-2:] == ["interrupted; finished partitions are kept", "go on with: stillroom wait"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("start", "again"),
    [
        ("import flows.cli; flows.cli.main()", "stillroom plan"),
        ("import runpy; runpy.run_module('stillroom', run_name='__main__')", "stillroom plan"),
        ("import runpy; runpy.run_module('flows.run', run_name='__main__')", "make plan"),
    ],
)
def test_a_signal_while_the_first_modules_are_imported_has_the_same_two_lines(
    start: str, again: str, number: signal.Signals
) -> None:
    script = (
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('typer', 'yaml', 'pydantic', 'httpx', 'torch', 'numpy'):\n"
        f"            os.kill(os.getpid(), {number.value})\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = ['program', 'plan']\n{start}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (128 + number, "")
    said = ended.stderr.splitlines()
    assert (len(said), said[0][:13], said[1]) == (2, "interrupted; ", f"go on with: {again}")


def test_what_is_kept_and_what_to_type_after_ctrl_c() -> None:
    said = told(["edit-video", "my film.mp4", "--prompt", "make him a zombie"]).splitlines()
    assert said == [
        "the frames that were edited are kept",
        "go on with: stillroom edit-video 'my film.mp4' --prompt 'make him a zombie'",
    ]
    assert "checkpoint" in told(["distill"])
    assert "nothing was changed" in told(["plan"])
    assert set(KEPT) <= set(COMMANDS)


def test_the_help_lists_every_command_once_and_in_one_line() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == COMMANDS
    ended = subprocess.run(
        [sys.executable, "-m", "stillroom", "-h"], capture_output=True, text=True, cwd=PROJECT, check=False,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rows = re.findall(r"^  ([a-z][a-z-]*)  +[A-Z].*[.]$", ended.stdout, re.MULTILINE)
    assert rows == listed
    assert "Exit codes: 0 " in ended.stdout


@pytest.mark.parametrize("name", [[], *([name] for name in COMMANDS), ["styles", "add"]])
def test_h_is_help_everywhere(name: list[str]) -> None:
    result = CliRunner().invoke(app, [*name, "-h"], prog_name="stillroom")
    assert result.exit_code == 0
    assert result.output.startswith(" ".join(["Usage: stillroom", *name]))


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    ended = stillroom("--version", root=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, f"stillroom {version('stillroom')}\n")


def test_a_person_sees_our_lines_and_errors_of_libraries_and_no_chatter() -> None:
    script = (
        "import logging, os, warnings\n"
        "from flows.cli import main\nfrom flows.cli.commands import app\n"
        "@app.command()\n"
        "def talk():\n"
        "    import transformers\n"
        "    logging.getLogger('tasks.edit').info('ours')\n"
        "    logging.getLogger('alembic.runtime').error('broken')\n"
        "    logging.getLogger('prefect.flow_runs').error('error: said twice')\n"
        "    logging.getLogger('prefect.flow_runs').info('View at http://127.0.0.1/runs/1')\n"
        "    transformers.utils.logging.get_logger('transformers.models').warning('chatter')\n"
        "    for name in ('torch._subclasses', 'urllib3', 'httpx', 'mlflow.pyfunc'):\n"
        "        logging.getLogger(name).warning('chatter')\n"
        "    warnings.warn('chatter')\n"
        "    print(os.environ['DO_NOT_TRACK'])\n"  # Prefect's notice, and what it tells of
        "main(['talk'])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=False, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "ours\nbroken\nView at http://127.0.0.1/runs/1\n")
    assert ended.stdout == "1\n"


def test_plan_json_counts_every_stage_and_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    ended = stillroom("plan", "--json", root=root)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["profile"] == "demo"
    stages = {row["stage"]: row for row in document["stages"]}
    names = "portraits align prompts edit score select teach dataset distill evaluate"
    assert list(stages) == names.split()
    for row in document["stages"]:
        assert row["cached"] + row["run"] + row["maybe"] == row["partitions"]
    assert stages["edit"]["reasons"] == [f"new ({stages['edit']['partitions']} partitions)"]
    assert not root.exists()


def test_an_unknown_setting_is_one_message_and_exit_1(tmp_path: Path) -> None:
    for command in ("plan", "build"):
        ended = stillroom(command, "--set", "edit.stesp=3", "--json", root=tmp_path)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == ("error: --set edit.stesp=3, edit: unknown key 'stesp'; did you mean 'steps'?\n")


@pytest.mark.parametrize("arguments", [["bulid"], ["plan", "--frobnicate"], ["why"], ["edit", "portrait.png"]])
def test_wrong_usage_is_exit_2(arguments: list[str], tmp_path: Path) -> None:
    ended = stillroom(*arguments, root=tmp_path)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_why_names_what_is_new(tmp_path: Path) -> None:
    ended = stillroom("why", "edit/zombie/0000", "--json", root=tmp_path)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert (document["partition"], document["state"]) == ("edit/zombie/0000", "run")
    assert document["changed"] == [{"what": "new", "then": None, "now": None}]


def test_why_of_an_unknown_partition_says_which_there_are(tmp_path: Path) -> None:
    ended = stillroom("why", "edit/zombi/0000", root=tmp_path)
    assert ended.returncode == 1
    assert "there is no partition 'edit/zombi/0000'" in ended.stderr
    assert "edit/" in ended.stderr.split("hint", 1)[1]


def test_styles_and_models_list_what_the_profile_uses(tmp_path: Path) -> None:
    styles = json.loads(stillroom("styles", "--json", root=tmp_path).stdout)["styles"]
    assert {"zombie", "red-hair"} <= {row["style"] for row in styles}
    models = json.loads(stillroom("models", "--json", root=tmp_path).stdout)["models"]
    assert {"editor", "teacher", "clip", "identity", "landmarks"} <= {row["model"] for row in models}


def test_verify_of_an_empty_root_finds_nothing_damaged(tmp_path: Path) -> None:
    document = json.loads(stillroom("verify", "--json", root=tmp_path).stdout)
    assert (document["checked"], document["damaged"]) == (0, [])


def test_distill_without_a_dataset_says_to_build_first(tmp_path: Path) -> None:
    ended = stillroom("distill", root=tmp_path)
    assert ended.returncode == 1
    assert "stillroom build" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_run_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    ended = stillroom("run", "build-dataset", root=tmp_path)
    assert ended.returncode == 1
    assert "make up" in ended.stderr


def test_a_copied_checkout_does_not_run_the_code_of_the_original(tmp_path: Path) -> None:
    for name in ("flows/build_dataset.py", ".venv/bin/stillroom"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    script = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from flows.cli import main; main(['styles'])"
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "runs the code of another checkout" in ended.stderr
    assert str(PROJECT) in ended.stderr
