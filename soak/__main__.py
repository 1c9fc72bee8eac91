"""The soak: random mixtures of everything subiso offers, for as long as you like, beside a model of what is right.

    python soak                       three minutes, on a seed that is printed
    python soak --hours 8 --seed 7    longer, and the same plan again
    python soak --replay 7:123        one round of it, or with --times 100 that round again and again

The exit code is 0 if nothing was wrong, 1 after a failure, 70 after a hang.
"""

import argparse
import collections
import ctypes
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # main's numpy would start threads, as many as there are cores

import acts_ports
import acts_work
import bodies
import history
import plans
import watchdog
from household import Household, Memory, nursery

from subiso import Isolate


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (3)")
    parser.add_argument("--hours", type=float, help="how long, in hours")
    parser.add_argument("--seed", type=int, help="what the plan follows from; drawn and printed if not given")
    parser.add_argument("--replay", metavar="SEED:ROUND", help="play one round only")
    parser.add_argument("--times", type=int, default=1, help="how often to play it (1)")
    parser.add_argument("--only", choices=sorted(plans.ACTS), help="draw only this kind of act")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a round may take (300)")
    parser.add_argument("--no-numpy", action="store_true", help="no arrays, though numpy is installed")
    parser.add_argument("--record", nargs="?", const=str(history.RECORDS), metavar="DIRECTORY", help="keep the figures")
    parser.add_argument("--write-page", action="store_true", help="only write the page of the documentation anew")
    parser.add_argument("--verbose", action="store_true", help="say what is in every round")
    return parser.parse_args(arguments)


def prepare_interpreter(use_numpy: bool) -> None:
    """Load in an interpreter all that rounds will load, so that memory can be seen to be flat from then on."""
    import asyncio  # noqa: F401
    import json  # noqa: F401
    import logging  # noqa: F401
    import threading  # noqa: F401

    import msgspec  # noqa: F401

    if use_numpy:
        import numpy  # noqa: F401


