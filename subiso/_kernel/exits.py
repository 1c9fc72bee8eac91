"""The end of the program: in bounded time, with its exit code, whatever its isolates do."""

import os
import sys

from subiso._kernel import interpreters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

PATIENCE = 1.0  # seconds to wait for killed isolates to unwind, and again for interpreters to close

_exit_code = 0
_tool: int | None = None


def say_who_was_running(running: list[str], stuck: list[str]) -> None:
    """Write one line on stderr that names the isolates which the program did not wait for."""
    if not running or sys.stderr is None:
        return
    names = [f"{name} (blocked in C code)" if name in stuck else name for name in running]
    try:
        sys.stderr.write(f"subiso: the program ended while isolates were running: {', '.join(names)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def forward_output(stream: str, text: str) -> None:
    """Write what an isolate printed to main's stream of that name, whatever that is now."""
    target = getattr(sys, stream, None)
    if target is not None:
        target.write(text)


# -- 3.12 ----------------------------------------------------------------------------------------------------------------
# There, argument parsers of compiled modules that an isolate used first keep tuples of that isolate's memory, and the
# process aborts when main frees them in its finalization (tests/test_exits.py shows it with hashlib). An isolate that
# cannot be closed aborts it as well. So once an isolate has lived, the program ends without finalization: after its
# threads, its atexit functions and a flush, with the exit code that it would have had.


def watch_exit_code() -> None:
    """Begin to notice, where `finish` will need it, with which code the program ends: it is not to be had later."""
    global _tool
    if not interpreters.EXIT_NEEDS_HELP or _tool is not None:
        return
    monitoring = sys.monitoring
    for tool in (3, 4, 2, 1, 0):
        if monitoring.get_tool(tool) is None:
            monitoring.use_tool_id(tool, "subiso-exit")
            monitoring.register_callback(tool, monitoring.events.PY_UNWIND, _on_unwind)
            monitoring.set_events(tool, monitoring.events.PY_UNWIND)
            _tool = tool
            return


def _on_unwind(code: "CodeType", offset: int, error: BaseException) -> None:
    global _exit_code
    if code.co_name != "<module>":
        return
    frame = sys._getframe(1)
    if frame.f_globals.get("__name__") != "__main__" or (frame.f_back and frame.f_back.f_globals["__name__"] != "runpy"):
        return
    if isinstance(error, SystemExit):
        value = error.code
        _exit_code = 0 if value is None else value if isinstance(value, int) else 1
    elif not hasattr(sys, "ps1"):
        _exit_code = 130 if isinstance(error, KeyboardInterrupt) else 1


class _LastBreath:
    """Ends the process when it is collected: main's finalization begins by forgetting ``sys.last_value``.

    By then its threads have ended, every atexit function has run and the streams are flushed.
    """

    def __init__(self, code: int) -> None:
        self._code = code

    def __del__(self, end: "Callable[[int], object]" = os._exit) -> None:
        end(self._code)


def finish() -> None:
    """Have the program end before it aborts in its finalization, where it would."""
    if interpreters.EXIT_NEEDS_HELP:
        sys.last_value = _LastBreath(_exit_code & 0xFF)  # type: ignore[assignment]
