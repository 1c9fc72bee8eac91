"""How many messages a second go one way?"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Panel, Question, context_of, need
from bench._messages import SMALL, Tick
from bench._plain import NUMBERED, put_all, send_all

BYTES = "1 kB of bytes"

question = Question(
    "oneway",
    "Messages one way",
    "One side sends as fast as it can, the other receives; it counts until the last one is received. The small typed "
    "message is a Struct through a typed port, and a dataclass, pickled, with the others; the thread hands over the "
    "objects themselves.",
    {"rate": Metric("per s", lower_is_better=False)},
    panels=[Panel(SMALL, "rate", "small typed messages"), Panel(BYTES, "rate", "1 kB of bytes")],
)


def receive_all(receive: Callable[[], Any], case: str, count: int) -> float:
    """Receive so many messages after a first one, and return how many a second."""
    receive()
    begin = time.perf_counter()
    for _ in range(count - 1):
        last = receive()
    rate = (count - 1) / (time.perf_counter() - begin)
    assert last == NUMBERED[case](count - 1) or last == Tick(count - 1, "tick")
    return rate


def _send_in_isolate(port: Any, case: str, count: int) -> None:
    if case == SMALL:
        send = port.send
        for number in range(count):
            send(Tick(number, "tick"))
    else:
        send_all(port, case, count)


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    from subiso import Isolate, ReceivePort

    cases = {}
    for case in NUMBERED:
        count = effort(100_000, 500)
        with ReceivePort[Any](Tick if case == SMALL else Any) as port:
            one = Isolate.spawn(_send_in_isolate, port.send_port, case, count)
            cases[case] = {"rate": receive_all(port.receive, case, count)}
            one.join()
    return cases


@question.opponent("Pipe (spawn)")
def pipe(effort: Effort) -> Cases:
    context, cases = context_of("spawn"), {}
    for case in NUMBERED:
        ours, theirs = context.Pipe()
        process = context.Process(target=send_all, args=(theirs, case, effort(50_000, 500)))
        process.start()
        cases[case] = {"rate": receive_all(ours.recv, case, effort(50_000, 500))}
        process.join()
    return cases


@question.opponent("mp.Queue (spawn)")
def queues(effort: Effort) -> Cases:
    context, cases = context_of("spawn"), {}
    for case in NUMBERED:
        there: Any = context.Queue()
        process = context.Process(target=put_all, args=(there, case, effort(50_000, 500)))
        process.start()
        cases[case] = {"rate": receive_all(there.get, case, effort(50_000, 500))}
        process.join()
    return cases


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    cases = {}
    for case in NUMBERED:
        there: queue.SimpleQueue[Any] = queue.SimpleQueue()
        one = threading.Thread(target=put_all, args=(there, case, effort(100_000, 500)))
        one.start()
        cases[case] = {"rate": receive_all(there.get, case, effort(100_000, 500))}
        one.join()
    return cases


@question.opponent("interpreters.Queue")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    cases = {}
    for case in NUMBERED:
        there, other = interpreters.create_queue(), interpreters.create()
        one = other.call_in_thread(put_all, there, case, effort(50_000, 500))
        cases[case] = {"rate": receive_all(there.get, case, effort(50_000, 500))}
        one.join()
        other.close()
    return cases


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, SMALL, "rate") for name in ("subiso", "mp.Queue (spawn)"))
    return f"{ours / 1e6:.2f} million typed messages a second one way, by a process's Queue {theirs / 1e6:.2f}"
