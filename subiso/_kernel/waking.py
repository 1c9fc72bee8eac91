"""Waking the threads of a killed isolate that sleep where no Python code runs, so that they can be unwound.

What can be woken
    Conditions of `threading`, and with them events, queues, semaphores and futures: their waiters' locks are released,
    a spurious wake-up of which their code knows how to take care. Event loops of asyncio and trio, by a callback. And,
    from Python 3.15 on, calls into C that a signal interrupts (`time.sleep`, reading and writing, waiting for
    descriptors): there CPython delivers asynchronous exceptions when it looks for signals, in whatever interpreter.

What cannot
    Before 3.15 such calls go on after a signal, for only main's own thread looks further: blocked_call.py in
    docs/explanation/proofs. A lock that nobody releases; code that never comes back to Python. Such isolates are
    abandoned (worker.py).

A hack on CPython's insides, and why it is sound: an asynchronous exception is set only for a thread that was seen to
run nothing for a while, and is taken back before the thread does anything for the kernel.
"""

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum` to give these names, which takes 2 ms
import gc
import sys
import threading

from subiso._kernel.interpreters import SIGNALS_DELIVER_EXCEPTIONS
from subiso._kernel.interrupt import IsolateKilled, claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGNAL = _signal.SIGURG  # nobody sends it, and by default it is ignored


def prepare() -> None:
    """Let the signal interrupt calls. For main; elsewhere than in its first thread it has no effect."""
    if (
        SIGNALS_DELIVER_EXCEPTIONS
        and threading.current_thread() is threading.main_thread()
        and _signal.getsignal(_SIGNAL) == _signal.SIG_DFL
    ):
        _signal.signal(_SIGNAL, _on_signal)


def _on_signal(number: int, frame: object) -> None:
    """Do nothing: that there is a handler makes the system interrupt calls."""


def wake_waits() -> None:
    """Make every wait of this interpreter's own Python code look again."""
    # The kill may come in the middle of their import, when there are no such classes yet.
    loops: Any = getattr(sys.modules.get("asyncio.base_events"), "BaseEventLoop", ())
    queues: Any = getattr(sys.modules.get("trio._core._entry_queue"), "EntryQueue", ())
    for thing in gc.get_objects():
        kind = type(thing)
        if issubclass(kind, threading.Condition):
            for waiter in list(thing._waiters):
                _release(waiter)
        elif issubclass(kind, loops):
            if thing.is_running():
                thing.call_soon_threadsafe(int)
        elif issubclass(kind, queues) and not thing.done:
            thing.run_sync_soon(_cancel_all)


def _cancel_all() -> None:
    """Cancel every task of a trio loop: unlike those of asyncio they do not survive an error in the loop itself."""
    root = sys.modules["trio"].lowlevel.current_root_task()
    for nursery in root.child_nurseries:
        nursery.cancel_scope.cancel()


def _release(lock: "Any") -> None:
    try:
        lock.release()
    except RuntimeError:  # woken already
        pass


def interrupt_calls(threads: list[threading.Thread]) -> None:
    """Have calls into C that sleep in these threads end with an `IsolateKilled`, where CPython can do that."""
    if SIGNALS_DELIVER_EXCEPTIONS:
        for thread in threads:
            if thread.ident is not None and thread.is_alive() and claim(thread.ident):
                _set_error(thread.ident, IsolateKilled)
                _signal.pthread_kill(thread.ident, _SIGNAL)


def spare_this_thread() -> None:
    """Take back what `interrupt_calls` has set for the thread that calls this."""
    if SIGNALS_DELIVER_EXCEPTIONS and "ctypes" in sys.modules:
        _set_error(threading.get_ident(), None)


def _set_error(thread: int, error: type[BaseException] | None) -> None:
    import ctypes

    value = ctypes.c_void_p(None) if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
