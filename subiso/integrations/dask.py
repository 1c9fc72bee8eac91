"""Dask: an executor of isolates in every worker of a cluster.

``client.register_plugin(IsolatesPlugin())``, or ``dask worker --preload subiso.integrations.dask``, and then::

    with dask.annotate(executor="isolates"):
        future = client.submit(function, argument)

What comes of it
    Dask asks an executor that is no thread pool (it goes by the name of the class) to run a function of its own with
    the task. That function measures and catches, and needs Dask; so it runs here, on a thread that waits, and only the
    user's function and its arguments go to an isolate. Dask itself is imported there only for a task in whose arguments
    something has yet to be computed.

A task that is stopped, because Dask wants it no more or its worker closes, asks Dask to schedule it again. For one that
is no longer wanted this means nothing.
"""

import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import dask.config
from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, NestedContainer, Set, Task, TaskRef, Tuple
from distributed import Reschedule, Status, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from subiso._kernel import interpreters
from subiso.errors import RemoteError
from subiso.pool import IsolatePool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from subiso.futures import IsolateFuture

NAME = "isolates"


class IsolatesPlugin(WorkerPlugin):  # type: ignore[misc,unused-ignore]
    """Give each worker of a Dask cluster an executor of isolates, by the name of "isolates".

    Register it with ``client.register_plugin``: workers that come later get it too. While a plugin of this name is
    registered, another one is ignored. On Python 3.12 and 3.13 the workers' profiler must be off.

    Args:
        max_workers: how many isolates each Dask worker has; as many as it has threads if not given. Dask runs no more
            tasks at once than it has threads, whatever runs them.
        initializer, initargs, finalizer, max_tasks_per_worker, idle_timeout, task_timeout, extensions: as for
            `IsolatePool`.

    Raises:
        RuntimeError: by ``register_plugin``: the worker's profiler is on, and would abort the process.
    """

    name = NAME
    idempotent = True

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: "Callable[..., object] | None" = None,
        initargs: "tuple[Any, ...]" = (),
        finalizer: "Callable[[], object] | None" = None,
        max_tasks_per_worker: int | None = None,
        idle_timeout: float | None = None,
        task_timeout: float | None = None,
        extensions: str | None = None,
    ) -> None:
        self._max_workers = max_workers
        self._options: dict[str, Any] = {
            "initializer": initializer,
            "initargs": initargs,
            "finalizer": finalizer,
            "max_tasks_per_worker": max_tasks_per_worker,
            "idle_timeout": idle_timeout,
            "task_timeout": task_timeout,
            "extensions": extensions,
        }
        self._executor: IsolateExecutor | None = None

    def setup(self, worker: Worker) -> None:
        """Add the executor to a worker. Called by Dask."""
        if not interpreters.FRAMES_ARE_OWN and "profile" in worker.periodic_callbacks:
            raise RuntimeError(
                "Dask's profiler aborts a process that has isolates before Python 3.14; start the workers with "
                "distributed.worker.profile.enabled set to False, by dask.config.set or in the environment: "
                "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"
            )
        limit = worker.state.nthreads if self._max_workers is None else self._max_workers
        self._executor = IsolateExecutor(IsolatePool(limit, name=f"dask-{worker.name}", **self._options))
        worker.executors[NAME] = self._executor

    def teardown(self, worker: Worker) -> None:
        """Take the executor away from a worker; what runs there is finished. Called by Dask."""
        # A worker that closes shuts its executors down itself, when it has told the scheduler: not before, so that no
        # task is reported as failed that another worker will do.
        executor = self._executor
        if worker.status is not Status.closing and executor is not None and worker.executors.get(NAME) is executor:
            del worker.executors[NAME]
            executor.retire()

    def transition(self, key: "Any", start: str, finish: str, **_: "Any") -> None:
        """Stop a task that runs, and that nobody wants any more. Called by Dask."""
        if finish == "released" and start in ("executing", "long-running") and self._executor is not None:
            self._executor.stop(key)


