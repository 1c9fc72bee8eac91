"""Coroutines in isolates: run by asyncio, cancelled when the isolate is killed."""

from subiso._kernel.interrupt import unwind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeGuard

    from subiso._kernel.node import Node


def is_coroutine(value: object) -> "TypeGuard[Coroutine[Any, Any, Any]]":
    """Return whether a function has returned a coroutine, without importing what knows for sure."""
    return type(value).__name__ == "coroutine"


def run(node: "Node", coroutine: "Coroutine[Any, Any, Any]") -> "Any":
    """Run a coroutine in an event loop of its own, and return what it returns.

    Raises:
        IsolateKilled: the isolate is being killed; the coroutine was cancelled.
    """
    import asyncio

    async def main() -> "Any":
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def wake() -> None:
            loop.call_soon_threadsafe(task.cancel)

        with node.lock:
            node.wakers.append(wake)
        try:
            if node.killed:
                raise unwind()
            return await coroutine
        finally:
            with node.lock:
                node.wakers.remove(wake)

    return asyncio.run(main())
