"""IsolateFuture: a future of the standard library's, whose work can be stopped."""

import concurrent.futures
import gc
import threading
import weakref
from time import monotonic

import pytest

from subiso import Isolate, IsolateFuture, IsolateKilledError, IsolatePool, PortEmpty, ReceivePort

LONG = 20  # seconds: the bound of a wait that should be over at once


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


def wait_in_python(port):
    try:
        port.send("waiting")
        while True:
            pass
    finally:
        port.send("unwound")


def test_it_is_a_future_of_the_standard_library():
    """An IsolateFuture is a concurrent.futures.Future, and reads like one."""
    future = Isolate.run(square, 3)
    assert isinstance(future, concurrent.futures.Future)
    assert not future.cancelled()
    assert future.result(LONG) == 9
    assert future.done()
    assert not future.running()
    assert future.exception() is None


def test_results_again_and_again():
    """A result, or an error, can be asked for any number of times, without a timeout and with one."""
    future = Isolate.run(square, 3)
    assert [future.result(LONG), future.result(), future.result(0)] == [9, 9, 9]
    failed = Isolate.run(fail, KeyError(1))
    for timeout in (LONG, None, 0):
        with pytest.raises(KeyError):
            failed.result(timeout)
        assert isinstance(failed.exception(timeout), KeyError)


def test_as_completed_and_wait():
    """concurrent.futures.wait and as_completed take isolates' futures."""
    futures = [Isolate.run(square, x) for x in range(5)]
    done, left = concurrent.futures.wait(futures, LONG)
    assert (len(done), len(left)) == (5, 0)
    more = [Isolate.run(square, x) for x in range(5)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(more, LONG)) == [0, 1, 4, 9, 16]


def test_wait_for_the_first():
    """`wait` returns as soon as the first is done, or has failed, if it is asked to."""
    with ReceivePort() as port:
        slow = Isolate.run(wait, port.send_port)
        for when, quick in (
            (concurrent.futures.FIRST_COMPLETED, Isolate.run(square, 2)),
            (concurrent.futures.FIRST_EXCEPTION, Isolate.run(fail, ValueError())),
        ):
            assert concurrent.futures.wait([slow, quick], LONG, when) == ({quick}, {slow})
        assert port.receive(LONG) == "waiting"
        assert slow.cancel()


def test_callbacks():
    """A callback is called once, with the future, whether it is added before or after the end."""
    called = threading.Semaphore(0)
    seen = []

    def callback(future):
        seen.append(future)
        called.release()

    with ReceivePort() as port:
        future = Isolate.run(wait, port.send_port)
        future.add_done_callback(callback)
        assert port.receive(LONG) == "waiting"
        assert seen == []
        future.cancel()
        assert called.acquire(timeout=LONG)
        future.add_done_callback(callback)
        assert called.acquire(timeout=LONG)
        done = Isolate.run(square, 1)
        done.add_done_callback(callback)
        assert called.acquire(timeout=LONG)
        assert seen == [future, future, done]


def test_a_callback_may_start_more_work():
    """A callback may run more isolates and cancel others."""
    results = []
    finished = threading.Event()

    def start_next(future):
        results.append(future.result())
        if len(results) < 5:
            Isolate.run(square, len(results)).add_done_callback(start_next)
        else:
            finished.set()

    Isolate.run(square, 0).add_done_callback(start_next)
    assert finished.wait(LONG)
    assert results == [0, 1, 4, 9, 16]


def test_a_callback_that_raises(caplog):
    """An error in a callback is logged, as concurrent.futures does, and harms nothing."""
    called = threading.Event()
    with ReceivePort() as port:

        def work(out):
            with ReceivePort(end_with_senders=False) as mine:
                out.send(mine.send_port)
                return mine.receive()

        future = Isolate.run(work, port.send_port)
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(lambda _: called.set())
        port.receive(LONG).send("done")
        assert future.result(LONG) == "done"
        assert called.wait(LONG)
        assert "ZeroDivisionError" in caplog.text


# -- cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [wait, wait_in_python])
def test_cancelling_running_work(work):
    """`cancel` of running work returns True at once and stops the work; waiting raises CancelledError."""
    with ReceivePort() as port:
        future = Isolate.run(work, port.send_port)
        assert port.receive(LONG) == "waiting"
        assert future.running()
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert not future.running()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        with pytest.raises(concurrent.futures.CancelledError):
            future.exception(0)
        assert list(port) == ["unwound"]  # the isolate has ended
        assert future.cancel()


def test_cancelling_at_once():
    """Work that is cancelled as soon as it is started stops, however far it has come."""
    with ReceivePort() as port:
        futures = [Isolate.run(wait_in_python, port.send_port) for _ in range(8)]
        assert all(future.cancel() for future in futures)
        assert set(port) <= {"waiting", "unwound"}  # all of them have ended


def test_cancelling_what_has_ended():
    """`cancel` returns False once there is a result or an error, and changes nothing."""
    done, failed = Isolate.run(square, 2), Isolate.run(fail, ValueError("bad"))
    concurrent.futures.wait([done, failed], LONG)
    assert not done.cancel()
    assert not failed.cancel()
    assert done.result() == 4
    with pytest.raises(ValueError, match="bad"):
        failed.result()


