"""The only file that knows Python versions.

3.14 and later: `concurrent.interpreters`. 3.13: `interpreters-pep-734`. 3.12: the same few calls over the standard
library's private modules (that package's companion for 3.12 is built against the insides of one patch release and can
crash on others, so it is never imported).

Tested on 3.12.1, 3.13.0, 3.14.10 and 3.15.2.
"""

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Interpreter(Protocol):
        """An interpreter of its own: made, run and closed by one and the same thread."""

        def exec(self, code: str, /) -> None: ...
        def close(self) -> None: ...


def check() -> None:
    """Refuse, in one sentence, a Python that has no interpreters with a GIL of their own.

    Raises:
        ImportError: always with the reason.
    """
    if sys.implementation.name != "cpython":
        raise ImportError(f"subiso needs CPython's own interpreters; this is {sys.implementation.name}")
    if sys.version_info < (3, 12):  # noqa: UP036 - somebody may run the source there
        raise ImportError("subiso needs CPython 3.12 or later")
    if sys.platform == "win32":
        raise ImportError("subiso does not run on Windows yet; it needs memory files and pipes of POSIX")
    if "free-threading" in sys.version or not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise ImportError("subiso needs a build with a GIL for each interpreter; on a free-threaded build use threads")


if sys.version_info >= (3, 13):

    def create() -> "Interpreter":
        """Make an interpreter with its own GIL and memory."""
        if sys.version_info >= (3, 14):
            from concurrent import interpreters
        else:
            from interpreters_backport import interpreters
        return interpreters.create()  # type: ignore[no-any-return,unused-ignore]

else:

    class _Interpreter:
        def __init__(self) -> None:
            import _xxsubinterpreters

            self._module = _xxsubinterpreters
            self._id = _xxsubinterpreters.create(isolated=True)

        def exec(self, code: str, /) -> None:
            self._module.run_string(self._id, code)

        def close(self) -> None:
            self._module.destroy(self._id)

    def create() -> "Interpreter":
        """Make an interpreter with its own GIL and memory."""
        return _Interpreter()


# What `create` uses, so that threads which make interpreters import nothing: where Ctrl-C has come in the middle of an
# import by main's first thread, and the program goes on, CPython may hold the import lock for ever. And before 3.14,
# several interpreters that import modules in C for the first time at once abort the process.
if sys.version_info >= (3, 14):
    IMPORT_IN_MAIN_FIRST = ("concurrent.interpreters",)
else:
    IMPORT_IN_MAIN_FIRST = (
        "interpreters_backport.interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters",
        *("_datetime", "_decimal", "_ctypes", "_uuid", "_zoneinfo", "_elementtree"),
    )

# Whether a process in which isolates have lived may abort in its finalization, so that it must end without one.
EXIT_NEEDS_HELP = sys.version_info < (3, 13)

THREADS_AT_EXIT = sys.version_info >= (3, 13)
"""Whether an `atexit` function can start a thread."""

MAP_OPTIONS = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Arguments of `mmap.mmap` with which a mapping keeps no descriptor; on 3.12 each keeps one."""

COPIES_BY_PYINIT = sys.version_info >= (3, 13)
"""Since 3.13 the import machinery runs a single-phase ``PyInit`` in main: a copy's must be called from the isolate."""

JUMPS_CAN_RAISE = sys.version_info >= (3, 14)
"""What a monitoring callback raises at a jump passes by the handlers of that function before 3.14."""

UNGUARDED = frozenset(
    {
        (3, 12): (9, 110, 134, 140),
        (3, 13): (30, 77, 78, 79),
        (3, 14): (27, 75, 76, 77),
        (3, 15): (25, 74, 75, 76),
    }.get(sys.version_info[:2], ())
)
"""The instructions for which the compiler does not always note the handlers around them: NOP and JUMP_*.

By their numbers, because each isolate would pay for `opcode`. On a version that is not known here, where numbers may be
others, none is."""

FRAMES_ARE_OWN = sys.version_info >= (3, 14)
"""Whether `sys._current_frames` leaves other interpreters alone. Before, it makes frame objects of theirs without their
GIL, and the process aborts."""

SIGNALS_DELIVER_EXCEPTIONS = sys.version_info >= (3, 15)
"""Whether a call into C that a signal interrupts raises an asynchronous exception, in isolates too."""

set_thread_name: "Callable[[str], None] | None" = getattr(_thread, "set_name", None)
"""Gives the thread that calls it a name for the system, as much of it as there is room for; since 3.14."""

WITH_CAN_BE_TORN = (3, 14) <= sys.version_info < (3, 15)
"""Whether what a signal's handler raises may come after ``with`` has taken a lock and before its block begins."""

REFUSING_STDLIB: frozenset[str] = frozenset({"_curses", "_curses_panel", "_tkinter"})
"""The standard library's extension modules that cannot be loaded under a GIL of their own."""

if sys.version_info < (3, 13):
    REFUSING_STDLIB |= {
        "_ctypes",
        "_datetime",
        "_decimal",
        "_elementtree",
        "_lsprof",
        "_zoneinfo",
        "nis",
        "ossaudiodev",
        "pyexpat",
    }

IMMORTALS_DRIFT = sys.version_info < (3, 14)
"""Whether an immortal object becomes mortal when a compiled module counts references to it as those of others.

Modules built with a limited API of before 3.12 do so, and in isolates at the same time, so that counts get lost. From
3.14 on the count begins in the middle of what counts as immortal.
"""
