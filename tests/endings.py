"""How programs with isolates end: each way many times over, each time in a process of its own.

    python tests/endings.py --times 200 --json docs/reference/endings/3.14.json

A program says ``begin`` before it imports subiso. If a signal is to end it, that comes at a random instant between then
and the end that the program would have come to by itself, its finalization included. A run has failed if the program
has not ended after `BOUND` seconds, has crashed, has drawn a complaint of CPython's, or has an exit code that it could
not have. The seed is printed, and `--seed` repeats the instants.
"""

import argparse
import json
import os
import platform
import pty
import random
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BOUND = 30.0  # seconds after which a program counts as one that hangs; a busy machine may take some to start it
COMPLAINTS = ("Fatal Python error", "free():", "malloc", "corrupted", "remaining subinterpreters", "lost sys.stderr")
ROOT = Path(__file__).parent.parent

HEAD = """
import os, sys, time
print("begin", flush=True)
from subiso import Actor, Buffer, Isolate, IsolatePool, ReceivePort, Supervisor

def compute(hello):
    hello.send(1)
    while True:
        pass

def wait(hello):
    port = ReceivePort()
    hello.send(1)
    port.receive()

def listen(hello):
    ReceivePort(end_with_senders=False).listen(print)
    hello.send(1)

def sleep(hello):
    hello.send(1)
    time.sleep(1000)

def hold(hello):
    kept = Buffer(1 << 20)
    hello.send(1)
    ReceivePort(end_with_senders=False).receive()
    del kept

def numbers(count):
    yield from range(count)

def send_some(port, count):
    for number in range(count):
        port.send(number)
    return count

class Adder:
    def __init__(self):
        self.sum = 0
    def add(self, number):
        self.sum += number
        return self.sum
"""

WORK = """
def work():
    with ReceivePort() as port:
        isolate = Isolate.spawn(send_some, port.send_port, 50)
        assert sum(port) == 1225
        isolate.join()
    assert Isolate.run(sum, [1, 2]).result() == 3
    with IsolatePool(2) as pool:
        assert list(pool.map(abs, range(-50, 0))) == [*range(50, 0, -1)]
    assert len(list(Isolate.stream(numbers, 100))) == 100
"""

ASYNC_WORK = """
async def work():
    async with ReceivePort() as port:
        isolate = Isolate.spawn(send_some, port.send_port, 50)
        assert sum([number async for number in port]) == 1225
        await isolate.ajoin()
    assert await Isolate.run(sum, [1, 2]) == 3
    async with IsolatePool(2) as pool:
        assert await pool.submit(abs, -1) == 1
    assert len([number async for number in Isolate.stream(numbers, 100)]) == 100
"""

RUNNING = """
hello = ReceivePort()
for entry in (compute, wait, listen):
    Isolate.spawn(entry, hello.send_port, name=entry.__name__)
    hello.receive()
"""

EVERYTHING = """
hello = ReceivePort()
for entry in (compute, wait, listen, sleep, hold):
    Isolate.spawn(entry, hello.send_port, name=entry.__name__)
    hello.receive()
paused = Isolate.spawn(compute, hello.send_port, paused=True)
buffer = Buffer(1 << 20)
stream = iter(Isolate.stream(numbers, 1_000_000, maxsize=10))
next(stream)
actor = Actor.spawn(Adder)
assert actor.add(1).result() == 1
supervisor = Supervisor()
supervisor.add(wait, hello.send_port)
supervisor.start()
hello.receive()
pool = IsolatePool(1)
queued = [pool.submit(abs, -number) for number in range(100)]
"""

LAST_LINE = "import sys; from subiso import Isolate; sys.exit(Isolate.run(abs, -6).result())"
BYE = "print('end', flush=True)\nsys.exit(3)\n"


@dataclass(frozen=True)
class Ending:
    """One way for a program to end.

    Attributes:
        what: happens, in a few words.
        program: its text. It says ``begin``; if it ends by itself, ``end`` just before it does.
        codes: the exit codes that it may have.
        number: the signal that is sent at a random instant; 0: it ends by itself.
        arguments: of Python itself.
        excuse: what else it may say at last, when it ends with 1.
    """

    what: str
    program: str
    codes: tuple[int, ...]
    number: int = 0
    arguments: tuple[str, ...] = ()
    excuse: str | None = None


