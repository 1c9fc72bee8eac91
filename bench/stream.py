"""How many items a second does a generator in a worker give?"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Panel, Question, context_of

BOUND = 1000  # items that may wait
ITEMS = "numbers, 1000 of which may wait"

question = Question(
    "stream",
    "A generator in a worker",
    f"Numbers that a generator yields in a worker, at most {BOUND} of which may wait to be taken: `Isolate.stream`, "
    "and bounded queues that are filled by a process and by a thread.",
    {"rate": Metric("per s", lower_is_better=False)},
    panels=[Panel(ITEMS, "rate", log=False)],
)


def produce(count: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(count)


def fill(there: Any, count: int) -> None:
    """Put numbers into a queue."""
    for number in produce(count):
        there.put(number)


def rate_of(take: Callable[[], int], count: int) -> Cases:
    """Take that many numbers, and return how many came a second after the first."""
    take()
    begin = time.perf_counter()
    for _ in range(count - 1):
        last = take()
    seconds = time.perf_counter() - begin
    assert last == count - 1
    return {ITEMS: {"rate": (count - 1) / seconds}}


@question.opponent("subiso")
def stream(effort: Effort) -> Cases:
    from subiso import Isolate

    count = effort(200_000, 2000)
    return rate_of(Isolate.stream(produce, count, maxsize=BOUND).__next__, count)


@question.opponent("mp.Queue (spawn)")
def process(effort: Effort) -> Cases:
    context, count = context_of("spawn"), effort(100_000, 2000)
    there: Any = context.Queue(BOUND)
    one = context.Process(target=fill, args=(there, count))
    one.start()
    cases = rate_of(there.get, count)
    one.join()
    return cases


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    count = effort(100_000, 2000)
    there: queue.Queue[int] = queue.Queue(BOUND)
    one = threading.Thread(target=fill, args=(there, count))
    one.start()
    cases = rate_of(there.get, count)
    one.join()
    return cases


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, ITEMS, "rate") for name in ("subiso", "mp.Queue (spawn)"))
    return f"A stream gives {ours / 1e6:.2f} million items a second, a process's queue {theirs / 1e6:.2f}"
