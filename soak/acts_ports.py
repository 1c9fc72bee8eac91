"""Acts about ports: many senders with every ending, relays, echoes, buffers, requests, names, handlers."""

import asyncio
import contextlib
import threading

import bodies
from plans import LONG, Ledger, ViolationError, act, check, draw_count, draw_kill, draw_seconds, draw_styles

from subiso import (
    Buffer,
    Isolate,
    IsolateKilledError,
    MessageTypeError,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    PortFull,
    ReceivePort,
    RemoteError,
    SendError,
    SingleResponseChannel,
    Transferable,
    lookup,
    lookup_all,
    select,
    single_response,
    unregister,
)

READERS = ("for", "receive", "async for", "listen", "select")
ENDINGS = ("return", "return", "raise", "sys.exit", "exit")


def read_all(how, port, take):
    """Take every message until the port's senders have ended, by one of the ways to do that."""
    if how == "for":
        for message in port:
            take(message)
    elif how == "receive":
        with contextlib.suppress(NoSendersError):
            while True:
                take(port.receive(LONG))
    elif how == "select":
        with ReceivePort() as other, contextlib.suppress(NoSendersError):
            while True:
                check(select(other, port, timeout=LONG) is port, "select gave a port without a message")
                take(port.receive(0))
    elif how == "async for":

        async def read():
            async for message in port:
                take(message)

        asyncio.run(asyncio.wait_for(read(), LONG))
    else:
        errors = []

        def handle(message):
            try:
                take(message)
            except BaseException as error:
                errors.append(error)

        subscription = port.listen(handle)
        deadline = threading.Event()
        for _ in range(int(LONG * 200)):
            if not subscription.active:
                break
            deadline.wait(0.005)
        else:
            raise ViolationError("a port that is listened to did not end with its senders")
        if errors:
            raise errors[0]


def _draw_sender(choose):
    styles = draw_styles(choose)
    kill = draw_kill(choose)
    count = None if kill and not kill["priority"] and choose.random() < 0.4 else draw_count(choose, styles)
    how = choose.choice(["send", "send", "send_async", "send_from_threads"])
    ending = choose.choice(ENDINGS) if how != "send_from_threads" else "return"
    return {"how": how, "count": count, "styles": styles, "ending": ending, "kill": kill}


def _draw_senders(choose):
    return {
        "senders": [_draw_sender(choose) for _ in range(choose.randint(1, 4))],
        "maxsize": choose.choice([0, 0, 1, 7, 100]),
        "reader": choose.choice(READERS),
    }


@act(6, _draw_senders)
def senders(stage, *, senders, maxsize, reader):
    """Isolates send to one port, and end in every way; each one's messages arrive, and the news of its end is last."""
    ledgers = [Ledger(stage, one["styles"]) for one in senders]
    ended = [0] * len(senders)
    isolates = []

    def take(message):
        number = message[0] // 10
        if message[1] == "end":
            ended[number] += 1
            return
        if ended[number] and not isolates[number].is_abandoned:
            raise ViolationError(f"sender {number} was said to have ended, and then a message of its came")
        ledgers[number].take(message)

    with ReceivePort(maxsize=maxsize) as port, ReceivePort() as errors:
        for number, one in enumerate(senders):
            entry = getattr(bodies, one["how"])
            arguments = (port.send_port, number * 10, one["count"], one["styles"], one["ending"])
            isolate = Isolate.spawn(entry, *arguments, paused=True, on_error=errors.send_port)
            isolates.append(isolate)
            if not maxsize:  # there may be no room for it elsewhere
                isolate.add_on_exit_listener(port.send_port, (number * 10, "end"))
            isolate.resume(isolate.pause_capability)
            if one["kill"]:
                stage.kill_later(isolate, one["kill"])
        stage.counts["isolates"] += len(senders)
        read_all(reader, port, take)
        check(all(isolate.join(LONG) for isolate in isolates), "an isolate did not end")
        texts = [text for text, _ in errors]
    try:
        _settle_senders(senders, ledgers, ended, texts, told_of_ends=not maxsize)
    except ViolationError as violation:
        violation.add_note(f"errors: {texts}")
        raise


