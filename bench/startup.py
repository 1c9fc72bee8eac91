"""How long until a worker's first message or result is there?"""

import queue
import subprocess
import sys
import threading
import time
from typing import Any

from bench._figures import Cases, Results, percentiles
from bench._harness import Effort, Metric, Panel, Question, Unavailable, context_of, need, timed
from bench._hello import negate, say_hello

COLD, IMPORTED, PROGRAM, WARM = "cold, import included", "cold", "whole program", "warm"

question = Question(
    "startup",
    "Starting a worker",
    "Cold: a new program's first worker, until its first message or result is there, with and without the import of "
    "the library; the whole program is from its start to its end, as a shell sees it. Warm: the next workers of a "
    "program, each started when the last one has ended; isolates' interpreters are then used again.",
    {"p50": Metric("ms")},
    rounds=5,
    panels=[
        Panel(WARM, "p50", "the next ones, warm"),
        Panel(COLD, "p50", "the first one, import included"),
    ],
)

PROGRAMS = {
    "subiso": (
        "from subiso import Isolate, ReceivePort",
        "port = ReceivePort(); isolate = Isolate.spawn(say_hello, port.send_port); port.receive(); end = clock()",
    ),
    "IsolatePool": (
        "from subiso import IsolatePool",
        "with IsolatePool(1) as pool: pool.submit(negate, 1).result(); end = clock()",
    ),
    "process (spawn)": (
        "import multiprocessing; context = multiprocessing.get_context('spawn')",
        (
            "ours, theirs = context.Pipe(); one = context.Process(target=say_hello, args=(theirs,)); one.start(); "
            "ours.recv(); end = clock(); one.join()"
        ),
    ),
    "process (forkserver)": (
        "import multiprocessing; context = multiprocessing.get_context('forkserver')",
        (
            "ours, theirs = context.Pipe(); one = context.Process(target=say_hello, args=(theirs,)); one.start(); "
            "ours.recv(); end = clock(); one.join()"
        ),
    ),
    "ProcessPoolExecutor (spawn)": (
        "from concurrent.futures import ProcessPoolExecutor; from multiprocessing import get_context",
        "with ProcessPoolExecutor(1, get_context('spawn')) as pool: pool.submit(negate, 1).result(); end = clock()",
    ),
    "InterpreterPoolExecutor": (
        "from concurrent.futures import InterpreterPoolExecutor",
        "with InterpreterPoolExecutor(1) as pool: pool.submit(negate, 1).result(); end = clock()",
    ),
    "loky": (
        "import loky",
        "pool = loky.get_reusable_executor(1); pool.submit(negate, 1).result(); end = clock(); pool.shutdown()",
    ),
    "mpire (spawn)": (
        "import mpire",
        "with mpire.WorkerPool(1, start_method='spawn') as pool: pool.apply(negate, 1); end = clock()",
    ),
    "thread": (
        "import threading, queue",
        (
            "port = type('Port', (queue.SimpleQueue,), {'send': queue.SimpleQueue.put})(); "
            "threading.Thread(target=say_hello, args=(port,)).start(); port.get(); end = clock()"
        ),
    ),
    "aiointerpreters": (
        "import asyncio; from aiointerpreters.runner import Runner",
        (
            "async def main():\n"
            "    with Runner(workers=1).start() as one: await one.run(negate, 1); return clock()\n"
            "end = asyncio.run(main())"
        ),
    ),
}


def cold(name: str, effort: Effort) -> Cases:
    """Run programs that start one worker each."""
    imports, start = PROGRAMS[name]
    code = (
        "from bench._hello import say_hello, negate\nfrom time import perf_counter as clock\n"
        f"began = clock()\n{imports}\nimported = clock()\n{start}\nprint(began, imported, end, flush=True)"
    )
    cases: Cases = {COLD: {}, IMPORTED: {}, PROGRAM: {}}
    found: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(effort(8, 1)):
        before = time.perf_counter()
        outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        whole = time.perf_counter() - before
        if "ImportError" in outcome.stderr or "ModuleNotFoundError" in outcome.stderr:
            raise Unavailable(outcome.stderr.splitlines()[-1].partition(" (")[0])  # without where the file lies
        if outcome.returncode:
            raise RuntimeError(outcome.stderr)
        began, imported, end = map(float, outcome.stdout.split())
        if number or effort.quick:  # the first one has brought the files into the cache
            for case, seconds in ((COLD, end - began), (IMPORTED, end - imported), (PROGRAM, whole)):
                found[case].append(seconds)
    return {case: milliseconds(times) for case, times in found.items()}


