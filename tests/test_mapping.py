"""IsolatePool.map: results in order, whatever the items, the chunks and the workers do."""

import concurrent.futures
import gc
import itertools
import operator
import socket
import threading
import weakref

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subiso import Isolate, IsolateKilledError, IsolatePool, IsolateTimeoutError, MapIterator, ReceivePort, SendError
from subiso.mapping import AHEAD

LONG = 20  # seconds: the bound of a wait that should be over at once


def square(x):
    return x * x


def invert(x):
    return 1 / x


def wait(port):
    """Say so, and wait for a message that does not come."""
    port.send("waiting")
    ReceivePort(end_with_senders=False).receive()


@pytest.fixture
def pool():
    with IsolatePool(2) as pool:
        yield pool


def test_results_in_order(pool):
    """The results come in the order of the items; several iterables end with the shortest."""
    results = pool.map(square, range(1000))
    assert isinstance(results, MapIterator)
    assert operator.length_hint(results) == 1000
    assert next(results) == 0
    assert operator.length_hint(results) == 999
    assert list(results) == [x * x for x in range(1, 1000)]
    assert list(pool.map(pow, range(10), range(5))) == [x**x for x in range(5)]
    assert list(pool.map(pow, iter(range(10)), itertools.repeat(2))) == [x * x for x in range(10)]


def test_nothing_to_do(pool):
    """No items give no results, and no iterables give no items; no worker is started."""
    for iterables in ([], [[]], [iter([])], [[1], []], [[1], iter([])]):
        assert list(pool.map(square, *iterables)) == []
    assert pool.statistics().workers == 0


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 300),
    chunksize=st.none() | st.integers(1, 50),
    buffersize=st.none() | st.integers(1, 50),
    lazily=st.booleans(),
)
def test_every_way_gives_the_same(pool, count, chunksize, buffersize, lazily):
    """Chunks, buffers and kinds of iterables change nothing in what comes out."""
    items = iter(range(count)) if lazily else list(range(count))
    assert list(pool.map(square, items, chunksize=chunksize, buffersize=buffersize)) == [x * x for x in range(count)]


def test_what_cannot_be_iterated(pool):
    """What is no iterable, or no size, is refused at once."""
    with pytest.raises(TypeError, match="iter"):
        pool.map(square, 3)
    for option in ("chunksize", "buffersize"):
        for wrong in (0, -1):
            with pytest.raises(ValueError, match=option):
                pool.map(square, [1], **{option: wrong})
        with pytest.raises(TypeError, match=f"{option} must be an integer or None"):
            pool.map(square, [1], **{option: "3"})


def test_work_begins_without_being_asked_for(pool):
    """Items are worked on whether the results are taken or not."""
    with ReceivePort() as port:
        sender = port.send_port
        results = pool.map(lambda x: sender.send(x), range(20))
        assert sorted(port.receive(LONG) for _ in range(20)) == list(range(20))
        assert list(results) == [None] * 20


def test_all_of_a_sequence_is_done_before_shutdown():
    """`shutdown` waits for maps too, whose results can be taken afterwards."""
    with IsolatePool(2) as pool:
        results = pool.map(square, range(30_000))
    assert sum(results) == sum(x * x for x in range(30_000))


def test_an_iterator_that_outlives_its_pool():
    """What was not drawn from an iterator before the pool was shut down is not done, and that is said."""
    with IsolatePool(2) as pool:
        results = pool.map(square, iter(range(AHEAD + 5)))
        assert next(results) == 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(results)
    assert list(results) == []


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_an_error_after_the_results_before_it(pool, chunksize):
    """What the function raises is raised in its turn; then the iterator is over, and the pool goes on."""
    results = pool.map(invert, [1, 2, 4, 0, 5, 0], chunksize=chunksize)
    assert [next(results) for _ in range(3)] == [1, 0.5, 0.25]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "in invert" in str(caught.value.__cause__)
    assert list(results) == []
    assert list(pool.map(square, [2])) == [4]


@pytest.mark.parametrize("buffersize", [None, 2])
def test_an_iterator_that_raises(pool, buffersize):
    """What the iterable raises is raised after the results that come before it."""

    def items():
        yield from range(5)
        raise KeyError("no more")

    results = pool.map(square, items(), buffersize=buffersize)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(KeyError, match="no more"):
        next(results)
    assert list(results) == []


def test_items_that_cannot_be_sent(pool):
    """An item that cannot be sent is an error in its turn, which says where it is."""
    with socket.socket() as sock:
        results = pool.map(type, [1, 2, {"s": sock}, 3], chunksize=4)
        assert [next(results), next(results)] == [int, int]
        with pytest.raises(SendError, match=r"args\[0\]\['s'\]"):
            next(results)
        with pytest.raises(SendError, match="sock"):
            pool.map(lambda _: sock, [1])


