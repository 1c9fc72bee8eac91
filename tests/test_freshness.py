"""A fresh isolate is fresh: one that changes all it can is followed, in the same interpreter, by one that sees none."""

import sys

import pytest

from subiso import Isolate, ReceivePort
from subiso._kernel import nursery as nurseries
from subiso._kernel.limits import Limits

LONG = 20  # seconds: the bound of a wait that should be over at once

# What an isolate does, and what the next one looks at; the user's modules `mine` and `mine.inner` are there to import.
POISONS = {
    "__main__": ("import __main__; __main__.poison = 1", "import __main__; seen = hasattr(__main__, 'poison')"),
    "__main__, replaced": (
        "import sys, types; sys.modules['__main__'].__file__ = 'x'; sys.modules['__main__'] = types.ModuleType('x')",
        "import sys; main = vars(sys.modules['__main__']); seen = '__builtins__' in main, main.get('__file__')",
    ),
    "globals of a function": ("global poison; poison = 1", "seen = 'poison' in globals()"),
    "the user's module": ("import mine; mine.value = 'poison'", "import mine; seen = mine.value"),
    "the user's module, imported": (
        "import mine.inner",
        "import sys; seen = 'mine.inner' in sys.modules, 'mine' in sys.modules",
    ),
    "a module made by hand": (
        "import sys, types; sys.modules['made_by_hand'] = types.ModuleType('made_by_hand')",
        "import sys; seen = 'made_by_hand' in sys.modules",
    ),
    "a module of None": ("import sys; sys.modules['mine'] = None", "import mine; seen = mine.value"),
    "warnings, filters": (
        "import warnings; warnings.filterwarnings('error', 'poison'); warnings.simplefilter('error')",
        "import warnings; seen = [str(one) for one in warnings.filters]",
    ),
    "warnings, functions": (
        "import warnings; warnings.showwarning = print; warnings.formatwarning = print",
        "import warnings; seen = warnings.showwarning is print, warnings.formatwarning is print",
    ),
    "logging, handlers": (
        "import logging; logging.basicConfig(level=1); logging.getLogger('x').addHandler(logging.NullHandler())",
        (
            "import logging\n"
            "seen = [str(one) for one in logging.root.handlers], logging.root.level, logging.getLogger('x').handlers"
        ),
    ),
    "logging, levels and filters": (
        (
            "import logging; x = logging.getLogger('x'); x.setLevel(5); x.addFilter(print); x.propagate = False; "
            "x.disabled = True"
        ),
        "import logging; x = logging.getLogger('x'); seen = x.level, x.propagate, x.disabled, x.filters",
    ),
    "logging, disabled": ("import logging; logging.disable()", "import logging; seen = logging.root.manager.disable"),
    "logging, factories": (
        "import logging; logging.setLogRecordFactory(print); logging.setLoggerClass(type('X', (logging.Logger,), {}))",
        "import logging; seen = logging.getLogRecordFactory().__name__, logging.getLoggerClass().__name__",
    ),
    "logging, names of levels": (
        "import logging; logging.addLevelName(10, 'POISON')",
        "import logging; seen = logging.getLevelName(10)",
    ),
    "context variables": (
        "import contextvars; contextvars.ContextVar('poison').set(1)",
        "import contextvars; seen = [one.name for one in contextvars.copy_context() if one.name == 'poison']",
    ),
    "thread-locals": (
        "import json, threading; json.local = threading.local(); json.local.value = 1",
        "import json; seen = hasattr(getattr(json, 'local', None), 'value')",
    ),
    "decimal, the context": (
        "import decimal; decimal.getcontext().prec = 3; decimal.setcontext(decimal.Context(prec=4))",
        "import decimal; seen = decimal.getcontext().prec, str(decimal.Decimal(1) / 3)",
    ),
    "decimal, the default context": (
        "import decimal; decimal.DefaultContext.prec = 5; decimal.DefaultContext.traps[decimal.Inexact] = True",
        "import decimal; new = decimal.Context(); seen = new.prec, new.traps[decimal.Inexact]",
    ),
    "os.environ": (
        "import os; os.environ['POISON'] = '1'; os.environ.pop('SUBISO_LOST')",
        "import os; seen = 'POISON' in os.environ, os.environ['SUBISO_LOST']",
    ),
    "sys.path": ("import sys; sys.path.insert(0, '/poison')", "import sys; seen = list(sys.path)"),
    "sys.path, replaced": ("import sys; sys.path = ['/poison']", "import sys; seen = list(sys.path)"),
    "sys.argv": ("import sys; sys.argv[:] = ['poison']", "import sys; seen = list(sys.argv)"),
    "sys.meta_path": ("import sys; sys.meta_path.insert(0, object())", "import sys; seen = len(sys.meta_path)"),
    "sys.path_hooks": ("import sys; sys.path_hooks.insert(0, print)", "import sys; seen = len(sys.path_hooks)"),
    "the hooks of sys": (
        "import sys; sys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = print",
        "import sys; seen = print in (sys.excepthook, sys.displayhook, sys.unraisablehook, sys.breakpointhook)",
    ),
    "the streams": (
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import sys; seen = sys.stdout is None, sys.stderr is None, type(sys.stdin).__name__",
    ),
    "the limits": (
        "import sys; sys.setrecursionlimit(234); sys.setswitchinterval(1); sys.set_int_max_str_digits(700)",
        "import sys; seen = sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()",
    ),
    "sys.tracebacklimit": ("import sys; sys.tracebacklimit = 0", "import sys; seen = hasattr(sys, 'tracebacklimit')"),
    "sys.dont_write_bytecode": (
        "import sys; sys.dont_write_bytecode = not sys.dont_write_bytecode",
        "import sys; seen = sys.dont_write_bytecode",
    ),
    "tracing": (
        "import sys, threading; sys.settrace(print); threading.settrace(print); threading.setprofile(print)",
        "import sys, threading; seen = sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()",
    ),
    "monitoring": (
        (
            "import json; from sys import monitoring as tools; tools.use_tool_id(1, 'poison'); "
            "line = tools.events.LINE; json.lines = []; "
            "tools.register_callback(1, line, lambda *_: json.lines.append(1)); tools.set_events(1, line)"
        ),
        (
            "import json; from sys import monitoring as tools; lines = getattr(json, 'lines', []); lines.clear(); "
            "json.dumps(1); seen = tools.get_tool(1), lines, tools.use_tool_id(1, 'next'), tools.get_events(1), "
            "tools.free_tool_id(1)"
        ),
    ),
    "threads": (
        "import threading; threading.Thread(target=int).start(); threading.excepthook = print",
        (
            "import threading; seen = [one.name for one in threading.enumerate() if one.name.startswith('Thread-')], "
            "threading.excepthook is print"
        ),
    ),
    "the stack size of threads": (
        "import threading; threading.stack_size(65536)",
        "import threading; seen = threading.stack_size()",
    ),
    "builtins, new": ("import builtins; builtins.poison = 1", "import builtins; seen = hasattr(builtins, 'poison')"),
    "builtins, changed": ("import builtins; builtins.ascii = print", "seen = ascii(1)"),
    "builtins, deleted": ("import builtins; del builtins.sum", "seen = sum([1, 2])"),
    "the garbage collector": (
        (
            "import gc; gc.disable(); gc.set_threshold(7, 7, 7); gc.callbacks.append(lambda *_: None); "
            "gc.set_debug(gc.DEBUG_SAVEALL); gc.garbage.append(1)"
        ),
        "import gc; seen = gc.isenabled(), gc.get_threshold(), len(gc.callbacks), gc.get_debug(), gc.garbage",
    ),
    "asyncio": (
        "import asyncio; asyncio.events._event_loop_policy = print",
        "import asyncio; seen = asyncio._get_running_loop(), asyncio.events._event_loop_policy is print",
    ),
    "hooks of a thread": (
        "import sys; sys.set_asyncgen_hooks(print, print); sys.set_coroutine_origin_tracking_depth(5)",
        "import sys; seen = *sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()",
    ),
    "attributes of sys": (
        (
            "import sys; sys.poison = sys.ps1 = sys.last_exc = 1; sys.__stdout__ = None; sys.getsizeof = print; "
            "sys.orig_argv[:] = []"
        ),
        (
            "import sys; seen = [hasattr(sys, name) for name in ('poison', 'ps1', 'last_exc')], not sys.__stdout__, "
            "sys.getsizeof is print, sys.orig_argv"
        ),
    ),
    "dynamic loading": (
        "import sys; sys.setdlopenflags(257)",
        "import sys; seen = sys.getdlopenflags()",
    ),
    "lazy imports": (
        "import sys; getattr(sys, 'set_lazy_imports', print)('all')",
        "import sys; seen = getattr(sys, 'get_lazy_imports', int)()",
    ),
    "patches of what the kernel needs": (
        "import os, select, threading, time; time.sleep = os.read = os.environ = select.poll = threading.Thread = None",
        (
            "import os, select, threading, time; seen = None in (time.sleep, os.read, select.poll, threading.Thread), "
            "type(os.environ).__name__"
        ),
    ),
    "modules in the place of others": (
        "import sys, json; sys.modules['os'] = sys.modules['json'] = sys.modules['threading'] = None",
        "import os, json, threading; seen = os.__name__, json.__name__, threading.__name__",
    ),
    "modules that are gone": (
        "import json, sys; del sys.modules['json'], sys.modules['os']",
        "import json, os; seen = os.__name__",
    ),
    "logging, a class": (
        (
            "import logging; Mine = type('Mine', (logging.Logger,), {}); logging.setLoggerClass(Mine); "
            "logging.getLogger('a.mine'); logging.setLoggerClass(logging.Logger); logging.getLogger('a.mine.child')"
        ),
        (
            "import logging; logger = logging.getLogger('a.mine'); child = logging.getLogger('a.mine.child'); "
            "seen = type(logger).__name__, child.parent is logger, logger.parent is logging.root"
        ),
    ),
    "logging, flags": (
        (
            "import logging; logging.raiseExceptions = logging.logThreads = False; logging.lastResort = None; "
            "logging.root.manager.setLogRecordFactory(print)"
        ),
        (
            "import logging; seen = logging.raiseExceptions, logging.logThreads, logging.lastResort is None, "
            "logging.root.manager.logRecordFactory is print"
        ),
    ),
    "decimal, the other contexts": (
        "import decimal; decimal.BasicContext.prec = 3; decimal.ExtendedContext.traps[decimal.Inexact] = True",
        "import decimal; seen = repr(decimal.BasicContext), repr(decimal.ExtendedContext)",
    ),
    "csv": (
        (
            "import csv; csv.register_dialect('poison', csv.excel); csv.register_dialect('excel', delimiter=';'); "
            "csv.unregister_dialect('unix'); csv.field_size_limit(7)"
        ),
        "import csv; seen = sorted(csv.list_dialects()), csv.get_dialect('excel').delimiter, csv.field_size_limit()",
    ),
    "calendar": ("import calendar; calendar.setfirstweekday(6)", "import calendar; seen = calendar.firstweekday()"),
    "doctest": (
        "import doctest; doctest.register_optionflag('POISON')",
        "import doctest; seen = 'POISON' in doctest.OPTIONFLAGS_BY_NAME",
    ),
    "email": (
        (
            "import email.charset, email.policy; email.charset.add_charset('poison'); "
            "email.policy.default.header_factory.map_to_type('poison', int)"
        ),
        (
            "import email.charset, email.policy; seen = 'poison' in email.charset.CHARSETS, "
            "'poison' in email.policy.default.header_factory.registry"
        ),
    ),
    "fileinput": ("import fileinput; fileinput.input('/dev/null')", "import fileinput; seen = fileinput._state"),
    "gettext": (
        (
            "import gettext; gettext.textdomain('poison'); gettext.bindtextdomain('poison', '/poison'); "
            "gettext.install('poison')"
        ),
        (
            "import builtins, gettext; seen = gettext.textdomain(), gettext.bindtextdomain('poison'), "
            "hasattr(builtins, '_')"
        ),
    ),
    "http": (
        "import http.client; http.client.HTTPConnection.debuglevel = 1",
        "import http.client; seen = http.client.HTTPConnection.debuglevel",
    ),
    "mimetypes": (
        "import mimetypes; mimetypes.add_type('poison/poison', '.poison')",
        "import mimetypes; seen = mimetypes.guess_type('x.poison'), mimetypes.guess_type('x.html')",
    ),
    "multiprocessing": (
        "import multiprocessing; multiprocessing.set_start_method('spawn'); multiprocessing.set_executable('/poison')",
        (
            "import multiprocessing; from multiprocessing import spawn; "
            "seen = multiprocessing.get_start_method(True), spawn.get_executable()"
        ),
    ),
    "reprlib": ("import reprlib; reprlib.aRepr.maxlist = 1", "import reprlib; seen = reprlib.repr([1, 2, 3])"),
    "shutil": (
        "import shutil; shutil.register_archive_format('poison', print); shutil.unregister_unpack_format('tar')",
        "import shutil; seen = shutil.get_archive_formats(), shutil.get_unpack_formats()",
    ),
    "sqlite3": (
        "import sqlite3; sqlite3.register_adapter(complex, str); sqlite3.register_converter('poison', print)",
        "import sqlite3; seen = len(sqlite3.adapters), len(sqlite3.converters)",
    ),
    "ssl": (
        "import ssl; ssl._create_default_https_context = ssl._create_unverified_context",
        "import ssl; seen = ssl._create_default_https_context is ssl._create_unverified_context",
    ),
    "subprocess": (
        "import subprocess; subprocess._USE_VFORK = 7",
        "import subprocess; seen = getattr(subprocess, '_USE_VFORK', None)",
    ),
    "tarfile": (
        "import tarfile; tarfile.TarFile.extraction_filter = print",
        "import tarfile; seen = tarfile.TarFile.extraction_filter is print",
    ),
    "tempfile": ("import tempfile; tempfile.tempdir = '/poison'", "import tempfile; seen = tempfile.gettempdir()"),
    "urllib, the opener": (
        "import urllib.request; urllib.request.install_opener(print)",
        "import urllib.request; seen = urllib.request._opener is print",
    ),
    "urllib, schemes": (
        "import urllib.parse; urllib.parse.uses_netloc.append('poison')",
        "import urllib.parse; seen = 'poison' in urllib.parse.uses_netloc",
    ),
    "webbrowser": (
        "import webbrowser; webbrowser.register('poison', print, preferred=True)",
        "import webbrowser; seen = 'poison' in webbrowser._browsers",
    ),
    "xml": (
        "import xml.etree.ElementTree as tree; tree.register_namespace('poison', 'urn:poison')",
        "import xml.etree.ElementTree as tree; seen = 'urn:poison' in tree._namespace_map",
    ),
    "zoneinfo": (
        "import zoneinfo; zoneinfo.reset_tzpath(['/poison'])",
        "import zoneinfo; seen = zoneinfo.TZPATH",
    ),
    "sockets": ("import socket; socket.setdefaulttimeout(5)", "import socket; seen = socket.getdefaulttimeout()"),
    "pickling": (
        (
            "import copyreg, json; copyreg.pickle(complex, print); copyreg.pickle(json.JSONEncoder, lambda one: 'x'); "
            "copyreg.add_extension('poison', 'poison', 77)"
        ),
        (
            "import copyreg, json; seen = copyreg.dispatch_table.get(complex) is print, "
            "json.JSONEncoder in copyreg.dispatch_table, copyreg._extension_registry"
        ),
    ),
    "a port": (
        "from subiso import ReceivePort; import json; json.port = ReceivePort()",
        "import json; seen = getattr(json, 'port', None) is not None and not json.port.closed",
    ),
}
# After these, others of the list cannot be performed any more.
UNSOCIABLE = {
    "patches of what the kernel needs",
    "modules in the place of others",
    "modules that are gone",
    "sys.path, replaced",  # after these, others cannot import what they poison
    "sys.path_hooks",
}
# What cannot be reset, or was too badly broken: the next isolate gets another interpreter.
VANDALISM = {
    "sys.path is no list": "import sys; sys.path = None",
    "sys.modules is gone": "import sys; sys.modules = {}",
    "nothing can be imported": "import sys; sys.meta_path.clear(); sys.path_hooks = sys.path_importer_cache = None",
    "the collector is gone": "import gc; gc.collect = gc.freeze = None",
    "the kernel is broken": "import subiso._kernel.scrub as scrub; scrub.Baseline.restore = None",
    "builtins are missing": "import builtins; del builtins.isinstance, builtins.getattr, builtins.vars",
    "all builtins are missing": "import builtins; vars(builtins).clear()",
    "a builtin is another": "import builtins; builtins.len = print",
    "threads are lost": "import threading; threading.enumerate = threading.Thread = threading.current_thread = None",
    "the system is gone": "import os, select, _pickle; os.write = os.read = select.poll = _pickle.loads = None",
    "modules are no modules": "import sys; sys.modules['x'] = 5; sys.modules['y'] = type('', (), {'__file__': 1})()",
}
# What cannot be taken back: the next isolate gets another interpreter.
FOR_EVER = {
    "an audit hook": ("import sys; sys.addaudithook(lambda *_: None)", "seen = 0"),
    "a search for codecs": (
        "import codecs; codecs.register(lambda name: codecs.lookup('utf-8') if name == 'poison' else None)",
        "import codecs\ntry: seen = codecs.lookup('poison')\nexcept LookupError: seen = 0",
    ),
    "a handler of errors": (
        "import _codecs, codecs; _codecs.register_error('poison', codecs.ignore_errors)",
        "import codecs\ntry: seen = codecs.lookup_error('poison')\nexcept LookupError: seen = 0",
    ),
    "a virtual subclass": (
        "import json, numbers; numbers.Number.register(json.JSONEncoder)",
        "import json, numbers; seen = issubclass(json.JSONEncoder, numbers.Number)",
    ),
    "sys.modules": ("import sys; sys.modules = dict(sys.modules)", "seen = 0"),
}


