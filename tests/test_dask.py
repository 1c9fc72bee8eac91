"""The executor of isolates that Dask's workers are given, without a cluster: what becomes of a task."""

import concurrent.futures
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed", reason="Dask's distributed is not installed")

from dask._task_spec import Alias, DataNode, Dict, List, Set, Task, TaskRef, Tuple
from dask_tasks import (
    answer,
    block,
    die,
    endless,
    fail,
    fail_as_if_cancelled,
    leave,
    look,
    make_what_cannot_be_sent,
    name_of_isolate,
    show,
    wait,
)
from distributed import Reschedule
from distributed.worker import _run_task_simple

from subiso import IsolateKilledError, IsolatePool, IsolateTimeoutError, ReceivePort, RemoteError, SendError
from subiso._kernel import interpreters
from subiso.integrations import dask as adapter
from subiso.integrations.dask import IsolateExecutor, IsolatesPlugin

LONG = 20  # seconds: the bound of a wait that should be over at once


@pytest.fixture
def executor():
    """An executor with two isolates, shut down at the end."""
    executor = IsolateExecutor(IsolatePool(2, name="dask-test"))
    yield executor
    executor.shutdown()


def compute(executor, task, data=()):
    """Have a task computed as Dask's worker does; return what that says about it."""
    return executor.submit(_run_task_simple, task, dict(data), 0.0).result(LONG)


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_a_task_runs_in_an_isolate(executor):
    """Dask's own function measures and reports a task whose function runs in an isolate, where Dask is not needed."""

    said = compute(executor, Task("key", look))
    assert said["op"] == "task-finished"
    name, has_dask = said["result"]
    assert name.startswith("dask-test")
    assert not has_dask
    assert said["thread"] != threading.get_ident()
    assert said["start"] <= said["stop"]


def test_the_name_of_the_class():
    """Dask takes an executor for one of its thread pools by the name of its class; ours must not look like one."""
    assert "ThreadPoolExecutor" not in str(IsolateExecutor)


def test_arguments(executor):
    """References to other tasks' results, values and containers of them arrive as what they stand for."""
    task = Task(
        "key",
        show,
        1,
        TaskRef("a"),
        DataNode("data", "d"),
        Alias("b"),
        List(TaskRef("a"), Tuple(TaskRef("b"), 3)),
        Set(TaskRef("a"), 1),
        Dict({"x": TaskRef("b"), "y": List(4)}),
        word=TaskRef("a"),
        other=[5],
    )
    args, keywords = compute(executor, task, {"a": 10, "b": 20})["result"]
    assert args == (1, 10, "d", 20, [10, (20, 3)], {10, 1}, {"x": 20, "y": [4]})
    assert keywords == {"word": 10, "other": [5]}


@pytest.mark.parametrize("container", [False, True], ids=["argument", "container"])
def test_tasks_in_arguments(executor, container):
    """A task among the arguments of another is computed in the isolate as well."""
    inner = Task(None, name_of_isolate, TaskRef("a"))
    said = compute(executor, Task("key", show, List(inner) if container else inner, TaskRef("a")), {"a": 10})
    (found, a), _ = said["result"]
    assert a == 10
    assert (found[0] if container else found).startswith("dask-test")


def test_fused_tasks(executor):
    """Tasks that Dask has fused into one are computed in the isolate, one after the other."""
    first = Task("first", pow, TaskRef("a"), 2)
    second = Task("second", show, TaskRef("first"), Task(None, name_of_isolate))
    said = compute(executor, Task.fuse(first, second), {"a": 3})
    (nine, isolate), _ = said["result"]
    assert nine == 9
    assert isolate.startswith("dask-test")


def test_what_is_no_computation(executor):
    """A value, and another name for one, are returned as they are."""
    assert compute(executor, DataNode("key", "value"))["result"] == "value"
    assert compute(executor, Alias("key", "a"), {"a": 10})["result"] == 10


