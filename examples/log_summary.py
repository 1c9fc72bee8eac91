"""Summarise a large log of JSON lines on every core: requests, errors, bytes and percentiles for each part of a site.

    python examples/log_summary.py [FILE] [--workers N] [--compare]

Without a file, one of a million requests (some 130 MB) is made up. The file is cut at line ends, every part some 4 MB;
a worker maps its part into memory, has msgspec decode and check each line, and gives back a small summary, so that what
travels between isolates is little. A line that is no such request is counted, not fatal. Ctrl-C stops at once, whatever
the workers do.

`--compare` does the same in one thread, in a thread pool and in a process pool, and tells how long each took.
"""

import argparse
import mmap
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from subiso import IsolatePool

PART = 4 << 20  # bytes: long enough to be worth sending, short enough that all workers end at about the same time


class Request(msgspec.Struct):
    """One line. What else is in it is passed over without being decoded."""

    path: str
    status: int
    milliseconds: float
    bytes: int


@dataclass
class Section:
    """The figures of one part of the site, the first name in the path."""

    requests: int = 0
    errors: int = 0
    bytes: int = 0
    times: Counter[int] = field(default_factory=Counter)  # of requests, by their milliseconds, rounded to two digits

    def add(self, other: "Section") -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.bytes += other.bytes
        self.times.update(other.times)

    def percentile(self, share: float) -> int:
        """Return within how many milliseconds so large a share of the requests was answered."""
        left = share * self.requests
        for milliseconds, count in sorted(self.times.items()):
            left -= count
            if left <= 0:
                return milliseconds
        return 0


@dataclass
class Summary:
    """What is known of a part of the file, or of all of it."""

    sections: dict[str, Section] = field(default_factory=dict)
    broken: int = 0  # lines that are no requests

    def add(self, other: "Summary") -> None:
        self.broken += other.broken
        for name, section in other.sections.items():
            self.sections.setdefault(name, Section()).add(section)


def round_time(milliseconds: float) -> int:
    """Round to two digits: a few hundred different values describe any distribution well enough."""
    unit = 1
    while milliseconds >= 100 * unit:
        unit *= 10
    return round(milliseconds / unit) * unit


def parts_of(path: Path, size: int = PART) -> Iterator[tuple[int, int]]:
    """Yield where parts of about that size begin and end, each at the beginning of a line."""
    with path.open("rb") as file:
        begin, whole = 0, os.fstat(file.fileno()).st_size
        while begin < whole:
            file.seek(min(begin + size, whole))
            file.readline()
            end = file.tell()
            yield begin, end
            begin = end


def summarise(path: Path, begin: int, end: int) -> Summary:
    """Summarise a part of the file."""
    decode = msgspec.json.Decoder(Request).decode
    found = Summary()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        text.seek(begin)
        while text.tell() < end:
            try:
                request = decode(text.readline())
            except msgspec.DecodeError:
                found.broken += 1
                continue
            name = request.path.split("/", 2)[1]
            section = found.sections.get(name) or found.sections.setdefault(name, Section())
            section.requests += 1
            section.errors += request.status >= 500
            section.bytes += request.bytes
            section.times[round_time(request.milliseconds)] += 1
    return found


def combine(parts: Iterable[Summary]) -> Summary:
    """Put the summaries of all parts together."""
    whole = Summary()
    for part in parts:
        whole.add(part)
    return whole


def make_up(path: Path, lines: int) -> None:
    """Write a log of so many requests, one line in a thousand cut short."""
    chance = random.Random(1)
    sections = ["shop", "shop", "shop", "search", "search", "login", "static", "api"]
    with path.open("w") as file:
        for number in range(lines):
            section = chance.choice(sections)
            slow = 8 if section == "search" else 1
            line = (
                f'{{"at": {1_700_000_000 + number / 50:.2f}, "path": "/{section}/{chance.randrange(1000)}", '
                f'"status": {chance.choice((200, 200, 200, 200, 304, 404, 500))}, "agent": "Mozilla/5.0 (X11)", '
                f'"milliseconds": {slow * chance.lognormvariate(2, 1):.1f}, "bytes": {chance.randrange(200, 60_000)}}}'
            )
            file.write((line if number % 1000 else line[:40]) + "\n")


def show(whole: Summary) -> None:
    """Print a table."""
    table = Table(caption=f"{whole.broken:,} lines were no requests")
    for title in ("section", "requests", "errors", "MB sent", "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(title, justify="left" if title == "section" else "right")
    for name, one in sorted(whole.sections.items(), key=lambda item: -item[1].requests):
        figures = [f"{one.requests:,}", f"{one.errors / one.requests:.1%}", f"{one.bytes / 1e6:,.0f}"]
        table.add_row(name, *figures, *(str(one.percentile(share)) for share in (0.5, 0.9, 0.99)))
    Console().print(table)


def compare(path: Path, workers: int, expected: Summary) -> None:
    """Do it in other ways, and tell how long each took."""
    columns = list(zip(*((path, begin, end) for begin, end in parts_of(path)), strict=True))

    def time_it(name: str, summaries: Iterable[Summary], begin: float) -> None:
        if combine(summaries) != expected:
            raise AssertionError(f"{name} found something else")
        print(f"{name:<12}{time.perf_counter() - begin:6.2f} s")

    time_it("one thread", map(summarise, *columns), time.perf_counter())
    for name, executor in (
        ("threads", lambda: ThreadPoolExecutor(workers)),
        ("processes", lambda: ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))),
        ("isolates", lambda: IsolatePool(workers)),
    ):
        begin = time.perf_counter()  # making the workers is part of it
        with executor() as pool:
            time_it(name, pool.map(summarise, *columns), begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="a JSON object in each line")
    parser.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="one for each core")
    parser.add_argument("--lines", metavar="N", type=int, default=1_000_000, help="of the file that is made up")
    parser.add_argument("--compare", action="store_true", help="do it in other ways, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = options.file
        if path is None:
            path = Path(directory) / "log.jsonl"
            make_up(path, options.lines)
        begin = time.perf_counter()
        with IsolatePool(options.workers, name="log") as pool:
            parts = list(parts_of(path))
            summaries = pool.map(lambda part: summarise(path, *part), parts)
            whole = combine(pool.progress(summaries, f"Reading {path.name}", total=len(parts)))
        seconds = time.perf_counter() - begin
        print()
        show(whole)
        print(f"{path.stat().st_size / 1e6:,.0f} MB in {seconds:.2f} s with {options.workers} isolates")
        if options.compare:
            compare(path, options.workers, whole)


if __name__ == "__main__":
    main()
