"""The record of soaks, in JSON, and the page of the documentation that is made from it."""

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "explanation" / "soaks"
PAGE = ROOT / "docs" / "explanation" / "endurance.md"
MARK = "<!-- written by `python soak --write-page`; what stands below is overwritten -->\n"


class Record:
    """One soak. It is written again and again, so that one that dies leaves a record that says so."""

    def __init__(self, seed: int, directory: Path | None) -> None:
        began = datetime.datetime.now(datetime.UTC)
        self.facts: dict = {
            "python": platform.python_version(),
            "commit": _commit(),
            "seed": seed,
            "began": began.strftime("%Y-%m-%d %H:%M"),
            "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
            "outcome": "died",
        }
        version = ".".join(platform.python_version_tuple()[:2])
        self._path = directory and directory / f"{version}-{began:%Y%m%d-%H%M%S}-{seed}.json"

    def write(self, **facts) -> None:
        self.facts |= facts
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.facts, indent=1) + "\n"
            self._path.with_suffix(".new").write_text(text)
            self._path.with_suffix(".new").replace(self._path)


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def page(records: Path = RECORDS, written: Path = PAGE) -> str:
    """Return the page: what was written by hand, and the figures."""
    head = written.read_text().partition(MARK)[0]
    soaks = [json.loads(path.read_text()) for path in sorted(records.glob("*.json"))]
    soaks.sort(key=lambda one: (tuple(map(int, one["python"].split(".")[:2])), one["began"]))
    return head + MARK + "\n" + _totals(soaks) + _list(soaks)


def _totals(soaks: list[dict]) -> str:
    columns = ("soaks", "hours", "rounds", "isolates", "kills", "messages", "tasks", "failures")
    lines = [f"| Python | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for python in dict.fromkeys(one["python"] for one in soaks):
        those = [one for one in soaks if one["python"] == python]
        counts = [sum(one.get("counts", {}).get(name, 0) for one in those) for name in columns[3:7]]
        hours = sum(one.get("seconds", 0) for one in those) / 3600
        failures = sum(one["outcome"] != "passed" for one in those)
        rounds = sum(one.get("rounds", 0) for one in those)
        cells = [f"{len(those)}", f"{hours:.2f}", *(f"{number:,}" for number in (rounds, *counts)), f"{failures}"]
        lines.append(f"| {python} | {' | '.join(cells)} |")
    return "## Cumulated\n\n" + "\n".join(lines) + "\n\n"


def _list(soaks: list[dict]) -> str:
    lines = [
        "## Each soak",
        "",
        "Memory is what the process used after the warm-up and at the end. `python soak --replay SEED:ROUND` plays the",
        "round of a failure again.",
        "",
        "| Python | began (UTC) | commit | seed | minutes | rounds | memory, MB | outcome |",
        "| --- | --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for one in soaks:
        memory = " → ".join(f"{one[key] / 1e6:.0f}" for key in ("memory_first", "memory_last") if key in one)
        outcome = one["outcome"] + (f": {one['reason']}" if "reason" in one else "")
        outcome = outcome.replace("|", "\\|").replace("\n", " ")[:300]
        minutes = f"{one.get('seconds', 0) / 60:.1f}"
        cells = (
            one["python"],
            one["began"],
            one["commit"],
            one["seed"],
            minutes,
            one.get("rounds", 0),
            memory,
            outcome,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def write_page() -> None:
    """Bring the page up to date."""
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(ROOT)} is up to date", file=sys.stderr)