class IsolateExecutor(Executor):
    """Run a Dask worker's tasks in the isolates of a pool.

    Made by `IsolatesPlugin`. It may also be given to ``Worker(executor={"isolates": …})``; the pool is then its own.
    """

    # Dask looks for "ThreadPoolExecutor" in the name of the class, and treats what has it otherwise.

    def __init__(self, pool: IsolatePool) -> None:
        self._pool = pool
        self._max_workers = pool._max_workers
        self._threads = ThreadPoolExecutor(self._max_workers, f"{pool.name}-waits")
        self._running: dict[object, _Stub] = {}
        _executors.add(self)

    def submit(self, fn: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "Future[Any]":
        """Call ``fn`` on a thread of the worker's, where its first argument is a task of Dask's; else in an isolate.

        Raises:
            RuntimeError: the executor was shut down.
            SendError, TypeError, BrokenIsolatePool: as for `IsolatePool.submit`.
        """
        if not args or not isinstance(args[0], GraphNode):
            return self._pool.submit(fn, *args, **kwargs)
        task, *others = args
        stub = self._running[task.key] = _Stub(self._pool, task)
        try:
            future = self._threads.submit(fn, stub, *others, **kwargs)
        except BaseException:
            self._forget(stub)
            raise
        future.add_done_callback(lambda _: self._forget(stub))
        return future

    def _forget(self, stub: "_Stub") -> None:
        if self._running.get(stub.key) is stub:
            del self._running[stub.key]

    def stop(self, key: object) -> None:
        """Stop the task of that key, if it is here."""
        stub = self._running.get(key)
        if stub is not None:
            stub.stop()

    def retire(self) -> None:
        """Accept no more tasks; the isolates end when those that are here are done. Does not wait."""
        self._threads.shutdown(wait=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and stop those that run.

        Args:
            wait: whether to wait until the isolates have ended. One that is blocked in C code is given up after a
                second, so this takes no long time.
            cancel_futures: makes no difference.
        """
        self.retire()
        for stub in [*self._running.values()]:
            stub.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if wait:
            self._threads.shutdown()
            self._pool.shutdown()


class _Stub:
    """Stands where Dask calls a task, and has an isolate compute it.

    Three threads know it: the worker's, which stops it; a waiting one, which calls it; and the pool's.
    """

    def __init__(self, pool: IsolatePool, task: GraphNode) -> None:
        self.key = task.key
        self._pool = pool
        self._task = task
        self._stopped = False
        self._future: IsolateFuture[Any] | None = None

    def __call__(self, data: "dict[Any, Any]") -> "Any":
        if self._stopped:
            raise Reschedule
        if not isinstance(self._task, Task):
            return self._task(data)  # a value, or another name for one
        try:
            function, args, keywords = _call_of(self._task, data)
            future = self._future = self._pool.submit(function, *args, **keywords)
        except RuntimeError:
            if self._stopped:  # and therefore the pool is shut down
                raise Reschedule from None
            raise
        if self._stopped:  # `stop` sets this before it looks for the future, so one of the two sees the other
            future.cancel()
        try:
            return future.result()
        except (SystemExit, KeyboardInterrupt) as error:  # raised here, it would end the worker
            raise RemoteError(type(error).__qualname__, str(error)) from error
        except BaseException:
            if self._stopped and future.cancelled():
                raise Reschedule from None
            raise

    def stop(self) -> None:
        self._stopped = True
        if self._future is not None:
            self._future.cancel()


class _ToCompute(Exception):  # noqa: N818 - no error
    """Something in a task's arguments is itself to be computed."""


def _call_of(task: Task, data: "dict[Any, Any]") -> "tuple[Callable[..., Any], list[Any], dict[str, Any]]":
    """Return what an isolate has to call for a task, so that it computes all that there is to compute."""
    try:
        args = [_value_of(argument, data) for argument in task.args]
        return task.func, args, {name: _value_of(argument, data) for name, argument in task.kwargs.items()}
    except _ToCompute:
        return task, [data], {}


def _value_of(argument: object, data: "dict[Any, Any]") -> object:
    """Return what an argument of a task stands for, if nothing needs computing for it."""
    if isinstance(argument, TaskRef):
        return data[argument.key]
    if not isinstance(argument, GraphNode):
        return argument
    if isinstance(argument, DataNode):
        return argument.value
    if isinstance(argument, Alias):
        return data[argument.target]
    if isinstance(argument, NestedContainer) and type(argument) in (List, Tuple, Set, Dict):
        return argument.constructor([_value_of(part, data) for part in argument.args])
    raise _ToCompute


async def dask_setup(worker: Worker) -> None:
    """Give a worker its isolates: what ``--preload subiso.integrations.dask`` calls.

    The options of `IsolatesPlugin` are taken from Dask's configuration, below ``subiso``: in the environment,
    ``DASK_SUBISO__TASK_TIMEOUT=60``.

    Raises:
        TypeError: it is no worker, but a scheduler; there is no such option.
        RuntimeError: the profiler is on where it must not be. Dask logs both, and goes on.
    """
    if not isinstance(worker, Worker):
        raise TypeError(f"subiso.integrations.dask is a preload for workers, not for {type(worker).__name__}")
    options = {name.replace("-", "_"): value for name, value in dask.config.get("subiso", {}).items()}
    await worker.plugin_add(IsolatesPlugin(**options), catch_errors=False)


_executors: "weakref.WeakSet[IsolateExecutor]" = weakref.WeakSet()


def _stop_all() -> None:
    """Stop what still runs when the program ends, as Dask's own threads end with it; pools would wait."""
    for executor in [*_executors]:
        executor.shutdown(wait=False)


# Called before what the pool and the standard library have registered, because it is registered after them.
threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
