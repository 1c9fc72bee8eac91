"""The soak's own parts: its plans can be played again, and its model notices what it is there to notice."""

import collections
import importlib
import json
import random
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent.parent / "soak"


@pytest.fixture
def part(monkeypatch):
    """Import parts of the soak, and forget them afterwards."""
    monkeypatch.syspath_prepend(str(SOAK))
    names = [path.stem for path in SOAK.glob("[!_]*.py")]
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def test_a_round_follows_from_its_seed(part):
    """The same seed and number give the same plans, others give others; a plan survives being printed."""
    plans = part("plans")
    part("acts_ports"), part("acts_work")
    rounds = [plans.draw_round(seed, number) for seed in (1, 2) for number in range(20)]
    assert rounds == [plans.draw_round(seed, number) for seed in (1, 2) for number in range(20)]
    assert len({json.dumps(one) for one in rounds}) == 40
    assert {name for one in rounds * 3 for name, _ in one} >= {"senders", "pools", "victims", "actors"}


def ledger(part, *messages):
    """Return a ledger of one sender with messages of one style in it."""
    plans = part("plans")
    made = plans.Ledger(plans.Stage(collections.Counter()), ["text"])
    for message in messages:
        made.take(message)
    return made


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0, 2], "lost or late"), ([0, 0], "came twice"), ([0, 1, 3, 2], "lost or late"), ([1], "lost or late")],
)
def test_the_ledger_notices_the_order(part, numbers, text):
    """Messages that are lost, doubled or out of order are found."""
    load, violation = part("bodies").load, part("plans").ViolationError
    with pytest.raises(violation, match=text):
        ledger(part, *((5, i, load("text", 5, i)) for i in numbers))


def test_the_ledger_notices_damage_and_loss(part):
    """Damaged messages are found, those that are missing at the end, and those of nobody."""
    load, violation = part("bodies").load, part("plans").ViolationError
    with pytest.raises(violation, match="damaged"):
        ledger(part, (5, 0, load("text", 5, 1)))
    whole = [(5, i, load("text", 5, i)) for i in range(3)]
    ledger(part, *whole).settle(5, 3, certain=True)
    ledger(part, *whole).settle(5, 4, certain=False)
    for count, certain in ((4, True), (2, True), (2, False)):
        with pytest.raises(violation, match="3 messages have arrived"):
            ledger(part, *whole).settle(5, count, certain)
    with pytest.raises(violation, match="of nobody"):
        ledger(part, *whole).close()


@pytest.mark.parametrize("style", ["int", "text", "bytes", "nested", "shared", "page", "large", "huge"])
def test_contents_can_be_told_apart(part, style):
    """A content is known as its own, and as no other message's."""
    bodies = part("bodies")
    i = random.Random(0).randrange(1, 7)
    assert bodies.is_load(style, 3, i, bodies.load(style, 3, i))
    assert not bodies.is_load(style, 3, i, bodies.load(style, 3, i + 1))
    assert not bodies.is_load(style, 3, i, None)


def test_memory_that_grows_is_noticed(part):
    """What grows with the rounds is noticed; not what comes and goes, or grows at first, or with an interpreter."""
    household = part("household")

    def judge(sizes, interpreters=lambda number: 0):
        memory = household.Memory()
        memory.samples = [(size, number * 10, interpreters(number)) for number, size in enumerate(sizes)]
        grown, allowed = memory.growth(10)
        return grown <= allowed

    noise = random.Random(1)
    assert judge([400_000_000 + noise.randrange(30_000_000) for _ in range(300)])
    assert not judge([400_000_000 + number * 300_000 + noise.randrange(5_000_000) for number in range(300)])
    assert judge([400_000_000 + min(number, 100) * 1_000_000 for number in range(300)])
    assert judge([400_000_000 + number * 200_000 for number in range(300)], lambda number: number // 10)


def test_the_page_is_made_from_the_records(part, tmp_path):
    """Soaks are added up for each version; what failed or died says so; what was written by hand stays."""
    history = part("history")
    page = tmp_path / "page.md"
    page.write_text("# By hand\n\n" + history.MARK + "old")
    for number, outcome in enumerate(("passed", "failed")):
        facts = {"python": "3.14.1", "commit": "abc", "seed": 7, "began": "2026-01-01 00:00", "seconds": 1800.0}
        facts |= {"rounds": 10, "counts": {"kills": 1500}, "outcome": outcome, "reason": "round 3: a | b"}
        (tmp_path / f"{number}.json").write_text(json.dumps(facts))
    text = history.page(tmp_path, page)
    assert text.startswith("# By hand")
    assert "old" not in text
    assert "| 3.14.1 | 2 | 1.00 | 20 | 0 | 3,000 | 0 | 0 | 1 |" in text
    assert r"failed: round 3: a \| b" in text
