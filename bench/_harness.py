"""Measures questions: each opponent alone, in a fresh process of its own, in several rounds that take turns.

What is not running cannot disturb: while one opponent is measured, no other exists. What changes in the machine
meanwhile hits all of them, since they take turns, and each round begins with another one. A ratio is that of two
measurements of one round.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench._figures import OURS, Cases, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
QUESTIONS = [
    "startup",
    "echo",
    "paced",
    "oneway",
    "typed",
    "stream",
    "buffers",
    "pool",
    "speedup",
    "memory",
    "runs",
    "idle",
    "oversubscribed",
    "kills",
    "parse",
    "logs",
    "images",
    "parts",
]
LIMIT = 300  # seconds that one measurement may take: an upper bound, after which it counts as failed


class Unavailable(Exception):  # noqa: N818 - no error: it says that there is nothing to be measured
    """This opponent cannot do this work here; the text says why."""


@dataclass(frozen=True)
class Effort:
    """How much to do: ``effort(1000, 10)`` gives the second one if it is only to be seen that everything works."""

    quick: bool

    def __call__[T](self, full: T, quick: T) -> T:
        """Return one of the two."""
        return quick if self.quick else full


class Metric(NamedTuple):
    """What a figure means."""

    unit: str
    lower_is_better: bool = True
    compare: bool = True  # whether a ratio says something


class Panel(NamedTuple):
    """A part of a picture that has a bar for each opponent."""

    case: str
    metric: str
    heading: str = ""  # the case, if not given
    log: bool = True


type Measure = Callable[[Effort], Cases]
type Plot = Callable[[Results, Figure], None]


@dataclass
class Question:
    """One thing to be found out, who is measured for it, and how the answer is told."""

    name: str
    title: str
    method: str  # how it is measured, for the page
    metrics: dict[str, Metric]
    rounds: int = 5
    ours: str = OURS  # whom the others are compared with
    opponents: dict[str, Measure] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)  # not opponents: what it is made of, to show what bounds it
    answer: Callable[[Results], str] = field(default=lambda results: "")
    panels: list[Panel] = field(default_factory=list)
    plot: "Plot | None" = None  # draws something else than bars

    def opponent(self, name: str, *, part: bool = False) -> Callable[[Measure], Measure]:
        """Decorate the function that measures one opponent, in a process of its own."""

        def add(measure: Measure) -> Measure:
            self.opponents[name] = measure
            if part:
                self.parts.append(name)
            return measure

        return add

    def tell(self, results: Results) -> str:
        """Return the answer; the title, where what it tells of was not measured."""
        try:
            return self.answer(results)
        except KeyError:
            return self.title

    def answers(self, answer: Callable[[Results], str]) -> Callable[[Results], str]:
        """Decorate the function that tells the answer in one sentence, which is also the title of the picture."""
        self.answer = answer
        return answer

    def draws(self, plot: "Plot") -> "Plot":
        """Decorate the function that draws the answer."""
        self.plot = plot
        return plot


def load(name: str) -> Question:
    """Return the question of one module."""
    question = importlib.import_module(f"bench.{name}").question
    assert isinstance(question, Question)
    return question


def ask(question: Question, effort: Effort, header: dict[str, object]) -> Results:
    """Measure all opponents in turn and return what they gave."""
    began = time.perf_counter()
    results = Results(header=header, quick=effort.quick)
    names = list(question.opponents)
    for number in range(effort(question.rounds, 1)):
        this = {}
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name in results.missing:
                continue
            outcome = _measure_apart(question.name, name, effort)
            if "cases" in outcome:
                this[name] = outcome["cases"]
            else:
                (results.missing if "missing" in outcome else results.failed).update(
                    {name: next(iter(outcome.values()))}
                )
        results.rounds.append({name: this[name] for name in names if name in this})
    results.seconds = round(time.perf_counter() - began, 1)
    return results


def _measure_apart(question: str, opponent: str, effort: Effort) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or subiso, run from its source, would be compiled at each start
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "bench._child", question, opponent, str(file), "quick" * effort.quick]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
        )
        try:
            complaints = process.communicate(timeout=effort(LIMIT, LIMIT / 5))[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {effort(LIMIT, LIMIT / 5)} s"}
        finally:  # also where this process is stopped; and what the measured one has left
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if not file.exists():
            return {"failed": f"exit code {process.returncode}\n{complaints[-2000:]}"}
        if process.returncode:
            return {"failed": f"exit code {process.returncode}, after it was measured\n{complaints[-2000:]}"}
        outcome: dict[str, Any] = json.loads(file.read_text())
        return outcome


def measure_here(question: str, opponent: str, file: str, quick: str = "") -> None:
    """Measure one opponent in this process, and write the outcome into a file."""
    try:
        outcome: dict[str, object] = {"cases": load(question).opponents[opponent](Effort(bool(quick)))}
    except Unavailable as why:
        outcome = {"missing": str(why)}
    except Exception:  # whatever it is, the others are measured all the same
        outcome = {"failed": traceback.format_exc()}
    Path(file).write_text(json.dumps(outcome))


def timed(act: Callable[[], object], seconds: float, *, at_least: int = 20, pause: float = 0.0) -> list[float]:
    """Do something again and again for so long, and so often at least; return the seconds that each time took.

    Before it counts, it is done for a tenth of the time.
    """
    clock = time.perf_counter
    warm = clock() + seconds / 10
    while True:
        act()
        if clock() >= warm:
            break
    times: list[float] = []
    until = clock() + seconds
    while len(times) < at_least or clock() < until:
        if pause:
            time.sleep(pause)
        begin = clock()
        act()
        times.append(clock() - begin)
    return times


def save(results: Results, question: str, file: Path) -> None:
    """Put one question's results into a file that has those of all, in place of its former ones."""
    every = json.loads(file.read_text()) if file.exists() else {}
    every[question] = asdict(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({name: every[name] for name in sorted(every)}, indent=1) + "\n")


def read(file: Path) -> dict[str, Results]:
    """Return what a file has, by question."""
    return {name: Results(**one) for name, one in json.loads(file.read_text()).items()}


def need(*modules: str) -> None:
    """Say that an opponent is unavailable, if one of these cannot be imported here."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as why:
            raise Unavailable(str(why)) from None


def context_of(method: str) -> Any:
    """Return multiprocessing's context; its type says nothing of processes."""
    return multiprocessing.get_context(method)


def cores() -> int:
    """Return on how many processors this process may run."""
    return len(os.sched_getaffinity(0))


def describe(question: Question, results: Results) -> Iterable[str]:
    """Yield lines for a terminal: what each opponent gave, and how isolates compare."""
    from bench._report import metrics_of, rows

    for case in results.cases():
        yield f"  {case} ({', '.join(metrics_of(question, results, case))}; how much better isolates are)"
        for row in rows(question, results, case):
            yield "    " + "  ".join(f"{cell:<34}" for cell in row).rstrip()
    for names, kind in ((results.missing, "is not there"), (results.failed, "FAILED")):
        for name, why in names.items():
            yield f"    {name} {kind}: {why}"
