"""The inline forms of pools, streams and actors; see `subiso.testing.inline`."""

import _pickle
from collections import deque
from contextvars import Context
from weakref import WeakKeyDictionary

from subiso import carriers, chunks, messages, pool, tasks
from subiso._kernel import node as nodes
from subiso._kernel.arena import NOBODY
from subiso.errors import BrokenIsolatePool, IsolateTimeoutError
from subiso.isolate import Isolate
from subiso.lines import Line
from subiso.mapping import MapIterator
from subiso.pool import IsolatePool
from subiso.sending import check_timeout
from subiso.streams import Stream
from subiso.testing import _work

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import ExitStack
    from typing import Any

_SEQUENCES = (list, tuple, range, str, bytes)


class _Worker:
    """The one worker of a pool.

    Attributes:
        state: what `worker_state` returns.
    """

    def __init__(self, owner: IsolatePool) -> None:
        self.state: Any = {}
        options = owner._crew.options
        if options.initializer is not None:
            result = self.do(_work.partial(*_work.copy((options.initializer, *options.initargs))))
            self.state = {} if result is None else result

    def do(self, function: "Callable[[], Any]", context: Context | None = None) -> "Any":
        """Call a function as one of this worker's tasks."""
        here = nodes.current().locals
        outer, here["worker"] = here.get("worker"), self
        try:
            return _work.do(function, context)
        finally:
            if outer is None:
                del here["worker"]
            else:
                here["worker"] = outer


_workers: "WeakKeyDictionary[IsolatePool, _Worker]" = WeakKeyDictionary()


def _worker_of(owner: IsolatePool) -> _Worker:
    """Return a pool's worker, made for its first task.

    Raises:
        BrokenIsolatePool: its initializer raises.
    """
    owner._check_usable()
    if owner not in _workers:
        try:
            _workers[owner] = _Worker(owner)
        except Exception as error:
            text = f"the initializer of {owner.name} failed: {type(error).__name__}: {error}"
            owner._crew.broken = text
            raise BrokenIsolatePool(text) from _work.as_arrived(error)
    return _workers[owner]


def _task(function: "Any", args: "Any", *keywords: "Any") -> "Any":
    if type(function) is bytes:
        function = _pickle.loads(function)
    return function(*args, **keywords[0]) if keywords else function(*args)


def submit(
    self: IsolatePool,
    fn: "Callable[..., Any]",
    args: "tuple[Any, ...]",
    kwargs: "dict[str, Any]",
    timeout: float | None,
    retries: int,
) -> "_work.InlineFuture[Any]":
    """Take the place of ``IsolatePool._submit``."""
    self._check_usable()
    kind, body, buffers, _ = tasks.encode(fn, args, kwargs)
    future: _work.InlineFuture[Any] = _work.InlineFuture()
    if timeout == 0:
        future._settle(None, IsolateTimeoutError("the task was allowed no time at all"))
        return future
    try:
        worker = _worker_of(self)
    except BrokenIsolatePool as error:
        future._settle(None, error)
        return future
    call = _work.partial(_decoded, kind, body, buffers)
    return _work.settle(lambda: worker.do(call))


def _decoded(kind: int, body: bytes, buffers: "Sequence[memoryview]") -> "Any":
    return _task(*messages.decode(kind, body, [memoryview(bytearray(one)) for one in buffers]))


def shutdown(self: IsolatePool, wait: bool = True, *, cancel_futures: bool = False) -> None:
    """Take the place of `IsolatePool.shutdown`."""
    worker = _workers.pop(self, None)
    finalizer = self._crew.options.finalizer
    self._crew.close(cancel_futures)
    if wait:
        self._crew.join()
    if worker is not None and finalizer is not None:
        worker.do(finalizer)


# -- many tasks --------------------------------------------------------------------------------------------------------


def map_(
    self: IsolatePool,
    fn: "Callable[..., Any]",
    *iterables: "Iterable[Any]",
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    task_timeout: float | None = None,
) -> "MapIterator[Any]":
    """Take the place of `IsolatePool.map`: sequences are done at once, other iterables as results are taken."""
    pool._check_count("chunksize", chunksize, "chunksize must be >= 1")
    pool._check_count("buffersize", buffersize, "buffersize must be None or > 0")
    check_timeout(task_timeout)
    self._check_usable()
    body, _ = chunks._encode_function(fn)
    items: Iterator[Any] = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
    results = _InlineMap(_worker_of(self), body, items if iterables else iter(()), len(iterables) != 1)
    if buffersize is None and all(type(one) in _SEQUENCES for one in iterables):
        results._work_through()
    return results


class _InlineMap(MapIterator["Any"]):
    def __init__(self, worker: _Worker, body: bytes, items: "Iterator[Any]", several: bool) -> None:
        self._worker = worker
        self._function = _pickle.loads(body)
        self._items = items
        self._several = several
        self._ready: deque[tuple[Any, BaseException | None]] = deque()

    def _work_through(self) -> None:
        while not (self._ready and self._ready[-1][1]):
            try:
                self._ready.append((self._next(), None))
            except StopIteration:
                break
            except Exception as error:
                self._ready.append((None, error))

    def _next(self) -> "Any":
        item = next(self._items)
        args = _work.copy(item, "args" if self._several else "args[0]")
        call = _work.partial(self._function, *(args if self._several else (args,)))
        return _work.settle(lambda: self._worker.do(call)).result(0)

    def __next__(self) -> "Any":
        if not self._ready:
            return self._next()
        result, error = self._ready.popleft()
        if error is not None:
            self.close()
            raise error
        return result

    async def __anext__(self) -> "Any":
        try:
            return self.__next__()
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self._items = iter(())
        self._ready.clear()

    def __del__(self) -> None:
        pass

    def __length_hint__(self) -> int:
        return NotImplemented  # type: ignore[no-any-return]


