"""Waking what waits, whatever is being imported meanwhile."""

import sys
import types

import pytest

from subiso._kernel import waking


@pytest.mark.parametrize("module", ["asyncio.base_events", "trio._core._entry_queue"])
def test_a_library_that_is_being_imported(module, monkeypatch):
    """A kill may come when a module is there already, and its classes are not."""
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    waking.wake_waits()
