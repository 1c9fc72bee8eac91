"""The memory that every isolate of the process sees, and where each thing lies in it.

One memory file, mapped whole by every interpreter. Nothing is allocated in it: a slot is a place where an interpreter
can live, and the place of everything that belongs to a slot, or to a pair of slots, is computed from slot numbers.
Slots are for ever; interpreters come and go in them. The file is sparse: only the pages that were touched are real.

Guarantees
    Every word has one writer, except the dirty flags, which a sender sets and the receiver clears.
    A message that has been published does not depend on the interpreter that wrote it.

Assumptions
    A store to an aligned eight-byte word through a memoryview is one store, and stores become visible in the order
    in which they were made (x86-64). Where a store must be seen before a later load, `Arena.fence` stands between them.
"""

import mmap
import os
from _thread import allocate_lock

from subiso._kernel.interpreters import MAP_OPTIONS

SLOTS = 1040  # main, a thousand isolates, and spares
REGISTRY = SLOTS - 1  # where nobody lives: the registry of names holds send ports as an isolate in this slot would
NOBODY = REGISTRY, 0  # the slot and number of an isolate that has always ended
PORTS = 16384  # open ports per slot
RING = 8192  # bytes of the ring between two slots, its control words included

# A home, by slot: a page of words and the isolate's will, a page of flags, then two words for each port.
PAGE = 4096  # bytes
_WILL = 1024
_DIRTY = PAGE
_WATCHERS = PAGE + 2048
_PORTS = 2 * PAGE
_HOME = _PORTS + PORTS * 16
_RINGS = SLOTS * _HOME
SIZE = _RINGS + SLOTS * SLOTS * RING

# Words of a home.
ISOLATE = 0  # which isolate lives here; 0: none
LEAVING = 2  # which isolate is about to end here: it has only its last words to say
SERIAL = 1  # how many ports were ever opened here
SLEEPING = 8  # whether somebody here must be woken by the doorbell (a cache line of its own)
DOORBELL = 16  # the descriptor that wakes this slot
CONTROL = 17  # the descriptor that takes control messages
ABANDONED = 18  # which isolate was given up here
THREAD = 19  # the system's number of the thread that runs the isolate's code
FAULTS = 20  # main's: the descriptor of the faults that a test has put in (faults.py); 0: none
CAPABILITIES = 24  # of the isolate: sixteen bytes to pause it, and sixteen to terminate it

# An address names a port for ever: slot, serial number, index among the slot's ports.
_SLOT_SHIFT, _SERIAL_SHIFT = 53, 14


def address_of(slot: int, serial: int, index: int) -> int:
    """Return the address of the port that is the ``serial``-th of its slot and stands at ``index`` there."""
    return slot << _SLOT_SHIFT | serial << _SERIAL_SHIFT | index


def slot_of(address: int) -> int:
    """Return the slot where the port lives."""
    return address >> _SLOT_SHIFT


def serial_of(address: int) -> int:
    """Return the port's serial number."""
    return address >> _SERIAL_SHIFT & (1 << _SLOT_SHIFT - _SERIAL_SHIFT) - 1


class DamagedError(Exception):
    """Shared memory does not hold what was written there; something has written over it."""


class Arena:
    """One interpreter's view of the shared memory.

    Attributes:
        descriptor: the memory file.
        memory: all of it, by bytes.
        words: all of it, by eight-byte words.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.memory = map_file(descriptor, SIZE)
        self.words = memoryview(self.memory).cast("Q")
        self._fence = allocate_lock()

    @classmethod
    def create(cls) -> "Arena":
        """Make the process's shared memory."""
        return cls(memory_file("subiso", SIZE))

    def fence(self) -> None:
        """Let no load that follows be made before a store that precedes (a lock's atomic operations do that)."""
        lock = self._fence
        if lock.acquire(False):
            lock.release()
        else:  # another thread has it, or Ctrl-C came between these two calls
            allocate_lock().acquire(False)

    def close(self) -> None:
        """Unmap this view; the memory file stays for the others."""
        self.words.release()
        self.memory.close()

    WILL = PAGE - _WILL  # bytes

    @staticmethod
    def will(slot: int) -> int:
        """Return where the last words of the isolate in the slot are noted, their length first."""
        return slot * _HOME + _WILL

    def capabilities(self, slot: int) -> tuple[bytes, bytes]:
        """Return what allows to pause, and to terminate, the isolate in the slot."""
        start = slot * _HOME + CAPABILITIES * 8
        return self.memory[start : start + 16], self.memory[start + 16 : start + 32]

    def set_capabilities(self, slot: int, both: bytes) -> None:
        """Set them, for a new isolate."""
        start = slot * _HOME + CAPABILITIES * 8
        self.memory[start : start + 32] = both

    @staticmethod
    def home(slot: int) -> int:
        """Return the index of the first word of the slot's home."""
        return slot * _HOME >> 3

    @staticmethod
    def dirty(slot: int) -> int:
        """Return where the flags begin that senders set for the slot, one byte for each sending slot."""
        return slot * _HOME + _DIRTY

    @staticmethod
    def watchers(slot: int) -> int:
        """Return where the flags begin of the slots that want to know when the isolate in this one ends."""
        return slot * _HOME + _WATCHERS

    @staticmethod
    def port(address: int) -> int:
        """Return the index of the two words of a port: the address while it is open, and its semaphore's descriptor."""
        return ((address >> _SLOT_SHIFT) * _HOME + _PORTS + (address & (PORTS - 1)) * 16) >> 3

    @staticmethod
    def ring(sender: int, receiver: int) -> int:
        """Return where the ring from one slot to another begins."""
        return _RINGS + (receiver * SLOTS + sender) * RING


def map_file(descriptor: int, size: int) -> mmap.mmap:
    """Map a memory file; the mapping does not need the descriptor any more."""
    return mmap.mmap(descriptor, size, **MAP_OPTIONS)


def memory_file(name: str, size: int) -> int:
    """Return the descriptor of a new memory file of ``size`` zero bytes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:  # macOS: a file that has no name
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix=name)
        os.unlink(path)
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
