"""Other programs in isolates: files and modules with a `main`."""

import os
import re
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from subiso import Isolate, IsolateSpawnError, ReceivePort, SendError, register

LONG = 20  # seconds: the bound of a wait that should be over at once


@pytest.fixture
def write(tmp_path):
    """Write a file of a program, and return its path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def outcome(start, *args, **options):
    """Start a program to whose end there is an error and an exit; return what it sent, and its uncaught errors."""
    with ReceivePort() as port, ReceivePort() as errors, ReceivePort() as exits:
        start(*args, port.send_port, on_error=errors.send_port, on_exit=exits.send_port, **options)
        assert exits.receive(LONG) is None
        return list(port), [text for text, _ in errors]


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/spawn_uri_test", "lib/spawn_uri_vm_test", "co19/Isolate.spawnUri")
@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        ("argv, message", "argv"),
        ("argv, message, other=3", "argv"),
        ("*args", "args[0]"),
        ("argv, /, message=None", "argv"),
    ],
)
def test_main_with_arguments_and_message(write, parameters, sent):
    """A main that takes them is given the arguments and the message."""
    message = "message" if "message" in parameters else "args[1]"
    path = write("program.py", f"def main({parameters}): {message}.send({sent})")
    assert outcome(Isolate.spawn_path, path, ["a", "b"]) == ([["a", "b"]], [])
    assert outcome(Isolate.spawn_path, str(path), ()) == ([[]], [])


@pytest.mark.dart("co19/Isolate.spawnUri")
@pytest.mark.parametrize("parameters", ["", "argv", "argv=None", "*, option=1"])
def test_main_with_less(write, parameters):
    """A main may leave out the message, or both."""
    path = write(
        "program.py",
        f"""
        import sys
        from subiso import lookup
        def main({parameters}):
            lookup("told").send([sys.argv[1:], {"argv" if "argv" in parameters else None}])
        """,
    )
    with ReceivePort() as told:
        register("told", told.send_port)
        Isolate.spawn_path(path, ["a"])
        assert told.receive(LONG) == [["a"], ["a"] if "argv" in parameters else None]


def test_a_coroutine_function(write):
    """The main of a program may be a coroutine function."""
    path = write(
        "program.py",
        """
        import asyncio
        async def main(argv, port):
            await asyncio.sleep(0)
            port.send(argv)
        """,
    )
    assert outcome(Isolate.spawn_path, path, ["a"]) == ([["a"]], [])


@pytest.mark.dart("lib/spawn_uri_vm_test")
def test_the_surroundings_are_a_scripts(write, monkeypatch):
    """The file is a module of its own name; sys.argv and sys.path are as for a script; neighbours are found."""
    write("sub/neighbour.py", "NAME = __name__")
    path = write(
        "sub/program.py",
        """
        import sys
        import neighbour
        guarded = __name__ == "__main__"
        def main(argv, port):
            port.send([__name__, __file__, guarded, sys.argv, sys.path[0], neighbour.NAME])
            port.send(sys.modules[__name__].main is main)
        """,
    )
    directory = str(path.parent)
    expected = ["program", str(path), False, [str(path), "x"], directory, "neighbour"]
    assert outcome(Isolate.spawn_path, path, ["x"]) == ([expected, True], [])
    monkeypatch.chdir(path.parent)
    expected[3][0] = "program.py"
    assert outcome(Isolate.spawn_path, "program.py", ["x"]) == ([expected, True], [])
    assert directory not in sys.path
    assert Isolate.run(lambda: [directory in sys.path, "program" in sys.modules]).result(LONG) == [False, False]
    assert not list(Path(directory).glob("__pycache__/program*"))


@pytest.mark.parametrize("name", ["threading.py", "__main__.py", "my-program", "two.parts.py"])
def test_a_name_of_another_module(write, name):
    """The name of a module that is loaded already, or no module's name, does no harm."""
    path = write(
        name,
        """
        import sys, threading, __main__
        def main(argv, port):
            port.send([hasattr(threading, "Thread"), __main__ is sys.modules[__name__], __name__ in sys.modules])
        """,
    )
    for _ in range(2):
        assert outcome(Isolate.spawn_path, path, ()) == ([[True, False, True]], [])


