"""Does a run leave memory behind?"""

import ctypes
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Question, need
from bench._hello import echo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = (200, 1000, 2000, 5000, 10_000)

question = Question(
    "runs",
    "Memory after thousands of runs",
    "The resident memory of the program, its threads and its descriptors after so many `Isolate.run`, one after the "
    "other, that return a dict; and after as many interpreters of the standard library's, made, called and closed. "
    "Without huge pages, which Python 3.15 asks for: the kernel makes them at its own time, of two megabytes each.",
    {
        "memory": Metric("MB", compare=False),
        "threads": Metric("", compare=False),
        "descriptors": Metric("", compare=False),
    },
    rounds=1,
)


def do_without_huge_pages() -> None:
    """Have the kernel make none in this process, where it would."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE


def held() -> dict[str, float]:
    """Return what the process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return {"memory": memory, "threads": threading.active_count(), "descriptors": len(os.listdir("/proc/self/fd"))}


@question.opponent("subiso")
def isolate(effort: Effort) -> Cases:
    from subiso import Isolate

    do_without_huge_pages()
    cases = {}
    for number in range(1, effort(10_000, 200) + 1):
        assert Isolate.run(echo, {"number": number}).result() == {"number": number}
        if number in LOOKS:
            cases[f"after {number:,}"] = held()
    return cases


@question.opponent("concurrent.interpreters")
def interpreter(effort: Effort) -> Cases:
    need("concurrent.interpreters")
    from concurrent import interpreters

    do_without_huge_pages()
    cases = {}
    for number in range(1, effort(2000, 5) + 1):
        one = interpreters.create()
        assert one.call(echo, {"number": number}) == {"number": number}
        one.close()
        if number in LOOKS:
            cases[f"after {number:,}"] = held()
    return cases


@question.answers
def answer(results: Results) -> str:
    grown = results.median("subiso", "after 10,000", "memory") - results.median("subiso", "after 1,000", "memory")
    return f"From the 1,000th run to the 10,000th, memory grows by {grown:+.1f} MB"


@question.draws
def plot(results: Results, figure: "Figure") -> None:
    from bench import _plots

    _plots.size(figure, 2.4)
    axes = figure.add_subplot()
    series = []
    for name, colour in (("subiso", _plots.OURS), ("concurrent.interpreters", _plots.GREEN)):
        looks = [look for look in LOOKS if results.spread(name, f"after {look:,}", "memory")]
        if looks:
            ys = [results.median(name, f"after {look:,}", "memory") for look in looks]
            series.append(_plots.Line(name, looks, ys, colour))
    figure.subplots_adjust(left=0.08, right=0.8, bottom=0.15, top=0.72)
    _plots.lines(axes, series, log=False)
    axes.set_ylim(0, max(max(one.ys) for one in series) * 1.15)
    axes.set_ylabel("MB")
    axes.set_xlabel("runs")
    axes.set_xticks([0, *LOOKS[1:]], ["0", *(f"{look:,}" for look in LOOKS[1:])])
