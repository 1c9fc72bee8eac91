"""What runs inside the isolates of the soak. Every message can be foretold from who sends it and which it is."""

import sys
import time

from subiso import Buffer, Isolate, PortClosedError, ReceivePort, Transferable

SMALL = ("int", "text", "bytes", "nested", "shared")
LARGE = ("page", "large", "huge")


class PlannedError(Exception):
    """What a body raises because the plan says so."""


def load(style, sender, i):
    """Return the content of message ``i`` of a sender."""
    stamp = f"{sender}:{i};"
    if style == "int":
        return sender << 70 | i if i % 3 else i
    if style == "text":
        return stamp * (i % 40) + "\udc80" * (i % 7 == 0)
    if style == "bytes":
        return stamp.encode() * (i % 60)
    if style == "nested":
        return {"who": (sender, [i, {"what": {stamp: frozenset({i, stamp})}}]), 3.5: None, (1,): -i / 7}
    if style == "shared":
        one = [stamp]
        whole = [one, one, {"again": one}]
        whole.append(whole)
        return whole
    if style == "page":
        return stamp.encode() * (500 + 997 * (i % 8))
    if style == "large":
        return stamp.encode() * (30_000 + 1000 * (i % 50))
    if style == "huge":
        return [stamp.encode() * 150_000, stamp]
    if style == "array":
        import numpy

        return numpy.arange(sender + i, sender + i + (10, 1000, 50_000)[i % 3], dtype="int64")
    raise ValueError(style)


def is_load(style, sender, i, content):
    """Return whether that is what `load` gives."""
    expected = load(style, sender, i)
    if type(content) is not type(expected):
        return False
    if style == "shared":
        one = content[0]
        return one == [f"{sender}:{i};"] and content[1] is one and content[2]["again"] is one and content[3] is content
    if style == "array":
        return content.dtype == expected.dtype and content.shape == expected.shape and bool((content == expected).all())
    return content == expected


def style_of(styles, sender, i):
    return styles[(i * 7 + sender) % len(styles)]


def end(ending, port, sender, i):
    """End as the plan says."""
    if ending == "raise":
        raise PlannedError(sender)
    if ending == "sys.exit":
        sys.exit(sender)
    if ending == "exit":
        Isolate.exit(port, (sender, i, load("nested", sender, i)))


def send(port, sender, count, styles, ending):
    """Send so many messages, or, if that is None, one after the other for ever; then end."""
    i = 0
    while count is None or i < count:
        port.send((sender, i, load(style_of(styles, sender, i), sender, i)))
        i += 1
    end(ending, port, sender, i)


async def send_async(port, sender, count, styles, ending):
    import asyncio

    i = 0
    while count is None or i < count:
        await port.asend((sender, i, load(style_of(styles, sender, i), sender, i)))
        i += 1
        if i % 16 == 0:
            await asyncio.sleep(0)
    end(ending, port, sender, i)


