"""Waking a thread that sleeps in the kernel: an eventfd, or a pipe where there is none.

Every operation is one system call on a plain descriptor, so that any interpreter of the process can ring.
"""

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

if hasattr(os, "eventfd"):

    def create() -> tuple[int, int]:
        """Return a new doorbell: the descriptor to wait on, and the one to ring (here the same)."""
        descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return descriptor, descriptor

    def ring(descriptor: int) -> None:
        """Wake whoever waits, or will wait next."""
        try:
            os.eventfd_write(descriptor, 1)
        except BlockingIOError:  # rung 2**64 times: whoever waits is awake
            pass

    def silence(descriptor: int) -> None:
        """Forget all rings so far."""
        try:
            os.eventfd_read(descriptor)
        except BlockingIOError:  # another thread was quicker
            pass

else:

    def create() -> tuple[int, int]:
        """Return a new doorbell: the descriptor to wait on, and the one to ring."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        return reader, writer

    def ring(descriptor: int) -> None:
        """Wake whoever waits, or will wait next."""
        try:
            os.write(descriptor, b"\1")
        except BlockingIOError:  # full: whoever waits is awake
            pass

    def silence(descriptor: int) -> None:
        """Forget all rings so far."""
        try:
            while len(os.read(descriptor, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass


def close(reader: int, writer: int) -> None:
    """Close both ends."""
    for descriptor in {reader, writer}:
        os.close(descriptor)


class Ear:
    """Hears each ring once, whoever else listens to the same doorbell, which nobody has to silence."""

    def __init__(self, descriptor: int) -> None:
        # By edges, so that nothing has to be read before that which it was rung for is looked at.
        system: Any = select  # what is in it depends on the system
        if hasattr(system, "epoll"):
            self._poll = system.epoll()
            self._poll.register(descriptor, system.EPOLLIN | system.EPOLLET)
            self._wait: Callable[[float | None], object] = self._poll.poll
        else:
            self._poll = queue = system.kqueue()
            event = system.kevent(descriptor, system.KQ_FILTER_READ, system.KQ_EV_ADD | system.KQ_EV_CLEAR)
            queue.control([event], 0)
            self._wait = lambda timeout: queue.control(None, 1, timeout)

    def fileno(self) -> int:
        """Return a descriptor that is readable from a ring until the next `wait`."""
        descriptor: int = self._poll.fileno()
        return descriptor

    def wait(self, timeout: float | None) -> None:
        """Block until it has been rung since the last wait, or ``timeout`` seconds have passed."""
        self._wait(timeout)

    def close(self) -> None:
        """Hear nothing more."""
        self._poll.close()
