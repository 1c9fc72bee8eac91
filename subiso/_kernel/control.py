"""What may be asked of the isolate that lives here, by whoever has a handle on it.

Its kernel's thread, in main the broker's, carries it out in the order of asking, whatever the isolate's own threads do.
Listeners are addresses of ports; what they are sent is encoded already.
"""

import _pickle

from subiso._kernel import semaphore
from subiso._kernel.arena import Arena
from subiso._kernel.insisting import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from subiso._kernel.node import Node

BEGIN, KILL, PAUSE, RESUME, PING = "begin", "kill", "pause", "resume", "ping"
ADD_EXIT, REMOVE_EXIT, ADD_ERROR, REMOVE_ERROR = "exit+", "exit-", "error+", "error-"
ERRORS_ARE_FATAL = "fatal"

IMMEDIATE, BEFORE_NEXT_EVENT = 0, 1


class Listeners:
    """Who is told what about one isolate.

    Attributes:
        exit: by the address of each port that is told of the end, in order: whether it is bounded, and the message.
        error: by the address of each port that is told of errors: whether it is bounded.
        fatal: whether an uncaught error ends the isolate.
    """

    __slots__ = ("error", "exit", "fatal")

    def __init__(self) -> None:
        self.exit: dict[int, tuple[bool, int, bytes]] = {}
        self.error: dict[int, bool] = {}
        self.fatal: bool | None = None


class Control:
    """Carries out what is asked of the isolate in one node.

    Args:
        node: where it lives.
        kill: ends it at once.
    """

    def __init__(self, node: "Node", kill: "Callable[[], None]") -> None:
        self._node = node
        self._kill_now = kill
        self._operations: dict[str, Callable[..., None]] = {
            BEGIN: self._begin,
            KILL: self._kill,
            PAUSE: self._pause,
            RESUME: self._resume,
            PING: self._ping,
            ADD_EXIT: self._add_exit,
            REMOVE_EXIT: self._remove_exit,
            ADD_ERROR: self._add_error,
            REMOVE_ERROR: self._remove_error,
            ERRORS_ARE_FATAL: self._set_fatal,
        }

    def handle(self, operation: str, facts: "Sequence[Any]") -> None:
        """Do what is asked for. A capability that is not this isolate's has no effect, as in Dart."""
        self._operations[operation](*facts)

    def _begin(self) -> None:
        self._node.gate.begin()

    def _kill(self, capability: bytes, priority: int) -> None:
        if capability != self._node.terminate_capability:
            return
        if priority == IMMEDIATE:
            self._kill_now()
        else:
            self._before_next_event(self._end_here)

    def _end_here(self) -> None:
        node = self._node
        node.killed = True
        node.kill(node.slot, node.number, node.terminate_capability)

    def _pause(self, capability: bytes, resume: bytes) -> None:
        if capability == self._node.pause_capability:
            self._node.gate.pause(resume)
            self._node.mailbox.stop_waits()

    def _resume(self, resume: bytes) -> None:
        self._node.gate.resume(resume)
        self._node.mailbox.stop_waits()

    def _before_next_event(self, action: "Callable[[], object]") -> None:
        self._node.gate.before_next_event(action)
        self._node.mailbox.stop_waits()

    def _ping(self, address: int, bounded: bool, kind: int, body: bytes, priority: int) -> None:
        if priority == IMMEDIATE:
            deliver(self._node, address, bounded, kind, body)
        else:
            self._before_next_event(lambda: deliver(self._node, address, bounded, kind, body))

    def _add_exit(self, address: int, bounded: bool, kind: int, body: bytes) -> None:
        self._node.listeners.exit[address] = bounded, kind, body
        write_will(self._node)

    def _remove_exit(self, address: int) -> None:
        self._node.listeners.exit.pop(address, None)
        write_will(self._node)

    def _add_error(self, address: int, bounded: bool) -> None:
        self._node.listeners.error[address] = bounded

    def _remove_error(self, address: int) -> None:
        self._node.listeners.error.pop(address, None)

    def _set_fatal(self, capability: bytes, fatal: bool) -> None:
        if capability == self._node.terminate_capability:
            self._node.listeners.fatal = fatal


def deliver(node: "Node", address: int, bounded: bool, kind: int, body: bytes) -> bool:
    """Send an encoded message without waiting; return whether there was a port, and room in it."""
    if not node.mailbox.is_open(address):
        return False
    if bounded and not semaphore.take(node.arena.words[Arena.port(address) + 1]):
        return False
    node.mailbox.send_message(address, kind, body, [])
    return True


def tell_errors(node: "Node", kind: int, body: bytes) -> bool:
    """Send an error to every port that is told of errors; return whether there was one."""
    told = [_try_to_deliver(node, address, bounded, kind, body) for address, bounded in [*node.listeners.error.items()]]
    return any(told)


def tell_exit(node: "Node") -> None:
    """Send everybody who waits for the isolate's end what was asked for."""
    for address, (bounded, kind, body) in list(node.listeners.exit.items()):
        _try_to_deliver(node, address, bounded, kind, body)


def _try_to_deliver(node: "Node", address: int, bounded: bool, kind: int, body: bytes) -> bool:
    """Deliver to one of several: what fails there is tried again, and does not keep the others from being told."""
    for _ in range(2):
        try:
            return deliver(node, address, bounded, kind, body)
        except Exception as error:
            report(error)
    return False


# -- the will ----------------------------------------------------------------------------------------------------------
# An isolate whose GIL is held by a call that does not return cannot say its last words. Main says them for it: they are
# noted in shared memory, the first forty or so of them.


def write_will(node: "Node") -> None:
    """Note the messages to be sent at the isolate's end."""
    will = list(node.listeners.exit.items())
    while len(text := _pickle.dumps(will)) > Arena.WILL - 8:
        will.pop()
    start, memory = Arena.will(node.slot), node.arena.memory
    node.arena.words[start >> 3] = 0
    memory[start + 8 : start + 8 + len(text)] = text
    node.arena.words[start >> 3] = len(text)


def execute_will(node: "Node", slot: int) -> None:
    """Send, from this node, what the isolate in ``slot`` has noted."""
    start = Arena.will(slot)
    length = node.arena.words[start >> 3]
    if length:
        for address, (bounded, kind, body) in _pickle.loads(node.arena.memory[start + 8 : start + 8 + length]):
            _try_to_deliver(node, address, bounded, kind, body)
