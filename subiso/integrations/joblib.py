"""A joblib backend whose workers are isolates. Importing this module registers it, under the name ``"subiso"``.

``Parallel(backend="subiso")`` uses it for one call, ``with parallel_config("subiso"):`` for all that is done in the
block, also by other libraries, such as scikit-learn.
"""

import weakref
from concurrent.futures import Future

from joblib import parallel as joblib_parallel
from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from subiso._kernel import locks
from subiso.integrations import _batches
from subiso.pool import IsolatePool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    class _Backend:
        """What joblib has no types for."""

        nesting_level: int | None

        def __init__(self, *, nesting_level: int | None) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

else:

    class _Backend(AutoBatchingMixin, ParallelBackendBase):
        pass


_OF_JOBLIB = {"max_nbytes", "temp_folder", "mmap_mode", "prefer", "require", "verbose", "context"}


class IsolateBackend(_Backend):
    """Run joblib's batches in an `IsolatePool`.

    The pool lives as long as the ``parallel_config`` block, the ``with Parallel(...)`` block, or else the one call; the
    interpreters are used again by the next one, with the packages that they have imported. Arguments and results are
    copied; joblib's options for memory mapping have no effect. Parallelism inside a task is sequential.

    Args:
        nesting_level: joblib's own.
        extensions: what becomes of packages with compiled code, as for `IsolatePool`:
            ``parallel_config("subiso", extensions="all")``.

    Raises:
        TypeError: there is no such option.
        ValueError: there is no such policy for packages with compiled code.
    """

    supports_retrieve_callback = True
    uses_threads = False
    supports_sharedmem = False
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    # Sending a batch costs a fraction of a millisecond, so short batches do, and leave fewer cores idle at the end.
    MIN_IDEAL_BATCH_DURATION = 0.02
    MAX_IDEAL_BATCH_DURATION = 0.2

    def __init__(self, nesting_level: int | None = None, *, extensions: str | None = None, **options: "Any") -> None:
        _check_options(options)
        super().__init__(nesting_level=nesting_level)
        self._extensions = extensions
        self._pool: IsolatePool | None = None
        self._parallel: Callable[[], Any] = lambda: None
        self._futures: set[Future[Any]] = set()  # of what has not ended
        self._aborted = False
        self._lock = locks.Lock()  # callbacks submit, too

    @property
    def parallel(self) -> "Any":
        """The call of ``Parallel`` that is going on."""
        return self._parallel()

    @parallel.setter
    def parallel(self, parallel: "Any") -> None:
        # Weakly: it holds the backend, and a cycle would keep the isolates of a parallel_config block after its end.
        self._parallel = weakref.ref(parallel) if parallel is not None else lambda: None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many isolates ``n_jobs`` means: a negative number counts from the processors downwards."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(int(joblib_parallel.cpu_count()) + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: "Any" = None,
        prefer: object = None,
        require: object = None,
        **options: "Any",
    ) -> int:
        """Make the pool, unless one job needs none; return how many workers it has."""
        _check_options(options)
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        if self._pool is None:
            self._pool = IsolatePool(n_jobs, name="joblib", initializer=_batches.prepare, extensions=self._extensions)
        elif self._pool._max_workers != n_jobs:
            self._pool.resize(n_jobs)
        return n_jobs

    def start_call(self) -> None:
        """Begin a call anew: after an error, joblib would do the batches that were left over in the next one."""
        ready = getattr(self.parallel, "_ready_batches", None)
        while ready is not None and not ready.empty():
            ready.get_nowait()

    def submit(self, func: "Any", callback: "Callable[[Any], object] | None" = None) -> "Future[Any]":
        """Have a batch run, and ``callback`` called with its future when it has ended."""
        future: Future[Any]
        try:
            if self._pool is None:
                raise RuntimeError("the joblib backend was terminated")
            # Not the batch itself: with it would go joblib's nested backend, and its threads.
            future = self._pool.submit(_batches.run, func.items, (self.nesting_level or 0) + 1)
        except Exception as error:  # in the future, for joblib would wait for ever if a callback could not submit
            future = Future()
            future.set_exception(error)
        else:
            with self._lock:
                self._futures.add(future)
            future.add_done_callback(self._forget)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _forget(self, future: "Future[Any]") -> None:
        with self._lock:
            self._futures.discard(future)

    def retrieve_result_callback(self, out: "Future[Any]") -> "list[Any]":
        """Return the results of a batch that has ended, or raise its error."""
        return out.result()  # type: ignore[no-any-return]

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what is running, and do nothing of what waits. The pool replaces its workers, so it stays usable."""
        self._aborted = not ensure_ready
        with self._lock:
            futures = list(self._futures)
        for future in futures:
            future.cancel()

    def terminate(self) -> None:
        """End the pool, and wait until its isolates have ended; inside a ``parallel_config`` block keep it for more."""
        self.reset_batch_stats()
        aborted, self._aborted = self._aborted, False
        if joblib_parallel.get_active_backend()[0] is self and not aborted:
            return  # after an error, whose traceback keeps this object, nobody else might end the pool
        pool, self._pool = self._pool, None
        if pool is not None:
            self.abort_everything()
            pool.shutdown()


def _check_options(options: "dict[str, Any]") -> None:
    unknown = sorted(options.keys() - _OF_JOBLIB)
    if unknown:
        raise TypeError(f"the subiso backend has no option {', '.join(map(repr, unknown))}")


joblib_parallel.register_parallel_backend("subiso", IsolateBackend)
