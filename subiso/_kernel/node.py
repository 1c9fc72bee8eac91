"""This interpreter's place among the others: its slot, its mailbox, and the way to reach main and the other slots.

Main becomes a node at its first use of subiso; an isolate is one from birth.
"""

import _pickle
import os
import select
from os import read, write

from subiso._kernel import locks
from subiso._kernel.arena import CONTROL, ISOLATE, PORTS, Arena, address_of
from subiso._kernel.control import IMMEDIATE, KILL, Listeners
from subiso._kernel.gate import Gate
from subiso._kernel.insisting import insist
from subiso._kernel.mailbox import Mailbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAIN = 0  # main's slot
JOBS, WRITTEN, REPORTS = 1, 4, 6  # ports at fixed places in every slot (2: post.REPLIES)
_CONTROL_PORT = 5  # the place of the port that stands for the isolate itself; nothing is received there

# Control messages: an operation, the number of the isolate that is meant, and what belongs to it. Those that concern
# isolates are in control.py; these are the kernel's own.
RETIRE, ENDED = "retire", "ended"  # to an isolate's slot; ENDED comes from its own body
WITHDRAW = "withdraw"  # to an isolate's slot, from whoever has no job for it after all
READY, IDLE, LEASE, ASK, OUTPUT = "ready", "idle", "lease", "ask", "output"  # to main
DOOMED, ABANDONED = "doomed", "abandoned"  # to main, about an isolate that is being killed
PENDING = "pending"  # to main, from itself: there is something for the broker to do

PIPE_ATOMIC = 4096  # bytes that one write to a pipe keeps together
_CONGESTION = 5  # seconds to wait for room in the pipe of an isolate that does not read it


class Node:
    """The interpreter that runs this code.

    Attributes:
        number: of the isolate that lives here now; main's is 1.
        name: of that isolate.
        killed: whether that isolate is being killed.
        gate: where its events stop while it is paused.
        listeners: who is told of its errors and its end.
    """

    def __init__(self, shared: Arena, slot: int, doorbell: int) -> None:
        self.arena: Arena = shared
        self.slot: int = slot
        self.mailbox: Mailbox = Mailbox(shared, slot, doorbell)
        self.name: str = "main" if slot == MAIN else ""
        self.pid: int = os.getpid()
        self.killed: bool = False
        self.ended: bool = False
        self.gate: Gate = Gate()
        self.listeners: Listeners = Listeners()
        self.lock: locks.Lock = locks.Lock()  # for what is in ``locals`` and ``wakers``
        self.wakers: list[Callable[[], None]] = []  # called, under the lock, when the isolate is killed
        self.locals: dict[str, Any] = {}  # what the layers above keep for this isolate; new for each

    @property
    def number(self) -> int:
        return self.arena.words[Arena.home(self.slot) + ISOLATE]

    @property
    def pause_capability(self) -> bytes:
        return self.arena.capabilities(self.slot)[0]

    @property
    def terminate_capability(self) -> bytes:
        return self.arena.capabilities(self.slot)[1]

    def forget(self) -> None:
        """Let go of what the isolate that has lived here had made: what is held any longer is never freed."""
        self.wakers.clear()
        self.locals.clear()

    def renew(self) -> None:
        """Be the node of the next isolate."""
        self.forget()  # what destructors have made since then, that ran as the last one was scrubbed away
        self.gate = Gate()
        self.listeners = Listeners()
        self.mailbox.rest()
        self.arena.words[Arena.will(self.slot) >> 3] = 0
        self.killed = self.ended = False
        self.name = ""

    def await_events(self) -> None:
        """Be an event loop that has nothing to handle: wait as long as the isolate is paused."""
        gate = self.gate
        if gate.shut:
            self.mailbox.attend([gate.changed], lambda: self.killed or gate.opens(), None)

    def await_begin(self) -> None:
        """Wait until everything is in force that was asked for with the start of the isolate."""
        gate = self.gate
        self.mailbox.wait([gate.changed], lambda: gate.begun or self.killed)

    def kill(self, slot: int, number: int, capability: bytes, priority: int = IMMEDIATE) -> None:
        """Have an isolate killed, if the capability is the right one."""
        self.tell(slot, KILL, number, capability, priority)
        if priority == IMMEDIATE:
            self.tell(MAIN, DOOMED, number, slot)

    def withdraw(self, slot: int, number: int) -> None:
        """Give back an interpreter that was lent to an isolate, for which no job could be sent."""
        insist(self.tell, slot, WITHDRAW, number)

    def give_up(self) -> None:
        """Make every wait of this isolate end, as when it is killed."""
        self.killed = True
        self.mailbox.stop_waits()
        self.gate.changed.notify()
        with self.lock:
            for wake in self.wakers:
                wake()

    def tell(self, slot: int, operation: str, number: int, *facts: object) -> None:
        """Send a control message to the kernel's thread in ``slot``; they are handled in the order of sending."""
        message = _pickle.dumps((operation, number, *facts))
        if len(message) + 4 > PIPE_ATOMIC:
            raise ValueError("a control message must fit one write")
        descriptor = self.arena.words[Arena.home(slot) + CONTROL]
        record = len(message).to_bytes(4, "little") + message
        try:
            write(descriptor, record)
        except BlockingIOError:
            poller = select.poll()
            poller.register(descriptor, select.POLLOUT)
            if not poller.poll(_CONGESTION * 1000):
                raise OSError("the isolate does not take control messages any more") from None
            write(descriptor, record)

    def fixed(self, index: int) -> int:
        """Return the address of one of this slot's ports at fixed places."""
        return address_of(self.slot, 0, index)


def jobs_of(slot: int) -> int:
    """Return the address where the slot's next isolate awaits its job."""
    return address_of(slot, 0, JOBS)


def control_port(slot: int, number: int) -> int:
    """Return the address that stands for an isolate."""
    return address_of(slot, number, _CONTROL_PORT)


def is_control_port(address: int) -> bool:
    """Return whether an address stands for an isolate."""
    return address & (PORTS - 1) == _CONTROL_PORT


class ControlPipe:
    """The reading end of a slot's control messages."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def read(self) -> "list[tuple[Any, ...]]":
        """Block until there are control messages, and return them in order.

        Raises:
            ValueError: what was read is none; it is dropped.
        """
        data = self._rest + read(self.descriptor, 65536)
        self._rest = b""
        messages = []
        while len(data) >= 4:
            length = int.from_bytes(data[:4], "little")
            if length + 4 > PIPE_ATOMIC:
                raise ValueError("a control message is damaged")
            if len(data) < 4 + length:
                break
            messages.append(_pickle.loads(data[4 : 4 + length]))
            data = data[4 + length :]
        self._rest = data
        return messages


_node: Node | None = None
_lock = locks.Lock()


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