# By Ctrl-C, Python ends itself by the signal, or with 130 where it cannot be finalized; 0: it had done all its work.
BY_CTRL_C = (-signal.SIGINT, 130, 0)
ENDINGS = {
    "idle": Ending("`sys.exit(3)` when all isolates have ended", HEAD + "Isolate.run(int).result()\n" + BYE, (3,)),
    "running": Ending(
        "`sys.exit(3)` beside isolates that compute, wait and listen", HEAD + RUNNING + BYE, (3,)
    ),
    "error": Ending(
        "an uncaught error beside the same", HEAD + RUNNING + "print('end', flush=True)\nraise ValueError\n", (1,)
    ),
    "everything": Ending(
        "`sys.exit(3)` beside one of everything, one of them blocked in C code", HEAD + EVERYTHING + BYE, (3,)
    ),
    "ctrl-c": Ending("Ctrl-C in a script", HEAD + WORK + "work()\n", BY_CTRL_C, signal.SIGINT),
    "ctrl-c-running": Ending(
        "Ctrl-C in a script that leaves isolates running", HEAD + RUNNING + "print('end', flush=True)\n",
        BY_CTRL_C, signal.SIGINT,
    ),
    "ctrl-c-asyncio": Ending(
        "Ctrl-C in `asyncio.run`", "import asyncio\n" + HEAD + ASYNC_WORK + "asyncio.run(work())\n",
        BY_CTRL_C, signal.SIGINT,
        # `asyncio.Runner.run` forgets a Ctrl-C that comes when its handler is set and nothing has begun yet.
        excuse="asyncio.exceptions.CancelledError",
    ),
    "ctrl-c-trio": Ending(
        "Ctrl-C in `trio.run`", "import trio\n" + HEAD + ASYNC_WORK + "trio.run(work)\n", BY_CTRL_C, signal.SIGINT
    ),
    "ctrl-c-repl": Ending(
        "Ctrl-C in a REPL (`python -i`), where another line is typed then",
        HEAD + WORK + "work()\n", (6, -signal.SIGINT, 130), signal.SIGINT, ("-i",),
    ),
    "sigterm": Ending(
        "SIGTERM, with its default action", HEAD + RUNNING + "print('end', flush=True)\n",
        (-signal.SIGTERM, 0), signal.SIGTERM,
    ),
    "sigterm-handled": Ending(
        "SIGTERM, with a handler that calls `sys.exit(4)`",
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\n" + HEAD + WORK + "work()\n",
        # Python sets the default action again at the end of its finalization
        (4, 0, -signal.SIGTERM), signal.SIGTERM,
    ),
}  # fmt: skip


@dataclass
class Run:
    """How one program has ended.

    Attributes:
        took: seconds to the end, from ``end`` or the signal.
        code: its exit code.
        failure: what was wrong; None: nothing.
        life: seconds from ``begin`` to the end.
        instant: how long after ``begin`` the signal was sent.
    """

    took: float
    code: int | None
    failure: str | None
    life: float
    instant: float | None = None


