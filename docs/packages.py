"""Write docs/reference/packages.md from what ``subiso check --all --json`` found on each Python.

Usage, once for each Python, in an environment with the packages:

    subiso check --all --rounds 50 --json > docs/reference/packages/3.14.json

and then ``python docs/packages.py``.
"""

import json
from pathlib import Path

from subiso.cli.known import table

REFERENCE = Path(__file__).parent / "reference"
FOUND = REFERENCE / "packages"
PAGE = REFERENCE / "packages.md"

HEAD = """\
# Packages that work in isolates

Packages with compiled code, tried by [`subiso check`](command-line.md#subiso-check) in a process each. **works** means:
the compiled modules were loaded in every isolate from a copy of its own, at another place in memory each; a smoke
function that calls them gave in every isolate what it gives in main; and that in {isolates} isolates at once, {rounds}
rounds, some of them in new interpreters, and one of them while main did the same, without a crash.

This page is written by a command (`docs/packages.py`), not by hand.

"""


def main() -> None:
    """Write the page."""
    reports = [json.loads(path.read_text()) for path in sorted(FOUND.glob("*.json"))]
    found: dict = {}
    for report in sorted(reports, key=lambda report: tuple(map(int, report["python"].split(".")[:2]))):
        packages = found.setdefault(report["python"], {})
        packages.update({package["package"]: package for package in report["packages"]})
    names = sorted({name for packages in found.values() for name in packages}, key=str.lower)
    rounds = sorted({package["rounds"] for packages in found.values() for package in packages.values()})
    isolates = sorted({package["isolates"] for packages in found.values() for package in packages.values()})
    text = HEAD.format(rounds=" or ".join(map(str, rounds)), isolates=" or ".join(map(str, isolates)))
    text += summary(found) + verdicts(found, names) + causes(found, names) + costs(found, names)
    PAGE.write_text(text)


def summary(found: dict) -> str:
    """Return how many there are of each verdict."""
    lines = ["| Python | tried | works | does not |", "| --- | --- | --- | --- |"]
    for python, packages in found.items():
        works = sum(one["verdict"] == "works" for one in packages.values())
        lines.append(f"| {python} | {len(packages)} | {works} | {len(packages) - works} |")
    return "\n".join(lines) + "\n\n"


def verdicts(found: dict, names: list[str]) -> str:
    """Return the table of packages and Pythons; a minus means that there was no wheel for it."""
    lines = [
        "## Verdicts",
        "",
        "The version is that of the newest Python it was tried on. A minus: there was no wheel for that Python.",
        "",
        f"| package | version | {' | '.join(python.rpartition('.')[0] for python in found)} | compiled modules |",
        "| --- | --- |" + " --- |" * (len(found) + 1),
    ]
    for name in names:
        each = [packages.get(name) for packages in found.values()]
        newest = [one for one in each if one][-1]
        modules = max(len(one["modules"]) + len(one["ordinary"]) for one in each if one)
        marks = " | ".join(one["verdict"] if one else "-" for one in each)
        lines.append(f"| {name} | {newest['version']} | {marks} | {modules or 'opened by ctypes, shared'} |")
    return "\n".join(lines) + "\n\n"


def causes(found: dict, names: list[str]) -> str:
    """Return why what does not work does not."""
    lines = ["## What does not work, and why", ""]
    known = table()
    for name in names:
        reasons: dict[str, list[str]] = {}
        for python, packages in found.items():
            if name in packages and packages[name]["verdict"] != "works":
                reasons.setdefault(packages[name]["reason"] or packages[name]["verdict"], []).append(python)
        lines += [f"- **{name}** ({', '.join(pythons)}): {reason}" for reason, pythons in reasons.items()]
        if reasons and "cause" in known.get(name, {}):
            lines.append(f"  Cause: {known[name]['cause']}")
    return "\n".join(lines) + "\n\n"


def costs(found: dict, names: list[str]) -> str:
    """Return time and memory on the newest Python."""
    python, packages = (
        list(found.items())[-1]
        if "3.14" not in str(list(found))
        else next((python, packages) for python, packages in found.items() if python.startswith("3.14"))
    )
    lines = [
        "## What they cost",
        "",
        f"Python {python}: milliseconds that the import took in main, in one isolate, and in the slowest of several",
        "isolates at once; and the memory that each further isolate took, itself included. The machine was not idle:",
        "read them as sizes, not as figures.",
        "",
        "| package | main, ms | isolate, ms | at once, ms | memory, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        if name in packages and packages[name]["verdict"] == "works":
            one = packages[name]
            times = [one[key] for key in ("seconds_main", "seconds_first", "seconds_at_once")]
            shown = " | ".join("" if time is None else f"{time * 1000:.0f}" for time in times)
            memory = "" if one["memory"] is None else f"{one['memory'] / 1e6:.1f}"
            lines.append(f"| {name} | {shown} | {memory} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
