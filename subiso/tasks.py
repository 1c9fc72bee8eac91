"""A task of a pool: its future, and how it is encoded."""

import _pickle
import concurrent.futures
from time import monotonic
from types import BuiltinFunctionType, FunctionType

from subiso import carriers, failures, messages
from subiso._kernel import protocol
from subiso._kernel.waitables import Waitable
from subiso._pickling import references
from subiso._typing import R
from subiso.errors import IsolateTimeoutError, SendError
from subiso.futures import IsolateFuture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from subiso.crew import Crew
    from subiso.members import Member
    from subiso.messages import Encoded

_PENDING, _RUNNING, _FINISHED = "PENDING", "RUNNING", "FINISHED"  # states of concurrent.futures

_references: dict[int, tuple[object, bytes]] = {}  # by id: a function that goes by reference, and its pickle


def reference_to(function: object) -> bytes | None:
    """Return the pickle of a plain function's reference, or None if it goes by value, or is something else."""
    if type(function) not in (FunctionType, BuiltinFunctionType) or not references.is_reference(function):
        return None
    known = _references.get(id(function))
    if known is None:
        if len(_references) > 1000:
            _references.clear()
        try:
            known = _references[id(function)] = function, _pickle.dumps(function, 5)
        except _pickle.PicklingError:  # its name means something else by now
            return None
    return known[1]


def encode(function: "Callable[..., Any]", args: "tuple[Any, ...]", keywords: "dict[str, Any]") -> "Encoded":
    """Encode a task for a worker.

    Raises:
        TypeError: the function is not callable.
        SendError: something in it cannot be sent.
    """
    if not callable(function):
        raise TypeError(f"a pool runs functions, not {function!r}")
    what: object = carriers.load(function)
    if what is function:
        what = reference_to(function) or function
    try:
        return messages.encode((what, args, keywords) if keywords else (what, args))
    except SendError:
        messages.encode_call(function, args)  # says it better
        messages.encode(keywords, "keywords")
        raise


class TaskFuture(IsolateFuture[R]):
    """The future of a pool's task.

    The pool's crew gives it its worker, under its lock; everything else of it may be called by any thread.

    Attributes:
        size: how many calls of the user's function it stands for.
        single: whether it is one of `submit`'s, and no chunk of a map.
    """

    size: int = 1
    single: bool = True

    def __init__(
        self, crew: "Crew", function: object, encoded: "Encoded | None", timeout: float | None, retries: int
    ) -> None:
        concurrent.futures.Future.__init__(self)
        self._node = crew.node
        self._done = Waitable()
        self._crew = crew
        self._name = getattr(function, "__qualname__", None) or repr(function)
        self._encoded = encoded
        self._timeout = timeout
        self._retries = retries
        self._member: Member | None = None
        self.queued: bool = False  # whether it waits in the crew's queue, which matters for a map
        self._since = monotonic()  # of being submitted, then of being run

    # -- for the crew --------------------------------------------------------------------------------------------------

    @property
    def demand(self) -> int:
        """How many workers it wants."""
        return int(self._state == _PENDING)

    def next_task(self, most: int | None) -> "TaskFuture[Any]":
        """Return itself: a map gives chunk after chunk, of ``most`` calls at most."""
        return self

    def begin(self) -> bool:
        """Begin to be run; return whether that is still wanted."""
        with self._condition:
            if self._state != _PENDING:
                return False
            self._state = _RUNNING
            return True

    def begin_again(self) -> bool:
        """Wait once more for a worker, in place of one that has ended; return whether that is allowed."""
        with self._condition:
            if self._state != _RUNNING or not self._retries:
                return False
            self._retries -= 1
            self._state = _PENDING
            return True

    def encode_for(self, member: "Member") -> "Encoded":
        """Return the task as that member wants it."""
        encoded = self._encoded
        if encoded is None:  # it was cancelled meanwhile
            return protocol.NONE, b"", [], []
        if not self._retries:
            self._encoded = None
        return encoded

    def take(self, kind: int, body: bytes | memoryview, buffers: "Sequence[memoryview]") -> bool:
        """Take the worker's answer; return whether it is a result."""
        try:
            if kind == protocol.FAILURE:
                self._fail(failures.unpack(messages.decode(protocol.PICKLE, body, buffers)))
                return False
            result = messages.decode(kind, body, buffers)
        except BaseException as error:
            self._fail_to_take(error)
            return False
        self._settle(result, None)
        return True

    def fail(self, error: BaseException) -> None:
        """End with an error, unless the task has ended already."""
        self._fail(error)

    def time_out(self) -> None:
        """End, because the time that was allowed is used up."""
        self._fail(IsolateTimeoutError(f"{self._name} took longer than {self._timeout} seconds, and was stopped"))

    def is_lost(self) -> bool:
        """Return whether it has begun, and so will have no outcome if all workers are killed."""
        return self._state == _RUNNING

    # -- what IsolateFuture asks for -----------------------------------------------------------------------------------

    def _kill(self) -> None:
        self._crew.abandon(self)

    def _forget(self) -> None:
        self._encoded = None
        self._crew.settled(self)

    def outcomes(self) -> tuple[int, int, int]:
        """Return how many results, errors and cancelled calls it has come to."""
        if self._state != _FINISHED:
            return 0, 0, 1
        return (1, 0, 0) if self._exception is None else (0, 1, 0)
