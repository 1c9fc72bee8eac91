"""Kills of isolates at chosen steps: nothing hangs, aborts or is left. The thousands of them run with `-m stress`."""

import faulthandler
import sys
from pathlib import Path

import faulting
import killing
import pytest

from subiso._kernel.nursery import Limits


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """A module of the user's, no spare interpreters, and everything made that there is for ever."""
    Path(tmp_path, f"{faulting.MODULE}.py").write_text("WORD = 'word'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Limits, "spares", 0)
    faulting.check_that_all_works()
    faulting.faults.of_process()
    yield
    sys.modules.pop(faulting.MODULE, None)


def kill(stage, count):
    killer = killing.Killer(stage)
    try:
        found = killer.run(count)
    finally:
        killer.close()
    assert sum(found["points"].values()) == count
    return found


@pytest.mark.parametrize("stage", killing.STAGES)
def test_kills_inside(stage):
    """Isolates that are killed while they stand at a step end, and leave everything in working order."""
    kill(stage, 8)


@pytest.mark.stress
@pytest.mark.parametrize("stage", killing.STAGES)
def test_many_kills_inside(stage):
    """Seventeen hundred of them in each stage leave no more than eight do, and memory where it was."""
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test is too short for this one
    found = kill(stage, 1700)
    if stage not in ("start", "import"):  # some of those end interpreters, whose memory CPython loses
        assert found["megabytes"] < 40
