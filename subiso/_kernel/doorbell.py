"""Waking a thread that sleeps in the kernel: an eventfd, or a pipe where there is none.

Every operation is one system call on a plain descriptor, so that any interpreter of the process can ring.
"""

import os
import select

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
    """Waits for a doorbell; for one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, timeout: float | None) -> bool:
        """Block until it has been rung, or ``timeout`` seconds have passed; return whether it has been rung."""
        return bool(self._poll.poll(None if timeout is None else int(min(timeout, 1e6) * 1000) + 1))
