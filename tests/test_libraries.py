"""Libraries bundled with packages: which are shared, which are copied, and whose threads their threads are."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from bare import DECLARATIONS, TIMEOUT, run

from subiso._kernel import elf, libraries, packages

LIBRARY = """
{declarations}
static long calls;
long count_calls(void) {{ {uses} return ++calls; }}
"""
MODULE = """
extern long count_calls(void);
static PyObject *count(PyObject *self, PyObject *none) {{ return PyLong_FromLong(count_calls()); }}
static struct method methods[] = {{{{"count", count, 4, 0}}, {{0, 0, 0, 0}}}};
static struct definition module = {{1, 0, 0, 0, 0, "{name}", 0, 0, methods, 0, 0, 0, 0}};
PyObject *PyInit_{name}(void) {{ return PyModule_Create2(&module, 1013); }}
"""


def compile_library(source: str, target: Path, *options: str) -> None:
    """Compile a shared object, or skip the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    target.parent.mkdir(parents=True, exist_ok=True)
    code = target.with_suffix(".c")
    code.write_text(source)
    command = [compiler, "-shared", "-fPIC", "-o", str(target), str(code), *options]
    subprocess.run(command, check=True, timeout=TIMEOUT)


def compile_package(directory: Path, name: str, uses: str = "") -> Path:
    """Build two modules that use one bundled library, which counts its calls; return the library's file."""
    library = directory / "bundled" / f"lib{name}.so.1"
    source = LIBRARY.format(declarations=DECLARATIONS, uses=uses)
    compile_library(source, library, f"-Wl,-soname,{library.name}")
    for module in ("one", "two"):
        options = [str(library), "-Wl,-rpath,$ORIGIN/bundled"]
        compile_library(DECLARATIONS + MODULE.format(name=module), directory / f"{module}.so", *options)
    return library


COUNT = """
import one
one.count()
meet()
import two
answer(two.count())
"""


def test_library_that_calls_python_is_the_isolates_own(tmp_path: Path) -> None:
    """Two modules of an isolate share one copy of a library that calls the C API; isolates share none."""
    compile_package(tmp_path, "caller", "Py_DecRef(PyLong_FromLong(1000));")
    assert run(COUNT, isolates=3, path=tmp_path) == [2, 2, 2]


def test_library_that_knows_nothing_of_python_is_shared(tmp_path: Path) -> None:
    """A library without the C API is one for the process, whichever isolate calls it."""
    compile_package(tmp_path, "plain")
    assert sorted(run(COUNT, isolates=3, path=tmp_path)) == [4, 5, 6]


@pytest.mark.parametrize("known", sorted(packages.PRIVATE_LIBRARIES))
def test_library_known_not_to_bear_sharing_is_the_isolates_own(tmp_path: Path, known: str) -> None:
    """What the table names is copied, whatever it calls; also where ctypes opens it."""
    library = compile_package(tmp_path, known.removeprefix("lib"))
    code = f"{COUNT}\nimport ctypes\nanswer(ctypes.CDLL({str(library)!r}).count_calls())"
    assert sorted(run(code, isolates=2, path=tmp_path)) == [2, 2, 3, 3]


def test_nothing_is_left_of_copied_libraries(tmp_path: Path) -> None:
    """Copies of libraries are gone once they are loaded, as those of modules are."""
    compile_package(tmp_path / "package", "caller", "Py_DecRef(PyLong_FromLong(1000));")
    place = tmp_path / "copies"
    place.mkdir()
    assert run("import one; answer(one.count())", path=tmp_path / "package", SUBISO_COPIES_DIR=str(place)) == [1]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("old", [b"libarrow_python.so.2400", b"libx.so", b"l"])
def test_a_new_name_is_as_long_and_unused(old: bytes) -> None:
    """A new name takes exactly the old one's place."""
    new = libraries._new_name(old)
    assert len(new) == len(old)
    assert len(old) < 4 or new != libraries._new_name(old) != old


