"""The page."""

from collections.abc import Iterator

from bench._figures import Results
from bench._harness import Question


def rows(question: Question, results: Results, case: str) -> Iterator[list[str]]:
    """Yield a row for each opponent: its name, its figures, and how isolates compare."""
    for name in results.opponents(case):
        row = [name]
        for metric, meaning in question.metrics.items():
            found = results.spread(name, case, metric)
            if found is None:
                continue
            row.append(f"{metric} {number(found.median)} ({number(found.least)}–{number(found.most)}) {meaning.unit}")
            if name != question.ours and meaning.compare:
                ours, theirs = (question.ours, case, metric), (name, case, metric)
                ratio = results.ratio(theirs, ours) if meaning.lower_is_better else results.ratio(ours, theirs)
                row.append(f"{number(ratio.median)} ×" if ratio else "")
        yield row


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value == 0 or not abs(value) < float("inf"):
        return f"{value:g}"
    digits = max(0, 2 - int(f"{value:e}".partition("e")[2]))
    return f"{value:,.{digits}f}"
