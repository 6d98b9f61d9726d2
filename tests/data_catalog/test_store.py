"""Whole or not there: what a kill, a full disk or a stray file leaves behind."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.store.catalog import Catalog
from data_catalog.store.execute import Job, execute
from data_catalog.store.fingerprint import FileDigests, digest_json
from data_catalog.store.record import Record, Summary
from data_catalog.store.stage import Input, Partition, Work
from data_catalog.store.store import RECORD, Store, writing

PARTITION = Partition("edit", "zombie", 3)


def write_one(work: Work) -> Summary:
    (work.folder / "a.bin").write_bytes(b"a" * 1000)
    (work.folder / "b").mkdir()
    (work.folder / "b" / "c.bin").write_bytes(b"c" * 10)
    return Summary(samples=2, rejected={"dark": 1}, metrics={"mean": 0.5}, parts={"0003": "d"})


def disk_full(work: Work) -> Summary:
    (work.folder / "a.bin").write_bytes(b"a")
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(work: Work) -> Summary:
    (work.folder / "a.bin").write_bytes(b"a")
    raise ZeroDivisionError


def count_up(work: Work) -> Summary:
    done = work.working / "done"
    steps = int(done.read_text()) if done.exists() else 0
    done.write_text(str(steps + 1))
    if steps == 0:
        raise InterruptedError
    return Summary(samples=steps + 1)


def job(run: object = write_one, resumes: bool = False, stale: tuple[int, int] | None = None, steps: int = 2) -> Job:
    inputs = {"stage": "edit", "version": 1, "settings": {"steps": steps}}
    fingerprint = digest_json(inputs)
    return Job(PARTITION, fingerprint, inputs, 1, run, resumes, Settings(), {}, {}, "code", stale)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / "store")) for path in (root / "store").rglob("*") if path.is_file())


def test_a_partition_is_one_folder_with_its_record(tmp_path: Path) -> None:
    record = execute(job(), tmp_path)
    folder = f"edit/zombie/0003/{record.fingerprint[:16]}"
    assert files(tmp_path) == [f"{folder}/a.bin", f"{folder}/b/c.bin", f"{folder}/{RECORD}"]
    assert {name: entry.bytes for name, entry in record.files.items()} == {"a.bin": 1000, "b/c.bin": 10}
    again = Store(tmp_path).find(PARTITION, record.fingerprint)
    assert again == record
    assert again.summary == Summary(2, {"dark": 1}, {"mean": 0.5}, {"0003": "d"})


def test_a_stage_is_told_how_its_partition_was_made_before_by_the_same_code_and_weights(tmp_path: Path) -> None:
    def before(wanted: Job) -> list[str]:
        told: list[Input] = []

        def look(work: Work) -> Summary:
            told.extend(work.earlier())
            return write_one(work)

        execute(replace(wanted, run=look), tmp_path)
        return [made.record.fingerprint for made in told]

    first = execute(job(steps=2), tmp_path)
    assert before(job(steps=3)) == [first.fingerprint]
    assert sorted(before(job(steps=4))) == sorted([first.fingerprint, job(steps=3).fingerprint])
    assert before(replace(job(steps=5), source_digest="other code")) == []
    assert before(replace(job(steps=6), version=2)) == []
    weights = {"fingerprint_inputs": job(steps=7).fingerprint_inputs | {"weights": {"teacher": "other"}}}
    assert before(replace(job(steps=7), **weights)) == []
    on_gpu = Settings().model_copy(update={"run": Settings().run.model_copy(update={"device": "cuda"})})
    assert before(replace(job(steps=8), settings=on_gpu)) == []
    next(path for path in (tmp_path / "store").rglob("a.bin") if path.parent.name == first.fingerprint[:16]).unlink()
    assert first.fingerprint not in before(job(steps=9))


def test_two_intents_of_a_partition_are_made_at_once(tmp_path: Path) -> None:
    def meanwhile(work: Work) -> Summary:
        other = Thread(target=execute, args=(job(steps=3), tmp_path), daemon=True)
        other.start()
        other.join(timeout=300)
        assert not other.is_alive(), "it waits for this one"
        return write_one(work)

    execute(job(meanwhile), tmp_path)
    made = Catalog(Store(tmp_path)).history(PARTITION.key)
    assert {entry.fingerprint for entry in made} == {job(steps=steps).fingerprint for steps in (2, 3)}


def test_a_made_partition_is_not_made_again(tmp_path: Path) -> None:
    first = execute(job(), tmp_path)
    assert execute(job(broken), tmp_path) == first


@pytest.mark.parametrize("at", ["write", "rename", "record"])
def test_killed_at_any_point_nothing_counts_and_the_next_attempt_succeeds(tmp_path: Path, at: str) -> None:
    # kill -9 in another process: while the stage writes, before the rename, between rename and record.
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from data_catalog.store import store
        from data_catalog.store.execute import Job, execute
        from data_catalog.store.fingerprint import digest_json
        from data_catalog.store.record import Summary
        from data_catalog.config.settings import Settings
        from data_catalog.store.stage import Partition
        die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
        if {at!r} == "rename":
            Path.rename = die
        if {at!r} == "record":
            store.Store.write_record = die
        def run(work):
            (work.folder / "a.bin").write_bytes(b"half")
            if {at!r} == "write":
                die()
            return Summary(samples=2)
        inputs = {{"stage": "edit", "version": 1, "settings": {{"steps": 2}}}}
        job = Job(Partition("edit", "zombie", 3), digest_json(inputs), inputs, 1, run, False, Settings(),
                  {{}}, {{}}, "code", None)
        execute(job, Path({str(tmp_path)!r}))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert files(tmp_path), "the killed process had written something"
    assert list(store.record_folders()) == []
    assert Catalog(store).history(PARTITION.key) == []
    record = execute(job(), tmp_path)  # and waits for no lock
    folder = f"edit/zombie/0003/{record.fingerprint[:16]}"
    assert files(tmp_path) == [f"{folder}/a.bin", f"{folder}/b/c.bin", f"{folder}/{RECORD}"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no space left on the disk"):
        execute(job(disk_full), tmp_path)
    assert files(tmp_path) == []


def test_an_error_in_a_stage_leaves_nothing_and_keeps_its_type(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        execute(job(broken), tmp_path)
    assert files(tmp_path) == []


def test_a_stage_that_resumes_finds_what_it_left(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        execute(job(count_up, resumes=True), tmp_path)
    assert list(Store(tmp_path).record_folders()) == []
    record = execute(job(count_up, resumes=True), tmp_path)
    assert (record.samples, record.files) == (2, {})
    assert [path.name for path in Store(tmp_path).partition_folder(PARTITION).iterdir()] == [record.fingerprint[:16]]


def test_a_root_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        execute(job(), tmp_path / "data")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_root_that_may_not_be_written_is_said(tmp_path: Path, code: int) -> None:
    with pytest.raises(UserError, match="the data root cannot be written"), writing(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path))


def test_made_again_with_other_bytes_the_new_ones_take_the_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = execute(job(), tmp_path)
    status = (store.folder_of(first) / RECORD).stat()
    stale = (status.st_mtime_ns, status.st_size)

    def other(work: Work) -> Summary:
        (work.folder / "other.bin").write_bytes(b"o")
        return Summary(samples=1)

    second = execute(job(other, stale=stale), tmp_path)
    assert list(second.files) == ["other.bin"]
    assert store.find(PARTITION, first.fingerprint) == second
    assert execute(job(broken, stale=stale), tmp_path) == second  # another process had made it again meanwhile


def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = execute(job(), tmp_path)
    path = Store(tmp_path).folder_of(record) / RECORD
    for content in ("", "{", '{"partition": "edit/zombie/0003"}', "[]"):
        path.write_text(content)
        assert Store(tmp_path).find(PARTITION, record.fingerprint) is None
        assert Catalog(Store(tmp_path)).find(PARTITION.key, record.fingerprint) is None
    assert "is not a record" in caplog.text
    assert execute(job(), tmp_path).digest == record.digest


def test_the_index_notices_a_record_that_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = execute(job(), tmp_path)
    catalog = Catalog(store)
    assert catalog.refresh() == 1
    assert Catalog(store).entries[PARTITION.key][record.fingerprint[:16]].digest == record.digest
    record.source_digest = "other code"
    store.write_record(record)
    entry = Catalog(store).find(PARTITION.key, record.fingerprint)
    assert entry is not None
    assert entry.made_by("other code")


@pytest.mark.parametrize(
    "key", ["edit/bronze-statue/0003", "portraits/0003", "prompts/zombie", "dataset/all", "edit/zombie/12345"]
)
def test_a_partition_key_is_read_back(key: str) -> None:
    assert Partition.parse(key).key == key


@pytest.mark.parametrize("key", ["", "edit", "edit/a/b/c", "/", "edit/zombie/0003/0004"])
def test_what_is_no_partition_is_said(key: str) -> None:
    with pytest.raises(UserError, match="is not a partition"):
        Partition.parse(key)


def test_a_source_file_is_hashed_again_when_it_changed(tmp_path: Path) -> None:
    path, memory = tmp_path / "style.txt", tmp_path / "files.json"
    path.write_text("one")
    old = path.stat().st_mtime_ns - 10**10
    os.utime(path, ns=(old, old))
    digests = FileDigests(memory)
    first = digests.digest(path)
    digests.save()
    path.write_text("two")
    assert FileDigests(memory).digest(path) != first
    assert FileDigests(memory).known, "an old file is remembered"
    with pytest.raises(UserError, match="cannot be read"):
        digests.digest(tmp_path / "gone.txt")


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    # It might change again within the clock's tick, with the same size and mtime.
    path = tmp_path / "style.txt"
    path.write_text("one")
    digests = FileDigests(tmp_path / "files.json")
    digests.digest(path)
    assert digests.known == {}


def test_a_record_survives_its_round_trip() -> None:
    record = Record(
        partition="a/all", stage="a", version=1, fingerprint="f", fingerprint_inputs={}, digest="d", files={}
    )
    assert Record.model_validate_json(record.model_dump_json()) == record


def write_privately(work: Work) -> Summary:
    path = work.folder / "b" / "student.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"s")
    path.chmod(0o600)  # as safetensors does
    return write_two(work)


def write_two(work: Work) -> Summary:
    (work.folder / "a.bin").write_bytes(b"a")
    return Summary(samples=1)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_of_a_partition_has_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        execute(job(write_privately), tmp_path)
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(made) == 3
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in made} == {path.name: oct(mode) for path in made}
