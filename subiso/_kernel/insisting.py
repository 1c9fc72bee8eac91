"""Steps that must not be left out, or somebody would wait for ever: they are tried once more.

What fails there is a lack of memory, of a descriptor or of room, which may pass. All that is done so can be done twice.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def insist(function: "Callable[..., object]", *args: object) -> None:
    """Call a function; if it fails say so on stderr, and call it again.

    Raises:
        Exception: what the second call raises.
    """
    try:
        function(*args)
    except Exception as error:
        report(error)
        function(*args)


def report(error: BaseException) -> None:
    """Say on stderr what went wrong in the kernel itself."""
    try:
        sys.__excepthook__(type(error), error, error.__traceback__)
        sys.stderr.flush()
    except Exception:  # replaced, closed, or nobody reads any more
        pass
