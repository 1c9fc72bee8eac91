"""IsolatePool: an executor of the standard library's kind, whose workers can be stopped and replaced."""

import asyncio
import collections
import concurrent.futures
import functools
import gc
import itertools
import logging
import os
import random
import re
import socket
import textwrap
import threading
import time
import weakref

import anyio
import pytest

from subiso import (
    BrokenIsolatePool,
    Isolate,
    IsolateFuture,
    IsolateKilledError,
    IsolatePool,
    IsolateTimeoutError,
    ReceivePort,
    SendError,
    worker_state,
)

LONG = 20  # seconds: the bound of a wait that should be over at once


def square(x):
    return x * x


def capture(*args, **kwargs):
    return args, kwargs


def fail(error):
    raise error


def wait(port):
    """Say so, and wait for a message that does not come; say when unwound."""
    try:
        port.send("waiting")
        ReceivePort(end_with_senders=False).receive()
    finally:
        port.send("unwound")


def answer(port, value=None):
    """Give the port another one, and return what arrives there."""
    with ReceivePort(end_with_senders=False) as mine:
        port.send(mine.send_port)
        return mine.receive()


def die():
    Isolate.current().kill()
    ReceivePort(end_with_senders=False).receive()


def who():
    return Isolate.current().name


@pytest.fixture
def pool():
    with IsolatePool(2) as pool:
        yield pool


# -- an executor -------------------------------------------------------------------------------------------------------


def test_it_is_an_executor(pool):
    """It is an executor, and gives futures, of the standard library's kind."""
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(square, 3)
    assert isinstance(future, IsolateFuture)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(LONG) == 9
    assert future.done()
    assert not future.running()
    assert future.exception() is None
    assert pool._max_workers == 2


def test_keywords(pool):
    """Every keyword is the function's own."""
    assert pool.submit(capture, 1, self=2, fn=3, timeout=4).result(LONG) == ((1,), {"self": 2, "fn": 3, "timeout": 4})


def test_functions_by_value(pool):
    """Lambdas, closures, partials and coroutine functions run."""
    factor = 5
    assert pool.submit(lambda x: factor * x, 2).result(LONG) == 10
    assert pool.submit(functools.partial(capture, key=1), 2).result(LONG) == ((2,), {"key": 1})

    async def nap(x):
        await asyncio.sleep(0)
        return x

    assert pool.submit(nap, 7).result(LONG) == 7
    assert list(pool.map(nap, range(3))) == [0, 1, 2]


@pytest.mark.dart("package/load_balancer_test")
def test_tasks_run_side_by_side(pool):
    """Two tasks that need each other are at work at the same time."""
    with ReceivePort() as port:
        futures = [pool.submit(answer, port.send_port) for _ in range(2)]
        for number, peer in enumerate([port.receive(LONG), port.receive(LONG)]):
            peer.send(number)
        assert sorted(future.result(LONG) for future in futures) == [0, 1]


def test_workers_are_kept_and_named():
    """One worker does one task after the other, under its pool's name."""
    with IsolatePool(1, name="crunch") as pool:
        assert {pool.submit(who).result(LONG) for _ in range(5)} == {"crunch-1"}
    assert "crunch" in repr(pool)
    assert "shut down" in repr(pool)


def test_wait_and_as_completed(pool):
    """concurrent.futures.wait and as_completed take its futures."""
    futures = [pool.submit(square, x) for x in range(20)]
    done, left = concurrent.futures.wait(futures, LONG)
    assert (len(done), len(left)) == (20, 0)
    more = [pool.submit(square, x) for x in range(20)]
    assert sorted(f.result() for f in concurrent.futures.as_completed(more, LONG)) == [x * x for x in range(20)]


def test_callbacks_may_submit(pool):
    """A callback may submit the next task, a thousand times over."""
    finished = threading.Event()
    results = []

    def go_on(future):
        results.append(future.result())
        if len(results) == 1000:
            finished.set()
        else:
            pool.submit(square, len(results)).add_done_callback(go_on)

    pool.submit(square, 0).add_done_callback(go_on)
    assert finished.wait(LONG)
    assert results == [x * x for x in range(1000)]


def test_a_callback_may_wait_for_another_task(pool):
    """A callback that waits for another task gets its result, whichever thread calls it."""
    results = []
    finished = threading.Event()

    def go_on(future):
        results.append(pool.submit(square, future.result()).result(LONG))
        finished.set()

    pool.submit(square, 3).add_done_callback(go_on)
    assert finished.wait(LONG)
    pool.submit(square, 2).result(LONG)
    assert results == [81]


