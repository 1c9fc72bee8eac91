"""How much memory does one more worker take?"""

import gc
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import fmean
from typing import Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Panel, Question, context_of, need
from bench._hello import wait_in_isolate, wait_in_process

LOADED = {"bare": "", "msgspec": "msgspec", "numpy": "numpy"}
# What bounds the others.
RAW_INTERPRETER, RAW_PROCESS = "interpreter, nothing else", "python -c"
RAW_RECEIVER = "interpreter, threading and pickle"
FIRST, MORE = 2, 4  # workers that are there before it counts, and those that count

question = Question(
    "memory",
    "Memory of one more worker",
    f"What {MORE} more workers take, each, when {FIRST} are there already; all have loaded the package, sent a "
    "message, and wait. Of a process: its USS, the memory that would be free if it ended (the private pages in "
    "`/proc/PID/smaps`). Of what lives inside the process: how much its own USS grows; pages of memory files, which "
    "are mapped by several interpreters of the process and so do not count as private, are counted once; each package "
    "has a process of its own. No spare interpreters are kept meanwhile. The raw parts show what bounds the others: an "
    "interpreter on a thread, with nothing of subiso but the loader of private copies; the same with the modules of "
    "the standard library that nobody can do without who receives pickled work from shared memory on a thread of its "
    "own; and `python -c`. All load the package and wait. Where `typing_extensions` is installed, msgspec loads it, "
    "but not in an isolate: that is 1 MB.",
    {"uss": Metric("MB")},
    rounds=3,
    panels=[Panel(name, "uss", name if name == "bare" else f"with {name}", log=False) for name in LOADED],
)


def private(process: int | str = "self") -> float:
    """Return the memory in MB that only this process has.

    Of shared memory files (isolates have one that each interpreter maps), each page counts once, however often it is
    mapped: that is its proportional size, since no other process has it.
    """
    total, is_file_in_memory = 0, False
    with open(f"/proc/{process}/smaps") as file:
        for line in file:
            field, *words = line.split()
            if "-" in field:  # the first line of a mapping
                is_file_in_memory = words[-1:] == ["(deleted)"] and "/memfd:" in line
            elif field in (("Pss:",) if is_file_in_memory else ("Private_Clean:", "Private_Dirty:")):
                total += int(words[0])
    return total * 1024 / 1e6


def settled(look: Callable[[], float], effort: Effort) -> float:
    """Return a figure when it has stopped changing: threads that start or end may take a while."""
    before = look()
    for _ in range(effort(50, 1)):
        gc.collect()
        time.sleep(0.1)
        after = look()
        if abs(after - before) < 0.05:
            break
        before = after
    return after


def grown(start: Callable[[], None], effort: Effort) -> float:
    """Return the MB by which this process grows with each worker that is started in it."""
    for _ in range(effort(FIRST, 1)):
        start()
    before = settled(private, effort)
    for _ in range(effort(MORE, 1)):
        start()
    return (settled(private, effort) - before) / effort(MORE, 1)


def each_apart(measure: Callable[[str, Effort], float], effort: Effort) -> Cases:
    """Measure each case in a process of its own: in one, what has ended would leave memory that the next ones fill."""
    with ProcessPoolExecutor(1, context_of("spawn"), max_tasks_per_child=1) as pool:
        return {name: {"uss": pool.submit(measure, package, effort).result()} for name, package in LOADED.items()}


def isolates_with(package: str, effort: Effort) -> float:
    from subiso import Isolate, ReceivePort, configure

    configure(spares=0)
    isolates: list[Any] = []
    with ReceivePort[Any]() as hello:

        def start() -> None:
            one = Isolate.spawn(wait_in_isolate, hello.send_port, package, fresh=True)
            isolates.append((one, hello.receive(60)))

        uss = grown(start, effort)
        for one, port in isolates:
            port.send(None)
            one.join()
    return uss


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    return each_apart(isolates_with, effort)


