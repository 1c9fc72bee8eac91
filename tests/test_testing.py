"""`subiso.testing`: isolates that are run inline, and the check that nothing is left behind."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from contextvars import ContextVar

import pytest

from subiso import (
    Actor,
    BrokenIsolatePool,
    Isolate,
    IsolateGroup,
    IsolatePool,
    IsolateTimeoutError,
    NoSendersError,
    ReceivePort,
    RemoteTraceback,
    SendError,
    SendPort,
    Supervisor,
    compute,
    worker_state,
)
from subiso._kernel import nursery
from subiso.testing import InlineWaitError, inline, no_leaks

LONG = 20  # seconds: the bound of a wait that should be over at once
variable = ContextVar("variable", default="not set")


@pytest.fixture(autouse=True)
def inline_here(request):
    """Run inline what is not about the real thing, and see that no isolate is made for it."""
    if request.node.get_closest_marker("real"):
        yield
        return
    before = lent()
    with inline():
        yield
    assert lent() == before


def lent():
    """Return which isolates the interpreters were lent to last."""
    return {} if nursery._nursery is None else {one.slot: one.number for one in nursery._nursery._berths if one.number}


def where(*args):
    return threading.get_ident(), *args


async def where_async():
    await asyncio.sleep(0)
    return threading.get_ident()


def fail(text):
    raise KeyError(text)


def test_run():
    """The work is done when `run` returns, in the thread that asks for it."""
    future = Isolate.run(where, 1)
    assert future.done()
    assert future.result() == (threading.get_ident(), 1)
    assert Isolate.run(where_async).result() == threading.get_ident()
    assert compute(abs, -1).result() == 1
    assert not future.cancel()


def test_values_are_copied():
    """Arguments and results are other objects, as they would be."""
    box, seen = [1], []

    def keep(value):
        value.append(2)
        return value

    result = Isolate.run(keep, box).result()
    assert (box, result) == ([1], [1, 2])

    def look():
        seen.append(1)
        return seen

    assert Isolate.run(look).result() == [1]  # closures travel by value
    assert seen == []


def test_what_cannot_be_sent():
    """Unsendable arguments and results fail as ever."""
    with pytest.raises(SendError, match=r"args\[0\]: lock objects cannot be sent"):
        Isolate.run(where, threading.Lock())
    with pytest.raises(SendError, match="result"):
        Isolate.run(threading.Lock).result()
    with IsolatePool(1) as pool:
        with pytest.raises(SendError):
            pool.submit(where, threading.Lock())
        with pytest.raises(SendError):
            list(pool.map(where, [threading.Lock()]))


def test_errors():
    """Errors come back as copies of themselves, with a traceback as their cause."""
    future = Isolate.run(fail, "no")
    with pytest.raises(KeyError, match="no") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in fail" in caught.value.__cause__.traceback
    with pytest.raises(TypeError, match="has no option"):
        Isolate.run(abs, -1, key=1)
    with pytest.raises(TypeError, match="missing a required argument"):
        Isolate.run(fail)
    with pytest.raises(IsolateTimeoutError):
        Isolate.run(abs, -1, timeout=0).result()


def test_awaiting():
    """In a coroutine, futures are awaited as ever, also of coroutine functions."""

    async def main():
        async with IsolatePool(1) as pool:
            assert [item async for item in pool.map(abs, [-1, -2])] == [1, 2]
            assert await (await pool.asubmit(abs, -3)) == 3
        return (await Isolate.run(where)), (await Isolate.run(where_async))

    (here,), another = asyncio.run(main())
    assert here == threading.get_ident()
    assert another  # a loop of its own needs a thread while this one's loop stands still


def test_context_is_fresh():
    """Context variables are not set in the work, and what it sets does not come back."""
    token = variable.set("outside")
    assert Isolate.run(change_variable).result() == "not set"
    assert variable.get() == "outside"
    variable.reset(token)


def change_variable():
    before = variable.get()
    variable.set("inside")
    return before


def count(port: SendPort, most: int):
    for number in range(most):
        port.send(number)


def test_spawn():
    """A spawned isolate has ended when `spawn` returns, and its messages wait in the port."""
    with ReceivePort() as port, ReceivePort() as exits:
        with Isolate.spawn(count, port.send_port, 3, name="counter", on_exit=exits.send_port) as isolate:
            assert not isolate.is_alive
            assert isolate.name == "counter"
            assert isolate.join()
        assert list(port) == [0, 1, 2]
        with pytest.raises(NoSendersError):
            port.receive()
        assert exits.receive(LONG) is None


def test_spawn_with_an_error(capsys):
    """An uncaught error goes to the listener, to the group, or to stderr."""
    with ReceivePort() as errors:
        Isolate.spawn(fail, "heard", on_error=errors.send_port)
        text, traceback = errors.receive(LONG)
    assert text == "KeyError: 'heard'"
    assert "in fail" in traceback
    assert capsys.readouterr().err == ""
    Isolate.spawn(fail, "printed", name="lost")
    assert "Uncaught error in isolate 'lost'" in capsys.readouterr().err
    with pytest.raises(ExceptionGroup), IsolateGroup() as group:
        group.spawn(fail, "grouped")


def leave(port):
    try:
        Isolate.exit(port, "last")
    finally:
        port.send("finally")


def test_exit():
    """`Isolate.exit` ends what is run inline, and only that."""
    with ReceivePort() as port:
        Isolate.spawn(leave, port.send_port)
        assert sorted(port) == ["finally", "last"]
        with pytest.raises(RuntimeError, match="main is not ended"):
            Isolate.exit(port.send_port, 1)


def ask(port):
    with ReceivePort() as answers:
        port.send(answers.send_port)
        return answers.receive()


def test_waiting_for_ever():
    """Work that waits for what can only come later raises, and does not hang."""
    with ReceivePort() as port, pytest.raises(InlineWaitError):
        Isolate.spawn(ask, port.send_port)
    with ReceivePort(maxsize=2) as port, pytest.raises(InlineWaitError, match="full"):
        Isolate.spawn(count, port.send_port, 3)
    with pytest.raises(RuntimeError, match="paused"):
        Isolate.spawn(where, paused=True)
    with pytest.raises(RuntimeError, match="supervisors"):
        Supervisor().start()


def make_state():
    return {"calls": 0}


def add_call(*_):
    worker_state()["calls"] += 1
    return worker_state()["calls"]


def test_pool():
    """One worker does the tasks of a pool, in their order, with its state."""
    with IsolatePool(4, initializer=make_state) as pool:
        futures = [pool.submit(add_call) for _ in range(3)]
        assert [future.result() for future in futures] == [1, 2, 3]
        assert list(pool.map(add_call, [0, 0])) == [4, 5]
        assert list(pool.stream(iterate_state)) == [5]
        assert pool.run(pow, 2, 5, timeout=1).result() == 32
        assert pool.submit(int, "11", base=2).result() == 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)
    with pytest.raises(RuntimeError, match="worker state"):
        worker_state()


def iterate_state():
    yield worker_state()["calls"]


def test_pool_whose_initializer_fails():
    """The pool is broken, as it would be."""
    with IsolatePool(1, initializer=fail, initargs=("no model",)) as pool:
        with pytest.raises(BrokenIsolatePool, match="no model"):
            pool.submit(abs, 1).result()
        with pytest.raises(BrokenIsolatePool):
            pool.submit(abs, 1)


def test_map():
    """Sequences are worked through at once, iterators as results are taken; errors come after what precedes them."""
    drawn = []

    def numbers():
        for number in range(1_000_000_000):
            drawn.append(number)
            yield number

    with IsolatePool(1) as pool:
        results = pool.map(abs, numbers())
        assert [next(results) for _ in range(3)] == drawn == [0, 1, 2]
        results = pool.map(lambda number: 1 // number, [1, 0, 1])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == []
        assert list(pool.map(pow, [1, 2], [3, 4])) == [1, 16]
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(abs, [], chunksize=0)


def squares(most):
    for number in range(most):
        yield number * number
    raise KeyError("over")


async def squares_async(most):
    for number in range(most):
        await asyncio.sleep(0)
        yield number * number


def test_streams():
    """Generators run as their items are taken; what they raise comes after them."""
    with Isolate.stream(squares, 10**9) as stream:
        assert [next(stream), next(stream)] == [0, 1]
    assert list(stream) == []
    stream = Isolate.stream(squares, 2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(KeyError, match="over"):
        next(stream)
    assert list(Isolate.stream(squares_async, 3)) == [0, 1, 4]

    async def main():
        return [item async for item in Isolate.stream(squares_async, 3)]

    assert asyncio.run(main()) == [0, 1, 4]
    with pytest.raises(TypeError, match="no generator function"):
        next(Isolate.stream(abs, 1))


class Counter:
    def __init__(self, start):
        if start < 0:
            raise ValueError("too low")
        self.value = start
        self.items = []

    def add(self, number):
        self.value += number
        return self.value

    def keep(self, item):
        self.items.append(item)
        return self.items

    async def add_slowly(self, number):
        await asyncio.sleep(0)
        return self.add(number)


def test_actors():
    """An actor is an object here, and its calls are done at once, with copies."""
    with Actor.spawn(Counter, 1) as counter:
        assert counter.add(2).result() == 3
        assert counter.add_slowly(3).result() == 6
        assert counter.call(Counter.add, 1).result() == 7
        item = []
        assert counter.keep(item).result()[0] is not item
        with pytest.raises(SendError):
            counter.add(threading.Lock())
        with pytest.raises(TypeError):
            counter.add().result()
    with pytest.raises(ValueError, match="too low"):
        Actor.spawn(Counter, -1).add(1).result()


@pytest.mark.real
def test_the_end_of_the_block():
    """After the block, isolates are isolates again; blocks may be nested."""
    with inline():
        with inline():
            pass
        assert Isolate.run(where).result() == (threading.get_ident(),)
    assert Isolate.run(where).result(LONG) != (threading.get_ident(),)
    with IsolatePool(1) as pool:
        assert pool.submit(abs, -1).result(LONG) == 1


# -- leaks -------------------------------------------------------------------------------------------------------------


def wait_for_message(port):
    with ReceivePort() as own:
        port.send(own.send_port)
        own.receive()


@pytest.mark.real
def test_isolates_that_are_left():
    """An isolate that goes on is named."""
    with ReceivePort() as port:
        with pytest.raises(AssertionError, match="isolates left alive: stubborn"), no_leaks(0.1):
            isolate = Isolate.spawn(wait_for_message, port.send_port, name="stubborn")
            answers = port.receive(LONG)
        answers.send(None)
        assert isolate.join(LONG)


@pytest.mark.real
def test_ports_and_threads_that_are_left():
    """Ports that are open, and threads, are told of; what is closed or collected is not."""
    end = threading.Event()
    with pytest.raises(AssertionError, match="ports left open: 1; threads left running: waits"), no_leaks(0.1):
        port = ReceivePort()
        thread = threading.Thread(target=end.wait, name="waits")
        thread.start()
    end.set()
    thread.join()
    port.close()
    with no_leaks():
        ReceivePort()
        Isolate.run(abs, -1).result(LONG)


def run_pytest(tmp_path, code, *options):
    """Run pytest over a test file with the plugin."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "subiso.testing.plugin", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False).stdout


@pytest.mark.real
def test_the_plugin(tmp_path):
    """The fixtures, and the options that use them for every test."""
    code = """
        import threading
        import pytest
        from subiso import Isolate, ReceivePort

        kept = []

        def test_inline(inline_isolates):
            assert Isolate.run(threading.get_ident).result() == threading.get_ident()

        def test_real():
            assert Isolate.run(threading.get_ident).result() != threading.get_ident()

        def test_leak(no_isolates_left):
            kept.append(ReceivePort())

        def test_another():
            kept.append(ReceivePort())
    """
    out = run_pytest(tmp_path, code)
    assert "4 passed, 1 error" in out
    assert "ERROR test_it.py::test_leak - AssertionError: ports left open: 1" in out
    out = run_pytest(tmp_path, code, "--inline-isolates", "--no-isolates-left")
    assert "1 failed, 3 passed, 2 errors" in out
    assert "FAILED test_it.py::test_real" in out
