"""How long does a message take there and back if there is only one now and then?"""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable

from bench import _channels
from bench._channels import Channel
from bench._figures import Cases, Figures, Results, percentiles
from bench._harness import Effort, Metric, Panel, Question, need, timed
from bench._messages import Tick
from bench._plain import PlainTick

PACE = 0.005  # seconds
SYNC, ASYNC = "threads that block", "asyncio"

question = Question(
    "paced",
    "A message there and back, one every 5 ms",
    "Both sides have gone to sleep before each message, so this is mostly the kernel waking a thread, twice. With "
    "asyncio the loop sleeps in between: a port is awaited, a pipe is watched by `add_reader`, which is the quickest "
    "that it can be; what knows no event loop waits in `to_thread`. The part is two threads that wake each other "
    "through an eventfd.",
    {"p50": Metric("µs"), "p99": Metric("µs")},
    panels=[Panel(SYNC, "p50", "in threads, median"), Panel(ASYNC, "p50", "in asyncio, median")],
)


type Receive = Callable[[], Awaitable[object]]


def paced(channel: Channel, message: object, seconds: float) -> Cases:
    """Send messages there and back, each some milliseconds after the last one, to who blocks and to who awaits."""

    def trip() -> object:
        channel.send(message)
        return channel.receive()

    for _ in range(3):
        assert trip() == message
    cases = {SYNC: percentiles(timed(trip, seconds, pause=PACE))}
    if channel.areceive is not None:
        cases[ASYNC] = asyncio.run(_paced_in_loop(channel, channel.areceive, message, seconds))
    return cases


async def _paced_in_loop(channel: Channel, receive: Receive, message: object, seconds: float) -> Figures:
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 10:
        await asyncio.sleep(PACE)
        receiving = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # it waits before there is anything
        begin = time.perf_counter()
        channel.send(message)
        came = await receiving
        times.append(time.perf_counter() - begin)
        assert came == message
    return percentiles(times)


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    with _channels.isolate(Tick) as channel:
        return paced(channel, Tick(1, "tick"), effort(1.5, 0.05))


@question.opponent("Pipe (spawn)")
def pipe(effort: Effort) -> Cases:
    with _channels.pipe() as channel:
        return paced(channel, PlainTick(1, "tick"), effort(1.5, 0.05))


@question.opponent("mp.Queue (spawn)")
def queues(effort: Effort) -> Cases:
    with _channels.queues() as channel:
        return paced(channel, PlainTick(1, "tick"), effort(1.5, 0.05))


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    with _channels.thread() as channel:
        return paced(channel, PlainTick(1, "tick"), effort(1.5, 0.05))


@question.opponent("interpreters.Queue")
def interpreter(effort: Effort) -> Cases:
    with _channels.interpreter() as channel:
        return paced(channel, PlainTick(1, "tick"), effort(1.5, 0.05))


@question.opponent("aiointerpreters")
def runner(effort: Effort) -> Cases:
    need("aiointerpreters.runner")
    from aiointerpreters.runner import Runner

    from bench._hello import echo

    async def trips() -> Figures:
        with Runner(workers=1).start() as one:
            times = []
            for _ in range(effort(50, 5)):
                await asyncio.sleep(PACE)
                begin = time.perf_counter()
                await one.run(echo, 42)  # it takes no dataclass
                times.append(time.perf_counter() - begin)
            return percentiles(times)

    return {ASYNC: asyncio.run(trips())}


@question.opponent("eventfd, there and back", part=True)
def eventfd(effort: Effort) -> Cases:
    there, back = os.eventfd(0), os.eventfd(0)

    def echo() -> None:
        while os.eventfd_read(there) == 1:
            os.eventfd_write(back, 1)

    thread = threading.Thread(target=echo)
    thread.start()

    def trip() -> None:
        os.eventfd_write(there, 1)
        os.eventfd_read(back)

    trip()
    figures = percentiles(timed(trip, effort(1.5, 0.05), pause=PACE))
    os.eventfd_write(there, 2)
    thread.join()
    os.close(there)
    os.close(back)
    return {SYNC: figures}


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median(name, SYNC, "p50") for name in ("subiso", "Pipe (spawn)"))
    aours, atheirs = (results.median(name, ASYNC, "p50") for name in ("subiso", "Pipe (spawn)"))
    return (
        f"An echo now and then: {ours:.0f} µs, by a Pipe {theirs:.0f}; in asyncio {aours:.0f}, by a Pipe {atheirs:.0f}"
    )
