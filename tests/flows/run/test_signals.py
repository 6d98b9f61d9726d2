"""Ctrl-C and signals end a program with two lines and the exit code of the signal."""

import signal

import pytest

from flows.run.signals import LeftRunning, saying_interruption


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143), (SystemExit(129), 129)])
def test_an_interrupted_program_says_what_is_kept(
    end: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, saying_interruption("all is kept\ngo on with: make demo"):
        raise end
    assert ended.value.code == code
    assert capsys.readouterr().err == "interrupted; all is kept\ngo on with: make demo\n"


@pytest.mark.parametrize(
    "end", [SystemExit(1), SystemExit(0), LeftRunning(SystemExit(128 + signal.SIGTERM), "it runs")]
)
def test_another_end_says_nothing(end: SystemExit, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, saying_interruption("all is kept"):
        raise end
    assert ended.value.code == end.code
    assert capsys.readouterr().err == ""
