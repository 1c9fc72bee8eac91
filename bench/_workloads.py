"""The real workloads: how they are run by each pool."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench._figures import Cases
from bench._harness import Effort, Metric, Panel, Question, cores
from bench._opponents import POOLS

WHOLE, AGAIN = "from making the pool to the last result", "the same again, in the same pool"
ALONE = "one after the other"
PANELS = [Panel(WHOLE, "seconds", log=False), Panel(AGAIN, "seconds", log=False)]
METRICS = {"seconds": Metric("s")}
WORKERS = max(2, cores())
METHOD = (
    f"{WORKERS} workers, and once without any. The first time includes making the pool, starting its workers and what "
    "they import; the second is the same again in the same pool."
)


def add_opponents(
    question: Question,
    function: Callable[[Any], Any],
    items: Callable[[Effort], Sequence[Any]],
    check: Callable[[list[Any]], object],
    refused: dict[str, str],
) -> None:
    """Have all pools call ``function`` with each of the items."""
    from bench._harness import Unavailable

    def alone(effort: Effort) -> Cases:
        every = items(effort)
        began = time.perf_counter()
        assert check([function(item) for item in every])
        between = time.perf_counter()
        assert check([function(item) for item in every])
        return {WHOLE: {"seconds": between - began}, AGAIN: {"seconds": time.perf_counter() - between}}

    def pooled(name: str, effort: Effort) -> Cases:
        if name in refused:
            raise Unavailable(refused[name])
        every = items(effort)
        began = time.perf_counter()
        with POOLS[name](WORKERS) as pool:
            run = pool.map_singly or pool.map
            assert check(list(run(function, every)))
            between = time.perf_counter()
            assert check(list(run(function, every)))
            end = time.perf_counter()
        return {WHOLE: {"seconds": between - began}, AGAIN: {"seconds": end - between}}

    for name in POOLS:
        question.opponent(name)(partial(pooled, name))
    question.opponent(ALONE)(alone)


def answer(results: Any, what: str) -> str:
    """Tell how long it took, with isolates, processes and alone."""
    ours, processes, alone = (
        results.median(name, WHOLE, "seconds") for name in ("subiso", "ProcessPoolExecutor (spawn)", ALONE)
    )
    return f"{what}: {ours:.2f} s in isolates, {processes:.2f} in a process pool, {alone:.2f} in one thread"
