"""What the tests of Dask run in isolates: in a module of its own, so that the isolates need not import Dask for it."""

import concurrent.futures
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