def perform(statements):
    """Execute what a test wants done, and return what it has seen."""
    names = {"__name__": "performance"}
    exec(statements, names)
    return names.get("seen")


def mark():
    """Count the isolates that have lived in this interpreter: packages keep their state."""
    import json

    json.generation = getattr(json, "generation", 0) + 1
    return json.generation


def run(function, *args):
    """Return an isolate's result when its interpreter is ready for the next one."""
    result = Isolate.run(function, *args).result(LONG)
    nursery = nurseries._nursery
    with nursery._changed:
        assert nursery._changed.wait_for(lambda: {one.state for one in nursery._berths} <= {"idle", "gone"}, LONG)
    return result


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """One interpreter, in which one isolate lives after the other, and modules of the user's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("value = 'fresh'")
    (tmp_path / "mine" / "inner.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(
        "SUBISO_LOST", "there"
    )  # the environment as C code sees it is the process's: no other is removed
    monkeypatch.setattr(Limits, "spares", 0)
    run(int)
    nurseries._nursery.retire_idle(LONG)


@pytest.mark.usefixtures("alone")
def test_a_poisoning_run_is_not_seen():
    """What one isolate changes, all at once, the next one in the same interpreter finds as it was at first."""
    looks = [look for _, look in POISONS.values()]
    poisons = [poison for name, (poison, _) in POISONS.items() if name not in UNSOCIABLE]

    def look_at_all(perform, looks, mark):
        return [perform(look) for look in looks], mark()

    def poison_all(perform, poisons, mark):
        generation = mark()
        for poison in poisons:
            perform(poison)
        return generation

    before, first = run(look_at_all, perform, looks, mark)
    second = run(poison_all, perform, poisons, mark)
    after, third = run(look_at_all, perform, looks, mark)
    assert [first, second, third] == [1, 2, 3]
    assert dict(zip(POISONS, before, strict=True)) == dict(zip(POISONS, after, strict=True))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", POISONS)
def test_one_poison_is_not_seen(name):
    """What one isolate changes, by itself, the next one in the same interpreter finds as it was at first."""

    def look(perform, statements, mark):
        return perform(statements), mark()

    poison, statements = POISONS[name]
    before, first = run(look, perform, statements, mark)
    run(perform, poison)
    after, second = run(look, perform, statements, mark)
    assert before == after
    assert second == first + 1


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", VANDALISM)
def test_vandalism_costs_the_interpreter_only(name):
    """An isolate that breaks its interpreter ends, and the next one works: in that interpreter, or in another."""
    isolate = Isolate.spawn(perform, VANDALISM[name])
    assert isolate.join(LONG)
    assert Isolate.run(perform, "import json; seen = json.dumps([sum([1, 2])])").result(LONG) == "[3]"
    Isolate.run(perform, VANDALISM[name]).exception(LONG)
    assert Isolate.run(perform, "import json; seen = json.dumps([sum([1, 2])])").result(LONG) == "[3]"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", ["a builtin is another", "the system is gone", "threads are lost"])
def test_a_vandals_result(name):
    """What an isolate has broken for itself does not break what is sent for it."""

    def break_and_answer(perform, statements):
        perform(statements)
        return {"answer": [42, 3.5, None]}

    future = Isolate.run(break_and_answer, perform, VANDALISM[name])
    assert future.result(LONG) == {"answer": [42, 3.5, None]}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", FOR_EVER)
def test_what_cannot_be_taken_back(name):
    """An interpreter that cannot be made fresh is not used again."""

    def look(perform, statements, mark):
        return perform(statements), mark()

    poison, statements = FOR_EVER[name]
    before, first = run(look, perform, statements, mark)
    run(perform, poison)
    after, second = run(look, perform, statements, mark)
    assert before == after
    assert first == second == 1


@pytest.mark.usefixtures("alone")
def test_a_virtual_subclass_of_the_users():
    """A class of the user's own that is registered with an ABC goes with the isolate, so the interpreter stays."""

    def register(mark):
        import numbers

        class Mine:
            pass

        numbers.Number.register(Mine)
        return issubclass(Mine, numbers.Number), mark()

    assert run(register, mark) == (True, 1)
    assert run(register, mark) == (True, 2)


