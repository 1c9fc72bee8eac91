"""Waiting in event loops, on asyncio and trio: ports, futures, joins, and what cancelling does."""

import asyncio
import threading
from time import monotonic

import anyio
import anyio.lowlevel
import pytest

from subiso import (
    Isolate,
    IsolateKilledError,
    IsolateTimeoutError,
    MessageTypeError,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    PortFull,
    ReceivePort,
    aselect,
)
from subiso._kernel import attendant as attendants
from subiso._kernel import node as nodes

LONG = 20  # seconds: the bound of a wait that should be over at once

pytestmark = pytest.mark.anyio


def count(port, n):
    for i in range(n):
        port.send(i)


def square(x):
    return x * x


def fail(error):
    raise error


def wait(port):
    """Say so, and wait for a message that does not come; say when unwound."""
    try:
        port.send("waiting")
        ReceivePort(end_with_senders=False).receive()
    finally:
        port.send("unwound")


def wait_for_nothing():
    ReceivePort(end_with_senders=False).receive()


def echo(port):
    with ReceivePort(end_with_senders=False) as mine:
        port.send(mine.send_port)
        while (message := mine.receive()) is not None:
            port.send(message)


# -- ports -------------------------------------------------------------------------------------------------------------


async def test_messages_arrive():
    """`areceive` and `async for` take messages in order; the loop ends with the senders."""
    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            Isolate.spawn(count, port.send_port, 500)
            assert await port.areceive() == 0
            assert [message async for message in port] == list(range(1, 500))
            with pytest.raises(NoSendersError):
                await port.areceive()
        with pytest.raises(PortClosedError):
            await port.areceive()
        assert [message async for message in port] == []


async def test_there_and_back():
    """Messages go to and fro while the loop runs other tasks."""
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(LONG):
        async with ReceivePort() as port, anyio.create_task_group() as group:
            Isolate.spawn(echo, port.send_port)
            theirs = await port.areceive()
            group.start_soon(tick)
            for i in range(200):
                theirs.send(i)
                assert await port.areceive() == i
            theirs.send(None)
            group.cancel_scope.cancel()
    assert ticks


async def test_a_wrong_type():
    """A typed port raises MessageTypeError in `async for`; iterating again gives the next message."""
    with anyio.fail_after(LONG):
        async with ReceivePort(int) as port:
            for message in (1, "two", 3):
                port.send_port.send(message)
            assert await port.areceive() == 1
            with pytest.raises(MessageTypeError):
                await anext(aiter(port))
            assert await port.areceive() == 3


async def test_several_tasks_share_a_port():
    """Several tasks may wait for one port; each message goes to one of them."""
    received = []

    async def take(port, n):
        for _ in range(n):
            received.append(await port.areceive())

    with anyio.fail_after(LONG):
        async with ReceivePort() as port, anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(take, port, 40)
            Isolate.spawn(count, port.send_port, 200)
    assert sorted(received) == list(range(200))


async def test_tasks_wait_for_ports_of_their_own():
    """Each of many waiting tasks is woken by the message for its own port."""
    received = {}

    async def take(i, port):
        async with port:
            received[i] = await port.areceive()

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as group:
            ports = [ReceivePort() for _ in range(10)]
            for i, port in enumerate(ports):
                group.start_soon(take, i, port)
            for port in reversed(ports):
                Isolate.spawn(count, port.send_port, 1)
    assert received == dict.fromkeys(range(10), 0)


async def test_cancelling_a_receiver_loses_nothing():
    """A message that comes after a waiting task was cancelled goes to the next one."""
    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            for i in range(20):
                async with anyio.create_task_group() as group:
                    group.start_soon(port.areceive)
                    await anyio.wait_all_tasks_blocked()
                    group.cancel_scope.cancel()
                port.send_port.send(i)
                assert await port.areceive() == i


async def test_closing_wakes_a_receiver():
    """A task that waits for a port's message gets PortClosedError when the port is closed."""
    outcomes = []

    async def take(port):
        try:
            await port.areceive()
        except PortClosedError:
            outcomes.append("closed")

    with anyio.fail_after(LONG):
        port = ReceivePort()
        async with anyio.create_task_group() as group:
            group.start_soon(take, port)
            await anyio.wait_all_tasks_blocked()
            port.close()
    assert outcomes == ["closed"]


async def test_a_thread_and_a_task_wait_at_once():
    """A blocked thread and an event loop wait side by side; each gets its own message."""
    outcome = []
    with anyio.fail_after(LONG):
        async with ReceivePort() as one, ReceivePort() as other:
            thread = threading.Thread(target=lambda: outcome.append(other.receive(LONG)))
            thread.start()
            for _ in range(20):
                Isolate.spawn(count, one.send_port, 1)
                assert [message async for message in one] == [0]
            Isolate.spawn(count, other.send_port, 1)
            thread.join(LONG)
            assert outcome == [0]


