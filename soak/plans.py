"""What a round of the soak consists of: acts, drawn from the seed, each with a plan that can be played again.

An act is a function ``act(stage, **plan)``; beside it stands what draws its plan. All of a plan is drawn before
anything runs, so that the seed and the number of the round say everything that was not left to the scheduler.
"""

import random
import threading
import time
from collections import Counter

import bodies

LONG = 90  # seconds: the bound of a wait that should be over soon, on a machine that others use too


class ViolationError(AssertionError):
    """The library did not do what its contract says."""


class Stage:
    """What an act runs on.

    Attributes:
        counts: of what was done, for the record.
    """

    def __init__(self, counts: Counter) -> None:
        self.counts = counts
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def later(self, seconds: float, function, *args) -> None:
        """Call a function on another thread, in a while."""

        def call() -> None:
            time.sleep(seconds)
            try:
                function(*args)
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=call, name="soak-later")
        self._threads.append(thread)
        thread.start()

    def kill_later(self, isolate, kill) -> None:
        """Kill an isolate as the plan says: when, how gently, by whom."""
        from subiso import Isolate

        self.counts["kills"] += 1
        if kill["by"] == "isolate":
            Isolate.spawn(bodies.hunt, isolate, kill["after"])
        elif kill["after"] == 0:
            isolate.kill(kill["priority"])
        else:
            self.later(kill["after"], isolate.kill, kill["priority"])

    def finish(self) -> None:
        """Wait for what was to be done later."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


class Ledger:
    """What has arrived from each sender: everything in order, once, undamaged."""

    def __init__(self, stage: Stage, styles) -> None:
        self._stage = stage
        self._styles = styles
        self._due: Counter = Counter()

    def take(self, message) -> int:
        """Enter a message, and return its sender."""
        sender, i, content = message
        due = self._due[sender]
        if i != due:
            what = "came twice, or out of order" if i < due else "came before others, which are lost or late"
            raise ViolationError(f"message {i} of sender {sender} {what}: {due} was due")
        style = bodies.style_of(self._styles, sender, i)
        if not (bodies.is_load(style, sender, i, content) or bodies.is_load("nested", sender, i, content)):
            raise ViolationError(f"message {i} of sender {sender} is damaged: {content!r:.300}")
        self._due[sender] += 1
        self._stage.counts["messages"] += 1
        return sender

    def settle(self, sender: int, count: int | None, certain: bool) -> None:
        """Compare what has arrived with what was sent: all of it, or, where that is not certain, any part of it."""
        arrived = self._due.pop(sender, 0)
        if count is not None and (arrived > count or (certain and arrived < count)):
            raise ViolationError(f"of sender {sender} {arrived} messages have arrived; {count} were sent")

    def close(self) -> None:
        if +self._due:
            raise ViolationError(f"messages of nobody: {dict(+self._due)}")


def check(condition: object, text: str) -> None:
    """Raise a violation unless that is so."""
    if not condition:
        raise ViolationError(text)


# -- drawing -----------------------------------------------------------------------------------------------------------

ACTS: dict = {}
has_numpy = False


def act(weight: int, draw):
    """Make a function an act: how often it is chosen, and what draws its plan."""

    def enter(function):
        ACTS[function.__name__] = weight, draw, function
        return function

    return enter


def draw_round(seed: int, number: int, only: str | None = None) -> list[tuple[str, dict]]:
    """Return the acts of a round, with their plans."""
    choose = random.Random(f"{seed}:{number}")
    names = [only] if only else list(ACTS)
    weights = [ACTS[name][0] for name in names]
    chosen = choose.choices(names, weights, k=choose.randint(2, 5))
    return [(name, ACTS[name][1](choose)) for name in chosen]


def draw_seconds(choose: random.Random) -> float:
    """Draw a moment: at once, in the middle of a start, or of a run."""
    return round(choose.choice([0, choose.expovariate(1000), choose.expovariate(100), choose.uniform(0, 0.15)]), 6)


def draw_kill(choose: random.Random, probability: float = 0.4) -> dict | None:
    """Draw when an isolate is to be killed, or that it is not."""
    if choose.random() > probability:
        return None
    by = choose.choice(["main", "main", "isolate"])
    priority = choose.choice([0, 0, 0, 1]) if by == "main" else 0
    return {"after": draw_seconds(choose), "priority": priority, "by": by}


def draw_styles(choose: random.Random) -> list[str]:
    """Draw what messages are made of."""
    styles = choose.sample(bodies.SMALL, choose.randint(1, 4))
    if choose.random() < 0.3:
        styles.append(choose.choice(bodies.LARGE))
    if has_numpy and choose.random() < 0.2:
        styles.append("array")
    return styles


def draw_count(choose: random.Random, styles: list[str]) -> int:
    """Draw how many of them."""
    most = 12 if "huge" in styles else 60 if {"large", "array"} & {*styles} else 400
    return choose.choice([0, 1, choose.randint(0, most), choose.randint(0, most)])
