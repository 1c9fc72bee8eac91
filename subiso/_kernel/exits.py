"""The end of the program: in bounded time, with its exit code, whatever its isolates do."""

import os
import sys
import warnings
from _thread import allocate_lock, get_native_id, start_new_thread

from subiso._kernel import interpreters
from subiso._kernel.insisting import report
from subiso._kernel.naming import name_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

GRACE = 0.05  # seconds that isolates which are about to end are given to do so
PATIENCE = 1.0  # seconds to wait for killed isolates to unwind, and then for interpreters to close
_REMAINING = "remaining subinterpreters"

_exit_code = 0
_interrupted = False  # whether that code is for a Ctrl-C that nobody caught
_tool: int | None = None


def say_who_was_running(running: list[str], stuck: list[str]) -> None:
    """Write one line on stderr that names the isolates which the program did not wait for."""
    if not running:
        return
    names = [f"{name} (blocked in C code)" if name in stuck else name for name in running]
    _write_line(f"subiso: the program ended while isolates were running: {', '.join(names)}")


def warn(text: str) -> None:
    """Log a warning, or write what `logging` would if the program has not loaded it: the broker imports nothing."""
    get_logger = getattr(sys.modules.get("logging"), "getLogger", None)
    if get_logger is not None:
        get_logger("subiso").warning("%s", text)
    else:
        _write_line(text)


def _write_line(text: str) -> None:
    """Write a line on stderr, if there is one that takes it."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def forward_output(stream: str, text: str) -> None:
    """Write what an isolate printed to main's stream of that name, whatever that is now."""
    target = getattr(sys, stream, None)
    if target is not None:
        target.write(text)


class Undisturbed:
    """Calls a function once, in a thread of its own, where no signal's handler raises.

    What main has to do at its end must not be torn by another Ctrl-C: interpreters would be left, over which its
    finalization hangs or aborts. So main only waits, however often it is interrupted.
    """

    def __init__(self, function: "Callable[[], object]") -> None:
        self._function = function
        self._pid = os.getpid()
        self._begun, self._go, self._done = allocate_lock(), allocate_lock(), allocate_lock()
        self._go.acquire()
        self._done.acquire()
        self._is_done = False
        self._has_thread = False
        if not interpreters.THREADS_AT_EXIT:
            self._start()

    def _start(self) -> None:
        try:
            start_new_thread(self._call, ())
            self._has_thread = True
        except RuntimeError:  # none to be had
            pass

    def run(self) -> None:
        """Have the function called, unless that was done, and wait for it; not in a forked child.

        Ctrl-C may tear this at its first instruction, where nothing can be caught: call it twice.
        """
        while not self._is_done and os.getpid() == self._pid:
            try:
                if not self._has_thread:
                    self._start()
                if self._go.locked():
                    self._go.release()
                if not self._has_thread:
                    self._call()
                self._done.acquire(timeout=1)
            except BaseException:  # Ctrl-C, once more; what is waited for ends in a bounded time
                continue

    def _call(self) -> None:
        if get_native_id() != os.getpid():  # else no thread was to be had, and this is main's
            name_thread("subiso-exit")
        self._go.acquire()
        if self._begun.acquire(False):
            try:
                self._function()
            except BaseException as error:  # said before main goes on to its finalization
                report(error)
            finally:
                self._is_done = True
                self._done.release()


# -- an end without finalization ---------------------------------------------------------------------------------------
# An interpreter that cannot be closed, because a call into C does not return, makes main's finalization abort, hang or
# complain, on every version. On 3.12 it may abort once any isolate has lived: argument parsers of compiled modules that
# an isolate used first keep tuples of that isolate's memory, which main then frees (tests/test_exits.py shows it with
# hashlib). Then the program ends just before that: after its threads, its atexit functions and a flush, with the exit
# code that it would have had, which is not to be had any more by then, and is therefore noticed when the main module
# unwinds.


def watch_exit_code() -> None:
    """Begin to notice with which code the program ends. It costs a call for each frame that an exception leaves."""
    global _tool
    if _tool is not None:
        return
    monitoring = sys.monitoring
    for tool in (3, 4, 2, 1, 0):
        if monitoring.get_tool(tool) is None:
            monitoring.use_tool_id(tool, "subiso-exit")
            monitoring.register_callback(tool, monitoring.events.PY_UNWIND, _on_unwind)
            monitoring.set_events(tool, monitoring.events.PY_UNWIND)
            _tool = tool
            return


def was_interrupted() -> bool:
    """Return whether the main module has ended by Ctrl-C."""
    return _interrupted


def _on_unwind(code: "CodeType", offset: int, error: BaseException) -> None:
    global _exit_code, _interrupted
    if code.co_name != "<module>":
        return
    frame = sys._getframe(1)
    if frame.f_globals.get("__name__") != "__main__" or (
        frame.f_back and frame.f_back.f_globals["__name__"] != "runpy"
    ):
        return
    if isinstance(error, SystemExit):
        value = error.code
        _exit_code = 0 if value is None else value if isinstance(value, int) else 1
    elif not hasattr(sys, "ps1"):
        _interrupted = isinstance(error, KeyboardInterrupt)
        _exit_code = 130 if _interrupted else 1


def _end(code: int, end: "Callable[[int], object]" = os._exit) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    end(code)


class _LastBreath:
    """Ends the process when it is collected: before 3.14, finalization begins by forgetting ``sys.last_value``."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __del__(self, end: "Callable[[int], object]" = _end) -> None:
        end(self._code)


def _remind_of_interrupt() -> None:
    """Make CPython know again that Ctrl-C ends the program.

    It keeps that in one variable of the process, which every interpreter that begins to run a text sets back (3.13);
    a text that ends with KeyboardInterrupt sets it.
    """
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        pass


def finish(everything_closed: bool) -> None:
    """Have the program end before its finalization goes wrong, where it would."""
    if _interrupted:
        _remind_of_interrupt()
    if everything_closed and (_tool is None or not interpreters.EXIT_NEEDS_HELP):
        return
    code = _exit_code & 0xFF
    sys.last_value = _LastBreath(code)  # type: ignore[assignment]

    # From 3.14 on, finalization begins with a warning about the interpreters that are left.
    def on_warning(message: Warning | str, *details: object, **more: object) -> None:
        if _REMAINING in str(message):
            _end(code)

    warnings.filterwarnings("always", _REMAINING, RuntimeWarning)
    warnings.showwarning = on_warning
