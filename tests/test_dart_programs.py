"""Behaviours of other programs in isolates that Dart's tests pin down and that no other file of ours has."""

import array
import threading

import pytest

from subiso import Isolate, ReceivePort, SendError

LONG = 20  # seconds: the bound of a wait that should be over at once

ECHO = "def main(argv, message):\n    port, *values = message\n    for value in values: port.send(value)\n"


@pytest.fixture
def program(tmp_path):
    """Return the path of a program that sends back what it is given."""
    path = tmp_path / "echo_program.py"
    path.write_text(ECHO)
    return path


class Thing:
    def __init__(self, value):
        self.value = value

    def double(self):
        return self.value * 2


@pytest.mark.dart("lib/exit_at_spawnuri_test", "lib/error_at_spawnuri_test", "lib/error_exit_at_spawnuri_test")
def test_errors_and_the_end_of_a_program(tmp_path):
    """The ports given with the start of a program hear of an error in its first line, then of its end."""
    path = tmp_path / "failing_program.py"
    path.write_text("def main(): raise ValueError('at once')\n")
    with ReceivePort() as port:
        Isolate.spawn_path(path, on_error=port.send_port, on_exit=port.send_port)
        (text, traceback), end = port
    assert text == "ValueError: at once"
    assert "failing_program.py" in traceback
    assert end is None


@pytest.mark.dart("lib/spawn_uri_exported_main_test")
def test_a_main_from_another_file(tmp_path):
    """A program's `main` may be one that it imports."""
    (tmp_path / "has_main_of_test_dart_programs.py").write_text(ECHO)
    path = tmp_path / "imports_main.py"
    path.write_text("from has_main_of_test_dart_programs import main\n")
    with ReceivePort() as port:
        Isolate.spawn_path(path, (), [port.send_port, "hello"])
        assert list(port) == ["hello"]


@pytest.mark.dart(
    "lib/issue_24243_parent_isolate_test", "vm/send_list_typed_data_spawn_uri_test", "co19/Isolate.spawnUri"
)
def test_values_for_a_program(program):
    """Lists, dictionaries, send ports and arrays go to another program and come back."""
    values = [[1, [2]], {"a": {"b": 1}}, {1: None}, array.array("d", [1.5, 2]), b"x" * 200_000, (1, {2})]
    with ReceivePort() as port:
        values.append([port.send_port])
        Isolate.spawn_path(program, (), [port.send_port, *values])
        assert list(port) == values


@pytest.mark.dart(
    "lib/issue_21398_parent_isolate_test",
    "lib/issue_21398_parent_isolate1_test",
    "lib/issue_21398_parent_isolate2_test",
    "vm/send_object_to_spawn_uri_isolate_test",
    differs="because classes and functions that the other program cannot find travel by value",
)
def test_objects_for_a_program(program):
    """Objects of classes that the other program does not have, and closures, arrive there, and come home."""
    factor = 3
    with ReceivePort() as port:
        Isolate.spawn_path(program, (), [port.send_port, Thing(2), lambda x: x * factor])
        thing, function = port
    assert type(thing) is Thing
    assert thing.double() == 4
    assert function(5) == 15


@pytest.mark.dart("vm/send_unsupported_objects_spawnuri_test")
def test_what_cannot_be_sent_to_a_program(program):
    """A message for a program that cannot be sent is refused at the call, with the way to the culprit."""
    with pytest.raises(SendError, match=r"\['jobs'\]\[0\]"):
        Isolate.spawn_path(program, (), {"jobs": [threading.Lock()]})
