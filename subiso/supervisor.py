"""Supervisors: what they start is started again when it ends. The strategies and words are Erlang's."""

import itertools
import threading
from collections import deque
from math import inf
from time import monotonic

from subiso._kernel import locks, waiting
from subiso._kernel import node as nodes
from subiso._kernel.interrupt import IsolateKilled, unwind
from subiso._kernel.threads import start_thread
from subiso._kernel.waitables import Waitable
from subiso.actors import Actor
from subiso.children import PERMANENT, RESTARTS, TEMPORARY, ActorChild, IsolateChild, SupervisorChild, log
from subiso.children import Child as Child
from subiso.errors import IsolateKilledError, SupervisorError
from subiso.lines import Line, Recipe
from subiso.sending import check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Literal, Self

    from subiso.children import Restart

    type Strategy = Literal["one-for-one", "one-for-all", "rest-for-one"]

ONE_FOR_ONE: "Strategy" = "one-for-one"
ONE_FOR_ALL: "Strategy" = "one-for-all"
REST_FOR_ONE: "Strategy" = "rest-for-one"

_numbers = itertools.count(1)


class Supervisor:
    """Start isolates, actors and other supervisors, and start them again when they end.

    What is added is started in order, and stopped in the opposite order. As a context manager, a supervisor is started
    at the beginning of the block and stopped at its end; it then raises a `SupervisorError` if it had given up.

    Args:
        strategy: what is started again when one has ended: "one-for-one": that one; "one-for-all": all of them;
            "rest-for-one": that one, and those that were added after it. What still runs of them is stopped first.
        max_restarts: how often that may happen in ``within`` seconds. Then the supervisor gives up: it stops
            everything, and has ended, with an error, in the eyes of a supervisor above it.
        within: seconds.
        backoff: seconds to wait before the second restart in a row, and twice as long before each further one. The
            first is done at once.
        patience: seconds to wait for what is stopped to end; then it is killed, or left alone.
        name: for people; made up if not given.

    Raises:
        ValueError: an argument is out of range.
    """

    __subiso_unsendable__ = "Supervisor objects cannot be sent; an isolate that wants one makes one of its own"

    def __init__(
        self,
        strategy: "Strategy" = ONE_FOR_ONE,
        *,
        max_restarts: int = 3,
        within: float = 5.0,
        backoff: float = 0.0,
        patience: float = 5.0,
        name: str | None = None,
    ) -> None:
        if strategy not in (ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE):
            raise ValueError(f"strategy must be {ONE_FOR_ONE!r}, {ONE_FOR_ALL!r} or {REST_FOR_ONE!r}, not {strategy!r}")
        if not isinstance(max_restarts, int) or max_restarts < 0:
            raise ValueError(f"max_restarts must be an int of 0 or more, not {max_restarts!r}")
        for option, seconds in (("within", within), ("backoff", backoff), ("patience", patience)):
            if not seconds >= 0:  # NaN too
                raise ValueError(f"{option} must be a number of seconds that is not negative, not {seconds!r}")
        self.name: str = name or f"supervisor-{next(_numbers)}"
        self.error: SupervisorError | None = None
        self._strategy = strategy
        self._max_restarts, self._within, self._backoff, self._patience = max_restarts, within, backoff, patience
        self._node = nodes.current()
        self._children: list[Child] = []
        self._restarts: deque[float] = deque()  # when they were, as far as they count
        self._changed = Waitable()
        self._above: Waitable | None = None  # who wants to know when it has ended
        self._lock = locks.RLock()
        self._thread: threading.Thread | None = None
        self._running = self._stopping = False

    # -- what is supervised --------------------------------------------------------------------------------------------

    def add[*Ts](
        self,
        entry: "Callable[[*Ts], object]",
        /,
        *args: *Ts,
        restart: "Restart" = PERMANENT,
        name: str | None = None,
    ) -> Child:
        """Supervise an isolate: start it with the supervisor, or now if that has been started.

        Args:
            entry: a function or a coroutine function.
            args: its arguments.
            restart: "permanent": it is started again however it has ended; "transient": unless it has returned;
                "temporary": never.
            name: for people; made up if not given.

        Raises:
            TypeError: ``entry`` is not callable.
            ValueError: ``restart`` is none of the three.
            SendError: the function or an argument cannot be sent.
            RuntimeError: the supervisor has ended.
        """
        if not callable(entry):
            raise TypeError(f"a supervisor starts functions, not {entry!r}")
        _check_restart(restart)
        return self._add(IsolateChild(self._node.mailbox, name or self._name_of(entry), restart, entry, args))

    def add_actor[I, *Ts](
        self,
        cls: "Callable[[*Ts], I]",
        /,
        *args: *Ts,
        restart: "Restart" = PERMANENT,
        name: str | None = None,
    ) -> "Actor[I]":
        """Supervise an actor. Calls that are made while it is started again wait for that.

        Args:
            cls: the class. For keyword arguments, use `functools.partial`.
            args: the arguments for it.
            restart: as for `add`; an actor ends without an error when it is told to stop.
            name: likewise.

        Raises:
            TypeError, ValueError, SendError, RuntimeError: as for `add` and `Actor.spawn`.
        """
        _check_restart(restart)
        line = Line(Recipe(cls, args, {}), name or self._name_of(cls), supervised=True)
        self._add(ActorChild(line.name, restart, line))
        return Actor._of(line)

    def add_supervisor(self, supervisor: "Supervisor", *, restart: "Restart" = PERMANENT) -> "Supervisor":
        """Supervise another supervisor, which has not been started; return it.

        Raises:
            TypeError: it is no supervisor.
            ValueError: it has been started, or is this one.
            RuntimeError: this supervisor has ended.
        """
        _check_restart(restart)
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"add_supervisor takes a Supervisor, not {supervisor!r}")
        if supervisor is self or supervisor._thread is not None:
            raise ValueError(
                f"{supervisor.name} cannot be supervised: it has been started, or is the supervisor itself"
            )
        self._add(SupervisorChild(restart, supervisor))
        return supervisor

    def _name_of(self, entry: object) -> str:
        return f"{self.name}-{getattr(entry, '__name__', 'child')}-{len(self._children) + 1}"

    def _add(self, child: Child) -> Child:
        with self._lock:
            if self._stopping or self.error is not None or (self._thread is not None and not self._running):
                raise RuntimeError(f"{self.name} has ended")
            self._children.append(child)
            child.due = 0.0
        self._changed.notify()
        return child

    @property
    def children(self) -> tuple[Child, ...]:
        """What is supervised, in the order in which it was added."""
        return tuple(self._children)

    # -- starting and ending -------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._running

    def start(self) -> "Self":
        """Start everything that was added.

        Raises:
            RuntimeError: it has been started already.
        """
        if self._thread is not None:
            raise RuntimeError(f"{self.name} has been started already")
        self._begin(None)
        return self

    def _begin(self, above: Waitable | None) -> None:
        self._above = above
        self._running, self._stopping, self.error = True, False, None
        self._restarts.clear()
        for child in self._children:
            child.due = 0.0
        thread = threading.Thread(target=self._supervise, name="subiso-supervisor", daemon=True)
        try:
            start_thread(thread)
        except BaseException:
            self._running = False
            raise
        self._thread = thread

    def stop(self) -> None:
        """Stop everything, in the opposite order, and wait for that.

        Raises:
            SupervisorError: it had given up.
        """
        self._end()
        if self.error is not None:
            raise self.error

    def _end(self) -> None:
        self._stopping = True
        self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs that is supervised, nor will run again; return whether that is so.

        Args:
            timeout: seconds to wait; None: for ever.

        Raises:
            SupervisorError: it has given up.
        """
        node = self._node
        node.mailbox.wait([self._changed], lambda: node.killed or self._is_over(), check_timeout(timeout))
        if node.killed:
            raise unwind()
        return self._look_back()

    async def ajoin(self) -> None:
        """Wait in the running event loop until nothing runs that is supervised, nor will again; raises as `join`."""
        await waiting.wait(self._node.mailbox, [self._changed], self._is_over)
        self._look_back()

    def _look_back(self) -> bool:
        if self.error is not None:
            raise self.error
        return self._is_over()

    def _is_over(self) -> bool:
        if self.error is not None or not self._running:
            return not self._running
        return not any(child.running or child.due < inf for child in [*self._children])

    def __enter__(self) -> "Self":
        return self.start()

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        try:
            self._end()
        except BaseException:  # Ctrl-C; after a second one, no waiting
            self._end()
            raise
        if kind is None and self.error is not None:
            raise self.error

    async def __aenter__(self) -> "Self":
        return self.start()

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._stopping = True
        self._changed.notify()
        await waiting.wait(self._node.mailbox, [self._changed], lambda: not self._running)
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Supervisor {self.name!r} of {len(self._children)}{'' if self.is_running else ', not running'}>"

    # -- supervising, on a thread of its own ---------------------------------------------------------------------------

    def _supervise(self) -> None:
        mailbox = self._node.mailbox
        try:
            while not (self._stopping or self._node.killed):
                with self._lock:
                    self._start_due()
                    following = self._first_due()
                mailbox.attend([self._changed], self._has_changed, following if following < inf else None)
                ended = self._first_ended()
                if ended is not None:
                    self._react(ended)
        except SupervisorError as error:
            self.error = error
            log.critical("%s", error)
        except IsolateKilled:
            pass
        except Exception as error:  # no memory, no descriptor
            self.error = SupervisorError(f"{self.name} has given up: {type(error).__name__}: {error}")
            self.error.__cause__ = error
            log.critical("%s", self.error)
        finally:
            for child in reversed(self._children):
                child.stop(self._patience)
            for child in self._children:
                child.give_up(self.error or IsolateKilledError(f"{child.name} was stopped by {self.name}"))
            self._running = False
            self._changed.notify()
            if self._above is not None:
                self._above.notify()

    def _start_due(self) -> None:
        for child in self._children:
            if child.due <= monotonic():
                child.start(self._changed)

    def _first_due(self) -> float:
        return min((child.due for child in self._children), default=inf)

    def _first_ended(self) -> Child | None:
        for child in self._children:
            if child.running and not child.is_alive:
                return child
        return None

    def _has_changed(self) -> bool:
        if self._stopping or self._node.killed or self._first_ended() is not None:
            return True
        return self._first_due() <= monotonic()

    def _react(self, child: Child) -> None:
        """Do what the strategy says about a child that has ended.

        Raises:
            SupervisorError: that has happened too often.
        """
        well = child.ended_well()
        if child.restart == TEMPORARY or (child.restart != PERMANENT and well):
            child.running = False
            child.give_up(IsolateKilledError(f"{child.name} has ended"))
            self._changed.notify()  # for `join`
            return
        now = monotonic()
        self._restarts.append(now)
        while self._restarts[0] < now - self._within:
            self._restarts.popleft()
        if len(self._restarts) > self._max_restarts:
            raise SupervisorError(
                f"{self.name} has given up: {child.name} has ended, and there have been {self._max_restarts} restarts "
                f"in {self._within:g} seconds already"
            )
        log.warning("%s has ended; %s starts it again", child.name, self.name)
        self._restart(child, now + self._delay())

    def _delay(self) -> float:
        in_a_row = len(self._restarts) - 1
        return self._backoff * 2.0 ** (in_a_row - 1) if in_a_row else 0.0

    def _restart(self, child: Child, due: float) -> None:
        with self._lock:
            place = self._children.index(child)
            concerned = {
                ONE_FOR_ONE: [child],
                ONE_FOR_ALL: self._children[:],
                REST_FOR_ONE: self._children[place:],
            }[self._strategy]
            concerned = [one for one in concerned if one is child or one.running or one.due < inf]
        for one in reversed(concerned):
            if one is not child:
                one.stop(self._patience)
        for one in concerned:
            if one is child or one.restart != TEMPORARY:
                one.due = due  # before it is seen not to run any more
        child.running = False


def _check_restart(restart: object) -> None:
    if restart not in RESTARTS:
        raise ValueError(f"restart must be {', '.join(map(repr, RESTARTS))}, not {restart!r}")
