"""One-way streams of records between two slots, without a lock between the two sides.

A stream begins in the ring that the pair of slots owns. Where a record does not fit, the stream goes on in a *segment*,
a memory file as long as it must be, and comes home when the reader has caught up. If the next record is too long for
the ring, it goes back to the start of the segment instead, whose pages are there already. A position in the stream is
the number of bytes written since the pair of slots was first used; the tail is published by the writer, the head by
the reader.

Guarantees
    A record is seen whole or not at all: its bytes are written before the tail moves.
    Nothing is overwritten before it was read: the writer goes home, or back to the start of a segment, only when head
    and tail are equal, and does not pass the point that it left before the reader has followed.
    Either side can be left (`park`) and taken up again by the next interpreter in the slot.

A descriptor in a record belongs to whoever reads the record: the reader closes a segment's when the stream leaves it.

What is read is checked as far as that costs next to nothing: no record ends behind what was published, or behind the
ring or segment that it is in. A stream that was overwritten by somebody's stray pointer thus ends in a `DamagedError`,
each time it is read, and not in an endless loop or in gigabytes.
"""

import mmap
import os
from time import monotonic_ns as now

from subiso._kernel import arena, doorbell, locks, protocol
from subiso._kernel.arena import Arena, DamagedError, map_file, memory_file
from subiso._kernel.insisting import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from subiso._kernel.waitables import Inbox, Waitable

# Control words of a ring: the writer's line, then the reader's.
_TAIL, _WRITER_ORIGIN, _WRITER_SEGMENT, _WRITER_SIZE, _WRITER_ENTERED = 0, 1, 2, 3, 4
_HEAD, _READER_ORIGIN, _READER_SEGMENT, _READER_SIZE = 8, 9, 10, 11
_CONTROL = 128  # bytes

_BIAS = 1 << 62  # added to an origin where it is stored: a ring's is negative at first, and 0 says "never used"

_HEADER = 24
_RESERVE = 40  # bytes kept free at the end of a ring or segment for the record that leads out of it
_ROOM = arena.RING - _CONTROL - _RESERVE  # bytes for records in the ring
_FIRST_SEGMENT, _LAST_SEGMENT = 1 << 18, 1 << 24  # bytes; in between, more than twice what the reader lags behind
_LASTING = 1 << 22  # bytes; a longer segment is written once, so its reader gives back the pages that it has read
_PAGES = 1 << 20  # bytes: so many at once
_NEVER = float("inf")
_GIVE_BACK = getattr(mmap, "MADV_REMOVE", None)  # only Linux can

Record = tuple[int, int, bytes]  # kind, address, payload


class Segment:
    """A memory file that is mapped here."""

    __slots__ = ("descriptor", "memory", "size", "words")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.memory = map_file(descriptor, size)
        self.words = memoryview(self.memory).cast("Q")

    def unmap(self) -> None:
        self.words.release()
        self.memory.close()


def _extent(segment: Segment | None, start: int) -> tuple[int, int]:
    """Return where records lie in a segment, or in the ring whose records begin at ``start``, and how much room is."""
    return (start, _ROOM) if segment is None else (0, segment.size - _RESERVE)


