"""The inside of a worker of the joblib backend, which does not import joblib unless the tasks have done so.

A batch is run as joblib's own ``BatchedCalls`` would run it, and nested parallelism is sequential: joblib's processes
and threads need daemon threads, which isolates do not have.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    type Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def prepare() -> None:
    """Have joblib, if a task imports it, be without processes; an interpreter that has imported it keeps it so."""
    os.environ["JOBLIB_MULTIPROCESSING"] = "0"


def run(items: "list[Call]", nesting_level: int) -> "list[Any]":
    """Do the calls of one batch."""
    parallel = sys.modules.get("joblib.parallel")
    if parallel is None:
        return _call(items)
    backends = sys.modules["joblib._parallel_backends"]
    with parallel.parallel_config(backend=backends.SequentialBackend(nesting_level=nesting_level), n_jobs=1):
        return _call(items)


def _call(items: "list[Call]") -> "list[Any]":
    return [function(*args, **keywords) for function, args, keywords in items]
