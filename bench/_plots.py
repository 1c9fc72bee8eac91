"""Pictures that give the answer at once: isolates always in the same colour, labels instead of legends."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench._harness import Panel, Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench._figures import Results

# Okabe and Ito's colours, which can be told apart by those who see fewer.
OURS, ORANGE, RED, GREEN, PINK, SKY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
OTHERS, PART, TEXT, FAINT, PAPER = "#B4B9BF", "#E3E6E9", "#24292F", "#6B737C", "#FFFFFF"
WIDTH = 8.6  # inches; a page's column

STYLE = {
    "svg.fonttype": "path",  # it looks the same whatever fonts there are
    "svg.hashsalt": "subiso",  # and is the same file if nothing has changed
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": TEXT,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#D0D5DA",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": TEXT,
    "grid.color": "#E8EAED",
    "grid.linewidth": 0.8,
    "figure.facecolor": PAPER,  # of its own: the page may be dark
    "axes.facecolor": PAPER,
}

_SCALES = {
    "ns": (1e-9, "s"),
    "µs": (1e-6, "s"),
    "ms": (1e-3, "s"),
    "s": (1.0, "s"),
    "MB": (1e6, "B"),
    "µs a task": (1e-6, "s a task"),
    "per s": (1.0, "/s"),
}


def human(value: float, unit: str) -> str:
    """Write a figure with two or three digits, in the unit that suits it."""
    if unit not in _SCALES or value == 0:
        return f"{value:.3g} {unit}".strip()
    scale, base = _SCALES[unit]
    value *= scale
    prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")]
    if base == "s" or base.startswith("s "):
        prefixes = prefixes[3:]
    factor, prefix = next((one for one in prefixes if abs(value) >= one[0] * 0.9995), prefixes[-1])
    shown = value / factor
    return f"{shown:.0f} {prefix}{base}" if shown >= 100 else f"{shown:.{1 if shown >= 10 else 2}f} {prefix}{base}"


def draw(question: Question, results: "Results", file: Path) -> None:
    """Write the picture of one question."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3))
        FigureCanvasSVG(figure)
        if question.plot is not None:
            question.plot(results, figure)
        else:
            panels(figure, question, results)
        _finish(figure, question, results)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".svg":
            figure.savefig(file, metadata={"Date": None, "Creator": None})
        else:
            figure.savefig(file, dpi=110)


def _finish(figure: Figure, question: Question, results: "Results") -> None:
    height = figure.get_size_inches()[1]
    rounds = len(results.rounds)
    python = results.header.get("python", "")
    figure.text(0.015, 1 - 0.14 / height, question.answer(results), fontsize=13, fontweight="bold", va="top")
    note = f"{question.title}. Python {python}; " + (
        f"medians of {rounds} rounds, lines from the least to the most" if rounds > 1 else "one round"
    )
    figure.text(0.015, 1 - 0.46 / height, note, fontsize=8.5, color=FAINT, va="top")
    if results.quick:
        figure.text(0.99, 0.02, "quick run: these figures mean nothing", color=RED, ha="right", fontsize=9)
    figure.subplots_adjust(top=1 - 0.98 / height)


def size(figure: Figure, height: float) -> None:
    """Set the height in inches, the title not counted."""
    figure.set_size_inches(WIDTH, height + 1.0)


def panels(figure: Figure, question: Question, results: "Results") -> None:
    """Draw bars: one panel for each that the question names and that was measured."""
    shown = [panel for panel in question.panels if results.opponents(panel.case)]
    most = max((len(results.opponents(panel.case)) for panel in shown), default=1)
    size(figure, 0.34 * most + 0.45)
    for number, panel in enumerate(shown, 1):
        bars(figure.add_subplot(1, len(shown), number), question, results, panel)
    figure.subplots_adjust(
        left=0.21, right=0.93, bottom=0.06, wspace={1: 0, 2: 0.85}.get(len(shown), 1.55) if len(shown) > 1 else 0
    )
    if len(shown) > 2:
        share_names(figure)


def share_names(figure: Figure) -> None:
    """Let only the first panel name the rows; all have the same ones in the same order."""
    for axes in figure.axes[1:]:
        axes.set_yticks([])
    figure.subplots_adjust(left=0.24, right=0.95, wspace=0.32)