class Writer:
    """The sending side of a stream; any thread of its interpreter may use it."""

    def __init__(self, shared: Arena, sender: int, receiver: int) -> None:
        self._arena = shared
        self._published, self._flags = shared.words, shared.memory
        self._start = Arena.ring(sender, receiver) + _CONTROL
        self._control = Arena.ring(sender, receiver) >> 3
        self._lock = locks.Lock()
        self._dirty = Arena.dirty(receiver) + sender
        self._sleeping = Arena.home(receiver) + arena.SLEEPING
        words, control = shared.words, self._control
        self._tail = words[control + _TAIL]  # as it is published
        self._entered = words[control + _WRITER_ENTERED]
        origin = words[control + _WRITER_ORIGIN]
        segment = None
        if descriptor := words[control + _WRITER_SEGMENT]:
            segment = Segment(descriptor - 1, words[control + _WRITER_SIZE])
        self._segment: Segment | None = segment
        self._memory, self._words = (segment or shared).memory, (segment or shared).words
        self._origin = origin - _BIAS if origin else -self._start  # the byte at stream position p lies at p - origin
        self._limit = self._tail  # ask for the reader's head before the first record

    def write(self, kind: int, address: int, payload: bytes) -> None:
        """Publish one record, and wake the reader if it sleeps.

        Never blocks; the memory that waits for a slow reader is bounded only by the system's.

        Raises:
            OSError: there is no memory or descriptor for a new segment; nothing was sent.
        """
        length = len(payload)
        size = length + 31 & -8
        published = self._published
        with self._lock:
            tail = self._tail
            if tail + size > self._limit:
                self._make_room(size)
                tail = self._tail
            start = tail - self._origin + _HEADER
            words, word = self._words, start >> 3
            words[word - 3] = length << 8 | kind
            words[word - 2] = address
            words[word - 1] = now()
            self._memory[start : start + length] = payload
            published[self._control] = self._tail = tail + size
            self._flags[self._dirty] = 1
        # Leaving the lock is a fence: the reader is seen to sleep, or it sees the flag before it does.
        if published[self._sleeping]:
            bell = published[self._sleeping - arena.SLEEPING + arena.DOORBELL]
            try:
                doorbell.ring(bell)
            except Exception as error:  # it has been sent: only the receiver does not know yet
                report(error)
                doorbell.ring(bell)

    def _make_room(self, size: int) -> None:
        tail, head = self._tail, self._published[self._control + _HEAD]
        first, room = _extent(self._segment, self._start)
        if head >= self._entered:
            self._limit = self._origin + first + room
            if tail + size <= self._limit:
                return
        is_lasting = self._segment is None or self._segment.size <= _LASTING
        fits_before = is_lasting and tail - self._origin - first >= size + _RESERVE
        if head == tail and size <= _ROOM and (self._segment is not None or fits_before):
            self._go_back(tail, None)
        elif head == tail and fits_before:
            self._go_back(tail, self._segment)
        else:
            self._open_segment(tail, size)

    def _go_back(self, tail: int, segment: Segment | None) -> None:
        """Continue at the start of the ring, or of the segment that the stream is in.

        The reader has read everything, so nothing there is still wanted.
        """
        left = self._segment
        position = tail - self._origin
        self._words[position >> 3] = protocol.HOME if segment is None else protocol.BACK
        published, control = self._published, self._control
        source = segment or self._arena
        memory, words = source.memory, source.words
        first, room = _extent(segment, self._start)
        tail += _HEADER
        origin = tail - first
        # Back from its own end: until the reader follows, the record that sends it must not be overwritten, not even by
        # one that leads out.
        limit = origin + (position - _RESERVE if left is segment else first + room)
        # Here and in _open_segment: no call stands between these stores, so no signal handler can come between them.
        self._segment, self._memory, self._words, self._origin, self._limit = segment, memory, words, origin, limit
        self._entered = tail
        published[control] = self._tail = tail
        if left is not None and left is not segment:
            left.unmap()

    def _open_segment(self, tail: int, size: int) -> None:
        lag = tail - self._published[self._control + _HEAD]
        wanted = min(1 << (2 * lag).bit_length(), _LAST_SEGMENT)
        length = max(_FIRST_SEGMENT, wanted, 1 << (2 * (size + _RESERVE)).bit_length())  # room for two
        descriptor = memory_file("subiso-segment", length)
        try:
            segment = Segment(descriptor, length)
        except BaseException:
            os.close(descriptor)
            raise
        left = self._segment
        word = tail - self._origin >> 3
        self._words[word] = 16 << 8 | protocol.JUMP
        self._words[word + 3] = descriptor
        self._words[word + 4] = length
        published, control = self._published, self._control
        memory, words = segment.memory, segment.words
        tail += _RESERVE
        self._segment, self._memory, self._words, self._origin = segment, memory, words, tail
        self._limit = tail + length - _RESERVE
        self._entered = tail
        published[control] = self._tail = tail
        if left is not None:
            left.unmap()

    def rest(self) -> None:
        """Go home if the reader has read everything: the next record may be long in coming, and a segment takes memory.

        The reader follows when it next looks; it is not woken for that.
        """
        with self._lock:
            if self._segment is not None and self._published[self._control + _HEAD] == self._tail:
                self._go_back(self._tail, None)
                self._flags[self._dirty] = 1

    def park(self) -> None:
        """Leave the stream to the next interpreter in this slot."""
        with self._lock:
            words, control = self._arena.words, self._control
            words[control + _WRITER_ORIGIN] = self._origin + _BIAS
            words[control + _WRITER_ENTERED] = self._entered
            words[control + _WRITER_SEGMENT] = 0
            if self._segment is not None:
                words[control + _WRITER_SIZE] = self._segment.size
                words[control + _WRITER_SEGMENT] = self._segment.descriptor + 1
                self._segment.unmap()