def send_from_threads(port, sender, count, styles, ending):
    """Send from three threads, each of which is a sender of its own, and from nobody else."""
    import threading

    threads = [threading.Thread(target=send, args=(port, sender + 1 + n, count, styles, "return")) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def send_typed(port, sender, count, ending):
    """Send to a port of type ``tuple[int, int, bytes]``; every eleventh message is none of that type."""
    i = 0
    while count is None or i < count:
        port.send("wrong" if i % 11 == 10 else (sender, i, load("bytes", sender, i)))
        i += 1
    end(ending, port, sender, i)


def send_from_grandchildren(port, sender, count, styles, depth, width):
    """Start isolates that do the same, outlive nobody in particular, and send."""
    for n in range(width if depth else 0):
        Isolate.spawn(send_from_grandchildren, port, sender * 4 + n + 1, count, styles, depth - 1, width)
    send(port, sender, count, styles, "return")


def relay(hop, port, left, sender, count, styles):
    """Hand the port, inside a message, on to the next isolate of the chain; the last one sends."""
    if left == 0:
        send(port, sender, count, styles, "return")
        return
    with ReceivePort() as mine:
        Isolate.spawn(relay_next, mine.send_port, left - 1, sender, count, styles)
        mine.receive().send({"port": [port], "hop": hop})


def relay_next(out, left, sender, count, styles):
    with ReceivePort() as mine:
        try:
            out.send(mine.send_port)
        except PortClosedError:  # who was to hand on the port was killed
            return
        message = mine.receive()
    relay(message["hop"] + 1, message["port"][0], left, sender, count, styles)


def echo(out):
    """Send every message back, until it is None."""
    with ReceivePort(end_with_senders=False) as mine:
        out.send(mine.send_port)
        for message in mine:
            if message is None:
                break
            out.send(message)


async def echo_async(out):
    with ReceivePort(end_with_senders=False) as mine:
        out.send(mine.send_port)
        async for message in mine:
            if message is None:
                break
            await out.asend(message)


def echo_listening(out):
    """As `echo`, by a handler that is called once this has returned."""
    port = ReceivePort(end_with_senders=False)

    def handle(message):
        if message is None:
            port.close()
        else:
            out.send(message)

    port.listen(handle)
    out.send(port.send_port)


ECHOES = {"sync": echo, "async": echo_async, "listen": echo_listening}


def hand_back(out):
    """Add one to each byte at both ends of what is handed over, and hand it back."""
    with ReceivePort(end_with_senders=False) as mine:
        out.send(mine.send_port)
        for message in mine:
            if message is None:
                break
            buffer = message.materialize() if isinstance(message, Transferable) else message
            with memoryview(buffer) as view:
                if view.nbytes:
                    view[0] = (view[0] + 1) & 255
                    view[-1] = (view[-1] + 1) & 255
            out.send(buffer)


def fill(nbytes, number):
    """Return a buffer that `hand_back` can be asked about."""
    buffer = Buffer(nbytes)
    if nbytes:
        with memoryview(buffer) as view:
            view[0] = view[-1] = number & 255
    return buffer


# -- what is to be killed ----------------------------------------------------------------------------------------------


def busy(out):
    """Say so, compute for ever, and say when unwound."""
    try:
        out.send("begun")
        while True:
            sum(range(100))
    finally:
        out.send("unwound")


def stubborn(out):
    out.send("begun")
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def waiting(out):
    try:
        port = ReceivePort(end_with_senders=False)
        out.send("begun")
        port.receive()
    finally:
        out.send("unwound")


async def waiting_async(out):
    import asyncio

    try:
        out.send("begun")
        await asyncio.Event().wait()
    finally:
        out.send("unwound")


def importing(out):
    """Run the same modules anew again and again, beside those in `sys.modules`, which would lose memory each time."""
    from importlib import util

    try:
        out.send("begun")
        while True:
            for name in ("textwrap", "shlex", "cmd"):
                spec = util.find_spec(name)
                spec.loader.exec_module(util.module_from_spec(spec))
    finally:
        out.send("unwound")


def threading_(out):
    """Compute on several threads, and wait for them."""
    import threading

    try:
        threads = [threading.Thread(target=waiting, args=(out,)), threading.Thread(target=busy, args=(out,))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        out.send("joined")


def sleeping(out, seconds):
    """Be in a call into C that, before Python 3.15, nothing can end."""
    out.send("begun")
    time.sleep(seconds)


VICTIMS = {function.__name__: function for function in (busy, stubborn, waiting, waiting_async, importing, threading_)}


def hunt(isolate, seconds):
    """Kill another isolate."""
    time.sleep(seconds)
    isolate.kill()


# -- work --------------------------------------------------------------------------------------------------------------


def work(kind, number):
    """Do a task of that kind."""
    if kind == "value":
        return load("nested", number, number)
    if kind == "large":
        return load("large", number, number)
    if kind == "array":
        return load("array", number, 2)
    if kind == "raise":
        raise PlannedError(number)
    if kind == "sys.exit":
        sys.exit(number)
    if kind == "exit":
        Isolate.exit()
    if kind == "die":
        Isolate.current().kill()
        time.sleep(60)
    if kind == "nest":
        return [number, Isolate.run(work, "value", number).result()]
    if kind == "endless":
        while True:
            pass
    if kind == "wait":
        with ReceivePort(end_with_senders=False) as port:
            port.receive()
    if kind == "nap":
        time.sleep(number % 10 / 1000)
        return number
    raise ValueError(kind)


async def work_async(kind, number):
    import asyncio

    await asyncio.sleep(0)
    if kind in ("endless", "wait"):
        await asyncio.Event().wait()
    return work(kind, number)


def square(number):
    if number == -1:
        raise PlannedError(number)
    return number * number


def numbers(sender, count, styles, ending):
    i = 0
    while count is None or i < count:
        yield sender, i, load(style_of(styles, sender, i), sender, i)
        i += 1
    end(ending, None, sender, i)


async def numbers_async(sender, count, styles, ending):
    for item in numbers(sender, count, styles, ending):
        yield item


class Counter:
    """An actor that counts, and remembers for whom."""

    def __init__(self, start):
        self.value = start
        self.calls = {}

    def add(self, caller, number):
        """Return the total, and how many calls of that caller there were before."""
        before = self.calls.get(caller, 0)
        self.calls[caller] = before + 1
        self.value += number
        return self.value, before

    async def add_later(self, caller, number):
        import asyncio

        await asyncio.sleep(0)
        return self.add(caller, number)

    def fail(self, number):
        raise PlannedError(number)

    def total(self):
        return self.value, dict(self.calls)


class AsyncCounter(Counter):
    async def fail(self, number):
        raise PlannedError(number)


def call_actor(actor, caller, count):
    """Call an actor from another isolate; return what it answered."""
    return [future.result() for future in [actor.add(caller, 1) for _ in range(count)]]


def supervised(out, name, lives, how):
    """Say which life that is; end each but the last by an error, and then wait."""
    with ReceivePort(end_with_senders=False) as mine:
        out.send((name, mine.send_port))
        if mine.receive() < lives:
            if how == "raise":
                raise PlannedError(name)
            if how == "sys.exit":
                sys.exit(1)
            if how == "die":
                Isolate.current().kill()
        mine.receive()


def member(out, number, kind):
    """Be an isolate of a group."""
    out.send(number)
    if kind == "raise":
        raise PlannedError(number)
    if kind == "wait":
        ReceivePort(end_with_senders=False).receive()


def answer(out, count):
    """Answer so many requests, then end."""
    with ReceivePort(end_with_senders=False) as mine:
        out.send(mine.send_port)
        for _ in range(count):
            request = mine.receive()
            if isinstance(request.message, int) and request.message % 5 == 4:
                request.fail(PlannedError(request.message))
            elif isinstance(request.message, int) and request.message % 5 == 3:
                request.reply(load("large", 0, request.message))
            else:
                request.reply((request.message, "answered"))


def register_and_count(name, count):
    """Be known under a name, and count what comes."""
    from subiso import register

    with ReceivePort(end_with_senders=False) as mine:
        if not register(name, mine.send_port, tags=["soak"]):
            raise PlannedError(name)
        return [mine.receive() for _ in range(count)]


def complain(out, count):
    """Raise in handlers, so many times, then close."""
    port = ReceivePort(end_with_senders=False)

    def handle(number):
        if number == count:
            port.close()
        else:
            raise PlannedError(number)

    port.listen(handle)
    out.send(port.send_port)
