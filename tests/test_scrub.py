"""What an isolate leaves behind in an interpreter that is used again: nothing of its own."""

import os
import sys
import threading
import time

import pytest

from subiso import Isolate
from subiso._kernel import nursery
from subiso._kernel.limits import Limits

PATIENCE = 30  # seconds; an upper bound

PROBE = """
def look():
    import atexit, builtins, contextvars, copyreg, decimal, logging, os, random, sys, threading, warnings

    import subiso_probe_package

    return {
        "main": sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__")),
        "module": subiso_probe_package.state,
        "submodule": "subiso_probe_package.inner" in sys.modules,
        "made-up module": "subiso_made_up" in sys.modules,
        "path": "/poison" in sys.path,
        "argv": sys.argv,
        "environ": os.environ.get("SUBISO_POISON"),
        "lost variable": "SUBISO_LOST" in os.environ,
        "filters": [entry[1].pattern for entry in warnings.filters if entry[1] and "poison" in entry[1].pattern],
        "showwarning": warnings.showwarning.__module__,
        "handlers": [type(handler).__name__ for handler in logging.getLogger().handlers],
        "level": logging.getLogger().level,
        "child": logging.getLogger("poison").handlers,
        "disabled": logging.root.manager.disable,
        "precision": decimal.getcontext().prec,
        "default precision": decimal.DefaultContext.prec,
        "threads": sorted(thread.name for thread in threading.enumerate() if thread.name == "poison"),
        "trace": threading.gettrace(),
        "local": getattr(subiso_probe_package.local(), "value", None),
        "builtin": hasattr(builtins, "poison"),
        "hash": builtins.hash("x") == "x".__hash__(),
        "stdout": sys.stdout is sys.__stdout__ or type(sys.stdout).__name__,
        "excepthook": sys.excepthook is sys.__excepthook__,
        "limit": sys.getrecursionlimit(),
        "hooks": len(sys.meta_path),
        "variables": [variable.name for variable in contextvars.copy_context() if variable.name == "poison"],
        "interpreter": id(sys),
    }


def poison():
    import atexit, builtins, contextvars, decimal, logging, os, random, sys, threading, types, warnings

    import subiso_probe_package
    import subiso_probe_package.inner

    sys.modules["__main__"].poison = 1
    subiso_probe_package.state = "poisoned"
    sys.modules["subiso_made_up"] = types.ModuleType("subiso_made_up")
    sys.path.insert(0, "/poison")
    sys.argv.append("poison")
    os.environ["SUBISO_POISON"] = "1"
    del os.environ["SUBISO_LOST"]
    warnings.filterwarnings("error", "poison")
    warnings.showwarning = poison
    logging.basicConfig(level=logging.DEBUG)
    logging.getLogger("poison").addHandler(logging.StreamHandler())
    logging.disable(logging.CRITICAL)
    decimal.getcontext().prec = 3
    decimal.DefaultContext.prec = 4
    contextvars.ContextVar("poison").set(1)
    subiso_probe_package.local().value = "poisoned"
    threading.settrace(lambda *_: None)
    thread = threading.Thread(target=len, args=("",), name="poison")
    thread.start()
    builtins.poison = 1
    builtins.hash = lambda _: 99
    sys.stdout = None
    sys.excepthook = print
    sys.setrecursionlimit(123)
    sys.meta_path.append(types.SimpleNamespace(find_spec=lambda *_: None))
    random.seed(1)
    atexit.register(os.write, subiso_probe_package.pipe, b"x")
    return True


def numbers():
    import random

    return [random.random() for _ in range(4)]
"""

PACKAGE = """
import threading

state = "fresh"
pipe = {pipe}
_locals = threading.local()


def local():
    # kept in a module of the standard library, which stays loaded
    if not hasattr(threading, "subiso_local"):
        threading.subiso_local = threading.local()
    return threading.subiso_local
"""


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Give a module of the user's, and the reading end of a pipe that its atexit function writes to."""
    reader, writer = os.pipe()
    package = tmp_path / "subiso_probe_package"
    package.mkdir()
    (package / "__init__.py").write_text(PACKAGE.format(pipe=writer))
    (package / "inner.py").write_text("")
    (tmp_path / "subiso_probe.py").write_text(PROBE)
    monkeypatch.setenv(
        "SUBISO_LOST", "there"
    )  # the environment as C code sees it is the process's: no other is removed
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "subiso_probe", raising=False)
    import subiso_probe

    yield subiso_probe, reader
    os.close(reader)
    os.close(writer)


@pytest.fixture
def one_interpreter(monkeypatch):
    """Have isolates use the same interpreter one after the other."""
    monkeypatch.setattr(Limits, "spares", 0)
    Isolate.run(len, "").result(PATIENCE)
    nursery._nursery.retire_idle(PATIENCE)


def test_a_poisoned_interpreter_shows_nothing_of_it(probe, one_interpreter):
    """Whatever an isolate changes of what is reset, the next one in the same interpreter sees as before."""
    module, reader = probe
    before = Isolate.run(module.look).result(PATIENCE)
    assert before["module"] == "fresh"
    assert Isolate.run(module.poison).result(PATIENCE) is True
    assert os.read(reader, 1) == b"x"  # atexit functions have run, at the end of their isolate
    after = Isolate.run(module.look).result(PATIENCE)
    assert after == before