def test_submitting_from_threads(pool):
    """Many threads may submit to one pool."""
    results = []

    def submit():
        results.extend(future.result(LONG) for future in [pool.submit(square, 3) for _ in range(100)])

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [9] * 400


def test_large_arguments_and_results(pool):
    """Megabytes go there and back."""
    data = os.urandom(3_000_000)
    assert pool.submit(bytes.__add__, data, b"x").result(LONG) == data + b"x"
    assert pool.submit(capture, [bytearray(data)]).result(LONG) == (([bytearray(data)],), {})


def test_ports_in_arguments_and_results(pool):
    """Send ports travel in tasks and in results."""
    with ReceivePort() as port:
        sender = pool.submit(capture, port.send_port).result(LONG)[0][0]
        assert sender == port.send_port
        sender.send("x")
        assert port.receive(LONG) == "x"


def test_nothing_of_a_task_is_kept(pool):
    """When a task is done, nothing holds its function or arguments."""

    class Thing:
        def method(self):
            return None

    thing = Thing()
    gone = weakref.ref(thing)
    pool.submit(thing.method).result(LONG)
    del thing
    gc.collect()
    assert gone() is None


def test_output_is_there_when_the_result_is(pool, capsys):
    """What a task has printed appears, in order, before its result."""
    for number in range(20):
        pool.submit(print, "line", number).result(LONG)
        assert capsys.readouterr().out == f"line {number}\n"


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_come_back_as_themselves(pool):
    """What a task raises is raised by its future, with the isolate's traceback; the worker goes on."""
    for error in (KeyError(1), SystemExit(3), KeyboardInterrupt()):
        future = pool.submit(fail, error)
        with pytest.raises(type(error)) as caught:
            future.result(LONG)
        assert "in fail" in str(caught.value.__cause__)
    assert pool.submit(who).result(LONG) == f"{pool.name}-1"


def test_what_cannot_be_sent(pool):
    """What cannot be sent fails at once, and says where it is."""
    with socket.socket() as sock:
        with pytest.raises(SendError, match=r"args\[0\]\['s'\]"):
            pool.submit(square, {"s": sock})
        with pytest.raises(SendError, match=r"keywords\['key'\]"):
            pool.submit(capture, key=sock)
        with pytest.raises(SendError, match="sock"):
            pool.submit(lambda: sock)
    with pytest.raises(SendError, match="pool"):
        pool.submit(capture, pool)
    assert pool.submit(square, 2).result(LONG) == 4


def test_a_result_that_cannot_be_sent(pool):
    """A result that cannot be sent is the task's error; the worker goes on."""
    with pytest.raises(SendError, match=r"result\['lock'\]"):
        pool.submit(lambda: {"lock": threading.Lock()}).result(LONG)
    assert pool.submit(who).result(LONG) == f"{pool.name}-1"


def test_what_is_no_function(pool):
    """What is not callable is refused at once."""
    with pytest.raises(TypeError, match="a pool runs functions, not 3"):
        pool.submit(3)
    with pytest.raises(TypeError, match="a pool runs functions, not None"):
        pool.map(None, [1])


@pytest.mark.parametrize("number", [0, -1])
def test_no_workers(number):
    """A pool needs a worker."""
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        IsolatePool(number)
    with IsolatePool(1) as pool:
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            pool.resize(number)


def test_a_thousand_workers():
    """A pool may have a thousand workers, and starts those that it needs."""
    with IsolatePool(1000) as pool:
        assert list(pool.map(square, range(5), chunksize=1)) == [0, 1, 4, 9, 16]
        assert 1 <= pool.statistics().workers <= 5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 1.5}, TypeError),
        ({"name": 3}, TypeError),
        ({"initializer": 3}, TypeError),
        ({"finalizer": 3}, TypeError),
        ({"max_tasks_per_worker": 0}, ValueError),
        ({"max_tasks_per_worker": "3"}, TypeError),
        ({"max_pending": 0}, ValueError),
        ({"idle_timeout": -1}, ValueError),
        ({"task_timeout": -1}, ValueError),
        ({"task_timeout": float("nan")}, ValueError),
        ({"initializer": print, "initargs": (threading.Lock(),)}, SendError),
        ({"speed": 3}, TypeError),
    ],
)
def test_bad_options(options, error):
    """Bad options are refused when the pool is made."""
    with pytest.raises(error):
        IsolatePool(**options)


