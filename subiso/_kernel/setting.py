"""What an isolate inherits from its creator: ``sys.path``, ``sys.argv`` and the environment as Python sees it."""

import _pickle
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_last: "tuple[list[str], list[str], dict[Any, Any], bytes] | None" = None


def capture() -> bytes:
    """Return this interpreter's setting, as bytes; taken anew only when something in it has changed."""
    global _last
    environment: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]
    if _last is None or _last[0] != sys.path or _last[1] != sys.argv or _last[2] != environment:
        path = [entry if isinstance(entry, str) else os.fspath(entry) for entry in sys.path]
        state = (list(sys.path), list(sys.argv), dict(environment))
        encoded = _pickle.dumps((path, [str(word) for word in sys.argv], state[2]), 5)
        _last = (*state, encoded)
    return _last[3]


def apply(setting: bytes) -> None:
    """Take over the creator's setting. The process's C environment is not touched: it belongs to all."""
    path, argv, environment = _pickle.loads(setting)
    if sys.path != path:
        sys.path[:] = path
    sys.argv[:] = argv
    data = os.environ._data  # type: ignore[attr-defined]
    if data != environment:
        data.clear()
        data.update(environment)