def test_classes_of_a_program(write):
    """What a program defines can be sent by it, and comes home as the same class."""
    path = write(
        "program.py",
        """
        class Thing:
            def __init__(self, x): self.x = x
        def main(argv, boot):
            from subiso import ReceivePort
            with ReceivePort() as port:
                boot.send((port.send_port, Thing(3)))
                boot.send(type(port.receive()) is Thing)
        """,
    )
    with ReceivePort() as boot:
        Isolate.spawn_path(path, (), boot.send_port)
        port, thing = boot.receive(LONG)
        assert thing.x == 3
        port.send(thing)
        assert boot.receive(LONG) is True


@pytest.mark.dart("co19/Isolate.spawnUri")
def test_options(write):
    """Programs take the options of `spawn`."""
    path = write("program.py", "from subiso import Isolate\ndef main(argv, port): port.send(Isolate.current())")
    with ReceivePort() as port:
        isolate = Isolate.spawn_path(path, [], port.send_port, name="mine", fresh=True)
        assert port.receive(LONG) == isolate
        assert isolate.name == "mine"
    with pytest.raises(TypeError, match="'nonsense'"):
        Isolate.spawn_path(path, nonsense=3)


@pytest.mark.dart("lib/spawn_uri_multi_test", "lib/spawn_uri_nested_vm_test")
def test_programs_start_programs(write):
    """A program may start others; paths are those of the process."""
    inner = write("inner.py", "def main(argv, port): port.send(argv)")
    outer = write(
        "outer.py",
        """
        from subiso import Isolate
        def main(argv, port):
            Isolate.spawn_path(argv[0], ["from outer"], port)
        """,
    )
    with ReceivePort() as port:
        Isolate.spawn_path(outer, [str(inner)], port.send_port)
        assert port.receive(LONG) == ["from outer"]


# -- modules -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(write, tmp_path, monkeypatch):
    """Give a package on the path whose import is noticed."""
    write("our_package/__init__.py", "import sys\nsys.our_package_was_imported = True\nWHO = 'package'")
    write("our_package/__main__.py", "from . import WHO\ndef main(argv, port): port.send([__name__, WHO])")
    write("our_package/neighbour.py", "NAME = 'neighbour'")
    write(
        "our_package/program.py",
        """
        import sys
        from . import WHO
        from .neighbour import NAME
        def main(argv, port):
            port.send([__name__, __package__, WHO, NAME, sys.argv])
        """,
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "our_package"
    for name in [name for name in sys.modules if name.partition(".")[0] == "our_package"]:
        del sys.modules[name]
    sys.__dict__.pop("our_package_was_imported", None)


def test_a_module(package):
    """A module is imported under its full name over there, and not here."""
    expected = ["our_package.program", "our_package", "package", "neighbour", [str(package / "program.py"), "a"]]
    assert outcome(Isolate.spawn_module, "our_package.program", ["a"]) == ([expected], [])
    assert not hasattr(sys, "our_package_was_imported")


def test_the_name_of_a_modules_isolate(package):
    """`name` is the isolate's name, as everywhere; the module's is given by its place."""
    with ReceivePort() as port:
        isolate = Isolate.spawn_module("our_package.program", (), port.send_port, name="other")
        assert isolate.name == "other"
        assert len(list(port)) == 1


def test_the_main_module_of_a_package(package):
    """Its name is written out; it is not the program's ``__main__``."""
    assert outcome(Isolate.spawn_module, "our_package.__main__", ()) == ([["our_package.__main__", "package"]], [])


def test_a_package_that_finds_its_own_modules(package, write):
    """A package whose path is known only when it is imported."""
    write("elsewhere/hidden.py", "def main(argv, port): port.send(__name__)")
    with (package / "__init__.py").open("a") as file:
        file.write("\n__path__.append(__path__[0] + '/../elsewhere')\n")
    assert outcome(Isolate.spawn_module, "our_package.hidden", ()) == (["our_package.hidden"], [])


# -- what cannot be started: at the call -------------------------------------------------------------------------------


@pytest.mark.dart("co19/Isolate.spawnUri")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def main(:", r"SyntaxError: .*program\.py, line 1"),
        ("return 3", "SyntaxError"),
        ("\0", "null"),
        ("(" * 1000 + ")" * 1000, "nested"),
    ],
)
def test_wrong_syntax(write, text, reason):
    """A file that is no Python is refused at the call, with the place."""
    path = write("program.py", text)
    with pytest.raises(IsolateSpawnError, match=reason):
        Isolate.spawn_path(path)


