"""`IsolatePool.map`: the results of its chunks (chunks.py), one by one and in order."""

import itertools
from time import monotonic

from subiso._kernel import waiting
from subiso._kernel.interrupt import unwind
from subiso.chunks import Chunk, Job
from subiso.errors import IsolateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from typing import Any


AHEAD = 10_000  # items that are drawn from an iterator before their turn, where nobody says how many
_SEQUENCES = (list, tuple, range, str, bytes)  # what can be drawn from by any thread, without running the user's code


class MapIterator[R]:
    """The results of `IsolatePool.map`, in the order of the items.

    For ``for`` and ``async for``. Closing it, or dropping it, cancels what has not begun.
    """

    def __init__(
        self, job: Job, iterables: "tuple[Iterable[Any], ...]", timeout: float | None, buffersize: int | None
    ) -> None:
        self._job = job
        self._end = None if timeout is None else monotonic() + timeout
        self._chunk: Chunk | None = None
        self._results: list[R] = []
        self._given = self._taken = 0
        self._limit = buffersize or AHEAD
        self._source: Iterator[Any] | None = None
        self._length: int | None = None
        self._failed_to_draw: BaseException | None = None
        if iterables:
            self._open(iterables, buffersize)
            self._draw()

    def _open(self, iterables: "tuple[Iterable[Any], ...]", buffersize: int | None) -> None:
        job = self._job
        try:
            self._length = min(len(one) for one in iterables)  # type: ignore[arg-type]
        except TypeError:  # iterators
            pass
        if buffersize is None and all(type(one) in _SEQUENCES for one in iterables):
            # A list may change before its end is reached; a tuple cannot.
            copies = [tuple(one) if type(one) is list else one for one in iterables]
            job.use(iter(copies[0]) if len(copies) == 1 else zip(*copies, strict=False), self._length or 0)
            if self._length:
                job.crew.offer(job)
        else:
            self._source = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)

    def _draw(self) -> None:
        """Draw as many items as may be drawn ahead of the results."""
        if self._source is None:
            return
        room = self._limit - (self._taken - self._given)
        if room <= 0 or (room < self._limit // 2 and self._limit == AHEAD):
            return
        items: list[Any] = []
        failed = None
        try:
            for item in itertools.islice(self._source, room):
                items.append(item)  # noqa: PERF402 - what was drawn before an error counts
        except Exception as error:
            failed = error
        self._taken += len(items)
        if len(items) < room:
            self._source = None
        if items:
            try:
                self._job.crew.offer(self._job, items)
            except (RuntimeError, IsolateError) as error:  # shut down, or broken
                failed, self._source = error, None
        self._failed_to_draw = failed

    # -- results -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> "Iterator[R]":
        return self

    def __next__(self) -> R:
        while not self._results:
            if self._is_over():
                raise StopIteration
            self._wait()
            self._next_chunk()
        return self._give()

    def __aiter__(self) -> "AsyncIterator[R]":
        return self

    async def __anext__(self) -> R:
        await waiting.checkpoint()
        while not self._results:
            if self._is_over():
                raise StopAsyncIteration
            await waiting.wait(self._job.crew.node.mailbox, [self._job.changed], self._is_ready)
            self._next_chunk()
        return self._give()

    def _give(self) -> R:
        self._given += 1
        if self._source is not None:
            self._draw()
        return self._results.pop()

    def _is_over(self) -> bool:
        """Return whether everything was given; raise what has gone wrong."""
        job = self._job
        chunk = self._chunk
        if chunk is not None and chunk.failed is not None:
            self._raise(chunk.failed)
        if chunk is not None and chunk.rest is not None:
            return False
        if job.chunks:
            return False
        if job.error is not None:
            self._raise(job.error)
        if self._source is not None:
            self._draw()
        if job.demand or job.chunks:
            return False
        if self._failed_to_draw is not None:
            self._raise(self._failed_to_draw)
        self.close()
        return True

    def _head(self) -> Chunk | None:
        if self._chunk is not None and self._chunk.rest is not None:
            return self._chunk.rest
        return self._job.chunks[0] if self._job.chunks else None

    def _is_ready(self) -> bool:
        head = self._head()
        return (head is not None and head.done()) or (head is None and self._job.error is not None)

    def _wait(self) -> None:
        node = self._job.crew.node
        remaining = None if self._end is None else max(self._end - monotonic(), 0)
        ready = node.mailbox.wait([self._job.changed], lambda: self._is_ready() or node.killed, remaining)
        if node.killed:
            raise unwind()
        if not ready:
            self.close()
            raise TimeoutError("the next result was not there in time")

    def _next_chunk(self) -> None:
        head = self._head()
        if head is None:  # the job has failed
            return
        if self._job.chunks and self._job.chunks[0] is head:
            self._job.chunks.popleft()
        self._chunk = head
        if head.cancelled():
            self._raise(_cancelled())
        error = head.exception(0)
        if error is not None:
            self._raise(error)
        self._results = head.results

    def _raise(self, error: BaseException) -> None:
        self.close()
        try:
            raise error
        finally:
            del error  # else the traceback keeps the frame, which keeps the error

    def close(self) -> None:
        """Want no more results: what has not begun is not done any more."""
        job = self._job
        self._source, self._failed_to_draw, self._chunk = None, None, None
        self._results = []
        job.error = None
        job.close()
        while job.chunks:
            chunk = job.chunks.popleft()
            if not chunk.running():
                chunk.cancel()

    async def aclose(self) -> None:
        """Want no more results; as `close`."""
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_results"):
            self.close()

    def __length_hint__(self) -> int:
        return NotImplemented if self._length is None else self._length - self._given


def _cancelled() -> BaseException:
    from concurrent.futures import CancelledError

    return CancelledError()
