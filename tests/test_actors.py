"""Actors: objects in isolates of their own."""

import asyncio
import concurrent.futures
import threading

import anyio
import pytest

from subiso import Actor, Isolate, IsolateFuture, IsolateKilledError, ReceivePort, SendError

LONG = 20  # seconds: the bound of a wait that should be over at once


class Counter:
    def __init__(self, start=0, port=None):
        self.value = start
        self.port = port

    def add(self, amount=1):
        self.value += amount
        return self.value

    def fail(self, error):
        raise error

    def where(self):
        return Isolate.current().name

    def lock(self):
        return threading.Lock()

    def wait(self, port):
        """Say so, and wait until a message comes."""
        with ReceivePort(end_with_senders=False) as mine:
            port.send(mine.send_port)
            return mine.receive()

    def name(self):
        return "hidden by the actor's own"

    def _private(self):
        return "private"

    def close(self):
        if self.port is not None:
            self.port.send(("closed", self.value))


class Meeting:
    """Two asynchronous calls that need each other."""

    def __init__(self):
        self.event = asyncio.Event()
        self.log = []

    async def wait(self):
        self.log.append("wait")
        await self.event.wait()
        return self.log

    async def wait_for_cancel(self, port):
        try:
            port.send("waiting")
            await asyncio.Event().wait()
        finally:
            port.send("cancelled")

    def set(self):
        self.log.append("set")
        self.event.set()

    async def close(self):
        await asyncio.sleep(0)


def test_calls_in_order():
    """Methods are called in the isolate, in order, and return futures."""
    with Actor.spawn(Counter, 10) as counter:
        futures = [counter.add(number) for number in range(100)]
        assert all(isinstance(future, IsolateFuture) for future in futures)
        expected, total = [], 10
        for number in range(100):
            total += number
            expected.append(total)
        assert [future.result(LONG) for future in futures] == expected
        assert counter.add(amount=5).result(LONG) == total + 5
        assert counter.where().result(LONG) == counter.name
        assert counter.is_alive
        assert "Actor" in repr(counter)
    assert not counter.is_alive
    assert "ended" in repr(counter)


def test_sending_an_actor_that_has_ended():
    """An actor that has ended before anybody knew its port cannot be sent, and says so."""

    class Unmade:
        def __init__(self):
            raise ValueError("not made")

    actor = Actor.spawn(Unmade)
    assert actor.join(LONG)
    with pytest.raises(SendError, match=r"^args\[0\]: actor .* has ended before it could be sent$"):
        Isolate.run(id, actor)


def test_call_by_the_class_s_function():
    """`call` takes the function from the class, which type checkers understand; it reaches hidden names too."""
    with Actor.spawn(Counter) as counter:
        assert counter.call(Counter.add, 3).result(LONG) == 3
        assert counter.call(Counter.name).result(LONG) == "hidden by the actor's own"
        assert counter._private().result(LONG) == "private"
        with pytest.raises(TypeError, match="call takes a method of the class, not 3"):
            counter.call(3)
        with pytest.raises(AttributeError, match="has no method 'spawn'"):
            counter.call(Isolate.spawn)


def test_errors():
    """What a method raises comes back as itself; the actor goes on."""
    with Actor.spawn(Counter) as counter:
        for error in (KeyError(1), SystemExit(2)):
            with pytest.raises(type(error)) as caught:
                counter.fail(error).result(LONG)
            assert "in fail" in str(caught.value.__cause__)
        with pytest.raises(SendError, match="result: "):
            counter.lock().result(LONG)
        with pytest.raises(TypeError, match="unexpected keyword"):
            counter.add(speed=3).result(LONG)
        with pytest.raises(AttributeError, match="has no method 'subtract'"):
            counter.subtract(1)
        with pytest.raises(SendError, match=r"args\[0\]"):
            counter.add(threading.Lock())
        with pytest.raises(SendError, match=r"keywords\['amount'\]"):
            counter.add(amount=threading.Lock())
        assert counter.add().result(LONG) == 1


def test_bad_recipes():
    """What cannot be an actor is refused at once."""
    with pytest.raises(TypeError, match="an actor needs a class, not 3"):
        Actor.spawn(3)
    with pytest.raises(TypeError, match="too many"):
        Actor.spawn(Counter, 1, 2, 3)
    with pytest.raises(SendError):
        Actor.spawn(Counter, threading.Lock())
    with pytest.raises(TypeError, match=r"Actor\.spawn"):
        Actor()


