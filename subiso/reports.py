"""What isolates report to main: log records, and warnings.

With its job an isolate is told which levels of loggers and which warnings filters are in force where it was started.
What passes them there is sent to a port of main's at a fixed place, and main's own handlers and filters see it as if it
came from a thread of main's. Reports are messages: those of work that has ended come before its result.
"""

import _pickle
import os
import sys
import warnings
from _thread import get_ident
from time import monotonic, sleep

from subiso import messages
from subiso._kernel import leftovers, parcels
from subiso._kernel import node as nodes
from subiso._kernel.arena import address_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from subiso._kernel.node import Node
    from subiso._kernel.waitables import Inbox

    type Levels = tuple[int, int, dict[str, int]]  # the root logger's, what is disabled, other loggers'
    type Pattern = str | tuple[str, int] | None
    type Filter = tuple[str, Pattern, tuple[str, str], Pattern, int]

RECORD, WARNING = "record", "warning"
_PATIENCE = 0.5  # seconds that a result waits for reports which another thread is handling
_LOOK = 0.0002  # seconds between looks whether it is
_BUILTINS = "builtins"
_ADDRESS = address_of(nodes.MAIN, 0, nodes.REPORTS)

_last: "tuple[Levels | None, list[Any], bytes] | None" = None
_inherited: "Levels | None" = None  # of this isolate, for those that it starts while it has no logging itself
_taker: dict[None, int] = {}  # the thread that handles reports


# -- where an isolate is started ---------------------------------------------------------------------------------------


def capture() -> bytes:
    """Return what is in force here, as bytes; taken anew only when something has changed."""
    global _last
    node = nodes.current()
    if node.slot == nodes.MAIN and "reports" not in node.locals:
        _open(node)
    levels = sys.modules["subiso.records"].levels() if "subiso.records" in sys.modules else _first_levels()
    filters: Any = warnings.filters
    if _last is None or _last[0] != levels or _last[1] != filters:
        _last = levels, list(filters), _pickle.dumps((levels, _plain(filters)), 5)
    return _last[2]


def _first_levels() -> "Levels | None":
    if "logging" not in sys.modules:
        return _inherited
    from subiso import records

    return records.levels()


def _plain(filters: "list[Any]") -> "list[Filter]":
    """Return warnings filters as data: a category may be of a module that the isolate never loads."""
    return [
        (action, _pattern(message), (category.__module__, category.__qualname__), _pattern(module), line)
        for action, message, category, module, line in list(filters)
    ]


def _pattern(pattern: "Any") -> "Pattern":
    return pattern if pattern is None or isinstance(pattern, str) else (pattern.pattern, pattern.flags)


# -- in the isolate ----------------------------------------------------------------------------------------------------


def install(facts: bytes) -> None:
    """Put in force what is in force where this isolate was started, and report from now on."""
    global _inherited
    levels, filters = _pickle.loads(facts)
    _inherited = levels
    warnings.showwarning = _show  # type: ignore[assignment]
    if filters != _plain(warnings.filters):  # type: ignore[arg-type]
        _apply(filters)
    if levels is not None:
        if "logging" in sys.modules:
            _forward()
        else:
            leftovers.awaited["logging"] = _forward


def _forward() -> None:
    from subiso import records

    assert _inherited is not None
    records.forward(nodes.current().name, _inherited)


def _apply(filters: "list[Filter]") -> None:
    """Set the filters. Those for categories of modules that are not there come when these are."""
    made: list[Any] = []
    missing = set()
    for action, message, (module_name, name), module, line in filters:
        category: Any = sys.modules.get(module_name)
        for part in name.split("."):
            category = getattr(category, part, None)
        if isinstance(category, type):
            made.append((action, _compiled(message), category, _compiled(module), line))
        else:
            missing.add(module_name)
    own: Any = warnings.filters
    warnings.simplefilter("default", UserWarning)  # any call that tells the C side that the filters have changed
    own[:] = made

    def apply_again() -> None:
        if warnings.filters == made:  # else the isolate has filters of its own
            _apply(filters)

    for module_name in missing:
        leftovers.awaited.setdefault(module_name, apply_again)


