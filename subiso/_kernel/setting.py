"""What an isolate inherits from its creator.

That is ``sys.path``, ``sys.argv``, the environment as Python sees it, and the policy for extension modules.
"""

import _pickle
import os
import sys

from subiso._kernel import extensions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_last: "tuple[list[str], list[str], dict[Any, Any], str | None, bool, bytes] | None" = None
_extensions: str | None = None
_is_confined = False  # whether this isolate, or one that it comes from, was started with a policy of its own


def is_confined() -> bool:
    """Return whether isolates that are started here want interpreters that have loaded nothing for others."""
    return _is_confined


def set_extensions(policy: str | None) -> None:
    """Set the policy for the extension modules of the isolates to come."""
    global _extensions
    _extensions = policy


def capture(policy: str | None = None) -> bytes:
    """Return this interpreter's setting, as bytes; taken anew only when something in it has changed.

    Args:
        policy: for extension modules, in place of this interpreter's own.
    """
    global _last
    confined = policy is not None or _is_confined
    policy = policy or _extensions
    environment: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]
    if _last is None or _last[:3] != (sys.path, sys.argv, environment) or _last[3:5] != (policy, confined):
        path = [entry if isinstance(entry, str) else os.fspath(entry) for entry in sys.path]
        state = (list(sys.path), list(sys.argv), dict(environment), policy, confined)
        encoded = _pickle.dumps((path, [str(word) for word in sys.argv], *state[2:]), 5)
        _last = (*state, encoded)
    return _last[5]


def forwards_output(in_main: bool) -> bool:
    """Return whether isolates that are started here must forward what they print."""
    if in_main:
        return sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__
    return type(sys.stdout).__module__ == "subiso._kernel.output"


def apply(setting: bytes) -> None:
    """Take over the creator's setting. The process's C environment is not touched: it belongs to all."""
    global _is_confined
    path, argv, environment, policy, _is_confined = _pickle.loads(setting)
    set_extensions(policy)
    extensions.install(policy)
    if sys.path != path:
        sys.path[:] = path
    sys.argv[:] = argv
    data = os.environ._data  # type: ignore[attr-defined]
    if data != environment:
        data.clear()
        data.update(environment)
