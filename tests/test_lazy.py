"""Modules that isolates execute when they are used (`subiso._kernel.lazy`), in bare interpreters and in isolates."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from bare import run

from subiso import Isolate, ReceivePort, SendPort

BEGIN = """
import sys, threading
from subiso._kernel import packages
packages.LAZY = {"late": "", "later": "", "parent.child": ""}
from subiso._kernel.lazy import install
install()
executed = sys.executed = []
"""
LATE = "import sys\nsys.executed.append(__name__)\nvalue = 1\nother = 2\n"


def in_interpreter(path: Path, code: str) -> list[object]:
    """Return what the code answers in an interpreter that finds the modules of the path."""
    return run(BEGIN + code, path=path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a directory with modules."""
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "__init__.py").write_text("from . import child\n")
    (tmp_path / "parent" / "child.py").write_text(LATE)
    return tmp_path


def test_imports_execute_nothing(path: Path) -> None:
    """However often and in whatever way the module is imported, and whatever the import machinery asks of it."""
    code = """
import late, late as again, parent.child
from parent import child
import importlib.util
found = importlib.util.find_spec("late")
answer([late is again is sys.modules["late"], child is parent.child is sys.modules["parent.child"]])
answer([late.__name__, late.__file__ == found.origin, late.__spec__ is found, late.__loader__ is found.loader])
answer([repr(late) == repr(again), hasattr(late, "__path__"), child.__package__, isinstance(late, type(sys))])
answer(executed)
"""
    assert in_interpreter(path, code) == [[True, True], ["late", True, True, True], [True, False, "parent", True], []]


@pytest.mark.parametrize(
    "use",
    [
        *("late.value == 1", "late.__dict__['value'] == 1", "vars(late)['other'] == 2", "'value' in dir(late)"),
        *("hasattr(late, 'value')", "not hasattr(late, 'nothing')", "late.__doc__ is None"),
        *("setattr(late, 'value', 3) or late.value == 3", "delattr(late, 'value') or not hasattr(late, 'value')"),
        *("__import__('late', None, None, ['value']).value == 1", "exec('from late import *') or value == 1"),
    ],
)
def test_what_is_asked_of_it_executes_it_once(path: Path, use: str) -> None:
    """From then on it is a module like any other."""
    code = f"""
import late
answer(bool({use}))
late.other
answer([executed, type(late) is type(sys)])
"""
    assert in_interpreter(path, code) == [True, [["late"], True]]


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt"])
def test_what_was_torn_begins_anew(path: Path, error: str) -> None:
    """An error, or an isolate's end, leaves the module as it was before; who asks next has it executed."""
    (path / "late.py").write_text(f"{LATE}if len(sys.executed) == 1: raise {error}('torn')\nrest = 3\n")
    code = f"""
import late
before = dict(object.__getattribute__(late, "__dict__"))
try:
    late.rest
except {error} as error:
    answer(str(error))
answer([object.__getattribute__(late, "__dict__") == before, late.rest, executed])
"""
    assert in_interpreter(path, code) == ["torn", [True, 3, ["late", "late"]]]


def test_threads_wait_until_it_is_whole(path: Path) -> None:
    """One executes it; the other gets an attribute that it has only in the end."""
    (path / "late.py").write_text(f"{LATE}sys.began.set()\nsys.go.wait(60)\nrest = 3\n")
    code = """
sys.began, sys.go, asks = threading.Event(), threading.Event(), threading.Event()
import late
results = []
def ask():
    asks.set()
    results.append(late.rest)
first = threading.Thread(target=lambda: results.append(late.rest))
first.start()
sys.began.wait(60)
second = threading.Thread(target=ask)
second.start()
asks.wait(60)
sys.go.set()
first.join()
second.join()
answer([results, executed])
"""
    assert in_interpreter(path, code) == [[[3, 3], ["late"]]]


def test_a_circle(path: Path) -> None:
    """Modules that use each other while they are executed find each other as far as they are, as imports would."""
    (path / "late.py").write_text(f"{LATE}import later\nsum = later.value + value\nrest = 3\n")
    (path / "later.py").write_text(f"{LATE}import late\nhas = [hasattr(late, 'value'), hasattr(late, 'rest')]\n")
    code = """
import late, later
answer([late.sum, later.has, executed])
"""
    assert in_interpreter(path, code) == [[2, [True, False], ["late", "later"]]]


def test_a_circle_of_threads(path: Path) -> None:
    """Two threads that wait for each other's module find out; one of them goes on with what there is."""
    meeting = "sys.meeting.wait(60)\n"
    (path / "late.py").write_text(f"{LATE}{meeting}import later\nfound = hasattr(later, 'rest')\nrest = 3\n")
    (path / "later.py").write_text(f"{LATE}{meeting}import late\nfound = hasattr(late, 'rest')\nrest = 3\n")
    code = """
sys.meeting = threading.Barrier(2)
import late, later
threads = [threading.Thread(target=lambda module=module: module.value) for module in (late, later)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
answer([sorted([late.found, later.found]), late.rest, later.rest, sorted(executed)])
"""
    assert in_interpreter(path, code) == [[[False, True], 3, 3, ["late", "later"]]]


# -- the modules that are treated so ---------------------------------------------------------------------------------


def in_fresh_isolate(function: Callable[[], object]) -> object:
    """Return what the function returns in an interpreter in which nothing has run before."""
    with ReceivePort[object]() as answers:
        Isolate.spawn(send_result, answers.send_port, function, fresh=True)
        return answers.receive(60)


def send_result(answers: "SendPort[object]", function: Callable[[], object]) -> None:
    answers.send(function())


def kinds_of_parts() -> list[str]:
    import msgspec  # noqa: F401

    return [type(sys.modules[f"msgspec.{name}"]).__name__ for name in ("inspect", "json", "toml", "yaml")]


def use_parts() -> list[object]:
    before = kinds_of_parts()
    import msgspec.json

    answers = [msgspec.json.decode(msgspec.json.encode([1])), msgspec.json.schema(int)]
    return [before, *answers, type(msgspec.inspect.type_info(int)).__name__, kinds_of_parts()]


def name_of(module: ModuleType) -> tuple[str, bool]:
    return module.__name__, module is sys.modules["msgspec.inspect"]


def pass_module_on() -> object:
    kinds = kinds_of_parts()
    inspect = sys.modules["msgspec.inspect"]

    def describe() -> str:
        return type(inspect.type_info(int)).__name__

    return kinds[0], Isolate.run(name_of, inspect).result(60), Isolate.run(describe).result(60)


def test_importing_msgspec_leaves_some_of_it() -> None:
    """Its parts that describe types, or that few need, are not executed, and work when they are used."""
    pytest.importorskip("msgspec")
    lazy = "LazyModule"
    answers = [[1], {"type": "integer"}, "IntType"]
    assert in_fresh_isolate(use_parts) == [[lazy] * 4, *answers, ["module", "module", lazy, lazy]]


def test_they_travel_in_messages() -> None:
    """As modules, and in the globals and cells of functions, before they are executed."""
    pytest.importorskip("msgspec")
    assert in_fresh_isolate(pass_module_on) == ("LazyModule", ("msgspec.inspect", True), "IntType")
