"""numpy in one isolate after another: what is left behind."""

import os
from pathlib import Path

import pytest

from subiso import Isolate
from subiso._kernel import copies
from subiso.cli.measuring import private_memory

pytest.importorskip("numpy")
PATIENCE = 60  # seconds; an upper bound
WARM, CYCLES = 20, 200
GROWTH = 20 << 20  # bytes that the cycles after the first may add to the process: that of one more interpreter


def compute(size: int) -> float:
    import numpy as np

    matrix = np.arange(size * size, dtype=float).reshape(size, size) + np.eye(size)
    return float(np.linalg.solve(matrix, matrix.sum(axis=1)).sum())


def files_of_copies() -> list[str]:
    """Return what lies where this process makes copies."""
    own = Path(copies.place(), f"subiso-{os.geteuid()}", copies._process_name())
    return sorted(map(str, own.rglob("*"))) if own.exists() else []


@pytest.mark.stress
def test_cycles_of_spawn_import_compute_exit() -> None:
    """Two hundred isolates import numpy and compute: memory is bounded, no descriptor and no file is left."""
    for _ in range(WARM):
        assert Isolate.run(compute, 30).result(PATIENCE) == pytest.approx(30)
    memory, descriptors = private_memory(), len(os.listdir("/proc/self/fd"))
    for _ in range(CYCLES):
        assert Isolate.run(compute, 30).result(PATIENCE) == pytest.approx(30)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert files_of_copies() == []
    assert (private_memory() or 0) - (memory or 0) < GROWTH
