"""Code in bare interpreters, of a process of its own, for tests of what loads C code; and C code without headers."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import subiso

ROOT = str(Path(subiso.__file__).parent.parent)
TIMEOUT = 100  # seconds, far more than any test needs

HARNESS = r"""
import json, os, sys, threading
from subiso._kernel.interpreters import IMPORT_IN_MAIN_FIRST

for name in IMPORT_IN_MAIN_FIRST:
    __import__(name)
try:
    import _interpreters as interpreters
    create = interpreters.create
except ImportError:
    import _xxsubinterpreters as interpreters
    create = lambda: interpreters.create(isolated=True)

arrived, go, failures = os.pipe(), os.pipe(), []
prelude = f'''
import os
def answer(value):
    os.write(1, (repr(value) + "\\n").encode())
def meet():
    os.write({arrived[1]}, b"x")
    os.read({go[0]}, 1)
from subiso._kernel import extensions
extensions.install()
'''

def isolate(code):
    interpreter = create()
    try:
        failure = interpreters.run_string(interpreter, prelude + code)
        if failure is not None:
            failures.append(failure.errdisplay)
    except Exception as error:
        failures.append(str(error))
    finally:
        os.write(arrived[1], b"x")
        interpreters.destroy(interpreter)

code, count = json.loads(sys.stdin.read())
threading.stack_size(8 << 20)
threads = [threading.Thread(target=isolate, args=(code,)) for _ in range(count)]
for thread in threads:
    thread.start()
for _ in threads:
    os.read(arrived[0], 1)
os.write(go[1], b"x" * count)
for thread in threads:
    thread.join()
os.write(2, "\n".join(failures).encode())
os._exit(1 if failures else 0)
"""


def run(code: str, isolates: int = 1, path: Path | None = None, **environ: str) -> list[object]:
    """Run the code in so many isolates at once; return everything that they ``answer``. They can ``meet`` once."""
    search = os.pathsep.join([str(path), ROOT] if path else [ROOT])
    done = subprocess.run(
        [sys.executable, "-c", HARNESS],
        input=json.dumps([code, isolates]),
        env=os.environ | {"PYTHONPATH": search, "PYTHONWARNINGS": "error"} | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


DECLARATIONS = """
typedef struct _object PyObject;
struct method { const char *name; void *function; int flags; const char *doc; };
struct slot { long id; void *value; };
struct spec { const char *name; int size, item; unsigned flags; struct slot *slots; };
struct definition {
    long references; void *type, *init; long index; void *copy;
    const char *name, *doc; long size; void *methods, *slots, *traverse, *clear, *free;
};
extern PyObject *PyModule_Create2(struct definition *, int), *PyState_FindModule(struct definition *);
extern PyObject *PyModuleDef_Init(struct definition *), *PyType_FromSpec(struct spec *), *PyLong_FromLong(long);
extern PyObject *PyImport_AddModule(const char *), *PyImport_ImportModule(const char *), *Py_NewRef(PyObject *);
extern const char *PyModule_GetName(PyObject *);
extern int PyModule_AddObject(PyObject *, const char *, PyObject *), sprintf(char *, const char *, ...);
"""
