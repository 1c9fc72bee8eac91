"""Listening ports: who calls the handlers, in what order, and what they keep alive."""

import signal
import threading

import anyio
import pytest

from subiso import Isolate, PortClosedError, ReceivePort, Subscription

LONG = 20  # seconds: the bound of a wait that should be over at once


def count(port, n):
    for i in range(n):
        port.send(i)


class Collector:
    """A handler that keeps what it is given, and says when there is enough of it."""

    def __init__(self, wanted):
        self.seen = []
        self.threads = set()
        self._wanted = wanted
        self._enough = threading.Event()

    def __call__(self, message):
        self.threads.add(threading.current_thread())
        self.seen.append(message)
        if len(self.seen) == self._wanted:
            self._enough.set()

    def wait(self):
        assert self._enough.wait(LONG)
        return self.seen


# -- in main, without an event loop ------------------------------------------------------------------------------------


@pytest.mark.dart("co19/ReceivePort")
def test_handlers_are_called_in_order():
    """Without an event loop, main's handlers are called in order, on one thread that is not the main one."""
    handler = Collector(100)
    with ReceivePort() as port:
        subscription = port.listen(handler)
        assert isinstance(subscription, Subscription)
        Isolate.spawn(count, port.send_port, 100)
        assert handler.wait() == list(range(100))
    assert len(handler.threads) == 1
    assert threading.main_thread() not in handler.threads


def test_ports_share_the_thread():
    """The handlers of all listening ports are called on the same thread, one at a time."""
    one, other = Collector(50), Collector(50)
    with ReceivePort() as port, ReceivePort() as second:
        port.listen(one)
        second.listen(other)
        Isolate.spawn(count, port.send_port, 50)
        Isolate.spawn(count, second.send_port, 50)
        assert [one.wait(), other.wait()] == [list(range(50))] * 2
        assert one.threads == other.threads
        assert len(one.threads) == 1


@pytest.mark.dart("co19/ReceivePort")
def test_what_waits_already_is_handled():
    """Messages that came before `listen` are handled first."""
    handler = Collector(4)
    with ReceivePort() as port:
        count(port.send_port, 2)
        port.listen(handler)
        count(port.send_port, 2)
        assert handler.wait() == [0, 1, 0, 1]


@pytest.mark.dart("co19/ReceivePort")
def test_a_port_is_listened_to_by_one():
    """A port that is listened to cannot be received from, or listened to by another."""
    with ReceivePort() as port:
        subscription = port.listen(Collector(1))
        with pytest.raises(RuntimeError, match="listened to"):
            port.receive(0)
        with pytest.raises(RuntimeError, match="listened to"):
            port.listen(print)
        subscription.cancel()


@pytest.mark.dart(
    "lib/raw_port_test",
    "co19/RawReceivePort",
    differs=(
        "because there is one sort of receive port: its subscription is cancelled, and another handler given to "
        "`listen`"
    ),
)
def test_after_cancelling():
    """A cancelled subscription handles nothing more; the port can be received from, and listened to again."""
    with ReceivePort() as port:
        handler = Collector(1)
        subscription = port.listen(handler)
        assert subscription.active
        port.send_port.send(1)
        assert handler.wait() == [1]
        subscription.cancel()
        subscription.cancel()
        assert not subscription.active
        port.send_port.send(2)
        assert port.receive(LONG) == 2
        again = Collector(1)
        port.listen(again)
        port.send_port.send(3)
        assert again.wait() == [3]
        assert handler.seen == [1]


def test_pausing_and_resuming():
    """While a subscription is paused its messages queue; they are handled when it is resumed, and others meanwhile."""
    with ReceivePort() as port, ReceivePort() as other:
        handler, others = Collector(3), Collector(1)
        subscription = port.listen(handler)
        other.listen(others)
        subscription.pause()
        count(port.send_port, 3)
        other.send_port.send("other")
        assert others.wait() == ["other"]
        assert handler.seen == []
        assert subscription.active
        subscription.resume()
        assert handler.wait() == [0, 1, 2]


def test_a_handler_may_cancel_and_close():
    """A handler may cancel its subscription, or close its port, while it handles a message."""
    with ReceivePort() as port, ReceivePort() as done:

        def handle(message):
            seen.append(message)
            (port.close if message == "close" else subscription.cancel)()
            done.send_port.send(message)

        seen = []
        for message in ("cancel", "close"):
            subscription = port.listen(handle)
            port.send_port.send(message)
            assert done.receive(LONG) == message
        assert seen == ["cancel", "close"]
        with pytest.raises(PortClosedError):
            port.send_port.send("late")


def test_a_subscription_ends_with_the_senders():
    """When all senders have ended, the subscription ends, after the last message."""
    handler = Collector(3)
    with ReceivePort() as port:
        subscription = port.listen(handler)
        thread = next(one for one in threading.enumerate() if one.name == "subiso-listener")
        Isolate.spawn(count, port.send_port, 3)
        thread.join(LONG)
        assert not subscription.active
        assert handler.seen == [0, 1, 2]


