"""What a pool has done, in figures."""

import os
from collections import deque
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from subiso.tasks import TaskFuture

_REMEMBERED = 2000  # durations; percentiles are those of the last ones


@dataclass(frozen=True)
class Durations:
    """How long something took, in seconds; of the last two thousand times, but for the count.

    Attributes:
        count: how many times there were in all.
        mean: the mean.
        p50: the median.
        p99: what 99 of 100 were not longer than.
        longest: the longest.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """What a pool has done so far; `IsolatePool.statistics` returns it.

    The tasks of a map are counted one by one, except in the durations: there a chunk is one.

    Attributes:
        done: how many tasks have given a result.
        failed: how many have raised an error, were too slow, or lost their worker.
        cancelled: how many were cancelled.
        running: how many workers are at work.
        queued: how many tasks wait for a worker.
        workers: how many workers there are.
        lost: how many workers have ended that were neither told to nor stopped by the pool.
        startup: how long workers took to start, their initializer included.
        waiting: how long tasks waited for a worker.
        running_time: how long they took there.
        memory: bytes of memory that the process has; None if the system does not tell.
    """

    done: int
    failed: int
    cancelled: int
    running: int
    queued: int
    workers: int
    lost: int
    startup: Durations
    waiting: Durations
    running_time: Durations
    memory: int | None


class _Clock:
    """Remembers durations."""

    def __init__(self) -> None:
        self.count = 0
        self.last: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.last.append(seconds)

    def read(self) -> Durations:
        return _summarize(self.count, sorted([*self.last]))


def _summarize(count: int, ordered: "list[float]") -> Durations:
    if not ordered:
        return Durations()
    last = len(ordered) - 1
    mean = sum(ordered) / len(ordered)
    return Durations(count, mean, ordered[last // 2], ordered[-(-last * 99 // 100)], ordered[-1])


class Tally:
    """What a crew counts, under its lock."""

    def __init__(self) -> None:
        self.done: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.lost: int = 0
        self._startup, self._waiting, self._running = _Clock(), _Clock(), _Clock()
        self.started: Callable[[float], None] = self._startup.add
        self.waited: Callable[[float], None] = self._waiting.add
        self.ran: Callable[[float], None] = self._running.add

    def count(self, task: "TaskFuture[Any]") -> None:
        """Count a task that has got its outcome."""
        done, failed, cancelled = task.outcomes()
        self.done += done
        self.failed += failed
        self.cancelled += cancelled

    def statistics(self, running: int, queued: int, workers: int) -> Statistics:
        """Return the whole, with what the crew knows."""
        clocks: Iterable[_Clock] = (self._startup, self._waiting, self._running)
        startup, waiting, running_time = (clock.read() for clock in clocks)
        counts = (self.done, self.failed, self.cancelled, running, queued, workers, self.lost)
        return Statistics(*counts, startup, waiting, running_time, _memory())


def _memory() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
