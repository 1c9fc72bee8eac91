"""What does it cost to send an array, to share it, to hand it over?"""

import multiprocessing
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Question, need, timed

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


def sizes(effort: Effort) -> dict[str, int]:
    """Return the sizes by name; the large ones only in earnest."""
    return {name: size for name, size in SIZES.items() if size <= effort(1_000_000_000, 1_000_000)}


def look(data: Any) -> int:
    """Read the first and the last byte."""
    with memoryview(data) as view:
        return int(view[0]) + int(view[-1])


def array_of(size: int) -> "np.ndarray[Any, Any]":
    """Return an array of bytes, in memory that has been used."""
    return np.full(size, 7, np.uint8)


def median_of(act: Callable[[], object], effort: Effort, size: int) -> dict[str, float]:
    """Do it for some time, or a few times, and return the median in microseconds."""
    act()
    times = timed(act, effort(0.3, 0.01), at_least=effort(5 if size > 1e8 else 15, 3))
    return {"p50": sorted(times)[len(times) // 2] * 1e6}


# -- isolates ----------------------------------------------------------------------------------------------------------


def acknowledge(hello: Any, back: Any, hand_back: bool) -> None:
    """Look at what comes, and say so, or hand it back."""
    from subiso import Buffer, ReceivePort, Transferable

    with ReceivePort() as port:
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

    with ReceivePort() as hello, ReceivePort() as back:
        with Isolate.spawn(acknowledge, hello.send_port, back.send_port, hand_back):
            yield hello.receive(60).send, back.receive


@question.opponent(SENT)
def send_array(effort: Effort) -> Cases:
    """Measure arrays as ordinary messages."""
    cases = {}
    with receiver() as (send, receive):
        for name, size in sizes(effort).items():
            array = array_of(size)
            cases[name] = median_of(lambda array=array: (send(array), receive()), effort, size)
    return cases


@question.opponent(TRANSFERRED)
def hand_over(effort: Effort) -> Cases:
    """Measure buffers that go there and back."""
    from subiso import Buffer

    cases = {}
    with receiver(hand_back=True) as (send, receive):
        for name, size in sizes(effort).items():
            mine = [Buffer(size)]
            np.frombuffer(mine[0], np.uint8)[:] = 7

            def trip(mine: list[Any] = mine) -> None:
                send(mine.pop())
                mine.append(receive())

            half = median_of(trip, effort, size)["p50"] / 2
            assert look(mine[0]) == 14
            cases[name] = {"p50": half}
    return cases


@question.opponent(COPIED)
def transfer(effort: Effort) -> Cases:
    """Measure data that is copied into a transferable."""
    from subiso import Transferable

    cases = {}
    with receiver() as (send, receive):
        for name, size in sizes(effort).items():
            array = array_of(size)
            cases[name] = median_of(lambda array=array: (send(Transferable(array)), receive()), effort, size)
    return cases


# -- processes ---------------------------------------------------------------------------------------------------------


def acknowledge_arrays(pipe: "Connection[Any, Any]") -> None:
    """Look at arrays that come."""
    while (array := pipe.recv()) is not None:
        look(array)
        pipe.send(None)


def acknowledge_names(pipe: "Connection[Any, Any]") -> None:
    """Look at memory whose name comes."""
    while (name := pipe.recv()) is not None:
        memory = shared_memory.SharedMemory(name)
        look(memory.buf)
        memory.close()
        pipe.send(None)


@contextmanager
def process(entry: Callable[["Connection[Any, Any]"], None]) -> Iterator["Connection[Any, Any]"]:
    """Give the pipe to a process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    one = context.Process(target=entry, args=(theirs,))
    one.start()
    theirs.close()
    yield ours
    ours.send(None)
    one.join()


@question.opponent("Pipe (spawn)")
def pipe(effort: Effort) -> Cases:
    cases = {}
    with process(acknowledge_arrays) as ours:
        for name, size in sizes(effort).items():
            array = array_of(size)
            cases[name] = median_of(lambda array=array: (ours.send(array), ours.recv()), effort, size)
    return cases


def acknowledge_queue(there: Any, back: Any) -> None:
    """Look at arrays that come through a queue."""
    while (array := there.get()) is not None:
        look(array)
        back.put(True)


@question.opponent("mp.Queue (spawn)")
def queues(effort: Effort) -> Cases:
    cases = {}
    context = multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    one = context.Process(target=acknowledge_queue, args=(there, back))
    one.start()
    for name, size in sizes(effort).items():
        array = array_of(size)
        cases[name] = median_of(lambda array=array: (there.put(array), back.get()), effort, size)
    there.put(None)
    one.join()
    return cases


@question.opponent("shared_memory (spawn)")
def shared(effort: Effort) -> Cases:
    cases = {}
    with process(acknowledge_names) as ours:
        for name, size in sizes(effort).items():
            array = array_of(size)

            def share(array: Any = array) -> None:
                memory = shared_memory.SharedMemory(create=True, size=len(array))
                memory.buf[: len(array)] = array
                ours.send(memory.name)
                ours.recv()
                memory.close()
                memory.unlink()

            cases[name] = median_of(share, effort, size)
    return cases


# -- the same process --------------------------------------------------------------------------------------------------


@question.opponent("interpreters.Queue")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    there, back, other = interpreters.create_queue(), interpreters.create_queue(), interpreters.create()
    code = """
while (data := there.get()) is not None:
    with memoryview(data) as view:
        view[0] + view[-1]
    back.put(None)
"""
    other.prepare_main(there=there, back=back)
    one = threading.Thread(target=other.exec, args=(code,))
    one.start()
    cases = {}
    for name, size in sizes(effort).items():
        view = memoryview(array_of(size))
        cases[name] = median_of(lambda view=view: (there.put(view), back.get()), effort, size)
    there.put(None)
    one.join()
    return cases


@question.opponent("thread")
def thread(effort: Effort) -> Cases:
    there: queue.SimpleQueue[Any] = queue.SimpleQueue()
    back: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def acknowledge() -> None:
        while (array := there.get()) is not None:
            look(array)
            back.put(True)

    one = threading.Thread(target=acknowledge)
    one.start()
    cases = {}
    for name, size in sizes(effort).items():
        array = array_of(size)
        cases[name] = median_of(lambda array=array: (there.put(array), back.get()), effort, size)
    there.put(None)
    one.join()
    return cases


@question.opponent("copy into used memory", part=True)
def copy(effort: Effort) -> Cases:
    cases = {}
    for name, size in sizes(effort).items():
        array, other = array_of(size), array_of(size)
        cases[name] = median_of(lambda a=array, b=other: np.copyto(b, a), effort, size)
    return cases


@question.opponent("copy into fresh memory", part=True)
def fresh_copy(effort: Effort) -> Cases:
    import mmap

    cases = {}
    for name, size in sizes(effort).items():
        array = array_of(size)

        def act(array: Any = array, size: int = size) -> None:
            with mmap.mmap(-1, size) as memory:
                view = np.frombuffer(memory, np.uint8)
                np.copyto(view, array)
                del view

        cases[name] = median_of(act, effort, size)
    return cases


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
    axes.set_yticks(ticks, [_plots.human(tick, "s").replace(".00", "") for tick in ticks])
