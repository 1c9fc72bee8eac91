"""Waking a thread that sleeps in the kernel: an eventfd, or a pipe where there is none.

Every operation is one system call on a plain descriptor, so that any interpreter of the process can ring.
"""

import os
import select
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

if hasattr(os, "eventfd"):

    def create() -> tuple[int, int]:
        """Return a new doorbell: the descriptor to wait on, and the number to ring (here the same)."""
        descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return descriptor, descriptor

    def ring(bell: int) -> None:
        """Wake whoever waits, or will wait next."""
        try:
            os.eventfd_write(bell, 1)
        except BlockingIOError:  # rung 2**64 times: whoever waits is awake
            pass

    def silence(descriptor: int) -> None:
        """Forget all rings so far."""
        try:
            os.eventfd_read(descriptor)
        except BlockingIOError:  # another thread was quicker
            pass

    def close(reader: int, bell: int) -> None:
        """Close it."""
        os.close(reader)

else:
    _WRITER = (1 << 32) - 1  # the bits of a bell that are the end to write to; those above are the end to read from
    _ROOM = 1 << 12  # bytes; where the system keeps a pipe in pages, less would make none

    def create() -> tuple[int, int]:
        """Return a new doorbell: the descriptor to wait on, and the number to ring."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        return reader, reader << 32 | writer

    def ring(bell: int) -> None:
        """Wake whoever waits, or will wait next."""
        # Ears read nothing, for what one of them reads the others would not hear. So a pipe fills up, and what is not
        # written is not heard: whoever finds it full makes room. Whatever is taken out is followed by this ring, which
        # everybody hears who had not yet heard one of those.
        while True:
            try:
                os.write(bell & _WRITER, b"\1")
                return
            except BlockingIOError:
                _make_room(bell >> 32)

    def _make_room(reader: int) -> None:
        try:
            os.read(reader, _ROOM)
        except BlockingIOError:  # others have
            pass

    def silence(descriptor: int) -> None:
        """Forget all rings so far."""
        try:
            while len(os.read(descriptor, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(reader: int, bell: int) -> None:
        """Close both ends."""
        os.close(reader)
        os.close(bell & _WRITER)


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


class Deaf:
    """Stands in for an ear while there is no descriptor for one: whoever waits looks again after a short while."""

    PAUSE = 0.002  # seconds

    def wait(self, timeout: float | None) -> None:
        """Block for a short while, ``timeout`` seconds at most."""
        sleep(self.PAUSE if timeout is None else min(timeout, self.PAUSE))
