"""How much more do n workers do than one?"""

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench._figures import Cases, Results
from bench._harness import Effort, Metric, Question, cores
from bench._loads import installed, repeat
from bench._opponents import POOLS, Pool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("subiso", "ProcessPoolExecutor (spawn)", "ThreadPoolExecutor", "InterpreterPoolExecutor")
MOST = max(2, cores())

question = Question(
    "speedup",
    "Speed-up from one worker to as many as there are processors",
    "A worker repeats a piece of work for 0.08 s, alone; then several at once each do the same, and so on, nine "
    "times, since a processor's speed changes from second to second. The gain is how many times as much is done in the "
    "same time, the median of the turns. The rate is that of one worker alone, in pieces of work a second.",
    {"gain": Metric("×", lower_is_better=False), "rate": Metric("per s", lower_is_better=False, compare=False)},
)


def seconds_for(pool: Pool, name: str, times: int, workers: int) -> float:
    """Return how long it takes until so many workers have each done it so many times."""
    begin = time.perf_counter()
    list((pool.map_singly or pool.map)(partial(repeat, name), [times] * workers))
    return time.perf_counter() - begin


def gains(name: str, opponent: str, effort: Effort) -> Cases:
    """Measure one work, with 2 to as many workers as there are processors."""
    cases: Cases = {}
    for workers in sorted({2, MOST} | {number for number in (4, 8, 16, 32) if number < MOST}):
        with POOLS[opponent](workers) as pool:
            seconds_for(pool, name, 2, workers)
            times = max(1, int(effort(0.08, 0.01) / (seconds_for(pool, name, 3, 1) / 3)))
            seconds_for(pool, name, 2 * times, workers)  # long enough that everybody comes, and loads it
            alone, together = [seconds_for(pool, name, times, 1)], []
            for _ in range(effort(9, 1)):
                together.append(seconds_for(pool, name, times, workers))
                alone.append(seconds_for(pool, name, times, 1))
        found = [workers * (a + b) / 2 / c for a, b, c in zip(alone, alone[1:], together, strict=False)]
        cases[f"{name}, {workers} workers"] = {"gain": median(found), "rate": times / median(alone)}
    return cases


def measure(opponent: str, effort: Effort) -> Cases:
    """Measure all works that this opponent can do."""
    cases: Cases = {}
    for name in installed():
        if opponent == "InterpreterPoolExecutor" and name not in ("pure Python", "json", "re"):
            continue  # it cannot load them
        cases |= gains(name, opponent, effort)
    return cases


for _name in NAMES:
    question.opponent(_name)(partial(measure, _name))


@question.answers
def answer(results: Results) -> str:
    ours = [
        results.median("subiso", f"{name}, 2 workers", "gain")
        for name in ("pure Python", "json", "re", "msgspec", "numpy")
    ]
    theirs = results.median("ThreadPoolExecutor", "pure Python, 2 workers", "gain")
    return f"Two isolates do {min(ours):.1f} to {max(ours):.1f} times as much as one; two threads {theirs:.1f}"


@question.draws
def plot(results: Results, figure: "Figure") -> None:
    from bench import _plots

    cases = results.cases("subiso")
    _plots.size(figure, 0.42 * len(cases) + 0.7)
    axes = figure.add_subplot()
    colours = dict(zip(NAMES, (_plots.OURS, _plots.RED, _plots.FAINT, _plots.GREEN), strict=True))
    shown = {"subiso": "isolates", NAMES[1]: "processes", NAMES[2]: "threads", NAMES[3]: NAMES[3]}
    most = 2.0
    for place, case in enumerate(cases):
        axes.axhline(place, color="#E8EAED", linewidth=0.8)
        for name in reversed(NAMES):
            found = results.spread(name, case, "gain")
            if found:
                most = max(most, found.most)
                axes.plot([found.least, found.most], [place] * 2, color=colours[name], linewidth=1.2, alpha=0.6)
                size = 10 if name == "subiso" else 7
                axes.plot([found.median], [place], "o", color=colours[name], markersize=size, markeredgecolor="white")
    for number, name in enumerate(NAMES):
        start, height = (0.18, 0.33, 0.5, 0.64)[number], figure.get_size_inches()[1]
        figure.text(start, 1 - 0.85 / height, f"● {shown[name]}", color=colours[name], fontweight="bold")
    axes.set_yticks(range(len(cases)), [case.replace(", 2 workers", "") for case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.05)
    axes.axvline(1, color=_plots.FAINT, linewidth=1, linestyle=":")
    axes.set_xlabel("times as much as one worker")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    figure.subplots_adjust(left=0.18, right=0.97, bottom=0.48 / figure.get_size_inches()[1])
