"""What does a task cost in a pool, and a map of many small ones?"""

import time
from collections.abc import Callable, Iterable
from functools import partial

from bench._figures import Cases, Results, percentiles
from bench._harness import Effort, Metric, Panel, Question, timed
from bench._hello import negate
from bench._opponents import POOLS

WORKERS = 2
SUBMIT = "submit one, wait for it"
OWN, SINGLY = "map 10,000, chunked by itself", "map 10,000, one at a time"

question = Question(
    "pool",
    "A small task in a pool",
    f"Pools of {WORKERS} workers, which have done something before. One task after the other, each waited for; then "
    "10,000 tasks by `map`, in chunks as the pool makes them unless told otherwise (ProcessPoolExecutor, "
    "InterpreterPoolExecutor and loky: one at a time; isolates: some milliseconds' worth), and one at a time. A task "
    "changes the sign of a number. aiointerpreters has no `map`; it gathers all.",
    {"p50": Metric("µs"), "p99": Metric("µs"), "each": Metric("µs a task")},
    rounds=3,
    panels=[
        Panel(SUBMIT, "p50", "one task, waited for"),
        Panel(OWN, "each", "map, own chunks, each"),
        Panel(SINGLY, "each", "map, singly, each"),
    ],
)


def measure(name: str, effort: Effort) -> Cases:
    """Measure one pool."""
    with POOLS[name](WORKERS) as pool:
        assert list(pool.map(negate, range(10))) == [-number for number in range(10)]
        tasks = timed(lambda: pool.call(negate, 1), effort(0.6, 0.02))
        cases = {SUBMIT: percentiles(tasks), OWN: {"each": time_map(pool.map, effort)}}
        if pool.map_singly is not None:
            cases[SINGLY] = {"each": time_map(pool.map_singly, effort)}
    return cases


def time_map(map_: Callable[..., Iterable[int]], effort: Effort) -> float:
    """Return the microseconds that each of many small tasks took."""
    count = effort(10_000, 200)
    sum(map_(negate, range(count // 10)))
    begin = time.perf_counter()
    total = sum(map_(negate, range(count)))
    seconds = time.perf_counter() - begin
    assert total == -count * (count - 1) // 2
    return seconds / count * 1e6


for _name in POOLS:
    question.opponent(_name)(partial(measure, _name))


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, SUBMIT, "p50") for name in ("subiso", "ProcessPoolExecutor (spawn)"))
    return f"A task in a pool costs {ours:.0f} µs, in a process pool {theirs:.0f}"