async def test_asend_waits_for_room():
    """`asend` waits while a bounded port is full, and goes on when there is room."""
    sent = []

    async def send(port):
        for i in range(10):
            await port.asend(i)
            sent.append(i)

    with anyio.fail_after(LONG):
        async with ReceivePort(maxsize=2) as port, anyio.create_task_group() as group:
            group.start_soon(send, port.send_port)
            await anyio.wait_all_tasks_blocked()
            assert sent == [0, 1]
            with pytest.raises(PortFull):
                port.send_port.send_nowait("too much")
            assert [await port.areceive() for _ in range(10)] == list(range(10))


async def test_asend_into_a_port_that_is_closed():
    """A task that is blocked in `asend` gets PortClosedError when the port is closed, as does one that comes later."""
    outcomes = []

    async def send(port):
        try:
            await port.asend("blocked")
        except PortClosedError:
            outcomes.append("closed")

    with anyio.fail_after(LONG):
        port = ReceivePort(maxsize=1)
        await port.send_port.asend("fits")
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(send, port.send_port)
            await anyio.wait_all_tasks_blocked()
            port.close()
        await send(port.send_port)
    assert outcomes == ["closed"] * 4


async def test_cancelling_a_blocked_asend():
    """A cancelled `asend` sends nothing, and takes no room."""
    with anyio.fail_after(LONG):
        async with ReceivePort(maxsize=1) as port:
            port.send_port.send(1)
            async with anyio.create_task_group() as group:
                group.start_soon(port.send_port.asend, 2)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            assert port.receive(0) == 1
            port.send_port.send_nowait(3)
            assert await port.areceive() == 3


async def test_asend_is_woken_by_an_isolate():
    """`asend` into a bounded port of an isolate goes on as that isolate receives."""

    def own(out):
        with ReceivePort(int, maxsize=1, end_with_senders=False) as port:
            out.send(port.send_port)
            out.send([port.receive() for _ in range(50)])

    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            Isolate.spawn(own, port.send_port)
            theirs = await port.areceive()
            for i in range(50):
                await theirs.asend(i)
            assert await port.areceive() == list(range(50))


async def test_aselect():
    """`aselect` returns the port that has a message, or has come to its end."""
    with anyio.fail_after(LONG):
        ports = {ReceivePort(): [] for _ in range(3)}
        for i, port in enumerate(ports):
            Isolate.spawn(count, port.send_port, 5 * (i + 1))
        left = list(ports)
        while left:
            port = await aselect(*left)
            try:
                ports[port].append(port.receive_nowait())
            except NoSendersError:
                left.remove(port)
                port.close()
    assert list(ports.values()) == [list(range(5)), list(range(10)), list(range(15))]


async def test_a_timeout_of_the_loop():
    """The event loop's own time-outs end a wait."""
    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            with anyio.move_on_after(0.01) as scope:
                await port.areceive()
            assert scope.cancelled_caught
            with pytest.raises(PortEmpty):
                port.receive_nowait()


# -- futures and joins -------------------------------------------------------------------------------------------------


async def test_awaiting_a_result():
    """A future can be awaited, again and again, also after its end."""
    with anyio.fail_after(LONG):
        future = Isolate.run(square, 3)
        assert [await future, await future] == [9, 9]
        with pytest.raises(ValueError, match="bad"):
            await Isolate.run(fail, ValueError("bad"))


async def test_awaiting_many_results():
    """Many tasks can await many isolates at once."""
    results = {}

    async def run(x):
        results[x] = await Isolate.run(square, x)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as group:
            for x in range(10):
                group.start_soon(run, x)
    assert results == {x: x * x for x in range(10)}


async def test_several_tasks_await_one_result():
    """Several tasks may await one future."""
    results = []

    async def take(future):
        results.append(await future)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as group:
            future = Isolate.run(square, 4)
            for _ in range(3):
                group.start_soon(take, future)
    assert results == [16] * 3


async def test_awaiting_what_is_killed():
    """Awaiting work that somebody kills raises IsolateKilledError, never a cancellation."""

    def tell(port):
        port.send(Isolate.current())
        ReceivePort(end_with_senders=False).receive()

    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            future = Isolate.run(tell, port.send_port)
            (await port.areceive()).kill()
            with pytest.raises(IsolateKilledError):
                await future


async def test_time_limits_of_work_that_is_awaited():
    """The thread that keeps the time and the event loop share a doorbell: neither takes a ring from the other."""
    for _ in range(5):
        with pytest.raises(IsolateTimeoutError):
            await Isolate.run(wait_for_nothing, timeout=0.01)


