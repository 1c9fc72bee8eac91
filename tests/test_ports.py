"""Ports: sending, receiving, bounds, types, closing, and the end with the senders."""

import gc
import math
import os
import queue
import selectors
import threading
from time import monotonic, thread_time

import pytest

from subiso import (
    Isolate,
    MessageTypeError,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    PortFull,
    ReceivePort,
    SendError,
    SendPort,
    select,
)
from subiso._kernel.arena import NOBODY

LONG = 20  # seconds: the bound of a wait that should be over at once


def until(condition):
    """Wait until another thread has got so far."""
    deadline = monotonic() + LONG
    while not condition():
        assert monotonic() < deadline
        os.sched_yield()


def in_thread(function, *args):
    """Start a thread whose `result()` is what the function returned or raised."""
    outcome = []

    def call():
        try:
            outcome.append(function(*args))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, name="test-thread")
    thread.start()

    def result():
        thread.join(LONG)
        return outcome[0]

    thread.result = result
    return thread


def count(port, n):
    for i in range(n):
        port.send(i)


def echo(port):
    """Send back every message, until it is None."""
    with ReceivePort(end_with_senders=False) as mine:
        port.send(mine.send_port)
        while (message := mine.receive()) is not None:
            port.send(message)


def outcome_of_send(port, message, *timeout):
    try:
        port.send(message, *timeout)
    except Exception as error:
        return type(error).__name__
    return "sent"


# -- sending and receiving ---------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/isolate_complex_messages_test", "co19/SendPort")
def test_messages_arrive_in_order():
    """Messages of one sender arrive in the order of sending."""
    with ReceivePort() as port:
        Isolate.spawn(count, port.send_port, 1000)
        assert list(range(1000)) == [port.receive(LONG) for _ in range(1000)]


