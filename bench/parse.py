"""A real workload: the standard library parsed."""

import sysconfig
from collections import Counter
from pathlib import Path

from bench import _workloads
from bench._figures import Results
from bench._harness import Effort, Question

question = Question(
    "parse",
    "The standard library parsed by `ast`",
    "Each file of the standard library (tests and idlelib left out) is read and parsed, and its functions, classes "
    f"and branches are counted; a task is a folder of files or some. {_workloads.METHOD}",
    _workloads.METRICS,
    rounds=3,
    panels=_workloads.PANELS,
)


def count_nodes(paths: list[str]) -> dict[str, int]:
    """Return how many of each kind of statement some files have."""
    import ast

    counts: Counter[str] = Counter()
    for path in paths:
        tree = ast.parse(Path(path).read_bytes())
        counts.update(type(node).__name__ for node in ast.walk(tree))
    return dict(counts)


def groups(effort: Effort) -> list[list[str]]:
    """Return the files, a few for each task."""
    home = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
    paths = sorted(
        str(path) for path in home.rglob("*.py") if path.is_file() and not left_out & set(path.relative_to(home).parts)
    )
    paths = paths[: effort(len(paths), 8)]
    return [paths[start : start + 8] for start in range(0, len(paths), 8)]


def check(results: list[dict[str, int]]) -> object:
    """See that something was found."""
    return sum(one.get("FunctionDef", 0) for one in results) > 5


_workloads.add_opponents(
    question, count_nodes, groups, check, {"aiointerpreters": "it takes no lists, and returns no dicts"}
)


@question.answers
def answer(results: Results) -> str:
    return _workloads.answer(results, "Parsing the standard library")
