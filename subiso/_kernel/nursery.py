"""Where interpreters are made, lent and taken back. It lives in main only.

Each interpreter has one thread of main, which makes it, runs its kernel (worker.py) and closes it; a thread that made
two could not close the first before the second. An isolate that wants another isolate asks main's broker, a thread that
reads main's control messages.

An interpreter that is asked for may not be there yet: its slot is, and the job waits in the slot's ring.
"""

import _pickle
import atexit
import errno
import functools
import heapq
import itertools
import os
import select
import sys
import threading
from time import monotonic, sleep

from subiso._kernel import asking, doorbell, exits, forks, interpreters, limits, locks, parcels, protocol, waking
from subiso._kernel import node as nodes
from subiso._kernel.arena import ABANDONED as GIVEN_UP
from subiso._kernel.arena import CONTROL, DOORBELL, ISOLATE, LEAVING, REGISTRY, THREAD, Arena, address_of
from subiso._kernel.control import Control, execute_will
from subiso._kernel.insisting import insist, report
from subiso._kernel.limits import Limits
from subiso._kernel.mailbox import Mailbox
from subiso._kernel.naming import name_thread
from subiso._kernel.node import ControlPipe, Node
from subiso._kernel.threads import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BOOT = """\
import sys
sys.path[:] = {path!r}
from subiso._kernel.own_builtins import install
install()
from subiso._kernel.lazy import install
install()
{prefix}from subiso._kernel.worker import main
main({slot}, {descriptor}, {control}, {doorbell})
"""

boot_prefix = ""  # what tests have new interpreters do first (faults.py)

_LAST_MOMENT = 0.2  # seconds that isolates are given to end before a fork is refused
_LAST_WORDS = 0.002  # seconds that an isolate which is about to end is waited for
_SILENCE = 2.5  # seconds after which a killed isolate whose kernel does not answer is given up: its GIL is held

BOOTING, IDLE, BUSY, ABANDONED, RETIRING, GONE = "booting", "idle", "busy", "abandoned", "retiring", "gone"


class _Berth:
    """One slot and the interpreter in it, as the nursery sees it."""

    def __init__(self, slot: int, control: int, doorbell_reader: int) -> None:
        self.slot = slot
        self.control = control
        self.doorbell = doorbell_reader
        self.state = GONE
        self.thread: threading.Thread | None = None
        self.number = 0  # of the isolate that it was lent to last
        self.name = ""
        self.ready = False  # whether its kernel has begun to work
        self.used = False
        self.disposable = False  # to be retired after this isolate
        self.promised = False  # lent while it was being scrubbed, which then failed


