"""Work that keeps a processor busy, with and without compiled packages."""

import importlib.util
from collections.abc import Callable

type Work = Callable[[], object]


def pure() -> Work:
    """Python code and nothing else."""

    def work() -> object:
        total = 0
        for number in range(30_000):
            total += number * number % 7
        return total

    return work


def json_() -> Work:
    """Encode and decode with the standard library."""
    import json

    value = [{"a": number, "b": [1.5, None, "text"], "c": {"d": True}} for number in range(300)]
    return lambda: [len(json.loads(json.dumps(value))) for _ in range(4)]


def re_() -> Work:
    """Search text with the standard library."""
    import re

    pattern, text = re.compile(r"(\w+)@(\w+)\.(?:com|org)"), "some text user@host.com and more " * 100
    return lambda: [len(pattern.findall(text)) for _ in range(6)]


def msgspec() -> Work:
    """Encode and decode Structs."""
    import msgspec

    from bench._messages import Order, order

    encode, decode, value = msgspec.json.Encoder().encode, msgspec.json.Decoder(Order).decode, order()
    return lambda: [decode(encode(value)) for _ in range(300)]


def numpy() -> Work:
    """Many calls on small arrays."""
    import numpy as np

    a, b = np.arange(50.0), np.ones(50)

    def work() -> object:
        total = 0.0
        for _ in range(500):
            total += float((a * b + np.sqrt(a)).sum())
        return total

    return work


def pandas() -> Work:
    """Group by, and aggregate."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"k": np.arange(20_000) % 300, "v": np.arange(20_000.0)})
    return lambda: frame.groupby("k").v.agg(["sum", "mean", "max"])


def pydantic() -> Work:
    """Validate JSON."""
    from pydantic import TypeAdapter

    adapter = TypeAdapter(list[dict[str, int | list[str] | None]])
    text = b"[" + b",".join(b'{"a": %d, "b": ["x", "y"], "c": null}' % number for number in range(500)) + b"]"
    return lambda: [adapter.validate_json(text) for _ in range(8)]


def orjson() -> Work:
    """Encode and decode."""
    import orjson

    value = [{"a": number, "b": [1.5, None, "text"], "c": {"d": True}} for number in range(500)]
    return lambda: [orjson.loads(orjson.dumps(value)) for _ in range(10)]


def regex() -> Work:
    """Search text."""
    import regex

    pattern, text = regex.compile(r"(?P<a>\w+)@(?P<b>\w+)\.(?:com|org)"), "some text user@host.com and more " * 300
    return lambda: [len(pattern.findall(text)) for _ in range(3)]


def lxml() -> Work:
    """Parse XML and ask for paths in it."""
    from lxml import etree

    text = b"<r>" + b"".join(b"<a x='%d'><b>t</b></a>" % number for number in range(1000)) + b"</r>"
    return lambda: [len(etree.fromstring(text).xpath("//a[@x > 500]/b")) for _ in range(5)]


LOADS: dict[str, Callable[[], Work]] = {
    "pure Python": pure,
    "json": json_,
    "re": re_,
    "msgspec": msgspec,
    "numpy": numpy,
    "pandas": pandas,
    "pydantic": pydantic,
    "orjson": orjson,
    "regex": regex,
    "lxml": lxml,
}


def installed() -> list[str]:
    """Return which loads can run here; the last five only where somebody has installed their packages."""
    return [name for name in LOADS if name == "pure Python" or importlib.util.find_spec(name) is not None]


def repeat(name: str, times: int) -> None:
    """Do one of them so many times."""
    work = _made.get(name) or _made.setdefault(name, LOADS[name]())
    for _ in range(times):
        work()


_made: dict[str, Work] = {}