def test_options_of_run(pool):
    """`run` says what it does not know, and checks what it does."""
    with pytest.raises(TypeError, match=r"no option 'x'.*functools\.partial"):
        pool.run(square, 1, x=2)
    for options in ({"timeout": -1}, {"retries": -1}, {"retries": 1.5}):
        with pytest.raises(ValueError, match="must be"):
            pool.run(square, 1, **options)
    assert pool.run(square, 3, timeout=LONG, retries=1).result(LONG) == 9


# -- shutting down -----------------------------------------------------------------------------------------------------


@pytest.mark.dart("package/load_balancer_test")
def test_submit_after_shutdown():
    """A pool that was shut down takes no more work; what it had is done."""
    pool = IsolatePool(1)
    futures = [pool.submit(square, x) for x in range(50)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == [x * x for x in range(50)]
    for use in (lambda: pool.submit(square, 1), lambda: pool.map(square, [1]), lambda: pool.run(square, 1)):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            use()
    pool.shutdown()


@pytest.mark.dart("package/load_balancer_test")
def test_shutdown_of_a_pool_that_did_nothing():
    """A pool without workers is shut down at once."""
    pool = IsolatePool(3)
    pool.shutdown()
    assert pool.statistics().workers == 0


def test_shutdown_without_waiting():
    """`shutdown(wait=False)` returns at once; what was submitted is done nevertheless."""
    pool = IsolatePool(1)
    with ReceivePort() as port:
        first, second = pool.submit(answer, port.send_port), pool.submit(square, 3)
        peer = port.receive(LONG)
        pool.shutdown(wait=False)
        peer.send("x")
        assert first.result(LONG) == "x"
        assert second.result(LONG) == 9
    pool.shutdown()


def test_shutdown_that_cancels():
    """`cancel_futures` cancels what has not begun, and only that."""
    pool = IsolatePool(1)
    with ReceivePort() as port:
        first, *others = [pool.submit(answer, port.send_port) for _ in range(10)]
        results = pool.map(square, range(100))
        peer = port.receive(LONG)
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in others)
        with pytest.raises(concurrent.futures.CancelledError):
            next(results)
        peer.send("x")
        assert first.result(LONG) == "x"
    pool.shutdown()


def test_a_pool_that_is_forgotten():
    """A forgotten pool does what it was given, and ends."""
    pool = IsolatePool(2)
    futures = [pool.submit(square, x) for x in range(20)]
    results = pool.map(square, range(100))
    crew = pool._crew
    del pool
    gc.collect()
    assert [future.result(LONG) for future in futures] == [x * x for x in range(20)]
    assert list(results) == [x * x for x in range(100)]
    crew.join()
    assert crew.is_over


def test_the_end_of_the_program_waits(script):
    """The program ends when the work is done, and says nothing."""
    program = script("""
        import time
        from subiso import IsolatePool

        def work(text):
            time.sleep(0.3)
            print(text + "\\n", end="", flush=True)

        pool = IsolatePool(2)
        pool.submit(work, "apple")
        IsolatePool(2).submit(work, "pear")
    """)
    assert (sorted(program.out.split()), program.err, program.returncode) == (["apple", "pear"], "", 0)


def test_submitting_at_exit(script):
    """When the program is ending, nothing can be submitted."""
    program = script("""
        import atexit
        from subiso import IsolatePool

        @atexit.register
        def last():
            try:
                pool.submit(id, None)
            except RuntimeError as error:
                print(error)

        pool = IsolatePool(2)
        pool.submit(id, 42).result()
    """)
    assert (program.out, program.err) == ("cannot schedule new futures after shutdown\n", "")


def test_os_exit_in_a_task(script):
    """A task that calls os._exit ends the process, as it says; isolates are no processes."""
    program = script("""
        import os
        from subiso import IsolatePool

        IsolatePool(1).submit(os._exit, 7).result()
    """)
    assert program.returncode == 7


WAITING = """
    from subiso import IsolatePool, ReceivePort

    def wait(port):
        port.send(None)
        ReceivePort(end_with_senders=False).receive()

    port = ReceivePort()
    pool = IsolatePool(1)
"""


def interrupt(program):
    program.expect("ready")
    program.wait_until_main_thread_sleeps()
    program.send_signal(2)
    return program.finish()


