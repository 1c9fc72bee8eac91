"""Isolates that are blocked in C code: given up in bounded time, told so, and never in the way of the program's end."""

import ctypes
import logging
import time

import pytest

from subiso import Isolate, IsolateTimeoutError, PortClosedError, ReceivePort
from subiso._kernel import nursery as nurseries
from subiso._kernel.interpreters import SIGNALS_DELIVER_EXCEPTIONS

LONG = 20  # seconds: the bound of a wait that should be over at once
BOUND = 3 + 7  # seconds: what is promised for a program's end, and what a busy machine may take to start it


def block(out, barrier):
    """Say so and block in C, with no line of Python between the two, until the test lets go. No signal wakes this."""
    import ctypes
    from functools import partial
    from operator import call

    library = ctypes.CDLL(None)
    with ReceivePort(end_with_senders=False) as port:
        try:
            wait = partial(library.pthread_rwlock_rdlock, ctypes.c_void_p(barrier))
            list(map(call, [partial(out.send, port.send_port), wait]))
            out.send("through")
        finally:
            out.send("finally")


class Barrier:
    """A lock of C's, which others block at until it is opened."""

    def __init__(self):
        self._library = ctypes.CDLL(None)
        self._lock = (ctypes.c_char * 256)()  # zeros are an open lock
        self.address = ctypes.addressof(self._lock)
        self._library.pthread_rwlock_wrlock(ctypes.c_void_p(self.address))
        self._open = False

    def open(self):
        if not self._open:
            self._open = True
            self._library.pthread_rwlock_unlock(ctypes.c_void_p(self.address))


@pytest.fixture
def barrier():
    """Return a barrier; at the end, what blocks there goes on."""
    barrier = Barrier()
    yield barrier
    barrier.open()
    nursery = nurseries._nursery
    with nursery._changed:  # whoever was abandoned unwinds, and its interpreter can be lent again
        assert nursery._changed.wait_for(lambda: not nursery.abandoned(), LONG)


@pytest.fixture
def out():
    with ReceivePort() as port:
        yield port


def test_what_is_blocked_is_given_up(barrier, out, caplog):
    """An isolate that is blocked in C ends for all: `join`, its handle, its listeners, its ports; a log says so."""
    isolate = Isolate.spawn(block, out.send_port, barrier.address, name="stuck", on_exit=out.send_port)
    port = out.receive(LONG)
    isolate.add_on_exit_listener(out.send_port, "ended")
    with caplog.at_level(logging.WARNING, "subiso"):
        isolate.kill()
        assert isolate.join(LONG)
        assert isolate.is_abandoned
        assert not isolate.is_alive
        assert list(out) == ["ended"]
        with pytest.raises(PortClosedError):
            port.send("hello")
        nursery = nurseries._nursery
        with nursery._changed:
            assert nursery._changed.wait_for(lambda: nursery.abandoned() == ["stuck"], LONG)
    assert repr(isolate) == "<Isolate 'stuck' ended>"


def test_what_was_given_up_unwinds(barrier, out):
    """When the call returns after all, the code after it does not run, and the interpreter is used again."""
    isolate = Isolate.spawn(block, out.send_port, barrier.address, name="stuck")
    out.receive(LONG)
    isolate.kill()
    assert isolate.join(LONG)
    barrier.open()
    nursery = nurseries._nursery
    with nursery._changed:
        assert nursery._changed.wait_for(lambda: not nursery.abandoned(), LONG)
        assert nursery._berths[isolate._slot - 1].state == nurseries.IDLE
    assert isolate.is_abandoned
    assert [message for message in out if message != "finally"] == []
    assert Isolate.run(lambda: Isolate.current()._slot).result(LONG) == isolate._slot
    assert not isolate.is_alive


def test_others_go_on_beside_it(barrier, out):
    """Others start, work and end beside an abandoned isolate, as many as before; nobody gets its interpreter."""
    isolates = [Isolate.spawn(block, out.send_port, barrier.address) for _ in range(3)]
    for _ in isolates:
        out.receive(LONG)
    for isolate in isolates:
        isolate.kill()
    assert all(isolate.join(LONG) for isolate in isolates)
    slots = {isolate._slot for isolate in isolates}
    futures = [Isolate.run(lambda: Isolate.current()._slot) for _ in range(10)]
    assert not slots & {future.result(LONG) for future in futures}


