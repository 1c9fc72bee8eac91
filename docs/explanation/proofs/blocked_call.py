"""A call into C that sleeps in an isolate is interrupted by a signal from Python 3.15 on, and not before.

CPython looks for what a signal asks for in main's first thread only; since 3.15 it also delivers asynchronous
exceptions there, in every thread of every interpreter. Run with any Python from 3.13 on (on 3.13 with
``interpreters-pep-734``). It prints whether ``time.sleep(5)`` was cut short.
"""

import os
import signal
import sys
import threading

CODE = """
import ctypes, os, signal, threading, time

def sleep():
    began = time.monotonic()
    try:
        time.sleep(5)
    except SystemExit:
        os.write(1, f"time.sleep(5) ended after {time.monotonic() - began:.1f} s\\n".encode())

thread = threading.Thread(target=sleep)
thread.start()
time.sleep(0.2)
ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
signal.pthread_kill(thread.ident, signal.SIGURG)
thread.join()
"""


def run() -> None:
    if sys.version_info >= (3, 14):
        from concurrent import interpreters
    else:
        from interpreters_backport import interpreters
    interpreters.create().exec(CODE)


signal.signal(signal.SIGURG, lambda number, frame: None)  # so that the system interrupts calls at all
worker = threading.Thread(target=run)
worker.start()
worker.join()
os._exit(0)
