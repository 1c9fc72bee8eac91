"""What goes along with the work that isolates are given, besides its arguments: the hook for integrations.

A carrier is two functions. ``capture()`` is called where work is sent, in the sender's context, and returns what is to
be sent with it, or None. ``restore(cargo)`` is found in the isolate by its name; it gives a context manager, in which
the work is done there. With no carriers this costs the look into an empty dict.

It holds for `Isolate.run` and `spawn`, the tasks, maps and streams of pools, and the calls of actors. Messages through
ports carry nothing.
"""

from contextvars import copy_context

from subiso import coroutines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager, ExitStack
    from typing import Any

    type Restore = Callable[[Any], AbstractContextManager[object]]
    type Cargo = list[tuple[Restore, Any]]

_carriers: "dict[Restore, Callable[[], Any]]" = {}

state: "dict[str, Any]" = {}
"""What carriers keep for one life of this interpreter."""


def add(capture: "Callable[[], Any]", restore: "Restore") -> None:
    """Have something carried from now on. ``restore`` must be a function of a module, and stands for the carrier."""
    _carriers[restore] = capture


def remove(restore: "Restore") -> None:
    """Have it carried no more."""
    _carriers.pop(restore, None)


def pick_up() -> "Cargo":
    """Return what is to be sent with work that is sent now."""
    if not _carriers:
        return []
    found = [(restore, capture()) for restore, capture in list(_carriers.items())]
    return [(restore, cargo) for restore, cargo in found if cargo is not None]


def load[F: Callable[..., Any]](function: F) -> "F | Loaded":
    """Return what does the work of a function with everything restored that is to be carried; itself if nothing is."""
    cargo = pick_up() if _carriers else []
    return Loaded(function, cargo) if cargo else function


class Loaded:
    """A function that brings along what it is to find."""

    __slots__ = ("carried", "function")

    def __init__(self, function: "Callable[..., Any]", carried: "Cargo") -> None:
        self.function: Callable[..., Any] = function
        self.carried: Cargo = carried

    def __getattr__(self, name: str) -> "Any":
        if name in ("__name__", "__qualname__"):
            return getattr(self.function, name)
        raise AttributeError(name)

    def __call__(self, *args: "Any", **keywords: "Any") -> "Any":
        # In a copy of the context: a worker's thread does the next task with the same context again.
        return copy_context().run(self._call, args, keywords)

    def _call(self, args: "tuple[Any, ...]", keywords: "dict[str, Any]") -> "Any":
        with restored(self.carried):
            result = self.function(*args, **keywords)
        return self._await(result) if coroutines.is_coroutine(result) else result

    async def _await(self, coroutine: "Coroutine[Any, Any, Any]") -> "Any":
        with restored(self.carried):
            return await coroutine


def restored(cargo: "Cargo") -> "ExitStack":
    """Restore what was carried; the stack that is returned takes it back."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        for restore, thing in cargo:
            stack.enter_context(restore(thing))
        return stack.pop_all()


def reset() -> None:
    """Forget what belongs to one life of an interpreter."""
    _carriers.clear()
    state.clear()
