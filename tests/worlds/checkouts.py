"""Checkouts of the project that a test may copy, move and change, and the commands that a user types in them.

Their one deployment is a flow that writes down whose code ran.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from data_catalog.config.places import PROJECT
from data_catalog.plan.source import PACKAGES
from flows.run.processes import Service, find_service
from flows.run.server import environment, prefect_home
from tests.worlds.commands import OURS

SECONDS = 400  # for one command, on a machine that does much else

MARK = '''"""A flow that says which checkout it is of."""

import json
import os
from pathlib import Path

from prefect import flow

from data_catalog.config.places import PROJECT

LABEL = "as committed"


@flow(name="mark")
def mark(into: str) -> None:
    """Write down whose code runs, in which folder."""
    told = {"code": str(Path(__file__).parents[1]), "imports": str(PROJECT), "cwd": os.getcwd(), "label": LABEL}
    Path(into).write_text(json.dumps(told))
'''
DEPLOYMENTS = """name: stillroom
deployments:
  - {name: demo, entrypoint: "flows/mark.py:mark"}
"""


@dataclass
class Checkout:
    """A checkout at `path`, whose data root is its own folder data, or the `data` given."""

    path: Path
    given: dict[str, str] = field(default_factory=dict)  # of the environment

    @property
    def root(self) -> Path:
        return Path(self.given.get("STILLROOM_DATA", self.path / "data"))

    def environment(self) -> dict[str, str]:
        return {**{name: value for name, value in os.environ.items() if name not in OURS}, **self.given}

    def run(
        self, *arguments: str, env: dict[str, str] | None = None, answer: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m ...` here; the first entry of its path is this folder, so that its code runs."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.path,
            env={**self.environment(), **(env or {})},
            input=answer or "",
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def up(self, *options: str) -> str:
        """Start the services; returns what was said."""
        ended = self.run("flows.run", "up", *options)
        assert ended.returncode == 0, ended.stderr + self.logs()
        return ended.stdout + ended.stderr

    def refused_up(self) -> str:
        """Try to start the services; returns the error."""
        ended = self.run("flows.run", "up")
        assert ended.returncode == 1, ended.stdout
        assert "Traceback" not in ended.stderr
        return ended.stderr

    def down(self) -> str:
        ended = self.run("flows.run", "down")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def mark(self) -> dict[str, str]:
        """Let the deployment run, and read what it wrote down."""
        into = self.path.parent / f"mark-{uuid.uuid4().hex[:8]}.json"
        server = find_service(prefect_home(self.root), "server")
        url = self.given.get("PREFECT_API_URL") or (server.url if server else "")
        asked = ["prefect", "deployment", "run", "mark/demo", "--watch", "--param", f"into={json.dumps(str(into))}"]
        ended = self.run(*asked, env=environment(self.root, url))
        assert ended.returncode == 0, ended.stdout + ended.stderr + self.logs()
        told: dict[str, str] = json.loads(into.read_text())
        return told

    def own_mark(self, label: str = "as committed") -> dict[str, str]:
        """Describe the run of this checkout's code."""
        place = str(self.path)
        return {"code": place, "imports": place, "cwd": place, "label": label}

    def service(self, name: str) -> Service | None:
        return find_service(self.root / "mlflow" if name == "ui" else prefect_home(self.root), name)

    def git(self, *arguments: str) -> str:
        person = ["-c", "user.name=A", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
        ended = subprocess.run(
            ["git", *person, *arguments], cwd=self.path, capture_output=True, text=True, check=True, timeout=60
        )
        return ended.stdout

    def state(self) -> dict[str, str]:
        """Read what must stay as it is: Git's view, the code, the file in .venv and Git's own files."""
        kept = [self.path / ".venv" / "made-here", self.path / ".git" / "HEAD", self.path / "flows" / "mark.py"]
        return {"status": self.git("status", "--porcelain")} | {path.name: path.read_text() for path in kept}

    def logs(self) -> str:
        """The ends of the services' logs."""
        paths = sorted(prefect_home(self.root).glob("*.log"))
        return "".join(f"\n--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def end(self) -> None:
        """End whatever was started here, by the notes."""
        for name in ("ui", "deployments", "server"):
            service = self.service(name)
            if service is not None:
                end_family(service.pid)


def make_checkout(path: Path, deployments: str = DEPLOYMENTS) -> Checkout:
    """Copy the project's packages into a repository of their own, with one commit, to serve these deployments."""
    for package in (*PACKAGES, "configs"):
        shutil.copytree(PROJECT / package, path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / ".gitignore", path)
    (path / "flows" / "mark.py").write_text(MARK)
    (path / "prefect.yaml").write_text(deployments)
    checkout = Checkout(path)
    checkout.git("init", "--quiet")
    checkout.git("add", ".")
    checkout.git("commit", "--quiet", "-m", "The code")
    (path / ".venv").mkdir()
    (path / ".venv" / "made-here").write_text(path.name)
    return checkout


def copy_checkout(source: Checkout, path: Path) -> Checkout:
    """Copy the folder with all that is in it, as `cp -r` does, and edit the copy's code without a commit."""
    subprocess.run(["cp", "-r", str(source.path), str(path)], check=True, timeout=120)
    code = path / "flows" / "mark.py"
    code.write_text(code.read_text().replace("as committed", f"edited in {path.name}"))
    (path / ".venv" / "made-here").write_text(path.name)
    return Checkout(path, dict(source.given))


def end_family(pid: int) -> None:
    """Kill a process that the test started, and its children."""
    try:
        parent = psutil.Process(pid)
        family: Sequence[psutil.Process] = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)
