"""Private copies of C extension modules (`subiso._kernel.extensions`), in bare interpreters.

Each test runs its isolates in a process of its own: nothing that C code does there can reach the other tests, and on 3.12
a process in which isolates have run C code can only be left by ``os._exit``.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import subiso
from subiso._kernel import copies, elf, extensions

ROOT = str(Path(subiso.__file__).parent.parent)
TIMEOUT = 60  # seconds, far more than any of them needs

HARNESS = """
import json, os, sys, threading

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    create = interpreters.create
else:
    import _xxsubinterpreters as interpreters
    create = lambda: interpreters.create(isolated=True)

from subiso._kernel.interpreters import IMPORT_IN_MAIN_FIRST

for name in IMPORT_IN_MAIN_FIRST:
    __import__(name)

codes = json.loads(sys.stdin.read())
arrived, go = os.pipe(), os.pipe()
failures = []

PRELUDE = '''
import os, sys
def answer(value):
    os.write(1, (repr(value) + "\\\\n").encode())
def meet():
    os.write({0}, b"x")
    os.read({1}, 1)
from subiso._kernel import extensions
extensions.install()
'''.format(arrived[1], go[0])

def isolate(code):
    interpreter = create()
    try:
        failure = interpreters.run_string(interpreter, PRELUDE + code)
        if failure is not None:
            failures.append(failure.errdisplay)
    except interpreters.RunFailedError as error:
        failures.append(str(error))
    finally:
        os.write(arrived[1], b"x")
        interpreters.destroy(interpreter)

threading.stack_size(8 << 20)
threads = [threading.Thread(target=isolate, args=(code,)) for code in codes]
for thread in threads:
    thread.start()
for _ in threads:
    os.read(arrived[0], 1)
os.write(go[1], b"x" * len(threads))
for thread in threads:
    thread.join()
for failure in failures:
    sys.stderr.write(failure + "\\n")
sys.stderr.flush()
os._exit(1 if failures else 0)
"""
