"""`IsolatePool`: an executor whose workers are isolates."""

import itertools
import os
import threading
import weakref
from _thread import start_new_thread
from concurrent.futures import Executor

from subiso import messages, tasks
from subiso._kernel import exits, waiting
from subiso._kernel.extensions import check_policy
from subiso._kernel.interrupt import unwind
from subiso._typing import overload
from subiso.chunks import Job
from subiso.crew import Crew
from subiso.errors import IsolateTimeoutError, SendError
from subiso.mapping import MapIterator
from subiso.members import Options
from subiso.sending import check_timeout
from subiso.tasks import TaskFuture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self, TypedDict, Unpack

    from subiso.futures import IsolateFuture
    from subiso.statistics import Statistics
    from subiso.streams import Stream

    class _MapOptions(TypedDict, total=False):
        """The options of `IsolatePool.map`."""

        timeout: float | None
        chunksize: int | None
        buffersize: int | None
        task_timeout: float | None


_AHEAD = 16  # tasks for each worker that `asubmit` lets wait, where nobody says how many

_numbers = itertools.count(1)


class IsolatePool(Executor):
    """Run functions in isolates that are kept for the next ones: a `concurrent.futures.Executor`.

    Workers are started when there is work for them, and one that ends before its time is replaced: the task that it was
    running fails, the others go on. As a context manager the pool is shut down at the end of the block; where that is
    left by Ctrl-C, or because its asynchronous task is cancelled, what is running is stopped. A pool that is forgotten
    ends when its work is done; so does the program.

    Args:
        max_workers: how many isolates there may be; as many as there are processors if not given.
        name: for people; made up if not given. The workers are called after it.
        initializer: is called in each worker before its first task. What it returns is the `worker_state` there. If it
            raises, the pool is broken.
        initargs: its arguments.
        finalizer: is called in each worker that ends because there is nothing more for it to do.
        max_tasks_per_worker: after how many tasks a worker is replaced.
        idle_timeout: seconds without work after which a worker ends.
        task_timeout: seconds that a task may run; then it is killed, and its future raises `IsolateTimeoutError`.
        max_pending: how many tasks may be unfinished; `submit` then blocks. None: any number.
        extensions: what becomes of packages with compiled code in its workers, as for `Isolate.spawn`.

    Raises:
        ValueError: a number is out of range, or there is no such policy.
        TypeError: a function is not callable, a number is no number.
        SendError: the initializer, its arguments or the finalizer cannot be sent.
    """

    __subiso_unsendable__ = "IsolatePool objects cannot be sent; an isolate that wants a pool makes one of its own"

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        name: str | None = None,
        initializer: "Callable[..., object] | None" = None,
        initargs: "tuple[Any, ...]" = (),
        finalizer: "Callable[[], object] | None" = None,
        max_tasks_per_worker: int | None = None,
        idle_timeout: float | None = None,
        task_timeout: float | None = None,
        max_pending: int | None = None,
        extensions: str | None = None,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        for role, hook, args in (("initializer", initializer, tuple(initargs)), ("finalizer", finalizer, ())):
            if hook is not None and not callable(hook):
                raise TypeError(f"{role} must be callable, not {hook!r}")
            if hook is not None:
                messages.encode_call(hook, args)  # what cannot be sent is said here and now
        _check_count("max_tasks_per_worker", max_tasks_per_worker)
        _check_count("max_pending", max_pending)
        check_timeout(idle_timeout)
        check_policy(extensions)
        self._task_timeout = check_timeout(task_timeout)
        self._max_pending = max_pending
        self.name: str = name or f"pool-{next(_numbers)}"
        limit = _count_processors() if max_workers is None else _check_workers(max_workers)
        options = Options(
            self.name, initializer, tuple(initargs), finalizer, max_tasks_per_worker, idle_timeout, extensions
        )
        self._crew = Crew(limit, options)
        _crews.add(self._crew)
        # On a thread of its own: what is collected may be collected while this thread holds any lock.
        forgotten = weakref.finalize(self, _close_later, self._crew)
        forgotten.atexit = False

    @property
    def _max_workers(self) -> int:
        return self._crew.limit

    @property
    def _broken(self) -> str | bool:
        return self._crew.broken or False

    # -- single tasks --------------------------------------------------------------------------------------------------

    @overload
    def submit[**P, R](
        self, fn: "Callable[P, Coroutine[Any, Any, R]]", /, *args: "P.args", **kwargs: "P.kwargs"
    ) -> "IsolateFuture[R]": ...
    @overload
    def submit[**P, R](self, fn: "Callable[P, R]", /, *args: "P.args", **kwargs: "P.kwargs") -> "IsolateFuture[R]": ...
    def submit(self, fn: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "IsolateFuture[Any]":
        """Have a worker call ``fn(*args, **kwargs)``, and return the future of its result.

        A coroutine function is run by asyncio. Blocks only where ``max_pending`` tasks are unfinished.

        Raises:
            SendError: the function or an argument cannot be sent.
            TypeError: ``fn`` is not callable.
            RuntimeError: the pool was shut down, or belongs to the process that this one was forked from.
            BrokenIsolatePool: the initializer has failed, or no worker can be started.
        """
        return self._submit(fn, args, kwargs, self._task_timeout, 0)

    @overload
    def run[R, *Ts](
        self,
        fn: "Callable[[*Ts], Coroutine[Any, Any, R]]",
        /,
        *args: *Ts,
        timeout: float | None = None,
        retries: int = 0,
    ) -> "IsolateFuture[R]": ...
    @overload
    def run[R, *Ts](
        self, fn: "Callable[[*Ts], R]", /, *args: *Ts, timeout: float | None = None, retries: int = 0
    ) -> "IsolateFuture[R]": ...
    def run(  # type: ignore[misc]  # mypy does not match *Ts with *args: Any
        self,
        fn: "Callable[..., Any]",
        /,
        *args: "Any",
        timeout: float | None = None,
        retries: int = 0,
        **unknown: "Any",
    ) -> "IsolateFuture[Any]":
        """Have a worker call ``fn(*args)``, as `submit`, with options. For keywords, use `functools.partial`.

        Args:
            fn: a function or a coroutine function.
            args: its arguments.
            timeout: seconds that it may run, in place of the pool's ``task_timeout``.
            retries: how often it is run again if its worker ends under it. What it raises is never a reason to, nor
                are its time-out and `IsolateFuture.cancel`.

        Raises:
            ValueError: ``timeout`` or ``retries`` is negative.
            TypeError, SendError, RuntimeError, BrokenIsolatePool: as for `submit`.
        """
        if unknown:
            raise TypeError(
                f"IsolatePool.run has no option {', '.join(map(repr, unknown))}; give a function its keyword arguments "
                "with functools.partial, or use submit"
            )
        if not isinstance(retries, int) or retries < 0:
            raise ValueError(f"retries must be an int of 0 or more, not {retries!r}")
        return self._submit(fn, args, {}, self._task_timeout if timeout is None else check_timeout(timeout), retries)

    @overload
    async def asubmit[**P, R](
        self, fn: "Callable[P, Coroutine[Any, Any, R]]", /, *args: "P.args", **kwargs: "P.kwargs"
    ) -> "IsolateFuture[R]": ...
    @overload
    async def asubmit[**P, R](
        self, fn: "Callable[P, R]", /, *args: "P.args", **kwargs: "P.kwargs"
    ) -> "IsolateFuture[R]": ...
    async def asubmit(self, fn: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "IsolateFuture[Any]":
        """Submit as soon as not too many tasks are unfinished, waiting for that in the running event loop.

        Too many are ``max_pending``, or sixteen for each worker if that was not given. Returns the future, as `submit`
        does; await that for the result.
        """
        await waiting.checkpoint()
        crew = self._crew
        bound = self._max_pending or _AHEAD * crew.limit
        while crew.unfinished >= bound and not crew.closing:
            await waiting.wait(crew.node.mailbox, [crew.changed], lambda: crew.unfinished < bound or crew.closing)
        return self._submit(fn, args, kwargs, self._task_timeout, 0)

    def _submit(
        self,
        fn: "Callable[..., Any]",
        args: "tuple[Any, ...]",
        kwargs: "dict[str, Any]",
        timeout: float | None,
        retries: int,
    ) -> "IsolateFuture[Any]":
        crew = self._crew
        if crew.closing or crew.broken is not None or crew.node.pid != os.getpid():
            self._check_usable()
        encoded = tasks.encode(fn, args, kwargs)
        if self._max_pending is not None:
            self._wait_for_room(self._max_pending)
        task: TaskFuture[Any] = TaskFuture(crew, fn, encoded, timeout, retries)
        if timeout == 0:
            task.fail(IsolateTimeoutError(f"{task._name} was allowed no time at all"))
        else:
            crew.submit(task)
        return task

    def _wait_for_room(self, bound: int) -> None:
        crew = self._crew
        if crew.unfinished < bound or crew.is_handling():  # a callback does not wait for what only it could handle
            return
        node = crew.node
        node.mailbox.wait([crew.changed], lambda: crew.unfinished < bound or crew.closing or node.killed)
        if node.killed:
            raise unwind()

    def _check_usable(self) -> None:
        if self._crew.node.pid != os.getpid():
            raise RuntimeError("the pool belongs to the process that this one was forked from; make another one here")
        self._crew.check_open()

    # -- many tasks ----------------------------------------------------------------------------------------------------

    @overload  # type: ignore[override]  # one iterable at least; their types and that of the function must agree
    def map[A, R](
        self, fn: "Callable[[A], Coroutine[Any, Any, R]]", items: "Iterable[A]", /, **options: "Unpack[_MapOptions]"
    ) -> MapIterator[R]: ...
    @overload
    def map[A, R](
        self, fn: "Callable[[A], R]", items: "Iterable[A]", /, **options: "Unpack[_MapOptions]"
    ) -> MapIterator[R]: ...
    @overload
    def map[A, B, R](
        self,
        fn: "Callable[[A, B], R]",
        items: "Iterable[A]",
        others: "Iterable[B]",
        /,
        **options: "Unpack[_MapOptions]",
    ) -> MapIterator[R]: ...
    @overload
    def map[R](
        self,
        fn: "Callable[..., R]",
        items: "Iterable[Any]",
        others: "Iterable[Any]",
        third: "Iterable[Any]",
        /,
        *iterables: "Iterable[Any]",
        **options: "Unpack[_MapOptions]",
    ) -> MapIterator[R]: ...
    def map(
        self,
        fn: "Callable[..., Any]",
        *iterables: "Iterable[Any]",
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        task_timeout: float | None = None,
    ) -> "MapIterator[Any]":
        """Call ``fn`` with each item, or with one of each iterable, and return an iterator over the results, in order.

        Sequences are worked through whether the results are taken or not. From other iterables, ten thousand items are
        drawn before their results are taken, by the caller's thread; so they may be endless. What ``fn`` or an iterable
        raises is raised after the results that come before it. Closing or dropping the iterator cancels what has not
        begun. The function is sent once to each worker, and keeps its state there.

        Args:
            fn: a function or a coroutine function.
            iterables: where the arguments come from; the shortest ends it.
            timeout: seconds from now on, after which waiting for a result raises a `TimeoutError`.
            chunksize: how many items go to a worker at once; if not given, some milliseconds' worth, as it turns out.
            buffersize: how many items are drawn before their results are taken, from sequences too.
            task_timeout: seconds that each call may take, in place of the pool's.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is less than 1, ``task_timeout`` negative.
            TypeError: ``fn`` is not callable, an iterable is none.
            SendError: the function cannot be sent.
            RuntimeError, BrokenIsolatePool: as for `submit`.
        """
        _check_count("chunksize", chunksize, "chunksize must be >= 1")
        _check_count("buffersize", buffersize, "buffersize must be None or > 0")
        self._check_usable()
        allowed = self._task_timeout if task_timeout is None else check_timeout(task_timeout)
        job = Job(self._crew, fn, len(iterables) != 1, chunksize, allowed)
        return MapIterator(job, iterables, timeout, buffersize)

    def stream[T, *Ts](
        self,
        generator_function: "Callable[[*Ts], Iterable[T] | AsyncIterable[T]]",
        /,
        *args: *Ts,
        maxsize: int = 1000,
    ) -> "Stream[T]":
        """Have a worker run a generator, and return what it yields as it is made, as `Isolate.stream` does."""
        from subiso import streams

        return streams.open_stream(self._stream_task, generator_function, args, maxsize)

    def _stream_task(self, produce: "Callable[..., Any]", *args: "Any") -> "IsolateFuture[Any]":
        return self._submit(produce, args, {}, self._task_timeout, 0)

    def progress[T](
        self, results: "Iterable[T]", description: str = "Working", *, total: int | None = None
    ) -> "Iterator[T]":
        """Show what the pool does while ``results``, usually those of `map`, are taken; yields them.

        Args:
            results: what to iterate over.
            description: what the bar says.
            total: how many there will be; found out if not given, where that is possible.
        """
        from subiso import progress

        return progress.track(self, results, description, total)

    # -- insight -------------------------------------------------------------------------------------------------------

    def statistics(self) -> "Statistics":
        """Return what the pool has done so far, as a frozen object."""
        return self._crew.statistics()

    def dump_stacks(self, timeout: float = 1.0) -> str:
        """Return where each worker stands, as text with a traceback for each, even one that is stuck in C code.

        Each worker's thread is sent a signal, whose handler is faulthandler's: system calls of C code may be
        interrupted. Only main can ask.

        Args:
            timeout: seconds to wait for each worker's answer.
        """
        from subiso import inquiry

        return inquiry.ask(self._crew, check_timeout(timeout))

    # -- size and end --------------------------------------------------------------------------------------------------

    def resize(self, max_workers: int) -> None:
        """Change how many workers there may be. Those that are too many end when they have done what they do.

        Raises:
            ValueError: ``max_workers`` is less than 1.
            TypeError: it is not an int.
        """
        self._crew.resize(_check_workers(max_workers))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more work; end the workers when everything that was submitted is done.

        Args:
            wait: whether to wait for that.
            cancel_futures: whether to cancel what has not begun.
        """
        if self._crew.node.pid != os.getpid():
            return
        self._crew.close(cancel_futures)
        if wait:
            self._crew.join()

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._crew.abort()
        self.shutdown()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        crew = self._crew
        if kind is not None and not issubclass(kind, Exception):  # as a cancelled task leaves it
            crew.abort()
        crew.close()
        await waiting.wait(crew.node.mailbox, [crew.changed], lambda: crew.is_over)

    def __repr__(self) -> str:
        return f"<IsolatePool {self.name!r} of {self._crew.limit}{' shut down' if self._crew.closing else ''}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        raise SendError(self.__subiso_unsendable__)


def _count_processors() -> int:
    return getattr(os, "process_cpu_count", os.cpu_count)() or 1


def _check_workers(number: object) -> int:
    if not isinstance(number, int):
        raise TypeError(f"max_workers must be an int, not {number!r}")
    if number <= 0:
        raise ValueError("max_workers must be greater than 0")
    return number


def _check_count(name: str, number: object, text: str | None = None) -> None:
    if number is None:
        return
    if not isinstance(number, int):
        raise TypeError(f"{name} must be an integer or None, not {number!r}")
    if number < 1:
        raise ValueError(text or f"{name} must be None or at least 1, not {number}")


# -- the end of pools --------------------------------------------------------------------------------------------------

_crews: "weakref.WeakSet[Crew]" = weakref.WeakSet()


def _close_later(crew: Crew) -> None:
    try:
        start_new_thread(crew.close, ())
    except RuntimeError:  # the interpreter is ending
        pass


def _finish_all() -> None:
    """Wait for the work of every pool, as `concurrent.futures` does at the end of the program; not after Ctrl-C."""
    living = [crew for crew in _crews if crew.node.pid == os.getpid()]
    for crew in living:
        if exits.was_interrupted():
            crew.abort()
        else:
            crew.close()
    for crew in living:
        crew.join()


# What the standard library's own executors use: it is called before threads are joined, and before `atexit` functions.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
