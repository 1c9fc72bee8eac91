"""How long until a busy worker is gone?"""

import time
from collections.abc import Callable
from typing import Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Panel, Question, context_of

LOOP, SWALLOW = "a loop", "a loop that catches everything"

question = Question(
    "kills",
    "Stopping busy code",
    "From `kill` until `join` returns: of a loop, and of a loop that catches whatever is raised and goes on. A "
    "process is killed by a signal (SIGKILL), at which its `finally` blocks do not run; an isolate's do. Threads and "
    "the standard library's interpreters cannot be stopped.",
    {"p50": Metric("ms"), "p99": Metric("ms")},
    rounds=3,
    panels=[Panel(LOOP, "p50", log=False), Panel(SWALLOW, "p50", log=False)],
)


def loop(hello: Any) -> None:
    """Never end."""
    hello.send(None)
    while True:
        pass


def swallow(hello: Any) -> None:
    """Never end, whatever is raised."""
    hello.send(None)
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def figures(kill: Callable[[Any], float], effort: Effort, count: int) -> Cases:
    """Kill both a number of times."""
    cases = {}
    for name, entry in ((LOOP, loop), (SWALLOW, swallow)):
        times = sorted(kill(entry) * 1e3 for _ in range(effort(count, 3)))
        cases[name] = {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}
    return cases


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    from subiso import Isolate, ReceivePort

    with ReceivePort[Any](end_with_senders=False) as hello:

        def kill(entry: Callable[[Any], None]) -> float:
            one = Isolate.spawn(entry, hello.send_port)
            hello.receive(60)
            begin = time.perf_counter()
            one.kill()
            one.join()
            return time.perf_counter() - begin

        for _ in range(5):
            kill(loop)
        return figures(kill, effort, 100)


@question.opponent("process (spawn)")
def process(effort: Effort) -> Cases:
    context = context_of("spawn")

    def kill(entry: Callable[[Any], None]) -> float:
        ours, theirs = context.Pipe()
        one = context.Process(target=entry, args=(theirs,))
        one.start()
        ours.recv()
        begin = time.perf_counter()
        one.kill()
        one.join()
        return time.perf_counter() - begin

    return figures(kill, effort, 15)


@question.answers
def answer(results: Results) -> str:
    ours, stubborn = (results.median("subiso", case, "p50") for case in (LOOP, SWALLOW))
    return f"A busy isolate is gone {ours:.1f} ms after it is killed, {stubborn:.0f} if it catches everything"