def test_results_that_cannot_be_sent(pool):
    """A result that cannot be sent is an error in its turn."""
    results = pool.map(lambda x: threading.Lock() if x == 2 else x, range(4), chunksize=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(SendError, match=r"result: .*lock"):
        next(results)


def test_a_worker_that_dies(pool):
    """If a worker dies, the map says so in its turn, and the pool goes on."""

    def die(x):
        if x == 5:
            Isolate.current().kill()
            ReceivePort(end_with_senders=False).receive()
        return x

    results = pool.map(die, range(10), chunksize=1)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(IsolateKilledError):
        next(results)
    assert list(pool.map(square, range(10))) == [x * x for x in range(10)]


def test_time_outs(pool):
    """`timeout` ends the waiting, `task_timeout` the work."""
    with ReceivePort() as port:
        sender = port.send_port
        for options, error in (({"timeout": 1}, TimeoutError), ({"task_timeout": 1}, IsolateTimeoutError)):
            results = pool.map(lambda x: wait(sender) if x == 2 else x, range(5), chunksize=1, **options)
            with pytest.raises(error):
                list(results)
            assert port.receive(LONG) == "waiting"
        with pytest.raises(TimeoutError):
            list(pool.map(square, range(5), timeout=0))
        with pytest.raises(ValueError, match="timeout"):
            pool.map(square, [1], task_timeout=-1)
        pool._crew.abort()


def test_a_slow_item_holds_up_no_others(pool):
    """Where an item takes long, what comes after it in its chunk is done by others."""
    with ReceivePort(end_with_senders=False) as port:
        sender = port.send_port

        def work(x):
            if x == 2000:
                with ReceivePort(end_with_senders=False) as mine:
                    sender.send(mine.send_port)
                    mine.receive()
            elif x > 2500:
                sender.send(x)
            return x

        results = pool.map(work, range(4000))
        first = port.receive(LONG)
        peer = first if not isinstance(first, int) else None
        seen = [] if peer else [first]
        while len(seen) < 500 or peer is None:
            message = port.receive(LONG)
            if isinstance(message, int):
                seen.append(message)
            else:
                peer = message
        peer.send("go on")
        assert list(results) == list(range(4000))


# -- consumers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "drop"])
def test_a_consumer_that_stops_early(pool, way):
    """Closing or dropping the iterator cancels what has not begun."""
    done = []
    with ReceivePort(end_with_senders=False) as port:
        sender = port.send_port
        results = pool.map(lambda x: sender.send(x), range(1_000_000))
        assert next(results) is None
        if way == "close":
            results.close()
            results.close()
            assert list(results) == []
        del results
        gc.collect()
        assert pool.submit(square, 3).result(LONG) == 9
        pool.shutdown()
        while port._inbox.messages:
            done.append(port.receive(LONG))
    assert 0 < len(done) < 1_000_000


def test_endless_iterators(pool):
    """An endless iterator is drawn from only so far ahead."""
    drawn = 0

    def items():
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = pool.map(square, items(), buffersize=10)
    assert [next(results) for _ in range(100)] == [x * x for x in range(1, 101)]
    assert drawn <= 110
    results.close()
    drawn = 0
    results = pool.map(square, items())
    assert drawn <= AHEAD
    assert list(itertools.islice(results, 3 * AHEAD)) == [x * x for x in range(1, 3 * AHEAD + 1)]
    assert drawn <= 4 * AHEAD
    results.close()


def test_buffersize_is_exact(pool):
    """`buffersize` is how far the items are ahead of the results, for sequences as well."""
    for make in (iter, list):
        items = iter(make(range(5)))
        results = pool.map(square, items, buffersize=2)
        assert next(items) == 2
        assert next(results) == 0
        assert next(items) == 4
        results.close()


def test_results_are_not_kept(pool):
    """The iterator does not keep what it has given."""

    class Thing:
        pass

    for thing in pool.map(lambda _: Thing(), range(10)):
        gone = weakref.ref(thing)
        del thing
        assert gone() is None


@pytest.mark.anyio
async def test_async_for(pool):
    """`async for` takes results on asyncio and trio."""
    assert [result async for result in pool.map(square, range(100))] == [x * x for x in range(100)]
    results = pool.map(invert, [1, 0])
    assert await anext(results) == 1
    with pytest.raises(ZeroDivisionError):
        await anext(results)
    with pytest.raises(StopAsyncIteration):
        await anext(results)
    await results.aclose()
    with anyio.fail_after(LONG):
        assert [result async for result in pool.map(square, iter(range(5)), buffersize=1)] == [0, 1, 4, 9, 16]


def test_two_maps_and_tasks_take_turns(pool):
    """A long map does not keep other work waiting until it is done."""
    with ReceivePort(end_with_senders=False) as port:
        sender = port.send_port
        endless = pool.map(square, itertools.count())
        assert pool.submit(square, 3).result(LONG) == 9
        assert list(itertools.islice(pool.map(square, itertools.count()), 5)) == [0, 1, 4, 9, 16]
        assert next(endless) == 0
        endless.close()
        assert sender == port.send_port


def test_state_of_a_function_by_value(pool):
    """A function that goes by value is sent once to each worker, where it keeps its state for that map."""

    def make():
        seen = []

        def count(_):
            seen.append(1)
            return len(seen)

        return count

    with IsolatePool(1) as one:
        count = make()
        assert list(one.map(count, range(5))) == [1, 2, 3, 4, 5]
        assert list(one.map(count, range(3))) == [1, 2, 3]
        for _ in range(20):
            assert list(one.map(make(), range(2))) == [1, 2]


def test_cancelled_with_the_pool(pool):
    """What `shutdown(cancel_futures=True)` cancels is a CancelledError in its turn."""
    with ReceivePort() as port:
        sender = port.send_port

        def work(x):
            with ReceivePort(end_with_senders=False) as mine:
                sender.send(mine.send_port)
                return mine.receive()

        results = pool.map(work, range(10), chunksize=1)
        peers = [port.receive(LONG), port.receive(LONG)]
        pool.shutdown(wait=False, cancel_futures=True)
        for number, peer in enumerate(peers):
            peer.send(number)
        assert sorted([next(results), next(results)]) == [0, 1]
        with pytest.raises(concurrent.futures.CancelledError):
            next(results)
