"""Forking beside isolates: safe while none lives, refused with a sentence while one does.

A process that forks while it has interpreters aborts in the child, on every version (on 3.12 parent and child hang). So
idle interpreters are closed before a fork. A hook cannot refuse a fork, therefore `os.fork` is wrapped as long as an
isolate lives.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NAMES = ("fork", "forkpty")
_originals: "dict[str, Callable[..., Any]]" = {}
_installed = False


def install(before: "Callable[[], None]", in_child: "Callable[[], None]") -> None:
    """Call ``before`` before each fork, and ``in_child`` after it in the child."""
    global _installed
    if not _installed:
        os.register_at_fork(before=before, after_in_child=lambda: (allow(), in_child()))
        _installed = True


def forbid(names: "Callable[[], list[str]]") -> None:
    """Make `os.fork` raise from now on while ``names()`` names any living isolate."""
    if _originals:
        return

    def refusing(original: "Callable[..., Any]") -> "Callable[..., Any]":
        def fork(*args: "Any") -> "Any":
            if living := names():
                raise RuntimeError(
                    f"os.{original.__name__} while isolates live ({', '.join(living)}): the child would crash. End them "
                    "first, or start processes with subprocess or multiprocessing's 'spawn' or 'forkserver'"
                )
            return original(*args)

        fork.__name__ = original.__name__
        return fork

    for name in _NAMES:
        if hasattr(os, name):
            _originals[name] = getattr(os, name)
            setattr(os, name, refusing(_originals[name]))


def allow() -> None:
    """Put `os.fork` back."""
    for name, original in _originals.items():
        setattr(os, name, original)
    _originals.clear()