def test_ctrl_c_while_waiting(start):
    """Ctrl-C ends the wait for a result; the pool can still be used."""
    program = interrupt(
        start(
            textwrap.dedent(WAITING)
            + textwrap.dedent("""
            future = pool.submit(wait, port.send_port)
            port.receive()
            try:
                print("ready", flush=True)
                future.result()
            except KeyboardInterrupt:
                print(future.cancel(), pool.submit(abs, -1).result())
        """)
        )
    )
    assert (program.out, program.err) == ("True 1\n", "")


@pytest.mark.parametrize("way", ["with", "without"])
def test_ctrl_c_ends_the_program(start, way):
    """After Ctrl-C a pool does not wait for what it is doing, whether a `with` block is left or the program ends."""
    work = "future = pool.submit(wait, port.send_port); port.receive(); print('ready', flush=True); future.result()"
    block = f"with pool: {work}" if way == "with" else work
    program = interrupt(start(textwrap.dedent(WAITING) + block))
    assert program.err.splitlines()[-1] == "KeyboardInterrupt"
    # 1 where an interpreter was just being made: CPython keeps one note of the interrupt for all of them.
    assert program.returncode in (130, -2, 1), program.err


def test_fork_with_a_live_pool(script):
    """Forking while workers live is refused; a pool is of no use in the child of a fork before."""
    program = script("""
        import os
        from subiso import IsolatePool

        pool = IsolatePool(1)
        child = os.fork()
        if not child:
            try:
                pool.submit(abs, -1)
            except RuntimeError as error:
                print("child:", error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        with pool:
            pool.submit(abs, -1).result()
            try:
                os.fork()
            except RuntimeError as error:
                print("parent:", error)
    """)
    child, parent = program.out.splitlines()
    assert "make another one here" in child
    assert "isolates live (pool-1-1)" in parent
    assert program.err == ""


# -- cancelling and time-outs ------------------------------------------------------------------------------------------


def test_cancelling_before_during_and_after():
    """`cancel` works on what waits and on what runs, which it stops; not on what is done."""
    with IsolatePool(1) as pool, ReceivePort() as port:
        running, queued = pool.submit(wait, port.send_port), pool.submit(square, 3)
        assert port.receive(LONG) == "waiting"
        assert queued.cancel()
        assert queued.cancelled()
        assert running.running()
        assert running.cancel()
        assert running.cancel()
        assert port.receive(LONG) == "unwound"
        for future in (running, queued):
            with pytest.raises(concurrent.futures.CancelledError):
                future.result(LONG)
        after = pool.submit(square, 4)
        assert after.result(LONG) == 16
        assert not after.cancel()
        assert pool.submit(who).result(LONG) == f"{pool.name}-2"  # in place of the one that was killed


def test_a_time_out():
    """A task that takes too long is stopped, and its future says so; the pool goes on."""
    with IsolatePool(1, task_timeout=0.5) as pool, ReceivePort() as port:
        future = pool.submit(wait, port.send_port)
        with pytest.raises(IsolateTimeoutError, match=r"wait took longer than 0\.5 seconds"):
            future.result(LONG)
        assert [port.receive(LONG), port.receive(LONG)] == ["waiting", "unwound"]
        assert pool.submit(square, 3).result(LONG) == 9


def test_a_time_out_of_one_call(pool):
    """A call may have a time-out of its own; waiting for its turn does not count."""
    with ReceivePort() as port:
        slow = [pool.submit(answer, port.send_port) for _ in range(2)]
        limited = pool.run(wait, port.send_port, timeout=0.5)
        for peer in [port.receive(LONG), port.receive(LONG)]:
            assert not limited.running()
            peer.send(1)
        assert [future.result(LONG) for future in slow] == [1, 1]
        with pytest.raises(IsolateTimeoutError):
            limited.result(LONG)
        assert [port.receive(LONG), port.receive(LONG)] == ["waiting", "unwound"]


def test_time_outs_of_zero(pool):
    """No time at all: the task is not even begun; waiting for a result is over at once."""
    with ReceivePort() as port:
        with pytest.raises(IsolateTimeoutError, match="no time at all"):
            pool.run(wait, port.send_port, timeout=0).result(LONG)
        future = pool.submit(answer, port.send_port)
        with pytest.raises(TimeoutError):
            future.result(0)
        assert not future.done()
        port.receive(LONG).send("x")
        assert future.result(LONG) == "x"
    with IsolatePool(1, task_timeout=0) as impatient:
        with pytest.raises(IsolateTimeoutError):
            impatient.submit(square, 1).result(LONG)


