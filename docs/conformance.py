"""Writes reference/dart-conformance.md: which behaviours of Dart's tests are pinned down by which of ours.

The behaviours stand in dart_tests.toml; the tests name them: ``@pytest.mark.dart("lib/kill_test")``, and where ours
differs ``differs="because …"``. Run ``python docs/conformance.py`` after a change of either: a test checks that.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
PAGE = DOCS / "reference" / "dart-conformance.md"
TESTS = DOCS.parent / "tests"

INTRODUCTION = """\
# Dart's behaviours, one by one

This page says, for each of the tests by which Dart's own implementation is checked, whether the behaviour that it pins
down is ours as well. It is made from the marks on our tests: *same* means that the test named beside it passes on every
supported version of Python; *differs* and *not applicable* come with the reason; *open* is not built yet.
"""


class Mark(NamedTuple):
    """What a test of ours says of Dart's files."""

    test: str
    files: list[str]
    differs: str | None


class Row(NamedTuple):
    """One file of Dart's, or one group of files."""

    file: str
    behaviour: str
    tests: list[str]
    verdict: str
    reason: str = ""


class ConformanceError(Exception):
    """The marks and the table do not fit together."""


def marks(tests: Path = TESTS) -> Iterator[Mark]:
    """Read the marks of all tests, without importing them."""
    for path in sorted(tests.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.dart":
                        files = [ast.literal_eval(argument) for argument in decorator.args]
                        options = {option.arg: ast.literal_eval(option.value) for option in decorator.keywords}
                        if not files or not options.keys() <= {"differs"}:
                            raise ConformanceError(f"{path.name}: {node.name}: the mark takes files and differs=")
                        yield Mark(f"{path.stem}.{node.name}", files, options.get("differs"))


def rows(section: "dict[str, Any]", marked: list[Mark]) -> Iterator[Row]:
    """Return the rows of one section, those that are pinned down first."""
    pins, still_open = section["pins"], section.get("open", {})
    for file, behaviour in {**pins, **still_open}.items():
        found = [mark for mark in marked if f"{section['key']}/{file}" in mark.files]
        reasons = dict.fromkeys(mark.differs for mark in found if mark.differs)
        if not found and file in pins:
            raise ConformanceError(f"no test is marked with {section['key']}/{file}")
        verdict = "open" if not found else "differs" if reasons else "same"
        yield Row(file, behaviour, [mark.test for mark in found], verdict, "; ".join(reasons))
    for reason, files in section.get("not_applicable", {}).items():
        for file in files:
            yield Row(file, "", [], "not applicable", reason)


def render(row: Row) -> str:
    """Return a row as a line of the table."""
    tests = "<br>".join(f"`{test}`" for test in row.tests)
    verdict = f"{row.verdict} {row.reason}".strip()
    return f"| `{row.file}` | {row.behaviour} | {tests} | {verdict} |"


def page() -> str:
    """Return the text of the page.

    Raises:
        ConformanceError: a mark names what the table does not have, or the table what no test is marked with.
    """
    sections = tomllib.loads((DOCS / "dart_tests.toml").read_text())["section"]
    marked = list(marks())
    known = {
        f"{section['key']}/{file}"
        for section in sections
        for kind in ("pins", "open")
        for file in section.get(kind, {})
    }
    if unknown := {file for mark in marked for file in mark.files} - known:
        raise ConformanceError(f"dart_tests.toml does not have {', '.join(sorted(unknown))}")
    tables = {section["title"]: list(rows(section, marked)) for section in sections}
    every = [row for table in tables.values() for row in table]
    lines = [INTRODUCTION, "| same | differs | not applicable | open | all |", "| --- | --- | --- | --- | --- |"]
    verdicts = ("same", "differs", "not applicable", "open")
    counts = [sum(row.verdict == verdict for row in every) for verdict in verdicts]
    lines.append(f"| {' | '.join(map(str, [*counts, len(every)]))} |")
    for title, table in tables.items():
        lines += ["", f"## {title}", "", "| Dart's test | what it pins down | our tests | verdict |"]
        lines += ["| --- | --- | --- | --- |", *map(render, table)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        PAGE.write_text(page())
    except ConformanceError as error:
        sys.exit(f"conformance: {error}")
