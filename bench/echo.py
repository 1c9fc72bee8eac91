"""How long does a small typed message take there and back? An isolate beside a process with `multiprocessing.Pipe`.

Flat out: the next message leaves when the last one is back. Paced: one message every five milliseconds, so that the
other side has gone to sleep. Each opponent is measured while the other is not there, several times in turn; the ratio
is that of the medians of one and the same turn.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import msgspec

from subiso import Isolate, ReceivePort, SendPort

PACE = 0.005  # seconds

Trip = Callable[[int], None]


class Tick(msgspec.Struct):
    number: int
    name: str


@dataclass
class PlainTick:
    number: int
    name: str


def echo_in_isolate(hello: SendPort, back: SendPort) -> None:
    with ReceivePort(Tick) as port:
        hello.send(port.send_port)
        for tick in port:
            if tick.number < 0:
                break
            back.send(tick)


def echo_in_process(pipe: "Connection") -> None:
    while (tick := pipe.recv()).number >= 0:
        pipe.send(tick)


@contextmanager
def isolate() -> Iterator[Trip]:
    with ReceivePort() as hello, ReceivePort(Tick) as back:
        echo = Isolate.spawn(echo_in_isolate, hello.send_port, back.send_port)
        there = hello.receive(30)

        def trip(number: int) -> None:
            there.send(Tick(number, "tick"))
            if back.receive().number != number:
                raise AssertionError("another tick came back")

        yield trip
        there.send(Tick(-1, ""))
        echo.join()


@contextmanager
def process() -> Iterator[Trip]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    echo = context.Process(target=echo_in_process, args=(theirs,))
    echo.start()

    def trip(number: int) -> None:
        ours.send(PlainTick(number, "tick"))
        if ours.recv().number != number:
            raise AssertionError("another tick came back")

    trip(0)
    yield trip
    ours.send(PlainTick(-1, ""))
    echo.join()


def measure(trip: Trip, count: int, pause: float) -> list[float]:
    for number in range(count // 10):
        trip(number)
    times = []
    for number in range(count):
        if pause:
            time.sleep(pause)
        start = time.perf_counter()
        trip(number)
        times.append((time.perf_counter() - start) * 1e6)
    return times


def compare(what: str, count: int, turns: int, pause: float) -> None:
    medians: dict[str, list[float]] = {"isolate": [], "process": []}
    worst: dict[str, list[float]] = {"isolate": [], "process": []}
    for _ in range(turns):
        for name, opponent in (("isolate", isolate), ("process", process)):
            with opponent() as trip:
                times = sorted(measure(trip, count, pause))
            medians[name].append(times[len(times) // 2])
            worst[name].append(times[len(times) * 99 // 100])
    ratios = [theirs / ours for ours, theirs in zip(medians["isolate"], medians["process"], strict=True)]
    for name in medians:
        p50, p99 = statistics.median(medians[name]), statistics.median(worst[name])
        print(f"{what:<10} {name:<8} p50 {p50:8.1f} µs   p99 {p99:8.1f} µs")
    low, high = min(ratios), max(ratios)
    print(f"{what:<10} isolate is {statistics.median(ratios):.1f} x faster at p50 ({low:.1f} to {high:.1f})\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    quick = parser.parse_args().quick
    print(f"Python {sys.version.split()[0]}, there and back of a Struct with an int and a str")
    compare("flat out", 500 if quick else 20_000, 1 if quick else 7, 0)
    compare("paced", 20 if quick else 400, 1 if quick else 3, PACE)


if __name__ == "__main__":
    main()
