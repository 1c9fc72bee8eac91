"""A hang is a failure that says where: the stacks of every thread of every interpreter, then the end.

`sys._current_frames` would abort the process on 3.12 and 3.13. Each thread is sent a signal instead, whose handler is
faulthandler's and writes that thread's stack, also where its interpreter's GIL is held. faulthandler's own watchdog,
which needs no Python to run, stands behind it, should main's GIL be held.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time

EXIT = 70
_SIGNAL = signal.SIGRTMAX - 5


class Watchdog:
    """Ends the process when a round takes too long.

    Args:
        limit: seconds a round may take.
        describe: is called to say what hangs, and notes it.
    """

    def __init__(self, limit: float, describe) -> None:
        self._limit = limit
        self._describe = describe
        self._deadline = float("inf")
        faulthandler.enable()
        faulthandler.register(_SIGNAL, all_threads=False)
        threading.Thread(target=self._watch, name="soak-watchdog", daemon=True).start()

    def feed(self) -> None:
        """A round begins."""
        self._deadline = time.monotonic() + self._limit
        faulthandler.dump_traceback_later(self._limit + 60, exit=True)

    def rest(self) -> None:
        """Nothing is to be watched now."""
        self._deadline = float("inf")
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            if time.monotonic() > self._deadline:
                self._describe(f"a hang: the round took longer than {self._limit:g} s")
                dump()
                os._exit(EXIT)


def dump() -> None:
    """Write the stack of every thread of the process to stderr."""
    sys.stderr.flush()
    own = threading.get_native_id()
    libc = ctypes.CDLL(None)
    for name in sorted(os.listdir("/proc/self/task"), key=int):
        try:
            with open(f"/proc/self/task/{name}/comm") as file, open(f"/proc/self/task/{name}/wchan") as place:
                os.write(2, f"\n-- thread {name} ({file.read().strip()}), in the kernel: {place.read()}\n".encode())
        except OSError:
            continue
        if int(name) == own:
            faulthandler.dump_traceback(all_threads=False)
        elif _is_known(int(name)):
            libc.tgkill(os.getpid(), int(name), _SIGNAL)
            time.sleep(0.05)


def _is_known(thread: int) -> bool:
    """Return whether the thread takes signals: faulthandler's own blocks them all."""
    with open(f"/proc/self/task/{thread}/status") as file:
        blocked = next(line for line in file if line.startswith("SigBlk"))
    return not int(blocked.split()[1], 16) >> (_SIGNAL - 1) & 1
