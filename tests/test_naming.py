"""What the system calls the threads of isolates."""

import os
import threading
from pathlib import Path

from subiso import Isolate, ReceivePort
from subiso._kernel.naming import name_thread

LONG = 20


def own_name():
    return Path("/proc/thread-self/comm").read_text().rstrip("\n")


def tell(port):
    with ReceivePort(end_with_senders=False) as wait:
        port.send((wait.send_port, own_name()))
        wait.receive()


def names():
    return [Path(f"/proc/self/task/{task}/comm").read_text().rstrip("\n") for task in os.listdir("/proc/self/task")]


def test_an_isolate_is_found_by_its_name():
    """The thread that runs an isolate's code has the isolate's name, as far as fifteen bytes go."""
    with ReceivePort() as port, Isolate.spawn(tell, port.send_port, name="a parser of access logs"):
        wait, said = port.receive(LONG)
        found = names()
        wait.send(None)
    assert said == "a parser of acc"
    assert said in found
    assert "subiso-broker" in found


def test_names_that_do_not_fit():
    """Any text is a name, cut between two bytes if need be; it never fails."""
    found = []

    def try_names():
        for name in ("", "ä" * 20, "\udc80", "ok"):
            name_thread(name)
        found.append(own_name())

    thread = threading.Thread(target=try_names)
    thread.start()
    thread.join()
    assert found == ["ok"]
