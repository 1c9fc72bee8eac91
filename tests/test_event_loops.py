"""Everything that can be awaited, on asyncio, uvloop and trio: cancelled, timed out, killed, and many at once."""

import asyncio
import concurrent.futures
import itertools
import threading

import anyio
import anyio.lowlevel
import pytest
import trio.testing

from subiso import (
    Actor,
    Isolate,
    IsolateKilledError,
    IsolatePool,
    ReceivePort,
    SingleResponseChannel,
    Supervisor,
    aselect,
    asingle_response,
)
from subiso._kernel import loops

LONG = 20  # seconds: the bound of a wait that should be over at once

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyio_backend(request):
    """The loops that these tests run on."""
    if request.param != "uvloop":
        return request.param
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def leaves_no_waiter():
    """Fail the test after which an event loop is still watched for tasks that wait."""
    yield
    assert not any(watch.waiters for watch in loops._watches.values())


def square(x):
    return x * x


def wait(port):
    """Say so, and wait for a message that does not come; say when unwound."""
    try:
        port.send("waiting")
        ReceivePort(end_with_senders=False).receive()
    finally:
        port.send("unwound")


def yield_then_wait(port):
    yield 0
    wait(port)


def count(port, n):
    for i in range(n):
        port.send(i)


class Waiting:
    """An actor."""

    async def wait(self, port):
        try:
            port.send("waiting")
            await asyncio.Event().wait()
        finally:
            port.send("unwound")

    def die(self):
        Isolate.current().kill()
        ReceivePort(end_with_senders=False).receive()


# -- cancelling --------------------------------------------------------------------------------------------------------


async def run(port):
    await Isolate.run(wait, port.send_port)


async def submit(port):
    async with IsolatePool(1) as pool:
        await pool.submit(wait, port.send_port)


async def iterate_over_map(port):
    async with IsolatePool(1) as pool:
        async for _ in pool.map(wait, [port.send_port]):
            pass


async def iterate_over_stream(port):
    async with Isolate.stream(yield_then_wait, port.send_port) as stream:
        async for _ in stream:
            pass


async def call_an_actor(port):
    async with Actor.spawn(Waiting) as actor:
        await actor.call(Waiting.wait, port.send_port)


async def supervise(port):
    async with Supervisor() as supervisor:
        supervisor.add(wait, port.send_port)
        await anyio.sleep_forever()


@pytest.mark.parametrize("work", [run, submit, iterate_over_map, iterate_over_stream, call_an_actor, supervise])
async def test_cancelling_stops_the_work(work):
    """When the task that awaits work is cancelled, the work is stopped, and unwinds."""
    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, port)
                assert await port.areceive() == "waiting"
                tasks.cancel_scope.cancel()
            assert await port.areceive() == "unwound"


async def test_cancelling_waits():
    """Cancelling a task that waits for ports, room, an end or an answer ends the waiting, and leaves nothing behind."""
    with anyio.fail_after(LONG):
        async with (
            ReceivePort(end_with_senders=False) as port,
            ReceivePort(maxsize=1) as full,
            Isolate.spawn(wait, port.send_port) as isolate,
        ):
            assert await port.areceive() == "waiting"
            full.send_port.send(1)

            with SingleResponseChannel() as channel:

                async def await_channel():
                    await channel

                waits = [
                    port.areceive,
                    lambda: aselect(port, ReceivePort(end_with_senders=False)),
                    lambda: full.send_port.asend(2),
                    isolate.ajoin,
                    lambda: asingle_response(lambda _: None),
                    await_channel,
                ]
                for wait_for in waits:
                    async with anyio.create_task_group() as tasks:
                        for _ in range(3):
                            tasks.start_soon(wait_for)
                        await anyio.wait_all_tasks_blocked()
                        tasks.cancel_scope.cancel()
            assert port._inbox.waiters == full._inbox.waiters == []
            assert full.receive(0) == 1


async def test_no_message_is_lost_to_a_cancelled_task():
    """A message that arrives just as its receiver is cancelled is received, or still there for the next one."""
    received = []

    async def take(port):
        received.append(await port.areceive())

    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port:
            for i in range(200):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(take, port)
                    await anyio.wait_all_tasks_blocked()
                    port.send_port.send(i)
                    for _ in range(i % 4):  # it is woken, and about to run, or has run
                        port._node.mailbox.pump()
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                while len(received) <= i:
                    received.append(port.receive(0))
    assert received == list(range(200))


async def test_a_flood_and_receivers_that_come_and_go():
    """Of what an isolate sends nothing is lost or doubled while receivers are cancelled all the time."""
    received = []

    async def take(port):
        while True:
            received.append(await port.areceive())
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(3 * LONG):
        async with ReceivePort(end_with_senders=False) as port:
            Isolate.spawn(count, port.send_port, 5000)
            for turn in itertools.count(1):
                if len(received) == 5000:
                    break
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(take, port)
                    for _ in range(turn % 20):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
    assert sorted(received) == list(range(5000))


