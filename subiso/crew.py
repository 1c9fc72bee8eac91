"""The crew of a pool: its worker isolates, and the queue of what they are to do.

Every worker has one task at a time; whoever takes its answer out of its inbox gives it the next one. That is any thread
that pumps: one that waits for a result, one that submits, or the attendant. Nothing here blocks but `close`.

Races, and what closes them
    Taking an answer and freeing the worker is one step under the lock; so a worker that has ended with an answer in
    its inbox has answered, and one without has not.
    A worker whose task is cancelled or late leaves the crew under the lock, and is killed then: it cannot have been
    given another task, and an answer that it still sends is dropped.
"""

import logging
from _thread import get_ident
from itertools import count
from math import inf
from time import monotonic

from subiso import alarms, failures, messages, statistics
from subiso._kernel import attendant as attendants
from subiso._kernel import locks, parcels, protocol
from subiso._kernel import node as nodes
from subiso._kernel.interrupt import unwind
from subiso._kernel.waitables import Waitable
from subiso.errors import BrokenIsolatePool, IsolateKilledError
from subiso.members import Member, Options
from subiso.mending import mended
from subiso.queues import WorkQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from subiso.chunks import Job
    from subiso.tasks import TaskFuture

    type Work = TaskFuture[Any] | None  # what a worker is to do next; None: to end


