"""Pictures that give the answer at once: isolates always in the same colour, labels instead of legends."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench._figures import human
from bench._harness import Panel, Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench._figures import Results, Spread

# Okabe and Ito's colours, which can be told apart by those who see fewer.
OURS, ORANGE, RED, GREEN, PINK, SKY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
OTHERS, PART, TEXT, FAINT, PAPER = "#B4B9BF", "#E3E6E9", "#24292F", "#6B737C", "#FFFFFF"
WIDTH = 8.6  # inches; a page's column

STYLE: Any = {
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


def draw(question: Question, results: "Results", file: Path) -> None:
    """Write the picture of one question."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3))
        FigureCanvasAgg(figure)  # measures texts; the file is written by whatever suits its name
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
    title = figure.text(0.015, 1 - 0.14 / height, question.tell(results), fontsize=13, fontweight="bold", va="top")
    room = figure.bbox.width * 0.97
    if (wide := title.get_window_extent().width) > room:
        title.set_fontsize(13 * room / wide)
    scale = "; bars are logarithmic" if question.plot is None and any(panel.log for panel in question.panels) else ""
    note = (
        f"{question.title.replace('`', '')}. Python {results.header.get('python', '')}; "
        + (f"medians of {rounds} rounds, lines from the least to the most" if rounds > 1 else "one round")
        + scale
    )
    figure.text(0.015, 1 - 0.46 / height, note, fontsize=8.5, color=FAINT, va="top")
    if results.quick:
        figure.text(
            0.985, 1 - 0.46 / height, "a quick run: means nothing", color=RED, ha="right", va="top", fontsize=8.5
        )
    figure.subplots_adjust(top=1 - 0.98 / height)


def size(figure: Figure, height: float) -> None:
    """Set the height in inches, the title not counted."""
    figure.set_size_inches(WIDTH, height + 1.0)


def panels(figure: Figure, question: Question, results: "Results") -> None:
    """Draw bars: one panel for each that the question names and that was measured.

    Where the first panel has nearly all opponents, all panels have the same rows, which are named once.
    """
    shown = [panel for panel in question.panels if results.opponents(panel.case)]
    orders = [order_of(question, results, panel) for panel in shown]
    late = list(dict.fromkeys(name for order in orders for name in order if name not in orders[0]))
    together = len(late) <= 1
    if together:
        orders[0] += late
    size(figure, 0.33 * max(map(len, orders)) + 0.4)
    for number, (panel, order) in enumerate(zip(shown, orders, strict=True)):
        axes = figure.add_subplot(1, len(shown), number + 1)
        bars(axes, question, results, panel, orders[0] if together else order)
        if together and number:
            axes.set_yticks([])
    # fractions of the width: names are as wide as the longest of them
    left = 0.012 * max(len(name) for order in orders for name in order) * 0.87 + 0.03
    figure.subplots_adjust(left=left, right=0.96, bottom=0.04, wspace=0.25 if together else left * 3.7)


def order_of(question: Question, results: "Results", panel: Panel) -> list[str]:
    """Return who is in a panel, the best first."""
    found = {name: results.spread(name, panel.case, panel.metric) for name in results.opponents(panel.case)}
    names = [name for name, spread in found.items() if spread is not None]
    sign = 1 if question.metrics[panel.metric].lower_is_better else -1
    return sorted(names, key=lambda name: sign * results.median(name, panel.case, panel.metric))


def bars(axes: "Axes", question: Question, results: "Results", panel: Panel, names: Sequence[str]) -> None:
    """Draw a bar for each opponent, with its figure behind it."""
    labelled_bars(
        axes,
        names,
        [results.spread(name, panel.case, panel.metric) for name in names],
        question.metrics[panel.metric].unit,
        [OURS if is_ours(name) else PART if name in question.parts else OTHERS for name in names],
        log=panel.log,
    )
    axes.set_title(panel.heading or panel.case, pad=8)


def is_ours(name: str) -> bool:
    """Tell whether a name is of isolates."""
    return name.startswith(("subiso", "Isolate"))


def labelled_bars(
    axes: "Axes",
    names: Sequence[str],
    spreads: "Sequence[Spread | None]",
    unit: str,
    colours: Sequence[str],
    *,
    log: bool,
) -> None:
    """Draw horizontal bars from top to bottom, their spread as a line, their figure behind them."""
    most = max(spread.most for spread in spreads if spread)
    least = min(spread.least for spread in spreads if spread)
    axes.set_xscale("log" if log else "linear")
    axes.set_xlim(least / 2.5 if log else 0, most * (most / least * 2.5) ** 0.5 if log else most * 1.45)
    for place, (spread, name, colour) in enumerate(zip(spreads, names, colours, strict=True)):
        ours = is_ours(name)
        if spread is None:
            axes.annotate(
                "–",
                (axes.get_xlim()[0], place),
                (5, 0),
                textcoords="offset points",
                va="center",
                color=FAINT,
            )
            continue
        axes.barh(place, spread.median, color=colour, height=0.66)
        if spread.least < spread.most:
            axes.plot([spread.least, spread.most], [place] * 2, color=FAINT, linewidth=1)
        axes.annotate(
            human(spread.median, unit),
            (spread.most, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if ours else "normal",
            color=OURS if ours else TEXT,
        )
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        if is_ours(label.get_text()):
            label.set(color=OURS, fontweight="bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)
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
