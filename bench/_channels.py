"""Something that sends and something that receives, with an echo at the other end, whoever provides it."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench._harness import context_of, need


@dataclass
class Channel:
    """Two ends: what is sent comes back."""

    send: Callable[[Any], object]
    receive: Callable[[], Any]
    areceive: Callable[[], Awaitable[Any]] | None = None  # in asyncio's loop, where it was made for that


type Opened = Iterator[Channel]


# -- isolates ----------------------------------------------------------------------------------------------------------


def _echo_in_isolate(hello: Any, back: Any, kind: Any) -> None:
    from subiso import ReceivePort

    with ReceivePort[Any](kind) as port:
        hello.send(port.send_port)
        for message in port:
            back.send(message)


@contextmanager
def isolate(kind: Any = Any) -> Opened:
    """An isolate that echoes; its ports check what arrives, if a type is given."""
    from subiso import Isolate, ReceivePort

    with ReceivePort[Any]() as hello, ReceivePort[Any](kind) as back:
        with Isolate.spawn(_echo_in_isolate, hello.send_port, back.send_port, kind):
            there = hello.receive(60)
            yield Channel(there.send, back.receive, back.areceive)


# -- processes ---------------------------------------------------------------------------------------------------------


def _echo_in_process(pipe: Any) -> None:
    try:
        while True:
            pipe.send(pipe.recv())
    except EOFError:
        pass


@contextmanager
def pipe(method: str = "spawn") -> Opened:
    """A process that echoes through a Pipe."""
    context = context_of(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_echo_in_process, args=(theirs,))
    process.start()
    theirs.close()

    async def areceive() -> Any:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        loop.add_reader(ours.fileno(), came.set_result, None)
        try:
            await came
        finally:
            loop.remove_reader(ours.fileno())
        return ours.recv()

    yield Channel(ours.send, ours.recv, areceive)
    ours.close()
    process.join()


def _echo_through_queues(there: Any, back: Any) -> None:
    for message in iter(there.get, None):
        back.put(message)


@contextmanager
def queues(method: str = "spawn") -> Opened:
    """A process that echoes through Queues."""
    context = context_of(method)
    there: Any = context.Queue()
    back: Any = context.Queue()
    process = context.Process(target=_echo_through_queues, args=(there, back))
    process.start()

    async def areceive() -> Any:
        return await asyncio.to_thread(back.get)

    yield Channel(there.put, back.get, areceive)
    there.put(None)
    process.join()


# -- the same interpreter, and others ----------------------------------------------------------------------------------


@contextmanager
def thread() -> Opened:
    """A thread that echoes through queues: nothing is copied, and one GIL for both."""
    there: queue.SimpleQueue[Any] = queue.SimpleQueue()
    back: queue.SimpleQueue[Any] = queue.SimpleQueue()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = []

    def echo() -> None:
        for message in iter(there.get, None):
            if running:
                loop, came = running.pop()
                loop.call_soon_threadsafe(came.set_result, message)
            else:
                back.put(message)

    def send(message: Any) -> None:
        there.put(message)

    async def areceive() -> Any:  # called before the message is sent
        loop = asyncio.get_running_loop()
        came: asyncio.Future[Any] = loop.create_future()
        running.append((loop, came))
        return await came

    one = threading.Thread(target=echo)
    one.start()
    yield Channel(send, back.get, areceive)
    there.put(None)
    one.join()


@contextmanager
def interpreter() -> Opened:
    """An interpreter that echoes through the standard library's queues for them."""
    need("concurrent.interpreters")
    from concurrent import interpreters

    there, back = interpreters.create_queue(), interpreters.create_queue()
    one = interpreters.create()
    one.exec("import bench._channels")
    thread = one.call_in_thread(_echo_through_queues, there, back)

    async def areceive() -> Any:
        return await asyncio.to_thread(back.get)

    yield Channel(there.put, back.get, areceive)
    there.put(None)
    thread.join()