class Crew:
    """The workers and the queue of one pool.

    Attributes:
        limit: how many workers there may be.
        members: those that there are, beside those that are about to end.
        changed: notified when a worker has ended, or a task.
        unsettled: the submitted tasks without an outcome, in order.
        cut: the chunks of maps without an outcome.
        maps: those that are going on, by their numbers.
        broken: why no task can be run any more.
    """

    def __init__(self, limit: int, options: Options) -> None:
        self.node: nodes.Node = nodes.current()
        self.options = options
        self.limit: int = limit
        self.members: set[Member] = set()
        self.changed: Waitable = Waitable()
        self.unsettled: dict[TaskFuture[Any], None] = {}
        self.cut: dict[TaskFuture[Any], None] = {}
        self.maps: dict[int, Job] = {}
        self.broken: str | None = None
        self.closing: bool = False
        self.tally: statistics.Tally = statistics.Tally()
        self._leaving: set[Member] = set()
        self._idle: list[Member] = []  # the one used last is used first: the others may time out
        self._starting = 0
        self._queue = WorkQueue()
        self._lock = locks.RLock()  # again in one thread: a map that is garbage may be closed anywhere
        self._numbers = count(1)
        self._alarm = alarms.Alarm(self.node, self._look_at_clock)
        self._handling: set[int] = set()  # the threads that are in the middle of `_on_event`
        attendants.of(self.node)  # somebody must pump where nobody waits

    # -- work ----------------------------------------------------------------------------------------------------------

    @mended
    def submit(self, task: "TaskFuture[Any]") -> None:
        """Have a task run.

        Raises:
            RuntimeError: the pool was shut down.
            BrokenIsolatePool: it is broken.
        """
        if not self._idle and get_ident() not in self._handling:
            self.node.mailbox.pump()  # somebody may be idle by now, whose answer nobody has had time to take
        with self._lock:
            self.check_open()
            self.unsettled[task] = None
            member = None
            if self._idle and not self._queue and task.begin():
                member = self._idle.pop()
                self._assign(member, task)
            else:
                self._queue.add(task)
        if member is not None:
            self._send(member, task)
        else:
            self.dispatch()

    @mended
    def offer(self, job: "Job", items: "list[Any] | None" = None) -> None:
        """Have a map worked on, with more items if there are any.

        Raises:
            RuntimeError, BrokenIsolatePool: as for `submit`.
        """
        with self._lock:
            self.check_open()
            self.maps[job.number] = job
            if items is not None:
                job.add(items)
            self._queue.add(job)
        self.dispatch()

    def again(self, job: "Job") -> None:
        """Have the rest of a chunk worked on, which was accepted already."""
        with self._lock:
            self._queue.add(job, first=True)

    def check_open(self) -> None:
        """Raise what `submit` would raise."""
        if self.broken is not None:
            raise BrokenIsolatePool(self.broken)
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    @mended
    def dispatch(self) -> None:
        """Give idle workers what waits; start workers if there are not enough."""
        while True:
            with self._lock:
                task = self._queue.take(self._allowance(self._idle[-1])) if self._idle else None
                if task is None:
                    break
                member = self._idle.pop()
                self._assign(member, task)
            self._send(member, task)
        self._grow()

    def _allowance(self, member: Member) -> int | None:
        """Return how many more tasks a member may do; None: any number."""
        most = self.options.max_tasks_per_worker
        return None if most is None else most - member.done

    def _assign(self, member: Member, task: "TaskFuture[Any]") -> None:
        """Note that a member does a task, which has begun. Call this under the lock."""
        now = monotonic()
        task._member, member.task = member, task
        self.tally.waited(now - task._since)
        task._since = now
        member.deadline = inf if task._timeout is None else now + task._timeout

    def _send(self, member: Member, task: "TaskFuture[Any]") -> None:
        assert member.port is not None
        try:
            member.port._post(self.node, *task.encode_for(member))
        except BaseException as error:  # a chunk's item that cannot be sent, no memory, Ctrl-C
            with self._lock:
                if member.task is task:
                    member.task = task._member = None
                    self._idle.append(member)
            task.fail(error)
            if not isinstance(error, Exception):
                raise
            self.dispatch()
            return
        if member.deadline < inf:
            self._alarm.set(member.deadline)

    # -- workers come --------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Start as many workers as tasks wait and the limit allows."""
        while True:
            with self._lock:
                if len(self.members) >= self.limit or not self._queue.wants_more_than(self._starting):
                    return
                try:
                    member = self._new_member()
                except Exception as error:  # no memory, or too many ports
                    reason = "" if self.members else f"no worker of {self.options.name} could be started: {error}"
                    member = None
                else:
                    self._starting += 1
            if member is None:
                if reason:
                    self._break(reason, None)
                return
            self._start(member)

    def _new_member(self) -> Member:
        member = Member(f"{self.options.name}-{next(self._numbers)}", self.node.mailbox)
        member.inbox.on_event = lambda: self._on_event(member)
        self.members.add(member)
        return member

    def _start(self, member: Member) -> None:
        try:
            member.start(self.options)
        except Exception as error:  # too many isolates, no memory: it never was (after Ctrl-C the crew is mended)
            self._end(member, str(error))
            return
        self._on_event(member)  # it may have said something already

    # -- workers speak -------------------------------------------------------------------------------------------------

    @mended
    def _on_event(self, member: Member) -> None:
        """Take a worker's answer, or notice its end. Called by any thread that pumps."""
        isolate = member.isolate
        if isolate is None:  # being spawned by a thread that will look
            return
        thread = get_ident()
        nested = thread in self._handling
        self._handling.add(thread)
        try:
            while member.inbox.messages:
                self._take(member)
            if not isolate.is_alive:
                self.node.mailbox.settle()  # its last message was sent before it ended
                while member.inbox.messages:
                    self._take(member)
                self._end(member)
        finally:
            if not nested:
                self._handling.discard(thread)

    def _take(self, member: Member) -> None:
        """Take one answer and give the worker what it is to do next."""
        following: Work | bool = False
        with self._lock:
            try:
                message = member.inbox.messages.popleft()
            except IndexError:  # another thread was quicker
                return
            if member not in self.members:  # it was killed; nobody wants to know any more
                parcels.discard(*message)
                return
            task, member.task = member.task, None
            if task is not None:
                task._member = None
                self.tally.ran(monotonic() - task._since)
                member.done += task.size
                if task.single:
                    following = self._next_for(member)
        if task is None:
            if member.port is None:
                try:
                    self._greet(member, *parcels.unpack(*message))
                except Exception as error:  # what cannot be decoded for lack of memory, say
                    member.complaint = f"{type(error).__name__}: {error}"
                    member.kill()
            else:  # of a task that could not be sent as a whole
                parcels.discard(*message)
            return
        try:
            if task.single:
                self._do(member, following)
        finally:
            try:
                opened = parcels.unpack(*message)
            except Exception as error:  # no memory, no descriptor
                task.fail(error)
            else:
                task.take(*opened)
        if not task.single:
            self._go_on(member)

    def _greet(self, member: Member, kind: int, body: bytes | memoryview, buffers: "Sequence[memoryview]") -> None:
        """Take a worker's first message: where it takes tasks, or why it cannot."""
        if kind == protocol.FAILURE:
            error = failures.unpack(messages.decode(protocol.PICKLE, body, buffers))
            text = f"the initializer of {self.options.name} failed: {type(error).__name__}: {error}"
            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=error)
            self._break(text, error)
            return
        port, thread = messages.decode(kind, body, buffers)
        with self._lock:
            if member in self.members:
                member.port, member.thread = port, thread
                self._starting -= 1
                self.tally.started(monotonic() - member.since)
        self._go_on(member)

    def _go_on(self, member: Member) -> None:
        with self._lock:
            following = self._next_for(member) if member in self.members else False
        self._do(member, following)

    def _next_for(self, member: Member) -> "Work | bool":
        """Find out what a member that has nothing to do is to do next: a task, None to end, False to wait."""
        most = self.options.max_tasks_per_worker
        if len(self.members) > self.limit or (most is not None and member.done >= most):
            self._dismiss(member)
            return None
        task = self._queue.take(self._allowance(member))
        if task is not None:
            self._assign(member, task)
            return task
        if self.closing or self.broken is not None:
            self._dismiss(member)
            return None
        member.since = monotonic()
        self._idle.append(member)
        return False

    def _dismiss(self, member: Member) -> None:
        """Let a worker go when it has done what it does. Call this under the lock, and then `_do` this."""
        self._leaving.add(member)  # first: after a Ctrl-C in between it is still known
        self.members.discard(member)

    def _do(self, member: Member, work: "Work | bool") -> None:
        """Tell a worker what `_next_for` has found."""
        if work is None:
            member.stop()
            self._grow()  # another one in its place, if there is work
        elif work is False:
            if self.options.idle_timeout is not None:
                self._alarm.set(member.since + self.options.idle_timeout)
        else:
            self._send(member, work)  # type: ignore[arg-type]

    # -- workers go ----------------------------------------------------------------------------------------------------

    @mended
    def abandon(self, task: "TaskFuture[Any]") -> None:
        """Stop a task that has an outcome already, by killing its worker; another one is started when needed."""
        with self._lock:
            member = task._member
            if member is None or member.task is not task:
                return
            member.task = task._member = None
            self._dismiss(member)
        member.kill()
        self._grow()

    def _end(self, member: Member, reason: str = "") -> None:
        """Notice that a worker has ended, and deal with what it leaves behind."""
        with self._lock:
            if member not in self.members and member not in self._leaving:
                return
            expected = member in self._leaving
            self.members.discard(member)
            self._leaving.discard(member)
            if member in self._idle:
                self._idle.remove(member)
            task, member.task = member.task, None
            failed_to_start = member.port is None and not expected
            if failed_to_start:
                self._starting -= 1
            if not expected:
                self.tally.lost += 1
        reason = reason or member.last_words()
        member.close()
        if task is not None:
            self._lost(task, member, reason)
        if failed_to_start and not self.members:
            self._break(f"no worker of {self.options.name} could be started{reason and f': {reason}'}", None)
        self.dispatch()
        self.changed.notify()

    def _lost(self, task: "TaskFuture[Any]", member: Member, reason: str) -> None:
        task._member = None
        if task.begin_again():
            task._since = monotonic()
            with self._lock:
                if self.broken is None:
                    self._queue.add(task, first=True)
                    return
        why = reason and f": {reason}"
        task.fail(IsolateKilledError(f"{member.name} was killed, or has ended, while it ran {task._name}{why}"))

    def _break(self, reason: str, cause: BaseException | None) -> None:
        """Run no more tasks; those that wait fail with the reason."""
        with self._lock:
            if self.broken is None:
                self.broken = reason
            waiting = self._queue.take_all()
            idle, self._idle = self._idle, []
            for member in idle:
                self._dismiss(member)
        for member in idle:
            member.stop()
        for work in waiting:
            error = BrokenIsolatePool(self.broken)
            error.__cause__ = cause
            work.fail(error)

    def _look_at_clock(self) -> float:
        """End the tasks that take too long, and the workers that have been idle for too long; return when to look."""
        now, patience = monotonic(), self.options.idle_timeout
        with self._lock:
            late = [member.task for member in self.members if member.task is not None and member.deadline <= now]
            idle = [] if patience is None else [one for one in self._idle if one.since + patience <= now]
            for member in idle:
                self._idle.remove(member)
                self._dismiss(member)
            following = min((one.deadline for one in self.members if one.task and one.deadline > now), default=inf)
            if patience is not None:
                following = min(following, min((one.since + patience for one in self._idle), default=inf))
        for member in idle:
            member.stop()
        for task in late:
            task.time_out()
            self.abandon(task)
        return following

    # -- the whole crew ------------------------------------------------------------------------------------------------

    @mended
    def settled(self, task: "TaskFuture[Any]") -> None:
        """Note that a task has got its outcome."""
        with self._lock:
            (self.unsettled if task.single else self.cut).pop(task, None)
            self.tally.count(task)
        if self.changed.waiters:
            self.changed.notify()

    @mended
    def resize(self, limit: int) -> None:
        """Allow more workers, or fewer: those that are too many end when they have nothing to do."""
        with self._lock:
            self.limit = limit
            surplus = [self._idle.pop(0) for _ in self._idle[: max(len(self.members) - limit, 0)]]
            for member in surplus:
                self._dismiss(member)
        for member in surplus:
            member.stop()
        self.dispatch()

    @mended
    def close(self, cancel: bool = False) -> None:
        """Accept no more work; workers end when everything is done. Does not wait."""
        with self._lock:
            self.closing = True
            waiting = self._queue.take_all() if cancel else []
            idle = [] if self._queue.has_work() else self._idle[:]
            for member in idle:
                self._idle.remove(member)
                self._dismiss(member)
        for member in idle:
            member.stop()
        for work in waiting:
            work.cancel()
        self.changed.notify()

    @mended
    def abort(self) -> None:
        """Accept no more work, and stop what is running."""
        self.close(cancel=True)
        with self._lock:
            running = [member.task for member in self.members if member.task is not None]
        for task in running:
            task.cancel()

    @property
    def unfinished(self) -> int:
        """How many tasks that were submitted have not ended."""
        return len(self.unsettled)

    @property
    def is_over(self) -> bool:
        """Whether the pool was shut down, and nothing of it is left."""
        return self.closing and not self.members and not self._leaving and not self._queue.has_work()

    def join(self) -> None:
        """Wait until everything is done and every worker has ended."""
        node = self.node
        node.mailbox.wait([self.changed], lambda: self.is_over or node.killed)
        if node.killed:
            raise unwind()

    def is_handling(self) -> bool:
        """Return whether this thread is in the middle of taking answers: a callback of a future."""
        return get_ident() in self._handling

    def statistics(self) -> "statistics.Statistics":
        """Return what has been done so far."""
        with self._lock:
            running = sum(member.task is not None for member in self.members)
            queued = self._queue.demand()
            return self.tally.statistics(running, queued, len(self.members))

    def at_work(self) -> list[tuple[str, str, int]]:
        """Return the workers' names, what each does, or ``""``, and its thread's number, or 0."""
        with self._lock:
            members = sorted(self.members, key=lambda one: one.isolate._number if one.isolate else inf)
            return [(one.name, one.task._name if one.task else "", one.thread) for one in members]
