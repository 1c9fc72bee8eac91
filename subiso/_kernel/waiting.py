"""Waiting in an event loop: asyncio and trio behind one function. Neither is imported unless its loop runs."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from subiso._kernel.mailbox import Mailbox
    from subiso._kernel.waitables import Waitable


def running_loop() -> str | None:
    """Return which event loop runs in this thread: "asyncio", "trio" or None."""
    if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_run():
        return "trio"
    if "asyncio" in sys.modules and sys.modules["asyncio"]._get_running_loop() is not None:
        return "asyncio"
    return None


async def checkpoint() -> None:
    """Let other tasks run, and a cancellation in, where even what need not wait is to do so: on trio."""
    if running_loop() == "trio":
        await sys.modules["trio"].lowlevel.checkpoint()


async def wait(mailbox: "Mailbox", waitables: "Collection[Waitable]", ready: "Callable[[], object]") -> None:
    """Wait in the running event loop until ``ready()``. What makes it true must notify one of ``waitables``.

    Raises:
        RuntimeError: no event loop that is known runs.
    """
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no running event loop: only asyncio and trio are supported")
    if loop == "trio":
        await sys.modules["trio"].lowlevel.checkpoint()
    if ready() or (mailbox.pump() and ready()):
        return
    from subiso._kernel import loops  # only now: a program without an event loop need not have it

    waiter = loops.waiter(loop, mailbox)
    try:  # whatever Ctrl-C tears here is taken back as far as it was done: on trio it may come anywhere
        for waitable in waitables:
            waitable.waiters.append(waiter)
        waiter.watch.enter(waiter)
        while not ready():
            await waiter.sleep()
    finally:
        waiter.watch.leave(waiter)
        for waitable in waitables:
            if waiter in waitable.waiters:
                waitable.waiters.remove(waiter)


async def wait_readable(descriptor: int) -> None:
    """Wait in the running event loop until a descriptor is readable; any number of tasks may wait for one."""
    own = os.dup(descriptor)
    try:
        if running_loop() == "trio":
            await sys.modules["trio"].lowlevel.wait_readable(own)
            return
        loop: asyncio.AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
        readable = loop.create_future()

        def on_readable() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(own, on_readable)
        try:
            await readable
        finally:
            loop.remove_reader(own)
    finally:
        os.close(own)