def test_plain_functions(executor):
    """What is submitted with no task of Dask's runs in an isolate, as in any pool."""
    assert executor.submit(pow, 2, 5).result(LONG) == 32
    assert list(executor.map(abs, [-1, 2, -3])) == [1, 2, 3]
    assert executor.submit(name_of_isolate).result(LONG).startswith("dask-test")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors(executor):
    """What a task raises is reported as itself, with its traceback as the cause."""

    said = compute(executor, Task("key", fail))
    assert said["op"] == "task-erred"
    error = said["actual_exception"]
    assert type(error) is LookupError
    assert error.args == ("not there", 3)
    assert "in fail" in str(error.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_errors_that_would_end_the_worker(executor, kind):
    """`sys.exit` in a task is the task's error, and the worker goes on."""

    error = compute(executor, Task("key", leave, kind))["actual_exception"]
    assert type(error) is RemoteError
    assert str(error) == f"{kind.__name__}: enough"
    assert compute(executor, Task("key", pow, 2, 3))["result"] == 8


def test_a_cancelled_error_of_the_task(executor):
    """A CancelledError that the task itself raises is its error, and no reason to do it again."""

    error = compute(executor, Task("key", fail_as_if_cancelled))["actual_exception"]
    assert type(error) is concurrent.futures.CancelledError


def test_what_cannot_be_sent(executor):
    """An argument or result that cannot be sent is the task's error; the way to it is named."""
    error = compute(executor, Task("key", show, [threading.Lock()]))["actual_exception"]
    assert isinstance(error, SendError)

    assert isinstance(compute(executor, Task("key", make_what_cannot_be_sent))["actual_exception"], SendError)


def test_a_killed_isolate(executor):
    """A task whose isolate is killed has failed; another isolate takes the place of that one."""

    for _ in range(5):  # more often than there are isolates
        assert isinstance(compute(executor, Task("key", die))["actual_exception"], IsolateKilledError)
    assert [compute(executor, Task("key", pow, x, 2))["result"] for x in range(5)] == [0, 1, 4, 9, 16]


def test_a_time_limit():
    """A pool's time-out is that of each task."""
    executor = IsolateExecutor(IsolatePool(1, task_timeout=0.05))
    try:
        assert isinstance(compute(executor, Task("key", endless))["actual_exception"], IsolateTimeoutError)
    finally:
        executor.shutdown()


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_stopping_a_task_that_runs(executor):
    """A task that is stopped unwinds, and asks Dask to schedule it again."""
    with ReceivePort(end_with_senders=False) as port:
        future = executor.submit(_run_task_simple, Task("key", wait, port.send_port), {}, 0.0)
        assert port.receive(LONG) == "running"
        executor.stop("another")
        executor.stop("key")
        assert isinstance(future.result(LONG)["actual_exception"], Reschedule)
        assert port.receive(LONG) == "unwound"
    assert compute(executor, Task("key", pow, 2, 3))["result"] == 8


def test_stopping_a_task_that_waits(executor):
    """A task that is stopped before it has begun never begins."""
    with ReceivePort(end_with_senders=False) as port:
        running = [executor.submit(_run_task_simple, Task(i, wait, port.send_port), {}, 0.0) for i in range(2)]
        assert [port.receive(LONG) for _ in running] == ["running"] * 2
        waiting = executor.submit(_run_task_simple, Task("key", wait, port.send_port), {}, 0.0)
        executor.stop("key")
        executor.stop(0)
        assert isinstance(waiting.result(LONG)["actual_exception"], Reschedule)
        executor.stop(1)
        assert [port.receive(LONG) for _ in running] == ["unwound"] * 2
        concurrent.futures.wait(running, LONG)


def test_shutting_down_stops_what_runs(executor):
    """Shutting down stops running tasks and drops waiting ones, which ask to be scheduled again; twice does nothing."""
    with ReceivePort(end_with_senders=False) as port:
        futures = [executor.submit(_run_task_simple, Task(i, wait, port.send_port), {}, 0.0) for i in range(6)]
        assert [port.receive(LONG) for _ in range(2)] == ["running"] * 2
        threads = [threading.Thread(target=executor.shutdown) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        for future in futures:
            assert isinstance(future.result(LONG)["actual_exception"], Reschedule)
        assert [port.receive(LONG) for _ in range(2)] == ["unwound"] * 2
    executor.shutdown()
    for function in (_run_task_simple, pow):
        with pytest.raises(RuntimeError):
            executor.submit(function, Task("key", pow, 2, 3), {}, 0.0)
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 3)


def test_shutting_down_beside_blocked_code(executor):
    """An isolate that is blocked in C code does not keep the worker from closing."""

    with ReceivePort(end_with_senders=False) as port:
        future = executor.submit(_run_task_simple, Task("key", block, port.send_port), {}, 0.0)
        assert port.receive(LONG) == "running"
        executor.shutdown()
        assert isinstance(future.result(LONG)["actual_exception"], Reschedule)


def test_retiring_finishes_what_runs(executor):
    """An executor that is taken from a worker finishes what it has, and takes nothing more."""

    with ReceivePort(end_with_senders=False) as port:
        future = executor.submit(_run_task_simple, Task("key", answer, port.send_port), {}, 0.0)
        theirs = port.receive(LONG)
        executor.retire()
        with pytest.raises(RuntimeError):
            executor.submit(_run_task_simple, Task("other", pow, 2, 3), {}, 0.0)
        theirs.send("done")
        assert future.result(LONG)["result"] == "done"


def test_the_end_of_the_program(script):
    """A program does not wait for tasks that run when it ends."""
    program = script(
        """
        from dask._task_spec import Task
        from distributed.worker import _run_task_simple

        from subiso import IsolatePool, ReceivePort
        from subiso.integrations.dask import IsolateExecutor

        def wait(port):
            port.send("running")
            while True:
                pass

        port = ReceivePort(end_with_senders=False)
        executor = IsolateExecutor(IsolatePool(1))
        executor.submit(_run_task_simple, Task("key", wait, port.send_port), {}, 0.0)
        print(port.receive())
        """,
        timeout=3 * LONG,
    )
    assert (program.returncode, program.out) == (0, "running\n"), program.err


# -- workers -----------------------------------------------------------------------------------------------------------


def fake_worker(**attributes):
    return SimpleNamespace(
        name="w", executors={}, periodic_callbacks={}, state=SimpleNamespace(nthreads=3), status=None, **attributes
    )


def test_as_many_isolates_as_threads():
    """A worker gets as many isolates as it has threads, or as many as the plugin says."""
    for plugin, number in ((IsolatesPlugin(), 3), (IsolatesPlugin(1), 1)):
        worker = fake_worker()
        plugin.setup(worker)
        assert worker.executors["isolates"]._max_workers == number
        plugin.teardown(worker)
        assert worker.executors == {}
        plugin.teardown(worker)


def test_the_profiler(monkeypatch):
    """Where the profiler of Dask would abort the process, the plugin refuses, and says what to set."""
    worker = fake_worker()
    worker.periodic_callbacks["profile"] = object()
    monkeypatch.setattr(interpreters, "FRAMES_ARE_OWN", False)
    with pytest.raises(RuntimeError, match="DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"):
        IsolatesPlugin().setup(worker)
    assert worker.executors == {}
    monkeypatch.setattr(interpreters, "FRAMES_ARE_OWN", True)
    plugin = IsolatesPlugin()
    plugin.setup(worker)
    plugin.teardown(worker)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_preload_of_a_scheduler():
    """The preload says what it is for when it is given to a scheduler."""
    with pytest.raises(TypeError, match="a preload for workers, not for SimpleNamespace"):
        await adapter.dask_setup(SimpleNamespace())
