"""Behaviours of messages and starts that Dart's tests pin down and that no other file of ours has."""

import array
import os
import re

import pytest

from subiso import Isolate, ReceivePort

LONG = 20  # seconds: the bound of a wait that should be over at once


class Item:
    def __init__(self, field=0):
        self.field = field


def give_back(message):
    return message


def there_and_back(message):
    """Send a message to an isolate, which sends it back."""
    return Isolate.run(give_back, message).result(LONG)


@pytest.mark.dart("lib/vm_rehash_test")
def test_hashes_are_those_of_the_copies():
    """Sets and dictionaries of objects that are hashed by identity find the copies."""
    item = Item()
    found, counted, received = there_and_back(({item, Item()}, {item: 1}, item))
    assert received in found
    assert counted[received] == 1
    assert len(found) == 2
    assert item not in found


@pytest.mark.dart("lib/regress_34752_test")
def test_large_integers():
    """A very large integer arrives, and can be computed with."""
    big = 12345678 << 8192 * 8
    received = there_and_back(big)
    assert (received + 1 - 1) >> 8192 * 8 == 12345678


@pytest.mark.dart("lib/regress_flutter_22796_test")
def test_an_array_in_an_attribute():
    """A large array in an attribute of an object arrives."""
    received = there_and_back(Item(array.array("i", range(5 * 1024))))
    assert received.field == array.array("i", range(5 * 1024))


@pytest.mark.dart("lib/issue_22778_test", "lib/function_send_test")
def test_one_function_twice():
    """A function that occurs twice in a message is one function on arrival."""
    for function in (give_back, os.path.join, lambda: 1):
        one, other = there_and_back([function, function])
        assert one is other


@pytest.mark.dart("lib/function_send_test", "lib/function_send1_test", "lib/message4_test")
def test_functions_come_back_as_themselves():
    """A function that can be found by its name is that very function when it comes back."""
    assert there_and_back([os.path.join, Isolate.run, len, str.upper]) == [os.path.join, Isolate.run, len, str.upper]


@pytest.mark.dart("vm/regress_51302_test")
def test_what_cannot_be_changed_may_hold_what_can():
    """A tuple of objects is copied with the objects."""
    original = (Item(),)
    copy = there_and_back(original)
    original[0].field = 1
    assert copy[0].field == 0


@pytest.mark.dart("lib/message_enum_test", "lib/issue_35626_test", "vm/enum_isolate_regress41824_test")
def test_sets_of_members():
    """Sets of members of enumerations arrive, and find the members."""
    flags = {re.RegexFlag.IGNORECASE, re.RegexFlag.MULTILINE}
    received = there_and_back(flags)
    assert received == flags
    assert re.RegexFlag.MULTILINE in received


@pytest.mark.dart("vm/one_regexp_many_workers_test")
def test_one_pattern_for_many():
    """A compiled regular expression can be sent to, and used by, many isolates at once."""
    pattern = re.compile(r"(\w+)@(\w+)")
    futures = [Isolate.run(pattern.findall, f"user{i}@host") for i in range(8)]
    assert [future.result(LONG) for future in futures] == [[(f"user{i}", "host")] for i in range(8)]


@pytest.mark.dart("lib/large_byte_data_leak_test")
def test_failed_sends_leak_nothing(script):
    """Messages that hold large data and something that cannot be sent leave nothing behind."""
    program = script(
        """
        import gc, os, threading
        from subiso import ReceivePort, SendError

        gc.disable()  # what is left in cycles counts, too

        def look():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

        def fail(port, times):
            for _ in range(times):
                try:
                    port.send_port.send([bytearray(4 << 20), threading.Lock()])
                except SendError:
                    continue
                raise AssertionError("it was sent")

        with ReceivePort() as port:
            fail(port, 5)
            before = look()
            fail(port, 100)
            print(*(now - then for now, then in zip(look(), before)))
        """
    )
    grown, descriptors = map(int, program.out.split())
    assert grown < 4 << 20  # one of those hundred
    assert descriptors == 0


@pytest.mark.stress
@pytest.mark.dart("lib/int32_length_overflow_test", "lib/large_byte_data_test")
def test_a_message_beyond_two_gigabytes():
    """A message whose length does not fit 32 bits arrives whole."""
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 20 << 30:
        pytest.skip("needs several copies of 2 GiB")
    size = (1 << 31) + 10

    def measure(data):
        return len(data), data[0], data[-1]

    assert Isolate.run(measure, b"\1" + bytes(size - 2) + b"\2").result(120) == (size, 1, 2)


@pytest.mark.dart(
    "lib/compile_time_error_test",
    differs="because Python compiles a module when it is imported: the error is raised at that line in the isolate.",
)
def test_code_that_cannot_be_loaded(tmp_path, monkeypatch):
    """A module that does not parse is an error that the error port is told of; nothing hangs."""

    def load():
        import broken_module_of_test_dart_messages  # noqa: F401

    (tmp_path / "broken_module_of_test_dart_messages.py").write_text("def broken(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with ReceivePort() as port:
        Isolate.spawn(load, on_error=port.send_port, on_exit=port.send_port)
        (text, traceback), end = port
    assert text.startswith("SyntaxError")
    assert "broken_module_of_test_dart_messages.py" in traceback
    assert end is None


@pytest.mark.dart("lib/timer_isolate_test", "lib/timer_multiple_isolates_test")
def test_timers_of_several_isolates():
    """Each isolate has timers of its own, which fire in order."""

    async def tick(out, name):
        import asyncio

        for i in range(3):
            await asyncio.sleep(0.001)
            out.send((name, i))

    with ReceivePort() as port:
        for name in range(4):
            Isolate.spawn(tick, port.send_port, name)
        ticks = list(port)
    assert sorted(ticks) == [(name, i) for name in range(4) for i in range(3)]
    assert [i for name, i in ticks if name == 2] == [0, 1, 2]


@pytest.mark.dart("lib/mandel_isolate_test")
def test_rows_of_a_picture():
    """The rows of the Mandelbrot set, each computed by an isolate, make the picture."""

    def row(y, size=24):
        def escapes(x):
            z, c = 0j, complex(2.5 * x / size - 2, 2.5 * y / size - 1.25)
            for i in range(50):
                z = z * z + c
                if abs(z) > 2:
                    return i
            return 50

        return [escapes(x) for x in range(size)]

    futures = [Isolate.run(row, y) for y in range(24)]
    assert [future.result(LONG) for future in futures] == [row(y) for y in range(24)]