async def test_the_next_receiver_is_woken():
    """If one of two receivers is cancelled just when a message comes, one of them gets it, and the other the next."""
    received = []

    async def take(port):
        received.append(await port.areceive())

    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port:
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as first:
                        first.start_soon(take, port)
                        await anyio.wait_all_tasks_blocked()
                        tasks.start_soon(take, port)
                        await anyio.wait_all_tasks_blocked()
                        port.send_port.send("message")
                        port._node.mailbox.pump()  # both have been woken
                        scope.cancel()
                port.send_port.send("next")
            if len(received) == 1:  # the first was cancelled before it could take anything
                received.append(port.receive(0))
    assert received == ["message", "next"]


async def test_room_is_not_lost_to_a_cancelled_sender():
    """Senders that are cancelled while they wait for room take none, and the others get it."""
    with anyio.fail_after(LONG):
        async with ReceivePort(maxsize=2, end_with_senders=False) as port:
            await port.send_port.asend(0)
            await port.send_port.asend(1)
            for i in range(2, 50):
                async with anyio.create_task_group() as tasks:
                    with anyio.CancelScope() as scope:
                        async with anyio.create_task_group() as cancelled:
                            cancelled.start_soon(port.send_port.asend, "lost")
                            await anyio.wait_all_tasks_blocked()
                            scope.cancel()
                    tasks.start_soon(port.send_port.asend, i)
                    await anyio.wait_all_tasks_blocked()
                    assert await port.areceive() == i - 2
            assert [await port.areceive(), await port.areceive()] == [48, 49]


async def test_an_outer_scope():
    """A time-out further out cancels awaited work as well, and a shielded wait is not cancelled."""
    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port:
            with anyio.move_on_after(0.01) as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                    await Isolate.run(wait, port.send_port)
            assert scope.cancelled_caught
            with anyio.move_on_after(0.01) as scope, anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
                assert await Isolate.run(square, 3) == 9


# -- killing -----------------------------------------------------------------------------------------------------------


async def test_killed_work_raises_where_it_is_awaited():
    """Whoever awaits work whose isolate is killed gets an IsolateKilledError, and is not cancelled."""

    def die():
        Isolate.current().kill()
        ReceivePort(end_with_senders=False).receive()

    def yield_then_die():
        yield 0
        Isolate.current().kill()
        ReceivePort(end_with_senders=False).receive()

    with anyio.fail_after(LONG):
        with pytest.raises(IsolateKilledError):
            await Isolate.run(die)
        async with IsolatePool(1) as pool:
            with pytest.raises(IsolateKilledError):
                await pool.submit(die)
            assert await pool.submit(square, 3) == 9
        stream = Isolate.stream(yield_then_die)
        assert await anext(stream) == 0
        with pytest.raises(IsolateKilledError):
            await anext(stream)
        actor = Actor.spawn(Waiting)
        with pytest.raises(IsolateKilledError):
            await actor.call(Waiting.die)
        await actor.ajoin()


async def test_a_supervised_isolate_that_is_killed():
    """A supervisor restarts what is killed while the loop runs, and `async with` ends it all."""
    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port, Supervisor(max_restarts=5) as supervisor:
            child = supervisor.add(wait, port.send_port)
            for _ in range(3):
                assert await port.areceive() == "waiting"
                child.isolate.kill()
                assert await port.areceive() == "unwound"
            assert await port.areceive() == "waiting"


async def test_a_failure_stops_the_others():
    """In a task group, work that fails has the other tasks cancelled, and their work with them."""

    async def fail(port):
        assert await port.areceive() == "waiting"
        await Isolate.run(int, "no number")

    async def work(port):
        await Isolate.run(wait, port)

    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port:
            with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="no number")):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(work, port.send_port)
                    tasks.start_soon(fail, port)
            assert await port.areceive() == "unwound"


# -- many --------------------------------------------------------------------------------------------------------------


