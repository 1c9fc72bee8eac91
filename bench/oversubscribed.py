"""Does the spin of those who wait take anything from those who work?"""

import itertools
import time
from collections.abc import Callable
from operator import truediv
from statistics import median
from typing import TYPE_CHECKING, Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Question, cores
from bench._hello import negate
from bench._loads import repeat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = ECHOES, ECHOES_AND_WORK, WORK, MAP = (
    "pairs that echo",
    "echoes beside busy isolates",
    "the busy isolates beside echoes",
    "map in a large pool",
)

question = Question(
    "oversubscribed",
    "More busy isolates than processors",
    "A thread that waits for a message first looks for it for some microseconds, the spin. Where there are more busy "
    "isolates than processors that time belongs to others. So the same is done with the spin and without it: twice "
    "as many pairs of isolates as there are processors, one of each pair sending and waiting, the other echoing; "
    "half as many pairs beside as many isolates that compute; a `map` in a pool of four isolates for each processor. "
    "The same isolates take turns of a quarter of a second, with the spin and without it, since a processor's speed "
    "changes from second to second. The ratio is how much is done with the spin for each thing that is done without, "
    "the median of the pairs of turns.",
    {
        "rate": Metric("per s", lower_is_better=False, compare=False),
        "rate without": Metric("per s", lower_is_better=False, compare=False),
        "ratio": Metric("×", lower_is_better=False, compare=False),
    },
)


def set_spin(spin: bool) -> None:
    """Switch the spin on or off in this interpreter. This reaches into the library, which has no switch for it."""
    from subiso._kernel import mailbox

    if not hasattr(mailbox, "_SPINS"):
        raise RuntimeError("subiso._kernel.mailbox has changed: say here how its spin is switched off")
    usual = vars(mailbox).setdefault("_usual_spins", mailbox._SPINS)
    mailbox._SPINS = usual if spin else [range(0)] * len(usual)


def echo(hello: Any) -> None:
    """Send back what comes; a truth value says whether to spin."""
    from subiso import ReceivePort

    with ReceivePort[Any]() as port:
        hello.send(port.send_port)
        for message in port:
            if isinstance(message, bool):
                set_spin(message)
            else:
                back, number = message
                back.send(number)


def drive(done: Any) -> None:
    """At each turn send messages to an isolate of one's own, and tell how many a second come back."""
    from subiso import Isolate, ReceivePort

    with ReceivePort[Any]() as hello, ReceivePort[Any]() as back, ReceivePort[Any]() as turns:
        with Isolate.spawn(echo, hello.send_port):
            there, port = hello.receive(60), back.send_port
            done.send(turns.send_port)
            for spin, seconds in turns:
                set_spin(spin)
                there.send(spin)
                count, until = 0, time.perf_counter() + seconds
                while time.perf_counter() < until:
                    there.send((port, count))
                    back.receive()
                    count += 1
                done.send(count / seconds)


def compute(done: Any) -> None:
    """At each turn compute, and tell how often a second."""
    from subiso import ReceivePort

    with ReceivePort[Any]() as turns:
        done.send(turns.send_port)
        for spin, seconds in turns:
            set_spin(spin)
            count, until = 0, time.perf_counter() + seconds
            while time.perf_counter() < until:
                repeat("pure Python", 1)
                count += 1
            done.send(count / seconds)


type Turn = Callable[[bool], list[float]]  # with the spin or without; what was done, a second, of each kind


def take_turns(turn: Turn, effort: Effort) -> list[dict[str, float]]:
    """Do the same with the spin and without it, again and again, and return the figures of each kind."""
    done: dict[bool, list[list[float]]] = {True: [], False: []}
    for number in range(effort(12, 1)):
        for spin in (True, False) if number % 2 else (False, True):
            done[spin].append(turn(spin))
    return [
        {"rate": median(on), "rate without": median(off), "ratio": median(map(truediv, on, off))}
        for on, off in zip(zip(*done[True], strict=True), zip(*done[False], strict=True), strict=True)
    ]


def at_once(groups: list[list[Any]], effort: Effort) -> list[dict[str, float]]:
    """Have isolates with these entry functions work all at once, and return the figures of each group."""
    from subiso import Isolate, ReceivePort

    isolates, ports = [], []
    for entry in itertools.chain(*groups):
        ports.append(ReceivePort[Any](end_with_senders=False))
        isolates.append(Isolate.spawn(entry, ports[-1].send_port))
    starts = [port.receive(60) for port in ports]

    def turn(spin: bool) -> list[float]:
        for start in starts:
            start.send((spin, effort(0.25, 0.05)))
        rates = iter([float(port.receive(120)) for port in ports])
        return [sum(itertools.islice(rates, len(group))) for group in groups]

    figures = take_turns(turn, effort)
    for one in isolates:
        one.kill()
        one.join()
    return figures


def in_pools(effort: Effort) -> dict[str, float]:
    """Map in a pool that spins and in another that does not; one rests meanwhile."""
    from subiso import IsolatePool

    count, workers = effort(20_000, 200), 4 * cores()
    with (
        IsolatePool(workers) as spinning,
        IsolatePool(workers, initializer=set_spin, initargs=(False,)) as still,
    ):

        def turn(spin: bool) -> list[float]:
            set_spin(spin)
            begin = time.perf_counter()
            list((spinning if spin else still).map(negate, range(count), chunksize=10))
            return [count / (time.perf_counter() - begin)]

        turn(True), turn(False)
        figures = take_turns(turn, effort)[0]
    set_spin(True)
    return figures


@question.opponent("subiso")
def measure(effort: Effort) -> Cases:
    number = cores()
    (echoes,) = at_once([[drive] * number * 2], effort)
    echoes_and_work, work = at_once([[drive] * number, [compute] * number], effort)
    return {ECHOES: echoes, ECHOES_AND_WORK: echoes_and_work, WORK: work, MAP: in_pools(effort)}


@question.answers
def answer(results: Results) -> str:
    ratios = {case: results.median("subiso", case, "ratio") for case in CASES}
    least = min(ratios.values())
    if least < 0.97:
        worst = min(ratios, key=ratios.__getitem__)
        return f"More busy isolates than processors: the spin costs up to {(1 - least) * 100:.0f} % ({worst})"
    return "More busy isolates than processors: the spin takes nothing from anyone"


@question.draws
def plot(results: Results, figure: "Figure") -> None:
    from bench import _plots

    _plots.size(figure, 1.9)
    axes = figure.add_subplot()
    ratios = {case: results.spread("subiso", case, "ratio") for case in CASES}
    found = {case: ratio for case, ratio in ratios.items() if ratio}
    colours = [_plots.OURS] * len(found)
    _plots.labelled_bars(axes, list(found), list(found.values()), "×", colours, log=False)
    axes.axvline(1, color=_plots.TEXT, linewidth=1)
    axes.set_title("how much is done with the spin, for each thing done without it", pad=8)
    figure.subplots_adjust(left=0.32, right=0.95, bottom=0.05)
