"""What does it cost to send an array, to share it, to hand it over?"""

import mmap
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import shared_memory
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._figures import Cases, Results, human, percentiles
from bench._harness import Effort, Metric, Question, context_of, need, timed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = {
    "1 kB": 1_000,
    "64 kB": 64_000,
    "1 MB": 1_000_000,
    "16 MB": 16_000_000,
    "256 MB": 256_000_000,
    "1 GB": 1_000_000_000,
}
SENT, TRANSFERRED, COPIED = "subiso, sent", "subiso, handed over", "subiso, copied and handed over"

question = Question(
    "buffers",
    "Arrays of 1 kB to 1 GB, sent, shared, handed over",
    "Until the receiver has the array, has read its first and last byte and has said so. Sent: a numpy array of "
    "bytes as an ordinary message. Handed over: a `Buffer` that has the array in it; the receiver sends back the "
    "same one, so a figure is of half such a trip. Copied and handed over: `Transferable(array)`, its construction "
    "included, materialized at the other side. Shared, for the others: `shared_memory` that is made, filled and "
    "opened by name each time, or a `memoryview` of the sender's memory through an interpreters' queue, which the "
    "sender must keep alive. The parts are numpy's copy of the array into memory that was used before, and into "
    "fresh memory.",
    {"p50": Metric("µs")},
    rounds=3,
    ours=SENT,
)


def look(data: Any) -> int:
    """Read the first and the last byte."""
    with memoryview(data) as view:
        return int(view[0]) + int(view[-1])


def array_of(size: int) -> "np.ndarray[Any, Any]":
    """Return an array of bytes, in memory that has been used."""
    return np.full(size, 7, np.uint8)


def each_size(effort: Effort, act: Callable[[Any], object], prepare: Callable[[int], Any] = array_of) -> Cases:
    """Do something with an array of each size for some time, or a few times, and return the medians."""
    cases = {}
    for name, size in SIZES.items():
        if size <= effort(1_000_000_000, 1_000_000):
            thing = prepare(size)
            act(thing)
            times = timed(partial(act, thing), effort(0.3, 0.01), at_least=effort(5 if size > 1e8 else 15, 3))
            cases[name] = {"p50": percentiles(times)["p50"]}
            del thing
    return cases


# -- isolates ----------------------------------------------------------------------------------------------------------


def acknowledge(hello: Any, back: Any, hand_back: bool) -> None:
    """Look at what comes, and say so, or hand it back."""
    from subiso import Buffer, ReceivePort, Transferable

    with ReceivePort[Any]() as port:
        hello.send(port.send_port)
        for message in port:
            if isinstance(message, Transferable):
                message = message.materialize()
            look(message)
            back.send(message if hand_back and isinstance(message, Buffer) else None)


@contextmanager
def receiver(hand_back: bool = False) -> Iterator[tuple[Callable[[Any], None], Callable[[], Any]]]:
    """Give the ends of an isolate that receives."""
    from subiso import Isolate, ReceivePort

    with ReceivePort[Any]() as hello, ReceivePort[Any]() as back:
        with Isolate.spawn(acknowledge, hello.send_port, back.send_port, hand_back):
            yield hello.receive(60).send, back.receive


@question.opponent(SENT)
def send_array(effort: Effort) -> Cases:
    with receiver() as (send, receive):
        return each_size(effort, lambda array: (send(array), receive()))


@question.opponent(TRANSFERRED)
def hand_over(effort: Effort) -> Cases:
    from subiso import Buffer

    def filled(size: int) -> list[Buffer]:
        buffer = Buffer(size)
        np.frombuffer(buffer, np.uint8)[:] = 7
        return [buffer]

    with receiver(hand_back=True) as (send, receive):

        def trip(mine: list[Buffer]) -> None:
            send(mine.pop())
            mine.append(receive())
            assert look(mine[0]) == 14

        return {name: {"p50": figures["p50"] / 2} for name, figures in each_size(effort, trip, filled).items()}


@question.opponent(COPIED)
def transfer(effort: Effort) -> Cases:
    from subiso import Transferable

    with receiver() as (send, receive):
        return each_size(effort, lambda array: (send(Transferable(array)), receive()))


# -- processes ---------------------------------------------------------------------------------------------------------


def acknowledge_arrays(pipe: Any) -> None:
    """Look at arrays that come."""
    while (array := pipe.recv()) is not None:
        look(array)
        pipe.send(None)


def acknowledge_names(pipe: Any) -> None:
    """Look at memory whose name comes."""
    while (name := pipe.recv()) is not None:
        memory = shared_memory.SharedMemory(name)
        look(memory.buf)
        memory.close()
        pipe.send(None)