@pytest.mark.usefixtures("alone")
def test_a_package_may_do_what_is_for_ever(tmp_path):
    """What a package that stays does when it is imported is not held against the isolate."""
    package = tmp_path / "site-packages" / "patient"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import codecs, logging; codecs.register(lambda name: None)\n")
    (package / "quiet.py").write_text(
        "import logging; log = logging.getLogger(__name__); log.addHandler(logging.NullHandler())\n"
    )

    def use(path, mark):
        import sys

        sys.path.append(path)
        import patient.quiet

        return patient.quiet.log.handlers != [], mark()

    path = str(tmp_path / "site-packages")
    assert run(use, path, mark) == (True, 1)
    assert run(use, path, mark) == (True, 2)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_package_whose_import_was_cut_short(compiled, tmp_path):
    """A package can be imported after an isolate was killed in the middle of importing it; no half of it is left.

    Parts in C stay where they were loaded, so there the next isolate gets another interpreter.
    """
    package = tmp_path / "site-packages" / "cut_short"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .first import NAME\nimport cut_short.last\n")
    (package / "first.py").write_text("NAME = 1\n" + "__file__ = 'first.so'\n" * compiled)
    (package / "last.py").write_text("import sys, cut_short\nif sys.argv: sys.argv[0]()\ncut_short.first\n")
    path = str(tmp_path / "site-packages")

    def begin(path, port, mark):
        import sys

        def wait():
            port.send(mark())
            while True:
                pass

        sys.path.append(path)
        sys.argv[:] = [wait]
        import cut_short  # noqa: F401

    def use(path, mark):
        import sys

        sys.path.append(path)
        sys.argv.clear()
        import cut_short

        return cut_short.first.NAME, mark()

    with ReceivePort() as port, Isolate.spawn(begin, path, port.send_port, mark) as isolate:
        assert port.receive(LONG) == 1
        isolate.kill()
        isolate.join(LONG)
    assert run(use, path, mark) == (1, 1 if compiled else 2)


