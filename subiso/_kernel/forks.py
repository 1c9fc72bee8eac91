"""Forking beside isolates: safe while none lives, refused with a sentence while one does.

A process that forks while it has interpreters aborts in the child, on every version (on 3.12 parent and child hang). So
idle interpreters are closed before a fork. A hook cannot refuse a fork, therefore `os.fork` is wrapped from the first
use of isolates on; code that took ``os.fork`` before that, or forks in C, is not protected from living isolates.
"""

import functools
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_installed = False


def install(close_idle: "Callable[[], bool]", living: "Callable[[], list[str]]", forget: "Callable[[], None]") -> None:
    """Make forking safe.

    Args:
        close_idle: closes the interpreters in which no isolate lives, and returns whether all are closed.
        living: names the isolates that live, and are not just about to end.
        forget: makes the child forget the parent's isolates.
    """
    global _installed
    if _installed:
        return
    _installed = True
    os.register_at_fork(before=close_idle, after_in_child=forget)
    for name in ("fork", "forkpty"):
        if hasattr(os, name):
            setattr(os, name, _guard(getattr(os, name), close_idle, living))


def _guard(
    original: "Callable[[], Any]", close_idle: "Callable[[], bool]", living: "Callable[[], list[str]]"
) -> "Callable[[], Any]":
    @functools.wraps(original)
    def guarded() -> "Any":
        names = living()
        if not names and close_idle():
            return original()
        what = f"isolates live ({', '.join(names)})" if names else "an interpreter cannot be closed"
        raise RuntimeError(
            f"os.{original.__name__} while {what}: the child would crash. End them first, or start processes with "
            "subprocess, or with multiprocessing's 'spawn' or 'forkserver'"
        )

    return guarded
