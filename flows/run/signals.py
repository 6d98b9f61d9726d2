"""End of a process by a signal: in good order, with its workers and its records."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
EXIT_CODES = tuple(128 + number for number in (signal.SIGINT, *SIGNALS))  # of a process that such a signal ended


class LeftRunning(SystemExit):
    """End of a command whose work goes on elsewhere: by a signal or Ctrl-C, with a sentence for the user."""

    def __init__(self, ended: BaseException, said: str) -> None:
        super().__init__(ended.code if isinstance(ended, SystemExit) else 128 + signal.SIGINT)
        self.said = said


@contextmanager
def saying_interruption(said: str) -> Iterator[None]:
    """Print what is kept and what to type where Ctrl-C or a signal ends the block, and exit with the signal's code.

    A `LeftRunning` has words of its own.
    """
    try:
        yield
    except LeftRunning:
        raise
    except (KeyboardInterrupt, SystemExit) as end:
        code = EXIT_CODES[0] if isinstance(end, KeyboardInterrupt) else end.code
        if code in EXIT_CODES:
            # A terminal's cursor stands behind ^C or a bar.
            sys.stderr.write("\n" * sys.stderr.isatty() + f"interrupted; {said}\n")
        raise SystemExit(code) from None


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Let SIGTERM and a closed terminal raise SystemExit(128 + number) within the block, as Ctrl-C raises there.

    Signals with a handler are left alone: Prefect's own raises too, and nohup ignores SIGHUP. Blocks may be nested.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