async def test_waiting_takes_no_threads():
    """Any number of tasks wait without a thread more."""
    with anyio.fail_after(LONG):
        assert await Isolate.run(square, 3) == 9  # what stays is there now
        async with anyio.create_task_group() as tasks, ReceivePort(end_with_senders=False) as port:
            isolate = Isolate.spawn(wait, port.send_port)
            assert await port.areceive() == "waiting"
            threads = set(threading.enumerate())
            ports = [ReceivePort(end_with_senders=False) for _ in range(100)]
            for one in ports:
                tasks.start_soon(one.areceive)
                tasks.start_soon(isolate.ajoin)
                tasks.start_soon(aselect, one, port)
            await anyio.wait_all_tasks_blocked()
            assert set(threading.enumerate()) == threads
            isolate.kill()
            tasks.cancel_scope.cancel()
        for one in ports:
            assert one._inbox.waiters == []
            one.close()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_checkpoints():
    """On trio, whatever is asynchronous lets others run, and a cancellation in, even if it need not wait."""
    async with IsolatePool(1) as pool, ReceivePort(end_with_senders=False) as port, ReceivePort(maxsize=9) as bounded:
        future = pool.submit(square, 3)
        results = pool.map(square, range(4))
        stream = pool.stream(range, 4)
        with trio.fail_after(LONG):
            assert [await future, await anext(results), await anext(stream)] == [9, 0, 0]
            with trio.testing.assert_checkpoints():
                await port.send_port.asend(1)
            with trio.testing.assert_checkpoints():
                await bounded.send_port.asend(1)
            with trio.testing.assert_checkpoints():
                assert await port.areceive() == 1
            with trio.testing.assert_checkpoints():
                await future
            with trio.testing.assert_checkpoints():
                await anext(results)
            with trio.testing.assert_checkpoints():
                await anext(stream)
            with trio.testing.assert_checkpoints():
                await aselect(bounded)
            with trio.testing.assert_checkpoints():
                future = await pool.asubmit(square, 4)
            with trio.CancelScope() as scope:
                scope.cancel()
                await port.send_port.asend("cancelled")
            assert not port._inbox.messages
        results.close()
        stream.close()


# -- asyncio's own tools -----------------------------------------------------------------------------------------------


@pytest.fixture
def run_loop(request):
    """Run a coroutine function in asyncio's loop."""

    def run(function, *args):
        return asyncio.run(asyncio.wait_for(function(*args), LONG))

    return run


def test_asyncios_timeout(run_loop):
    """`asyncio.timeout` stops the work, and raises TimeoutError."""

    async def main(port):
        future = Isolate.run(wait, port.send_port)
        assert await port.areceive() == "waiting"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await future
        assert future.cancelled()
        assert await port.areceive() == "unwound"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async for _ in port:
                    pass

    with ReceivePort(end_with_senders=False) as port:
        run_loop(main, port)


def test_asyncios_task_group(run_loop):
    """In a TaskGroup, a failure stops the work that the other tasks await."""

    async def work(port):
        await Isolate.run(wait, port.send_port)

    async def main(port):
        with pytest.RaisesGroup(ValueError):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(work(port))
                assert await port.areceive() == "waiting"
                await Isolate.run(int, "no number")
        assert task.cancelled()
        assert await port.areceive() == "unwound"

    with ReceivePort(end_with_senders=False) as port:
        run_loop(main, port)


def test_asyncios_gather(run_loop):
    """`gather` takes futures as they are; what fails is raised, or returned."""

    async def main():
        results = await asyncio.gather(*(Isolate.run(int, x) for x in ("1", "x", "3")), return_exceptions=True)
        assert [results[0], type(results[1]), results[2]] == [1, ValueError, 3]
        with pytest.raises(ValueError, match="invalid literal"):
            await asyncio.gather(Isolate.run(int, "x"))
        futures = [asyncio.ensure_future(Isolate.run(square, x)) for x in range(3)]
        assert sorted([await future for future in asyncio.as_completed(futures)]) == [0, 1, 4]

    run_loop(main)


def test_asyncios_shield(run_loop):
    """What is shielded goes on when the awaiting task is cancelled."""

    def answer(port):
        with ReceivePort(end_with_senders=False) as mine:
            port.send(mine.send_port)
            return mine.receive()

    async def main(port):
        future = Isolate.run(answer, port.send_port)
        theirs = await port.areceive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(future), 0.01)
        assert not future.done()
        theirs.send("enough")
        assert await future == "enough"

    with ReceivePort(end_with_senders=False) as port:
        run_loop(main, port)


def test_asyncios_eager_tasks(run_loop):
    """Tasks that begin before they are scheduled wait as well."""

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        async def work(x):
            return await Isolate.run(square, x)

        with ReceivePort() as port:
            receiving = asyncio.create_task(port.areceive())
            port.send_port.send("message")
            assert await receiving == "message"
        assert await asyncio.gather(*(work(x) for x in range(5))) == [0, 1, 4, 9, 16]

    run_loop(main)


async def test_a_future_that_another_task_has_cancelled(anyio_backend):
    """Whoever awaits a future that is cancelled elsewhere gets the CancelledError that is usual there."""
    kind = concurrent.futures.CancelledError if anyio_backend == "trio" else asyncio.CancelledError
    raised = []

    async def work(future):
        try:
            await future
        except kind:
            raised.append(kind)

    with anyio.fail_after(LONG):
        async with ReceivePort(end_with_senders=False) as port:
            future = Isolate.run(wait, port.send_port)
            assert await port.areceive() == "waiting"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, future)
                await anyio.wait_all_tasks_blocked()
                future.cancel()
    assert raised == [kind]