# -- streams -----------------------------------------------------------------------------------------------------------


def open_stream(
    start: "Callable[..., Any]", generator_function: "Callable[..., Any]", args: "tuple[Any, ...]", maxsize: int
) -> "Stream[Any]":
    """Take the place of ``streams.open_stream``: the generator runs as its items are taken."""
    if not callable(generator_function):
        raise TypeError(f"a stream needs a generator function, not {generator_function!r}")
    if not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an int, not {maxsize!r}")
    if maxsize < 1:
        raise ValueError(f"maxsize must be at least 1, not {maxsize}: a stream is bounded")
    owner = getattr(start, "__self__", None)
    do = _worker_of(owner).do if isinstance(owner, IsolatePool) else _work.do
    return _InlineStream(do, messages.encode_call(generator_function, args), _work.copy(carriers.pick_up()))


class _InlineStream(Stream["Any"]):
    def __init__(self, do: "Callable[..., Any]", call: "messages.Encoded", cargo: "carriers.Cargo") -> None:
        self._closed = False
        self._do = do
        kind, body, buffers, _ = call
        self._call = _work.call_of(kind, body, buffers)
        self._cargo = cargo
        self._context = Context()  # the generator's own, from its first item to its last
        self._restored: ExitStack | None = None
        self._generator: Any = None
        self._runner: asyncio.Runner | None = None  # of an asynchronous generator that is taken from without a loop

    def _open(self) -> "Any":
        if self._generator is None:
            self._restored = self._context.run(carriers.restored, self._cargo)
            made = self._do(self._call, self._context)
            if not (hasattr(made, "__iter__") or hasattr(made, "__aiter__")):
                raise TypeError("that is no generator function")
            self._generator = made if hasattr(made, "__aiter__") else iter(made)
        return self._generator

    def __next__(self) -> "Any":
        if self._closed:
            raise StopIteration
        try:
            generator = self._open()
            if hasattr(generator, "__anext__"):
                item = self._run(generator.__anext__())
            else:
                item = self._do(generator.__next__, self._context)
            return _work.copy(item)
        except BaseException as error:
            self._end(error)
            raise StopIteration from None

    async def __anext__(self) -> "Any":
        if self._closed:
            raise StopAsyncIteration
        try:
            generator = self._open()
            if hasattr(generator, "__anext__"):
                item = await generator.__anext__()
            else:
                item = self._do(generator.__next__, self._context)
            return _work.copy(item)
        except BaseException as error:
            self._end(error)
            raise StopAsyncIteration from None

    def _end(self, error: BaseException) -> None:
        """Close, and raise what the generator has raised, unless that is how generators end."""
        self.close()
        if isinstance(error, KeyboardInterrupt | GeneratorExit | _work.InlineWaitError):
            raise error
        if not isinstance(error, StopIteration | StopAsyncIteration):
            raise _work.as_arrived(error)

    def _run(self, awaitable: "Any") -> "Any":
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(_await(awaitable), context=self._context)

    def close(self) -> None:
        self._closed = True
        generator, self._generator = self._generator, None
        if hasattr(generator, "close"):
            generator.close()
        if self._runner is not None:  # closes the generator, too
            self._runner.close()
        restored, self._restored = self._restored, None
        if restored is not None:
            self._context.run(restored.close)


async def _await(awaitable: "Any") -> "Any":
    return await awaitable


# -- actors ------------------------------------------------------------------------------------------------------------

_objects: "WeakKeyDictionary[Line, Any]" = WeakKeyDictionary()


def start_actor(self: Line) -> Isolate:
    """Take the place of ``Line.start``."""
    assert self._recipe is not None
    kind, body, buffers, _ = messages.encode_call(self._recipe.parts[0], self._recipe.parts[1:])
    self.name = self.name or self._recipe.name
    self.isolate = Isolate._of(*NOBODY, self.name)

    def make() -> "Any":
        cls, (args, keywords) = messages.decode(kind, body, [memoryview(bytearray(one)) for one in buffers])
        return cls(*args, **keywords)

    try:
        _objects[self] = _work.do(make)
    except (KeyboardInterrupt, _work.InlineWaitError):
        raise
    except BaseException as error:
        self._error = _work.as_arrived(error)
    return self.isolate


def call_actor(self: Line, name: str, args: "tuple[Any, ...]", keywords: "dict[str, Any]") -> "_work.InlineFuture[Any]":
    """Take the place of ``Line.call``."""
    name, args, keywords, *carried = _work.copy((name, args, keywords, *carriers.pick_up()))
    future: _work.InlineFuture[Any] = _work.InlineFuture()
    if self._error is not None:
        future._settle(None, self._error)
        return future
    target = _objects.get(self)
    if target is None:
        from subiso.errors import IsolateKilledError

        future._settle(None, IsolateKilledError(f"{self.name} was killed, or ended without giving a result"))
        return future

    def call() -> "Any":
        method = getattr(target, name)
        return (carriers.Loaded(method, carried) if carried else method)(*args, **keywords)

    return _work.settle(call)


def stop_actor(self: Line) -> None:
    """Take the place of ``Line.stop``."""
    target = _objects.pop(self, None)
    close = getattr(target, "close", None)
    if callable(close):
        _work.do(close)