async def test_cancelling_the_awaiting_task_cancels_the_work():
    """When the task that awaits is cancelled, the work is stopped."""
    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            future = Isolate.run(wait, port.send_port)
            assert await port.areceive() == "waiting"
            with anyio.move_on_after(0.01) as scope:
                await future
            assert scope.cancelled_caught
            assert future.cancelled()
            assert [message async for message in port] == ["unwound"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_wait_for():
    """asyncio.wait_for and asyncio.timeout cancel the work that takes too long; gather takes several."""
    async with ReceivePort() as port:
        future = Isolate.run(wait, port.send_port)
        assert await port.areceive() == "waiting"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.01)
        assert future.cancelled()
        assert [message async for message in port] == ["unwound"]
    assert await asyncio.gather(*(Isolate.run(square, x) for x in range(3))) == [0, 1, 4]
    done, _ = await asyncio.wait([asyncio.ensure_future(Isolate.run(square, 3))], timeout=LONG)
    assert done.pop().result() == 9
    assert await asyncio.wrap_future(Isolate.run(square, 5)) == 25


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_awaiting_a_cancelled_future_on_asyncio():
    """Awaiting a future that is cancelled by somebody else raises asyncio's own CancelledError."""
    async with ReceivePort() as port:
        future = Isolate.run(wait, port.send_port)
        assert await port.areceive() == "waiting"
        task = asyncio.ensure_future(future)
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_ajoin():
    """`ajoin` waits until an isolate has ended; several tasks may; it returns at once for one that has."""
    with anyio.fail_after(LONG):
        async with ReceivePort() as port, anyio.create_task_group() as group:
            isolate = Isolate.spawn(wait, port.send_port)
            assert await port.areceive() == "waiting"
            for _ in range(3):
                group.start_soon(isolate.ajoin)
            await anyio.wait_all_tasks_blocked()
            isolate.kill()
        assert not isolate.is_alive
        await isolate.ajoin()


async def test_an_async_with_block_ends_its_isolate():
    """At the end of an `async with` block the isolate is killed, and has ended."""
    with anyio.fail_after(LONG):
        async with ReceivePort() as port:
            async with Isolate.spawn(wait, port.send_port) as isolate:
                assert await port.areceive() == "waiting"
            assert not isolate.is_alive


# -- inside isolates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_coroutine_functions_in_isolates():
    """A coroutine function is run by asyncio inside its isolate, where ports and futures can be awaited too."""

    async def live(out, square):
        import asyncio

        async with ReceivePort(end_with_senders=False) as port:
            out.send(port.send_port)
            results = await asyncio.gather(*(Isolate.run(square, x) for x in range(3)))
            out.send(results)
            return await port.areceive()

    async with ReceivePort() as out:
        future = Isolate.run(live, out.send_port, square)
        port = await out.areceive()
        assert await out.areceive() == [0, 1, 4]
        port.send("enough")
        assert await future == "enough"


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_in_isolates():
    """trio can run inside an isolate, and wait there."""

    def live(out, square):
        import trio

        async def main():
            async with ReceivePort(end_with_senders=False) as port:
                out.send(port.send_port)
                out.send(await Isolate.run(square, 3))
                return await port.areceive()

        return trio.run(main)

    with anyio.fail_after(LONG):
        async with ReceivePort() as out:
            future = Isolate.run(live, out.send_port, square)
            port = await out.areceive()
            assert await out.areceive() == 9
            port.send("enough")
            assert await future == "enough"


def test_no_event_loop():
    """Awaiting outside of an event loop that is known is a RuntimeError that says so."""
    with ReceivePort() as port, pytest.raises(RuntimeError, match="asyncio and trio"):
        port.areceive().send(None)


def test_loops_one_after_another():
    """Each new event loop waits as well as the one before it."""

    async def take():
        with ReceivePort() as port:
            Isolate.spawn(count, port.send_port, 3)
            return [message async for message in port]

    for _ in range(5):
        assert asyncio.run(asyncio.wait_for(take(), LONG)) == [0, 1, 2]


def test_loops_in_several_threads():
    """Event loops in several threads of one program wait side by side."""
    outcomes = []

    async def take():
        with ReceivePort() as port:
            Isolate.spawn(count, port.send_port, 100)
            return [message async for message in port]

    threads = [threading.Thread(target=lambda: outcomes.append(asyncio.run(take()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert outcomes == [list(range(100))] * 4


async def test_rings_meant_for_a_thread():
    """A thread that sleeps is woken by a ring, although an event loop watches the same doorbell."""
    node = nodes.current()
    attendant = attendants.of(node)
    called = []
    with ReceivePort() as port:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(port.areceive)  # so that the loop watches
            with anyio.fail_after(LONG):
                for number in range(300):
                    attendant.call_at(monotonic(), lambda number=number: called.append(number))
                    while len(called) <= number:
                        await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert called == list(range(300))
