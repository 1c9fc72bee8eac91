"""Measures, and writes the page: ``python -m bench [--quick] [--python PYTHON] [QUESTION ...]``.

``python -m bench report`` writes docs/benchmarks.md and its pictures again from the results that are kept. The exit
code is 1 if a measurement failed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from bench import _harness, _machine

RESULTS = Path(__file__).parent / "results"
QUICK = _harness.ROOT / "build" / "bench"  # where quick figures and what is drawn of them go: they mean little


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument("--python", action="append", help="measure on this Python; may be given several times")
    parser.add_argument("--results", type=Path, help="the folder for the results")
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"'report', or some of:\n{' '.join(_harness.QUESTIONS)}"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.questions) - {*_harness.QUESTIONS, "report"}:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    return options


def main(arguments: list[str]) -> int:
    """Measure what is asked for, and return how it went."""
    options = parse(arguments)
    if options.python:
        rest = ["--quick"] * options.quick + (["--results", str(options.results)] if options.results else [])
        commands = [[python, "-m", "bench", *rest, *options.questions] for python in options.python]
        return max(subprocess.run(command, cwd=_harness.ROOT, check=False).returncode for command in commands)
    folder = options.results or (QUICK if options.quick else RESULTS)
    failed = []
    names = options.questions or _harness.QUESTIONS
    for name in names:
        if name != "report":
            failed += measure(name, options.quick, folder)
    if "report" in names or (options.quick and not options.questions):
        from bench import _report

        _report.write(folder, QUICK / "docs" if options.quick else _harness.ROOT / "docs")
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def measure(name: str, quick: bool, folder: Path) -> list[str]:
    """Measure one question, keep and print what it gave, and return which of its measurements failed."""
    question = _harness.load(name)
    print(f"\n== {question.name}: {question.title} ".ljust(100, "="), flush=True)
    results = _harness.ask(question, _harness.Effort(quick), _machine.header())
    _harness.save(results, name, folder / f"{sys.version_info[0]}.{sys.version_info[1]}.json")
    for line in _harness.describe(question, results):
        print(line)
    print(f"  ({results.seconds:.0f} s)", flush=True)
    return [f"{name} of {opponent}" for opponent in results.failed]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
