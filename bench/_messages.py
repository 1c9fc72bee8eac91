"""Messages that all opponents send alike."""

import msgspec

from bench._plain import PlainTick

SMALL = "small typed message"


class Tick(msgspec.Struct):
    """A small typed message."""

    number: int
    name: str


class Order(msgspec.Struct):
    """A larger one."""

    number: int
    customer: str
    express: bool
    total: float
    tags: list[str]
    items: list[Tick]


def order() -> Order:
    """Return an order of twenty items."""
    items = [Tick(number, f"item {number}") for number in range(20)]
    return Order(7, "Ada Lovelace", True, 99.5, ["new", "paid"], items)


def untyped() -> dict[str, object]:
    """Return one message for each size and type, as those send them whose channels know no types."""
    return {
        SMALL: PlainTick(1, "tick"),
        "int": 42,
        "dict": {"number": 1, "name": "tick", "tags": ["a", "b"]},
        "1 kB of bytes": bytes(1_000),
        "64 kB of bytes": bytes(64_000),
        "1 MB of bytes": bytes(1_000_000),
    }
