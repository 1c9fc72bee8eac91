"""The work of `IsolatePool.map`: items become chunks, and chunks are tasks.

Chunks are cut when a worker is free, not before, so that the next one can be as long as the last ones were quick: some
milliseconds' worth. A worker that finds its chunk to take much longer gives the rest of it back. So a slow item never
holds up more than what its own chunk has left, and nobody need choose a chunk size.
"""

from collections import deque
from itertools import count, islice

from subiso import carriers, messages, tasks
from subiso._kernel import protocol
from subiso._kernel.waitables import Waitable
from subiso._pickling import functions
from subiso.errors import SendError
from subiso.failures import unpack
from subiso.tasks import TaskFuture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from subiso.crew import Crew
    from subiso.members import Member
    from subiso.messages import Encoded

_WORTH = 0.004  # seconds that a chunk should take
_BUDGET = 0.05  # seconds after which a worker gives the rest of a chunk back
_GROWTH = 8  # how many times longer than the last one a chunk may be
_BYTES = 1 << 20  # of arguments in one chunk, or of results
_numbers = count(1)


class Chunk(TaskFuture[None]):
    """Some items of a map, as one task.

    Attributes:
        rest: the chunk of the items that the worker has given back.
        results: what the function has returned, the last one first.
        failed: what it has raised after that.
    """

    single = False

    def __init__(self, job: "Job", items: "list[Any]") -> None:
        super().__init__(job.crew, job.function, None, job.task_timeout, 0)
        self._job = job
        self._items = items
        self.size: int = len(items)
        self.rest: Chunk | None = None
        self.results: list[Any] = []
        self.failed: BaseException | None = None
        job.crew.cut[self] = None

    def encode_for(self, member: "Member") -> "Encoded":
        """Return the chunk as that worker wants it: with the function, if it is the first of this map."""
        job, crew = self._job, self._crew
        function, carried = (None, []) if job.number in member.known else (job.body, job.carried)
        forgotten = [number for number in member.known if number not in crew.maps]
        head = (job.number, function, forgotten, job.several)
        budget = None if job.chunksize else _BUDGET
        try:
            kind, body, buffers, more = messages.encode((*head, self._items, budget))
        except SendError:
            self._keep_what_can_be_sent()
            kind, body, buffers, more = messages.encode((*head, self._items, budget))
        job.note_size(len(self._items), len(body))
        member.known.difference_update(forgotten)
        member.known.add(job.number)
        return kind, body, buffers, [*carried, *more]

    def _keep_what_can_be_sent(self) -> None:
        """Give back the items from the first on that cannot be sent; raise if that is the first of all."""
        for place, item in enumerate(self._items):
            try:
                messages.encode(item, "args" if self._job.several else "args[0]")
            except SendError:
                if place == 0:
                    raise
                self._give_back(place)
                return

    def _give_back(self, done: int) -> None:
        self._job.take_back(self.split(done))

    def split(self, size: int) -> "Chunk":
        """Keep so many items, and return the chunk of the others, which comes after this one."""
        rest = Chunk(self._job, self._items[size:])
        rest.rest, self.rest = self.rest, rest
        self._items = self._items[:size]
        self.size = size
        return rest

    def take(self, kind: int, body: bytes | memoryview, buffers: "Sequence[memoryview]") -> bool:
        """Take the results."""
        try:
            if kind == protocol.FAILURE:  # of the worker itself, which could not even begin
                self._fail(unpack(messages.decode(protocol.PICKLE, body, buffers)))
                return False
            seconds, results, failed = messages.decode(kind, body, buffers)
        except BaseException as error:
            self._fail_to_take(error)
            return False
        if failed is not None:
            self.failed = unpack(failed)
        elif len(results) < self.size:
            self._give_back(len(results))
        self._job.note_time(len(results), seconds)
        results.reverse()
        self.results = results
        self._items = []
        self._settle(None, None)
        return failed is None

    def is_lost(self) -> bool:
        """Return whether neither a worker's answer is to come nor the map will have it done again."""
        return not self.done() and self not in self._job._returned

    def outcomes(self) -> tuple[int, int, int]:
        """Return how many results, errors and cancelled calls it has come to."""
        if self.done() and not self.cancelled() and self._exception is None:
            return len(self.results), int(self.failed is not None), 0
        return (0, 0, self.size) if self.cancelled() else (0, 1, 0)

    def _forget(self) -> None:
        super()._forget()
        self._job.changed.notify()