def milliseconds(times: list[float]) -> dict[str, float]:
    """Return the median in milliseconds."""
    return {"p50": percentiles(times)["p50"] / 1e3}


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    from subiso import Isolate, ReceivePort

    cases = cold("subiso", effort)
    times = []
    with ReceivePort[Any](end_with_senders=False) as port:
        for number in range(effort(220, 25)):
            begin = time.perf_counter()
            one = Isolate.spawn(say_hello, port.send_port)
            port.receive()
            if number >= 20:
                times.append(time.perf_counter() - begin)
            one.join()
    return cases | {WARM: milliseconds(times)}


@question.opponent("Isolate.run")
def run(effort: Effort) -> Cases:
    from subiso import Isolate

    for _ in range(20):
        Isolate.run(negate, 1).result()
    return {WARM: milliseconds(timed(lambda: Isolate.run(negate, 1).result(), effort(0.5, 0.02)))}


@question.opponent("IsolatePool")
def isolate_pool(effort: Effort) -> Cases:
    return cold("IsolatePool", effort)


def start_process(context: Any) -> float:
    """Start a process and return the seconds until its first message was there."""
    begin = time.perf_counter()
    ours, theirs = context.Pipe()
    process = context.Process(target=say_hello, args=(theirs,))
    process.start()
    theirs.close()
    ours.recv()
    end = time.perf_counter()
    process.join()
    ours.close()
    return end - begin


def processes(name: str, method: str, effort: Effort) -> Cases:
    """Measure processes that are started in one way."""
    cases = cold(name, effort)
    context = context_of(method)
    start_process(context)
    return cases | {WARM: milliseconds([start_process(context) for _ in range(effort(15, 2))])}


@question.opponent("process (spawn)")
def spawned(effort: Effort) -> Cases:
    return processes("process (spawn)", "spawn", effort)


@question.opponent("process (forkserver)")
def forkserver(effort: Effort) -> Cases:
    return processes("process (forkserver)", "forkserver", effort)


@question.opponent("ProcessPoolExecutor (spawn)")
def process_pool(effort: Effort) -> Cases:
    return cold("ProcessPoolExecutor (spawn)", effort)


@question.opponent("loky")
def loky(effort: Effort) -> Cases:
    return cold("loky", effort)


@question.opponent("mpire (spawn)")
def mpire(effort: Effort) -> Cases:
    return cold("mpire (spawn)", effort)


@question.opponent("InterpreterPoolExecutor")
def interpreter_pool(effort: Effort) -> Cases:
    return cold("InterpreterPoolExecutor", effort)


@question.opponent("concurrent.interpreters")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    def start() -> None:
        other = interpreters.create()
        assert other.call(negate, 1) == -1
        other.close()

    return {WARM: milliseconds(timed(start, effort(0.5, 0.02), at_least=3))}


@question.opponent("aiointerpreters")
def runner(effort: Effort) -> Cases:
    return cold("aiointerpreters", effort)


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    def start() -> None:
        port: queue.SimpleQueue[int] = queue.SimpleQueue()
        one = threading.Thread(target=lambda: port.put(negate(1)))
        one.start()
        port.get()
        one.join()

    return cold("thread", effort) | {WARM: milliseconds(timed(start, effort(0.2, 0.02)))}


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, WARM, "p50") for name in ("subiso", "process (spawn)"))
    cold = results.median("subiso", COLD, "p50")
    return f"The next isolate starts in {ours:.2g} ms, a process in {theirs:.0f}; the first isolate in {cold:.0f}"
