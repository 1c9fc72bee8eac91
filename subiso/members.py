"""The worker isolates of a pool, each as the pool sees it."""

from _thread import get_ident
from math import inf
from time import monotonic

from subiso import messages, workers
from subiso._kernel import parcels
from subiso._kernel.insisting import insist
from subiso.errors import IsolateError
from subiso.isolate import Isolate
from subiso.sending import SendPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from subiso._kernel.mailbox import Mailbox
    from subiso._kernel.node import Node
    from subiso._kernel.waitables import Inbox
    from subiso.tasks import TaskFuture


class Options:
    """What a pool was made with."""

    def __init__(
        self,
        name: str,
        initializer: "Callable[..., object] | None" = None,
        initargs: "tuple[Any, ...]" = (),
        finalizer: "Callable[[], object] | None" = None,
        max_tasks_per_worker: int | None = None,
        idle_timeout: float | None = None,
        extensions: str | None = None,
    ) -> None:
        self.name = name
        self.initializer: Callable[..., object] | None = initializer
        self.initargs: tuple[Any, ...] = initargs
        self.finalizer: Callable[[], object] | None = finalizer
        self.max_tasks_per_worker = max_tasks_per_worker
        self.idle_timeout = idle_timeout
        self.extensions = extensions


class Member:
    """One worker isolate.

    Attributes:
        maker: the thread that spawns it.
        isolate: None until it has been spawned.
        port: where tasks are sent; None until it has said so.
        thread: the system's number of its thread, said at the same time.
        inbox: where its answers arrive.
        task: what it is doing.
        deadline: when that must be done, on the monotonic clock.
        since: when it has begun to do nothing.
        done: how many tasks it has done.
        known: the numbers of the maps whose functions it has.
        complaint: why it is of no use.
    """

    def __init__(self, name: str, mailbox: "Mailbox") -> None:
        self.name = name
        self.inbox: Inbox = mailbox.open()
        self.maker: int = get_ident()
        self.isolate: Isolate | None = None
        self.port: SendPort | None = None
        self.thread: int = 0
        self.task: TaskFuture[Any] | None = None
        self.deadline: float = inf
        self.since: float = monotonic()
        self.done: int = 0
        self.known: set[int] = set()
        self.complaint: str = ""
        self._mailbox = mailbox
        try:
            self._errors: Inbox = mailbox.open()  # where uncaught errors arrive
        except BaseException:
            mailbox.close(self.inbox)
            raise

    def start(self, options: Options) -> None:
        """Spawn the isolate.

        Raises:
            IsolateSpawnError: there are too many, or the program is ending.
        """
        isolate = Isolate.spawn(
            workers.serve,
            SendPort._of(self.inbox.address, 0),
            options.initializer,
            options.initargs,
            options.finalizer,
            name=self.name,
            extensions=options.extensions,
            on_error=SendPort._of(self._errors.address, 0),
            _carrying=False,  # type: ignore[arg-type]
        )
        try:
            self._mailbox.watch(isolate._slot, isolate._number, self.inbox)
        except BaseException:
            insist(isolate.kill)
            raise
        self.isolate = isolate

    def stop(self) -> None:
        """Have it end when it has done what it does."""
        assert self.port is not None
        try:
            self.port.send_nowait(None)
        except IsolateError:  # it has ended already
            pass
        except Exception:  # no memory to tell it
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self.isolate is not None:
            insist(self.isolate.kill)

    def turn_away(self, node: "Node") -> None:
        """Kill the isolate if it was spawned after all, then close: it was given the port for its answers."""

        def look() -> None:
            if not any(node.mailbox.is_alive(slot, number) for slot, number in self.inbox.holders):
                self.close()

        self.inbox.on_event = look
        for slot, number in self.inbox.holders:
            if node.mailbox.is_alive(slot, number):
                node.kill(slot, number, node.arena.capabilities(slot)[1])
        look()

    def last_words(self) -> str:
        """Return what it has said about its end."""
        if not self._errors.messages:
            return self.complaint
        try:
            text, _ = messages.decode(*parcels.unpack(*self._errors.messages.popleft()))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        return str(text)

    def close(self) -> None:
        """Hear nothing more from it."""
        self.inbox.on_event = None
        for inbox in (self.inbox, self._errors):
            insist(self._mailbox.close, inbox)
