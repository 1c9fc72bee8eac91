"""Ports for one response: `single_response`, `asingle_response` and channels."""

import asyncio
import gc
import threading

import anyio
import pytest

from subiso import (
    Isolate,
    MessageTypeError,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    ReceivePort,
    SendError,
    SingleResponseChannel,
    asingle_response,
    single_response,
)

LONG = 20  # seconds: the bound of a wait that should be over at once


def send(port, *messages):
    for message in messages:
        port.send(message)


def spawn_sender(*messages):
    return lambda port: Isolate.spawn(send, port, *messages)


# -- functions ---------------------------------------------------------------------------------------------------------


@pytest.mark.dart("package/ports_test")
def test_the_first_message_is_the_response():
    """The first message is returned; the port is closed afterwards, and further ones have nowhere to go."""
    ports = []

    def act(port):
        ports.append(port)
        port.send(1)
        port.send(2)

    assert single_response(act) == 1
    with pytest.raises(PortClosedError):
        ports[0].send(3)


def test_another_isolate_responds():
    """The port can be given to another isolate."""
    assert single_response(spawn_sender("a", "b"), timeout=LONG) == "a"
    assert single_response(spawn_sender([1, 2]), type=list[int]) == [1, 2]


async def test_a_response_in_a_loop(anyio_backend):
    """The wait may be the event loop's, and the action a coroutine function."""
    assert await asingle_response(spawn_sender("a")) == "a"

    async def act(port):
        await anyio.lowlevel.checkpoint()
        await port.asend(3)

    assert await asingle_response(act, type=int) == 3


async def test_no_response(anyio_backend):
    """A port whose only holder ends says so."""
    with pytest.raises(NoSendersError):
        single_response(spawn_sender())
    with pytest.raises(NoSendersError):
        await asingle_response(spawn_sender())


@pytest.mark.dart("package/ports_test")
def test_a_response_that_does_not_come_in_time():
    """The wait is limited, and the port closed then, too."""
    ports = []
    with pytest.raises(PortEmpty, match="no response") as caught:
        single_response(ports.append, timeout=0.01)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(PortClosedError):
        ports[0].send(1)


def test_a_response_of_the_wrong_type():
    """The response is checked as in a typed port."""
    with pytest.raises(MessageTypeError):
        single_response(spawn_sender("text"), type=int)


@pytest.mark.dart("package/ports_test")
async def test_an_action_that_fails(anyio_backend):
    """What the action raises is raised; the port is closed."""
    ports = []

    def act(port):
        ports.append(port)
        raise KeyError("key")

    with pytest.raises(KeyError):
        single_response(act)
    with pytest.raises(KeyError):
        await asingle_response(act)
    for port in ports:
        with pytest.raises(PortClosedError):
            port.send(1)


def test_wrong_actions():
    """What cannot be an action is a TypeError."""

    async def act(port):
        pass

    with pytest.raises(TypeError, match="callable"):
        single_response(3)
    with pytest.raises(TypeError, match="asingle_response"):
        single_response(act)
    with pytest.raises(TypeError, match="callable"):
        asyncio.run(asingle_response(None))
    with pytest.raises(ValueError, match="timeout"):
        single_response(print, timeout=-1)


# -- channels ----------------------------------------------------------------------------------------------------------


@pytest.mark.dart("package/ports_test")
def test_a_channel():
    """The first message is the result, as often as it is asked for; the port is closed."""
    with SingleResponseChannel() as channel:
        Isolate.spawn(send, channel.send_port, 1)
        assert channel.result() == channel.result(0) == 1
        with pytest.raises(PortClosedError):
            channel.send_port.send(2)
        assert channel.interrupt(3) is False
        assert channel.result() == 1


async def test_a_channel_in_a_loop(anyio_backend):
    """A channel can be awaited, also again."""
    async with SingleResponseChannel() as channel:
        Isolate.spawn(send, channel.send_port, 1)
        assert await channel == 1
        assert await channel == 1


@pytest.mark.dart("package/ports_test")
async def test_interrupting(anyio_backend):
    """`interrupt` gives the result from this side; every waiting thread and task gets it."""
    channel, results = SingleResponseChannel(int), []
    threads = [threading.Thread(target=lambda: results.append(channel.result(LONG))) for _ in range(3)]
    for thread in threads:
        thread.start()

    async def wait():
        results.append(await channel)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert channel.interrupt("stop") is True
        assert channel.interrupt("again") is False
    for thread in threads:
        thread.join(LONG)
    assert results == ["stop"] * 4


def test_a_message_that_has_come_is_the_result():
    """`interrupt` comes too late where a message waits."""
    channel = SingleResponseChannel()
    channel.send_port.send("first")
    assert channel.interrupt("second") is False
    assert channel.result(0) == "first"


def test_several_threads_get_one_message():
    """Of several threads that wait for the result one takes the message; all return it."""
    channel, results = SingleResponseChannel(), []
    threads = [threading.Thread(target=lambda: results.append(channel.result(LONG))) for _ in range(5)]
    for thread in threads:
        thread.start()
    channel.send_port.send([1])
    for thread in threads:
        thread.join(LONG)
    assert results == [[1]] * 5


@pytest.mark.dart("package/ports_test")
def test_the_time_of_a_channel():
    """When its time is over, a channel has no result, and its port is closed."""
    channel = SingleResponseChannel(timeout=0.01)
    for _ in range(2):
        with pytest.raises(PortEmpty, match="channel's time"):
            channel.result(LONG)
    with pytest.raises(PortClosedError):
        channel.send_port.send(1)


async def test_the_time_of_a_channel_in_a_loop(anyio_backend):
    """The time of a second channel ends as well, with the thread that keeps it already there."""
    for _ in range(3):
        channel = SingleResponseChannel(timeout=0.01)
        with pytest.raises(TimeoutError):
            await channel


def test_waiting_less_long_than_the_channel():
    """The limit of one wait does not settle the channel."""
    channel = SingleResponseChannel(timeout=LONG)
    with pytest.raises(PortEmpty):
        channel.result(0.01)
    channel.send_port.send(1)
    assert channel.result(LONG) == 1
    with pytest.raises(ValueError, match="timeout"):
        channel.result(-1)


def test_a_channel_without_senders():
    """A channel whose port was given to isolates that have ended says so; it may still be given to others."""
    channel = SingleResponseChannel()
    Isolate.spawn(send, channel.send_port)
    with pytest.raises(NoSendersError):
        channel.result(LONG)
    channel.send_port.send(1)
    assert channel.result(LONG) == 1


def test_a_wrong_message_is_the_result():
    """A message of the wrong type is consumed: its error is the result."""
    channel = SingleResponseChannel(int)
    channel.send_port.send("text")
    for _ in range(2):
        with pytest.raises(MessageTypeError):
            channel.result(LONG)


def test_a_closed_channel():
    """A channel that is closed has no result any more."""
    with SingleResponseChannel() as channel:
        pass
    with pytest.raises(PortClosedError, match="channel was closed"):
        channel.result()


def test_a_channel_cannot_be_sent():
    """Its port can be sent, not the channel."""
    with ReceivePort() as port, SingleResponseChannel() as channel:
        with pytest.raises(SendError, match="send their send_port"):
            port.send_port.send(channel)


def test_a_forgotten_channel_is_closed():
    """A channel that nobody refers to is closed, however long its time."""
    channel = SingleResponseChannel(timeout=1000)
    port = channel.send_port
    del channel
    gc.collect()
    with pytest.raises(PortClosedError):
        port.send(1)
