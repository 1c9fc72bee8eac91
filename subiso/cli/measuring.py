"""What a way of working costs: time, time to the first result, processor time, memory."""

import contextlib
import os
import threading
from dataclasses import dataclass
from time import perf_counter

from subiso.cli.analysis import Module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from subiso.cli.ways import Way

SAMPLING = 0.1  # seconds between two looks at memory


@dataclass(frozen=True)
class Measurement:
    """What one way of working gave, and what it cost.

    Attributes:
        way: its name.
        modules: the results, sorted by path.
        seconds: from the call to when everything that was started had ended.
        startup: seconds from the call to the first result.
        cpu: seconds of processor time that the program and its children used.
        memory: how many bytes more than before the program and its children had to themselves, at most; None: unknown.
    """

    way: str
    modules: list[Module]
    seconds: float
    startup: float
    cpu: float
    memory: int | None


def measure(
    name: str, way: "Way", chunks: list[list[str]], workers: int, report: "Callable[[str, int], None]"
) -> Measurement:
    """Do the work in one way.

    Args:
        name: of the way.
        way: one of `subiso.cli.ways.WAYS`.
        chunks: paths of the files, in chunks.
        workers: how many threads, processes or isolates.
        report: is called with the name and with how many files are done.
    """
    modules: list[Module] = []
    startup = 0.0
    report(name, 0)
    with PeakMemory() as memory:
        begin, cpu = perf_counter(), _cpu_time()
        with contextlib.closing(way(chunks, workers)) as results:
            for done in results:
                startup = startup or perf_counter() - begin
                modules += done
                report(name, len(modules))
        seconds, cpu = perf_counter() - begin, _cpu_time() - cpu
    return Measurement(name, sorted(modules), seconds, startup, cpu, memory.extra)


def _cpu_time() -> float:
    return sum(os.times()[:4])  # user, system, and both of the children that have ended


class PeakMemory:
    """Watches memory, on a thread of its own, for as long as a ``with`` block takes.

    Attributes:
        extra: how many bytes more than at the start the program and its children had to themselves, at most; None if
            the system does not tell.
    """

    def __init__(self) -> None:
        self.extra: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> "Self":
        self._before = private_memory()
        if self._before is not None:
            self.extra = 0
            self._thread.start()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._over.set()
        if self._before is not None:
            self._thread.join()

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(SAMPLING)
            self._look()

    def _look(self) -> None:
        now = private_memory()
        if now is not None and self._before is not None and self.extra is not None:
            self.extra = max(self.extra, now - self._before)


def private_memory() -> int | None:
    """Return how many bytes this process and its children share with nobody, or None where that is not to be known."""
    own = _private_memory_of("self")
    return None if own is None else own + sum(_private_memory_of(child) or 0 for child in _children())


def _private_memory_of(process: str) -> int | None:
    try:
        with open(f"/proc/{process}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith(b"Private_"))
    except OSError:  # it has ended, or this is not Linux
        return None


def _children() -> list[str]:
    children: list[str] = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                children += file.read().split()
        except OSError:  # the thread has ended
            continue
    return children
