"""What isolates need of `typing`, without importing it, which takes 0.5 MB and some milliseconds in each.

At run time `overload` does nothing, and `Generic` only lets its classes be subscribed.
"""

from types import GenericAlias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic as Generic
    from typing import TypeVar
    from typing import overload as overload

    R = TypeVar("R")
    T_co = TypeVar("T_co", covariant=True)
else:
    R = T_co = object()

    class Generic:
        """The base of a class with type parameters."""

        __class_getitem__ = classmethod(GenericAlias)

    def overload(function):
        """Do nothing; only type checkers look at it."""
        return function
