"""How many items a second go through a stream? Beside a bounded `multiprocessing.Queue`, filled by a process."""

import argparse
import multiprocessing
import multiprocessing.queues
import os
import statistics
import sys
import time
from collections.abc import Iterator

from subiso import Isolate

BOUND = 1000  # items that may wait, for both


def produce(count: int) -> Iterator[int]:
    yield from range(count)


def fill(queue: "multiprocessing.queues.Queue[int]", count: int) -> None:
    for number in range(count):
        queue.put(number)


def through_stream(count: int) -> float:
    stream = Isolate.stream(produce, count, maxsize=BOUND)
    next(stream)
    start = time.perf_counter()
    rest = sum(1 for _ in stream)
    return rest / (time.perf_counter() - start)


def through_queue(count: int) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(BOUND)
    process = context.Process(target=fill, args=(queue, count))
    process.start()
    queue.get()
    start = time.perf_counter()
    for _ in range(count - 1):
        queue.get()
    rate = (count - 1) / (time.perf_counter() - start)
    process.join()
    return rate


def memory() -> float:
    """Return the resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    quick = parser.parse_args().quick
    count = 2_000 if quick else 100_000
    turns = [(through_stream(count), through_queue(count)) for _ in range(1 if quick else 5)]
    ratio = statistics.median(ours / theirs for ours, theirs in turns)
    ours, theirs = (statistics.median(one) for one in zip(*turns, strict=True))
    print(f"Python {sys.version.split()[0]}: {ours:,.0f} items/s by stream, {theirs:,.0f} by queue: {ratio:.1f} x")
    before, many = memory(), 5_000 if quick else 1_000_000
    through_stream(many)
    print(f"{many:,} items through a stream: {memory() - before:+.1f} MB")


if __name__ == "__main__":
    main()