@pytest.mark.anyio
async def test_awaiting(pool):
    """Futures can be awaited on asyncio and trio."""
    assert await pool.submit(square, 3) == 9
    with pytest.raises(KeyError):
        await pool.submit(fail, KeyError(1))


@pytest.mark.anyio
async def test_a_cancelled_scope_stops_the_work(pool):
    """Cancelling the task that awaits a future stops the work."""
    with ReceivePort() as port:
        with anyio.move_on_after(LONG) as scope:
            async with anyio.create_task_group() as tasks:

                async def work():
                    await pool.submit(wait, port.send_port)

                tasks.start_soon(work)
                assert await port.areceive() == "waiting"
                tasks.cancel_scope.cancel()
        assert not scope.cancelled_caught
        assert await port.areceive() == "unwound"
        assert await pool.submit(square, 3) == 9


def test_wait_for_stops_the_work(pool):
    """asyncio.wait_for frees the core."""

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.submit(wait, port.send_port), 1)
        assert [await port.areceive(), await port.areceive()] == ["waiting", "unwound"]

    with ReceivePort() as port:
        asyncio.run(main())


def test_run_in_executor(pool):
    """asyncio's run_in_executor takes the pool as it stands, and a cancelled task stops the work."""

    async def main():
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, square, 3) == 9
        future = loop.run_in_executor(pool, wait, port.send_port)
        assert await port.areceive() == "waiting"
        future.cancel()
        assert await port.areceive() == "unwound"

    with ReceivePort() as port:
        asyncio.run(main())


@pytest.mark.anyio
async def test_async_with():
    """`async with` shuts the pool down without blocking the loop."""
    async with IsolatePool(1) as pool:
        futures = [pool.submit(square, x) for x in range(10)]
    assert [await future for future in futures] == [x * x for x in range(10)]
    assert pool.statistics().workers == 0


# -- workers that end --------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced(pool):
    """The task that its worker died of fails with the reason; the others are done."""
    futures = [pool.submit(die) if x == 5 else pool.submit(square, x) for x in range(20)]
    with pytest.raises(IsolateKilledError, match=rf"{pool.name}-\d was killed, or has ended, while it ran die"):
        futures.pop(5).result(LONG)
    assert [future.result(LONG) for future in futures] == [x * x for x in range(20) if x != 5]
    assert pool.statistics().lost == 1


def test_tasks_are_not_run_twice_unless_asked(pool):
    """A task whose worker dies is run again as often as `retries` says, and no more."""
    with ReceivePort(end_with_senders=False) as port:

        def die_loudly(port):
            port.send("ran")
            die()

        with pytest.raises(IsolateKilledError):
            pool.run(die_loudly, port.send_port, retries=2).result(LONG)
        with pytest.raises(IsolateKilledError):
            pool.submit(die_loudly, port.send_port).result(LONG)
        assert [port.receive(LONG) for _ in range(4)] == ["ran"] * 4

        def die_at_first(port):
            with ReceivePort(end_with_senders=False) as mine:
                port.send(mine.send_port)
                if mine.receive():
                    die()
            return "alive"

        future = pool.run(die_at_first, port.send_port, retries=1)
        port.receive(LONG).send(True)
        port.receive(LONG).send(False)
        assert future.result(LONG) == "alive"


def test_errors_are_no_reason_to_retry(pool):
    """What a task raises itself is its outcome, however many retries there are."""
    with ReceivePort() as port:

        def raise_loudly(port):
            port.send("ran")
            raise KeyError(1)

        with pytest.raises(KeyError):
            pool.run(raise_loudly, port.send_port, retries=5).result(LONG)
        assert port.receive(LONG) == "ran"
        assert pool.submit(square, 2).result(LONG) == 4
        assert not port._inbox.messages


def test_workers_are_replaced_after_so_many_tasks():
    """`max_tasks_per_worker` bounds what one worker does, in maps too."""
    with IsolatePool(1, max_tasks_per_worker=3) as pool:
        names = [pool.submit(who).result(LONG) for _ in range(7)]
        assert [names.count(name) for name in dict.fromkeys(names)] == [3, 3, 1]
    with IsolatePool(1, max_tasks_per_worker=5) as pool:
        names = list(pool.map(lambda _: who(), range(12)))
        assert max(names.count(name) for name in set(names)) <= 5


