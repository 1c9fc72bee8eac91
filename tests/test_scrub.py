"""What an isolate leaves behind in an interpreter that is used again: nothing of its own."""

import os
import sys
import threading

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
