"""Ctrl-C at many instants of each kind of work: afterwards isolates work as before, and nothing is left over.

tests/tearing.py tries every instant; here some are taken by chance.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("tearing.py")
TIMES = 60
LONG = 120  # seconds


@pytest.mark.parametrize(
    "work", ["run", "pool", "group", "actor", "stream", "request", "supervisor", "transfer", "trio"]
)
def test_a_ctrl_c(work):
    if work == "trio":
        pytest.importorskip("trio", reason="trio is not installed")
    seed = random.SystemRandom().randrange(1 << 32)
    command = [sys.executable, str(PROGRAM), work, str(TIMES), str(seed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    program = subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=environment)
    assert program.returncode == 0, f"seed {seed}: {program.stdout}{program.stderr}"
    assert f"{work}: {TIMES} of" in program.stdout
