"""One interpreter's post: the ports that are open here, what is sent, what arrives, and which isolates have ended.

The order of messages
    What was sent before something else was sent, or could be known to have been, arrives before it, whoever sent it:
    records carry the time of sending. A reader notes the time, then looks which rings are dirty, and takes from them,
    in the order of sending, what is not newer than that. Whatever precedes one of these records was published before
    its time, so its flag was up when the reader looked.

Races, and what closes them
    Two threads of the receiver: one may have cleared a flag, and not yet read that ring, when the other looks; what the
    other finds may come after what is there. Whoever has the lock and is not alone in this reads all rings.
    The receiver clears a sender's dirty flag before it reads that sender's ring, with a fence in between: what is
    published later sets the flag again.
    An isolate that ends takes its name off its home, then looks who watches; a watcher puts its flag up, then looks
    whether the name is still there.
"""

from _heapq import heapify, heappop, heappush
from _struct import Struct
from collections import deque
from time import monotonic_ns as now

from subiso._kernel import doorbell, links, locks, parcels, protocol, semaphore
from subiso._kernel.arena import (
    DOORBELL,
    ISOLATE,
    NOBODY,
    PORTS,
    SERIAL,
    SLEEPING,
    SLOTS,
    Arena,
    DamagedError,
    address_of,
    slot_of,
)
from subiso._kernel.links import Reader, Writer
from subiso._kernel.waitables import Inbox, Waitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FIRST_INDEX = 16  # of a port that is opened; those below are at fixed places
_GRANT = Struct("3Q")  # slot, isolate's number, whether it holds the port
REPLIES = 2  # the index in the addresses of inboxes for one reply