class _Program:
    """A program that runs, with what it has said so far."""

    def __init__(self, ending: Ending) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `end`
        command = [sys.executable, "-X", "faulthandler", *ending.arguments, "-c", ending.program]
        self._terminal: int | None = None
        descriptor: int = subprocess.DEVNULL
        if "-i" in ending.arguments:
            self._terminal, descriptor = pty.openpty()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON_BASIC_REPL": "1"}
        self.process = subprocess.Popen(
            command, stdin=descriptor, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip
        if self._terminal is not None:
            os.close(descriptor)
        self._process = os.pidfd_open(self.process.pid)
        self._poller = select.poll()
        self._poller.register(self._process, select.POLLIN)

    def expect(self, line: str) -> None:
        """Read up to a line."""
        for said in self.process.stdout:
            if said == line + "\n":
                return
        raise EOFError(f"the program ended without saying {line!r}")

    def type(self, line: str) -> None:
        """Type a line at the terminal."""
        os.write(self._terminal, line.encode() + b"\n")

    def has_ended(self, timeout: float) -> bool:
        """Wait so many seconds at most for the end; return whether it has come."""
        return bool(self._poller.poll(timeout * 1000))

    def wait(self) -> float | None:
        """Wait for the end; return when that was, or None after having ended a program that hangs."""
        deadline = time.monotonic() + BOUND
        while time.monotonic() < deadline:
            if self._terminal is not None:  # again and again: Ctrl-C drops a line that is just being read
                self.type(LAST_LINE)
            if self.has_ended(BOUND if self._terminal is None else 1):
                now = time.monotonic()
                self.process.wait()
                return now
        self.process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return None

    def close(self) -> str:
        """Return what was written on stderr."""
        os.close(self._process)
        self.process.stdout.close()
        self._errors.seek(0)
        text = self._errors.read()
        self._errors.close()
        if self._terminal is not None:
            os.close(self._terminal)
        return text


def run_once(ending: Ending, instant: float | None) -> Run:
    """Run the program to its end.

    Args:
        ending: what it does.
        instant: seconds after ``begin`` at which the signal is sent; None: none is sent.
    """
    program = _Program(ending)
    program.expect("begin")
    begin = since = time.monotonic()
    if instant is not None:
        time.sleep(instant)
        since = time.monotonic()
        program.process.send_signal(ending.number)
    elif not ending.number:
        program.expect("end")
        since = time.monotonic()
    end = program.wait()
    errors = program.close()
    code = program.process.returncode
    failure = None
    if end is None:
        failure = "it did not end"
    elif code not in ending.codes and not (code == 1 and ending.excuse and errors.endswith(f"\n{ending.excuse}\n")):
        failure = f"it ended with {code}"
    elif found := [complaint for complaint in COMPLAINTS if complaint in errors]:
        failure = f"it said {found[0]!r}"
    if failure:
        failure = f"{failure}\n{textwrap.indent(errors, '    ')}"
    now = time.monotonic() if end is None else end
    return Run(now - since, code, failure, now - begin, instant)


def life_of(ending: Ending) -> float:
    """Return how long the program lives after ``begin`` if it is left alone, in seconds: the longest of three runs."""
    undisturbed = [run_once(ending, None) for _ in range(3)]
    for run in undisturbed:
        if run.failure:
            raise RuntimeError(f"the program fails by itself: {run.failure}")
    return max(run.life for run in undisturbed)


def run_many(ending: Ending, times: int, seed: object, jobs: int = 1) -> list[Run]:
    """Run the program so many times, ``jobs`` of them at once."""
    chance = random.Random(repr(seed))
    life = life_of(ending) if ending.number else 0.0
    instants = [chance.uniform(0, life) if ending.number else None for _ in range(times)]
    with ThreadPoolExecutor(jobs) as executor:
        return list(executor.map(run_once, [ending] * times, instants))


def describe(name: str, runs: Iterable[Run]) -> dict[str, object]:
    """Return the figures of many runs: how many, the time to the end in ms, and with which exit codes."""
    runs = list(runs)
    took = sorted(run.took * 1000 for run in runs)
    codes = Counter(str(run.code) for run in runs)
    return {
        "ending": name,
        "what": ENDINGS[name].what,
        "times": len(runs),
        "failures": sum(run.failure is not None for run in runs),
        "p50_ms": round(took[len(took) // 2], 1),
        "p99_ms": round(took[min(len(took) * 99 // 100, len(took) - 1)], 1),
        "longest_ms": round(took[-1], 1),
        "codes": dict(sorted(codes.items())),
    }


def main() -> int:
    """Run what the command line asks for, print the figures, and return the exit code: 1 if anything has failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("endings", nargs="*", default=[*ENDINGS], metavar="ENDING", help=f"of {', '.join(ENDINGS)}")
    parser.add_argument("--times", type=int, default=20, help="how often each (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="how many programs at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--json", type=Path, help="a file for the figures; those of other endings in it are kept")
    arguments = parser.parse_args()
    if unknown := set(arguments.endings) - set(ENDINGS):
        parser.error(f"there is no such ending: {', '.join(sorted(unknown))}")
    print(f"Python {platform.python_version()}, seed {arguments.seed}, {arguments.times} times each")
    failed = False
    for name in arguments.endings:
        runs = run_many(ENDINGS[name], arguments.times, (arguments.seed, name), arguments.jobs)
        figures = describe(name, runs)
        print(
            f"{name}: {figures['times']} times, {figures['failures']} failures, p50 {figures['p50_ms']} ms, "
            f"p99 {figures['p99_ms']} ms, longest {figures['longest_ms']} ms, exit codes {figures['codes']}",
            flush=True,
        )
        for run in runs:
            if run.failure:
                failed = True
                print(f"  at {run.instant}: {run.failure}", flush=True)
        if arguments.json:
            _keep(arguments.json, figures | {"seed": arguments.seed})
    return 1 if failed else 0


def _keep(path: Path, figures: dict[str, object]) -> None:
    known = json.loads(path.read_text())["endings"] if path.exists() else []
    kept = {one["ending"]: one for one in known} | {figures["ending"]: figures}
    report = {"python": platform.python_version(), "endings": [kept[name] for name in ENDINGS if name in kept]}
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