class Nursery:
    """All interpreters of the process."""

    def __init__(self) -> None:
        self._arena = Arena.create()
        self._lock = locks.Lock()
        self._changed = threading.Condition(self._lock)
        self._berths: list[_Berth] = []
        self._vacant: list[_Berth] = []  # slots without an interpreter
        self._idle: list[_Berth] = []  # the one used last is lent first: its memory is warm
        self._numbers = itertools.count(2)
        self._pending: list[Callable[[], None]] = []  # what the broker is to do
        self.closing = False
        self._retiring = 0  # how many threads want all idle interpreters closed: no spares are made meanwhile
        control, reader = self._furnish(nodes.MAIN)
        self._control = ControlPipe(control)
        self._arena.words[Arena.home(nodes.MAIN) + ISOLATE] = 1
        self._arena.set_capabilities(nodes.MAIN, os.urandom(32))
        self._arena.words[Arena.home(REGISTRY) + ISOLATE] = 1
        self.node = Node(self._arena, nodes.MAIN, reader)
        self._own = Control(self.node, kill=lambda: None)  # main cannot be killed
        self._doomed: list[tuple[float, int, int]] = []  # deadline, isolate's number, slot
        for name in interpreters.IMPORT_IN_MAIN_FIRST:
            try:
                __import__(name)
            except ImportError:  # a Python that was built without it
                pass
        self._broker = threading.Thread(target=self._serve, name="subiso-broker", daemon=True)
        start_thread(self._broker)

    def _furnish(self, slot: int) -> tuple[int, int]:
        """Give a slot its pipe and doorbell, for ever: somebody may hold their numbers as long as the process lives."""
        try:
            control, reader = self._open(slot)
        except OSError as error:
            if error.errno != errno.EMFILE or not limits.allow_more_descriptors():
                raise
            control, reader = self._open(slot)
        limits.keep_room_for_descriptors(max(control, reader))
        return control, reader

    def _open(self, slot: int) -> tuple[int, int]:
        words, home = self._arena.words, Arena.home(slot)
        reader, bell = doorbell.create()
        try:
            control, words[home + CONTROL] = os.pipe()
            os.set_blocking(words[home + CONTROL], False)
        except OSError:
            doorbell.close(reader, bell)
            raise
        words[home + DOORBELL] = bell
        return control, reader

    # -- lending -------------------------------------------------------------------------------------------------------

    def lease(self, name: str | None = None, fresh: bool = False) -> tuple[int, int]:
        """Lend an interpreter to a new isolate; return its slot and the isolate's number.

        Raises:
            RuntimeError: the program is ending, the limit of isolates is reached, or there is no thread to be had.
            OSError: there are no descriptors left.
        """
        berth = None
        try:
            with self._lock:
                if self.closing:
                    raise RuntimeError("the program is ending")
                if sum(berth.state == BUSY for berth in self._berths) >= Limits.isolates:
                    raise RuntimeError(f"there are {Limits.isolates} isolates already")
                berth = self._take(fresh)
                return berth.slot, self._lend(berth, name, fresh)
        except BaseException:  # Ctrl-C may come anywhere, also when the lock is given back
            with self._lock:
                if berth is None:
                    self._find_lost()
                else:  # nobody will send a job
                    self.node.withdraw(berth.slot, self._lend(berth, name, fresh))
            raise

    def _take(self, fresh: bool) -> _Berth:
        return self._take_idle(fresh) or (None if fresh else self._take_recycling()) or self._boot(self._vacate())

    def _lend(self, berth: _Berth, name: str | None, fresh: bool) -> int:
        berth.state = BUSY
        berth.number = next(self._numbers)
        berth.name = name or f"isolate-{berth.number}"
        berth.used = True
        berth.disposable = fresh
        self._arena.set_capabilities(berth.slot, os.urandom(32))
        self._arena.words[Arena.home(berth.slot) + ISOLATE] = berth.number
        exits.watch_exit_code()
        return berth.number

    def _find_lost(self) -> None:
        """Have what was just being taken at hand again."""
        for berth in self._berths:
            if berth.state == IDLE and berth not in self._idle:
                self._idle.append(berth)
            elif berth.state == GONE and berth not in self._vacant:
                self._vacant.append(berth)

    def _take_idle(self, fresh: bool) -> _Berth | None:
        for berth in reversed(self._idle):
            if not (fresh and berth.used):
                self._idle.remove(berth)
                return berth
        return None

    def _take_recycling(self) -> _Berth | None:
        """Lend an interpreter that is being scrubbed: the job waits in its slot's ring for a millisecond or so.

        Whoever has just been given a result finds its isolate about to end: that is worth waiting for, too.
        """
        deadline = monotonic() + _LAST_WORDS
        for berth in self._berths:
            while self._is_leaving(berth):
                if monotonic() > deadline:
                    break
                sleep(0)
            if self._is_recycling(berth) and not berth.disposable:
                return berth
        return None

    def _is_leaving(self, berth: _Berth) -> bool:
        """Return whether its isolate has done its work, and may have given its result, but has not ended yet."""
        words, home = self._arena.words, Arena.home(berth.slot)
        return berth.state == BUSY and words[home + LEAVING] == words[home + ISOLATE] == berth.number

    def _is_recycling(self, berth: _Berth) -> bool:
        words, home = self._arena.words, Arena.home(berth.slot)
        return berth.state == BUSY and words[home + ISOLATE] != berth.number and not self._is_given_up(berth)

    def _is_given_up(self, berth: _Berth) -> bool:
        """Return whether the isolate was abandoned: noted in shared memory before this thread is told."""
        given_up = self._arena.words[Arena.home(berth.slot) + GIVEN_UP] == berth.number
        return berth.state == ABANDONED or (berth.state == BUSY and given_up)

    def _vacate(self) -> _Berth:
        """Return a slot without an interpreter."""
        if self._vacant:
            return self._vacant.pop()
        if len(self._berths) + 1 < REGISTRY:
            slot = len(self._berths) + 1
            self._berths.append(_Berth(slot, *self._furnish(slot)))
            return self._berths[-1]
        raise RuntimeError("there is no slot left for an interpreter")

    def _boot(self, berth: _Berth) -> _Berth:
        """Make an interpreter in a vacant slot."""
        berth.state, berth.ready, berth.used, berth.disposable = BOOTING, False, False, False
        try:
            berth.thread = threading.Thread(target=self._live, args=(berth,), name=f"subiso-{berth.slot}", daemon=True)
            start_thread(berth.thread)
        except BaseException:
            berth.state, berth.thread = GONE, None
            if berth not in self._vacant:
                self._vacant.append(berth)
            raise
        return berth

    def _live(self, berth: _Berth) -> None:
        """The whole life of one interpreter, on one thread."""
        with self._lock:
            if berth.thread is not threading.current_thread():  # Ctrl-C came while it was started: `_boot` has given up
                return
        interpreter, died = None, False
        try:
            interpreter = interpreters.create()
            interpreter.exec(
                _BOOT.format(
                    path=[entry for entry in sys.path if isinstance(entry, str)],
                    prefix=boot_prefix,
                    slot=berth.slot,
                    descriptor=self._arena.descriptor,
                    control=berth.control,
                    doorbell=berth.doorbell,
                )
            )
        except BaseException as error:
            if berth.ready:  # its kernel has died; its threads may be there still, so it cannot be closed
                interpreter, died = None, True
                self._mourn(berth)
                sys.excepthook(*sys.exc_info())
            else:
                self._refuse(berth, f"the interpreter could not be started: {error}")
        finally:
            try:
                if interpreter is not None:
                    interpreter.close()
            finally:
                insist(self._closed, berth, died)

    def _closed(self, berth: _Berth, died: bool = False) -> None:
        """Note that an interpreter is not there any more; or that it has died and still takes its slot."""
        with self._lock:
            if berth in self._idle:
                self._idle.remove(berth)
            if died:
                berth.state = ABANDONED
            elif berth.promised and not self.closing:  # an isolate waits for an interpreter in this slot
                berth.promised = False
                try:
                    self._boot(berth)
                    berth.state = BUSY
                except Exception as error:
                    if berth in self._vacant:
                        self._vacant.remove(berth)
                    berth.state = BUSY
                    self._refuse_later(berth, f"the interpreter could not be started: {error}")
            else:
                berth.state = GONE
                self._vacant.append(berth)
            self._changed.notify_all()

    def _refuse_later(self, berth: _Berth, reason: str) -> None:  # holds the lock
        def refuse() -> None:
            try:
                self._refuse(berth, reason)
            finally:
                insist(self._closed, berth)

        self._pending.append(refuse)
        self.node.tell(nodes.MAIN, nodes.PENDING, 0)  # there may be no thread to be had for it

    def _refuse(self, berth: _Berth, reason: str) -> None:
        """Answer in place of an interpreter that could not be made: the job waits in the slot's ring."""
        with self._lock:
            if berth.state != BUSY or self._is_recycling(berth):
                return
        try:
            mailbox = Mailbox(self._arena, berth.slot, berth.doorbell)
            jobs = mailbox.open_fixed(nodes.JOBS)
            try:
                mailbox.wait([jobs], lambda: jobs.messages, timeout=10)
                if jobs.messages:
                    module, data = _pickle.loads(parcels.unpack(*jobs.messages.popleft())[1])
                    __import__(module)
                    sys.modules[module].refuse(data, reason)
            finally:
                insist(mailbox.park)
        finally:
            self._mourn(berth)

    def _mourn(self, berth: _Berth) -> None:
        """Say that the isolate in this slot has ended, in place of its interpreter."""
        with self._lock:
            berth.state = RETIRING  # not to be lent as one that is being scrubbed
        self._bury(berth.slot)

    def _bury(self, slot: int) -> None:
        """Say the last words of what lived in this slot, as far as nobody has, and announce its end."""
        words, home = self._arena.words, Arena.home(slot)
        if words[home + ISOLATE]:
            self.node.mailbox.close_ports_of(slot)
            insist(execute_will, self.node, slot)
            words[home + ISOLATE] = 0
        insist(self.node.mailbox.announce_end, slot)

    # -- the broker's thread -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        name_thread("subiso-broker")
        poller = select.poll()
        poller.register(self._control.descriptor, select.POLLIN)
        while True:
            messages: list[tuple[Any, ...]] = []
            try:
                if poller.poll(max(self._doomed[0][0] - monotonic(), 0) * 1000 + 1 if self._doomed else None):
                    messages = self._control.read()
            except Exception as error:
                report(error)
            for operation, number, *facts in messages:
                self._insist(self._handle, operation, number, facts)
            self._insist(self._abandon_silent)

    def _insist(self, function: "Callable[..., object]", *args: object) -> None:
        """Do what others wait for; what fails at the end of the program is not worth a word."""
        try:
            (function if self.closing else functools.partial(insist, function))(*args)
        except Exception:
            if not self.closing:
                sys.excepthook(*sys.exc_info())

    def _abandon_silent(self) -> None:
        """Give up the isolates that were killed, and whose GIL is held by a call into C, so that they cannot answer."""
        while self._doomed and self._doomed[0][0] < monotonic():
            _, number, slot = heapq.heappop(self._doomed)
            berth = self._berths[slot - 1]
            if berth.state == BUSY and self._arena.words[Arena.home(slot) + ISOLATE] == number:
                if not berth.ready:
                    heapq.heappush(self._doomed, (monotonic() + _SILENCE, number, slot))
                    continue
                self.node.mailbox.close_ports_of(slot)
                execute_will(self.node, slot)
                words, home = self._arena.words, Arena.home(slot)
                words[home + GIVEN_UP] = number
                try:
                    self._abandoned(number, slot)  # before anybody sees the end, which the program's may follow
                finally:
                    words[home + ISOLATE] = 0
                    self.node.mailbox.announce_end(slot)

    def _abandoned(self, number: int, slot: int) -> None:
        berth = self._berths[slot - 1]
        with self._lock:
            if berth.number != number or berth.state != BUSY:
                return
            berth.state = ABANDONED
            self._changed.notify_all()
        if not self.closing:
            why = "a call into C does not return"
            exits.warn(f"isolate {berth.name!r} could not be stopped, for {why}; it has been abandoned")

    def _handle(self, operation: str, number: int, facts: "list[Any]") -> None:
        if operation == nodes.READY:
            berth = self._berths[number - 1]
            with self._lock:
                berth.ready = True
                self._became_idle(berth, recyclable=True)
        elif operation == nodes.IDLE:
            berth = self._berths[number - 1]
            ended, recyclable = facts
            words, home = self._arena.words, Arena.home(berth.slot)
            if not recyclable and words[home + ISOLATE] == ended:  # it has failed to say its last words
                self._bury(berth.slot)
            elif not recyclable:  # or perhaps to announce its end
                insist(self.node.mailbox.announce_end, berth.slot)
            self.node.mailbox.rest(berth.slot)
            with self._lock:
                if berth.number == ended:
                    berth.state = BOOTING
                elif not recyclable:  # lent again meanwhile: its next interpreter finds the job
                    berth.promised = True
                    self.node.tell(berth.slot, nodes.RETIRE, 0)
                self._became_idle(berth, recyclable and not berth.disposable)
        elif operation == nodes.LEASE:
            self._lease_for(*facts)
        elif operation == nodes.DOOMED:
            heapq.heappush(self._doomed, (monotonic() + _SILENCE, number, *facts))
        elif operation == nodes.ABANDONED:
            self._abandoned(number, *facts)
        elif operation == nodes.PENDING:
            while self._pending:
                self._pending.pop()()
        elif operation == nodes.ASK:
            asking.answer(self.node, number, *facts)
        elif operation == nodes.OUTPUT:
            exits.forward_output(*facts)
            if not facts[1]:
                self.node.mailbox.send(address_of(number, 0, nodes.WRITTEN), protocol.NONE, b"")
        elif number == self.node.number:
            self._own.handle(operation, facts)

    def _became_idle(self, berth: _Berth, recyclable: bool) -> None:  # holds the lock
        if berth.state == BOOTING:
            if (
                recyclable
                and not (self.closing or self._retiring)
                and len(self._idle) < max(Limits.idle, Limits.spares)
            ):
                self._idle.append(berth)
                berth.state = IDLE
            else:
                berth.state = RETIRING
                self.node.tell(berth.slot, nodes.RETIRE, 0)
        self._changed.notify_all()
        warm = sum(  # also who is about to be: whoever was given its result may have taken the next one at once
            one.state in (IDLE, BOOTING) or self._is_leaving(one) or self._is_recycling(one) for one in self._berths
        )
        if warm < Limits.spares and not (self.closing or self._retiring):
            try:
                self._boot(self._vacate())
            except Exception:  # no thread, descriptor or memory: there will be no spare
                pass

    def _lease_for(self, address: int, name: str | None, fresh: bool) -> None:
        answer: tuple[int, int] | str
        try:
            answer = self.lease(name, fresh)
        except Exception as error:
            answer = str(error)
        try:
            self.node.mailbox.send(address, protocol.PICKLE, _pickle.dumps(answer))
        except Exception:
            if isinstance(answer, tuple):
                self.node.withdraw(*answer)
            raise

    # -- the end -------------------------------------------------------------------------------------------------------

    def living(self) -> list[str]:
        """Name the isolates that have not ended."""
        return self._names(
            [
                one
                for one in self._berths
                if one.state == BUSY and self._arena.words[Arena.home(one.slot) + ISOLATE] == one.number
            ]
        )

    def abandoned(self) -> list[str]:
        """Name the isolates that were given up, but are still there."""
        return self._names([one for one in self._berths if self._is_given_up(one)])

    def threads(self) -> list[tuple[str, str, int]]:
        """Return each isolate's name, how it stands, and the number of its thread, or 0 while there is none."""
        found = []
        for one in sorted(self._berths, key=lambda berth: berth.number):
            words, home = self._arena.words, Arena.home(one.slot)
            given_up = self._is_given_up(one)
            if given_up or (one.state == BUSY and words[home + ISOLATE] == one.number):
                state = "abandoned" if given_up else "alive" if one.ready else "starting"
                found.append((one.name, state, words[home + THREAD] if one.ready else 0))
        return found

    @staticmethod
    def _names(berths: list[_Berth]) -> list[str]:
        return [berth.name for berth in sorted(berths, key=lambda berth: berth.number)]

    def retire_idle(self, timeout: float) -> bool:
        """Close every interpreter in which no isolate lives; return whether that was done in ``timeout`` seconds."""
        deadline = monotonic() + timeout
        with self._lock:
            self._retiring += 1
            try:
                while (waited_for := self._retire()) and (remaining := deadline - monotonic()) > 0:
                    self._changed.wait(remaining)
            finally:
                self._retiring -= 1
        for berth in self._berths:
            if berth.state == GONE and berth.thread is not None:
                berth.thread.join(max(deadline - monotonic(), 0.1))
        return not waited_for

    def _retire(self) -> list[_Berth]:
        """Tell the idle interpreters to end; return those in which no isolate lives, but which are still there."""
        for berth in self._idle:
            berth.state = RETIRING
            self.node.tell(berth.slot, nodes.RETIRE, 0)
        self._idle.clear()
        return [berth for berth in self._berths if berth.state in (BOOTING, RETIRING) or self._is_recycling(berth)]

    def close(self) -> None:
        """End everything, in bounded time; say which isolates were still running. For the end of the program."""
        with self._lock:
            self.closing = True
        running = self.await_ends(exits.GRACE)
        with self._lock:
            for berth in self._berths:
                if berth.name in running and berth.state == BUSY:
                    self.node.kill(berth.slot, berth.number, self._arena.capabilities(berth.slot)[1])
        before = self.abandoned()
        stuck = self.await_ends(exits.PATIENCE) + self.abandoned()
        exits.say_who_was_running(before + [name for name in running if name not in before], stuck)
        everything_closed = not stuck and self.retire_idle(exits.PATIENCE)
        try:
            self._settle(exits.PATIENCE)
        finally:
            exits.finish(everything_closed)

    def _settle(self, timeout: float) -> None:
        """Wait ``timeout`` seconds for what main's attendant and broker have begun, callbacks and handlers of the log.

        Finalization stops their threads wherever they are, and aborts if one of them was writing on a stream.
        """
        deadline = monotonic() + timeout
        attendant, of_attendant, of_broker = self.node.locals.get("attendant"), threading.Event(), threading.Event()
        if attendant is not None:
            attendant.call_at(monotonic(), of_attendant.set)
            of_attendant.wait(timeout)
        self._pending.append(of_broker.set)
        self.node.tell(nodes.MAIN, nodes.PENDING, 0)
        of_broker.wait(max(deadline - monotonic(), 0))

    def await_ends(self, timeout: float) -> list[str]:
        """Wait ``timeout`` seconds for all isolates to end; return the names of those that have not."""
        deadline = monotonic() + timeout
        with self._lock:
            while (living := self.living()) and (remaining := deadline - monotonic()) > 0:
                self._changed.wait(min(remaining, 0.005))
            return living


