"""Do packages with compiled code run side by side in isolates as well as in processes?

Two workers do the same work, first one alone, then both at once. The gain is how much more is done in the same time;
with two cores it is 2 at best. Isolates and processes take turns, several times; what counts is the ratio of their
gains.
"""

import argparse
import importlib.util
import io
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

from subiso import Isolate, ReceivePort, SendPort

Work = Callable[[], object]


def numpy() -> Work:
    """Many calls on small arrays."""
    import numpy as np

    a, b = np.arange(50.0), np.ones(50)

    def work() -> object:
        total = 0.0
        for _ in range(2000):
            total += float((a * b + np.sqrt(a)).sum())
        return total

    return work


def pandas() -> Work:
    """Group by, and aggregate."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"k": np.arange(20_000) % 300, "v": np.arange(20_000.0)})
    return lambda: [frame.groupby("k").v.agg(["sum", "mean", "max"]) for _ in range(8)]


def pydantic() -> Work:
    """Validate JSON."""
    from pydantic import TypeAdapter

    adapter = TypeAdapter(list[dict[str, int | list[str] | None]])
    text = b"[" + b",".join(b'{"a": %d, "b": ["x", "y"], "c": null}' % number for number in range(500)) + b"]"
    return lambda: [adapter.validate_json(text) for _ in range(40)]


def orjson() -> Work:
    """Encode and decode."""
    import orjson as json

    value = [{"a": number, "b": [1.5, None, "text"], "c": {"d": True}} for number in range(500)]
    return lambda: [json.loads(json.dumps(value)) for _ in range(60)]


def regex() -> Work:
    """Search text."""
    import regex as re

    pattern, text = re.compile(r"(?P<a>\w+)@(?P<b>\w+)\.(?:com|org)"), "some text user@host.com and more " * 300
    return lambda: [len(pattern.findall(text)) for _ in range(15)]


def lxml() -> Work:
    """Parse XML and ask for paths in it."""
    from lxml import etree

    text = b"<r>" + b"".join(b"<a x='%d'><b>t</b></a>" % number for number in range(1000)) + b"</r>"
    return lambda: [len(etree.fromstring(text).xpath("//a[@x > 500]/b")) for _ in range(25)]


def pillow() -> Work:
    """Blur, resize and encode images."""
    from PIL import Image, ImageFilter

    image = Image.linear_gradient("L").convert("RGB")

    def work() -> object:
        for _ in range(4):
            image.filter(ImageFilter.GaussianBlur(2)).resize((120, 90)).save(io.BytesIO(), "JPEG")
        return None

    return work


WORKS: dict[str, Callable[[], Work]] = {
    "numpy": numpy,
    "pandas": pandas,
    "pydantic": pydantic,
    "orjson": orjson,
    "regex": regex,
    "lxml": lxml,
    "PIL": pillow,
}


def repeat(work: Work, times: int) -> None:
    """Do the work so many times."""
    for _ in range(times):
        work()


class Worker:
    """Somebody who does a piece of work as many times as told, and says when it is done."""

    def __init__(self, start: Callable[[int], object], wait: Callable[[], object]) -> None:
        self.start = start
        self.wait = wait


def _live_in_isolate(name: str, hello: SendPort, done: SendPort) -> None:
    work = WORKS[name]()
    with ReceivePort() as tasks:
        hello.send(tasks.send_port)
        for times in iter(tasks.receive, 0):
            repeat(work, times)
            done.send(None)


@contextmanager
def isolate(name: str) -> Iterator[Worker]:
    """Give a worker in an isolate."""
    with ReceivePort() as hello, ReceivePort(end_with_senders=False) as done:
        one = Isolate.spawn(_live_in_isolate, name, hello.send_port, done.send_port)
        tasks = hello.receive(120)
        yield Worker(tasks.send, done.receive)
        tasks.send(0)
        one.join()


def _live_in_process(name: str, pipe: Connection) -> None:
    work = WORKS[name]()
    pipe.send(None)
    for times in iter(pipe.recv, 0):
        repeat(work, times)
        pipe.send(None)


@contextmanager
def process(name: str) -> Iterator[Worker]:
    """Give a worker in a process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    one = context.Process(target=_live_in_process, args=(name, theirs))
    one.start()
    ours.recv()
    yield Worker(ours.send, ours.recv)
    ours.send(0)
    one.join()


def timed(workers: list[Worker], times: int) -> float:
    """Return the seconds until all of the workers have done it so many times."""
    begin = time.perf_counter()
    for worker in workers:
        worker.start(times)
    for worker in workers:
        worker.wait()
    return time.perf_counter() - begin


def gain(workers: list[Worker], seconds: float) -> float:
    """Return how much more the workers do at once than one of them alone, in about so many seconds each."""
    one = timed(workers[:1], 2) / 2
    times = max(2, int(seconds / one))
    before, both, after = timed(workers[:1], times), timed(workers, times), timed(workers[1:], times)
    return (before + after) / both


def compare(name: str, seconds: float, turns: int) -> float:
    """Print the gains with one package and return the ratio of isolates' to processes'."""
    with ExitStack() as stack:
        isolates = [stack.enter_context(isolate(name)) for _ in range(2)]
        processes = [stack.enter_context(process(name)) for _ in range(2)]
        pairs = [(gain(isolates, seconds), gain(processes, seconds)) for _ in range(turns)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(our / their for our, their in pairs)
    print(f"{name:<10} two isolates gain {ours:.2f}, two processes {theirs:.2f}: {ratio:.2f} of it")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    quick = parser.parse_args().quick
    print(f"Python {sys.version.split()[0]}")
    for name in WORKS:
        if importlib.util.find_spec(name) is None:
            print(f"{name:<10} is not installed")
        else:
            compare(name, 0.05 if quick else 1.0, 1 if quick else 5)


if __name__ == "__main__":
    main()