def _settle_senders(senders, ledgers, ended, texts, told_of_ends):
    for number, one in enumerate(senders):
        certain = not one["kill"]
        threads = one["how"] == "send_from_threads"
        for sender in range(number * 10 + 1, number * 10 + 4) if threads else [number * 10]:
            count = one["count"]
            ledgers[number].settle(sender, count + (one["ending"] == "exit") if count is not None else None, certain)
        ledgers[number].close()
        check(not told_of_ends or ended[number] == 1, f"the end of sender {number} was told {ended[number]} times")
        expected = {"raise": f"PlannedError: {number * 10}", "sys.exit": None}.get(one["ending"])
        told = sum(text.endswith(expected) for text in texts) if expected else 0
        check(not expected or told == 1 or (not certain and not told), f"{expected} was told {told} times: {texts}")


def _draw_typed(choose):
    return {
        "senders": [
            {
                "count": choose.randint(0, 300),
                "ending": choose.choice(["return", "raise"]),
                "kill": draw_kill(choose, 0.3),
            }
            for _ in range(choose.randint(1, 3))
        ],
        "maxsize": choose.choice([0, 3]),
    }


@act(3, _draw_typed)
def typed(stage, *, senders, maxsize):
    """A typed port takes what is of its type and refuses what is not, and each sender's order is kept."""
    ledger = Ledger(stage, ["bytes"])
    wrong = 0
    with ReceivePort(tuple[int, int, bytes], maxsize=maxsize) as port, ReceivePort() as errors:
        isolates = []
        for number, one in enumerate(senders):
            arguments = (port.send_port, number, one["count"], one["ending"])
            isolates.append(Isolate.spawn(bodies.send_typed, *arguments, on_error=errors.send_port))
            if one["kill"]:
                stage.kill_later(isolates[-1], one["kill"])
        stage.counts["isolates"] += len(senders)
        seen: dict = {}
        while True:
            try:
                message = port.receive(LONG)
            except MessageTypeError:
                wrong += 1
                continue
            except NoSendersError:
                break
            sender, i, content = message
            # Those of a wrong type are numbered, too, but cannot be told apart.
            due = seen.get(sender, 0)
            due += due % 11 == 10
            check(i == due, f"message {i} of sender {sender} came where {due} was due")
            check(bodies.is_load("bytes", sender, i, content), f"message {i} of sender {sender} is damaged")
            seen[sender] = due + 1
            stage.counts["messages"] += 1
        check(all(isolate.join(LONG) for isolate in isolates), "an isolate did not end")
    ledger.close()
    lost = any(one["kill"] for one in senders)
    for number, one in enumerate(senders):
        count = one["count"]
        last = count - 1 if count % 11 == 0 and count else count  # the last one may be a wrong one
        arrived = seen.get(number, 0)
        check(arrived == last if not one["kill"] else arrived <= last, f"{arrived} of {last} came from {number}")
    expected = sum(one["count"] // 11 for one in senders)
    check(wrong == expected or (lost and wrong <= expected), f"{wrong} of {expected} messages were of a wrong type")


def _draw_relay(choose):
    styles = draw_styles(choose)
    return {
        "hops": choose.randint(0, 5),
        "count": draw_count(choose, styles),
        "styles": styles,
        "maxsize": choose.choice([0, 0, 5]),
        "kill": draw_kill(choose, 0.25),
    }


@act(3, _draw_relay)
def relays(stage, *, hops, count, styles, maxsize, kill):
    """A send port goes from isolate to isolate, each of which ends; what the last one sends arrives."""
    ledger = Ledger(stage, styles)
    with ReceivePort(maxsize=maxsize) as port:
        first = Isolate.spawn(bodies.relay, 0, port.send_port, hops, 1, count, styles)
        if kill:
            stage.kill_later(first, kill)
        for message in port:
            ledger.take(message)
        first.join(LONG)
    stage.counts["isolates"] += hops + 1
    ledger.settle(1, count, certain=not kill)
    ledger.close()


def _draw_tree(choose):
    styles = draw_styles(choose)
    return {
        "depth": choose.randint(1, 2),
        "width": choose.randint(1, 3),
        "count": min(draw_count(choose, styles), 50),
        "styles": styles,
    }


@act(2, _draw_tree)
def trees(stage, *, depth, width, count, styles):
    """Isolates start isolates, which may outlive them, and all send to one port."""
    ledger = Ledger(stage, styles)
    with ReceivePort() as port:
        root = Isolate.spawn(bodies.send_from_grandchildren, port.send_port, 1, count, styles, depth, width)
        for message in port:
            ledger.take(message)
        root.join(LONG)
    level = [1]
    everybody = [1]
    for _ in range(depth):
        level = [sender * 4 + n + 1 for sender in level for n in range(width)]
        everybody += level
    stage.counts["isolates"] += len(everybody)
    for sender in everybody:
        ledger.settle(sender, count, certain=True)
    ledger.close()


def _draw_echo(choose):
    styles = draw_styles(choose)
    return {
        "how": choose.choice(list(bodies.ECHOES)),
        "count": draw_count(choose, styles),
        "styles": styles,
        "ahead": choose.choice([1, 1, 20]),
        "kill": draw_kill(choose, 0.25),
    }


@act(4, _draw_echo)
def echoes(stage, *, how, count, styles, ahead, kill):
    """What is sent to an isolate and back comes back, in order; if it is killed, the rest does not."""
    ledger = Ledger(stage, styles)
    with ReceivePort() as port:
        isolate = Isolate.spawn(bodies.ECHOES[how], port.send_port)
        stage.counts["isolates"] += 1
        if kill:
            stage.kill_later(isolate, kill)
        sent = 0
        try:
            peer = port.receive(LONG)
            while sent < count:
                part = range(sent, min(sent + ahead, count))
                for i in part:
                    peer.send((7, i, bodies.load(bodies.style_of(styles, 7, i), 7, i)))
                    sent += 1
                for _ in part:
                    ledger.take(port.receive(LONG))
            peer.send(None)
            for message in port:
                raise ViolationError(f"more came than was sent: {message!r:.200}")
        except (NoSendersError, PortClosedError):
            if not kill:
                raise
            for message in port:  # of the part that was under way when it ended
                ledger.take(message)
        check(isolate.join(LONG), "an isolate did not end")
    ledger.settle(7, sent, certain=not kill)
    ledger.close()


def _draw_buffers(choose):
    sizes = [choose.choice([0, 1, 100, 70_000, 3 << 20]) for _ in range(choose.randint(1, 6))]
    return {"sizes": sizes, "wrapped": choose.random() < 0.5, "kill": draw_kill(choose, 0.2)}


@act(2, _draw_buffers)
def buffers(stage, *, sizes, wrapped, kill):
    """Memory is handed over and back, without being in two places or none."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(bodies.hand_back, port.send_port)
        stage.counts["isolates"] += 1
        if kill:
            stage.kill_later(isolate, kill)
        try:
            peer = port.receive(LONG)
            for number, size in enumerate(sizes):
                buffer = bodies.fill(size, number)
                sent = Transferable(buffer) if wrapped else buffer
                peer.send(sent)
                with contextlib.suppress(SendError):
                    peer.send(sent)
                    raise ViolationError("what was handed over could be handed over again")
                back = port.receive(LONG)
                check(isinstance(back, Buffer) and back.nbytes == size, f"{size} bytes came back as {back!r}")
                with memoryview(back) as view:
                    expected = number + (2 if size == 1 else 1) & 255
                    check(not size or view[0] == view[-1] == expected, f"{size} bytes came back changed")
                stage.counts["messages"] += 1
            peer.send(None)
        except (NoSendersError, PortClosedError):
            if not kill:
                raise
        check(isolate.join(LONG), "an isolate did not end")


def _draw_requests(choose):
    return {"count": choose.randint(0, 30), "more": choose.randint(0, 3), "kill": draw_kill(choose, 0.25)}


@act(2, _draw_requests)
def requests(stage, *, count, more, kill):
    """Each request is answered by its own value or error; those that nobody is left to answer say so."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(bodies.answer, port.send_port, count)
        stage.counts["isolates"] += 1
        if kill:
            stage.kill_later(isolate, kill)
        try:
            peer = port.receive(LONG)
            for number in range(count + more):
                try:
                    answer = peer.request(number, LONG)
                    expected = bodies.load("large", 0, number) if number % 5 == 3 else (number, "answered")
                    check(answer == expected and number < count, f"request {number} was answered by {answer!r:.200}")
                except bodies.PlannedError as error:
                    check(number % 5 == 4 and error.args == (number,), f"request {number} failed by {error!r}")
                except (NoSendersError, PortClosedError):
                    if number < count:
                        raise
                stage.counts["messages"] += 2
        except (NoSendersError, PortClosedError):
            if not kill:
                raise
        check(isolate.join(LONG), "an isolate did not end")


def _draw_names(choose):
    return {"counts": [choose.randint(1, 5) for _ in range(choose.randint(1, 3))], "tag": choose.getrandbits(40)}


@act(1, _draw_names)
def names(stage, *, counts, tag):
    """Isolates are found by the names under which they register, and forgotten when they end."""
    named = [f"soak-{tag:x}-{number}" for number in range(len(counts))]
    futures = [Isolate.run(bodies.register_and_count, *each) for each in zip(named, counts, strict=True)]
    stage.counts["isolates"] += len(counts)
    for name, count, future in zip(named, counts, futures, strict=True):
        found = None
        while found is None:
            check(not future.done(), f"{name} ended before it was found: {future}")
            found = lookup(name)
        check(found in lookup_all("soak"), "a port is known by its name, but not by its tag")
        for i in range(count):
            found.send((name, i))
        check(future.result(LONG) == [(name, i) for i in range(count)], f"{name} was sent something else")
        check(lookup(name) is None, f"{name} is known after its end")
        unregister(name)


def _draw_bounded(choose):
    return {"maxsize": choose.randint(1, 5), "timeout": draw_seconds(choose), "close": choose.random() < 0.5}


@act(1, _draw_bounded)
def bounded(stage, *, maxsize, timeout, close):
    """A full port refuses in time, gives back its places, and ends those who wait when it is closed."""
    port = ReceivePort(maxsize=maxsize)
    for i in range(maxsize):
        port.send_port.send_nowait(i)
    with contextlib.suppress(PortFull):
        port.send_port.send(maxsize, timeout)
        raise ViolationError("a full port took one more")
    check(port.receive(0) == 0, "a bounded port does not keep its order")
    port.send_port.send_nowait(maxsize)
    isolate = Isolate.spawn(bodies.send, port.send_port, 5, None, ["int"], "return")
    isolate.kill()
    isolate.join(LONG)
    future = Isolate.run(bodies.send, port.send_port, 9, None if close else 20, ["int"], "return")
    stage.counts["isolates"] += 1
    got = [port.receive(LONG) for _ in range(maxsize)]
    check(got == list(range(1, maxsize + 1)), f"{got} came instead of what was sent")
    if close:
        port.close()
        with contextlib.suppress(PortClosedError):
            future.result(LONG)
            raise ViolationError("a sender did not notice that the port was closed")
    else:
        check([port.receive(LONG)[1] for _ in range(20)] == list(range(20)), "messages were lost in a full port")
        future.result(LONG)
        with contextlib.suppress(PortEmpty, NoSendersError):
            raise ViolationError(f"one more came: {port.receive(timeout)!r}")
        port.close()


def _draw_responses(choose):
    return {"kill": draw_kill(choose, 0.5), "interrupt": choose.random() < 0.3}


@act(1, _draw_responses)
def responses(stage, *, kill, interrupt):
    """One answer to one question: the first that comes, or that none will."""
    started = []

    def ask(port):
        started.append(Isolate.spawn(bodies.send, port, 3, 2, ["int"], "return"))
        if kill:
            stage.kill_later(started[-1], kill)

    stage.counts["isolates"] += 2
    try:
        check(single_response(ask, timeout=LONG) == (3, 0, bodies.load("int", 3, 0)), "not the first response came")
    except NoSendersError:
        check(kill, "no response came")
    with SingleResponseChannel(timeout=LONG) as channel:
        ask(channel.send_port)
        done = interrupt and channel.interrupt("interrupted")
        try:
            result = channel.result()
            check(result == ("interrupted" if done else (3, 0, bodies.load("int", 3, 0))), f"{result!r} came")
        except NoSendersError:
            check(kill and not done, "no response came")
    for isolate in started:
        check(isolate.join(LONG), "an isolate did not end")


def _draw_complaints(choose):
    return {"count": choose.randint(0, 8), "kill": draw_kill(choose, 0.3)}


@act(1, _draw_complaints)
def complaints(stage, *, count, kill):
    """What handlers raise is told in order, and does not end the isolate that is told to go on."""
    with ReceivePort() as port, ReceivePort() as errors:
        isolate = Isolate.spawn(
            bodies.complain, port.send_port, count, on_error=errors.send_port, errors_are_fatal=False, paused=True
        )
        listed = isolate.errors
        isolate.resume(isolate.pause_capability)
        stage.counts["isolates"] += 1
        if kill:
            stage.kill_later(isolate, kill)
        try:
            peer = port.receive(LONG)
            for number in range(count + 1):
                peer.send(number)
        except (NoSendersError, PortClosedError):
            if not kill:
                raise
        check(isolate.join(LONG), "an isolate did not end")
        told = [text.rpartition(" ")[2] for text, _ in errors]
        seen = [error.text for error in listed]
        expected = [str(number) for number in range(count)]
        for got in (told, seen):
            check(got == expected[: len(got)] and (kill or len(got) == count), f"errors {got} of {expected} were told")
        check(all(isinstance(text, str) for text in seen) and RemoteError and IsolateKilledError, "")