def test_random_numbers_are_not_the_last_isolate_s(probe, one_interpreter):
    """The state of `random` does not outlive an isolate."""
    module, _ = probe
    Isolate.run(module.poison).result(PATIENCE)
    assert Isolate.run(module.numbers).result(PATIENCE) != Isolate.run(module.numbers).result(PATIENCE)


def test_what_main_changes_the_next_isolate_sees(monkeypatch):
    """An isolate starts with its creator's path, arguments and environment as they are now."""

    def look():
        import os
        import sys

        return os.environ.get("SUBISO_NEW"), "/subiso/new" in sys.path, sys.argv

    monkeypatch.setenv("SUBISO_NEW", "1")
    monkeypatch.syspath_prepend("/subiso/new")
    monkeypatch.setattr(sys, "argv", ["new"])
    assert Isolate.run(look).result(PATIENCE) == ("1", True, ["new"])


def look_for(name):
    """Import a module; return what it says, in which interpreter, and which finder looked in which directory."""
    import importlib
    import sys

    try:
        value = importlib.import_module(name).value
    except ImportError:
        value = None
    return value, id(sys), {path: id(finder) for path, finder in sys.path_importer_cache.items()}


def look_twice(name):
    """Have two isolates look for a module, one after the other in the same interpreter; return what they found."""
    while True:  # another interpreter is made where the first is not free in time
        first, again = (Isolate.run(look_for, name).result(PATIENCE) for _ in range(2))
        if first[1] == again[1]:
            return first, again


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """Give a function that makes a directory of the path, with a package in it, look as if unchanged for an hour."""
    package = tmp_path / "subiso_settled"
    package.mkdir()
    (package / "__init__.py").write_text("value = 1")
    (package / "inner.py").write_text("value = 2")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "__pycache__").mkdir()

    def settle(age=3600):
        for directory in (tmp_path, package):
            os.utime(directory, (time.time() - age,) * 2)
        return str(tmp_path), str(package)

    return settle


@pytest.mark.parametrize("age", [0, 3600])
def test_a_module_made_after_one_isolate_has_looked_for_it_is_found_by_the_next(settled, one_interpreter, age):
    """What a directory held is not remembered where that could hide a change, however soon it comes."""
    for number in range(20):
        directory, package = settled(age)
        names = f"subiso_late_{number}", f"subiso_settled.late_{number}"
        assert [Isolate.run(look_for, name).result(PATIENCE)[0] for name in names] == [None, None]
        for place, name in zip((directory, package), names, strict=True):
            with open(f"{place}/{name.rpartition('.')[2]}.py", "w") as file:
                file.write("value = 3")
        assert [Isolate.run(look_for, name).result(PATIENCE)[0] for name in names] == [3, 3]


def test_a_directory_that_does_not_change_is_read_once(settled, one_interpreter):
    """The finders of what is on the path stay, as those of the standard library do; others do not."""
    places = settled()
    first, again = look_twice("subiso_settled.inner")
    assert first[0] == again[0] == 2
    assert [first[2][place] for place in places] == [again[2][place] for place in places]
    settled(age=0)
    look_twice("subiso_settled.inner")
    _, again = look_twice("subiso_settled")
    assert places[1] not in again[2]  # nobody has asked for what is in the package


def test_a_finder_of_an_isolate_s_own_does_not_stay(settled, one_interpreter):
    """What looks for modules in another way than usual goes with the isolate that brought it."""

    def bring(path):
        import sys
        from importlib.machinery import FileFinder, SourcelessFileLoader

        finder = FileFinder(path, (SourcelessFileLoader, [".odd"]))
        sys.path_importer_cache[path] = finder
        return finder.find_spec("subiso_settled").loader is None

    assert Isolate.run(bring, settled()[0]).result(PATIENCE)
    assert Isolate.run(look_for, "subiso_settled").result(PATIENCE)[0] == 1


def test_an_isolate_that_breaks_the_interpreter_costs_only_that(one_interpreter):
    """What cannot be scrubbed is not used again; the next isolate gets another interpreter."""

    def vandalize():
        import gc
        import sys

        sys.path = None
        sys.meta_path = ()
        gc.collect = None

    Isolate.run(vandalize).result(PATIENCE)
    assert Isolate.run(sum, [1, 2]).result(PATIENCE) == 3


def test_no_thread_of_the_kernel_is_the_user_s():
    """Inside, only the isolate's own threads and the kernel's are listed."""

    def names():
        return sorted(thread.name for thread in threading.enumerate())

    assert [
        name for name in Isolate.run(names).result(PATIENCE) if not name.startswith(("subiso-", "MainThread"))
    ] == []


def test_what_an_installed_package_registers_as_it_is_imported_runs_at_the_interpreters_end(script, tmp_path):
    """A package stays loaded, so it is not taken apart when an isolate ends; what its functions register runs then."""
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "registering.py").write_text(
        "import atexit\nstate = ['whole']\natexit.register(state.clear)\n"
        "def register():\n    atexit.register(print, 'registered by a function', flush=True)\n"
    )
    program = script(
        f"""
        import sys
        from subiso import Isolate, configure

        sys.path.append({str(package)!r})
        configure(spares=0)

        def use():
            import registering
            registering.register()
            return registering.state

        print(Isolate.run(use).result(60), flush=True)
        print(Isolate.run(use).result(60), flush=True)
        """
    )
    assert program.out.count("['whole']") == 2
    assert "registered by a function" in program.out
