"""Where isolates, and the workers of a pool, stand.

`sys._current_frames` is of no use: on every version it walks through the threads of all interpreters, and makes frame
objects of theirs without their GIL; the process then aborts. `faulthandler` only reads, and does so in the thread that
is asked, which is therefore sent a signal. So a worker that holds its GIL in C code can be asked as well.
"""

import ctypes
import faulthandler
import os
import re
import signal
import traceback
from time import monotonic, sleep

from subiso._kernel import locks
from subiso._kernel import node as nodes
from subiso.sending import check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subiso.crew import Crew

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')
_LOOK = 0.002  # seconds between two looks at what has been written

_lock = locks.Lock()  # one thread is asked at a time: all write to the same file
_descriptor: int | None = None


def ask(crew: "Crew", timeout: float | None) -> str:
    """Return where each worker stands; those that do not answer in ``timeout`` seconds are said to."""
    parts = []
    for name, task, thread in crew.at_work():
        stack = _stack_of(thread, timeout) if thread and crew.node.slot == nodes.MAIN else None
        parts.append(f"{name}, {f'running {task}' if task else 'idle' if thread else 'starting'}:\n")
        parts.append("  no answer\n" if stack is None else stack or "  waiting\n")
    return "".join(parts)


def dump_stacks(timeout: float = 1.0) -> str:
    """Return where every isolate of the process stands, as text with a traceback for each.

    Isolates that are stuck in C code, or were abandoned to it, are seen, too. Each one's thread is sent a signal, whose
    handler is faulthandler's: system calls of C code may be interrupted. Threads that an isolate has started itself are
    not asked.

    Args:
        timeout: seconds to wait for each isolate's answer.

    Raises:
        RuntimeError: this is not main, which alone can ask.
        ValueError: ``timeout`` is negative.
    """
    from subiso._kernel import nursery

    check_timeout(timeout)
    if nodes.current().slot != nodes.MAIN:
        raise RuntimeError("only main can ask where isolates stand")
    parts = []
    for name, state, thread in nursery.threads():
        stack = _stack_of(thread, timeout) if thread else "  starting\n"
        parts.append(f"{name}, {state}:\n{'  no answer\n' if stack is None else stack or '  waiting\n'}")
    return "".join(parts)


def _stack_of(thread: int, timeout: float | None) -> str | None:
    """Return the stack of a thread, the innermost call last, without subiso's own part; None: it does not say."""
    deadline = None if timeout is None else monotonic() + timeout
    with _lock:
        number, descriptor = _prepare()
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        if ctypes.CDLL(None).tgkill(os.getpid(), thread, number):  # it has ended meanwhile
            return None
        size, quiet = 0, 0
        while quiet < 3:  # the handler does not say when it is done
            if deadline is not None and monotonic() > deadline:
                return None
            sleep(_LOOK)
            now = os.fstat(descriptor).st_size
            quiet = quiet + 1 if now == size > 0 else 0
            size = now
        return _format(os.pread(descriptor, size, 0).decode("utf-8", "replace"))


def _prepare() -> tuple[int, int]:
    """Have a signal handled by writing the stack of the thread that it is sent to; return its number and the file.

    For ever: a signal that comes late must not meet the default, which ends the process.
    """
    global _descriptor
    number = signal.SIGRTMAX - 3
    if _descriptor is None:
        descriptor = os.memfd_create("subiso-stacks")
        faulthandler.register(number, descriptor, all_threads=False)
        _descriptor = descriptor
    return number, _descriptor


def _format(dump: str) -> str:
    stack = [(file, int(line) if line.isdigit() else 0, name) for file, line, name in _FRAME.findall(dump)]
    stack.reverse()
    ours = [file.startswith(_PACKAGE) for file, _, _ in stack]
    first = ours.index(True) if True in ours else 0  # before that, the standard library starts the thread
    users = [(*frame, None) for frame, own in zip(stack[first:], ours[first:], strict=True) if not own]
    return "".join(traceback.format_list(users))
