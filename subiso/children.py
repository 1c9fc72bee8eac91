"""What a supervisor supervises: isolates, actors, and other supervisors."""

import logging
from math import inf

from subiso import coroutines, messages
from subiso._kernel import parcels
from subiso._kernel.waitables import Inbox, Waitable
from subiso.errors import IsolateError, IsolateSpawnError
from subiso.isolate import Isolate
from subiso.sending import SendPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, Literal

    from subiso._kernel.mailbox import Mailbox
    from subiso.lines import Line
    from subiso.supervisor import Supervisor

    type Restart = Literal["permanent", "transient", "temporary"]

PERMANENT: "Restart" = "permanent"
TRANSIENT: "Restart" = "transient"
TEMPORARY: "Restart" = "temporary"
RESTARTS = (PERMANENT, TRANSIENT, TEMPORARY)

log: logging.Logger = logging.getLogger("subiso.supervisor")


class Child:
    """What a supervisor supervises; `Supervisor.add` and its relatives make them.

    Attributes:
        name: for people.
        restart: "permanent", "transient" or "temporary".
        starts: how often it was started.
    """

    def __init__(self, name: str, restart: str) -> None:
        self.name = name
        self.restart = restart
        self.starts: int = 0
        self.due: float = inf  # when it is to be started, on the monotonic clock
        self.running: bool = False  # as far as its supervisor has noticed

    @property
    def isolate(self) -> Isolate | None:
        """The isolate that it lives in now; None if it has none."""
        return None

    @property
    def is_alive(self) -> bool:
        """Whether it lives now."""
        isolate = self.isolate
        return isolate is not None and isolate.is_alive

    def start(self, changed: Waitable) -> None:
        """Start it, and have ``changed`` notified when it ends."""
        self.due, self.running = inf, True
        self.starts += 1
        try:
            self._start(changed)
        except IsolateSpawnError as error:  # as if it had ended at once
            log.error("%s could not be started: %s", self.name, error)
            changed.notify()

    def stop(self, patience: float) -> None:
        """End it, and wait ``patience`` seconds for that."""
        self.due, self.running = inf, False
        self._stop(patience)

    def ended_well(self) -> bool:
        """Return whether it has ended of its own accord, without an error."""
        raise NotImplementedError

    def give_up(self, error: IsolateError) -> None:
        """Take note that it will not be started again."""

    def _start(self, changed: Waitable) -> None:
        raise NotImplementedError

    def _stop(self, patience: float) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Child {self.name!r}{'' if self.is_alive else ' ended'}>"


class IsolateChild(Child):
    """An isolate."""

    def __init__(
        self, mailbox: "Mailbox", name: str, restart: str, entry: "Callable[..., object]", args: "tuple[Any, ...]"
    ) -> None:
        super().__init__(name, restart)
        self._mailbox = mailbox
        self._entry, self._args = entry, args
        self._isolate: Isolate | None = None
        self._words: Inbox | None = None  # None when it returns, or two texts about an error
        messages.encode_call(entry, args)  # what cannot be sent is said here and now

    @property
    def isolate(self) -> Isolate | None:
        """The isolate that it lives in now; None before it is started."""
        return self._isolate

    def _start(self, changed: Waitable) -> None:
        self._isolate = None
        self._words = self._mailbox.open()
        port = SendPort._of(self._words.address, 0)
        # Paused, so that nothing that it sends arrives before it is known here.
        isolate = Isolate.spawn(run, port, self._entry, self._args, name=self.name, on_error=port, paused=True)
        self._isolate = isolate
        isolate.resume(isolate.pause_capability)
        self._mailbox.watch(isolate._slot, isolate._number, changed)
        if not isolate.is_alive:
            changed.notify()

    def _stop(self, patience: float) -> None:
        if self._isolate is not None:
            self._isolate.kill()
            self._isolate.join(patience)
        self._close()

    def ended_well(self) -> bool:
        """Return whether the function has returned; what it has raised is logged."""
        self._mailbox.settle()
        well = False
        while self._words is not None and self._words.messages:
            texts = messages.decode(*parcels.unpack(*self._words.messages.popleft()))
            well = texts is None
            if texts is not None:
                log.error("%s has ended: %s\n%s", self.name, texts[0], texts[1])
        self._close()
        return well

    def _close(self) -> None:
        """Hear nothing more from it."""
        if self._words is not None:
            self._mailbox.close(self._words)
            self._words = None


class ActorChild(Child):
    """An actor, whose callers go on with the next one."""

    def __init__(self, name: str, restart: str, line: "Line") -> None:
        super().__init__(name, restart)
        self._line = line

    @property
    def isolate(self) -> Isolate | None:
        """The isolate that it lives in now; None before it is started."""
        return self._line.isolate

    def _start(self, changed: Waitable) -> None:
        isolate = self._line.start()
        self._line.node.mailbox.watch(isolate._slot, isolate._number, changed)
        if not isolate.is_alive:
            changed.notify()

    def _stop(self, patience: float) -> None:
        isolate = self.isolate
        if isolate is not None and isolate.is_alive:
            self._line.stop()
            if not isolate.join(patience):
                isolate.kill()

    def ended_well(self) -> bool:
        """Return whether it was told to end."""
        self._line.node.mailbox.settle()
        return self._line.finished

    def give_up(self, error: IsolateError) -> None:
        """Have its callers know."""
        self._line.give_up(error)


class SupervisorChild(Child):
    """Another supervisor."""

    def __init__(self, restart: str, supervisor: "Supervisor") -> None:
        super().__init__(supervisor.name, restart)
        self._supervisor = supervisor

    @property
    def is_alive(self) -> bool:
        """Whether it supervises."""
        return self._supervisor.is_running

    def _start(self, changed: Waitable) -> None:
        self._supervisor._begin(changed)

    def _stop(self, patience: float) -> None:
        self._supervisor._end()

    def ended_well(self) -> bool:
        """Return whether it was told to end."""
        return self._supervisor.error is None


def run(words: SendPort, entry: "Callable[..., Any]", args: "tuple[Any, ...]") -> "Any":
    """Run a supervised function, and say that it has returned. Runs in the isolate."""
    result = entry(*args)
    if coroutines.is_coroutine(result):
        return _run_coroutine(words, result)
    words.send(None)
    return None


async def _run_coroutine(words: SendPort, coroutine: "Coroutine[Any, Any, Any]") -> None:
    await coroutine
    words.send(None)
