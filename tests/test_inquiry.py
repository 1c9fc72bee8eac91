"""Where isolates stand, asked from main."""

import re
import threading

import pytest

import subiso
from subiso import Isolate, ReceivePort

LONG = 20


def compute(port):
    port.send(port)
    while True:
        pass


def backtrack(port):
    port.send(port)
    re.match("(a+)+$", "a" * 24 + "b")  # C code that keeps the isolate's GIL for a second or more


def ask():
    subiso.dump_stacks()


def test_where_every_isolate_stands():
    """Each isolate is named, with the lines that it is at, its innermost call last."""
    with ReceivePort() as port:
        with (
            Isolate.spawn(compute, port.send_port, name="computer"),
            Isolate.spawn(backtrack, port.send_port, name="b"),
        ):
            port.receive(LONG)
            port.receive(LONG)
            text = subiso.dump_stacks(LONG)
        assert "computer, alive:\n" in text
        assert "in compute" in text
        assert "b, alive:\n" in text
        assert "in backtrack" in text
        assert "worker.py" not in text
    assert "computer" not in subiso.dump_stacks()


def test_a_paused_isolate_waits():
    """An isolate that has not begun is there, and waits."""
    with Isolate.spawn(compute, ReceivePort().send_port, name="paused one", paused=True):
        assert "paused one, " in subiso.dump_stacks(LONG)


def test_many_ask_at_once():
    """Threads that ask at the same time all get the whole answer."""
    with ReceivePort() as port, Isolate.spawn(compute, port.send_port, name="computer"):
        port.receive(LONG)
        texts = []
        threads = [threading.Thread(target=lambda: texts.append(subiso.dump_stacks(LONG))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all("in compute" in text for text in texts)
        assert len(texts) == 4


def test_what_cannot_be_asked():
    """Only main can ask, with a time-out that is one."""
    with pytest.raises(RuntimeError, match="only main"):
        Isolate.run(ask).result(LONG)
    with pytest.raises(ValueError, match="timeout"):
        subiso.dump_stacks(-1)