@contextmanager
def process(entry: Callable[[Any], None]) -> Iterator[Any]:
    """Give the pipe to a process."""
    context = context_of("spawn")
    ours, theirs = context.Pipe()
    one = context.Process(target=entry, args=(theirs,))
    one.start()
    theirs.close()
    yield ours
    ours.send(None)
    one.join()


@question.opponent("Pipe (spawn)")
def pipe(effort: Effort) -> Cases:
    with process(acknowledge_arrays) as ours:
        return each_size(effort, lambda array: (ours.send(array), ours.recv()))


def acknowledge_queue(there: Any, back: Any) -> None:
    """Look at arrays that come through a queue."""
    while (array := there.get()) is not None:
        look(array)
        back.put(True)


@question.opponent("mp.Queue (spawn)")
def queues(effort: Effort) -> Cases:
    context = context_of("spawn")
    there, back = context.Queue(), context.Queue()
    one = context.Process(target=acknowledge_queue, args=(there, back))
    one.start()
    cases = each_size(effort, lambda array: (there.put(array), back.get()))
    there.put(None)
    one.join()
    return cases


@question.opponent("shared_memory (spawn)")
def shared(effort: Effort) -> Cases:
    with process(acknowledge_names) as ours:

        def share(array: Any) -> None:
            memory: Any = shared_memory.SharedMemory(create=True, size=len(array))
            memory.buf[: len(array)] = array
            ours.send(memory.name)
            ours.recv()
            memory.close()
            memory.unlink()

        return each_size(effort, share)


# -- the same process --------------------------------------------------------------------------------------------------


@question.opponent("interpreters.Queue")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    there: Any = interpreters.create_queue()
    back, other = interpreters.create_queue(), interpreters.create()
    code = """
while (data := there.get()) is not None:
    with memoryview(data) as view:
        view[0] + view[-1]
    back.put(True)
"""
    other.prepare_main(there=there, back=back)
    one = threading.Thread(target=other.exec, args=(code,))
    one.start()
    cases = each_size(effort, lambda array: (there.put(memoryview(array)), back.get()))
    there.put(None)
    one.join()
    return cases


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    there: Any = queue.SimpleQueue()
    back: Any = queue.SimpleQueue()
    one = threading.Thread(target=acknowledge_queue, args=(there, back))
    one.start()
    cases = each_size(effort, lambda array: (there.put(array), back.get()))
    there.put(None)
    one.join()
    return cases


@question.opponent("copy into used memory", part=True)
def copy(effort: Effort) -> Cases:
    return each_size(effort, lambda pair: np.copyto(*pair), lambda size: (array_of(size), array_of(size)))


@question.opponent("copy into fresh memory", part=True)
def fresh_copy(effort: Effort) -> Cases:
    def act(array: Any) -> None:
        with mmap.mmap(-1, len(array)) as memory:
            view = np.frombuffer(memory, np.uint8)
            np.copyto(view, array)
            del view

    return each_size(effort, act)


@question.answers
def answer(results: Results) -> str:
    handed = results.median(TRANSFERRED, "256 MB", "p50")
    piped = results.median("Pipe (spawn)", "256 MB", "p50") / 1e3
    sent = results.median(SENT, "256 MB", "p50") / 1e3
    return (
        f"256 MB are handed over in {handed:.0f} µs and sent in {sent:.0f} ms; pickled to a process in {piped:.0f} ms"
    )


@question.draws
def plot(results: Results, figure: "Figure") -> None:
    from bench import _plots

    _plots.size(figure, 4.2)
    axes = figure.add_subplot()
    looks = {
        TRANSFERRED: (_plots.OURS, "-"),
        SENT: (_plots.OURS, "--"),
        COPIED: (_plots.OURS, ":"),
        "Pipe (spawn)": (_plots.RED, "-"),
        "mp.Queue (spawn)": (_plots.ORANGE, "-"),
        "shared_memory (spawn)": (_plots.PINK, "-"),
        "interpreters.Queue": (_plots.GREEN, "-"),
        "thread": (_plots.FAINT, "-"),
        "copy into used memory": (_plots.OTHERS, "-"),
    }
    series = []
    for name, (colour, style) in looks.items():
        sizes = [size for size in SIZES if results.spread(name, size, "p50")]
        if sizes:
            ys = [results.median(name, size, "p50") / 1e6 for size in sizes]
            series.append(_plots.Line(name, [SIZES[size] for size in sizes], ys, colour, style))
    figure.subplots_adjust(left=0.09, right=0.7, bottom=0.08, top=0.82)
    _plots.lines(axes, series)
    axes.set_xticks(list(SIZES.values()), list(SIZES))
    ticks = [10.0**power for power in range(-6, 2) if axes.get_ylim()[0] <= 10.0**power <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [human(tick, "s").replace(".00", "") for tick in ticks])