class Post:
    """The post of the interpreter that lives in ``slot``."""

    def __init__(self, shared: Arena, slot: int, doorbell_reader: int) -> None:
        self.arena = shared
        self.slot = slot
        self.doorbell = doorbell_reader
        self.inboxes: dict[int, Inbox] = {}
        self._writers: dict[int, Writer] = {}
        self._readers: dict[int, Reader] = {}
        self._find = shared.memory.find
        self._watches: dict[int, list[tuple[int, Waitable]]] = {}  # by slot: isolate's number, whom to tell
        self._free: list[int] = []  # indices of ports that were closed
        self._forgotten: deque[Inbox] = deque()  # of ports that are closed to senders, and to be closed
        self._next_index = FIRST_INDEX
        self._replies = 0
        self._events: deque[Waitable] = deque()  # whom nobody has told yet what has arrived
        self._lock = locks.Lock()  # reading rings and routing; the tables above
        self._memory, self._words = shared.memory, shared.words
        self._dirty = Arena.dirty(slot)
        self._dirty_end = self._dirty + SLOTS
        self._parked = False
        self._pumping = 0  # how many threads have cleared flags of rings that they are about to read
        self.pumped = 0  # how many times one of them was done
        self._unrouted: list[links.Record] = []  # read, and not yet handled: an error may come in between

    # -- ports ---------------------------------------------------------------------------------------------------------

    def open(self) -> Inbox:
        """Open a port and return its inbox. What events are to call is set on that, when all that it needs is there.

        Raises:
            OSError: there are 16,000 and more open ports in this isolate.
        """
        words = self.arena.words
        self._close_forgotten()
        with self._lock:
            if not self._free and self._next_index == PORTS:
                raise OSError(f"too many open ports in one isolate: {PORTS - FIRST_INDEX}")
            index = self._free.pop() if self._free else self._next_index
            self._next_index = max(self._next_index, index + 1)
            home = Arena.home(self.slot)
            words[home + SERIAL] = serial = words[home + SERIAL] + 1
            address = address_of(self.slot, serial, index)
            inbox = self.inboxes[address] = Inbox(address)
            words[Arena.port(address)] = address
        return inbox

    def open_fixed(self, index: int) -> Inbox:
        """Open one of the ports that are at the same address for ever, ``index`` below `FIRST_INDEX`."""
        address = address_of(self.slot, 0, index)
        inbox = self.inboxes[address] = Inbox(address)
        self.arena.words[Arena.port(address)] = address
        return inbox

    def open_reply(self) -> Inbox:
        """Open an inbox for one reply; nobody asks whether it is open, and what comes too late is dropped."""
        with self._lock:
            self._replies += 1
            address = address_of(self.slot, self._replies, REPLIES)
            inbox = self.inboxes[address] = Inbox(address)
        return inbox

    def close(self, inbox: Inbox) -> None:
        """Close a port; what is queued in it, and what still arrives, is dropped."""
        with self._lock:
            inbox.closed = True
            if self.inboxes.pop(inbox.address, None) is None:
                return
            index = inbox.address & PORTS - 1
            if index >= FIRST_INDEX:
                self.arena.words[Arena.port(inbox.address)] = 0
                if inbox.semaphore:  # before another port can be opened in this place
                    semaphore.close(inbox.semaphore)
                self._free.append(index)
            for slot, number in inbox.holders:
                self._unwatch(slot, number, inbox)
            while inbox.messages:
                parcels.discard(*inbox.messages.popleft())
        inbox.notify()

    def forget(self, inbox: Inbox) -> None:
        """Close a port for its finalizer, which may run in the middle of anything, even of what holds the lock."""
        if inbox.closed:
            return
        self.arena.words[Arena.port(inbox.address)] = 0
        self._forgotten.append(inbox)
        if not self._lock.locked():
            self._close_forgotten()

    def _close_forgotten(self) -> None:
        while self._forgotten:
            try:
                inbox = self._forgotten.popleft()
            except IndexError:  # another thread was quicker
                return
            self.close(inbox)

    # -- sending -------------------------------------------------------------------------------------------------------

    def is_open(self, address: int) -> bool:
        """Return whether the port at ``address``, anywhere in the process, is open."""
        return self.arena.words[Arena.port(address)] == address

    def send(self, address: int, kind: int, payload: bytes) -> None:
        """Send one record to the port at ``address``; if that is closed, the record is dropped."""
        self.writer(slot_of(address)).write(kind, address, payload)

    def send_message(self, address: int, kind: int, body: bytes, buffers: "Sequence[Any]") -> None:
        """Send a message; a big one, or one with buffers, in memory of its own.

        Raises:
            OSError, MemoryError: there is no memory or descriptor for it.
            BufferError: a region among the buffers cannot be handed over.
        """
        if not buffers and len(body) < parcels.LARGE:
            self.send(address, kind, body)
            return
        payload = parcels.pack(kind, body, buffers)
        try:
            self.send(address, protocol.LARGE, payload)
        except Exception:  # after a Ctrl-C the receiver may have it
            parcels.take_back(payload, buffers)
            raise

    def writer(self, receiver: int) -> Writer:
        """Return the stream to a slot."""
        with self._lock:
            if receiver not in self._writers:
                self._writers[receiver] = Writer(self.arena, self.slot, receiver)
            return self._writers[receiver]

    # -- receiving -----------------------------------------------------------------------------------------------------

    def rest(self, *slots: int) -> None:
        """Let streams take no memory for long, those to some slots or all: nothing will be sent for some time."""
        with self._lock:
            writers = [writer for slot, writer in self._writers.items() if slot in slots or not slots]
        for writer in writers:
            writer.rest()

    def pump(self) -> bool:
        """Move what has arrived into the inboxes; return whether anything has.

        Another thread may be in the middle of that; `settle` waits for it.
        """
        if self._events:
            self._notify()
        if self._forgotten:
            self._close_forgotten()
        pumped, until = self.pumped, now()
        flag = self._find(b"\1", self._dirty, self._dirty_end)
        if flag < 0:
            return False
        self.pump_from(flag, until, pumped)
        return True

    def pump_from(self, flag: int, until: int, pumped: int) -> None:
        """Go on with `pump`, where the first flag that is up was found by a look.

        Args:
            flag: where it is.
            until: when the look was begun.
            pumped: what `pumped` was before that.
        """
        events = self._events
        if self._find(b"\1", flag + 1, self._dirty_end) >= 0:
            self._merge([], until, pumped)
            return
        # As `_merge`, for the one sender that nearly always is the only one.
        sender, memory = flag - self._dirty, self._memory
        reader = self._readers.get(sender) or self._reader(sender)
        self._pumping += 1
        try:
            memory[flag] = 0
            with self._lock:  # which is a fence: what is published from now on sets the flag again
                if self._parked:
                    memory[flag] = 1
                    return
                is_alone = self._pumping == 1 and self.pumped == pumped
                if is_alone:
                    others = reader.read(self.inboxes, events, until)
                    if others:
                        self._unrouted += others
                        self._route(events)
                    if sender in self._watches:
                        alive = self._words[reader.isolate]
                        for number, _ in self._watches[sender]:
                            if number != alive:
                                self._take_ended(sender, events)
                                break
                    if reader.is_behind:
                        memory[flag] = 1
            if not is_alone:
                self._merge([flag], until, pumped)
        except BaseException:
            memory[flag] = 1  # Ctrl-C: the rest is for the next one
            raise
        finally:
            self.pumped += 1
            self._pumping -= 1
            if events:
                self._notify()

    def settle(self) -> None:
        """Move everything that was sent before this call into the inboxes, whoever has begun with it."""
        self._merge([], now(), -1)

    def _notify(self) -> None:
        """Tell whom it concerns what has arrived. What is told may wait in its turn, and then tells the rest itself."""
        try:
            while self._events:
                try:
                    waitable = self._events.popleft()
                except IndexError:  # another thread was quicker
                    return
                try:
                    waitable.notify()
                except Exception:  # no memory: what has happened is not forgotten
                    self._events.append(waitable)
                    raise
        except Exception:
            raise
        except BaseException:  # Ctrl-C, and who was being told is not known any more: the next one tells everybody
            watching = [waitable for entries in [*self._watches.values()] for _, waitable in [*entries]]
            self._events += [*self.inboxes.values(), *watching]
            raise

    def _merge(self, flags: list[int], until: int, pumped: int) -> None:
        """Read the rings of these and of all dirty senders in the order of sending, up to a time that has passed.

        If another thread has pumped since `pumped` was looked at, or is about to, all rings are read.
        """
        memory, dirty = self.arena.memory, self._dirty
        self._add_dirty(flags)
        events = self._events
        self._pumping += 1
        try:
            readers = [self._readers.get(flag - dirty) or self._reader(flag - dirty) for flag in flags]
            for flag in flags:
                memory[flag] = 0
            with self._lock:
                if self._parked:
                    for flag in flags:
                        memory[flag] = 1
                    return
                if self._pumping > 1 or self.pumped != pumped:
                    until = now()
                    self._add_dirty(flags)
                    known = {*flags}
                    flags += [dirty + sender for sender in [*self._readers] if dirty + sender not in known]
                    readers = [self._readers.get(flag - dirty) or self._reader(flag - dirty) for flag in flags]
                ahead = [(sent, place) for place, reader in enumerate(readers) if (sent := reader.next()) is not None]
                heapify(ahead)
                while ahead and ahead[0][0] <= until:
                    _, place = heappop(ahead)
                    reader = readers[place]
                    others = reader.read(self.inboxes, events, min(until, ahead[0][0]) if ahead else until)
                    if others:
                        self._unrouted += others
                        self._route(events)
                    if (sent := reader.next()) is not None:
                        heappush(ahead, (sent, place))
                for _, place in ahead:
                    memory[flags[place]] = 1
                for flag in flags:
                    if flag - dirty in self._watches:
                        self._take_ended(flag - dirty, events)
        except BaseException:
            for flag in flags:
                memory[flag] = 1
            raise
        finally:
            self.pumped += 1
            self._pumping -= 1
            if events:
                self._notify()

    def _add_dirty(self, flags: list[int]) -> None:
        """Add the flags that are up, but for those that are there already."""
        find, end = self._find, self._dirty_end
        found = find(b"\1", self._dirty, end)
        while found >= 0:
            if found not in flags:
                flags += (found,)
            found = find(b"\1", found + 1, end)

    def _reader(self, sender: int) -> Reader:
        return self._readers.setdefault(sender, Reader(self.arena, sender, self.slot))

    def _route(self, events: "deque[Waitable]") -> None:
        """Handle the records that are no messages, or came too late."""
        while records := self._unrouted:
            kind, address, payload = records[0]
            inbox = self.inboxes.get(address)
            if kind == protocol.GRANT and inbox is not None:
                slot, number, holds = _GRANT.unpack(payload) if len(payload) == _GRANT.size else (SLOTS, 0, 0)
                if slot >= SLOTS:
                    raise DamagedError("a note of who holds a port is damaged")
                self._hold(inbox, slot, number, holds)
                events.append(inbox)
            else:
                parcels.discard(kind, payload)
            del records[0]

    # -- the ends of isolates ------------------------------------------------------------------------------------------

    def is_alive(self, slot: int, number: int) -> bool:
        """Return whether that isolate has not ended."""
        return self.arena.words[Arena.home(slot) + ISOLATE] == number

    def number_in(self, slot: int) -> int:
        """Return the number of the isolate that lives in ``slot``, or 0."""
        return self.arena.words[Arena.home(slot) + ISOLATE]

    def watch(self, slot: int, number: int, waitable: Waitable) -> None:
        """Notify ``waitable`` when that isolate ends; check `is_alive` after this call, and then wait."""
        with self._lock:
            self._watch(slot, number, waitable)

    def _watch(self, slot: int, number: int, waitable: Waitable) -> None:
        self._watches.setdefault(slot, []).append((number, waitable))
        self.arena.memory[Arena.watchers(slot) + self.slot] = 1
        self.arena.fence()

    def unwatch(self, slot: int, number: int, waitable: Waitable) -> None:
        """Take back one `watch`, if it is still there."""
        with self._lock:
            self._unwatch(slot, number, waitable)

    def _unwatch(self, slot: int, number: int, waitable: Waitable) -> None:
        watches = self._watches.get(slot, [])
        if (number, waitable) in watches:
            watches.remove((number, waitable))
            self._forget_slot(slot)

    def _forget_slot(self, slot: int) -> None:
        if not self._watches[slot]:
            del self._watches[slot]
            self.arena.memory[Arena.watchers(slot) + self.slot] = 0

    def _take_ended(self, slot: int, events: "deque[Waitable]") -> None:
        """Take out the watches of isolates in ``slot`` that have ended."""
        alive = self.arena.words[Arena.home(slot) + ISOLATE]
        ended = [waitable for number, waitable in self._watches[slot] if number != alive]
        if ended:
            events += ended  # first: Ctrl-C may come at each of these, and to be told twice does no harm
            self._watches[slot] = [entry for entry in self._watches[slot] if entry[0] == alive]
            self._forget_slot(slot)

    def grant(self, address: int, slot: int, number: int, holds: bool = True) -> None:
        """Note, wherever the port at ``address`` lives, that an isolate is given its send port, or holds it no more.

        Call this before the send port itself is sent.
        """
        owner = slot_of(address)
        if owner == slot:
            return
        if owner != self.slot:
            self.send(address, protocol.GRANT, _GRANT.pack(slot, number, holds))
            return
        with self._lock:
            if (inbox := self.inboxes.get(address)) is not None:
                self._hold(inbox, slot, number, holds)
        if inbox is not None and not holds:
            inbox.notify()

    def _hold(self, inbox: Inbox, slot: int, number: int, holds: int) -> None:
        if not holds:
            inbox.holders = inbox.holders - {(slot, number)} | {NOBODY}  # it stays known that it was given away
            self._unwatch(slot, number, inbox)
        elif (slot, number) not in inbox.holders:
            # Those that have ended are forgotten; the set is replaced, for somebody may be walking through it.
            words = self.arena.words
            living = [(one, its) for one, its in inbox.holders if words[Arena.home(one) + ISOLATE] == its]
            inbox.holders = {*living, (slot, number)}
            self._watch(slot, number, inbox)

    def has_senders(self, inbox: Inbox) -> bool:
        """Return whether an isolate that was given the send port lives, or none was ever given it."""
        holders = inbox.holders
        if not holders:
            return True
        words = self.arena.words
        # A plain loop: dropping a generator half-way runs code in its deallocation, where a Ctrl-C would be lost.
        for slot, number in tuple(holders):  # noqa: SIM110
            if words[Arena.home(slot) + ISOLATE] == number:
                return True
        return False

    def announce_end(self, slot: int) -> None:
        """Tell everybody who watches ``slot`` that its isolate has ended. Its name must be off its home already."""
        self.arena.fence()
        memory, start = self.arena.memory, Arena.watchers(slot)
        place = memory.find(b"\1", start, start + SLOTS)
        while place >= 0:
            self.poke(place - start, slot)
            place = memory.find(b"\1", place + 1, start + SLOTS)

    def poke(self, receiver: int, sender: int) -> None:
        """Make ``receiver`` look at what came from ``sender``."""
        self.arena.memory[Arena.dirty(receiver) + sender] = 1
        self.arena.fence()
        words, home = self.arena.words, Arena.home(receiver)
        if words[home + SLEEPING]:
            doorbell.ring(words[home + DOORBELL])

    # -- the end -------------------------------------------------------------------------------------------------------

    def disown(self) -> None:
        """Be of no use any more: this is the child of a fork, and everything here is the parent's."""
        for inbox in self.inboxes.values():
            inbox.closed = True
        self.inboxes.clear()

    def close_ports(self) -> None:
        """Close every port that an isolate has opened."""
        for address, inbox in list(self.inboxes.items()):
            if address & PORTS - 1 >= FIRST_INDEX:
                self.close(inbox)

    def close_ports_of(self, slot: int) -> None:
        """Close the ports of an isolate that cannot do it itself, as far as senders can see."""
        words, first = self.arena.words, Arena.port(address_of(slot, 0, FIRST_INDEX))
        for place in range(first, first + (PORTS - FIRST_INDEX) * 2, 2):
            if words[place]:
                words[place] = 0
                if words[place + 1]:
                    semaphore.close(words[place + 1])

    def park(self, unread: Inbox | None = None) -> None:
        """Leave every stream, and what is still in ``unread``, to the next interpreter in this slot; read no more."""
        own = self.writer(self.slot)
        with self._lock:
            # By the time that the interpreter is closed, somebody may still wait here, or flush a stream.
            self._parked = True
            self._find = lambda *_: -1
            while unread is not None and unread.messages:
                kind, payload = unread.messages[0]
                own.write(kind, unread.address, payload)
                unread.messages.popleft()
            for streams in (self._writers, self._readers):
                while streams:
                    _, stream = streams.popitem()
                    stream.park()
