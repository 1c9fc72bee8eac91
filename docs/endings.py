"""Write docs/reference/endings.md from what tests/endings.py has measured on each Python.

Usage: ``python tests/endings.py --times 200 --json docs/reference/endings/3.14.json``, on each Python, and then
``python docs/endings.py``.
"""

import json
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference"
FOUND = REFERENCE / "endings"
PAGE = REFERENCE / "endings.md"

HEAD = """\
# How programs end

Programs with isolates, ended many times over in each of these ways by `tests/endings.py`. A signal comes at a random
instant between the program's first line and the end that it would have come to by itself. A failure would be a program
that has not ended after 30 seconds, a crash, a complaint of CPython's, or an exit code that the program could not have
had. The time is that from the signal, or from the program's last line, to the end of the process, on two processors
that were busy with other things as well. `asyncio.run` may end with 1, for a `CancelledError`: it forgets a Ctrl-C that
comes before it has begun.

This page is written by a command (`docs/endings.py`), not by hand.

"""


def main() -> None:
    """Write the page."""
    reports = [json.loads(path.read_text()) for path in FOUND.glob("*.json")]
    reports.sort(key=lambda report: tuple(map(int, report["python"].split("."))))
    text = HEAD
    endings = {one["ending"]: one["what"] for report in reports for one in report["endings"]}
    for name, what in endings.items():
        text += f"## {what}\n\n| Python | times | failures | p50, ms | p99, ms | longest, ms | exit codes |\n"
        text += "| --- " * 7 + "|\n"
        for report in reports:
            for one in report["endings"]:
                if one["ending"] == name:
                    codes = ", ".join(f"{code}: {times}" for code, times in one["codes"].items())
                    figures = [
                        report["python"],
                        *(one[key] for key in ("times", "failures", "p50_ms", "p99_ms", "longest_ms")),
                    ]
                    text += f"| {' | '.join(map(str, figures))} | {codes} |\n"
        text += "\n"
    PAGE.write_text(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