@pytest.mark.usefixtures("alone")
def test_no_job_is_lost_where_output_is_forwarded(tmp_path):
    """A broken interpreter that flushes its streams as it is closed does not take the next isolate's job with it."""
    for _ in range(5):
        Isolate.run(perform, VANDALISM["the kernel is broken"]).result(LONG)
        assert Isolate.run(perform, "seen = 5").result(LONG) == 5


@pytest.mark.usefixtures("alone")
def test_tracing_of_all_threads():
    """An isolate that traces and profiles all threads of its interpreter, the kernel's too, does not do so for ever."""
    poison = """
import json, threading
json.calls = calls = []
def trace(*_): calls.append(threading.get_ident())
threading.settrace_all_threads(trace)
threading.setprofile_all_threads(trace)
"""
    run(perform, poison)
    run(perform, "import json; json.calls.clear()")  # then the kernel recycles, and is not traced
    assert run(perform, "import json; seen = json.calls") == []


@pytest.mark.usefixtures("alone")
def test_random_numbers_differ():
    """An isolate that seeds `random` does not determine the numbers of the next one."""
    seed = "import random; random.seed(1); seen = random.random()"
    known = run(perform, seed)
    number = "import random; seen = random.random()"
    assert len({known, *(run(perform, number) for _ in range(3))}) == 4


