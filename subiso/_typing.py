"""What of `typing` the modules need that isolates import, without `typing`, which costs TODO MB of memory each time.

At run time `overload` does nothing, and `Generic` only lets its classes be subscribed.
"""

from types import GenericAlias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic as Generic
    from typing import TypeVar
    from typing import overload as overload

    T = TypeVar("T", infer_variance=True)
else:
    T = object()

    class Generic:
        """The base of a class with type parameters."""

        __class_getitem__ = classmethod(GenericAlias)

    def overload(function):
        """Do nothing; only type checkers look at it."""
        return function
