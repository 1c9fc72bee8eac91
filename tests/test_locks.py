"""Locks: a Ctrl-C leaves none of them taken."""

import _thread
import signal
import threading
from time import monotonic

import pytest

from subiso._kernel import locks
from subiso._kernel.interpreters import WITH_CAN_BE_TORN

SOME_TIME = 0.5  # seconds, with a signal each few microseconds of them
KINDS = pytest.mark.parametrize("kind", ["Lock", "RLock"])
TORN = pytest.mark.skipif(not WITH_CAN_BE_TORN, reason="`with` is not torn on this version")


def is_free(lock):
    """Whether another thread can take it."""
    taken = []
    acquire = getattr(super(type(lock), lock), "acquire", None) or lock.acquire  # not that of `torn`
    thread = threading.Thread(target=lambda: taken.append(acquire(False)), name="test-taker")
    thread.start()
    thread.join()
    return taken == [True]


def torn(kind):
    """A lock of that kind, in whose taking Ctrl-C comes when it is taken."""

    class Torn(kind):
        def acquire(self, *args):
            taken = super().acquire(*args)
            _thread.interrupt_main()
            return taken

    return Torn()


@KINDS
def test_a_ctrl_c_at_any_time(kind):
    """Whatever it comes in between, the lock is free after it."""
    lock = getattr(locks, kind)()
    armed = True

    def interrupt(*_):
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    end = monotonic() + SOME_TIME
    try:
        while True:
            try:
                while monotonic() < end:
                    signal.setitimer(signal.ITIMER_REAL, 1e-5)
                    for _ in range(1000):  # and again: 3.12 may see a signal late, when another comes just before it
                        with lock:
                            pass
                break
            except KeyboardInterrupt:
                interrupted += 1
            assert not (lock.locked() if hasattr(lock, "locked") else lock._is_owned())
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert is_free(lock)


@TORN
@KINDS
def test_a_ctrl_c_when_it_is_taken(kind):
    lock = torn(getattr(locks, kind))
    with pytest.raises(KeyboardInterrupt), lock:
        pytest.fail("the block has begun")
    assert is_free(lock)


@TORN
def test_a_ctrl_c_when_it_is_taken_again():
    """It stays taken by the block around it, and is free after that."""
    lock = torn(locks.RLock)
    _thread.RLock.acquire(lock)
    with pytest.raises(KeyboardInterrupt), lock:
        pytest.fail("the block has begun")
    assert lock._recursion_count() == 1
    assert not is_free(lock)
    lock.release()
    assert is_free(lock)


def test_a_block_cannot_be_torn_elsewhere():
    """CPython's own: if this fails on 3.14, `WITH_CAN_BE_TORN` is not needed any more; if elsewhere, it is there."""
    left = []

    class Manager:
        __enter__ = _thread.interrupt_main  # in C, and it leaves the signal to the interpreter

        def __exit__(self, *_):
            left.append(self)

    with pytest.raises(KeyboardInterrupt), Manager():
        for _ in range(100):  # where the signal is handled
            pass
    assert bool(left) == (not WITH_CAN_BE_TORN)