def test_a_constructor_that_raises():
    """Calls of an actor that could not be made raise what its constructor has raised."""

    class Broken:
        def __init__(self):
            raise OSError("no model")

        def use(self):
            return 1

    actor = Actor.spawn(Broken)
    futures = [actor.use() for _ in range(3)]
    for future in futures:
        with pytest.raises(OSError, match="no model"):
            future.result(LONG)
    assert actor.join(LONG)
    with pytest.raises(OSError, match="no model"):
        actor.use().result(LONG)


def test_stopping():
    """`stop` ends it after the calls before; `close` is called last; later calls say that it has ended."""
    with ReceivePort() as port:
        counter = Actor.spawn(Counter, 0, port.send_port)
        futures = [counter.add() for _ in range(10)]
        counter.stop()
        assert counter.join(LONG)
        assert [future.result(LONG) for future in futures] == list(range(1, 11))
        assert port.receive(LONG) == ("closed", 10)
        with pytest.raises(IsolateKilledError):
            counter.add().result(LONG)
        counter.stop()
        counter.kill()


def test_killing():
    """When it is killed, every call that is not done says so."""
    with ReceivePort() as port:
        counter = Actor.spawn(Counter)
        futures = [counter.wait(port.send_port), counter.add()]
        port.receive(LONG)
        counter.kill()
        for future in futures:
            with pytest.raises(IsolateKilledError):
                future.result(LONG)
        assert counter.join(LONG)
    with pytest.raises(ZeroDivisionError):
        with Actor.spawn(Counter) as counter:
            1 / 0  # noqa: B018
    assert not counter.is_alive


def test_cancelling():
    """A call that has not begun is taken back; one that has goes on, and the actor with it."""
    with Actor.spawn(Counter) as counter, ReceivePort(end_with_senders=False) as port:
        running = counter.wait(port.send_port)
        peer = port.receive(LONG)
        queued = [counter.add(), counter.add(100), counter.add()]
        assert queued[1].cancel()
        assert running.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            queued[1].result()
        peer.send("x")
        assert queued[2].result(LONG) == 2
        assert not queued[2].cancel()


def test_asynchronous_methods_interleave():
    """Asynchronous methods begin in order and go on side by side, with synchronous ones in between."""
    with Actor.spawn(Meeting) as meeting:
        waiting = [meeting.wait() for _ in range(3)]
        assert meeting.set().result(LONG) is None
        assert waiting[0].result(LONG) == ["wait", "wait", "wait", "set"]
        with ReceivePort(end_with_senders=False) as port:
            future = meeting.wait_for_cancel(port.send_port)
            assert port.receive(LONG) == "waiting"
            assert future.cancel()
            assert port.receive(LONG) == "cancelled"
        unfinished = meeting.wait()
    assert unfinished.result(LONG)[-1] == "wait"


@pytest.mark.anyio
async def test_awaiting():
    """Calls can be awaited on asyncio and trio, and actors be used in `async with`."""
    async with Actor.spawn(Counter, 1) as counter:
        assert await counter.add() == 2
        with pytest.raises(KeyError):
            await counter.fail(KeyError())
        with anyio.fail_after(LONG):
            assert await counter.add(2) == 4
    assert not counter.is_alive


def test_actors_can_be_sent():
    """Another isolate that is sent an actor calls it directly; it is equal to the one that was sent."""

    def use(counter):
        return counter, [counter.add().result() for _ in range(5)]

    with Actor.spawn(Counter) as counter:
        again, results = Isolate.run(use, counter).result(LONG)
        assert results == [1, 2, 3, 4, 5]
        assert again == counter
        assert hash(again) == hash(counter)
        assert again.add().result(LONG) == 6
        assert counter != 3


def test_clients_of_an_actor_that_is_killed():
    """While an actor is killed under its clients, each call ends in a result or a clear error."""
    outcomes = []

    def use(counter):
        for _ in range(200):
            try:
                outcomes.append(type(counter.add().result(LONG)))
            except IsolateKilledError as error:
                outcomes.append(type(error))

    counter = Actor.spawn(Counter)
    assert counter.add().result(LONG) == 1
    clients = [threading.Thread(target=use, args=(counter,)) for _ in range(3)]
    for client in clients:
        client.start()
    counter.kill()
    for client in clients:
        client.join(LONG)
    assert len(outcomes) == 600
    assert set(outcomes) <= {int, IsolateKilledError}
    assert outcomes[-1] is IsolateKilledError
