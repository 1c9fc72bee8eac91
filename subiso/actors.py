"""Actors: objects that live in an isolate of their own, and whose methods are called from elsewhere."""

from subiso._typing import overload
from subiso.isolate import Isolate
from subiso.lines import Line, Recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any, Concatenate, Self

    from subiso.futures import IsolateFuture
    from subiso.sending import SendPort


class Actor[T]:
    """An object that lives in an isolate of its own, as seen from elsewhere.

    Its methods are called as those of the object are, and return futures: ``actor.add(3).result()`` or
    ``await actor.add(3)``. Calls of one caller begin in their order. If the class has asynchronous methods, those
    interleave. An actor can be sent to other isolates, which then call it directly; it ends when it is told to, when
    its isolate is killed, or when all isolates that know it have ended. As a context manager it is stopped at the end
    of the block.

    What an actor itself is called like (``name``, ``stop``, ``kill``, ``join``, ``call``) hides methods of its object
    of that name; `call` reaches those.
    """

    __subiso_unsendable__ = None  # it says itself why, where it cannot be sent

    def __init__(self) -> None:
        raise TypeError("actors are started with Actor.spawn")

    _line: "Line"

    @classmethod
    def _of(cls, line: "Line") -> "Actor[Any]":
        actor: Actor[Any] = object.__new__(cls)
        object.__setattr__(actor, "_line", line)
        return actor

    @staticmethod
    def spawn[**P, I](cls: "Callable[P, I]", /, *args: "P.args", **kwargs: "P.kwargs") -> "Actor[I]":
        """Start an isolate, make an object in it, and return the actor at once.

        Args:
            cls: the class, or whatever makes the object.
            args: the arguments for it.
            kwargs: likewise.

        Raises:
            TypeError: ``cls`` is not callable, or does not take these arguments.
            SendError: it or an argument cannot be sent.
            IsolateSpawnError: there are too many isolates, or the program is ending.
        """
        actor = Actor._of(Line(Recipe(cls, args, kwargs)))
        actor._line.start()  # last: after a Ctrl-C nobody would have the actor
        return actor

    def __getattr__(self, name: str) -> "Callable[..., IsolateFuture[Any]]":
        if name.startswith("__"):
            raise AttributeError(name)
        line = self._line
        if name not in line.methods:
            raise AttributeError(f"actor {line.name!r} has no method {name!r}")

        def method(*args: "Any", **keywords: "Any") -> "IsolateFuture[Any]":
            return line.call(name, args, keywords)

        method.__name__ = name
        return method

    @overload
    def call[**P, R](
        self, method: "Callable[Concatenate[T, P], Coroutine[Any, Any, R]]", /, *args: "P.args", **kwargs: "P.kwargs"
    ) -> "IsolateFuture[R]": ...
    @overload
    def call[**P, R](
        self, method: "Callable[Concatenate[T, P], R]", /, *args: "P.args", **kwargs: "P.kwargs"
    ) -> "IsolateFuture[R]": ...
    def call(self, method: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "IsolateFuture[Any]":
        """Call a method, given as the function in the class, so that type checkers know what it takes and returns.

        ``actor.call(Counter.add, 3)`` is ``actor.add(3)``.

        Raises:
            TypeError: it is no method.
            AttributeError: the object has no such method.
            SendError: an argument cannot be sent.
        """
        name = getattr(method, "__name__", None)
        if not isinstance(name, str):
            raise TypeError(f"call takes a method of the class, not {method!r}")
        if name not in self._line.methods:
            raise AttributeError(f"actor {self._line.name!r} has no method {name!r}")
        return self._line.call(name, args, kwargs)

    @property
    def name(self) -> str:
        """The name of its isolate, for people."""
        return self._line.name

    @property
    def isolate(self) -> Isolate:
        """The isolate that it lives in; of a supervised actor, the present one.

        Raises:
            RuntimeError: its supervisor has not started it yet.
        """
        isolate = self._line.isolate
        if isolate is None:
            raise RuntimeError(f"actor {self.name!r} has not been started yet")
        return isolate

    @property
    def is_alive(self) -> bool:
        """Whether its isolate has not ended."""
        return self._line.isolate is not None and self._line.isolate.is_alive

    def stop(self) -> None:
        """End it when every call before this one is done. Its ``close`` method, if it has one, is called then."""
        self._line.stop()

    def kill(self) -> None:
        """End it as soon as possible; calls that are not done raise `IsolateKilledError`."""
        self.isolate.kill()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, and return whether it has, as `Isolate.join`."""
        return self.isolate.join(timeout)

    async def ajoin(self) -> None:
        """Wait until it has ended, in the running event loop."""
        await self.isolate.ajoin()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._leave(kind)
        self.join()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._leave(kind)
        await self.ajoin()

    def _leave(self, kind: "type[BaseException] | None") -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Actor):
            return NotImplemented
        mine, theirs = self._line, other._line
        return mine is theirs or (mine.isolate is not None and mine.isolate == theirs.isolate)

    def __hash__(self) -> int:
        return hash(self._line.name)

    def __repr__(self) -> str:
        return f"<Actor {self._line.name!r}{'' if self.is_alive else ' ended'}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        return _rebuild, self._line.address()


def _rebuild(port: "SendPort", isolate: Isolate, methods: frozenset[str]) -> "Actor[Any]":
    line = Line(None, isolate.name)
    line._port, line.isolate, line.methods = port, isolate, methods
    return Actor._of(line)
