"""Private copies of C extension modules (`subiso._kernel.extensions`), in bare interpreters.

Each test runs its interpreters in a process of its own: what C code does there cannot reach the other tests, and on
3.12 a process in which isolates have run C code can only be left by ``os._exit``.
"""

import ast
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare import DECLARATIONS, TIMEOUT, run

from subiso._kernel import copies, elf, extensions, interpreters

# -- extensions that refuse isolates -----------------------------------------------------------------------------------


def test_msgspec_works_in_two_isolates_at_once() -> None:
    """Structs make the round trip in two isolates that run at the same time."""
    pytest.importorskip("msgspec")
    code = """
import msgspec
class Point(msgspec.Struct, frozen=True):
    x: int
    label: str
    tail: list[float]
meet()
for number in range(5000):
    point = Point(number, f"p{number}", [number / 3])
    assert msgspec.json.decode(msgspec.json.encode(point), type=Point) == point
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(point), type=Point) == point
try:
    msgspec.json.decode(b'{"x": "no"}', type=Point)
except msgspec.ValidationError as error:
    answer(str(error))
"""
    wrong = "Expected `int`, got `str` - at `$.x`"
    assert run(code, isolates=2) == [wrong, wrong]


def test_numpy_computes_in_two_isolates_at_once() -> None:
    """Linear algebra, random numbers and sorting give right results in two isolates, without a warning."""
    pytest.importorskip("numpy")
    code = """
import numpy as np
meet()
random = np.random.default_rng(7)
for _ in range(50):
    matrix, vector = random.random((20, 20)), random.random(20)
    assert np.allclose(matrix @ np.linalg.solve(matrix, vector), vector)
    assert (np.diff(np.sort(vector)) >= 0).all()
answer(np.linalg.solve([[3.0, 1.0], [1.0, 2.0]], [9.0, 8.0]).round(9).tolist())
"""
    assert run(code, isolates=2) == [[2.0, 3.0], [2.0, 3.0]]


def test_module_looks_as_if_loaded_in_the_ordinary_way() -> None:
    """The module's name, file, spec and loader are those of the original."""
    pytest.importorskip("msgspec")
    code = """
import msgspec._core as core
spec = core.__spec__
answer((core.__name__, core.__file__, spec.name, spec.origin, type(core.__loader__).__name__, core.__loader__.path))
"""
    spec = importlib.util.find_spec("msgspec._core")
    assert spec is not None
    expected = (spec.name, spec.origin, spec.name, spec.origin, "ExtensionFileLoader", spec.origin)
    assert run(code) == [expected]


def test_module_imported_again_is_of_the_same_copy() -> None:
    """A module that was removed from sys.modules comes back from the library that is loaded, as in main."""
    pytest.importorskip("msgspec")
    code = """
import sys, msgspec._core
before = sys.modules.pop("msgspec._core")
import importlib
answer(importlib.import_module("msgspec._core").Raw is before.Raw)
"""
    assert run(code) == [True]


@pytest.mark.skipif(not interpreters.COPIES_BY_PYINIT, reason="the import machinery gives no handle of the library")
def test_code_is_shared_with_the_original() -> None:
    """Nothing of a copy stays mapped but what its library writes to."""
    pytest.importorskip("msgspec")
    code = """
import msgspec._core
with open("/proc/self/maps") as file:
    lines = [line.split() for line in file if "msgspec" in line]
answer({(line[5] == msgspec._core.__file__, "subiso-" in line[5]) for line in lines if "x" in line[1]})
answer({"subiso-" in line[5] for line in lines if "w" in line[1]})
"""
    assert run(code) == [{(True, False)}, {True}]


# -- the standard library ----------------------------------------------------------------------------------------------