@pytest.mark.usefixtures("alone")
def test_functions_for_the_end_run_once():
    """What an isolate registers with atexit runs at its end, last first, and not at the next one's."""

    def live(port, name):
        import atexit

        atexit.register(port.send, f"{name} 1")
        atexit.register(port.send, f"{name} 2")
        atexit.unregister(print)

    with ReceivePort() as port:
        for name in ("first", "second"):
            Isolate.spawn(live, port.send_port, name)
            assert list(port) == [f"{name} 2", f"{name} 1"]


@pytest.mark.usefixtures("alone")
def test_a_function_for_the_end_that_fails(capfd):
    """An error in such a function is printed; the others run, and the next isolate hears nothing of it."""

    def live(port):
        import atexit

        atexit.register(port.send, "after the error")
        atexit.register(divmod, 1, 0)

    with ReceivePort() as port:
        Isolate.spawn(live, port.send_port)
        assert list(port) == ["after the error"]
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert Isolate.run(int).result(LONG) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("killed", [True, False])
def test_what_is_left_complains_unless_it_was_killed(killed, capfd):
    """A coroutine that never ran is found at the end of its isolate; in one that was killed that is no news."""

    def live(port):
        import gc

        async def never():
            pass

        class Raising:
            def __del__(self):
                raise ValueError("planned")

        gc.disable()
        cycle = [never(), Raising()]
        cycle.append(cycle)
        with ReceivePort(end_with_senders=False) as own:
            port.send(own.send_port)
            own.receive()

    with ReceivePort() as port:
        isolate = Isolate.spawn(live, port.send_port)
        other = port.receive(LONG)
        if killed:
            isolate.kill()
        else:
            other.send(None)
        assert isolate.join(LONG)
    assert Isolate.run(int).result(LONG) == 0  # in the same interpreter, which has been scrubbed
    errors = capfd.readouterr().err
    assert ("never awaited" in errors, "planned" in errors) == (not killed, not killed)


@pytest.mark.usefixtures("alone")
def test_the_users_classes_are_new(tmp_path):
    """A module that the user has changed on disk is read anew by the next isolate."""
    path = tmp_path / "mine" / "changing.py"
    read = "import mine.changing; seen = mine.changing.text"
    for text in ("one", "two and more"):
        path.write_text(f"text = {text!r}")
        assert run(perform, read) == text


def test_main_is_not_touched():
    """None of this changes anything in main."""
    assert "made_by_hand" not in sys.modules
    assert not hasattr(sys, "tracebacklimit")
