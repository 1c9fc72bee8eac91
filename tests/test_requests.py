"""Requests: messages that are answered, by a value, an error, or not at all."""

import threading

import anyio
import pytest

from subiso import (
    Isolate,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    ReceivePort,
    RemoteError,
    RemoteTraceback,
    Request,
    SendError,
)
from subiso._kernel import node as nodes
from subiso._kernel import protocol

LONG = 20  # seconds: the bound of a wait that should be over at once


class Unsendable(Exception):
    def __reduce__(self):
        raise TypeError("no")


def serve(boot):
    """Answer requests in various ways, until asked to end."""
    with ReceivePort(end_with_senders=False) as port:
        boot.send(port.send_port)
        for request in port:
            what, *more = request.message if isinstance(request.message, tuple) else (request.message,)
            if what == "end":
                return
            if what == "keep":  # say so, unanswered
                more[0].send(request)
            elif what == "fail":
                try:
                    raise more[0]
                except Exception as error:
                    request.fail(error)
            elif what == "fail unsendable":
                request.fail(Unsendable("its text"))
            elif what == "fail with nothing":
                try:
                    request.fail("text")
                except TypeError as error:
                    request.reply(str(error))
            elif what == "reply twice":
                request.reply(1)
                for again in (request.reply, request.fail):
                    try:
                        again(KeyError("again"))
                    except RuntimeError as error:
                        more[0].send(error)
            elif what == "reply a lock":
                try:
                    request.reply({"key": threading.Lock()})
                except SendError as error:
                    request.fail(error)
            else:
                request.reply((type(request), request.message, Isolate.current()))


@pytest.fixture
def server():
    """Give the port of an isolate that serves, and the isolate."""
    with ReceivePort() as boot, Isolate.spawn(serve, boot.send_port) as isolate:
        yield boot.receive(LONG), isolate


@pytest.mark.dart("lib/request_reply_test")
def test_a_reply_comes_back(server):
    """What arrives is a Request that holds the message; its reply is what `request` returns."""
    port, isolate = server
    assert port.request({"a": [1]}) == (Request, {"a": [1]}, isolate)
    assert port.request(None, timeout=LONG) == (Request, None, isolate)
    assert isinstance(port.request(bytes(10**6), LONG)[1], bytes)


async def test_a_reply_comes_back_to_a_loop(server, anyio_backend):
    """`arequest` waits in the event loop; several requests wait at once."""
    port, _ = server
    answers = {}

    async def ask(number):
        answers[number] = (await port.arequest(number))[1]

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(ask, number)
    assert answers == {number: number for number in range(10)}


@pytest.mark.dart("package/ports_test")
def test_an_error_comes_back(server):
    """An error is raised at the asker as itself, with its traceback over there as its cause."""
    port, _ = server
    with pytest.raises(KeyError, match="key") as caught:
        port.request(("fail", KeyError("key")), LONG)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in serve" in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [PortEmpty("mine"), NoSendersError("mine"), PortClosedError("mine")])
async def test_the_errors_of_ports_come_back_too(server, error, anyio_backend):
    """An error that a port might raise by itself is no different from others."""
    port, _ = server
    with pytest.raises(type(error), match="mine"):
        port.request(("fail", error), LONG)
    with pytest.raises(type(error), match="mine"):
        await port.arequest(("fail", error))


def test_an_error_that_cannot_be_sent(server):
    """In its place comes a RemoteError."""
    port, _ = server
    with pytest.raises(RemoteError, match="Unsendable: its text"):
        port.request("fail unsendable", LONG)


def test_only_exceptions_fail(server):
    """`fail` wants an exception; after its TypeError the request can still be answered."""
    port, _ = server
    assert port.request("fail with nothing", LONG) == "a request fails with an exception, not 'text'"


def test_an_answer_is_given_once(server):
    """A second answer is a RuntimeError at the answerer; the asker gets the first."""
    port, _ = server
    with ReceivePort() as errors:
        assert port.request(("reply twice", errors.send_port), LONG) == 1
        for _ in range(2):
            assert "answered already" in str(errors.receive(LONG))


