"""What threads are called by the system: in ps and top, in debuggers and pystack, in /proc/self/task/*/comm."""

import os

_LONGEST = 15  # bytes


def name_thread(name: str) -> None:
    """Give the thread that calls this a name, as far as there is room for it; where that is impossible, do nothing.

    Through /proc: Python itself does that from 3.14 on only, and an isolate need not load ctypes for it.
    """
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