@pytest.mark.dart("lib/simple_message_test", "lib/count_test", "lib/request_reply_test")
def test_there_and_back():
    """An isolate's own port takes messages from main."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(echo, port.send_port)
        theirs = port.receive(LONG)
        for message in (1, "two", b"three", [4, {"five": (6.0, None)}], True):
            theirs.send(message)
            back = port.receive(LONG)
            assert (message, type(message)) == (back, type(back))
        theirs.send(None)
        assert isolate.join(LONG)


def test_sending_to_oneself():
    """A port takes messages from its own isolate, as copies."""
    with ReceivePort() as port:
        message = [1, [2]]
        port.send_port.send(message)
        copy = port.receive(LONG)
        assert message == copy
        assert message[1] is not copy[1]


@pytest.mark.parametrize("timeout", [0, 0.0, 0.001])
def test_receive_in_time_or_not_at_all(timeout):
    """With no message in time, `receive` raises PortEmpty, which is a TimeoutError and a queue.Empty."""
    with ReceivePort() as port:
        with pytest.raises(PortEmpty) as caught:
            port.receive(timeout)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, queue.Empty)
        port.send_port.send(1)
        assert port.receive(timeout) == 1


def test_receive_nowait():
    """`receive_nowait` takes what waits, and raises PortEmpty where nothing does."""
    with ReceivePort() as port:
        with pytest.raises(PortEmpty):
            port.receive_nowait()
        port.send_port.send(1)
        assert port.receive_nowait() == 1


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, -math.inf])
@pytest.mark.parametrize("messages", [0, 1])
def test_timeouts_that_mean_nothing(timeout, messages):
    """A negative timeout, or one that is no number, is a ValueError, whether a message waits or not."""
    with ReceivePort() as port:
        for _ in range(messages):
            port.send_port.send(None)
        with pytest.raises(ValueError, match="timeout"):
            port.receive(timeout)
        with pytest.raises(ValueError, match="timeout"):
            port.send_port.send(1, timeout)
        with pytest.raises(ValueError, match="timeout"):
            select(port, timeout=timeout)
        assert [port.receive(0) for _ in range(messages)] == [None] * messages


def test_receive_waits_as_long_as_it_must():
    """Without a timeout, or with an endless one, `receive` waits until something comes."""
    for timeout in (None, math.inf):
        with ReceivePort() as port:
            receiver = in_thread(port.receive, timeout)
            until(lambda port=port: port._inbox.waiters)
            port.send_port.send("came")
            assert receiver.result() == "came"


def test_waiting_burns_no_cpu():
    """A blocked receiver uses no processor time."""
    with ReceivePort() as port:
        before = thread_time()
        with pytest.raises(PortEmpty):
            port.receive(0.2)
        assert thread_time() - before < 0.1


def test_threads_share_a_port():
    """Several threads may receive from one port; each message goes to one of them."""

    def take(port, n):
        return [port.receive(LONG) for _ in range(n)]

    with ReceivePort() as port:
        receivers = [in_thread(take, port, 100) for _ in range(4)]
        Isolate.spawn(count, port.send_port, 400)
        assert list(range(400)) == sorted(number for one in receivers for number in one.result())


def test_several_threads_wait_for_several_ports():
    """Each blocked thread is woken by the message that is for it, whichever thread noticed it."""
    ports = [ReceivePort(end_with_senders=False) for _ in range(5)]
    receivers = [in_thread(port.receive, LONG) for port in ports]
    until(lambda: all(port._inbox.waiters for port in ports))
    for number in (3, 0, 4, 2, 1):
        Isolate.run(SendPort.send, ports[number].send_port, number).result(LONG)
        assert receivers[number].result() == number
    for port in ports:
        port.close()


@pytest.mark.dart("lib/large_byte_data_test")
@pytest.mark.parametrize("size", [1 << 18, 1 << 20])
def test_big_messages(size):
    """Big messages arrive as they were, from main to an isolate and back."""
    data = os.urandom(1 << 16) * (size >> 16)
    with ReceivePort() as port:
        Isolate.spawn(echo, port.send_port)
        theirs = port.receive(LONG)
        for message in (data, [data, "beside", data[:100]]):
            theirs.send(message)
            assert message == port.receive(LONG)
        theirs.send(None)


def test_messages_outlive_their_sender():
    """What an isolate sent can be received after it has ended, however much it is."""

    def send(port):
        count(port, 10_000)
        port.send(b"x" * 1_000_000)

    with ReceivePort() as port:
        assert Isolate.spawn(send, port.send_port).join(LONG)
        assert list(range(10_000)) == [port.receive(0) for _ in range(10_000)]
        assert len(port.receive(0)) == 1_000_000
        with pytest.raises(NoSendersError):
            port.receive(0)


def test_a_recycled_interpreter_gets_no_old_post():
    """What was sent to the port of an isolate that has ended does not reach the next isolate in its place."""

    def open_one(port):
        mine = ReceivePort(end_with_senders=False)
        port.send(mine.send_port)
        if port.send(Isolate.current()._slot) is None and len(sys.argv) > 10_000:
            mine.receive()

    import sys

    def receive_all(port):
        mine = ReceivePort(end_with_senders=False)
        port.send(mine.send_port)
        port.send(mine.receive(LONG))
        try:
            port.send(mine.receive(0))
        except PortEmpty:
            port.send("nothing else")

    with ReceivePort() as port:
        first = Isolate.spawn(open_one, port.send_port)
        old, slot = port.receive(LONG), port.receive(LONG)
        for i in range(100):
            outcome_of_send(old, i)
        first.join(LONG)
        while True:  # the interpreter used last is lent first, as soon as it is ready again
            second = Isolate.spawn(receive_all, port.send_port)
            new = port.receive(LONG)
            with pytest.raises(PortClosedError):
                old.send("old")
            new.send("new")
            assert [port.receive(LONG), port.receive(LONG)] == ["new", "nothing else"]
            if second._slot == slot:
                break


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_full_port_refuses():
    """A full port raises PortFull at once or after the timeout; that is a TimeoutError and a queue.Full."""
    with ReceivePort(maxsize=2) as port:
        port.send_port.send(1)
        port.send_port.send_nowait(2)
        for send in (
            port.send_port.send_nowait,
            lambda _: port.send_port.send(3, 0),
            lambda _: port.send_port.send(3, 0.01),
        ):
            with pytest.raises(PortFull) as caught:
                send(3)
            assert isinstance(caught.value, TimeoutError)
            assert isinstance(caught.value, queue.Full)
        assert port.receive(LONG) == 1
        port.send_port.send_nowait(3)
        assert [port.receive(0), port.receive(0)] == [2, 3]
        with pytest.raises(PortEmpty):
            port.receive(0)


def test_a_full_port_blocks_its_sender_until_there_is_room():
    """A sender in a full port goes on as soon as a message has been received."""
    with ReceivePort(maxsize=3) as port:
        isolate = Isolate.spawn(count, port.send_port, 500)
        until(lambda: port._node.mailbox.pump() or len(port._inbox.messages) == 3)
        assert isolate.is_alive
        assert list(port) == list(range(500))


def test_a_full_port_holds_back_many_senders():
    """Never do more messages wait than maxsize says, and none is lost, whoever sends."""
    with ReceivePort(maxsize=5) as port:
        for _ in range(3):
            Isolate.spawn(count, port.send_port, 200)
        received = []
        for message in port:
            received.append(message)
            port._node.mailbox.pump()
            assert len(port._inbox.messages) <= 5
    assert sorted([*range(200)] * 3) == sorted(received)


def test_closing_wakes_a_blocked_sender():
    """A sender that is blocked in a full port gets PortClosedError when the port is closed."""
    with ReceivePort(maxsize=1) as port, ReceivePort() as ready:

        def fill(port, ready):
            port.send(1)
            ready.send("full")
            return outcome_of_send(port, 2)

        future = Isolate.run(fill, port.send_port, ready.send_port)
        ready.receive(LONG)
        with pytest.raises(TimeoutError):
            future.result(0.02)
        port.close()
        assert future.result(LONG) == "PortClosedError"


def test_the_end_of_an_isolate_wakes_a_blocked_sender():
    """A sender that is blocked in a full port of another isolate gets PortClosedError when that isolate ends."""

    def own(port):
        mine = ReceivePort(maxsize=1)
        port.send(mine.send_port)
        ReceivePort(end_with_senders=False).receive()

    with ReceivePort() as port:
        owner = Isolate.spawn(own, port.send_port)
        bounded = port.receive(LONG)
        bounded.send(1)
        sender = in_thread(outcome_of_send, bounded, 2)
        owner.kill()
        assert sender.result() == "PortClosedError"


def test_a_bounded_port_after_a_bounded_port():
    """A bounded port that is opened where a closed one was has its own bound."""
    for maxsize in (1, 3, 2):
        with ReceivePort(maxsize=maxsize) as port:
            for i in range(maxsize):
                port.send_port.send_nowait(i)
            with pytest.raises(PortFull):
                port.send_port.send_nowait("too much")


def test_what_cannot_be_sent_takes_no_room():
    """A message that cannot be sent does not take up room in a bounded port."""
    with ReceivePort(maxsize=1) as port:
        with pytest.raises(SendError):
            port.send_port.send(threading.Lock())
        port.send_port.send_nowait("fits")
        assert port.receive(0) == "fits"


@pytest.mark.parametrize("maxsize", [-1, 1.5, "1", None])
def test_bounds_that_mean_nothing(maxsize):
    """A maxsize that is negative or no int is an error."""
    with pytest.raises((TypeError, ValueError), match="maxsize"):
        ReceivePort(maxsize=maxsize)


# -- types -------------------------------------------------------------------------------------------------------------


def test_a_typed_port_refuses_another_type_and_goes_on():
    """A message of the wrong type raises MessageTypeError and is consumed; the next one comes."""

    def send(port):
        for message in (1, "two", 3):
            port.send(message)

    with ReceivePort(int) as port:
        Isolate.spawn(send, port.send_port)
        assert port.receive(LONG) == 1
        with pytest.raises(MessageTypeError):
            port.receive(LONG)
        assert port.receive(LONG) == 3


def test_a_wrong_message_leaves_the_loop():
    """A wrong message leaves a `for` loop as an error, consumed; iterating again gives the next one."""
    with ReceivePort(int) as port:
        for message in (1, "two", 3, 4):
            port.send_port.send(message)
        seen = []
        with pytest.raises(MessageTypeError):
            for message in port:
                seen.append(message)
        for message in port:
            seen.append(message)
            if message == 4:
                break
        assert seen == [1, 3, 4]


def test_a_wrong_message_gives_its_room_back():
    """A message of the wrong type, once consumed, takes up no room in a bounded port."""
    with ReceivePort(int, maxsize=1) as port:
        port.send_port.send("one")
        with pytest.raises(MessageTypeError):
            port.receive(0)
        port.send_port.send_nowait(1)
        assert port.receive(0) == 1


# -- closing -----------------------------------------------------------------------------------------------------------


@pytest.mark.dart(
    "co19/ReceivePort",
    differs=(
        "because a receive port is an iterable, also asynchronously: Python's comprehensions and itertools are a "
        "stream's operations; and a send to a closed port raises `PortClosedError`, where Dart drops the message"
    ),
)
def test_a_closed_port_takes_nothing_and_gives_nothing():
    """Sending to and receiving from a closed port raise PortClosedError; closing it again does nothing."""
    port = ReceivePort()
    assert not port.closed
    port.send_port.send(1)
    port.close()
    port.close()
    assert port.closed
    with pytest.raises(PortClosedError):
        port.send_port.send(2)
    with pytest.raises(PortClosedError):
        port.send_port.send_nowait(2)
    for timeout in (None, 0, 1):
        with pytest.raises(PortClosedError):
            port.receive(timeout)
    with pytest.raises(PortClosedError):
        port.listen(print)
    with pytest.raises(PortClosedError):
        port.fileno()
    with pytest.raises(PortClosedError):
        select(port)
    assert list(port) == []


@pytest.mark.dart(
    "co19/SendPort",
    differs=(
        "because a send to a port that is known to be closed raises `PortClosedError`, where Dart drops the message"
    ),
)
def test_a_closed_port_of_another_isolate():
    """Sending to a port that its isolate has closed, or left by ending, raises PortClosedError."""

    def open_and_close(port):
        with ReceivePort() as closed:
            port.send(closed.send_port)
        port.send("closed")
        left = ReceivePort()
        port.send(left.send_port)

    with ReceivePort() as port:
        isolate = Isolate.spawn(open_and_close, port.send_port)
        closed, _, left = (port.receive(LONG) for _ in range(3))
        with pytest.raises(PortClosedError):
            closed.send(1)
        assert isolate.join(LONG)
        with pytest.raises(PortClosedError):
            left.send(1)


def test_a_port_closed_by_main_is_closed_for_isolates():
    """Sending from an isolate to a port that main has closed raises PortClosedError there."""
    port = ReceivePort()
    port.close()
    assert Isolate.run(outcome_of_send, port.send_port, 1).result(LONG) == "PortClosedError"


def test_closing_wakes_a_receiver():
    """A thread that waits in `receive` gets PortClosedError when another closes the port; iteration ends."""
    port = ReceivePort()
    receiver = in_thread(port.receive)
    until(lambda: port._inbox.waiters)
    port.close()
    assert isinstance(receiver.result(), PortClosedError)
    port = ReceivePort()
    iterating = in_thread(list, port)
    until(lambda: port._inbox.waiters)
    port.close()
    assert iterating.result() == []


def send_when_told(boot, port):
    with ReceivePort(end_with_senders=False) as orders:
        boot.send(orders.send_port)
        port.send(orders.receive())


@pytest.mark.parametrize("timeout", [None, LONG])
def test_a_port_that_is_handed_on_is_waited_for(monkeypatch, timeout):
    """The end of a sender may be seen before the news that it has handed the port on: the wait goes on."""
    with ReceivePort() as boot, ReceivePort() as port:
        isolate = Isolate.spawn(send_when_told, boot.send_port, port.send_port)
        orders, inbox, mailbox = boot.receive(LONG), port._inbox, port._node.mailbox
        settle, holders = mailbox.settle, inbox.holders

        def news_come():
            monkeypatch.undo()
            inbox.holders = holders
            orders.send("handed on")
            settle()

        monkeypatch.setattr(mailbox, "settle", news_come)
        inbox.holders = {NOBODY}
        assert port.receive(timeout) == "handed on"
        assert isolate.join(LONG)


def test_a_port_is_forgotten_at_any_time():
    """The garbage collector may find a port while this very thread is at the mailbox: nothing deadlocks."""

    class Circle:
        def __init__(self):
            self.me, self.port = self, ReceivePort()

    circle = Circle()
    send_port, mailbox = circle.port.send_port, circle.port._node.mailbox
    with mailbox._lock:
        del circle
        gc.collect()
    with pytest.raises(PortClosedError):
        send_port.send(1)
    with ReceivePort():
        assert not mailbox._forgotten
        assert send_port._address not in mailbox.inboxes


def test_a_forgotten_port_is_closed():
    """A receive port that nobody holds any more is closed."""
    port = ReceivePort()
    send_port = port.send_port
    del port
    with pytest.raises(PortClosedError):
        send_port.send(1)


def test_the_next_port_in_the_same_place_is_another():
    """A send port of a closed port is not one of the port that is opened next."""
    with ReceivePort() as first:
        old = first.send_port
    with ReceivePort() as second:
        assert old != second.send_port
        with pytest.raises(PortClosedError):
            old.send(1)
        with pytest.raises(PortEmpty):
            second.receive(0)


# -- the end with the senders ------------------------------------------------------------------------------------------


def test_a_port_ends_with_its_senders():
    """When all isolates that were given the send port have ended, iteration stops and `receive` says so."""
    with ReceivePort() as port:
        for _ in range(3):
            Isolate.spawn(count, port.send_port, 3)
        assert sorted(port) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert list(port) == []
        for timeout in (None, 0, 1):
            with pytest.raises(NoSendersError) as caught:
                port.receive(timeout)
            assert isinstance(caught.value, EOFError)
        assert not port.closed


def test_a_port_given_to_nobody_does_not_end():
    """A port whose send port was given to nobody is empty, not at its end."""
    with ReceivePort() as port, pytest.raises(PortEmpty):
        port.receive(0)


def test_a_port_starts_anew():
    """A port that has ended goes on when its send port is given to another isolate."""
    with ReceivePort() as port:
        for n in (1, 2, 3):
            Isolate.spawn(count, port.send_port, n)
            assert list(port) == list(range(n))


def test_a_port_that_does_not_end():
    """With end_with_senders=False a port goes on when all senders have ended."""
    with ReceivePort(end_with_senders=False) as port:
        assert Isolate.spawn(count, port.send_port, 1).join(LONG)
        assert port.receive(LONG) == 0
        for timeout in (0, 0.01):
            with pytest.raises(PortEmpty):
                port.receive(timeout)
        port.send_port.send("still open")
        assert port.receive(0) == "still open"


def forward(port, levels):
    """Give the port to another isolate, that one to another, and so on; only the last one sends."""
    if levels:
        Isolate.spawn(forward, port, levels - 1)
    else:
        port.send("from the last")


@pytest.mark.dart("lib/unresolved_ports_test")
def test_a_forwarded_port_waits_for_the_last():
    """A port lives on with those that were given its send port by others, when these have ended."""
    with ReceivePort() as port:
        Isolate.spawn(forward, port.send_port, 2)
        assert list(port) == ["from the last"]


def test_a_port_handed_over_and_kept_for_later():
    """A port that A gave to B by message belongs to B too: it ends when both have ended."""

    def hand_over(mine, other):
        other.send(["take", {"this": mine}])

    def take(out):
        with ReceivePort(end_with_senders=False) as port:
            out.send(port.send_port)
            out.send("took it")
            taken = port.receive()[1]["this"]
            assert port.receive() == "go on"
            taken.send("late")

    with ReceivePort() as out, ReceivePort() as port:
        last = Isolate.spawn(take, out.send_port)
        theirs = out.receive(LONG)
        assert Isolate.spawn(hand_over, port.send_port, theirs).join(LONG)
        with pytest.raises(PortEmpty):
            port.receive(0)
        theirs.send("go on")
        assert list(port) == ["late"]
        assert last.join(LONG)


@pytest.mark.dart("lib/cross_isolate_message_test")
def test_what_was_sent_before_arrives_before():
    """A token goes round three isolates; each reports its turns, and the reports arrive in the order of the turns."""

    def take_turns(reports, tell):
        with ReceivePort(end_with_senders=False) as turns:
            tell.send(turns.send_port)
            following = turns.receive()
            for turn in turns:
                reports.send(turn)
                if following is not None:
                    following.send(turn + 1)
                if turn >= 2997:
                    return

    with ReceivePort(end_with_senders=False) as reports, ReceivePort(end_with_senders=False) as ring:
        isolates, places = [], []
        for _ in range(3):
            isolates.append(Isolate.spawn(take_turns, reports.send_port, ring.send_port))
            places.append(ring.receive(LONG))
        for place, following in zip(places, [*places[1:], places[0]], strict=True):
            place.send(following)
        places[0].send(0)
        assert [reports.receive(LONG) for _ in range(3000)] == [*range(3000)]
        for isolate in isolates:
            isolate.kill()
            assert isolate.join(LONG)


def test_a_port_given_to_many():
    """A port forgets the isolates that have ended: it knows those that still live, and not much more."""
    with ReceivePort() as port:
        for _ in range(50):
            Isolate.run(outcome_of_send, port.send_port, 1).result(LONG)
        assert len(list(port)) == 50
        assert len(port._inbox.holders) < 10


def test_the_end_comes_after_the_last_message():
    """However fast an isolate ends after it has sent, its message is received before the end."""
    with ReceivePort() as port:
        for _ in range(50):
            Isolate.spawn(count, port.send_port, 1)
            assert list(port) == [0]


# -- send ports as values ----------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/port_test", "co19/SendPort")
def test_send_ports_are_equal_across_isolates():
    """A send port comes back equal, with the same hash, from anywhere inside a message."""

    def give_back(message):
        port = message["deep"][0][1]
        return {port: [port, (port, {port})], "same": port == message["key"], "hash": hash(port)}

    with ReceivePort() as one, ReceivePort() as other:
        port = one.send_port
        back = Isolate.run(give_back, {"deep": [(0, port)], "key": port}).result(LONG)
        assert back == {port: [port, (port, {port})], "same": True, "hash": hash(port)}
        assert port == one.send_port
        assert port != other.send_port
        assert len({port, one.send_port, other.send_port}) == 2
        assert port != object()


@pytest.mark.dart("lib/unresolved_ports_test")
def test_a_send_port_that_came_back_sends():
    """A send port that has been through other isolates still sends to its receive port."""
    with ReceivePort(maxsize=1) as port:
        back = Isolate.run(lambda port: [port], port.send_port).result(LONG)[0]
        back.send("round trip")
        with pytest.raises(PortFull):
            back.send_nowait("too much")
        assert port.receive(0) == "round trip"


def test_send_ports_come_from_receive_ports_only():
    """A SendPort cannot be made by hand."""
    with pytest.raises(TypeError, match="send_port"):
        SendPort()


@pytest.mark.dart("lib/illegal_msg_function_test", "co19/SendPort")
def test_receive_ports_cannot_be_sent():
    """A ReceivePort cannot be sent, and the error says what to send instead; nothing arrives."""
    with ReceivePort() as port, ReceivePort() as other:
        with pytest.raises(SendError, match="send_port"):
            port.send_port.send({"port": [other]})
        with pytest.raises(PortEmpty):
            port.receive(0)


def test_futures_cannot_be_sent():
    """An IsolateFuture cannot be sent; nothing arrives."""
    with ReceivePort() as port:
        future = Isolate.run(int)
        with pytest.raises(SendError, match="IsolateFuture"):
            port.send_port.send([future])
        with pytest.raises(PortEmpty):
            port.receive(0)
        assert future.result(LONG) == 0


def test_names_for_people():
    """A port's repr has its name, and says when it is closed."""
    with ReceivePort(name="parser") as port:
        assert repr(port) == "<ReceivePort 'parser'>"
        assert "SendPort" in repr(port.send_port)
    assert repr(port) == "<ReceivePort 'parser' closed>"


