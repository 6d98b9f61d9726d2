"""Resource usage of this process and its children during some work: peak memory and CPU time."""

import threading
from types import TracebackType

import psutil

INTERVAL_S = 0.2


class UsageWatch:
    """Watch from a thread. Pages shared by processes count once for each.

    The CPU time of a child that ends meanwhile counts up to the last look at it.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._before: dict[int, float] = {}
        self._after: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def peak_gb(self) -> float:
        return round(self.peak_bytes / 1e9, 2)

    @property
    def cpu_seconds(self) -> float:
        """User and system time, of all threads."""
        return round(sum(spent - self._before.get(pid, 0.0) for pid, spent in self._after.items()), 1)

    def __enter__(self) -> "UsageWatch":
        self._look()
        self._before = dict(self._after)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._look()

    def _look(self) -> None:
        held, this = 0, psutil.Process()
        for process in (this, *this.children(recursive=True)):
            try:
                held += process.memory_info().rss
                times = process.cpu_times()
                self._after[process.pid] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, held)
