"""What does waiting cost?"""

import queue
import threading
import time
from pathlib import Path
from typing import Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Panel, Question, context_of, need
from bench._hello import wait_in_isolate, wait_in_process

CASE = "100 workers, 10 s"

question = Question(
    "idle",
    "A hundred workers that wait",
    "The processor time that 100 workers use in 10 s, all together, while each waits for a message: isolates on a "
    "port, processes on a pipe, threads and interpreters on their queues.",
    {"cpu": Metric("ms")},
    rounds=2,
    panels=[Panel(CASE, "cpu", "processor time of 100 workers in 10 s")],
)


def used(effort: Effort, processes: list[int]) -> Cases:
    """Let time pass, and return what this process and others used of the processor."""
    time.sleep(effort(1.0, 0.1))  # until all is quiet
    before = time.process_time() + sum(map(processor_time, processes))
    time.sleep(effort(10, 0.3))
    after = time.process_time() + sum(map(processor_time, processes))
    return {CASE: {"cpu": (after - before) * 1e3}}


def processor_time(process: int) -> float:
    """Return the seconds that another process has used, to the nanosecond."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    from subiso import Isolate, ReceivePort

    with ReceivePort[Any]() as hello:
        isolates = [Isolate.spawn(wait_in_isolate, hello.send_port) for _ in range(effort(100, 3))]
        ports = [hello.receive(60) for _ in isolates]
        cases = used(effort, [])
        for port in ports:
            port.send(None)
        for one in isolates:
            one.join()
    return cases


@question.opponent("process (spawn)")
def process(effort: Effort) -> Cases:
    context = context_of("spawn")
    started = []
    for _ in range(effort(100, 3)):
        ours, theirs = context.Pipe()
        one = context.Process(target=wait_in_process, args=(theirs,))
        one.start()
        started.append((one, ours))
    cases = used(effort, [ours.recv() for _, ours in started])
    for one, ours in started:
        ours.send(None)
        one.join()
    return cases


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    there: queue.SimpleQueue[None] = queue.SimpleQueue()
    threads = [threading.Thread(target=there.get) for _ in range(effort(100, 3))]
    for one in threads:
        one.start()
    cases = used(effort, [])
    for _ in threads:
        there.put(None)
    return cases


@question.opponent("interpreters.Queue")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    there, back = interpreters.create_queue(), interpreters.create_queue()
    threads = []
    for _ in range(effort(100, 3)):
        other = interpreters.create()
        other.prepare_main(there=there, back=back)
        threads.append(threading.Thread(target=other.exec, args=("back.put(1); there.get()",)))
        threads[-1].start()
    for _ in threads:
        back.get()
    cases = used(effort, [])
    for _ in threads:
        there.put(None)
    for one in threads:
        one.join()
    return cases


@question.answers
def answer(results: Results) -> str:
    ours = results.median("subiso", CASE, "cpu")
    text = f"100 isolates that wait for 10 s use {ours:.1f} ms of the processor"
    theirs = results.spread("interpreters.Queue", CASE, "cpu")
    return text + (f"; by the standard library's queue {theirs.median:,.0f}" if theirs else "")