@pytest.mark.dart("lib/spawn_uri_missing_test", "co19/Isolate.spawnUri")
def test_no_such_file(tmp_path):
    """What cannot be read is refused at the call."""
    with pytest.raises(IsolateSpawnError, match=r"missing\.py: No such file") as caught:
        Isolate.spawn_path(tmp_path / "missing.py")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(IsolateSpawnError, match="Is a directory"):
        Isolate.spawn_path(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read(write):
    """A file without permission is refused at the call."""
    path = write("program.py", "def main(): pass")
    path.chmod(0)
    with pytest.raises(IsolateSpawnError, match="Permission denied"):
        Isolate.spawn_path(path)


@pytest.mark.dart("lib/spawn_uri_missing_from_isolate_test")
def test_missing_from_an_isolate(tmp_path):
    """An isolate that starts a program that is not there gets the error as main does."""
    with pytest.raises(IsolateSpawnError, match="No such file"):
        Isolate.run(Isolate.spawn_path, str(tmp_path / "missing.py")).result(LONG)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module", "no module named 'no_such_module'"),
        ("our_package.no_such_module", "no module named"),
        ("our_package.program.deeper", "ModuleNotFoundError"),
        ("our_package.broken", "SyntaxError"),
        ("__main__", "not the full name"),
        ("", "not the full name"),
        (".relative", "not the full name"),
    ],
)
def test_no_such_module(package, write, name, reason):
    """A module that is not there, or is no Python, is refused at the call."""
    write("our_package/broken.py", "def main(:")
    with pytest.raises(IsolateSpawnError, match=reason):
        Isolate.spawn_module(name)


@pytest.mark.parametrize("start", [Isolate.spawn_path, Isolate.spawn_module])
def test_wrong_arguments(start, write):
    """Arguments are a list of strings, and places are names."""
    program = write("program.py", "def main(): pass") if start == Isolate.spawn_path else "json"
    with pytest.raises(TypeError, match="argv must be a list"):
        start(program, "abc")
    with pytest.raises(TypeError, match="argv must hold strings, not 3"):
        start(program, ["a", 3])
    with pytest.raises(TypeError):
        start(3)
    with pytest.raises(SendError, match=r"^message\['lock'\]: "):
        start(program, [], {"lock": threading.Lock()})


# -- what cannot be started: in the isolate ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 3", "it has no function main"),
        ("main = 3", "its main is not a function, but 3"),
        ("def main(a, b, c): pass", r"main must take \(\), \(argv\) or \(argv, message\), not \(a, b, c\)"),
        ("def main(*, needed): pass", "main must take"),
        ("import no_such_module", "it cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "it cannot be loaded: ZeroDivisionError"),
        ("main = min", "not known what its main takes"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "module"])
def test_what_cannot_be_run(write, tmp_path, monkeypatch, text, reason, kind):
    """What shows only in the isolate is an IsolateSpawnError to the error port, and then the isolate has ended."""
    path = write("our_program.py", text)
    monkeypatch.syspath_prepend(tmp_path)
    start, program = (Isolate.spawn_path, path) if kind == "file" else (Isolate.spawn_module, "our_program")
    sent, (error,) = outcome(start, program, ())
    assert sent == []
    assert error.startswith(f"IsolateSpawnError: {program}: ")
    assert re.search(reason, error)


def test_errors_of_a_program(write):
    """What a running program raises is an error like any other; leaving while it is loaded is none."""
    path = write("program.py", "def main(): raise KeyError('key')")
    assert outcome(Isolate.spawn_path, path, ()) == ([], ["KeyError: 'key'"])
    path = write("program.py", "import sys\nsys.exit(3)")
    assert outcome(Isolate.spawn_path, path, ()) == ([], [])


def test_without_an_error_port(write, capfd):
    """An error that nobody listens to is printed, with the isolate's name."""
    path = write("program.py", "x = 3")
    isolate = Isolate.spawn_path(path, name="mine")
    assert isolate.join(LONG)
    printed = capfd.readouterr().err
    assert "Uncaught error in isolate 'mine'" in printed
    assert "it has no function main" in printed


def test_an_initializer_that_never_ends(write):
    """A program that is being loaded can be killed."""
    path = write("program.py", "from subiso import lookup\nlookup('told').send(1)\nwhile True: pass")
    with ReceivePort() as told:
        register("told", told.send_port)
        with Isolate.spawn_path(path) as isolate:
            told.receive(LONG)
        assert not isolate.is_alive
