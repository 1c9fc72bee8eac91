"""`overload` for modules that isolates import: at run time it costs nothing, and `typing` is not imported for it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import overload as overload
else:

    def overload(function):
        """Do nothing; only type checkers look at it."""
        return function
