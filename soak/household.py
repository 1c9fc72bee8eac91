"""What the process holds, counted exactly: nothing may be left of a round beyond the interpreters that are kept.

Of each idle interpreter there may be: two threads, two ears, one mapping of the shared memory, and, of each slot ever
used, a pipe and a doorbell, and the semaphores of as many bounded ports as were ever open there at once. Of two slots
that have talked much there may be one segment, in which their stream stays until it is used again.
"""

import collections
import gc
import os
import tempfile
import threading
import time
from pathlib import Path

from plans import ViolationError

from subiso._kernel import nursery as nurseries
from subiso._kernel.arena import SLOTS, Arena, address_of
from subiso._kernel.interpreters import MAP_OPTIONS  # without any (3.12) each mapping keeps a descriptor

PATIENCE = 60  # seconds in which everything must have come to rest
_PLACES = 500  # of ports in each slot: rounds do not open more at once
_TAIL, _WRITER_SEGMENT, _HEAD, _READER_SEGMENT = 0, 2, 8, 10  # words of a ring; see links.py


def nursery():
    """Return the process's interpreters."""
    assert nurseries._nursery is not None
    return nurseries._nursery


class Household:
    """Knows what the process held before, and complains of what is left."""

    def __init__(self) -> None:
        self.made = 0  # interpreters
        boot = nurseries.Nursery._boot

        def count_and_boot(one, berth):
            self.made += 1
            return boot(one, berth)

        nurseries.Nursery._boot = count_and_boot  # type: ignore[method-assign]
        self._temporary = Path(tempfile.gettempdir())
        self._threads: set[threading.Thread] = set()
        self._ports: set[int] = set()
        self._files: collections.Counter = collections.Counter()
        self._others: collections.Counter = collections.Counter()  # descriptors that have nothing to do with slots
        self._tasks = 0

    def begin(self) -> None:
        """Take what there is now as what there should be."""
        self.settle()
        self._threads = set(self._main_threads())
        self._tasks = len(os.listdir("/proc/self/task")) - 2 * len(self._idle())
        self._ports = set(nursery().node.mailbox.inboxes)
        self._files = self._descriptors()
        slots = len(nursery()._berths) + 1  # main's included; each has a pipe for control messages and a doorbell
        self._others = self._files - collections.Counter({"pipe": 2 * slots, "anon_inode:[eventfd]": slots})

    @staticmethod
    def _idle() -> list:
        return [berth for berth in nursery()._berths if berth.state == nurseries.IDLE]

    @staticmethod
    def _main_threads() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one not in {berth.thread for berth in nursery()._berths}]

    def settle(self) -> None:
        """Wait until every interpreter is idle or gone."""
        one = nursery()
        deadline = time.monotonic() + PATIENCE
        while True:
            states = {berth.slot: (berth.state, berth.name) for berth in one._berths}
            busy = {slot: state for slot, state in states.items() if state[0] not in (nurseries.IDLE, nurseries.GONE)}
            if not busy:
                break
            if time.monotonic() > deadline:
                raise ViolationError(f"interpreters did not come to rest in {PATIENCE} s: {busy}")
            time.sleep(0.005)
        gc.collect()
        one.node.mailbox.pump()

    def check(self, deep: bool = False) -> None:
        """Complain of what is left; deep: close all interpreters first, so that hardly anything may be left."""
        self.settle()
        if deep and not nursery().retire_idle(PATIENCE):
            raise ViolationError("interpreters could not be closed")
        deadline = time.monotonic() + 20  # what has just ended is given a moment: a thread ends after its last word
        while (complaints := [*self._complaints(deep)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        if complaints:
            raise ViolationError("left behind: " + "; ".join(complaints))

    def _complaints(self, deep: bool):
        mailbox = nursery().node.mailbox
        idle, slots = len(self._idle()), len(nursery()._berths)
        threads = [one.name for one in self._main_threads() if one not in self._threads and one.is_alive()]
        if [name for name in threads if not name.startswith("subiso-attendant")]:
            yield f"threads {threads}"
        tasks = len(os.listdir("/proc/self/task")) - 2 * idle
        if tasks > self._tasks + 1:  # main's attendant, once there is one
            yield f"{tasks - self._tasks} threads of the system"
        if ports := set(mailbox.inboxes) - self._ports:
            yield f"{len(ports)} ports of main"
        if mailbox._watches:
            yield f"watches of {sum(map(len, mailbox._watches.values()))} ends"
        for kind, number in self._descriptors().items():
            most = {
                "pipe": 2 * (slots + 1) + self._others["pipe"],
                "anon_inode:[eventfd]": slots + 1 + semaphores(),
                "anon_inode:[eventpoll]": 2 * (idle + 1),  # ears, of whoever blocks and of event loops
                "memfd:subiso": idle + 2,
                "memfd:subiso-segment": len(segments()) * (1 if MAP_OPTIONS else 3) if deep else 2 * SLOTS,
            }.get(kind, self._files[kind])
            if number > most:
                yield f"{number} descriptors of {kind}, where there may be {most}"
        mapped = mappings()
        if mapped["memfd:subiso"] > idle + 1:
            yield f"{mapped['memfd:subiso']} mappings of the shared memory by {idle + 1} interpreters"
        if files := [str(path) for path in self._temporary.rglob("*") if path.is_file()]:
            yield f"temporary files {files}"

    @staticmethod
    def _descriptors() -> collections.Counter:
        found: collections.Counter = collections.Counter()
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
            found[target.partition(":[")[0] if not target.startswith(("/", "anon")) else kind_of(target)] += 1
        return found


def kind_of(path: str) -> str:
    """Return what sort of memory file that is, or the path itself."""
    return path.removesuffix(" (deleted)").removeprefix("/")


def mappings() -> collections.Counter:
    """Return how many mappings there are of each file."""
    found: collections.Counter = collections.Counter()
    with open("/proc/self/maps") as file:
        for line in file:
            parts = line.split(maxsplit=5)
            found[kind_of(parts[5].strip()) if len(parts) > 5 else "anonymous"] += 1
    return found


def semaphores() -> int:
    """Return how many semaphores there are: each place where a bounded port ever was keeps its own for the next one."""
    words = nursery()._arena.words
    firsts = (Arena.port(address_of(slot, 0, 0)) for slot in range(len(nursery()._berths) + 1))
    return sum(words[place + 1] != 0 for first in firsts for place in range(first, first + 2 * _PLACES, 2))


def _rings():
    """Yield the control words of each ring that was ever used."""
    one = nursery()
    slots = range(len(one._berths) + 1)
    for sender in slots:
        for receiver in slots:
            words = Arena.ring(sender, receiver) >> 3
            if one._arena.words[words + _TAIL]:
                yield one._arena.words, words


def segments() -> set[int]:
    """Return the descriptors of segments in which streams go on, as far as their interpreters are closed."""
    found = set()
    for words, at in _rings():
        found |= {words[at + _WRITER_SEGMENT], words[at + _READER_SEGMENT]}
    own = nursery().node.mailbox
    found |= {
        link._segment.descriptor + 1 for link in (*own._readers.values(), *own._writers.values()) if link._segment
    }
    return found - {0}


def memory() -> collections.Counter:
    """Return how much memory is really used, in bytes, by kind: what is nobody else's, and each shared page once."""
    with open("/proc/self/status") as file:
        facts = dict(line.split(":", 1) for line in file)
    used = collections.Counter(private=int(facts["RssAnon"].split()[0]) * 1024)
    files: dict = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("/memfd:"):
                stat = os.stat(f"/proc/self/fd/{name}")
                files[stat.st_ino] = kind_of(target), stat.st_blocks * 512
        except OSError:
            continue
    for kind, size in files.values():
        used[kind] += size
    return used


class Memory:
    """Whether memory stays flat, over many rounds.

    The median of the last third is compared with that of the middle third: until then the heap of each interpreter
    grows to the most that anything needed which was done in it. Growth is allowed for interpreters that were made in
    between (what they loaded is never given back, see docs/explanation/limits.md), for each isolate as much as
    recycling is known to lose, and some for the allocator.
    """

    SLACK = 5 << 20
    PER_HEAP = 1 << 20
    PER_ISOLATE = 1300
    PER_INTERPRETER = 7 << 20

    def __init__(self) -> None:
        self.kinds: collections.Counter = collections.Counter()  # bytes, at the last look
        self.samples: list[tuple[int, int, int]] = []  # bytes, isolates and interpreters so far

    def add(self, isolates: int, interpreters: int) -> int:
        self.kinds = memory()
        now = self.kinds.total()
        self.samples.append((now, isolates, interpreters))
        return now

    def growth(self, heaps: int) -> tuple[int, int]:
        """Return by how much it has grown, and by how much it may have, with so many interpreters."""
        third = len(self.samples) // 3
        if third < 5:
            return 0, self.SLACK
        parts = self.samples[-2 * third : -third], self.samples[-third:]
        middle, last = ([sorted(column)[third // 2] for column in zip(*part, strict=True)] for part in parts)
        grown, isolates, interpreters = (after - before for before, after in zip(middle, last, strict=True))
        return (
            grown,
            self.SLACK + heaps * self.PER_HEAP + isolates * self.PER_ISOLATE + interpreters * self.PER_INTERPRETER,
        )