def test_idle_workers_end():
    """After `idle_timeout`, a worker that has nothing to do ends; the next task starts another one."""
    with IsolatePool(2, idle_timeout=0.1) as pool:
        assert pool.submit(square, 3).result(LONG) == 9
        changed = threading.Event()
        deadline = time.monotonic() + LONG
        while pool.statistics().workers and time.monotonic() < deadline:
            changed.wait(0.01)
        assert pool.statistics().workers == 0
        assert pool.submit(square, 3).result(LONG) == 9
        assert pool.statistics().lost == 0


def test_resizing():
    """A pool can be made larger and smaller while it works."""
    with IsolatePool(1) as pool, ReceivePort() as port:
        futures = [pool.submit(answer, port.send_port) for _ in range(6)]
        peers = [port.receive(LONG)]
        pool.resize(3)
        peers += [port.receive(LONG), port.receive(LONG)]
        assert pool.statistics().running == 3
        pool.resize(1)
        assert pool._max_workers == 1
        for peer in peers:
            peer.send("x")
        for _ in range(3):
            peer = port.receive(LONG)
            assert pool.statistics().running == 1
            peer.send("y")
        assert [future.result(LONG) for future in futures] == ["x"] * 3 + ["y"] * 3


# -- the workers' state ------------------------------------------------------------------------------------------------


def make_state(port, value):
    port.send("made")
    return [value]


def test_initializer_state_and_finalizer():
    """The initializer's result is the state of each worker; the finalizer runs when the worker ends."""
    with ReceivePort() as port:
        sender = port.send_port

        def use():
            worker_state().append(1)
            return worker_state()

        def finalize():
            sender.send(("end", worker_state()))

        with IsolatePool(1, initializer=make_state, initargs=(sender, 7), finalizer=finalize) as pool:
            assert pool.submit(use).result(LONG) == [7, 1]
            assert pool.submit(use).result(LONG) == [7, 1, 1]
        assert [port.receive(LONG), port.receive(LONG)] == ["made", ("end", [7, 1, 1])]


def test_a_state_without_initializer(pool):
    """Without an initializer, or if it returns None, tasks share a dict."""

    def count():
        worker_state()["n"] = worker_state().get("n", 0) + 1
        return worker_state()["n"]

    with IsolatePool(1) as pool:
        assert [pool.submit(count).result(LONG) for _ in range(3)] == [1, 2, 3]
    with IsolatePool(1, initializer=print) as pool:
        assert pool.submit(count).result(LONG) == 1
    with pytest.raises(RuntimeError, match="only the tasks of an IsolatePool"):
        worker_state()


def test_an_initializer_that_raises(caplog):
    """The pool is broken, and says why, in the futures, to who submits, and in the log."""

    def initialize(go):
        import os

        os.read(go, 1)
        raise ValueError("no model")

    go, tell = os.pipe()
    pool = IsolatePool(2, initializer=initialize, initargs=(go,))
    futures = [pool.submit(square, x) for x in range(5)]
    results = pool.map(square, range(5))
    os.write(tell, b"go")
    for future in futures:
        with pytest.raises(BrokenIsolatePool, match=r"initializer of .* failed: ValueError: no model") as caught:
            future.result(LONG)
        assert isinstance(caught.value, concurrent.futures.BrokenExecutor)
        assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(BrokenIsolatePool):
        next(results)
    with pytest.raises(BrokenIsolatePool, match="no model"):
        pool.submit(square, 1)
    assert pool._broken
    pool.shutdown()
    os.close(go)
    os.close(tell)
    assert "ValueError: no model" in caplog.text


def test_an_initializer_that_ends_its_isolate():
    """A worker that ends before it has begun breaks the pool, which does not hang."""
    with IsolatePool(1, initializer=die) as pool:
        with pytest.raises(BrokenIsolatePool, match=r"no worker .* could be started"):
            pool.submit(square, 1).result(LONG)


# -- backpressure ------------------------------------------------------------------------------------------------------


def test_a_bounded_number_of_tasks():
    """With `max_pending`, `submit` waits while so many tasks are unfinished."""
    with IsolatePool(1, max_pending=2) as pool, ReceivePort() as port:
        first, _ = pool.submit(answer, port.send_port), pool.submit(square, 2)
        third = []
        thread = threading.Thread(target=lambda: third.append(pool.submit(square, 3)))
        thread.start()
        peer = port.receive(LONG)
        assert pool._crew.unfinished == 2
        assert third == []
        peer.send("x")
        thread.join(LONG)
        assert first.result(LONG) == "x"
        assert third[0].result(LONG) == 9


