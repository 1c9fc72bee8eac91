"""Streams: what a generator yields in an isolate arrives as it is made."""

import asyncio
import gc
import itertools
import threading

import anyio
import pytest

from subiso import Isolate, IsolateKilledError, IsolatePool, ReceivePort, SendError, Stream

LONG = 20  # seconds: the bound of a wait that should be over at once


def count(stop):
    yield from range(stop)


async def count_async(stop):
    for number in range(stop):
        await asyncio.sleep(0)
        yield number


def fail_after(stop):
    yield from range(stop)
    raise KeyError("no more")


def tell(port, stop=None):
    """Count, and tell how far that has come, and what has ended it."""
    try:
        for number in itertools.count() if stop is None else range(stop):
            yield number
            port.send(number)
    except GeneratorExit:
        port.send("closed")
        raise
    except BaseException as error:
        port.send(type(error).__name__)
        raise


def stuck(port):
    """Yield once, and then never again."""
    yield 1
    try:
        port.send("stuck")
        while True:
            pass
    finally:
        port.send("unwound")


@pytest.fixture(params=["isolate", "pool"])
def stream(request):
    """Both ways to open a stream."""
    if request.param == "isolate":
        yield Isolate.stream
        return
    with IsolatePool(1) as pool:
        yield pool.stream


def test_items_arrive(stream):
    """What is yielded arrives, in order; then the stream is over."""
    numbers = stream(count, 5000)
    assert isinstance(numbers, Stream)
    assert list(numbers) == list(range(5000))
    assert numbers.closed
    assert list(numbers) == []
    assert list(stream(count, 0)) == []
    assert list(stream(range, 3)) == [0, 1, 2]


def test_asynchronous_generators(stream):
    """Asynchronous generators are run by asyncio."""
    assert list(stream(count_async, 10)) == list(range(10))


def test_items_arrive_as_they_are_made(stream):
    """An item is there before the next one is made."""

    def converse(port):
        with ReceivePort(end_with_senders=False) as mine:
            port.send(mine.send_port)
            yield from mine

    with ReceivePort(end_with_senders=False) as port, stream(converse, port.send_port) as answers:
        peer = port.receive(LONG)
        for number in range(10):
            peer.send(number)
            assert next(answers) == number


def test_an_error_after_the_items_before_it(stream):
    """What the generator raises is raised after what it has yielded, once."""
    numbers = stream(fail_after, 3)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="no more") as caught:
        next(numbers)
    assert "in fail_after" in str(caught.value.__cause__)
    assert list(numbers) == []


def test_an_item_that_cannot_be_sent(stream):
    """An item that cannot be sent is an error in its turn."""

    def locks():
        yield 1
        yield threading.Lock()

    numbers = stream(locks)
    assert next(numbers) == 1
    with pytest.raises(SendError):
        next(numbers)


def test_bad_streams(stream):
    """What is no generator function, or cannot be sent, is refused."""
    with pytest.raises(TypeError, match="a stream needs a generator function, not 3"):
        stream(3)
    with pytest.raises(TypeError, match="abs is no generator function"):
        next(stream(abs, 3))
    with pytest.raises(SendError):
        stream(count, threading.Lock())
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="maxsize must be at least 1"):
            stream(count, 3, maxsize=wrong)
    with pytest.raises(TypeError, match="maxsize must be an int"):
        stream(count, 3, maxsize="3")


def test_it_is_bounded(stream):
    """The generator waits while `maxsize` items have not been taken."""
    with ReceivePort(end_with_senders=False) as port:
        numbers = stream(tell, port.send_port, maxsize=5)
        for number in range(5):
            assert port.receive(LONG) == number
        for number in range(100):
            assert next(numbers) == number
            assert port.receive(LONG) == number + 5
            assert not port._inbox.messages
        numbers.close()
        assert port.receive(LONG) == "closed"


@pytest.mark.parametrize("way", ["close", "with", "drop"])
def test_closing(stream, way):
    """Closing the stream closes the generator, however that is done."""
    with ReceivePort(end_with_senders=False) as port:
        numbers = stream(tell, port.send_port, maxsize=10)
        assert next(numbers) == 0
        if way == "close":
            numbers.close()
            numbers.close()
        elif way == "with":
            with numbers:
                pass
        if way != "drop":
            assert numbers.closed
            assert list(numbers) == []
        del numbers
        gc.collect()
        last = port.receive(LONG)
        while isinstance(last, int):
            last = port.receive(LONG)
        assert last == "closed"


def test_closing_a_generator_that_is_stuck(stream):
    """A generator that does not yield any more is killed; a pool goes on."""
    with ReceivePort(end_with_senders=False) as port:
        numbers = stream(stuck, port.send_port)
        assert next(numbers) == 1
        assert port.receive(LONG) == "stuck"
        numbers.close()
        assert port.receive(LONG) == "unwound"
    assert list(stream(count, 3)) == [0, 1, 2]


def test_an_isolate_that_is_killed(stream):
    """If the isolate is killed, the stream says so after what has arrived."""

    def die():
        yield Isolate.current()
        yield 2
        ReceivePort(end_with_senders=False).receive()

    numbers = stream(die)
    isolate = next(numbers)
    assert next(numbers) == 2
    isolate.kill()
    with pytest.raises(IsolateKilledError):
        next(numbers)


@pytest.mark.anyio
async def test_async_for():
    """`async for` takes items on asyncio and trio, and ends with what the generator has raised."""
    with anyio.fail_after(LONG):
        assert [number async for number in Isolate.stream(count, 2000, maxsize=7)] == list(range(2000))
        async with Isolate.stream(fail_after, 2) as numbers:
            assert [await anext(numbers), await anext(numbers)] == [0, 1]
            with pytest.raises(KeyError):
                await anext(numbers)
            with pytest.raises(StopAsyncIteration):
                await anext(numbers)
        with ReceivePort(end_with_senders=False) as port:
            async for number in Isolate.stream(tell, port.send_port):
                if number == 3:
                    break
            gc.collect()
            while await port.areceive() != "closed":
                pass


def test_streams_cannot_be_sent(stream):
    """A stream belongs to the isolate that has opened it."""
    numbers = stream(count, 3)
    with pytest.raises(SendError, match="Stream objects cannot be sent"):
        Isolate.run(list, numbers)
    numbers.close()


@pytest.mark.stress
def test_a_million_items_in_constant_memory(stream):
    """A million items go through, and leave the memory as it was."""

    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    for _ in range(4):  # in every interpreter that is kept warm
        assert sum(1 for _ in stream(count, 20_000)) == 20_000
    before = memory()
    assert sum(1 for _ in stream(count, 1_000_000)) == 1_000_000
    assert memory() - before < 8_000_000