_nursery: Nursery | None = None


def found() -> Node:
    """Make the nursery, and main a node. Called once, at the first use of subiso in main."""
    global _nursery
    _nursery = Nursery()
    waking.prepare()
    closing = exits.Undisturbed(_nursery.close)
    for _ in range(2):  # Ctrl-C may tear one of them at its very beginning
        atexit.register(closing.run)
    forks.install(_close_idle, _living, _forget)
    return _nursery.node


def lease(name: str | None, fresh: bool) -> tuple[int, int]:
    """Lend an interpreter to an isolate that main starts."""
    nodes.current()
    assert _nursery is not None
    return _nursery.lease(name, fresh)


def threads() -> list[tuple[str, str, int]]:
    """Return each isolate's name, how it stands, and the number of its thread. For main."""
    return [] if _nursery is None else _nursery.threads()


def _close_idle() -> bool:
    return _nursery is None or _nursery.retire_idle(timeout=10)


def _living() -> list[str]:
    """Name the isolates that do not end by themselves: a result comes a moment before its isolate's end."""
    return [] if _nursery is None else _nursery.await_ends(_LAST_MOMENT) + _nursery.abandoned()


def _forget() -> None:
    """In a forked child, which has none of the threads: the shared memory is the parent's."""
    global _nursery
    if _nursery is not None:
        _nursery.node.mailbox.disown()
    _nursery = None
    nodes.install(None)
