"""Our own objects used by many threads of one interpreter at once: nothing is lost, doubled or left behind."""

import concurrent.futures
import threading
from collections import Counter

import pytest

from subiso import (
    Isolate,
    IsolatePool,
    PortClosedError,
    PortEmpty,
    ReceivePort,
    Supervisor,
    lookup,
    register,
    unregister,
)
from subiso.errors import IsolateKilledError

LONG = 20
SHORT, MANY = 200, 5000  # operations of each thread


def together(*functions):
    """Run functions in threads of their own, all begun at once; raise what any of them raises."""
    barrier = threading.Barrier(len(functions))

    def begin(function):
        barrier.wait(LONG)
        return function()

    with concurrent.futures.ThreadPoolExecutor(len(functions)) as executor:
        return [future.result() for future in [executor.submit(begin, function) for function in functions]]


@pytest.fixture(params=[SHORT, pytest.param(MANY, marks=pytest.mark.stress)])
def times(request):
    return request.param


@pytest.mark.parametrize("maxsize", [0, 3])
def test_many_send_and_many_receive(times, maxsize):
    """Each message arrives at one receiver; those of one sender in order at each."""
    senders, receivers = 3, 3
    with ReceivePort(maxsize=maxsize) as port:

        def send(who):
            for number in range(times):
                port.send_port.send((who, number), timeout=LONG)

        def receive():
            taken = []
            while (message := port.receive(LONG)) is not None:
                taken.append(message)
            return taken

        def all_send():
            together(*[lambda who=who: send(who) for who in range(senders)])
            for _ in range(receivers):
                port.send_port.send(None, timeout=LONG)

        _, *taken = together(all_send, *[receive] * receivers)
    counted = Counter(message for each in taken for message in each)
    assert counted == Counter((who, number) for who in range(senders) for number in range(times))
    for each in taken:
        for who in range(senders):
            numbers = [number for sender, number in each if sender == who]
            assert numbers == sorted(numbers)


def test_closing_while_others_receive_and_send(times):
    """Closing a port ends every wait for it, with one of the errors that say so."""
    for _ in range(times // 20):
        port = ReceivePort(maxsize=1)

        def receive(port=port):
            try:
                while True:
                    port.receive(LONG)
            except PortClosedError:
                return "closed"

        def send(port=port):
            try:
                while True:
                    port.send_port.send(1, timeout=LONG)
            except PortClosedError:
                return "closed"

        assert together(receive, receive, send, send, port.close)[:4] == ["closed"] * 4
        with pytest.raises(PortClosedError):
            port.receive(0)


def test_a_pool_from_many_threads(times):
    """Each task that was accepted has one outcome, whoever cancels, and shutting down twice at once waits twice."""
    with IsolatePool(2) as pool:

        def submit():
            return [(number, pool.submit(abs, -number)) for number in range(times // 4)]

        def submit_and_cancel():
            futures = [pool.submit(abs, -number) for number in range(times // 8)]
            for future in futures[::2]:
                future.cancel()
            return futures

        kept, more, cancelled, mapped = together(
            submit, submit, submit_and_cancel, lambda: list(pool.map(abs, range(-times, 0)))
        )
        for number, future in kept + more:
            assert future.result(LONG) == number
        for number, future in enumerate(cancelled):
            assert future.cancelled() or future.result(LONG) == number
        assert mapped == [*range(times, 0, -1)]
        together(pool.shutdown, pool.shutdown, lambda: pool.shutdown(cancel_futures=True))


def stay(port):
    port.send(1)
    ReceivePort(end_with_senders=False).receive()


def test_isolates_from_many_threads(times):
    """Threads that start, run and kill isolates at the same time do not meet each other's."""

    def run():
        return [Isolate.run(pow, number, 2).result(LONG) for number in range(times // 10)]

    def kill():
        with ReceivePort() as port:
            for _ in range(times // 40):
                isolate = Isolate.spawn(stay, port.send_port)
                port.receive(LONG)
                together(isolate.kill, isolate.kill, lambda isolate=isolate: isolate.join(LONG))
                assert isolate.join(LONG)

    *results, _, _ = together(run, run, kill, kill)
    assert results == [[number**2 for number in range(times // 10)]] * 2


def test_a_future_from_many_threads(times):
    """All who wait for a future see one outcome, also where it is cancelled meanwhile."""
    for _ in range(times // 20):
        future = Isolate.run(pow, 3, 2)

        def look(future=future):
            try:
                return future.result(LONG)
            except (concurrent.futures.CancelledError, IsolateKilledError) as error:
                return type(error)

        first, second, third, was_cancelled = together(look, look, look, future.cancel)
        assert first == second == third
        assert first == (concurrent.futures.CancelledError if was_cancelled else 9)


def test_names_from_many_threads(times):
    """Of those who register one name at the same time, one succeeds."""
    with ReceivePort() as port:

        def claim():
            return register("claimed", port.send_port)

        for _ in range(times // 20):
            assert sum(together(claim, claim, claim)) == 1
            assert lookup("claimed") == port.send_port
            unregister("claimed")


def test_a_supervisor_from_many_threads(times):
    """What is added at the same time is all started, and stopping twice at once stops all of it."""
    with ReceivePort(end_with_senders=False) as port:
        for _ in range(max(times // 200, 1)):
            with Supervisor() as supervisor:
                together(*[lambda s=supervisor: s.add(stay, port.send_port)] * 4)
                for _ in range(4):
                    assert port.receive(LONG) == 1
                assert len(supervisor.children) == 4
                together(supervisor.stop, supervisor.stop)
            assert not any(child.is_alive for child in supervisor.children)
        with pytest.raises(PortEmpty):
            port.receive(0)
