"""Listening ports: handlers that are called with each message, one at a time and in order.

Where they are called: on the running event loop if there is one; in an isolate, on its body's thread once the entry
function has returned (`serve`); else on one thread of main.
"""

import functools
import inspect
import sys
import threading

from subiso._kernel import locks, waiting
from subiso._kernel import node as nodes
from subiso._kernel.interrupt import unwind
from subiso._kernel.threads import start_thread
from subiso._kernel.waitables import Waitable
from subiso.errors import NoSendersError, PortClosedError, PortEmpty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from subiso._kernel.node import Node
    from subiso.ports import ReceivePort


class Subscription:
    """A handler's being called with a port's messages; `ReceivePort.listen` returns it.

    It ends when the port is closed, when `cancel` is called, or when all the port's senders have ended.
    (Dart: ``StreamSubscription``.)
    """

    def __init__(self, port: "ReceivePort[Any]", handler: "Callable[[Any], object]", change: Waitable) -> None:
        self._port = port
        self._handler = handler
        self._change = change  # notified when something but a message happens
        self._active = True
        self._paused = False

    @property
    def active(self) -> bool:
        """Whether messages are still handled."""
        return self._active

    def pause(self) -> None:
        """Handle no message until `resume`; they queue, and the port keeps its isolate alive."""
        self._paused = True

    def resume(self) -> None:
        """Go on handling messages."""
        self._paused = False
        self._change.notify()

    def cancel(self) -> None:
        """Handle no further message. The port stays open, and can be received from or listened to again."""
        if self._active:
            self._active = False
            self._port._subscription = None
            self._change.notify()

    def _ready(self) -> bool:
        """Return whether there is something to do: a message, or the end."""
        port = self._port
        gate = port._node.gate
        if gate.shut and not gate.opens():
            return not self._active
        return not self._active or port._is_over() or (bool(port._inbox.messages) and not self._paused)

    def _step(self) -> object:
        """Handle one message, if there is one, or notice the end; return what the handler returned."""
        if not self._active or self._paused:
            return None
        try:
            message = self._port._take()
        except PortEmpty:
            return None
        except (NoSendersError, PortClosedError):
            self.cancel()
            return None
        return self._handler(message)


def subscribe(port: "ReceivePort[Any]", handler: "Callable[[Any], object]") -> Subscription:
    """Begin to call ``handler`` with the port's messages, in the place that is right for this thread."""
    node = port._node
    loop = waiting.running_loop()
    if loop is not None:
        subscription = Subscription(port, handler, Waitable())
        _subscriptions_of(node).append(subscription)
        _start_task(loop, subscription, node)
        return subscription
    dispatcher = _dispatcher_of(node)
    subscription = Subscription(port, handler, dispatcher.change)
    dispatcher.add(subscription)
    return subscription


# -- on an event loop --------------------------------------------------------------------------------------------------

_tasks: "set[Any]" = set()  # asyncio keeps only weak references to its tasks


def _start_task(loop: str, subscription: Subscription, node: "Node") -> None:
    if loop == "trio":
        sys.modules["trio"].lowlevel.spawn_system_task(_serve_on_loop, subscription, node)
        return
    task = sys.modules["asyncio"].get_running_loop().create_task(_serve_on_loop(subscription, node))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _serve_on_loop(subscription: Subscription, node: "Node") -> None:
    try:
        while subscription.active:
            waitables = [subscription._port._inbox, subscription._change, node.gate.changed]
            await waiting.wait(node.mailbox, waitables, subscription._ready)
            try:
                result = subscription._step()
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                _uncaught(node, error)
    finally:
        subscription.cancel()
        _subscriptions_of(node).remove(subscription)
        _ended_of(node).notify()


def _subscriptions_of(node: "Node") -> list[Subscription]:
    return node.locals.setdefault("subscriptions", [])  # type: ignore[no-any-return]


def _ended_of(node: "Node") -> Waitable:
    return node.locals.setdefault("subscription-ended", Waitable())  # type: ignore[no-any-return]


async def wait_for_all(node: "Node") -> None:
    """Wait until no port is listened to on an event loop."""
    subscriptions = _subscriptions_of(node)
    await waiting.wait(node.mailbox, [_ended_of(node)], lambda: not subscriptions or node.killed)


# -- on a thread -------------------------------------------------------------------------------------------------------


class _Dispatcher:
    """Calls the handlers of one node, outside of event loops."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._subscriptions: list[Subscription] = []
        self.change = Waitable()
        self._lock = locks.Lock()
        self._thread: threading.Thread | None = None

    def add(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.append(subscription)
            if self._node.slot == nodes.MAIN and self._thread is None:
                # Not a daemon: a listening port keeps the program alive.
                thread = threading.Thread(target=self.serve, name="subiso-listener")
                try:
                    start_thread(thread)
                except BaseException:
                    self._subscriptions.remove(subscription)
                    raise
                self._thread = thread
        self.change.notify()

    def serve(self) -> None:
        """Call handlers as messages come, until no port is listened to."""
        node = self._node
        while True:
            with self._lock:
                self._subscriptions = [one for one in self._subscriptions if one.active]
                listening = list(self._subscriptions)
                if not listening:
                    self._thread = None
                    return
            if self._step(listening):
                continue
            waitables = [self.change, *(one._port._inbox for one in listening)]
            node.mailbox.wait(waitables, functools.partial(self._has_changed, listening))
            if node.killed:
                raise unwind()

    def _step(self, listening: list[Subscription]) -> bool:
        """Handle one message of each port that has one; return whether there was anything to do."""
        changed = [one for one in listening if one._ready()]
        for subscription in changed:
            if not subscription._ready():  # asked again: the handler before may have paused the isolate
                continue
            try:
                result = subscription._step()
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError("a coroutine function can only be a handler where an event loop runs")
            except Exception as error:
                _uncaught(self._node, error)
        return bool(changed)

    def _has_changed(self, listening: list[Subscription]) -> bool:
        if self._node.killed or self._subscriptions != listening:
            return True
        # A plain loop, as in Post.has_senders.
        for one in listening:  # noqa: SIM110
            if one._ready():
                return True
        return False


def _dispatcher_of(node: "Node") -> _Dispatcher:
    with node.lock:
        dispatcher: _Dispatcher | None = node.locals.get("dispatcher")
        if dispatcher is None:
            dispatcher = node.locals["dispatcher"] = _Dispatcher(node)
        return dispatcher


def serve(node: "Node") -> None:
    """Be an isolate's event loop: call handlers until no port is listened to."""
    if "dispatcher" in node.locals:
        _dispatcher_of(node).serve()


def _uncaught(node: "Node", error: BaseException) -> None:
    """Treat what a handler raised as an uncaught error of this isolate."""
    handle = node.locals.get("uncaught")
    if handle is None:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        handle(error)