class Job:
    """One call of `map`, as the crew sees it: where chunks come from.

    Attributes:
        queued: whether it waits in the crew's queue; the crew's own.
        number: by which workers know its function.
        chunks: what has been cut and not yet been taken by the consumer, in order.
        changed: notified when a chunk has been cut or is done.
    """

    def __init__(
        self,
        crew: "Crew",
        function: "Callable[..., Any]",
        several: bool,
        chunksize: int | None,
        task_timeout: float | None,
    ) -> None:
        self.crew = crew
        self.function = function
        self.several = several
        self.chunksize: int | None = 1 if task_timeout is not None else chunksize
        self.task_timeout = task_timeout
        self.body: bytes
        self.carried: list[Any]
        self.body, self.carried = _encode_function(function)
        self.number: int = next(_numbers)
        self.queued: bool = False
        self.chunks: deque[Chunk] = deque()
        self.changed: Waitable = Waitable()
        self.error: BaseException | None = None
        self._closed = False
        self._returned: deque[Chunk] = deque()
        self._drawn: deque[Any] = deque()
        self._source: Iterator[Any] | None = None  # what may be drawn from by any thread
        self._left = 0  # items in it
        self._size = chunksize or 1
        self._bytes = 0.0  # of one item

    # -- what there is to do -------------------------------------------------------------------------------------------

    def use(self, source: "Iterator[Any]", length: int) -> None:
        """Draw items from ``source`` when they are needed, by any thread."""
        self._source, self._left = source, length

    def add(self, items: "list[Any]") -> None:
        """Take items that have been drawn."""
        self._drawn.extend(items)

    @property
    def remaining(self) -> int:
        """How many items wait, beside those that were given back."""
        return self._left + len(self._drawn)

    @property
    def demand(self) -> int:
        """How many workers it wants."""
        return self.remaining + len(self._returned)

    def take_back(self, chunk: Chunk) -> None:
        """Have a chunk done before what follows it."""
        if self._closed:
            chunk.cancel()
            return
        self._returned.append(chunk)
        self._size = 1 if self.chunksize is None else self.chunksize
        self.crew.again(self)

    def next_task(self, most: int | None) -> Chunk | None:
        """Cut the next chunk, of ``most`` items at most; None if there is none now. The crew's lock is held."""
        if self._returned:
            chunk = self._returned.popleft()
            if most is not None and chunk.size > most:
                self._returned.appendleft(chunk.split(most))
            return chunk
        size = self._next_size()
        if most is not None:
            size = min(size, most)
        if self._source is not None:
            items = list(islice(self._source, size))
            self._left = self._left - len(items) if len(items) == size else 0
        else:
            items = [self._drawn.popleft() for _ in range(min(size, len(self._drawn)))]
        if not items:
            return None
        chunk = Chunk(self, items)
        self.chunks.append(chunk)
        return chunk

    def _next_size(self) -> int:
        if self.chunksize is not None:
            return self.chunksize
        fair = self.remaining // (2 * len(self.crew.members) or 1)  # near the end, everybody gets a part
        light = int(_BYTES / self._bytes) if self._bytes else fair
        return max(min(self._size, fair, light), 1)

    def note_size(self, items: int, size: int) -> None:
        """Learn how many bytes an item takes."""
        self._bytes = size / items

    def note_time(self, items: int, seconds: float) -> None:
        """Learn how many items are some milliseconds' worth."""
        worth = int(_WORTH * items / seconds) if seconds else self._size * _GROWTH
        self._size = max(min(worth, max(items, self._size) * _GROWTH), 1)

    # -- how it ends ---------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Do no more; the error comes after the results that there are."""
        self.error = error
        self.close()

    def cancel(self) -> None:
        """Do no more."""
        from concurrent.futures import CancelledError

        self.fail(CancelledError())

    def close(self) -> None:
        """Cut no more chunks."""
        self._closed = True
        self._drawn.clear()
        self._source, self._left = None, 0
        self.crew.maps.pop(self.number, None)
        for chunk in self._returned:
            chunk.cancel()
        self.changed.notify()


def _encode_function(function: "Callable[..., Any]") -> "tuple[bytes, list[Any]]":
    """Encode the function of a map, once for all chunks, and what in it wants to know that it travels."""
    if not callable(function):
        raise TypeError(f"a pool runs functions, not {function!r}")
    function = carriers.load(function)
    reference = tasks.reference_to(function)
    if reference is not None:
        return reference, []
    try:
        body, _, carried = functions.Pickler(in_band=True).encode(function)
    except Exception:
        messages.encode_call(function, ())  # says it better
        raise
    return body, carried