def test_a_reply_that_cannot_be_sent(server):
    """It is a SendError at the answerer, in its words, and the request can still be answered."""
    port, _ = server
    with pytest.raises(SendError, match=r"^value\['key'\]: "):
        port.request("reply a lock", LONG)


def test_a_message_that_cannot_be_sent(server):
    """It is a SendError in the asker's words."""
    port, _ = server
    with pytest.raises(SendError, match=r"^message\['key'\]: "):
        port.request({"key": threading.Lock()})


def test_a_server_that_ends(server):
    """Whoever waits for the answer of an isolate that ends gets NoSendersError at once."""
    port, isolate = server
    with pytest.raises(NoSendersError, match="without a reply"):
        port.request("end")
    assert isolate.join(LONG)
    with pytest.raises(PortClosedError):
        port.request("too late")


async def test_a_server_that_is_killed(server, anyio_backend):
    """The same for one that is killed, and in an event loop."""
    port, isolate = server
    with ReceivePort() as kept:
        async with anyio.create_task_group() as tasks:

            async def ask():
                with pytest.raises(NoSendersError, match="without a reply"):
                    await port.arequest(("keep", kept.send_port))

            tasks.start_soon(ask)
            request = await kept.areceive()
            isolate.kill()
        assert request.reply(1) is False


def test_a_time_out(server):
    """The wait is limited; an answer that comes too late is dropped, and its sender told so."""
    port, _ = server
    with ReceivePort() as kept:
        with pytest.raises(PortEmpty, match="no reply") as caught:
            port.request(("keep", kept.send_port), timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert kept.receive(LONG).reply("late") is False
    with pytest.raises(ValueError, match="timeout"):
        port.request(1, timeout=-1)


def answer_when_told(boot):
    """Take one request, and answer it when a second message comes."""
    with ReceivePort(end_with_senders=False) as port:
        boot.send(port.send_port)
        request = port.receive()
        boot.send(repr(request))
        port.receive()
        request.reply("passed on")


def test_a_request_is_passed_on(server):
    """A request can be sent on; then the end of the isolate that was asked first does not matter any more."""
    port, isolate = server
    answers = []
    with ReceivePort() as boot:
        other = Isolate.spawn(answer_when_told, boot.send_port)
        others_port = boot.receive(LONG)
        asker = threading.Thread(target=lambda: answers.append(port.request(("keep", others_port), LONG)))
        asker.start()
        assert boot.receive(LONG).startswith("<Request ('keep', ")
        isolate.kill()
        assert isolate.join(LONG)
        others_port.send("now")
        asker.join(LONG)
        assert other.join(LONG)
    assert answers == ["passed on"]


def test_a_typed_port_takes_no_requests():
    """A request to a port with a type would be dropped there: it is refused."""
    with ReceivePort(int) as port, pytest.raises(TypeError, match="without a type"):
        port.send_port.request(1)


def test_requests_are_not_made_by_hand():
    """Only `SendPort.request` makes a Request."""
    with pytest.raises(TypeError, match=r"SendPort\.request"):
        Request()


def test_requests_to_oneself():
    """A thread may ask another one of the same isolate."""
    with ReceivePort() as port:
        thread = threading.Thread(target=lambda: port.receive(LONG).reply("mine"))
        thread.start()
        assert port.send_port.request("?", LONG) == "mine"
        thread.join(LONG)


def test_nothing_is_left_of_requests(server):
    """What the asker has watched for a request is forgotten with it."""
    port, _ = server
    watches = nodes.current().mailbox._watches
    before = sum(map(len, watches.values()))
    for number in range(20):
        port.request(number, LONG)
    assert sum(map(len, watches.values())) == before


def test_a_port_that_closes_while_something_with_ports_is_sent():
    """What is in a message that nobody will get was given to nobody who lives, so nobody waits for ever."""
    with ReceivePort() as port:
        pass
    with ReceivePort() as carried:
        port.send_port._post(nodes.current(), protocol.NONE, b"", [], [carried.send_port])  # as if it had just closed
        with pytest.raises(NoSendersError):
            carried.receive(LONG)
