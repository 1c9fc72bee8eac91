"""What threads are called by the system: in ps and top, in debuggers and pystack, in /proc/self/task/*/comm."""

import os

from subiso._kernel.interpreters import set_thread_name

_LONGEST = 15  # bytes


def name_thread(name: str) -> None:
    """Give the thread that calls this a name, as far as there is room for it; where that is impossible, do nothing.

    Before 3.14 through /proc: an isolate need not load ctypes for it.
    """
    if set_thread_name is not None:
        try:
            set_thread_name(name)
        except (OSError, ValueError):
            pass
        return
    try:
        descriptor = os.open("/proc/thread-self/comm", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(descriptor, name.encode("utf-8", "replace")[:_LONGEST])
    except OSError:
        pass
    finally:
        os.close(descriptor)