def test_cancelling_wakes_whoever_waits():
    """Threads that wait for a result are woken by `cancel`, those of concurrent.futures.wait too."""
    outcomes = []

    def wait_for(future):
        try:
            future.result(LONG)
        except BaseException as error:
            outcomes.append(type(error))

    with ReceivePort() as port:
        future = Isolate.run(wait, port.send_port)
        waiting = [threading.Thread(target=wait_for, args=(future,)) for _ in range(3)]
        waiting.append(threading.Thread(target=concurrent.futures.wait, args=([future], LONG)))
        for thread in waiting:
            thread.start()
        assert port.receive(LONG) == "waiting"
        future.cancel()
        for thread in waiting:
            thread.join(LONG)
        assert outcomes == [concurrent.futures.CancelledError] * 3


def test_cancelling_races_the_result():
    """Cancelled just when the result comes, a future has one outcome, and `cancel` says which."""

    def answer(port):
        port.send("nearly")
        return 4

    with ReceivePort() as port:
        for _ in range(30):
            future = Isolate.run(answer, port.send_port)
            assert port.receive(LONG) == "nearly"
            if future.cancel():
                with pytest.raises(concurrent.futures.CancelledError):
                    future.result(LONG)
            else:
                assert future.result(LONG) == 4


def test_threads_wait_for_one_result():
    """Any number of threads may wait for one future."""
    results = []
    with ReceivePort() as port:

        def work(out):
            with ReceivePort(end_with_senders=False) as mine:
                out.send(mine.send_port)
                return mine.receive()

        future = Isolate.run(work, port.send_port)
        threads = [threading.Thread(target=lambda: results.append(future.result(LONG))) for _ in range(5)]
        for thread in threads:
            thread.start()
        port.receive(LONG).send(7)
        for thread in threads:
            thread.join(LONG)
        assert results == [7] * 5


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_futures_inside_isolates():
    """concurrent.futures.wait, callbacks and cancelling work inside an isolate too."""

    def work(port, square, wait):
        import concurrent.futures
        import threading

        futures = [Isolate.run(square, x) for x in range(3)]
        done, _ = concurrent.futures.wait(futures, 20)
        called = threading.Event()
        with ReceivePort() as mine:
            endless = Isolate.run(wait, mine.send_port)
            endless.add_done_callback(lambda _: called.set())
            assert mine.receive(20) == "waiting"
            assert endless.cancel()
            assert called.wait(20)
            assert list(mine) == ["unwound"]
        return sorted(future.result() for future in done)

    with ReceivePort() as port:
        assert Isolate.run(work, port.send_port, square, wait).result(LONG) == [0, 1, 4]


def test_the_isolate_of_a_future_can_be_killed():
    """A future whose isolate is killed by somebody else raises IsolateKilledError, wherever it is waited for."""

    def tell(port):
        port.send(Isolate.current())
        ReceivePort(end_with_senders=False).receive()

    with ReceivePort() as port:
        future = Isolate.run(tell, port.send_port)
        port.receive(LONG).kill()
        done, _ = concurrent.futures.wait([future], LONG)
        assert done == {future}
        assert isinstance(future.exception(), IsolateKilledError)


def test_a_forgotten_future_keeps_nothing():
    """A future that nobody holds is collected once it is done."""
    future = Isolate.run(square, 2)
    assert future.result(LONG) == 4
    alive = weakref.ref(future)
    del future
    deadline = monotonic() + LONG
    while alive() is not None:  # another thread may not be quite done with it
        gc.collect()
        assert monotonic() < deadline


def test_results_of_every_thread():
    """Threads of main may all run isolates at once."""
    results = []

    def run(x):
        results.extend(Isolate.run(square, x + i).result(LONG) for i in range(5))

    threads = [threading.Thread(target=run, args=(x * 5,)) for x in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(results) == [x * x for x in range(20)]


def test_futures_are_started_not_made():
    """The future that `run` returns is an IsolateFuture, and says in its repr how it stands."""
    future = Isolate.run(square, 2)
    future.result(LONG)
    assert type(future) is IsolateFuture
    assert "finished" in repr(future)


class Interrupting:
    """Raises KeyboardInterrupt where it arrives, as Ctrl-C may while a result is decoded."""

    def __reduce__(self):
        return fail, (KeyboardInterrupt(),)


@pytest.mark.parametrize("how", ["run", "submit"])
def test_an_interruption_is_for_whoever_waits(how):
    """Ctrl-C that comes as a result arrives is raised where main waits, for whatever it waits, and nothing hangs.

    The attendant may be quicker than main to take the result; what is raised in its thread is the result's own.
    """
    for _ in range(50):
        with IsolatePool(1) as pool, ReceivePort(end_with_senders=False) as quiet:
            future = None
            try:
                future = Isolate.run(Interrupting) if how == "run" else pool.submit(Interrupting)
                while not future.done():
                    with pytest.raises(PortEmpty):
                        quiet.receive(0.1)
            except KeyboardInterrupt:
                if future is None:  # the result was there before this thread had its future
                    continue
                assert type(future.exception(LONG)) is IsolateKilledError
                assert Isolate.run(square, 3).result(LONG) == 9
                return
            assert type(future.exception(LONG)) is KeyboardInterrupt
    pytest.fail("main has never taken the result")
