"""The uncaught errors of an isolate, as they happen."""

from subiso.errors import RemoteError
from subiso.ports import ReceivePort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from subiso.isolate import Isolate


class UncaughtErrors:
    """Iterate, also asynchronously, over the uncaught errors of an isolate, until it has ended.

    Errors count from the moment when this object is made: start the isolate paused, so as to miss none. It is an error
    listener like any other: what is seen here is not printed. (Dart: ``Isolate.errors``.)
    """

    def __init__(self, isolate: "Isolate") -> None:
        self._isolate = isolate
        self._port: ReceivePort[Any] = ReceivePort(name=f"errors of {isolate.name}")
        isolate.add_error_listener(self._port.send_port)
        if not isolate.is_alive:
            self._port.close()

    def close(self) -> None:
        """Take in no more errors; without another listener they are printed again."""
        if not self._port.closed:
            self._isolate.remove_error_listener(self._port.send_port)
            self._port.close()

    def __iter__(self) -> "Self":
        return self

    def __next__(self) -> RemoteError:
        return _error(next(self._port))

    def __aiter__(self) -> "Self":
        return self

    async def __anext__(self) -> RemoteError:
        return _error(await self._port.__anext__())

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()


def _error(message: "list[Any]") -> RemoteError:
    described, traceback = message
    name, _, text = described.partition(": ")
    return RemoteError(name, text, traceback)
