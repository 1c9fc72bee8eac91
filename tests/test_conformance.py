"""The page that compares us with Dart is made from the marks on the tests."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def conformance():
    """Return the script that writes the page, as a module."""
    spec = importlib.util.spec_from_file_location("conformance", DOCS / "conformance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(conformance):
    """The page on disk is the one that the marks and the table make; else run docs/conformance.py."""
    assert conformance.PAGE.read_text() == conformance.page()


def test_every_mark_names_a_row(conformance, tmp_path):
    """A mark that names no file of Dart's is found out, and so is a row that no test is marked with."""
    with pytest.raises(conformance.ConformanceError, match="no test is marked with lib/x"):
        list(conformance.rows({"key": "lib", "pins": {"x": "…"}}, []))
    (tmp_path / "test_x.py").write_text("@pytest.mark.dart('lib/x', wrong=1)\ndef test_x(): pass\n")
    with pytest.raises(conformance.ConformanceError, match=r"test_x\.py: test_x"):
        list(conformance.marks(tmp_path))


def test_verdicts(conformance):
    """A row differs if one of its tests says so, is open while no test names it, and same else."""
    section = {
        "key": "lib",
        "pins": {"a": "A.", "b": "B."},
        "open": {"c": "C.", "d": "D."},
        "not_applicable": {"because": ["e"]},
    }
    marks = [
        conformance.Mark("t.one", ["lib/a", "lib/c"], None),
        conformance.Mark("t.two", ["lib/b"], None),
        conformance.Mark("t.three", ["lib/b"], "because"),
    ]
    rows = list(conformance.rows(section, marks))
    assert [row.verdict for row in rows] == ["same", "differs", "same", "open", "not applicable"]
    assert conformance.render(rows[1]) == "| `b` | B. | `t.two`<br>`t.three` | differs because |"