def _compiled(pattern: "Pattern") -> "Any":
    if not isinstance(pattern, tuple):
        return pattern
    import re

    return re.compile(*pattern)


def _show(
    message: Warning,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: "Any" = None,
    line: str | None = None,
) -> None:
    """Take the place of `warnings.showwarning`."""
    if file is None:
        from subiso import failures

        send(WARNING, (failures.pack(message), filename, lineno, line))
    else:
        file.write(warnings.formatwarning(message, category, filename, lineno, line))


def send(kind: str, what: object) -> None:
    """Send a report to main.

    Raises:
        SendError: something in it cannot be sent.
    """
    node = nodes.current()
    encoded, body, buffers, carried = messages.encode((kind, node.name, what))
    if carried:
        from subiso.errors import SendError

        raise SendError("reports carry no send ports")
    if "reports" not in node.locals:
        node.locals["reports"] = True
        # Nobody waits for the answer, for which there is no inbox: main's attendant is to pump from now on.
        node.tell(nodes.MAIN, nodes.ASK, node.number, address_of(node.slot, 0, 0), __name__, "attend", b"")
    node.mailbox.send_message(_ADDRESS, encoded, body, buffers)


# -- in main -----------------------------------------------------------------------------------------------------------


def _open(node: "Node") -> None:
    import atexit

    inbox = node.mailbox.open_fixed(nodes.REPORTS)
    node.locals["reports"] = inbox
    inbox.on_event = lambda: _take(node)
    atexit.register(_take_the_rest, node)


def _take_the_rest(node: "Node") -> None:
    if node.pid == os.getpid():  # what is left is not a forked child's
        node.mailbox.pump()


def attend(node: "Node", slot: int, number: int, question: bytes) -> bytes:
    """Have somebody take reports, though nobody may be waiting for anything; called by the broker."""
    from subiso._kernel import attendant as attendants

    attendants.of(node)
    return b""


def _take(node: "Node") -> None:
    """Take the reports that have arrived, unless another thread is about it, which takes these, too.

    Called by any thread that pumps, which is not to suffer from them.
    """
    inbox, own = node.locals["reports"], get_ident()
    while inbox.messages and _taker.setdefault(None, own) == own:  # taken in one step, which Ctrl-C cannot tear
        try:
            _take_all(inbox)
        finally:
            _taker.pop(None, None)


def settle(node: "Node") -> None:
    """Return when what has been reported so far has been handled, though other threads be about it; soon in any case.

    So reports come before the result of the work that made them. A handler may wait for the thread that calls this.
    """
    if "reports" not in node.locals:
        return
    _take(node)
    own, deadline = get_ident(), monotonic() + _PATIENCE
    while _taker.get(None, own) != own and monotonic() < deadline:
        sleep(_LOOK)


def _take_all(inbox: "Inbox") -> None:
    while inbox.messages:
        try:
            message = inbox.messages.popleft()
        except IndexError:  # another thread was quicker
            return
        try:
            kind, isolate, what = messages.decode(*parcels.unpack(*message))
            if kind == RECORD:
                from subiso import records

                records.handle(what)
            else:
                _show_here(isolate, *what)
        except Exception:
            sys.excepthook(*sys.exc_info())


def _show_here(isolate: str, packed: "Any", filename: str, lineno: int, line: str | None) -> None:
    """Show a warning as one of main's own, with the isolate's name behind the line of source."""
    import linecache

    from subiso import failures

    message = failures.unpack(packed)
    message.__cause__ = None
    if not isinstance(message, Warning):
        message = UserWarning(str(message))
    message.isolate = isolate  # type: ignore[attr-defined]
    source = linecache.getline(filename, lineno).strip() if line is None else line
    shown = warnings.WarningMessage(message, type(message), filename, lineno, line=f"{source}  [{isolate}]".strip())
    warnings._showwarnmsg(shown)  # type: ignore[attr-defined]  # what warn calls when a warning has passed the filters