def test_renaming_changes_what_the_linker_reads(tmp_path: Path) -> None:
    """After renaming, the file has another SONAME, asks for another library, and is otherwise what it was."""
    library = compile_package(tmp_path, "caller")
    options = ["-Wl,--no-as-needed", str(library), "-Wl,-soname,libuser.so.1"]
    compile_library("int nothing;", tmp_path / "user.so", *options)
    with (tmp_path / "user.so").open("r+b") as file:
        before = elf.read(file.fileno())
        names = [(b"libuser.so.1", b"libuser.so.2"), (b"libcaller.so.1", b"libcaller.so.9")]
        elf.rename(file.fileno(), before, names)
        after = elf.read(file.fileno())
    assert (before.soname, after.soname) == (b"libuser.so.1", b"libuser.so.2")
    assert b"libcaller.so.9" in after.needed
    assert len(after.needed) == len(before.needed)


THREAD = """
#include <pthread.h>
extern PyObject *PyInterpreterState_Get(void), *PyObject_CallNoArgs(PyObject *), *PyList_New(long);
extern int PyGILState_Ensure(void), PyList_Append(PyObject *, PyObject *);
extern void PyGILState_Release(int), *PyEval_SaveThread(void), PyEval_RestoreThread(void *);
extern PyObject *PyLong_FromVoidPtr(void *);

static PyObject *list;
static void *work(void *rounds) {
    for (long round = 0; round < (long) rounds; round++) {
        int state = PyGILState_Ensure();
        PyObject *interpreter = PyLong_FromVoidPtr(PyInterpreterState_Get());
        PyList_Append(list, interpreter);
        PyGILState_Release(state);
    }
    return 0;
}
static PyObject *interpreters_of_a_thread(PyObject *self, PyObject *none) {
    pthread_t thread;
    list = PyList_New(0);
    PyList_Append(list, PyLong_FromVoidPtr(PyInterpreterState_Get()));
    void *state = PyEval_SaveThread();
    pthread_create(&thread, 0, work, (void *) 1000L);
    pthread_join(thread, 0);
    PyEval_RestoreThread(state);
    return list;
}
static struct method methods[] = {{"interpreters", interpreters_of_a_thread, 4, 0}, {0, 0, 0, 0}};
static struct definition module = {1, 0, 0, 0, 0, "threads", 0, 0, methods, 0, 0, 0, 0};
PyObject *PyInit_threads(void) { return PyModule_Create2(&module, 1013); }
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs machine code that is there for x86-64 only")
@pytest.mark.parametrize("option", ["-Wl,-z,now,-z,relro", "-Wl,-z,lazy"], ids=["bound at once", "bound late"])
def test_threads_of_a_library_are_the_isolates(tmp_path: Path, option: str) -> None:
    """A thread that C code has started, and that calls Python, does so in the isolate, not in main."""
    compile_library(DECLARATIONS + THREAD, tmp_path / "threads.so", option, "-pthread")
    code = """
import threads
meet()
found = threads.interpreters()
answer((len(found), len(set(found))))
answer(found[0])
"""
    answers = run(code, isolates=3, path=tmp_path)
    assert [answer for answer in answers if isinstance(answer, tuple)] == [(1001, 1)] * 3
    assert len({answer for answer in answers if isinstance(answer, int)}) == 3


@pytest.mark.parametrize(
    ("environ", "threads"),
    [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, min(2, len(os.sched_getaffinity(0))))],
    ids=["unset", "set"],
)
def test_blas_computes_in_one_thread_unless_told_otherwise(environ: dict[str, str], threads: int) -> None:
    """An isolate that brings OpenBLAS into the process has it use one thread; the user's own setting wins."""
    pytest.importorskip("numpy")
    code = """
import ctypes, numpy
paths = {line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line}
for path in paths:
    library = ctypes.CDLL(path)
    for name in ("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads"):
        if hasattr(library, name):
            answer(getattr(library, name)())
"""
    unset = {name: "" for name in ("OMP_NUM_THREADS", "GOTO_NUM_THREADS") if name in os.environ}
    answers = run(code, **environ, **unset)
    if not answers:
        pytest.skip("this numpy brings no OpenBLAS")
    assert answers == [threads]
