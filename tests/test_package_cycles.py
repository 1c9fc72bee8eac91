"""numpy in one isolate after another: what is left behind."""

import os
from pathlib import Path

import pytest

from subiso import Isolate
from subiso._kernel import copies
from subiso._kernel import nursery as nurseries
from subiso.cli.measuring import private_memory

pytest.importorskip("numpy")
PATIENCE = 60  # seconds; an upper bound
WARM, CYCLES = 20, 200
WARM_INTERPRETER = 32 << 20  # bytes that an interpreter with numpy holds, at most
SLACK = 8 << 20  # bytes


def compute(size: int) -> float:
    import numpy as np

    matrix = np.arange(size * size, dtype=float).reshape(size, size) + np.eye(size)
    return float(np.linalg.solve(matrix, matrix.sum(axis=1)).sum())


def files_of_copies() -> list[str]:
    """Return what lies where this process makes copies."""
    own = Path(copies.place(), f"subiso-{os.geteuid()}", copies._process_name())
    return sorted(map(str, own.rglob("*"))) if own.exists() else []


def interpreters() -> int:
    """Return how many there are: on a busy machine more, since one that is not ready yet is not waited for."""
    return sum(berth.state != nurseries.GONE for berth in nurseries._nursery._berths)


@pytest.mark.stress
def test_cycles_of_spawn_import_compute_exit() -> None:
    """Two hundred isolates import numpy and compute: memory is bounded, no descriptor and no file is left."""
    for _ in range(WARM):
        assert Isolate.run(compute, 30).result(PATIENCE) == pytest.approx(30)
    descriptors = len(os.listdir("/proc/self/fd"))
    memory, before = private_memory(), interpreters()
    for _ in range(CYCLES):
        assert Isolate.run(compute, 30).result(PATIENCE) == pytest.approx(30)
    more = interpreters() - before
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 4 * max(more, 0)
    assert files_of_copies() == []
    assert (private_memory() or 0) - (memory or 0) < WARM_INTERPRETER * max(more, 0) + SLACK
