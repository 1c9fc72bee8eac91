"""How long does a message take there and back, flat out?"""

import mmap
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import msgspec

from bench import _channels
from bench._channels import Channel
from bench._figures import Cases, Results, percentiles
from bench._harness import Effort, Metric, Panel, Question, need, timed
from bench._messages import SMALL, Tick, untyped

BY_HAND = "by hand, in shared memory"  # what bounds the others

question = Question(
    "echo",
    "A message there and back, flat out",
    "The next message leaves when the last one is back. The small typed message has an int and a str: a Struct "
    "through a typed port, which checks it, and a dataclass, pickled, with the others; the thread hands over the "
    "object itself. By hand: the bytes of the Struct at one place in memory that two isolates share, and a flag that "
    "both look at without a pause; no second sender, no order, nobody to wake, no end.",
    {"p50": Metric("µs"), "p99": Metric("µs")},
    panels=[Panel(SMALL, "p50"), Panel("1 kB of bytes", "p50"), Panel("1 MB of bytes", "p50")],
)

type Open = Callable[[], AbstractContextManager[Channel]]


def trips(channel: Channel, message: object, seconds: float) -> dict[str, float]:
    """Send one message there and back for so long, and see that it comes back unchanged."""
    send, receive = channel.send, channel.receive

    def trip() -> object:
        send(message)
        return receive()

    assert trip() == message
    return percentiles(timed(trip, seconds))


def every_message(effort: Effort, open_channel: Open) -> Cases:
    """Measure all messages through one channel."""
    with open_channel() as channel:
        return {case: trips(channel, message, effort(0.3, 0.01)) for case, message in untyped().items()}


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    with _channels.isolate(Tick) as typed:
        small = trips(typed, Tick(1, "tick"), effort(0.3, 0.01))
    return every_message(effort, _channels.isolate) | {SMALL: small}


@question.opponent("Pipe (spawn)")
def pipe(effort: Effort) -> Cases:
    return every_message(effort, _channels.pipe)


@question.opponent("Pipe (forkserver)")
def pipe_of_forkserver(effort: Effort) -> Cases:
    return every_message(effort, lambda: _channels.pipe("forkserver"))


@question.opponent("mp.Queue (spawn)")
def queues(effort: Effort) -> Cases:
    return every_message(effort, _channels.queues)


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    return every_message(effort, _channels.thread)


@question.opponent("interpreters.Queue")
def interpreter(effort: Effort) -> Cases:
    return every_message(effort, _channels.interpreter)


@question.opponent("aiointerpreters")
def runner(effort: Effort) -> Cases:
    need("aiointerpreters.runner")
    import asyncio

    from aiointerpreters.runner import Runner

    from bench._hello import echo

    loop = asyncio.new_event_loop()
    cases = {}
    with Runner(workers=1).start() as one:

        def trip(message: object) -> None:
            assert loop.run_until_complete(one.run(echo, message)) == message

        for case, message in untyped().items():
            if isinstance(message, (int, bytes)):  # it takes nothing else
                cases[case] = percentiles(timed(partial(trip, message), 0.01))
    loop.close()
    return cases


def echo_by_hand(descriptor: int) -> None:
    """Send back the Structs that come to one place in shared memory, until an empty one does."""
    memory = mmap.mmap(descriptor, mmap.PAGESIZE)
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Tick).decode
    while True:
        while memory[0] != 1:
            pass
        size = memory[1]
        if not size:
            return
        body = encode(decode(memory[2 : 2 + size]))
        memory[2 : 2 + len(body)] = body
        memory[0] = 2


@question.opponent(BY_HAND, part=True)
def shared_memory(effort: Effort) -> Cases:
    """Measure the least that Python code can do: one place, a flag that both look at without a pause."""
    from subiso import Isolate

    descriptor = os.memfd_create("bench")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    memory = mmap.mmap(descriptor, mmap.PAGESIZE)
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Tick).decode
    message = Tick(1, "tick")

    def trip() -> Tick:
        body = encode(message)
        memory[1], memory[2 : 2 + len(body)] = len(body), body
        memory[0] = 1
        while memory[0] != 2:
            pass
        return decode(memory[2 : 2 + memory[1]])

    with Isolate.spawn(echo_by_hand, descriptor) as one:
        assert trip() == message
        small = percentiles(timed(trip, effort(0.3, 0.01)))
        memory[1], memory[0] = 0, 1
        one.join()
    return {SMALL: small}


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, SMALL, "p50") for name in ("subiso", "Pipe (spawn)"))
    return f"An echo takes {ours:.1f} µs, through a Pipe {theirs:.0f}"