@pytest.mark.anyio
async def test_asubmit():
    """`asubmit` waits until not too many tasks are unfinished, and gives the future."""
    async with IsolatePool(2, max_pending=4) as pool, ReceivePort() as port:
        futures = [await pool.asubmit(wait, port.send_port) for _ in range(4)]
        with anyio.move_on_after(0.05) as scope:
            await pool.asubmit(square, 5)
        assert scope.cancelled_caught
        for future in futures:
            future.cancel()
        most, futures = 0, []
        for number in range(50):
            futures.append(await pool.asubmit(square, number))
            most = max(most, pool._crew.unfinished)
        assert [await future for future in futures] == [x * x for x in range(50)]
    assert most <= 4
    async with IsolatePool(1) as pool:
        assert await (await pool.asubmit(capture, 1, key=2)) == ((1,), {"key": 2})
    with pytest.raises(RuntimeError, match="after shutdown"):
        await pool.asubmit(square, 1)


# -- pools in isolates -------------------------------------------------------------------------------------------------


def nested(n):
    with IsolatePool(2) as pool:
        return sum(pool.map(square, range(n)))


def test_tasks_may_start_isolates_and_pools(pool):
    """A task may run isolates, and make pools of its own."""
    assert pool.submit(lambda: Isolate.run(square, 3).result()).result(LONG) == 9
    assert [pool.submit(nested, 10).result(LONG) for _ in range(3)] == [285] * 3


def test_a_task_cannot_use_its_own_pool(pool):
    """A pool cannot be sent, so that no task can wait for a task of its own pool."""
    with pytest.raises(SendError, match="IsolatePool objects cannot be sent"):
        pool.submit(lambda: pool.submit(square, 3).result())


# -- insight -----------------------------------------------------------------------------------------------------------


def test_statistics(pool):
    """The statistics count what has been done, and cannot be changed."""
    for x in range(10):
        pool.submit(square, x).result(LONG)
    assert list(pool.map(square, range(100))) == [x * x for x in range(100)]
    with pytest.raises(KeyError):
        pool.submit(fail, KeyError()).result(LONG)
    with ReceivePort() as port:
        blocked = [pool.submit(wait, port.send_port) for _ in range(3)]
        assert [port.receive(LONG), port.receive(LONG)] == ["waiting"] * 2
        now = pool.statistics()
        assert (now.running, now.queued, now.workers) == (2, 1, 2)
        for future in blocked:
            future.cancel()
    now = pool.statistics()
    assert (now.done, now.failed, now.cancelled) == (110, 1, 3)
    for durations in (now.startup, now.waiting, now.running_time):
        assert 0 <= durations.p50 <= durations.p99 <= durations.longest
        assert durations.count
        assert durations.mean >= 0
    assert now.memory is None or now.memory > 1_000_000
    with pytest.raises(AttributeError):
        now.done = 3


def stand_here(port):
    port.send("here")
    while True:
        pass


def die_once(path):
    if os.path.exists(path):
        os.remove(path)
        Isolate.current().kill()
    return "done"


def test_a_task_that_an_idle_worker_takes_at_once(pool, tmp_path):
    """It is running from then on, and is done again where that is allowed and its worker is killed."""
    assert pool.submit(int).result(LONG) == 0  # now there is an idle worker
    with ReceivePort() as port:
        future = pool.submit(stand_here, port.send_port)
        assert port.receive(LONG) == "here"
        assert future.running()
        future.cancel()
    assert pool.submit(int).result(LONG) == 0
    path = tmp_path / "once"
    path.touch()
    assert pool.run(die_once, str(path), retries=1).result(LONG) == "done"


def test_dump_stacks(pool):
    """The stacks say where each worker stands."""
    assert pool.dump_stacks() == ""
    with ReceivePort() as port:
        future = pool.submit(stand_here, port.send_port)
        assert port.receive(LONG) == "here"
        text = pool.dump_stacks(LONG)
        assert f"{pool.name}-1, running stand_here:" in text
        assert "in stand_here" in text
        assert "workers.py" not in text
        future.cancel()
    with pytest.raises(ValueError, match="timeout"):
        pool.dump_stacks(-1)


def backtrack(port):
    port.send("here")
    re.match("(a+)+$", "a" * 23 + "b")  # a second or so in C code that keeps its GIL


