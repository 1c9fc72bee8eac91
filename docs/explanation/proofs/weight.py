"""How much memory does one more isolate take, layer by layer, and how much one more process?

Usage: ``weight.py``, with subiso and msgspec installed. Each line is what some more interpreters take each, or
isolates, or processes started by ``spawn``: by how much the private memory of a process grows that has nothing else, or
how much a process has. The line before the isolate's has all that an isolate with msgspec cannot do without and that is
not subiso, except for the loader that msgspec needs. Where `typing_extensions` is installed, the process loads it too.
"""

import multiprocessing
import os
import sys
import threading
import time

FIRST, MORE = 2, 4  # those that are there before it counts, and those that count

LAYERS = {
    "an interpreter": "",
    "... and what msgspec imports": "import collections, datetime, decimal, enum, re, types, typing, uuid",
    "... and the loader of private copies": """
from subiso._kernel.lazy import install
install()
from subiso._kernel.extensions import install
install()
from subiso._kernel import loading, foreign
""",
    "... and msgspec": "import msgspec",
    "... and what receives pickled work on a thread": "import _pickle, mmap, select, struct, threading",
}

context = multiprocessing.get_context("spawn")


def private() -> float:
    """Return the MB that only this process has."""
    time.sleep(0.5)  # threads that have just started take some more
    with open("/proc/self/smaps_rollup") as file:
        kilobytes = [int(line.split()[1]) for line in file if line.startswith(("Private_Clean", "Private_Dirty"))]
    return sum(kilobytes) * 1024 / 1e6


def growth(start) -> float:
    """Return the MB by which this process grows with each that is started."""
    for number in range(FIRST + MORE):
        if number == FIRST:
            before = private()
        start()
    return (private() - before) / MORE


def growth_by_interpreters(code: str) -> float:
    from subiso._kernel.interpreters import IMPORT_IN_MAIN_FIRST, create

    for name in IMPORT_IN_MAIN_FIRST:
        __import__(name)

    def start() -> None:
        answered, answer = os.pipe()
        never, _ = os.pipe()
        whole = (
            f"import sys; sys.path[:] = {sys.path!r}\n{code}\nimport os; os.write({answer}, b'1'); os.read({never}, 1)"
        )
        threading.Thread(target=lambda: create().exec(whole), daemon=True).start()
        os.read(answered, 1)

    return growth(start)


def growth_by_isolates() -> float:
    from subiso import Isolate, ReceivePort, configure

    configure(spares=0)
    with ReceivePort() as hello:

        def start() -> None:
            Isolate.spawn(wait, hello.send_port, fresh=True)
            hello.receive(60)

        return growth(start)


def wait(hello) -> None:
    import msgspec  # noqa: F401

    from subiso import ReceivePort

    with ReceivePort(end_with_senders=False) as port:
        hello.send(port.send_port)
        port.receive()


def process_with_msgspec() -> float:
    import msgspec  # noqa: F401

    return private()


def apart(measure, *arguments: str) -> float:
    """Measure in a process that has nothing else."""
    ours, theirs = context.Pipe()
    process = context.Process(target=tell, args=(theirs, measure, arguments))
    process.start()
    taken = ours.recv()
    process.kill()
    process.join()
    return taken


def tell(pipe, measure, arguments) -> None:
    pipe.send(measure(*arguments))
    time.sleep(60)  # to be killed


if __name__ == "__main__":
    whole = apart(process_with_msgspec)
    figures = {"one more process with msgspec": whole}
    code = ""
    for name, more in LAYERS.items():
        code += f"\n{more}"
        figures[name] = apart(growth_by_interpreters, code)
    figures["an isolate with msgspec"] = apart(growth_by_isolates)
    for name, taken in figures.items():
        print(f"{name:50} {taken:5.2f} MB   {taken / whole:.3f}")
