"""Write docs/reference/faults.md from what tests/faulting.py and tests/killing.py found on each Python.

Usage, once for each Python, in an environment for the tests:

    python tests/faulting.py --json docs/reference/faults/3.14.json
    python tests/killing.py --json docs/reference/faults/kills-3.14.json

and then ``python docs/faults.py``.
"""

import json
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent / "reference"
FOUND = REFERENCE / "faults"
PAGE = REFERENCE / "faults.md"

HEAD = """\
# Faults put in on purpose

Isolates are started, talk and end in many small steps, and each of them can fail: there may be no memory, no
descriptor, no thread, no room on the disk, or somebody kills the isolate just then. On this page is what came out when
each step was made to fail, once, during each operation that comes to it. After every trial the library had to work as
before: isolates and ports were used (and, unless it was a kill, a pool), and no thread, descriptor, isolate or port was
left.

This page is written by a command (`docs/faults.py`) from what `tests/faulting.py` and `tests/killing.py` found.

"""

KINDS = {
    "exception": "an error, of a kind that nothing expects (`FaultError`)",
    "memory": "no memory (`MemoryError`)",
    "mapping": "no memory for a mapping or a memory file (`ENOMEM`)",
    "descriptors": "no descriptor left (`EMFILE`)",
    "disk": "no room for private copies (`ENOSPC`)",
    "thread": "no thread to be had (`can't start new thread`)",
    "kill": "the isolate stops at the step, is killed, and goes on",
}

OUTCOMES = """\
- *done*: the operation did what it was to do. The step was tried again, could be left out, or did not matter.
- An error's name: the operation raised it. *told: …*: an error listener was told of it.
- *ended*: the isolate ended without having done it all. It was killed; or standard error says what has happened.
- *not reached*: the operation comes to this step sometimes, and did not this time.

"""


def page() -> str:
    """Return the text of the page."""
    by_version = lambda report: tuple(map(int, report["python"].split(".")[:2]))  # noqa: E731
    reports = sorted((json.loads(path.read_text()) for path in FOUND.glob("3.*.json")), key=by_version)
    kills = sorted((json.loads(path.read_text()) for path in FOUND.glob("kills-*.json")), key=by_version)
    return HEAD + summary(reports) + killed(kills) + table(reports)


def summary(reports: list[dict[str, Any]]) -> str:
    """Return how much was tried."""
    lines = ["| Python | trials | of which the fault happened | clear outcome and working library |"]
    lines.append("| --- | ---: | ---: | ---: |")
    lines += [
        f"| {one['python']} | {one['trials']} | {one['fired']} | {one['trials'] - one['wrong']} |" for one in reports
    ]
    kinds = "\n".join(f"- *{kind}*: {text}" for kind, text in KINDS.items())
    return "\n".join(lines) + f"\n\nThe faults:\n\n{kinds}\n\nWhat came out:\n\n{OUTCOMES}"


def killed(reports: list[dict[str, Any]]) -> str:
    """Return how many isolates were killed inside which stage."""
    lines = [
        "## Kills",
        "",
        "Isolates that were killed while they stood at a step of each stage, one after another in one process, which",
        "went on. Given up: the isolate got no processor for so long that its kernel stopped waiting for it; it ended",
        "all the same. Memory: what the process gained after the first hundred kills. Some isolates of the stages",
        "start and import had new interpreters, each of which costs memory that CPython does not give back.",
        "",
        "| Python | stage | kills | steps | given up | memory, MB |",
        "| --- | --- | ---: | --- | ---: | ---: |",
    ]
    for report in reports:
        for stage in report["stages"]:
            steps = ", ".join(f"{name.partition('.')[2]} {count}" for name, count in stage["points"].items())
            lines.append(
                f"| {report['python']} | {stage['stage']} | {stage['kills']} | {steps} | {stage['abandoned']} "
                f"| {stage['megabytes']} |"
            )
    return "\n".join(lines) + "\n\n"


def table(reports: list[dict[str, Any]]) -> str:
    """Return what came out, step by step."""
    found: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    tried: dict[tuple[str, str, str], int] = {}
    for report in reports:
        version = report["python"].rpartition(".")[0]
        for step, kinds in report["steps"].items():
            for kind, outcomes in kinds.items():
                for outcome, operations in outcomes.items():
                    for operation in operations:
                        each = found.setdefault((step, kind), {}).setdefault(outcome, {})
                        each.setdefault(operation, []).append(version)
                        tried[step, kind, operation] = tried.get((step, kind, operation), 0) + 1
    lines = ["## Step by step", "", "Versions are named where not all of them did the same.", ""]
    stage = ""
    for (step, kind), outcomes in found.items():
        point, _, where = step.partition(" ")
        if point.partition(".")[0] != stage:
            stage = point.partition(".")[0]
            lines += ["", f"### {stage}", "", "| step | in | fault | what came out |", "| --- | --- | --- | --- |"]
        texts = []
        for outcome, operations in outcomes.items():
            names = [
                name if len(versions) == tried[step, kind, name] else f"{name} ({', '.join(versions)})"
                for name, versions in operations.items()
            ]
            texts.append(f"*{outcome}*: {', '.join(names)}")
        lines.append(f"| `{point}` | {where} | {kind} | {'; '.join(texts).replace('|', '/')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