def test_standard_library_is_complete_in_several_isolates_at_once() -> None:
    """The C implementations of the modules that refuse isolates on some version are really used, and work."""
    code = """
meet()
import _ctypes, _datetime, _decimal, _elementtree, _lsprof, _zoneinfo, pyexpat
import ctypes, datetime, decimal, zoneinfo
from xml.etree import ElementTree
assert datetime.datetime is _datetime.datetime
assert datetime.datetime.now(tz=datetime.timezone.utc).utcoffset() == datetime.timedelta(0)
assert decimal.Decimal is _decimal.Decimal
assert decimal.Decimal("1.1") + 1 == decimal.Decimal("2.1")
assert zoneinfo.ZoneInfo is _zoneinfo.ZoneInfo
assert ElementTree.fromstring("<a><b x='1'/></a>").find("b").attrib == {"x": "1"}
assert ctypes.pythonapi.Py_IsInitialized() == 1
answer(_datetime.__spec__.name)
"""
    assert run(code, isolates=3) == ["_datetime"] * 3


def test_readline_is_refused() -> None:
    """readline, whose library cannot bear threads, raises ImportError, and the modules that like to have it load."""
    code = """
try:
    import readline
except ImportError as error:
    answer(error.name)
import cmd, code, pdb
"""
    assert run(code) == ["readline"]


def test_faulthandler_and_tracemalloc_are_harmless() -> None:
    """Built-in modules that refuse isolates are replaced by ones whose functions do nothing."""
    code = """
import faulthandler, sys, tracemalloc
faulthandler.enable(file=sys.stderr)
faulthandler.dump_traceback_later(1, exit=True)
faulthandler.cancel_dump_traceback_later()
tracemalloc.start()
answer((faulthandler.is_enabled(), tracemalloc.is_tracing(), tracemalloc.get_traced_memory()))
"""
    assert run(code) == [(False, False, (0, 0))]


# -- the switches ------------------------------------------------------------------------------------------------------

REFUSAL = """
import _datetime
try:
    import msgspec
except ImportError as error:
    answer((error.name, error.path.endswith(".so"), str(error)))
"""


def test_copies_can_be_switched_off() -> None:
    """SUBISO_EXTENSIONS=off refuses third-party modules, saying how to allow them; the standard library still loads."""
    pytest.importorskip("msgspec")
    [(name, has_path, text)] = run(REFUSAL, SUBISO_EXTENSIONS="off")  # type: ignore[misc]
    assert (name, has_path) == ("msgspec._core", True)
    assert "unset SUBISO_EXTENSIONS" in text


def test_policy_prevails_over_the_environment() -> None:
    """What install is given counts more than the environment, and installing again changes it."""
    pytest.importorskip("msgspec")
    code = f"""
extensions.install("off")
{REFUSAL}
extensions.install("private")
import msgspec
answer(msgspec.json.decode(b"[1]"))
"""
    (_, _, text), value = run(code, SUBISO_EXTENSIONS="private")  # type: ignore[misc]
    assert "switched off" in text
    assert value == [1]


def test_uninstall_restores_the_ordinary_loaders() -> None:
    """After uninstall, called any number of times, the importers are as they were before install."""
    code = """
from importlib.machinery import BuiltinImporter, ExtensionFileLoader
def methods():
    return [BuiltinImporter.create_module, ExtensionFileLoader.create_module, ExtensionFileLoader.exec_module]
extensions.uninstall(); extensions.uninstall()
ordinary = methods()
extensions.install(); extensions.install()
installed = methods()
extensions.uninstall()
answer((methods() == ordinary, any(method in ordinary for method in installed)))
"""
    assert run(code) == [(True, False)]


def test_main_keeps_the_originals() -> None:
    """In the main interpreter install raises RuntimeError and changes nothing."""
    with pytest.raises(RuntimeError, match="main interpreter"):
        extensions.install()
    assert not extensions._ordinary


def test_unknown_policy_is_refused() -> None:
    """A policy that does not exist raises ValueError."""
    with pytest.raises(ValueError, match="'of'"):
        extensions.install("of")


def test_loader_imports_next_to_nothing() -> None:
    """Before a copy is loaded, no module is imported that an interpreter does not start with, but the loader's own."""
    code = """
import sys
answer([name for name in ("ctypes", "_ctypes", "typing", "re", "enum", "tempfile", "importlib") if name in sys.modules])
"""
    assert run(code) == [[]]


