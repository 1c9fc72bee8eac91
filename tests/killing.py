"""Kill isolates at chosen steps, thousands of times: nothing aborts, hangs or is left.

``python tests/killing.py --count 1700 --json docs/reference/faults/kills-3.14.json`` kills so many inside each stage.
The isolate comes to the step and stops there, it is killed, and then it goes on: either at once, or when its kernel has
taken note of the kill.
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faulting

from subiso import Isolate, ReceivePort
from subiso._kernel import faults
from subiso._kernel import node as nodes

LONG = 60  # seconds: the bound of a wait that should be over at once
ROUND = 100  # kills after which everything is tried and looked over


def return_at_once(out):
    pass


def import_for_ever(out):
    """Import a module of the user's, anew each time."""
    import sys

    while True:
        import subiso_faults_module

        del sys.modules[subiso_faults_module.__name__]


def import_extension(out):
    """Import a package with compiled code."""
    import msgspec

    while True:
        msgspec.json.encode(1)


def send_for_ever(out):
    from subiso import ReceivePort

    own = ReceivePort(end_with_senders=False)
    out.send(["a list", 1])
    while True:
        own.send_port.send([out, "to itself"])
        own.receive()
        with ReceivePort() as gone:
            gone.send_port.send("too late")


def send_much(out):
    from subiso import ReceivePort

    own = ReceivePort(end_with_senders=False)
    data = bytes(1_200_000)
    while True:
        for _ in range(20):
            own.send_port.send("x" * 1000)
        own.send_port.send(data)
        for _ in range(21):
            own.receive()


class Stage(NamedTuple):
    """Steps at which isolates are killed, and what brings them there."""

    points: list[str]
    entry: Callable[..., object]
    share: int = 1  # how often, beside the others of the stage
    options: dict[str, Any] = {}  # noqa: RUF012


NEW = {"fresh": True}  # seldom: CPython loses some 5 MB with each interpreter that ends
STAGES: dict[str, list[Stage]] = {
    "start": [
        Stage(["start.host", "start.setting", "start.call"], send_for_ever, 40),
        Stage(["start.node", "start.kernel", "start.body", "memory.map"], send_for_ever, 1, NEW),
    ],
    "import": [
        Stage(["import.code"], import_for_ever, 40),
        Stage(
            ["import.extension", "import.copy", "import.write", "import.load", "import.discard"],
            import_extension,
            1,
            NEW,
        ),
    ],
    "encode": [Stage(["encode.message", "encode.pickle"], send_for_ever)],
    "enqueue": [
        Stage(["send.enqueue", "send.grant", "send.writer"], send_for_ever, 16),
        Stage(["send.home"], send_for_ever, 1),  # which takes thousands of messages
        Stage(["send.segment", "send.large", "memory.file"], send_much, 3),
    ],
    "receive": [
        Stage(["receive.pump", "receive.read", "receive.decode", "receive.route"], send_for_ever, 6),
        Stage(["receive.unpack", "receive.move", "receive.open"], send_much),
    ],
    "recycle": [
        Stage(
            ["recycle.begin", "recycle.scrub", "recycle.modules", "recycle.leftovers", "recycle.renew"], return_at_once
        )
    ],
}

UNANSWERED = {
    *("send.home", "send.segment", "receive.read", "receive.move", "receive.route"),
    *("start.node", "start.kernel", "start.body"),
}
"""Where an isolate that stops keeps its kernel's thread from answering: it holds a lock, or is that thread."""


class Killer:
    """Kills isolates inside one stage.

    Attributes:
        counts: kills by step; and what else is to be told.
    """

    def __init__(self, stage: str, seed: int = 0) -> None:
        self.stage = stage
        self.counts: Counter[str] = Counter()
        self.abandoned = 0
        self._random = random.Random(f"{stage}-{seed}")
        self._faults = faults.of_process()
        self._port = ReceivePort[Any](end_with_senders=False)
        self._pongs = ReceivePort[Any](end_with_senders=False)

    def kill_one(self) -> None:
        """Have an isolate come to a step, kill it there, and let it go on."""
        stages = STAGES[self.stage]
        stage = self._random.choices(stages, [one.share for one in stages])[0]
        point = self._random.choice(stage.points)
        if self.stage == "recycle":
            while faulting.isolates_left():  # the ones before are being recycled, too
                time.sleep(0.0005)
        self._faults.put_in(faults.MEET, point, in_main=False)
        isolate = Isolate.spawn(stage.entry, self._port.send_port, **stage.options)
        met = self._faults.await_meeting(LONG)
        assert met is not None, f"nobody came to {point}"
        if self.stage == "recycle":
            self._kill_while_recycled(isolate, met[0])
        else:
            isolate.kill()
            if met[1] and point not in UNANSWERED and self._random.random() < 0.5:
                isolate.ping(self._pongs.send_port)
                assert self._pongs.receive(LONG) is None
            self._faults.go_on()
        assert isolate.join(LONG), f"killed at {point}, the isolate did not end"
        self.abandoned += isolate.is_abandoned
        self._faults.take_out()
        self.counts[point] += 1
        while self._port._inbox.messages:
            self._port.receive(0)

    def _kill_while_recycled(self, ended: Isolate, slot: int) -> None:
        """Kill the one that has ended, and its successor, whose job waits until the interpreter is ready."""
        node = nodes.current()
        assert ended._slot == slot
        node.kill(slot, ended._number, ended._terminate or b"")
        successor = Isolate.spawn(send_for_ever, self._port.send_port)
        successor.kill()
        self._faults.go_on()
        assert successor.join(LONG), "the successor did not end"
        self.abandoned += successor.is_abandoned

    def run(self, count: int) -> dict[str, Any]:
        """Kill so many isolates; check now and then that everything works and that nothing is left."""
        before, memory, begin = faulting.look(), 0.0, time.monotonic()
        for number in range(1, count + 1):
            self.kill_one()
            if number % ROUND == 0 or number == count:
                faulting.check_that_all_works()
                left = faulting.wait_until_clean(before)
                assert not left, left
                memory = memory or resident()
        return {
            "stage": self.stage,
            "kills": count,
            "points": dict(sorted(self.counts.items())),
            "abandoned": self.abandoned,
            "megabytes": round(resident() - memory, 1),
            "seconds": round(time.monotonic() - begin),
        }

    def close(self) -> None:
        self._port.close()
        self._pongs.close()


def resident() -> float:
    """Return how many megabytes of memory the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1700, help="of kills inside each stage")
    parser.add_argument("--stages", type=lambda text: text.split(","), default=list(STAGES))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 20))
    parser.add_argument("--json", type=Path, help="write what came out to this file")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, seed {options.seed}", flush=True)
    faulting.prepare()
    report = []
    for stage in options.stages:
        killer = Killer(stage, options.seed)
        report.append(killer.run(options.count))
        killer.close()
        print(report[-1], flush=True)
    if options.json:
        found = {"python": platform.python_version(), "seed": options.seed, "stages": report}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
