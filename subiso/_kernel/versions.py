"""What the loader of C extensions must know about the running version of Python."""

import sys

COPIES_BY_PYINIT = sys.version_info >= (3, 13)
"""Since 3.13 the import machinery runs a single-phase ``PyInit`` in main: a copy's must be called from the isolate."""

REFUSING_STDLIB: frozenset[str] = frozenset({"_curses", "_curses_panel", "_tkinter"})
"""The standard library's extension modules that cannot be loaded under a GIL of their own."""

if sys.version_info < (3, 13):
    REFUSING_STDLIB |= {
        "_ctypes",
        "_datetime",
        "_decimal",
        "_elementtree",
        "_lsprof",
        "_zoneinfo",
        "nis",
        "ossaudiodev",
        "pyexpat",
    }
