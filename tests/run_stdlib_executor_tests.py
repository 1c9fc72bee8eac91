"""Runs the standard library's own tests of executors against `IsolatePool`, where Python comes with them.

    python tests/run_stdlib_executor_tests.py [-v]

The tests are imported, not copied. Which of them cannot hold for isolates, and why, is listed in `DIFFERENCES`; so it
is in docs/how-to/replace-a-process-pool.md. The exit code is 1 if another one fails.
"""

import importlib
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import subiso

MIXINS = {
    "test_wait": ["WaitTests"],
    "test_as_completed": ["AsCompletedTests"],
    "test_shutdown": ["ExecutorShutdownTest"],
    "test_init": ["InitializerMixin", "FailingInitializerMixin"],
    "test_deadlock": ["ExecutorDeadlockTest"],
    "executor": ["ExecutorTest"],
}
CRASH = "a crash in C code ends the process, isolates and all"
AT_ONCE = "what cannot be pickled is refused by submit itself, as a SendError"
NOT_PROCESSES = "it looks into ProcessPoolExecutor's insides"
DIFFERENCES = {
    "test_crash_at_task_unpickle": CRASH,
    "test_crash_during_func_exec_on_worker": CRASH,
    "test_crash_during_result_pickle_on_worker": CRASH,
    "test_shutdown_deadlock": CRASH,
    "test_crash_big_data": CRASH,
    "test_error_at_task_pickle": AT_ONCE,
    "test_shutdown_deadlock_pickle": AT_ONCE,
    "test_exit_at_task_unpickle": "the error of unpickling is the task's, and the worker lives on",
    "test_error_at_task_unpickle": "the error of unpickling is the task's, and the worker lives on",
    "test_error_during_result_unpickle_in_result_handler": "the error of unpickling is the task's; the pool lives on",
    "test_exit_during_result_unpickle_in_result_handler": "the error of unpickling is the task's; the pool lives on",
    "test_error_during_result_pickle_on_worker": "a result that cannot be sent is a SendError",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": NOT_PROCESSES,
}


class IsolatePoolMixin:
    """What the tests ask of the mixin of an executor."""

    executor_type = subiso.IsolatePool
    worker_count = 5

    def get_context(self) -> None:
        return None


def executor(max_workers: int | None = None, mp_context: object = None, **options: object) -> subiso.IsolatePool:
    """Make a pool as the tests make a ProcessPoolExecutor."""
    return subiso.IsolatePool(max_workers, **options)


def in_program(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs a program of test_shutdown's, which then finds the pool where it is."""
    path = f"import sys; sys.path.insert(0, {str(Path(subiso.__file__).parent.parent)!r})\n"

    def run(option: str, code: str, **options: Any) -> Any:
        code = code.replace("concurrent.futures import IsolatePool", "subiso import IsolatePool")
        return original(option, path + code, **options)

    return run


def build() -> unittest.TestSuite:
    """Return the tests, each class with IsolatePool's mixin."""
    package = "test.test_concurrent_futures"
    util = importlib.import_module(f"{package}.util")
    suite = unittest.TestSuite()
    loader = unittest.TestLoader()
    for group in MIXINS:
        module = importlib.import_module(f"{package}.{group}")
        if group == "test_shutdown":
            module.assert_python_ok = in_program(module.assert_python_ok)
        for name in MIXINS[group]:
            bases = (getattr(module, name), IsolatePoolMixin, util.ExecutorMixin, unittest.TestCase)
            namespace = {"executor_type": subiso.IsolatePool, "__module__": module.__name__}
            if group == "test_deadlock":
                namespace["executor_type"] = staticmethod(executor)
            suite.addTests(loader.loadTestsFromTestCase(type(f"IsolatePool{name}", bases, namespace)))
    return suite


def main() -> int:
    """Run the tests and compare what fails with what must."""
    try:
        suite = build()
    except ModuleNotFoundError as error:
        print(f"skipped: Python {sys.version.split()[0]} comes without the standard library's tests ({error})")
        return 0
    import test.support

    test.support.use_resources = ["walltime"]
    expected = unittest.TestSuite(one for one in suite if one._testMethodName not in DIFFERENCES)
    others = [one for one in suite if one._testMethodName in DIFFERENCES]
    outcome = unittest.TextTestRunner(verbosity=2 if "-v" in sys.argv else 1).run(expected)
    print(f"{outcome.testsRun} of the standard library's tests run against IsolatePool, {len(others)} left out:")
    for one in others:
        print(f"  {one._testMethodName}: {DIFFERENCES[one._testMethodName]}")
    return not outcome.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
