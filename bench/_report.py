"""The page, written from the results that are kept: tables, sentences that the figures fill, pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import _harness
from bench._figures import Results, Spread, number
from bench._harness import Question

MAIN = "3.14"  # whose results are told in full, if they are there
BUSY = 10  # per cent of all processors that other things may take
PAGE = Path("benchmarks.md")
PICTURES = Path("benchmarks")

type All = dict[str, Results]  # by question


def spread(found: Spread | None) -> str:
    """Write a median, with the least and the most if they differ."""
    if found is None:
        return ""
    around = f" ({number(found.least)} to {number(found.most)})" if found.least != found.most else ""
    return number(found.median) + around


def compared(question: Question, results: Results, name: str, case: str, metric: str) -> Spread | None:
    """Return how many times better isolates are than this opponent."""
    ours, theirs = (question.ours, case, metric), (name, case, metric)
    better = question.metrics[metric].lower_is_better
    return results.ratio(theirs, ours) if better else results.ratio(ours, theirs)


def metrics_of(question: Question, results: Results, case: str) -> list[str]:
    """Return the metrics that this case has."""
    return [
        metric
        for metric in question.metrics
        if any(results.spread(name, case, metric) for name in results.opponents(case))
    ]


def rows(question: Question, results: Results, case: str) -> Iterator[list[str]]:
    """Yield a row for each opponent: its name, its figures, and how isolates compare in the first of them."""
    metrics = metrics_of(question, results, case)
    compares = bool(results.opponents(case)[1:]) and question.metrics[metrics[0]].compare
    for name in results.opponents(case):
        row = [name, *(spread(results.spread(name, case, metric)) for metric in metrics)]
        if compares:
            is_other = name != question.ours and name not in question.parts
            found = compared(question, results, name, case, metrics[0]) if is_other else None
            row.append(f"{spread(found)} ×" if found else "")
        yield row


def table(head: list[str], body: list[list[str]]) -> Iterator[str]:
    """Yield a table's lines."""
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join(["---", *["--:"] * (len(head) - 1)]) + " |"
    for row in body:
        yield "| " + " | ".join(row) + " |"


def section(question: Question, results: Results, python: str) -> Iterator[str]:
    """Yield what the page says of one question."""
    yield from (f"### {question.title}", "")
    yield f"![{question.tell(results)}]({PICTURES}/{question.name}.svg)"
    yield from ("", question.method, "")
    head = results.header
    yield from (
        f"<details><summary>The figures: Python {python}, commit {head.get('commit')}, {head.get('date')}</summary>",
        "",
    )
    for case in results.cases():
        metrics = metrics_of(question, results, case)
        names = [f"{metric}, {question.metrics[metric].unit}".removesuffix(", ") for metric in metrics]
        body = list(rows(question, results, case))
        if len(body[0]) > len(metrics) + 1:
            names.append(f"{question.ours} is better by")
        yield from (f"**{case}**", "")
        yield from table(["", *names], body)
        yield ""
    for name, why in results.missing.items():
        yield from (f"{name} is not there: {why.splitlines()[0]}.", "")
    for name in results.failed:
        yield from (f"{name} failed in a round.", "")
    yield from ("</details>", "")


def stand(every: dict[str, All]) -> Iterator[str]:
    """Yield the table of what was aimed at, for each Python, and what bounds that which was missed."""
    from bench._targets import TARGETS

    body, bounds = [], []
    for target in TARGETS:
        row = [target.what, target.against, target.aim()]
        missed = []
        for python, all_ in every.items():
            found = target.measure(all_)
            if found is None:
                row.append("–")
                continue
            met = target.is_met_by(found)
            row.append(f"{number(found.median)} {'✓' if met else '**✗**'}")
            if not met:
                missed.append(python)
        body.append(row)
        if missed:
            shown = missed[0] if MAIN not in missed else MAIN
            bounds.append(
                f"- *{target.what}* against {target.against} (missed on {', '.join(missed)}). On {shown}: "
                f"{target.limit(every[shown])}."
            )
    yield from table(["question", "against", "aimed at", *every], body)
    if bounds:
        yield from ("", "What bounds those that were missed, by a measurement of the raw parts:", "", *bounds)


