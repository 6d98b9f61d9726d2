"""Errors of the operating system at a path of the user's: a message with path, cause and next step."""

import errno
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog.config.disk_errors import STEPS, disk_mistake
from data_catalog.config.places import PROJECT
from data_catalog.store.store import full_disk


@pytest.mark.parametrize("number", sorted(STEPS))
def test_every_cause_names_the_path_and_the_next_step(number: int) -> None:
    mistake = disk_mistake(OSError(number, os.strerror(number), "/home/me/out"))
    assert mistake is not None
    assert mistake.fields["path"] == "/home/me/out"
    assert os.strerror(number).lower() in mistake.message
    assert mistake.hint
    assert "{path}" not in mistake.hint


def raised(work: Callable[[], object]) -> OSError:
    with pytest.raises(OSError) as caught:
        work()
    return caught.value


def test_what_the_system_says_of_real_paths(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for work, number in [
        (lambda: (file / "deep").mkdir(parents=True), errno.ENOTDIR),
        (lambda: file.mkdir(parents=True, exist_ok=True), errno.EEXIST),
        (lambda: (tmp_path / ("n" * 300)).touch(), errno.ENAMETOOLONG),
        (lambda: tmp_path.write_text(""), errno.EISDIR),
    ]:
        error = raised(work)
        mistake = disk_mistake(error)
        assert error.errno == number
        assert mistake is not None
        assert str(tmp_path) in str(mistake)


def test_errors_of_the_program_itself_stay_bugs() -> None:
    missing = FileNotFoundError(errno.ENOENT, "no", str(PROJECT / "tasks" / "x.py"))
    for bug in (missing, FileNotFoundError(errno.ENOENT, "no", sys.prefix + "/x"), OSError("odd"), ValueError("no")):
        assert disk_mistake(bug) is None
    assert disk_mistake(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None


def test_too_many_open_files_say_so_without_a_path() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
    try:
        error = raised(lambda: [held.append(os.open("/dev/null", os.O_RDONLY)) for _ in range(100)])
        mistake = disk_mistake(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    for found in (disk_mistake(error), mistake):
        assert found is not None
        assert "too many open files" in found.message
        assert "ulimit -n" in str(found.hint)


def test_a_full_disk_is_that_of_the_data_root_or_that_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, temporary = tmp_path / "data", tmp_path / "tmp"
    root.mkdir()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def full(path: Path) -> str:
        return str(disk_mistake(OSError(errno.ENOSPC, "No space left on device", str(path)), root))

    assert "there is no space left on the disk" in full(root / "store" / "x")
    assert str(root) in full(root / "store" / "x")
    assert "temporary files" in full(temporary / "x")
    assert "TMPDIR" in full(temporary / "x")
    assert str(tmp_path / "out") in full(tmp_path / "out" / "x")
    assert full_disk(root, RuntimeError("I/O error: No space left on device (os error 28)")) == temporary
    assert full_disk(root, RuntimeError("shapes differ")) is None
