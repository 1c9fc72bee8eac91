"""A real workload: a log of JSON lines aggregated."""

import itertools
import json
import tempfile
from functools import cache
from pathlib import Path

from bench import _workloads
from bench._figures import Results
from bench._harness import Effort, Question

LINES, CHUNKS = 200_000, 64

question = Question(
    "logs",
    "A log of JSON lines aggregated",
    f"A file of {LINES:,} lines (some 40 MB), each a JSON object of a web server's, is aggregated: requests, bytes "
    f"and the slowest by path and status. A task is one of {CHUNKS} parts of the file, told by its position; json is "
    f"the standard library's. {_workloads.METHOD}",
    _workloads.METRICS,
    rounds=3,
    panels=_workloads.PANELS,
)


def _line(number: int) -> str:
    entry = {
        "time": f"2026-01-{number % 28 + 1:02}T12:00:{number % 60:02}Z",
        "path": f"/items/{number * 7919 % 97}",
        "status": (200, 200, 200, 304, 404, 500)[number % 6],
        "bytes": number * 31 % 50_000,
        "seconds": number * 17 % 1000 / 1000,
        "agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "tags": ["web", f"eu-{number % 4}"],
        "user": {"id": number % 5000, "new": number % 9 == 0},
    }
    return json.dumps(entry) + "\n"


@cache
def log_of(lines: int) -> str:
    """Write a log, the same each time, and return its path."""
    path = Path(tempfile.gettempdir()) / f"subiso-bench-{lines}.jsonl"
    if not path.exists():
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            file.writelines(map(_line, range(lines)))
        partial.rename(path)
    return str(path)


def aggregate(part: tuple[str, int, int]) -> dict[str, tuple[int, int, float]]:
    """Return requests, bytes and the longest by path and status, of the lines that begin in a part of a file."""
    path, start, end = part
    found: dict[str, tuple[int, int, float]] = {}
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()  # it belongs to the part before
        while file.tell() < end and (line := file.readline()):
            entry = json.loads(line)
            key = f"{entry['path']} {entry['status']}"
            requests, size, longest = found.get(key, (0, 0, 0.0))
            found[key] = (requests + 1, size + entry["bytes"], max(longest, entry["seconds"]))
    return found


def parts(effort: Effort) -> list[tuple[str, int, int]]:
    """Return the parts of the file."""
    path = log_of(effort(LINES, 2000))
    size = Path(path).stat().st_size
    bounds = [size * number // CHUNKS for number in range(CHUNKS + 1)]
    return [(path, start, end) for start, end in itertools.pairwise(bounds)]


def check(results: list[dict[str, tuple[int, int, float]]]) -> object:
    """See that each line was counted once."""
    return sum(requests for one in results for requests, _, _ in one.values()) in (LINES, 2000)


_workloads.add_opponents(question, aggregate, parts, check, {"aiointerpreters": "it returns no dicts"})


@question.answers
def answer(results: Results) -> str:
    return _workloads.answer(results, "Aggregating a log")
