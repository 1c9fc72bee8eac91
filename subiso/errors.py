"""Everything that subiso raises.

Two sorts: what *you* did (a closed port, a message that cannot be sent) and what *happened to* an isolate (it was
killed, it could not start). Errors of the user's own code are neither: they come back as themselves.
"""

from _queue import Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    import concurrent.futures
    import queue


class IsolateError(Exception):
    """Base of all errors about isolates and ports."""


class IsolateSpawnError(IsolateError):
    """An isolate could not be started.

    Raised by ``spawn`` where that is known at once (the limit of isolates, a program that is ending); sent to
    ``on_error`` and ``errors`` where it is found later (a module that cannot be imported, no thread, no memory).
    Dart: ``IsolateSpawnException``.
    """


class IsolateKilledError(IsolateError):
    """The isolate that was to give a result was killed, or ended without giving one."""


class IsolateTimeoutError(IsolateError, TimeoutError):
    """The time that ``timeout=`` allowed the work was used up, and the isolate was killed."""


class SupervisorError(IsolateError):
    """A supervisor has given up: what it supervises has ended more often than was allowed."""


class RemoteError(IsolateError):
    """An error of another isolate that could not itself be sent.

    Attributes:
        type_name: the original exception's type, as ``module.qualname``.
        text: what ``str(exception)`` gave there.
        traceback: the formatted traceback, or None.

    Dart: ``RemoteError``.
    """

    def __init__(self, type_name: str, text: str, traceback: str | None = None) -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class RemoteTraceback(Exception):  # noqa: N818 - it is no error, it carries one's traceback
    """The traceback that an error had in its isolate; it is the ``__cause__`` of the error that came back."""

    def __init__(self, traceback: str) -> None:
        super().__init__(traceback)
        self.traceback = traceback

    def __str__(self) -> str:
        return f'\n"""\n{self.traceback}"""'


class SendError(IsolateError, TypeError):
    """A message holds something that cannot be sent; nothing was sent.

    The text names the way to the culprit: ``message['jobs'][3].sock: socket objects cannot be sent``.
    """


class BufferSendError(SendError, BufferError):
    """A `Buffer` in a message cannot be handed over: views of it exist, or it has been sent already."""


class MessageTypeError(IsolateError, ValueError):
    """A message is not of the type that the port declares; it is consumed, and the port goes on."""


class PortClosedError(IsolateError):
    """The port was closed, or the isolate that owned it has ended."""


class PortEmpty(IsolateError, Empty, TimeoutError):  # noqa: N818 - named as queue.Empty is
    """No message is waiting, or none came in time."""


class NoSendersError(IsolateError, EOFError):
    """Every isolate that was given the send port has ended, and nothing is queued."""


if TYPE_CHECKING:

    class PortFull(IsolateError, queue.Full, TimeoutError):  # noqa: N818 - named as queue.Full is
        """The bounded port has no room, or got none in time."""

    class BrokenIsolatePool(concurrent.futures.BrokenExecutor, IsolateError):  # noqa: N818 - as BrokenProcessPool
        """The pool can no longer run tasks."""


def __getattr__(name: str) -> object:
    # Made when they are first asked for: their bases bring in what an isolate can do without, such as logging.
    if name == "BrokenIsolatePool":
        from concurrent.futures import BrokenExecutor

        bases: tuple[type, ...] = (BrokenExecutor, IsolateError)
        text = "The pool can no longer run tasks."
    elif name == "PortFull":
        from queue import Full

        bases, text = (IsolateError, Full, TimeoutError), "The bounded port has no room, or got none in time."
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = type(name, bases, {"__doc__": text, "__module__": __name__})
    return globals().setdefault(name, made)  # another thread may have been quicker