def test_a_kill_in_bounded_time(barrier):
    """A future whose isolate is blocked raises when its time is over, not when the call returns."""

    def block(barrier):
        import ctypes

        ctypes.CDLL(None).pthread_rwlock_rdlock(ctypes.c_void_p(barrier))

    future = Isolate.run(block, barrier.address, timeout=0.05, name="stuck")
    with pytest.raises(IsolateTimeoutError, match="stuck"):
        future.result(LONG)
    future = Isolate.run(block, barrier.address)
    assert future.cancel()


def test_a_gentle_kill_abandons_nothing(barrier, out):
    """A kill before the next event waits for what is blocked: it may take its time."""
    isolate = Isolate.spawn(block, out.send_port, barrier.address, on_exit=out.send_port)
    out.receive(LONG)
    isolate.kill(Isolate.BEFORE_NEXT_EVENT)
    isolate.ping(out.send_port, "alive")
    assert out.receive(LONG) == "alive"
    barrier.open()
    assert list(out) == ["through", "finally", None]
    assert not isolate.is_abandoned


def test_a_blocked_thread(barrier, out):
    """An isolate whose thread is blocked in C is given up like one that is blocked itself."""

    def live(out, barrier, block):
        import threading

        threading.Thread(target=block, args=(out, barrier)).start()

    isolate = Isolate.spawn(live, out.send_port, barrier.address, block, on_exit=out.send_port)
    out.receive(LONG)
    isolate.kill()
    assert isolate.join(LONG)
    assert isolate.is_abandoned
    assert list(out) == [None]


def test_a_blocked_call_on_an_event_loop(barrier, out):
    """An isolate whose coroutine is blocked in C is given up as well."""

    async def live(out, barrier, block):
        block(out, barrier)

    isolate = Isolate.spawn(live, out.send_port, barrier.address, block, on_exit=out.send_port)
    out.receive(LONG)
    isolate.kill()
    assert isolate.join(LONG)
    assert isolate.is_abandoned
    assert list(out) == [None]


def test_control_of_what_is_blocked(barrier, out):
    """What is blocked in C code that lets others run answers pings and takes listeners; abandoned, it does not."""
    isolate = Isolate.spawn(block, out.send_port, barrier.address)
    out.receive(LONG)
    isolate.ping(out.send_port, "here")
    assert out.receive(LONG) == "here"
    isolate.kill()
    assert isolate.join(LONG)
    isolate.ping(out.send_port, "never")
    isolate.add_on_exit_listener(out.send_port, "never")
    isolate.resume(isolate.pause())
    isolate.kill()
    assert list(out) == []


# -- in programs -------------------------------------------------------------------------------------------------------


@pytest.mark.dart("vm/long_regexp_process_oob_messages_test", "lib/kill_regexp_test")
def test_a_call_that_lets_nobody_run(script):
    """A regular expression that backtracks holds everything up in its isolate: main gives it up, and says its end."""
    program = script(
        """
        import functools, logging, operator, re, sys
        from subiso import Isolate, ReceivePort

        def match(out):
            match = functools.partial(re.compile("(a*)*b").match, "a" * 40)
            list(map(operator.call, [functools.partial(out.send, "running"), match]))

        logging.basicConfig(format="%(message)s")
        with ReceivePort() as out:
            isolate = Isolate.spawn(match, out.send_port, name="matcher", on_exit=out.send_port)
            out.receive()
            isolate.add_on_exit_listener(out.send_port, "ended")
            isolate.kill()
            print(isolate.join(15), isolate.is_abandoned, list(out)[-1], Isolate.run(sum, [1, 2]).result())
        sys.exit(7)
        """
    )
    assert program.returncode == 7, program.err
    assert program.out.startswith("True True ")
    assert program.out.endswith(" 3\n")
    assert "'matcher' could not be stopped" in program.err
    assert "while isolates were running: matcher (blocked in C code)" in program.err