def test_what_a_package_can_do_without_is_not_loaded_for_it() -> None:
    """msgspec finds no typing_extensions, for all that it takes from there is typing's; others find it."""
    pytest.importorskip("typing_extensions")
    code = """
from subiso._kernel.lazy import install
install()
import sys, msgspec
answer("typing_extensions" in sys.modules)
from typing_extensions import Annotated, NotRequired, Required, TypedDict, get_type_hints
class Job(TypedDict):
    number: Required[Annotated[int, 1]]
    parent: "NotRequired[Job | None]"
answer(msgspec._utils.get_type_hints(Job) == get_type_hints(Job, include_extras=True))
answer([msgspec._utils.NotRequired is NotRequired, msgspec._utils.Required is Required])
"""
    assert run(code) == [False, True, [True, True]]


# -- the copies' files -------------------------------------------------------------------------------------------------

ERROR = """
try:
    import msgspec
except ImportError as error:
    answer(str(error))
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """Give the descriptor of a file to copy."""
    (tmp_path / "source").write_bytes(b"content" * 1000)
    descriptor = os.open(tmp_path / "source", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory in which copies are made."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setenv(copies.SWITCH, str(place))
    return place


def test_nothing_is_left_where_the_copies_were(tmp_path: Path) -> None:
    """The copies and their directories are gone once they are loaded, also by several isolates at once."""
    pytest.importorskip("numpy")
    assert run("meet(); import numpy; answer(1)", isolates=2, SUBISO_COPIES_DIR=str(tmp_path)) == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_missing_directory_is_an_import_error_with_advice(tmp_path: Path) -> None:
    """Where SUBISO_COPIES_DIR names nothing, the ImportError says what is missing, and what to do."""
    pytest.importorskip("msgspec")
    missing = str(tmp_path / "missing")
    [text] = run(ERROR, SUBISO_COPIES_DIR=missing)
    assert "set SUBISO_COPIES_DIR to a directory" in str(text)
    assert missing in str(text)


def test_lack_of_room_is_an_import_error_with_advice(tmp_path: Path) -> None:
    """Where a copy cannot be completed, the ImportError says so, nothing is left, and a later import succeeds."""
    pytest.importorskip("msgspec")
    code = f"""
import _datetime, resource
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
{ERROR}
resource.setrlimit(resource.RLIMIT_FSIZE, before)
import msgspec
"""
    [text] = run(code, SUBISO_COPIES_DIR=str(tmp_path))
    assert "File too large" in str(text)
    assert "set SUBISO_COPIES_DIR to a directory" in str(text)
    assert list(tmp_path.iterdir()) == []


def test_every_copy_has_a_path_of_its_own(source: int, place: Path) -> None:
    """Copies of one file are equal to it, private to the user, and never under the same path."""
    first = copies.make(source, "package.module")
    copies.discard(first)
    second = copies.make(source, "package.module")
    assert first != second
    assert Path(second).read_bytes() == b"content" * 1000
    assert [Path(second).parents[depth].stat().st_mode & 0o777 for depth in range(2)] == [0o700, 0o700]
    copies.discard(second)
    assert list(place.iterdir()) == []


def test_directory_of_others_is_refused(source: int, place: Path) -> None:
    """A directory that others can write to is not used: they could exchange a copy before it is loaded."""
    shared = place / f"subiso-{os.geteuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PermissionError, match="this user alone"):
        copies.make(source, "module")


def test_what_dead_processes_left_is_removed(source: int, place: Path) -> None:
    """Directories of processes that have ended go with the next copy; those of the living, and young ones, stay."""
    of_user = place / f"subiso-{os.geteuid()}"
    living = f"{os.getppid()}-{copies._start_time(os.getppid())}"
    for name in ("1-0", "2-young", living):
        (of_user / name).mkdir(mode=0o700, parents=True)
        (of_user / name / "module.so").touch()
    of_user.chmod(0o700)
    for name in ("1-0", living):
        os.utime(of_user / name, (0, 0))
    copies.discard(copies.make(source, "module"))
    assert {path.name for path in of_user.iterdir()} == {"2-young", living}


# -- modules made for the test -----------------------------------------------------------------------------------------

SAMPLE = """
static long calls;
static PyObject *count(PyObject *self, PyObject *none) { return PyLong_FromLong(++calls); }
static PyObject *found(PyObject *self, PyObject *none);
static struct method methods[] = {{"count", count, 4, 0}, {"found", found, 4, 0}, {0, 0, 0, 0}};