def test_stacks_of_workers_in_c_code(pool):
    """A worker that answers nothing, because C code keeps its GIL, is seen where it stands all the same."""
    with ReceivePort() as port:
        future = pool.submit(backtrack, port.send_port)
        assert port.receive(LONG) == "here"
        assert "in backtrack" in pool.dump_stacks(LONG)
        future.cancel()


def log(level, *args):
    logging.getLogger("app.worker").log(level, *args, extra={"job": 3, "lock": threading.Lock()})


def test_log_records(pool, caplog):
    """Log records of tasks are handled here, with the isolate's name, as far as the level allows."""
    pool.submit(log, logging.INFO, "too quiet").result(LONG)
    pool.submit(log, logging.WARNING, "%s is %d", "answer", 42).result(LONG)

    def log_an_error():
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logging.getLogger("app").exception("oh")

    pool.submit(log_an_error).result(LONG)
    pool.shutdown()
    first, second = caplog.records
    assert (first.getMessage(), first.isolate, first.name) == ("answer is 42", f"{pool.name}-1", "app.worker")
    assert (first.threadName, first.job, first.funcName) == (f"{pool.name}-1", 3, "log")
    assert "ZeroDivisionError" in second.exc_text


def test_log_levels(caplog):
    """Workers log what the root logger lets through when they are started."""
    with caplog.at_level(logging.DEBUG), IsolatePool(1) as pool:
        pool.submit(log, logging.DEBUG, "fine").result(LONG)
    assert [record.getMessage() for record in caplog.records if record.name == "app.worker"] == ["fine"]


def test_progress(pool):
    """`progress` yields what it is given, and shows a bar and the workers."""
    from rich.console import Console

    from subiso import progress

    assert list(pool.progress(pool.map(square, range(10)), "Squaring")) == [x * x for x in range(10)]
    console = Console(record=True, width=100, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    assert list(progress.track(pool, itertools.repeat(1, 3), "Ones", None, console)) == [1, 1, 1]
    console.file.close()
    text = console.export_text()
    assert "Ones" in text
    assert "3/3" in text
    assert f"{pool.name}-1" in text


# -- for long ----------------------------------------------------------------------------------------------------------


def misbehave(kind, number):
    """Do what `kind` says, after some work of random length."""
    sum(range(random.Random(number).randrange(2000)))
    if kind == "raise":
        raise KeyError(number)
    if kind == "die":
        die()
    if kind in ("hang", "cancel"):
        while True:
            pass
    if kind == "sleep":
        time.sleep(0.001)
    return number


def check_chaos(count, seed):
    """Run tasks that end in all ways; check that each ends once, in the way that it must."""
    chance = random.Random(seed)
    kinds = chance.choices(["ok", "sleep", "raise", "die", "hang", "cancel"], [80, 10, 6, 2, 1, 1], k=count)
    ended = collections.Counter()
    futures = []
    with IsolatePool(4, max_tasks_per_worker=200) as pool:
        for number, kind in enumerate(kinds):
            timeout = 0.3 if kind == "hang" else None
            future = pool.run(misbehave, kind, number, timeout=timeout)
            future.add_done_callback(lambda _, number=number: ended.update([number]))
            futures.append(future)
            if kind == "cancel":
                if chance.random() < 0.5:
                    future.cancel()
                else:
                    threading.Timer(chance.random() / 10, future.cancel).start()
        for number, (kind, future) in enumerate(zip(kinds, futures, strict=True)):
            error = {"raise": KeyError, "die": IsolateKilledError, "hang": IsolateTimeoutError}.get(kind)
            if kind == "cancel":
                error = concurrent.futures.CancelledError
            if error is None:
                assert future.result(60) == number
            else:
                with pytest.raises(error):
                    future.result(60)
    now = pool.statistics()  # a future's outcome may be known before the pool has counted it
    assert now.done == kinds.count("ok") + kinds.count("sleep")
    assert now.failed == kinds.count("raise") + kinds.count("die") + kinds.count("hang")
    assert now.cancelled == kinds.count("cancel")
    assert all(ended[number] == 1 for number in range(count))


def test_tasks_end_once_and_rightly():
    """Among kills, time-outs, cancels and errors each future ends exactly once, with the right outcome."""
    check_chaos(150, seed=1)


@pytest.mark.stress
def test_ten_thousand_tasks_end_once_and_rightly():
    """The same with ten thousand tasks; nothing is left of them."""
    check_chaos(500, seed=2)
    descriptors = len(os.listdir("/proc/self/fd"))
    check_chaos(10_000, seed=3)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 16
