"""Counting the free places of a bounded port: an eventfd, whose tokens are taken one by one by any number of senders.

Where there is one sender, as in a stream, it takes all that there are, and is given them by the dozen.

The descriptor belongs to the port's place in its slot, for ever: a sender may still be waiting on it when the port is
closed and another one is opened there.
"""

import os
import select

from subiso._kernel import doorbell
from subiso._kernel.arena import Arena

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subiso._kernel.node import Node

_CLOSED = 1 << 32  # tokens that are given at the close, so that every waiting sender wakes

if hasattr(os, "eventfd"):

    def _create(tokens: int, one_by_one: bool) -> int:
        return os.eventfd(tokens, os.EFD_NONBLOCK | os.EFD_CLOEXEC | (os.EFD_SEMAPHORE if one_by_one else 0))

    def take(descriptor: int) -> int:
        """Take a token, or all, if there are any; return how many."""
        try:
            return os.eventfd_read(descriptor)
        except BlockingIOError:
            return 0

    def give(descriptor: int, tokens: int = 1) -> None:
        """Put tokens back."""
        os.eventfd_write(descriptor, tokens)

else:

    def _create(tokens: int, one_by_one: bool) -> int:
        raise OSError("bounded ports need Linux's eventfd")

    def take(descriptor: int) -> int:
        """Take a token, or all, if there are any; return how many."""
        raise NotImplementedError

    def give(descriptor: int, tokens: int = 1) -> None:
        """Put tokens back."""
        raise NotImplementedError


def open(node: "Node", address: int, tokens: int, one_by_one: bool) -> int:  # noqa: A001 - semaphore.open
    """Return the semaphore of the port at ``address``, with that many tokens in it."""
    words, place = node.arena.words, Arena.port(address) + 1
    fresh = _create(tokens, one_by_one)
    descriptor: int = words[place]
    if not descriptor:
        words[place] = fresh
        return fresh
    # The number stays, for whoever still looks at it. (One who took a token of the closed port just now puts it back
    # into this one, which then has room for one message more than it should: bounded, and harmless.)
    os.dup2(fresh, descriptor, inheritable=False)
    os.close(fresh)
    return descriptor


def close(descriptor: int) -> None:
    """Wake every sender that waits; it finds the port closed."""
    give(descriptor, _CLOSED)


def wait(node: "Node", descriptor: int, timeout: float | None) -> None:
    """Block until there may be a token, the isolate is killed, or ``timeout`` seconds have passed."""
    reader, writer = doorbell.create()

    def wake() -> None:
        doorbell.ring(writer)

    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.register(reader, select.POLLIN)
    with node.lock:
        node.wakers.append(wake)
    try:
        if not node.killed:
            poller.poll(None if timeout is None else int(min(timeout, 1e6) * 1000) + 1)
    finally:
        with node.lock:
            node.wakers.remove(wake)
        doorbell.close(reader, writer)