BLOCKED = """
    import ctypes, functools, operator, os, socket, subprocess, sys, threading, time
    from subiso import Isolate, ReceivePort

    def block(out, what, call=operator.call, partial=functools.partial):
        list(map(call, [partial(out.send, 1), what]))  # no line of Python between the two

    def block_in_sleep(out):
        block(out, functools.partial(time.sleep, 3600))

    def block_in_a_lock(out):
        lock = threading.Lock()
        lock.acquire()
        block(out, lock.acquire)

    def block_in_a_process(out):
        reader, writer = os.pipe()  # the child ends when this process does
        out.send(1)
        subprocess.run(["cat"], stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def block_in_ctypes(out):
        block(out, functools.partial(ctypes.CDLL(None).sleep, 3600))

    def block_in_a_socket(out):
        one, other = socket.socketpair()
        block(out, functools.partial(one.recv, 1))

    entry = globals()[sys.argv[1]]
    with ReceivePort() as out:
        isolates = [Isolate.spawn(entry, out.send_port, name=f"blocked-{i}") for i in range(int(sys.argv[2]))]
        for _ in isolates:
            out.receive(60)
        if sys.argv[3] == "kill":
            for isolate in isolates:
                isolate.kill()
            assert all(isolate.join(20) for isolate in isolates)
            print(sum(isolate.is_abandoned for isolate in isolates))
    print("ready", flush=True)
    sys.exit(9)
"""


@pytest.mark.dart(
    "vm/many_isolates_blocked_at_sleep_test",
    "vm/many_isolates_blocked_at_monitor_test",
    "vm/many_isolates_blocked_at_process_run_sync_test",
    "vm/many_isolates_blocked_at_ffi_test",
)
@pytest.mark.parametrize(
    "entry", ["block_in_sleep", "block_in_a_lock", "block_in_a_process", "block_in_ctypes", "block_in_a_socket"]
)
def test_many_blocked_isolates_do_not_hold_up_the_end(entry, start):
    """Twenty isolates that are blocked for an hour: all start, and the program ends in time with its exit code."""
    program = start(BLOCKED, entry, 20, "no")
    program.expect("ready")
    begin = time.monotonic()
    program.finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == 9, program.err
    assert "Fatal" not in program.err
    (line,) = [line for line in program.err.splitlines() if line.startswith("subiso:")]
    assert line.count("blocked-") == 20


@pytest.mark.parametrize("entry", ["block_in_sleep", "block_in_a_lock", "block_in_ctypes"])
def test_abandoned_isolates_do_not_hold_up_the_end(entry, start):
    """Isolates that were killed and given up before the end are named, and do not hold it up. A sleep may be woken."""
    abandoned = 0 if SIGNALS_DELIVER_EXCEPTIONS and entry != "block_in_a_lock" else 5
    program = start(BLOCKED, entry, 5, "kill")
    program.expect(str(abandoned))
    program.expect("ready")
    begin = time.monotonic()
    program.finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == 9, program.err
    assert "Fatal" not in program.err
    lines = [line for line in program.err.splitlines() if line.startswith("subiso: the")]
    assert "".join(lines).count("(blocked in C code)") == abandoned


def test_the_warning_where_nothing_has_loaded_logging(start):
    """It is on stderr, as that of `logging` would be, which subiso's own thread does not import for it."""
    program = start(
        """
        import functools, operator, os, sys, threading
        from subiso import Isolate, ReceivePort
        from subiso._kernel import nursery

        def block(out):
            lock = threading.Lock()
            lock.acquire()
            list(map(operator.call, [functools.partial(out.send, 1), lock.acquire]))

        with ReceivePort() as out:
            isolate = Isolate.spawn(block, out.send_port, name="blocked")
            out.receive(20)
            isolate.kill()
            print(isolate.join(20))
        while not any(berth.state == nursery.ABANDONED for berth in nursery._nursery._berths):
            os.sched_yield()
        nursery._nursery._settle(20)
        print("logging" in sys.modules)
        """
    )
    program.finish()
    assert program.out.split() == ["True", "False"], program.err
    assert "isolate 'blocked' could not be stopped, for a call into C does not return" in program.err


def test_paused_isolates_do_not_hold_up_the_end(start):
    """Isolates that are paused, from the start or later, end with the program; the one line names them."""
    program = start(
        """
        import sys
        from subiso import Isolate, ReceivePort

        def live(out):
            port = ReceivePort(end_with_senders=False)
            port.listen(print)
            out.send(1)

        async def alive(out):
            live(out)

        Isolate.spawn(live, None, paused=True, name="never")
        with ReceivePort() as out:
            for entry in (live, alive):
                isolate = Isolate.spawn(entry, out.send_port, name=entry.__name__)
                out.receive()
                isolate.pause()
        print("ready", flush=True)
        sys.exit(6)
        """
    )
    program.expect("ready")
    begin = time.monotonic()
    program.finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == 6, program.err
    assert program.err == "subiso: the program ended while isolates were running: never, live, alive\n"