def bars(axes: "Axes", question: Question, results: "Results", panel: Panel) -> None:
    """Draw a bar for each opponent, with its figure behind it."""
    names = results.opponents(panel.case)
    found = {name: results.spread(name, panel.case, panel.metric) for name in names}
    better = question.metrics[panel.metric].lower_is_better
    rows: list[Any] = [(name, spread) for name, spread in found.items() if spread is not None]
    if not panel.keep_order:
        rows.sort(key=lambda row: row[1].median, reverse=not better)
    labelled_bars(
        axes,
        [name for name, _ in rows],
        [spread for _, spread in rows],
        question.metrics[panel.metric].unit,
        [OURS if is_ours(name) else PART if name in question.parts else OTHERS for name, _ in rows],
        log=panel.log,
    )
    axes.set_title(panel.heading or panel.case, pad=8)


def is_ours(name: str) -> bool:
    """Tell whether a name is of isolates."""
    return name.startswith(("subiso", "Isolate"))


def labelled_bars(
    axes: "Axes", names: Sequence[str], spreads: Sequence[Any], unit: str, colours: Sequence[str], *, log: bool
) -> None:
    """Draw horizontal bars from top to bottom, their spread as a line, their figure behind them."""
    medians = [spread.median for spread in spreads]
    places = range(len(names))
    axes.barh(places, medians, color=colours, height=0.66, log=log)
    errors = [
        [spread.median - spread.least for spread in spreads],
        [spread.most - spread.median for spread in spreads],
    ]
    if any(map(any, errors)):
        axes.errorbar(medians, places, xerr=errors, fmt="none", ecolor=FAINT, elinewidth=1, capsize=0, alpha=0.8)
    most = max(spread.most for spread in spreads)
    for place, spread, name in zip(places, spreads, names, strict=True):
        axes.annotate(
            human(spread.median, unit),
            (spread.most, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if is_ours(name) else "normal",
            color=OURS if is_ours(name) else TEXT,
        )
    axes.set_yticks(places, names)
    for label in axes.get_yticklabels():
        if is_ours(label.get_text()):
            label.set_color(OURS)
            label.set_fontweight("bold")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    if log:
        least = min(spread.least for spread in spreads)
        axes.set_xlim(least / 3, most * (most / least) ** 0.35)
        axes.set_xlabel("logarithmic", fontsize=7.5, loc="right", labelpad=1)
    else:
        axes.set_xlim(0, most * 1.3)
    axes.set_xticks([])
    axes.minorticks_off()
    axes.spines["bottom"].set_visible(False)


def lines(axes: "Axes", series: "Sequence[Line]", *, log: bool = True, gap: float = 0.0) -> None:
    """Draw lines, each with its name at its right end; names that would cover each other are moved apart."""
    for one in series:
        width = 2.4 if one.colour == OURS else 1.5
        axes.plot(one.xs, one.ys, color=one.colour, linewidth=width, marker="o", markersize=3.5, linestyle=one.style)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.grid(True, which="major")
    axes.minorticks_off()
    axes.tick_params(length=0)
    _name_ends(axes, series, gap)


def _name_ends(axes: "Axes", series: "Sequence[Line]", gap: float) -> None:
    """Write the names beside the ends, at least ``gap`` points apart."""
    axes.figure.canvas.draw()
    ends = sorted((axes.transData.transform((one.xs[-1], one.ys[-1]))[1], one) for one in series)
    points = axes.figure.dpi / 72
    last = float("-inf")
    for height, one in ends:
        at = max(height, last + (gap or 11) * points)
        last = at
        axes.annotate(
            one.name,
            (one.xs[-1], one.ys[-1]),
            xytext=(8, (at - height) / points),
            textcoords="offset points",
            va="center",
            color=one.colour,
            fontweight="bold" if one.colour == OURS else "normal",
            fontsize=9,
        )


class Line:
    """One line of a plot."""

    def __init__(self, name: str, xs: Sequence[float], ys: Sequence[float], colour: str, style: str = "-") -> None:
        self.name, self.xs, self.ys, self.colour, self.style = name, xs, ys, colour, style

    def __lt__(self, other: "Line") -> bool:
        return self.name < other.name