static int execute(PyObject *module) {
    static int attempts;
    PyObject *needed = PyImport_ImportModule("needed");
    if (!needed) { attempts++; return -1; }
    return PyModule_AddObject(module, "failed_attempts", PyLong_FromLong(attempts));
}
"""

SINGLE_PHASE = """
static struct definition sample = {1, 0, 0, 0, 0, "sample", 0, 0, methods, 0, 0, 0, 0};
static PyObject *found(PyObject *self, PyObject *none) { return Py_NewRef(PyState_FindModule(&sample)); }
PyObject *PyInit_sample(void) {
    static char name[200], other_name[200];
    static struct slot no_slots[] = {{0, 0}};
    struct spec thing = {name, 16, 0, 0, no_slots}, other_thing = {other_name, 16, 0, 0, no_slots};
    PyObject *module = PyModule_Create2(&sample, 1013);
    sprintf(name, "%s.inner", PyModule_GetName(module));
    PyObject *inner = Py_NewRef(PyImport_AddModule(name));
    PyModule_AddObject(module, "inner", inner);
    sprintf(name, "%s.Thing", PyModule_GetName(module));
    PyModule_AddObject(module, "Thing", PyType_FromSpec(&thing));
    sprintf(other_name, "%s.Thing", PyModule_GetName(inner));
    PyModule_AddObject(inner, "Thing", PyType_FromSpec(&other_thing));
    return module;
}
"""

MULTI_PHASE = """
static PyObject *found(PyObject *self, PyObject *none) { return Py_NewRef(self); }
static struct slot slots[] = {{2, execute}, {0, 0}};
static struct definition sample = {1, 0, 0, 0, 0, "sample", 0, 0, methods, slots, 0, 0, 0};
PyObject *PyInit_sample(void) { return PyModuleDef_Init(&sample); }
"""

EXPORTING = """
static PyObject *found(PyObject *self, PyObject *none) { return Py_NewRef(self); }
static struct { char major, minor; short flags; int build, version; } abi = {1, 0, 1, 0x030f00f0, 0x030f0000};
static struct slot slots[] = {{109, &abi}, {2, execute}, {0, 0}};
struct slot *PyModExport_sample(PyObject *spec) { return slots; }
"""


def compile_sample(directory: Path, code: str) -> Path:
    """Build the package ``made`` with the extension module ``sample`` in the directory; return the module's file."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (directory / "made").mkdir()
    (directory / "made" / "__init__.py").touch()
    (directory / "sample.c").write_text(DECLARATIONS + SAMPLE + code)
    target = directory / "made" / "sample.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", target, directory / "sample.c"], check=True, timeout=TIMEOUT)
    return target


def test_single_phase_module_has_its_full_name(tmp_path: Path) -> None:
    """A module in a package, its classes and its submodules are named as the import machinery names them."""
    compile_sample(tmp_path, SINGLE_PHASE)
    names = """
import sys, made.sample as sample, made.sample.inner as inner
names = sample.__name__, sample.Thing.__module__, sample.count.__module__, inner.__name__, inner.Thing.__module__
"""
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{names}\nprint(names)"
    in_main = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=TIMEOUT)
    assert run(names + "answer(names)", path=tmp_path) == [ast.literal_eval(in_main)]
    assert ast.literal_eval(in_main)[0] == "made.sample"


def test_single_phase_module_finds_itself(tmp_path: Path) -> None:
    """PyState_FindModule gives the module, which some extensions rely on without a check."""
    compile_sample(tmp_path, SINGLE_PHASE)
    assert run("from made import sample; answer(sample.found() is sample)", path=tmp_path) == [True]


