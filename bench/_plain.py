"""Messages as dataclasses, for those who pickle. Imports nothing that an interpreter could refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class PlainTick:
    """A small message."""

    number: int
    name: str


@dataclass
class PlainOrder:
    """A larger one."""

    number: int
    customer: str
    express: bool
    total: float
    tags: list[str]
    items: list[PlainTick]


def plain_order() -> PlainOrder:
    """Return an order of twenty items."""
    items = [PlainTick(number, f"item {number}") for number in range(20)]
    return PlainOrder(7, "Ada Lovelace", True, 99.5, ["new", "paid"], items)


NUMBERED: dict[str, Callable[[int], object]] = {
    "small typed message": lambda number: PlainTick(number, "tick"),
    "dict": lambda number: {"number": number, "name": "tick"},
    "1 kB of bytes": lambda number: b"%01000d" % number,
}


def put_all(queue: Any, case: str, count: int) -> None:
    """Put so many different messages into a queue."""
    _give_all(queue.put, case, count)


def send_all(port: Any, case: str, count: int) -> None:
    """Send so many different messages through a port or a pipe."""
    _give_all(port.send, case, count)


def _give_all(give: Callable[[object], object], case: str, count: int) -> None:
    make = NUMBERED[case]
    for number in range(count):
        give(make(number))
