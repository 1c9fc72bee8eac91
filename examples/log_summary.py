"""Parse a large JSON-lines file and aggregate it with pandas: in isolates, and beside it in a process pool.

    python examples/log_summary.py [FILE] [--workers N]

Without a file, one of a million lines is made up. Needs pandas. Each worker reads a part of the file, from one line's
beginning to another's, and gives back a small frame; the frames are put together at the end.
"""

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from subiso import Isolate


def parts_of(path: Path, count: int) -> Iterator[tuple[int, int]]:
    """Yield where parts of about equal size begin and end, each at the beginning of a line."""
    size, begin = path.stat().st_size, 0
    with path.open("rb") as file:
        for number in range(1, count + 1):
            file.seek(size * number // count)
            file.readline()
            end = file.tell() if number < count else size
            if begin < end:
                yield begin, end
            begin = end


def summarise(path: Path, begin: int, end: int) -> pd.DataFrame:
    """Return for each country and status in a part of the file how many requests there were, and how long they took."""
    with path.open("rb") as file:
        file.seek(begin)
        rows = [json.loads(line) for line in file.read(end - begin).splitlines()]
    groups = pd.DataFrame(rows).groupby(["country", "status"]).milliseconds
    return groups.agg(["count", "sum", "max"])


def combine(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the parts' summaries together."""
    whole = pd.concat(frames).groupby(level=[0, 1]).agg({"count": "sum", "sum": "sum", "max": "max"})
    whole["mean"] = whole["sum"] / whole["count"]
    return whole.sort_index()


def in_isolates(path: Path, parts: list[tuple[int, int]]) -> pd.DataFrame:
    """Summarise each part in an isolate."""
    futures = [Isolate.run(summarise, path, *part) for part in parts]
    return combine([future.result() for future in futures])


def in_processes(path: Path, parts: list[tuple[int, int]]) -> pd.DataFrame:
    """Summarise each part in a process of a pool."""
    with ProcessPoolExecutor(len(parts), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(summarise, path, *part) for part in parts]
        return combine([future.result() for future in futures])


def make_up(path: Path, lines: int) -> None:
    """Write a log of so many requests."""
    chance = random.Random(1)
    with path.open("w") as file:
        for _ in range(lines):
            row = {
                "country": chance.choice(["ar", "de", "in", "jp", "ke", "us"]),
                "status": chance.choice([200, 200, 200, 301, 404, 500]),
                "milliseconds": chance.randrange(1, 900),
                "path": f"/page/{chance.randrange(1000)}",
            }
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="with a JSON object in each line")
    parser.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="one for each core")
    parser.add_argument("--lines", metavar="N", type=int, default=1_000_000, help="of the file that is made up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = arguments.file
        if path is None:
            path = Path(directory) / "log.jsonl"
            make_up(path, arguments.lines)
        parts = list(parts_of(path, arguments.workers))
        results = []
        for way in (in_isolates, in_processes):
            begin = time.perf_counter()
            results.append(way(path, parts))
            print(f"{way.__name__}: {time.perf_counter() - begin:.2f} s")
    pd.testing.assert_frame_equal(*results)
    print(results[0])


if __name__ == "__main__":
    main()
