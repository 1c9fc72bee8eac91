"""What waits for a worker of a pool."""

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from subiso.chunks import Job
    from subiso.tasks import TaskFuture

    type Work = TaskFuture[Any] | Job


class WorkQueue:
    """Tasks, and maps, which are many tasks. The crew uses it under its lock."""

    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()

    def add(self, work: "Work", first: bool = False) -> None:
        """Have work wait, unless it does already."""
        if not work.queued:
            work.queued = True
            if first:
                self._waiting.appendleft(work)
            else:
                self._waiting.append(work)

    def take(self, most: int | None) -> "TaskFuture[Any] | None":
        """Take what is to be done next, of ``most`` calls at most, and begin with it; maps and tasks take turns."""
        waiting = self._waiting
        while waiting:
            first = waiting.popleft()
            task = first.next_task(most)
            if task is None or task is first:
                first.queued = False
            else:
                waiting.append(first)
            if task is not None and task.begin():
                return task
        return None

    def restore(self, works: "list[Work]") -> None:
        """Have everything of this that is wanted wait, also what was lost on the way out of here."""
        lost = [work for work in works if work.demand and work not in self._waiting]
        self._waiting.extendleft(reversed(lost))
        for work in self._waiting:
            work.queued = True

    def take_all(self) -> "list[Work]":
        """Take everything."""
        taken = [*self._waiting]
        self._waiting.clear()
        for work in taken:
            work.queued = False
        return taken

    def wants_more_than(self, workers: int) -> bool:
        """Return whether more work waits than so many workers can begin with."""
        waiting, wanted = self._waiting, 0
        while waiting and not waiting[0].demand:  # cancelled, or a map that has been cut up
            waiting.popleft().queued = False
        for work in waiting:
            wanted += work.demand
            if wanted > workers:
                return True
        return False

    def has_work(self) -> bool:
        """Return whether anything waits that is still wanted."""
        return any(work.demand for work in [*self._waiting])

    def demand(self) -> int:
        """Return how many workers could be used at once."""
        return sum(work.demand for work in self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)
