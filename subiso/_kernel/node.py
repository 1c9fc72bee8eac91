"""This interpreter's place among the others: its slot, its mailbox, and the way to reach main and the other slots.

Main becomes a node at its first use of subiso; an isolate is one from birth.
"""

import _pickle
import os
from _thread import LockType, allocate_lock

from subiso._kernel.arena import CONTROL, ISOLATE, Arena, address_of
from subiso._kernel.mailbox import Mailbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAIN = 0  # main's slot
JOBS, LEASES, WRITTEN = 1, 3, 4  # ports at fixed places in every slot (2: mailbox.REPLIES)

# Control messages: an operation, the number of the isolate that is meant, and what belongs to it.
KILL, RETIRE, ENDED = "kill", "retire", "ended"  # to an isolate's slot; ENDED comes from its own body
READY, IDLE, LEASE, OUTPUT = "ready", "idle", "lease", "output"  # to main

PIPE_ATOMIC = 4096  # bytes that one write to a pipe keeps together


class Node:
    """The interpreter that runs this code.

    Attributes:
        number: of the isolate that lives here now; main's is 1.
        name: of that isolate.
        killed: whether that isolate is being killed.
    """

    def __init__(self, shared: Arena, slot: int, doorbell: int) -> None:
        self.arena: Arena = shared
        self.slot: int = slot
        self.mailbox: Mailbox = Mailbox(shared, slot, doorbell)
        self.name: str = "main" if slot == MAIN else ""
        self.pid: int = os.getpid()
        self.killed: bool = False
        self.ended: bool = False
        self.lock: LockType = allocate_lock()  # for what is in ``locals`` and ``wakers``
        self.wakers: list[Callable[[], None]] = []  # called, under the lock, when the isolate is killed
        self.locals: dict[str, Any] = {}  # what the layers above keep for this isolate; new for each

    @property
    def number(self) -> int:
        return self.arena.words[Arena.home(self.slot) + ISOLATE]

    def give_up(self) -> None:
        """Make every wait of this isolate end, as when it is killed."""
        self.killed = True
        self.mailbox.stop_waits()
        with self.lock:
            for wake in self.wakers:
                wake()

    def tell(self, slot: int, operation: str, number: int, *facts: object) -> None:
        """Send a control message to the kernel's thread in ``slot``; they are handled in the order of sending."""
        message = _pickle.dumps((operation, number, *facts))
        if len(message) + 4 > PIPE_ATOMIC:
            raise ValueError("a control message must fit one write")
        descriptor = self.arena.words[Arena.home(slot) + CONTROL]
        os.write(descriptor, len(message).to_bytes(4, "little") + message)

    def fixed(self, index: int) -> int:
        """Return the address of one of this slot's ports at fixed places."""
        return address_of(self.slot, 0, index)


def jobs_of(slot: int) -> int:
    """Return the address where the slot's next isolate awaits its job."""
    return address_of(slot, 0, JOBS)


class ControlPipe:
    """The reading end of a slot's control messages."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def read(self) -> "list[tuple[Any, ...]]":
        """Block until there are control messages, and return them in order."""
        data = self._rest + os.read(self.descriptor, 65536)
        messages = []
        while len(data) >= 4 and len(data) >= 4 + (length := int.from_bytes(data[:4], "little")):
            messages.append(_pickle.loads(data[4 : 4 + length]))
            data = data[4 + length :]
        self._rest = data
        return messages


_node: Node | None = None
_lock = allocate_lock()


def current() -> Node:
    """Return this interpreter's node."""
    if _node is not None:
        return _node
    with _lock:
        if _node is None:
            from subiso._kernel import nursery

            install(nursery.found())
    assert _node is not None
    return _node


def peek() -> Node | None:
    """Return this interpreter's node if it has one already."""
    return _node


def install(node: Node | None) -> None:
    """Make ``node`` this interpreter's (None: forget it, in a forked child)."""
    global _node
    _node = node