@pytest.mark.parametrize("code", [SINGLE_PHASE, MULTI_PHASE], ids=["single-phase", "multi-phase"])
def test_isolates_share_no_statics(tmp_path: Path, code: str) -> None:
    """A C static counts in each isolate from the beginning."""
    compile_sample(tmp_path, code)
    (tmp_path / "needed.py").touch()
    program = "from made import sample; sample.count(); meet(); answer(sample.count())"
    assert run(program, isolates=3, path=tmp_path) == [2, 2, 2]


@pytest.mark.skipif(not hasattr(ctypes.pythonapi, "PyModule_FromSlotsAndSpec"), reason="this Python is without PEP 793")
def test_module_that_exports_slots(tmp_path: Path) -> None:
    """A module without PyInit, but with an export hook (PEP 793), is loaded."""
    compile_sample(tmp_path, EXPORTING)
    (tmp_path / "needed.py").touch()
    program = "from made import sample; answer((sample.__name__, sample.failed_attempts))"
    assert run(program, path=tmp_path) == [("made.sample", 0)]


def test_failed_initialisation_leaves_no_trace(tmp_path: Path) -> None:
    """A module whose initialisation failed is loaded from another copy next time, whose statics are unspoilt."""
    compile_sample(tmp_path, MULTI_PHASE)
    code = """
import sys
try:
    from made import sample
except ModuleNotFoundError as error:
    answer(error.name)
sys.modules["needed"] = sys
from made import sample
answer((sample.failed_attempts, sample.count()))
"""
    assert run(code, path=tmp_path) == ["needed", (0, 1)]


def test_module_found_by_another_way_takes_a_copy_too(tmp_path: Path) -> None:
    """A spec that no finder of the path made, as editable installs do, leads to a private copy as well."""
    file = compile_sample(tmp_path, SINGLE_PHASE)
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("sample", {str(file)!r})
sample = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sample)
meet()
answer((sample.__name__, sample.__file__, sample.count()))
"""
    assert run(code, isolates=2) == [("sample", str(file), 1)] * 2


def test_file_that_is_no_library_is_named_in_the_error(tmp_path: Path) -> None:
    """What the dynamic linker refuses is an ImportError about the original, not about its copy."""
    (tmp_path / "broken.so").write_bytes(b"nothing of the sort")
    code = """
try:
    import broken
except ImportError as error:
    answer((error.name, error.path, "subiso-" in str(error), error.path in str(error)))
"""
    assert run(code, path=tmp_path) == [("broken", str(tmp_path / "broken.so"), False, True)]


def test_library_without_init_function_is_an_import_error(tmp_path: Path) -> None:
    """A library that has no init function for the module's name raises ImportError, as in main."""
    compile_sample(tmp_path, SINGLE_PHASE).rename(tmp_path / "other.so")
    code = """
try:
    import other
except ImportError as error:
    answer(str(error))
"""
    [text] = run(code, path=tmp_path)
    assert "PyInit_other" in str(text)


@pytest.mark.parametrize(("option", "expected"), [("-Wl,-rpath,$ORIGIN/libs", True), ("-Wl,-rpath,/usr/lib", False)])
def test_search_relative_to_the_file_is_noticed(tmp_path: Path, option: str, expected: bool) -> None:
    """The layout tells whether a library is looked for beside the file, and which parts are loaded."""
    compile_sample(tmp_path, SINGLE_PHASE)
    target = tmp_path / "linked.so"
    subprocess.run(["cc", "-shared", "-fPIC", option, "-o", target, tmp_path / "sample.c"], check=True, timeout=TIMEOUT)
    with target.open("rb") as file:
        image = elf.read(file.fileno())
    assert image.needs_origin is expected
    assert image.is_position_independent
    assert [segment.flags for segment in image.segments if not segment.flags & 2]


def test_nothing_is_assumed_of_other_formats(source: int) -> None:
    """Of a file that is not ELF nothing is shared, and the original is asked for its libraries."""
    image = elf.read(source)
    assert (image.segments, image.needs_origin, image.is_position_independent) == ([], True, False)
