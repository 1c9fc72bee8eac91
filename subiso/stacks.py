"""Where the threads of an isolate stand."""

import os
import sys
import threading

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
TYPE_CHECKING = False
if TYPE_CHECKING:
    from traceback import FrameSummary

_OURS = "subiso-"  # threads of the package's own, but for the one that runs what the user wants
_BODY = "subiso-body"


def describe() -> str:
    """Return the stacks of this interpreter's threads, the innermost call last, without those of subiso's own."""
    import traceback

    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or (thread.name.startswith(_OURS) and thread.name != _BODY):
            continue
        title = "" if thread.name == _BODY else f"thread {thread.name!r}:\n"
        stack = _users_part(traceback.extract_stack(frame))
        parts.append(title + ("".join(traceback.format_list(stack)) or "  waiting\n"))
    return "\n".join(parts)


def _users_part(stack: "list[FrameSummary]") -> "list[FrameSummary]":
    """Return the part that is the user's: what the package has called, without what it does itself."""
    ours = [frame.filename.startswith(_PACKAGE) for frame in stack]
    first = ours.index(True) if True in ours else 0
    return [frame for frame, own in zip(stack[first:], ours[first:], strict=True) if not own]