# -- many ports at once ------------------------------------------------------------------------------------------------


def test_select_finds_the_port_that_has_a_message():
    """`select` returns the first port with a message, of those named the first."""
    with ReceivePort() as one, ReceivePort() as two, ReceivePort() as three:
        three.send_port.send(3)
        assert select(one, two, three, timeout=0) is three
        two.send_port.send(2)
        assert select(one, two, three, timeout=0) is two
        assert [three.receive(0), two.receive(0)] == [3, 2]
        for timeout in (0, 0.01):
            with pytest.raises(PortEmpty):
                select(one, two, three, timeout=timeout)


def test_select_over_several_isolates():
    """`select` takes turns between isolates as their messages come, and ends with their ends."""
    ports = {ReceivePort(): [] for _ in range(3)}
    for i, port in enumerate(ports):
        Isolate.spawn(count, port.send_port, 10 * (i + 1))
    left = list(ports)
    while left:
        port = select(*left, timeout=LONG)
        try:
            ports[port].append(port.receive(0))
        except NoSendersError:
            left.remove(port)
            port.close()
    assert [list(range(10)), list(range(20)), list(range(30))] == list(ports.values())


@pytest.mark.parametrize("arguments", [(), (1,), (None, ReceivePort)])
def test_select_takes_receive_ports(arguments):
    """`select` without a port, or with something else, is an error."""
    with pytest.raises((TypeError, ValueError), match="port"):
        select(*arguments)


def test_fileno_is_readable_while_something_waits():
    """The descriptor of a port is readable exactly while a message waits, or once nothing more will come."""
    with ReceivePort() as port, selectors.DefaultSelector() as selector:
        port.send_port.send("before")
        selector.register(port, selectors.EVENT_READ)
        assert port.fileno() == port.fileno()
        assert selector.select(LONG)
        assert port.receive(0) == "before"
        assert not selector.select(0)
        isolate = Isolate.spawn(count, port.send_port, 3)
        received = []
        while True:
            assert selector.select(LONG)
            try:
                received.append(port.receive_nowait())
            except PortEmpty:
                continue
            except NoSendersError:
                break
        assert received == [0, 1, 2]
        assert isolate.join(LONG)
        assert selector.select(0)
        selector.unregister(port)