class Soak:
    """One soak: round after round, until the time is over or something is wrong."""

    def __init__(self, seed: int, options: argparse.Namespace) -> None:
        self.seed = seed
        self.options = options
        self.number = 0
        self.counts: collections.Counter = collections.Counter()
        self.household = Household()
        self.memory = Memory()
        self.record = history.Record(seed, Path(options.record) if options.record else None)
        self.acts: list = []
        self.running: dict[str, float] = {}
        self.began = time.monotonic()
        self.rounds = 0
        self.watchdog = watchdog.Watchdog(options.limit, self.describe_failure)

    def warm_up(self) -> None:
        """Make as many interpreters as a round will need, and have everything loaded in them."""
        self.watchdog.feed()
        self.refill(12)
        self.household.begin()
        self.began = time.monotonic()

    def refill(self, number: int) -> None:
        isolates = [Isolate.run(_stay, plans.has_numpy) for _ in range(number)]
        for future in isolates:
            future.result(plans.LONG)

    def play(self, number: int) -> None:
        """Play one round, and look what is left of it."""
        self.number = number
        self.watchdog.feed()
        self.acts = plans.draw_round(self.seed, number, self.options.only)
        if self.options.verbose:
            print(f"round {number}: {json.dumps(self.acts)}", flush=True)
        counts = [collections.Counter() for _ in self.acts]
        errors: list[tuple[str, BaseException]] = []
        threads = [
            threading.Thread(target=self.perform, args=(place, *one, counts[place], errors), name=f"soak-{one[0]}")
            for place, one in enumerate(self.acts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for count, (name, _) in zip(counts, self.acts, strict=True):
            self.counts += count
            self.counts[name] += 1
        if errors:
            raise errors[0][1]
        self.household.check()
        self.rounds += 1

    def perform(self, place: int, name: str, plan: dict, counts: collections.Counter, errors: list) -> None:
        key = f"{place}: {name}"
        self.running[key] = time.monotonic()
        try:
            stage = plans.Stage(counts)
            try:
                plans.ACTS[name][2](stage, **plan)
            finally:
                stage.finish()
        except BaseException as error:
            error.add_note(f"in act {key} of round {self.number}: {json.dumps(plan)}")
            if not errors:
                # At once, while the rest is as it was.
                self.describe_failure("".join(traceback.format_exception_only(error)).strip())
                traceback.print_exception(error)
                watchdog.dump()
            errors.append((key, error))
        finally:
            del self.running[key]

    def describe_failure(self, reason: str) -> None:
        """Say what is wrong, and how to see it again."""
        now = time.monotonic()
        running = {key: f"for {now - since:.1f} s" for key, since in self.running.copy().items()}
        python = sys.version.split()[0]
        print(
            f"\nFAILURE on Python {python}, seed {self.seed}, round {self.number}: {reason}\n"
            f"to play it again: python soak --replay {self.seed}:{self.number} --times 100\n"
            f"plan: {json.dumps(self.acts)}\nunder way: {running}\n"
            f"interpreters: {[(one.slot, one.state, one.name) for one in nursery()._berths if one.state != 'idle']}",
            file=sys.stderr,
            flush=True,
        )
        self.write("failed", reason=f"round {self.number}: {reason.splitlines()[0]}")

    def write(self, outcome: str, **more) -> None:
        samples = self.memory.samples
        facts = {"memory_first": samples[0][0], "memory_last": samples[-1][0]} if samples else {}
        seconds = round(time.monotonic() - self.began, 1)
        rounds, counts = self.rounds, dict(sorted(self.counts.items()))
        self.record.write(
            outcome=outcome,
            seconds=seconds,
            rounds=rounds,
            interpreters=self.household.made,
            counts=counts,
            **facts,
            **more,
        )

    def run(self, seconds: float) -> None:
        """Play rounds for so long."""
        warm, said = 0.0, 0.0
        while (now := time.monotonic() - self.began) < seconds:
            self.play(self.rounds)
            if self.rounds > 50 or now > seconds / 3:
                self.memory.add(self.counts["isolates"], self.household.made)
                warm = warm or now
            if now - said > 15:
                said = now
                self.say()
                self.write("died")  # as the record will have it, should it come to that
        grown, allowed = self.memory.growth(1 + len(nursery()._berths))
        self.say()
        self.watchdog.feed()
        self.household.check(deep=True)
        print(f"memory has grown by {grown / 1e6:.1f} MB, of {allowed / 1e6:.1f} allowed", flush=True)
        if grown > allowed:
            raise plans.ViolationError(
                f"memory has grown by {grown / 1e6:.1f} MB; {allowed / 1e6:.1f} would be explained"
            )

    def say(self) -> None:
        seconds = time.monotonic() - self.began
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in ("isolates", "kills", "messages", "tasks"))
        kinds = ", ".join(f"{size / 1e6:.0f} MB {kind}" for kind, size in self.memory.kinds.items())
        memory = kinds if self.memory.samples else "warming up"
        made = self.household.made
        print(f"{seconds:7.0f} s: {self.rounds:,} rounds, {counts}, {made} interpreters made, {memory}", flush=True)


def _stay(use_numpy: bool) -> None:
    """Keep an interpreter busy until others must be made."""
    prepare_interpreter(use_numpy)
    time.sleep(0.3)


def do_without_huge_pages() -> None:
    """Have the kernel make none here: Python 3.15 asks for them, and they come at any time, of two megabytes each."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.write_page:
        history.write_page()
        return 0
    do_without_huge_pages()
    logging.getLogger("subiso").setLevel(logging.CRITICAL + 1)  # of restarts, and what was abandoned
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    replayed = None
    if options.replay:
        seed, replayed = map(int, options.replay.split(":"))
    try:
        import numpy  # noqa: F401

        plans.has_numpy = not options.no_numpy
    except ImportError:
        pass
    seconds = options.hours * 3600 if options.hours else options.minutes * 60
    python = sys.version.split()[0]
    numpy_too = "with numpy" if plans.has_numpy else "without numpy"
    print(f"soak: Python {python}, {numpy_too}, seed {seed}, {os.cpu_count()} cores", flush=True)
    own = tempfile.mkdtemp(prefix="subiso-soak-")  # so that what is left there is ours
    os.environ["TMPDIR"] = tempfile.tempdir = own
    soak = Soak(seed, options)
    try:
        soak.warm_up()
        if replayed is None:
            soak.run(seconds)
        else:
            for _ in range(options.times):
                soak.play(replayed)
            soak.say()
            soak.household.check(deep=True)
        soak.write("passed")
    except BaseException as error:
        if soak.record.facts["outcome"] != "failed":
            soak.describe_failure("".join(traceback.format_exception_only(error)).strip())
            traceback.print_exception(error)
            watchdog.dump()
        return 1
    finally:
        soak.watchdog.rest()
        shutil.rmtree(own, ignore_errors=True)
    return 0


assert acts_ports
assert acts_work
assert bodies
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