def processes(method: str, effort: Effort) -> Cases:
    """Measure processes that are started in one way."""
    context = context_of(method)
    cases = {}
    for name, package in LOADED.items():
        started = []
        for _ in range(effort(FIRST + MORE, 1)):
            ours, theirs = context.Pipe()
            process = context.Process(target=wait_in_process, args=(theirs, package))
            process.start()
            started.append((process, ours, ours.recv()))
        cases[name] = {"uss": fmean(settled(partial(private, number), effort) for _, _, number in started[-MORE:])}
        for process, ours, _ in started:
            ours.send(None)
            process.join()
    return cases


@question.opponent("process (spawn)")
def spawned(effort: Effort) -> Cases:
    return processes("spawn", effort)


@question.opponent("process (forkserver)")
def forkserver(effort: Effort) -> Cases:
    return processes("forkserver", effort)


@question.opponent("concurrent.interpreters")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    others = []

    def start() -> None:
        there, back, other = interpreters.create_queue(), interpreters.create_queue(), interpreters.create()
        other.prepare_main(there=there, back=back)
        one = threading.Thread(target=other.exec, args=("back.put(1); there.get()",))
        one.start()
        back.get()
        others.append((there, one))

    cases = {"bare": {"uss": grown(start, effort)}}  # it can load neither package
    for there, one in others:
        there.put(None)
        one.join()
    return cases


LOADER = """
from subiso._kernel.lazy import install
install()
from subiso._kernel.extensions import install
install()
"""
RECEIVER = "import _pickle, mmap, select, struct, threading"
WAITING = "import os; os.write({answer}, b'1'); os.read({question}, 1)"  # what a raw part does in the end


def interpreters_with(first: str, package: str, effort: Effort) -> float:
    """Measure interpreters that execute some code, load a package from private copies, and wait."""
    from subiso._kernel.interpreters import IMPORT_IN_MAIN_FIRST, create

    for name in IMPORT_IN_MAIN_FIRST:
        __import__(name)
    load = f"{first}\n{LOADER}\nimport {package}\n" if package else first
    others: list[tuple[int, threading.Thread]] = []

    def run(code: str) -> None:
        other = create()
        other.exec(code)
        other.close()

    def start() -> None:
        (question, ask), (answered, answer) = os.pipe(), os.pipe()
        wait = WAITING.format(answer=answer, question=question)
        one = threading.Thread(target=run, args=(f"import sys; sys.path[:] = {sys.path!r}\n{load}\n{wait}",))
        one.start()
        os.read(answered, 1)
        others.append((ask, one))

    uss = grown(start, effort)
    for ask, one in others:
        os.write(ask, b"1")
        one.join()
    return uss


@question.opponent(RAW_INTERPRETER, part=True)
def raw_interpreter(effort: Effort) -> Cases:
    return each_apart(partial(interpreters_with, ""), effort)


@question.opponent(RAW_RECEIVER, part=True)
def raw_receiver(effort: Effort) -> Cases:
    return each_apart(partial(interpreters_with, RECEIVER), effort)


@question.opponent(RAW_PROCESS, part=True)
def raw_process(effort: Effort) -> Cases:
    cases = {}
    for name, package in LOADED.items():
        load = f"import {package}\n" if package else ""
        command = [sys.executable, "-c", load + WAITING.format(answer=1, question=0)]
        started = []
        for _ in range(effort(FIRST + MORE, 1)):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.read(1)
            started.append(process)
        cases[name] = {"uss": fmean(settled(partial(private, process.pid), effort) for process in started[-MORE:])}
        for process in started:
            process.communicate()
    return cases


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    waiting: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start() -> None:
        threading.Thread(target=waiting.get).start()

    uss = grown(start, effort)
    for _ in range(FIRST + MORE):
        waiting.put(None)
    return {name: {"uss": uss} for name in LOADED}  # packages are loaded once for all


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, "msgspec", "uss") for name in ("subiso", "process (spawn)"))
    return f"One more isolate with msgspec takes {ours:.1f} MB, one more process {theirs:.1f}"
