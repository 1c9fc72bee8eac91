"""A terminal app that draws at 60 frames a second while every core computes: a journey into the Mandelbrot set.

    python examples/fractal.py [--workers N] [--threads] [--compare SECONDS]

Needs textual. The picture is computed line by line, in plain Python, by an IsolatePool, or, after `t`, by a thread pool
with as many workers; `t` again goes back. Watch the comet and the counter above the picture: threads share the GIL with
the app, isolates do not. `+`, `-` and the arrow keys change the view: what is being computed for the old one is
cancelled, which stops isolates where they are; threads finish the line.

`--compare` measures: so many seconds without any work, with isolates and with threads; without anybody watching if the
output is not a terminal.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Digits, Footer, Label

from subiso import IsolatePool

RATE = 60  # frames a second: Textual's own limit


@dataclass(frozen=True)
class View:
    """A part of the complex plane: its middle, and how wide it is."""

    x: float = -0.743643887
    y: float = 0.131825904
    width: float = 3.0

    @property
    def depth(self) -> int:
        """How many rounds a point is given before it counts as inside: more, the smaller the view."""
        return 150 + int(60 * (3.0 / self.width) ** 0.3)


def compute_line(view: View, columns: int, y: float) -> bytes:
    """Return for each point of a line how soon it escapes, 1 to 255, or 0 for never."""
    line = bytearray(columns)
    depth = view.depth
    for column in range(columns):
        c = complex(view.x + (column / columns - 0.5) * view.width, y)
        z = 0j
        for count in range(depth):
            z = z * z + c
            if abs(z) > 2:
                line[column] = 1 + count % 255
                break
    return bytes(line)


def make_palette() -> list[str]:
    """Return a colour for each number of rounds: black, then around a circle of blues, whites and ambers."""
    stops = [(8, 12, 60), (32, 107, 203), (237, 255, 255), (255, 170, 0), (60, 10, 30), (8, 12, 60)]
    colours = ["#000000"]
    for number in range(255):
        place = number % 64 / 64 * (len(stops) - 1)
        low, share = int(place), place % 1
        mixed = (round(a + (b - a) * share) for a, b in zip(stops[low], stops[low + 1], strict=True))
        colours.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return colours


class Picture(Widget):
    """Two points in each cell, one above the other."""

    PALETTE: ClassVar = make_palette()

    def __init__(self) -> None:
        super().__init__(id="picture")
        self.lines: dict[int, bytes] = {}
        self.strips: dict[int, Strip] = {}
        self.known: set[int] = set()  # the lines of this view; others show the next known one above, or the last view

    def show(self, number: int, line: bytes, reach: int) -> None:
        """Show a line of points, ``reach`` lines high where those below are not known. Only these rows are painted."""
        self.known.add(number)
        for one in range(number, number + reach):
            if one == number or one not in self.known:
                self.lines[one] = line
                self.strips.pop(one // 2, None)
        self.refresh(Region(0, number // 2, self.size.width, (reach + 2) // 2))

    def on_resize(self) -> None:
        self.lines.clear()
        self.strips.clear()

    def render_line(self, y: int) -> Strip:
        if y not in self.strips:
            empty = bytes(self.size.width)
            pairs = zip(self.lines.get(2 * y, empty), self.lines.get(2 * y + 1, empty), strict=False)
            self.strips[y] = Strip([Segment("▀", self.style_of(*pair)) for pair in pairs])
        return self.strips[y]

    @staticmethod
    @cache
    def style_of(upper: int, lower: int) -> Style:
        return Style(color=Picture.PALETTE[upper], bgcolor=Picture.PALETTE[lower])


class Comet(Widget):
    """Something that moves in every frame, and counts them."""

    def __init__(self) -> None:
        super().__init__(id="comet")
        self.auto_refresh = 1 / RATE
        self.painted: deque[float] = deque(maxlen=100_000)  # when

    def render(self) -> str:
        now = time.perf_counter()
        self.painted.append(now)
        room = max(self.size.width - 4, 1)
        place = int(now * 40) % (2 * room)
        right = place < room
        tail = "·∙•●" if right else "●•∙·"
        return " " * (place if right else 2 * room - place) + tail

    def since(self, begin: float) -> list[float]:
        """Return when it was painted since then."""
        return [moment for moment in self.painted if moment >= begin]


@dataclass(frozen=True)
class Figures:
    """What was seen in a time: frames and lines a second, and the longest time between two frames in milliseconds."""

    frames: float
    longest: float
    lines: float

    def __str__(self) -> str:
        return f"{self.frames:5.1f} frames/s, longest gap {self.longest:4.0f} ms, {self.lines:6.1f} lines/s"


class Fractal(App[dict[str, Figures]]):
    """The app. With ``compare``, it ends by itself and returns what it has measured."""

    TITLE = "Mandelbrot"
    CSS = """
    Screen { background: #05070f; }
    #top { height: 4; padding: 0 1; }
    #frames { width: 14; color: #ffb000; }
    #picture { height: 1fr; }
    #comet { height: 1; color: #4fb0ff; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "switch", "isolates/threads"),
        Binding("plus", "zoom(0.6)", "in"),
        Binding("minus", "zoom(1.7)", "out"),
        Binding("left", "move(-0.2, 0)", show=False),
        Binding("right", "move(0.2, 0)", show=False),
        Binding("up", "move(0, -0.2)", show=False),
        Binding("down", "move(0, 0.2)", show=False),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, workers: int, threads: bool = False, compare: float = 0) -> None:
        super().__init__()
        self.crew, self.compare = workers, compare
        self.view = View()
        self.threads = threads
        self.pool: Executor = self.make_pool()
        self.computed = 0

    def make_pool(self) -> Executor:
        """Return a pool of the present kind."""
        if (
            self.threads
        ):  # as they are: one that yields to others while it holds the GIL would keep the app waiting, too
            return ThreadPoolExecutor(self.crew)
        # On Linux, `os.nice` concerns the thread that calls it. So the app is first in line where cores are scarce.
        return IsolatePool(self.crew, name="lines", initializer=os.nice, initargs=(10,))

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            yield Digits("", id="frames")
            with Vertical():
                yield Label("", id="mode")
                yield Label("", id="figures")
                yield Comet()
        yield Picture()
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(0.25, self.show_figures)
        self.call_after_refresh(self.begin)  # then the picture has a size

    def begin(self) -> None:
        self.travel()
        if self.compare:
            self.run_comparison()

    def on_unmount(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    # -- the work ------------------------------------------------------------------------------------------------------

    @work(exclusive=True, group="travel")
    async def travel(self) -> None:
        """Draw the view, go a little deeper, and so on. Begun again, it is cancelled first."""
        picture = self.query_one(Picture)
        while True:
            await self.draw(picture)
            self.view = View() if self.view.width < 1e-5 else replace(self.view, width=self.view.width * 0.7)

    async def draw(self, picture: Picture) -> None:
        """Have all lines computed, every eighth one first, and show each as it comes."""
        columns, rows = picture.size.width, 2 * picture.size.height
        if not (columns and rows):  # it has no place on the screen yet
            await asyncio.sleep(1 / RATE)
            return
        step = self.view.width / columns
        picture.known.clear()
        passes = ((0, 8), (4, 4), (2, 2), (6, 2), (1, 1), (3, 1), (5, 1), (7, 1))  # where they begin, and their reach
        order = [(number, reach) for begin, reach in passes for number in range(begin, rows, 8)]

        async def draw_line(number: int, reach: int) -> None:
            y = self.view.y + (number - rows / 2) * step
            future = self.pool.submit(compute_line, self.view, columns, y)
            picture.show(number, await asyncio.wrap_future(future), reach)
            self.computed += 1

        async with asyncio.TaskGroup() as group:
            for number, reach in order:
                group.create_task(draw_line(number, reach))

    # -- what the keys do ----------------------------------------------------------------------------------------------

    def action_switch(self) -> None:
        """Go on with the other kind of pool."""
        self.threads = not self.threads
        old, self.pool = self.pool, self.make_pool()
        self.travel()
        old.shutdown(wait=False, cancel_futures=True)

    def action_zoom(self, factor: float) -> None:
        """Go nearer, or away."""
        self.view = replace(self.view, width=min(self.view.width * factor, 4.0))
        self.travel()

    def action_move(self, right: float, down: float) -> None:
        """Go sideways, by so much of the view."""
        width = self.view.width
        self.view = replace(self.view, x=self.view.x + right * width, y=self.view.y + down * width)
        self.travel()

    # -- figures -------------------------------------------------------------------------------------------------------

    def figures_of(self, seconds: float, lines: int) -> Figures:
        """Return what was seen in the last so many seconds, in which so many lines were computed."""
        now = time.perf_counter()
        begin = now - seconds
        moments = [begin, *self.query_one(Comet).since(begin), now]
        longest = max(later - earlier for earlier, later in pairwise(moments))
        return Figures((len(moments) - 2) / seconds, longest * 1e3, lines / seconds)

    def show_figures(self) -> None:
        lines, self.computed_before = self.computed - getattr(self, "computed_before", 0), self.computed
        figures = self.figures_of(1, 4 * lines)
        kind = "threads, which share one GIL with this app" if self.threads else "isolates, each with its own GIL"
        self.query_one("#frames", Digits).update(f"{figures.frames:.0f}")
        self.query_one("#mode", Label).update(f"frames a second, while {self.crew} {kind}, compute")
        self.query_one("#figures", Label).update(
            f"longest gap {figures.longest:3.0f} ms · {figures.lines:4.0f} lines/s · {self.view.width:.1e} wide"
        )

    @work(group="comparison")
    async def run_comparison(self) -> None:
        """Measure without work, and either kind of pool on the same pictures; then end."""
        found = {}
        for kind in ("nothing", "isolates", "threads"):
            if kind == "nothing":
                self.workers.cancel_group(self, "travel")
            else:
                if self.threads != (kind == "threads"):
                    self.action_switch()
                self.view = View()
                self.travel()
            await asyncio.sleep(1)  # everything has been started and drawn once
            before = self.computed
            begin = time.perf_counter()
            await asyncio.sleep(self.compare)
            found[kind] = self.figures_of(time.perf_counter() - begin, self.computed - before)
        self.exit(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="one for each core")
    parser.add_argument("--threads", action="store_true", help="begin with threads")
    parser.add_argument("--compare", metavar="SECONDS", type=float, default=0, help="measure both, and end")
    options = parser.parse_args()
    app = Fractal(options.workers, options.threads, options.compare)
    headless = bool(options.compare) and not sys.stdout.isatty()
    found = app.run(headless=headless, size=(110, 36) if headless else None)
    for kind, figures in (found or {}).items():
        print(f"{kind:<9}{figures}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