def test_a_subscription_that_ends_is_over_for_main():
    """When nothing is listened to any more, the listening thread ends; the next `listen` starts another."""
    for _ in range(3):
        with ReceivePort() as port:
            handler = Collector(1)
            port.listen(handler)
            port.send_port.send(1)
            handler.wait()
        handler.threads.pop().join(LONG)


def test_an_error_in_a_handler_of_main(capsys):
    """What a handler of main's raises is printed, and the next message is handled."""
    with ReceivePort() as port, ReceivePort() as done:

        def handle(message):
            done.send_port.send(message)
            raise ValueError(f"error {message}")

        port.listen(handle)
        count(port.send_port, 2)
        assert [done.receive(LONG), done.receive(LONG)] == [0, 1]
        port.close()
        for thread in threading.enumerate():
            if thread.name == "subiso-listener":
                thread.join(LONG)
    printed = capsys.readouterr().err
    assert "ValueError: error 0" in printed
    assert "ValueError: error 1" in printed


@pytest.mark.parametrize("handler", [None, 3, "print"])
def test_a_handler_must_be_callable(handler):
    """A handler that is not callable is a TypeError that shows it."""
    with ReceivePort() as port, pytest.raises(TypeError, match="handler"):
        port.listen(handler)


def test_wrong_messages_do_not_end_a_subscription(capsys):
    """A message of the wrong type is an error of the handler's kind: printed, and the next one is handled."""
    handler = Collector(2)
    with ReceivePort(int) as port:
        port.listen(handler)
        for message in (1, "two", 3):
            port.send_port.send(message)
        assert handler.wait() == [1, 3]
    assert "MessageTypeError" in capsys.readouterr().err


# -- in isolates -------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/raw_port_test")
def test_an_isolate_lives_while_it_listens():
    """In an isolate, handlers are called on its own thread once the entry has returned; closing the port ends it."""

    def live(out):
        import threading

        mine, entry = ReceivePort(end_with_senders=False), threading.get_ident()

        def handle(message):
            out.send((message, threading.get_ident() == entry))
            if message == "close":
                mine.close()

        mine.listen(handle)
        out.send(mine.send_port)

    with ReceivePort() as out:
        isolate = Isolate.spawn(live, out.send_port)
        theirs = out.receive(LONG)
        for message in ("one", "two", "close"):
            theirs.send(message)
        assert list(out) == [("one", True), ("two", True), ("close", True)]
        assert isolate.join(LONG)


@pytest.mark.dart("lib/mint_maker_test")
def test_an_isolate_listens_to_several_ports():
    """An isolate serves all its listening ports until the last one is closed; handlers may open more of them."""

    def live(out):
        def listen_to(name):
            port = ReceivePort(end_with_senders=False)

            def handle(message):
                if message is None:
                    port.close()
                elif message == "open":
                    listen_to("third")
                else:
                    out.send((name, message))

            port.listen(handle)
            out.send(port.send_port)

        listen_to("first")
        listen_to("second")

    with ReceivePort() as out:
        isolate = Isolate.spawn(live, out.send_port)
        first, second = out.receive(LONG), out.receive(LONG)
        first.send(1)
        assert out.receive(LONG) == ("first", 1)
        second.send("open")
        third = out.receive(LONG)
        third.send(3)
        assert out.receive(LONG) == ("third", 3)
        first.send(None)
        second.send(None)
        third.send(4)
        assert out.receive(LONG) == ("third", 4)
        assert isolate.is_alive
        third.send(None)
        assert isolate.join(LONG)


def test_an_isolates_listening_ends_with_its_senders():
    """An isolate that listens ends when all senders of its port have ended."""

    def send_and_end(port):
        port.send("message")

    def live(out, send_and_end):
        mine = ReceivePort()
        mine.listen(out.send)
        Isolate.spawn(send_and_end, mine.send_port)

    with ReceivePort() as out:
        isolate = Isolate.spawn(live, out.send_port, send_and_end)
        assert list(out) == ["message"]
        assert isolate.join(LONG)


@pytest.mark.dart("lib/raw_port_test")
def test_a_cancelled_subscription_lets_its_isolate_end():
    """An isolate whose only subscription is cancelled ends, though its port is open."""

    def live(out):
        mine = ReceivePort(end_with_senders=False)
        subscription = mine.listen(lambda _: subscription.cancel())
        out.send(mine.send_port)

    with ReceivePort() as out:
        isolate = Isolate.spawn(live, out.send_port)
        out.receive(LONG).send("cancel")
        assert isolate.join(LONG)


def test_run_waits_for_listening_ports():
    """`run` gives its result when the isolate has ended: listening ports are served first."""

    def work(out):
        mine, seen = ReceivePort(end_with_senders=False), []

        def handle(message):
            seen.append(message)
            if len(seen) == 3:
                mine.close()

        mine.listen(handle)
        out.send(mine.send_port)
        return seen

    with ReceivePort() as out:
        future = Isolate.run(work, out.send_port)
        count(out.receive(LONG), 3)
        assert future.result(LONG) == [0, 1, 2]


