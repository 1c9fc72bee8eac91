"""What the tests of Dask run in isolates.

In a module of its own, so that the isolates need not import Dask for it, and that worker processes find it: they have
the ``sys.path`` of this program, but do not know the name that pytest gives a file of tests.
"""

import concurrent.futures
import os
import sys
import threading
import time

from subiso import Isolate, ReceivePort


def name_of_isolate(*_):
    return Isolate.current().name


def look():
    return Isolate.current().name, "dask" in sys.modules


def show(*args, **keywords):
    return args, keywords


def fail():
    raise LookupError("not there", 3)


def leave(kind):
    raise kind("enough")


def fail_as_if_cancelled():
    raise concurrent.futures.CancelledError("mine")


def make_what_cannot_be_sent():
    return threading.Lock()


def die():
    Isolate.current().kill()
    while True:
        pass


def endless():
    while True:
        pass


def wait(port):
    """Say so, and run for ever; say when unwound."""
    try:
        port.send("running")
        while True:
            pass
    finally:
        port.send("unwound")


def block(port):
    """Say so, and block in C code, of which nothing can wake it before Python 3.15."""
    port.send("running")
    time.sleep(1)


def answer(port):
    """Send a port, and return what is sent there."""
    with ReceivePort(end_with_senders=False) as mine:
        port.send(mine.send_port)
        return mine.receive()


def come(here):
    """Tell the test which process this is."""
    file = os.open(here, os.O_WRONLY)
    os.write(file, b"%d\n" % os.getpid())
    os.close(file)


def meet(paths, result):
    """Come to a meeting, and return when the test says so, with the number of the process."""
    here, go = paths
    come(here)
    file = os.open(go, os.O_RDONLY)
    os.read(file, 1)
    os.close(file)
    return result, os.getpid()


def place(*_):
    """Return where this runs: the isolate and the process."""
    return Isolate.current().name, os.getpid()
