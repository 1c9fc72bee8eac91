"""What are typed messages worth? Structs through msgspec against pickled dataclasses, through ports and pipes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from bench import _channels
from bench._channels import Channel
from bench._figures import Cases, Results, percentiles
from bench._harness import Effort, Metric, Panel, Question, context_of, timed
from bench._messages import Order, order
from bench._plain import plain_order

ECHO = "order of 20 items"

question = Question(
    "typed",
    "Typed Structs against pickled dataclasses",
    "An order of six fields, one of them a list of twenty items of two fields, there and back, flat out. Through a "
    "typed port it is a Struct, checked field by field; through an untyped one and through a Pipe it is a dataclass, "
    "pickled. The fourth is what one can write by hand: msgspec's encoder and decoder and `send_bytes`.",
    {"p50": Metric("µs"), "p99": Metric("µs")},
    ours="subiso, typed port",
    panels=[Panel(ECHO, "p50", "an order with 20 items, median", log=False)],
)


def trips(channel: Channel, message: object, effort: Effort) -> Cases:
    """Send one message there and back for a while, and see that it comes back unchanged."""

    def trip() -> object:
        channel.send(message)
        return channel.receive()

    assert trip() == message
    return {ECHO: percentiles(timed(trip, effort(1.0, 0.02)))}


@question.opponent("subiso, typed port")
def typed(effort: Effort) -> Cases:
    with _channels.isolate(Order) as channel:
        return trips(channel, order(), effort)


@question.opponent("subiso, dataclass")
def untyped(effort: Effort) -> Cases:
    with _channels.isolate() as channel:
        return trips(channel, plain_order(), effort)


@question.opponent("Pipe, dataclass")
def pipe(effort: Effort) -> Cases:
    with _channels.pipe() as channel:
        return trips(channel, plain_order(), effort)


def echo_encoded(pipe: Any) -> None:
    """Decode and encode what comes, and send it back."""
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Order).decode
    try:
        while True:
            pipe.send_bytes(encode(decode(pipe.recv_bytes())))
    except EOFError:
        pass


@contextmanager
def encoded_pipe() -> Iterator[Channel]:
    """A process that echoes Structs which both sides encode and decode."""
    context = context_of("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=echo_encoded, args=(theirs,))
    process.start()
    theirs.close()
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Order).decode
    yield Channel(lambda message: ours.send_bytes(encode(message)), lambda: decode(ours.recv_bytes()))
    ours.close()
    process.join()


@question.opponent("Pipe, Struct by hand")
def by_hand(effort: Effort) -> Cases:
    with encoded_pipe() as channel:
        return trips(channel, order(), effort)


@question.answers
def answer(results: Results) -> str:
    ours, plain, theirs = (
        results.median(name, ECHO, "p50") for name in ("subiso, typed port", "subiso, dataclass", "Pipe, dataclass")
    )
    return f"A large typed message echoes in {ours:.0f} µs; pickled in {plain:.0f}, through a Pipe in {theirs:.0f}"