# -- on event loops ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_handlers_on_the_running_loop(asynchronous):
    """Where an event loop runs, handlers are called on it, in order; coroutine functions are awaited, one at a time."""
    with anyio.fail_after(LONG):
        seen, running, enough = [], [], anyio.Event()

        def handle(message):
            assert threading.current_thread() is loop
            seen.append(message)
            if len(seen) == 50:
                enough.set()

        async def handle_later(message):
            running.append(message)
            await anyio.lowlevel.checkpoint()
            assert running == [message]
            running.clear()
            handle(message)

        loop = threading.current_thread()
        async with ReceivePort() as port:
            port.listen(handle_later if asynchronous else handle)
            Isolate.spawn(count, port.send_port, 50)
            await enough.wait()
        assert seen == list(range(50))


@pytest.mark.anyio
async def test_subscriptions_on_the_running_loop():
    """On an event loop, too, a subscription can be paused, resumed and cancelled, and the port be listened to again."""
    with anyio.fail_after(LONG):
        seen = []
        async with ReceivePort() as port:
            subscription = port.listen(seen.append)
            subscription.pause()
            count(port.send_port, 2)
            await anyio.wait_all_tasks_blocked()
            assert seen == []
            subscription.resume()
            await anyio.wait_all_tasks_blocked()
            assert seen == [0, 1]
            subscription.cancel()
            await anyio.wait_all_tasks_blocked()
            port.send_port.send("later")
            assert await port.areceive() == "later"
            port.listen(seen.append)
            port.send_port.send("again")
            await anyio.wait_all_tasks_blocked()
            assert seen == [0, 1, "again"]
        await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
async def test_an_error_in_a_handler_on_the_loop(capsys):
    """What a handler raises on main's event loop is printed, and the next message is handled."""
    with anyio.fail_after(LONG):
        seen = []

        async def handle(message):
            seen.append(message)
            raise ValueError(f"error {message}")

        async with ReceivePort() as port:
            port.listen(handle)
            count(port.send_port, 2)
            await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
    assert seen == [0, 1]
    printed = capsys.readouterr().err
    assert "ValueError: error 0" in printed
    assert "ValueError: error 1" in printed


def test_listening_in_an_asynchronous_isolate():
    """A coroutine entry's isolate lives on while a port is listened to on its loop."""

    async def live(out):
        mine = ReceivePort(end_with_senders=False)

        async def handle(message):
            out.send(message)
            if message == "close":
                mine.close()

        mine.listen(handle)
        out.send(mine.send_port)

    with ReceivePort() as out:
        isolate = Isolate.spawn(live, out.send_port)
        theirs = out.receive(LONG)
        theirs.send("one")
        theirs.send("close")
        assert list(out) == ["one", "close"]
        assert isolate.join(LONG)


@pytest.mark.parametrize("fatal", [True, False])
def test_errors_in_an_asynchronous_isolate(fatal):
    """An error in a handler on an isolate's event loop is an uncaught error: fatal, or not."""

    async def live(out):
        mine = ReceivePort(end_with_senders=False)

        async def handle(message):
            if message == "close":
                mine.close()
            else:
                raise ValueError(message)

        mine.listen(handle)
        out.send(mine.send_port)

    with ReceivePort() as out, ReceivePort() as errors:
        isolate = Isolate.spawn(live, out.send_port, on_error=errors.send_port, errors_are_fatal=fatal)
        theirs = out.receive(LONG)
        theirs.send("one")
        text, traceback = errors.receive(LONG)
        assert text == "ValueError: one"
        assert "in handle" in traceback
        if not fatal:
            theirs.send("close")
        assert isolate.join(LONG)
        assert list(errors) == []


# -- the program -------------------------------------------------------------------------------------------------------

LISTENING = """
    from subiso import Isolate, ReceivePort

    def work(port):
        for i in range(3):
            port.send(i)

    port = ReceivePort()
    port.listen(print)
    Isolate.spawn(work, port.send_port)
"""


def test_a_listening_port_keeps_the_program_alive(script):
    """A program whose main port is listened to goes on after its last line, and ends with the senders."""
    program = script(LISTENING)
    assert (program.returncode, program.out, program.err) == (0, "0\n1\n2\n", "")


def test_a_program_that_listens_for_ever(start):
    """A program that listens to a port which does not end stays alive, and Ctrl-C ends it."""
    program = start(
        """
        from subiso import ReceivePort

        port = ReceivePort(end_with_senders=False)
        port.listen(lambda message: print(message, flush=True))
        port.send_port.send("listening")
        """
    )
    program.expect("listening")
    program.wait_until_main_thread_sleeps()
    assert program.poll() is None
    program.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in program.finish().err
