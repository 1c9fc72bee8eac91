"""How long does a task of a pool take, and a map of many small ones? Beside the standard library's executors.

`submit`: one task after the other, each waited for. `map`: ten thousand small tasks, ProcessPoolExecutor's with a chunk
size of one. Each opponent is measured while the others are not there, several times in turn; the ratio is that of one
and the same turn.
"""

import argparse
import concurrent.futures
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from operator import neg

from subiso import IsolatePool

WORKERS = 2

Opponents = dict[str, Callable[[], Executor]]


def opponents() -> Opponents:
    """Return the executors that this Python has."""
    context = multiprocessing.get_context("spawn")
    found: Opponents = {
        "isolates": lambda: IsolatePool(WORKERS),
        "processes": lambda: concurrent.futures.ProcessPoolExecutor(WORKERS, context),
    }
    if hasattr(concurrent.futures, "InterpreterPoolExecutor"):
        found["interpreters"] = lambda: concurrent.futures.InterpreterPoolExecutor(WORKERS)
    return found


def time_submit(pool: Executor, count: int) -> float:
    """Return how many microseconds one task takes, at p50."""
    times = []
    for number in range(count + count // 10):
        start = time.perf_counter()
        if pool.submit(neg, number).result() != -number:
            raise AssertionError("another result came back")
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times[count // 10 :])


def time_map(pool: Executor, count: int) -> float:
    """Return how many milliseconds a map of ``count`` small tasks takes."""
    start = time.perf_counter()
    if sum(pool.map(neg, range(count))) != -count * (count - 1) // 2:
        raise AssertionError("other results came back")
    return (time.perf_counter() - start) * 1e3


def compare(what: str, unit: str, measure: Callable[[Executor], float], turns: int) -> None:
    found: dict[str, list[float]] = {name: [] for name in opponents()}
    for _ in range(turns):
        for name, make in opponents().items():
            with make() as pool:
                list(pool.map(neg, range(10)))  # everybody is there
                found[name].append(measure(pool))
    for name, values in found.items():
        line = f"{what:<8} {name:<13} {statistics.median(values):9.1f} {unit}"
        if name != "isolates":
            ratios = [theirs / ours for ours, theirs in zip(found["isolates"], values, strict=True)]
            line += (
                f"   isolates are {statistics.median(ratios):5.1f} x faster ({min(ratios):.1f} to {max(ratios):.1f})"
            )
        print(line)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    quick = parser.parse_args().quick
    print(f"Python {sys.version.split()[0]}, {WORKERS} workers")
    turns = 1 if quick else 7
    compare("submit", "µs", lambda pool: time_submit(pool, 100 if quick else 2_000), turns)
    compare("map", "ms", lambda pool: time_map(pool, 500 if quick else 10_000), turns)


if __name__ == "__main__":
    main()
