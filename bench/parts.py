"""What are the raw parts of a message, and what do they cost? Measured by pyperf."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench._figures import Cases, Results
from bench._harness import ROOT, Effort, Metric, Question, need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

question = Question(
    "parts",
    "The parts that a message is made of",
    "Single operations in one thread of one process, each repeated very often: that is what pyperf is for, and it "
    "runs these in fresh processes of its own. They show what bounds the rest: nothing in Python that sends an "
    "encoded message is quicker than encoding it.",
    {"mean": Metric("µs", compare=False)},
    rounds=3,
)

SETUP = "from bench import _parts; f = _parts.{}()"
PARTS = {
    "encode + decode a small Struct (msgspec)": "structs",
    "dumps + loads of a small dataclass (pickle)": "dataclasses",
    "dumps + loads of a dict (pickle)": "dicts",
    "put + get of 100 bytes (_interpqueues)": "interpreters_queue",
    "put + get in one thread (queue.SimpleQueue)": "simple_queue",
    "send + receive of 100 bytes in one thread (os.pipe)": "pipe",
    "write + read (eventfd)": "eventfd",
    "a call of a Python function": "call",
}


@question.opponent("pyperf")
def pyperf(effort: Effort) -> Cases:
    need("pyperf")
    from bench import _parts

    cases: Cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, name in PARTS.items():
            if getattr(_parts, name)() is None:
                continue  # this Python has no such thing
            file = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "pyperf", "timeit", "-q", "-o", str(file), "--inherit-environ=PYTHONPATH"]
            command += effort(["-p2", "-n3", "-w1"], ["-p1", "-n1", "-w0", "-l10"])
            command += ["-s", SETUP.format(name), "f()"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            runs = json.loads(file.read_text())["benchmarks"][0]["runs"]
            values = [value for run in runs for value in run.get("values", ())]
            cases[title] = {"mean": sum(values) / len(values) * 1e6}
    return cases


@question.answers
def answer(results: Results) -> str:
    ours, theirs = (results.median("pyperf", title, "mean") for title in list(PARTS)[:2])
    return f"Encoding and decoding a small Struct takes {ours:.2f} µs, pickling a dataclass {theirs:.1f}"


@question.draws
def plot(results: Results, figure: "Figure") -> None:
    from bench import _plots

    found = {case: results.spread("pyperf", case, "mean") for case in results.cases()}
    spreads = [spread for spread in found.values() if spread]
    _plots.size(figure, 0.34 * len(found) + 0.3)
    axes = figure.add_subplot()
    _plots.labelled_bars(axes, list(found), spreads, "µs", [_plots.OTHERS] * len(found), log=False)
    figure.subplots_adjust(left=0.45, right=0.95, bottom=0.04)