def machine(every: dict[str, All]) -> Iterator[str]:
    """Yield where it was measured."""
    for python, all_ in every.items():
        headers = [results.header for results in all_.values()]
        one = headers[0]
        packages = ", ".join(f"{name} {version}" for name, version in one["packages"].items())
        commits = sorted({str(header["commit"]) for header in headers})
        dates = sorted(str(header["date"]) for header in headers)
        yield (
            f"- **{python}**: CPython {one['python']} ({one['compiler']}), {one['system']}, {one['processor']}, "
            f"{one['cores']} processors, {one['memory_gb']} GB; {packages}; commit {', '.join(commits)}; {dates[0]} to "
            f"{dates[-1]}"
        )


def is_busy(header: dict[str, Any]) -> bool:
    """Tell whether the machine had other things to do just before the measurement."""
    return float(header.get("busy_before") or 0) > BUSY


def page(every: dict[str, All]) -> str:
    """Return the page."""
    from bench import _advice

    python = MAIN if MAIN in every else max(every, key=lambda name: tuple(map(int, name.split("."))))
    ours = every[python]
    questions = [_harness.load(name) for name in _harness.QUESTIONS if name in ours]
    lines = [
        "<!-- Written by `python -m bench report`; changes made by hand are lost. -->",
        "# Benchmarks",
        "",
        INTRODUCTION.format(python=python),
        "",
    ]
    if any(results.quick for all_ in every.values() for results in all_.values()):
        lines += [":::{warning}", "Some of these figures are of a quick run and mean nothing.", ":::", ""]
    if any(is_busy(results.header) for all_ in every.values() for results in all_.values()):
        lines += [":::{warning}", "Some of this was measured while the machine had other things to do.", ":::", ""]
    lines += ["## Where it stands", "", *stand(every), ""]
    lines += ["## When not to use isolates", "", *_advice.sentences(ours), ""]
    lines += ["## The questions", ""]
    for question in questions:
        lines += section(question, ours[question.name], python)
    lines += [*METHOD, "", "Machines and versions:", "", *machine(every), ""]
    return "\n".join(lines)


INTRODUCTION = """\
How fast isolates are, and what else can do the same work. Figures are of Python {python}; the next table has the other
versions. All of this page is written by the suite in `bench/`, from results that are kept beside it."""

METHOD = """## How it is measured

- **Each alone.** Every measurement runs in a fresh process in which nothing but this opponent exists. A spinning
  isolate beside a pipe keeps the processor awake for it, and one that works takes the processor from it.
- **In turn.** The opponents are measured one after the other, and all of them again in the next round, which begins
  with another one. What changes in the machine meanwhile hits all of them.
- **Medians and spread.** A figure is the median of the rounds; the least and the most are beside it. Within a round
  it is the median (p50) of many single times, where a single time can be taken. A ratio is that of two figures of the
  same round; given is the median of those.
- **As it comes.** Opponents are used as their documentation says, with their defaults, unless the text says
  otherwise. Objects that are sent are checked when they come back.
- **pyperf** measures the parts. It does not fit the rest: it measures a function in one process, and all values of
  one benchmark before the next; here other processes and interpreters take part, opponents have to take turns, and
  p99, memory and processor time are asked for, too.
- **What it does not tell.** This is one machine with few processors, and a virtual one. The absolute times are its
  own; ratios travel better, but not everywhere: waking a thread costs between 5 and 50 µs, depending on the machine
  and on how deeply its processors sleep, and that is most of a Pipe's echo.

`python -m bench` measures all of this in about 30 minutes (`--quick` only sees whether everything works), `python -m
bench echo pool` two of the questions, `--python python3.13` on another Python. `python -m bench report` writes this
page again from `bench/results`.""".splitlines()


def write(folder: Path, docs: Path) -> None:
    """Write the page and its pictures from a folder of results."""
    from bench import _plots

    files = sorted(folder.glob("3.*.json"), key=lambda file: int(file.stem.partition(".")[2]))
    every = {file.stem: _harness.read(file) for file in files}
    if not every:
        raise SystemExit(f"there are no results in {folder}: run `python -m bench` first")
    docs.mkdir(parents=True, exist_ok=True)
    (docs / PAGE).write_text(page(every))
    python = MAIN if MAIN in every else list(every)[-1]
    for name in _harness.QUESTIONS:
        if name in every[python]:
            _plots.draw(_harness.load(name), every[python][name], docs / PICTURES / f"{name}.svg")
    print(f"written: {docs / PAGE}, and {docs / PICTURES}/")
