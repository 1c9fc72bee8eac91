"""How programs with isolates end: each way of tests/endings.py, once, and with ``-m stress`` 200 times."""

import importlib.util

import endings
import pytest


@pytest.mark.parametrize("times", [2, pytest.param(200, marks=pytest.mark.stress)])
@pytest.mark.parametrize("name", endings.ENDINGS)
@pytest.mark.usefixtures("start")  # it sees to it that Ctrl-C is not ignored
def test_an_ending(name, times):
    """The program ends, in bounded time, with a code that it may have, and without a complaint of CPython's."""
    if "trio" in name and importlib.util.find_spec("trio") is None:
        pytest.skip("trio is not installed here")
    runs = endings.run_many(endings.ENDINGS[name], times, name, jobs=2)
    assert [run.failure for run in runs if run.failure] == []
    assert len(runs) == times
