"""Does an interpreter that is closed give back its memory, and what does it lose if it is used again?

Usage: ``recycling.py [ISOLATES]`` (30). That many isolates, one after the other, load msgspec from a private copy, use
it and end: first ten times as many in interpreters that are used again, then in such as are closed after one.
What is printed is by how much the process has grown for each, after some that are not counted.
"""

import gc
import os
import sys

import subiso
from subiso import Isolate

ISOLATES = int(sys.argv[1]) if len(sys.argv) > 1 else 30


def use_msgspec() -> bytes:
    import msgspec

    return msgspec.json.encode({"a": [1, 2.5, None]})


def resident() -> int:
    """Return the process's resident memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(isolates: int, fresh: bool) -> float:
    """Return the bytes by which the process has grown for each isolate."""
    for number in range(-50, isolates):
        if number == 0:
            gc.collect()
            before = resident()
        isolate = Isolate.spawn(use_msgspec, fresh=fresh)
        assert isolate.join(60)
    gc.collect()
    return (resident() - before) / isolates


print(f"CPython {sys.version.split()[0]}")
print(f"  used again: {growth(ISOLATES * 10, fresh=False) / 1e3:6.1f} kB for each isolate")
subiso.configure(spares=0, idle=0)  # what an isolate has used is closed
print(f"      closed: {growth(ISOLATES, fresh=True) / 1e3:6.0f} kB for each isolate")
