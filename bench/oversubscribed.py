"""Does the spin of those who wait take anything from those who work?"""

import time
from typing import TYPE_CHECKING, Any

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Question, cores
from bench._hello import negate
from bench._loads import repeat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPINNING, STILL = "with the spin", "without"
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
    "The ratio is how much is done with the spin for each thing that is done without.",
    {"rate": Metric("per s", lower_is_better=False)},
    rounds=7,
    ours=SPINNING,
)


def stop_spinning() -> None:
    """Switch the spin off in this interpreter. This reaches into the library, which has no switch for it."""
    from subiso._kernel import mailbox

    if not hasattr(mailbox, "_SPINS"):
        raise RuntimeError("subiso._kernel.mailbox has changed: say here how its spin is switched off")
    mailbox._SPINS = [range(0)] * len(mailbox._SPINS)


def echo(hello: Any, spin: bool) -> None:
    """Send back what comes."""
    from subiso import ReceivePort

    if not spin:
        stop_spinning()
    with ReceivePort[Any]() as port:
        hello.send(port.send_port)
        for back, number in port:
            back.send(number)


def drive(done: Any, seconds: float, spin: bool) -> None:
    """Send messages to an isolate of one's own, and count how often one comes back."""
    from subiso import Isolate, ReceivePort

    if not spin:
        stop_spinning()
    with ReceivePort[Any]() as hello, ReceivePort[Any]() as back, ReceivePort[Any]() as start:
        with Isolate.spawn(echo, hello.send_port, spin):
            there, port = hello.receive(60), back.send_port
            done.send(start.send_port)
            start.receive(60)
            count, until = 0, time.perf_counter() + seconds
            while time.perf_counter() < until:
                there.send((port, count))
                back.receive()
                count += 1
            done.send(count / seconds)


def compute(done: Any, seconds: float, spin: bool) -> None:
    """Compute, and count how often."""
    from subiso import ReceivePort

    if not spin:
        stop_spinning()
    with ReceivePort[Any]() as start:
        done.send(start.send_port)
        start.receive(60)
        count, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            repeat("pure Python", 1)
            count += 1
        done.send(count / seconds)


def at_once(entries: list[Any], seconds: float, spin: bool) -> list[float]:
    """Run them all at once, and return what each of them counted, a second."""
    from subiso import Isolate, ReceivePort

    isolates = []
    for entry in entries:
        port: ReceivePort[Any] = ReceivePort[Any](end_with_senders=False)
        isolates.append((Isolate.spawn(entry, port.send_port, seconds, spin), port))
    for start in [port.receive(60) for _, port in isolates]:
        start.send(None)
    rates = [float(port.receive(120)) for _, port in isolates]
    for one, port in isolates:
        one.join()
        port.close()
    return rates


def measure(effort: Effort, spin: bool) -> Cases:
    """Measure everything, with the spin or without it."""
    from subiso import IsolatePool

    if not spin:
        stop_spinning()
    number, seconds = cores(), effort(1.0, 0.05)
    echoes = at_once([drive] * number * 2, seconds, spin)
    mixed = at_once([drive] * number + [compute] * number, seconds, spin)
    count = effort(20_000, 200)
    with IsolatePool(4 * number, initializer=None if spin else stop_spinning) as pool:
        list(pool.map(negate, range(1000)))
        begin = time.perf_counter()
        list(pool.map(negate, range(count), chunksize=10))
        mapped = count / (time.perf_counter() - begin)
    return {
        ECHOES: {"rate": sum(echoes)},
        ECHOES_AND_WORK: {"rate": sum(mixed[:number])},
        WORK: {"rate": sum(mixed[number:])},
        MAP: {"rate": mapped},
    }


@question.opponent(SPINNING)
def spinning(effort: Effort) -> Cases:
    return measure(effort, True)


@question.opponent(STILL)
def not_spinning(effort: Effort) -> Cases:
    return measure(effort, False)


@question.answers
def answer(results: Results) -> str:
    ratios = {}
    for case in CASES:
        found = results.ratio((SPINNING, case, "rate"), (STILL, case, "rate"))
        ratios[case] = found.median if found else 1.0
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
    ratios = {case: results.ratio((SPINNING, case, "rate"), (STILL, case, "rate")) for case in CASES}
    found = {case: ratio for case, ratio in ratios.items() if ratio}
    colours = [_plots.OURS] * len(found)
    _plots.labelled_bars(axes, list(found), list(found.values()), "×", colours, log=False)
    axes.axvline(1, color=_plots.TEXT, linewidth=1)
    axes.set_title("how much is done with the spin, for each thing done without it", pad=8)
    figure.subplots_adjust(left=0.32, right=0.95, bottom=0.05)