class Reader:
    """The receiving side of a stream; its mailbox calls it under a lock.

    Attributes:
        is_behind: whether the last `read` has left something that had been published before it.
        isolate: the index of the word that tells which isolate lives in the sender's slot.
    """

    def __init__(self, shared: Arena, sender: int, receiver: int) -> None:
        self.is_behind = False
        self.isolate = Arena.home(sender) + arena.ISOLATE
        self._arena = shared
        self._published = shared.words
        self._start = Arena.ring(sender, receiver) + _CONTROL
        self._control = Arena.ring(sender, receiver) >> 3
        self._tail, self._head = self._control + _TAIL, self._control + _HEAD
        words, control = shared.words, self._control
        origin = words[control + _READER_ORIGIN]
        segment = None
        if descriptor := words[control + _READER_SEGMENT]:
            segment = Segment(descriptor - 1, words[control + _READER_SIZE])
        self._segment: Segment | None = segment
        self._place = (segment or shared).memory, (segment or shared).words, origin - _BIAS if origin else -self._start
        self._end = self._start + arena.RING - _CONTROL if segment is None else segment.size  # of the place
        self._given_back = 0  # up to where pages of the segment were given back
        self._next_gift = self._next_gift_of(segment)  # the position in the stream at which more are

    def read(self, inboxes: "dict[int, Inbox]", events: "deque[Waitable]", until: int) -> "list[Record] | None":
        """Put the messages that were sent up to a time into their inboxes.

        Args:
            inboxes: by address.
            events: to which every inbox is added that somebody waits for.
            until: a time of `now`.

        Returns:
            The records, if any, that are no messages or have no inbox.
        """
        published, head_word = self._published, self._head
        tail, head = published[self._tail], published[head_word]
        others: list[Record] | None = None
        memory, words, origin = self._place
        stop = min(tail, origin + self._end)
        was_back = False
        while head != tail:
            start = head - origin + _HEADER
            word = start >> 3
            try:
                header = words[word - 3]
            except IndexError:  # behind the end of a segment
                raise self._damaged() from None
            kind, length = header & 255, header >> 8
            following = head + (length + 31 & -8)
            if following > stop:
                raise self._damaged()
            if kind <= protocol.HOME:
                if kind != protocol.JUMP and was_back:  # the writer goes back only when all has been read
                    raise self._damaged()
                was_back = was_back or kind != protocol.JUMP
                self._move(kind, words, word, following)
                head = following
                memory, words, origin = self._place
                stop = min(tail, origin + self._end)
                continue
            if words[word - 1] > until:
                break
            head = following
            address = words[word - 2]
            payload = memory[start : start + length]
            inbox = inboxes.get(address)
            if inbox is None or kind == protocol.GRANT:
                others = others or []
                others += ((kind, address, payload),)
                published[head_word] = head
                continue
            messages, message = inbox.messages, (kind, payload)
            # No call stands between these two, so that a signal handler (Ctrl-C) can neither lose a message nor double
            # it.
            messages += (message,)
            published[head_word] = head
            if inbox.waiters or inbox.on_event is not None:
                events.append(inbox)
        if head >= self._next_gift:
            self._give_back(head)
        self.is_behind = head != tail
        return others

    def next(self) -> int | None:
        """Return when the next record was sent, or None if there is none."""
        was_back = False
        while True:
            head = self._published[self._head]
            if head == self._published[self._tail]:
                return None
            _, words, origin = self._place
            word = head - origin + _HEADER >> 3
            try:
                kind, length, sent = words[word - 3] & 255, words[word - 3] >> 8, words[word - 1]
            except IndexError:
                raise self._damaged() from None
            if kind > protocol.HOME:
                return sent
            following = head + (length + 31 & -8)
            if following > self._published[self._tail] or (kind != protocol.JUMP and was_back):
                raise self._damaged()
            was_back = was_back or kind != protocol.JUMP
            self._move(kind, words, word, following)

    def _next_gift_of(self, segment: Segment | None) -> float:
        if segment is None or segment.size <= _LASTING or _GIVE_BACK is None:
            return _NEVER
        return self._place[2] + self._given_back + _PAGES

    def _give_back(self, head: int) -> None:
        """Give back the pages of a long segment that are read."""
        segment = self._segment
        assert segment is not None
        assert _GIVE_BACK is not None
        end = head - self._place[2] & -arena.PAGE
        try:
            segment.memory.madvise(_GIVE_BACK, self._given_back, end - self._given_back)
        except OSError:  # what is not given back now is when the segment goes
            pass
        self._given_back = end
        self._next_gift = self._next_gift_of(segment)

    def _damaged(self) -> DamagedError:
        return DamagedError("a stream between two isolates is damaged: something has written over shared memory")

    def _move(self, kind: int, words: memoryview, word: int, head: int) -> None:
        """Follow the writer into the segment of which two words tell, or back."""
        left, segment = self._segment, None
        if kind == protocol.JUMP:
            try:
                segment = Segment(words[word], words[word + 1])
            except (IndexError, OverflowError, TypeError, ValueError):  # no words there, or no file of that size
                raise self._damaged() from None
        elif kind == protocol.BACK and left is not None:
            segment = left
        elif kind != protocol.HOME:
            raise self._damaged()
        source = segment or self._arena
        place = source.memory, source.words, head if segment is not None else head - self._start
        published, head_word = self._published, self._head
        self._segment, self._place = segment, place
        self._end = self._start + arena.RING - _CONTROL if segment is None else segment.size
        self._given_back = 0
        self._next_gift = self._next_gift_of(segment)
        published[head_word] = head
        if left is not None and left is not segment:
            left.unmap()
            os.close(left.descriptor)

    def park(self) -> None:
        """Leave the stream to the next interpreter in this slot."""
        words, control = self._arena.words, self._control
        words[control + _READER_ORIGIN] = self._place[2] + _BIAS
        words[control + _READER_SEGMENT] = 0
        if self._segment is not None:
            words[control + _READER_SIZE] = self._segment.size
            words[control + _READER_SEGMENT] = self._segment.descriptor + 1
            self._segment.unmap()
