"""Medians, spreads and ratios of what was measured in several rounds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

type Figures = dict[str, float]  # by metric
type Cases = dict[str, Figures]
type Round = dict[str, Cases]  # by opponent

OURS = "subiso"


class Spread(NamedTuple):
    """The median of the rounds, and the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def percentiles(times: Iterable[float]) -> Figures:
    """Return the p50 and the p99 of single times, which are given in seconds, in microseconds."""
    ordered = sorted(times)
    last = len(ordered) - 1
    return {"p50": statistics.median(ordered) * 1e6, "p99": ordered[min(last, len(ordered) * 99 // 100)] * 1e6}


@dataclass
class Results:
    """What one question's measurements gave."""

    rounds: list[Round] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    seconds: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)  # who could not be measured here, and why
    failed: dict[str, str] = field(default_factory=dict)

    def values(self, opponent: str, case: str, metric: str) -> list[float]:
        """Return what each round that has it gave."""
        every = (one.get(opponent, {}).get(case, {}).get(metric) for one in self.rounds)
        return [value for value in every if value is not None]

    def spread(self, opponent: str, case: str, metric: str) -> Spread | None:
        """Return the median and spread of the rounds, or None if it was not measured."""
        values = self.values(opponent, case, metric)
        return Spread.of(values) if values else None

    def median(self, opponent: str, case: str, metric: str) -> float:
        """Return the median of the rounds; a KeyError if it was not measured."""
        found = self.spread(opponent, case, metric)
        if found is None:
            raise KeyError(f"{opponent}, {case}, {metric}")
        return found.median

    def ratio(self, above: tuple[str, str, str], below: tuple[str, str, str]) -> Spread | None:
        """Return how many times ``below`` goes into ``above``: of each round by itself, then the median of those.

        Both are an opponent, a case and a metric. None if no round has both.
        """
        ratios = []
        for one in self.rounds:
            dividend, divisor = (one.get(who, {}).get(case, {}).get(metric) for who, case, metric in (above, below))
            if dividend is not None and divisor:
                ratios.append(dividend / divisor)
        return Spread.of(ratios) if ratios else None

    def opponents(self, case: str | None = None) -> list[str]:
        """Return who was measured, at all or in one case, in the order of measuring, isolates first."""
        found: dict[str, None] = {}
        for one in self.rounds:
            for opponent, cases in one.items():
                if case is None or case in cases:
                    found[opponent] = None
        return sorted(found, key=lambda name: name != OURS)

    def cases(self, opponent: str | None = None) -> list[str]:
        """Return the cases of all opponents, or of one, in the order of measuring."""
        found: dict[str, None] = {}
        for one in self.rounds:
            for name, cases in one.items():
                if opponent is None or name == opponent:
                    found |= dict.fromkeys(cases)
        return list(found)


_SCALES = {
    "ns": (1e-9, "s"),
    "µs": (1e-6, "s"),
    "ms": (1e-3, "s"),
    "s": (1.0, "s"),
    "MB": (1e6, "B"),
    "µs a task": (1e-6, "s"),
    "per s": (1.0, "/s"),
}


def human(value: float, unit: str) -> str:
    """Write a figure with two or three digits, in the unit that suits it."""
    if unit not in _SCALES or value == 0:
        return f"{value:.3g} {unit}".strip()
    scale, base = _SCALES[unit]
    value *= scale
    prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")]
    if base == "s":
        prefixes = prefixes[3:]
    factor, prefix = next((one for one in prefixes if abs(value) >= one[0] * 0.9995), prefixes[-1])
    shown = value / factor
    return f"{shown:.0f} {prefix}{base}" if shown >= 100 else f"{shown:.{1 if shown >= 10 else 2}f} {prefix}{base}"


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value == 0 or not abs(value) < float("inf"):
        return f"{value:g}"
    digits = max(0, 2 - int(f"{value:e}".partition("e")[2]))
    return f"{value:,.{digits}f}"
