"""What all tests share: event loops, programs in processes of their own, and the check that nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from subiso._kernel import nursery
from subiso.testing import no_leaks

LONG = 20  # seconds: the bound of a wait that should be over at once
MARKS = str(Path(__file__).parent / "marks.py")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run asynchronous tests on both event loops."""
    return request.param


@pytest.fixture(autouse=True)
def isolates_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new interpreters load pytest only where they use it."""
    prefix = f"with open({MARKS!r}) as _file:\n    exec(_file.read(), {{'__name__': 'marks'}})\ndel _file\n"
    monkeypatch.setattr(nursery, "boot_prefix", prefix)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail the test that leaves isolates, threads or open ports behind."""
    with no_leaks(LONG):
        yield


class Program(subprocess.Popen):
    """A Python program in a process of its own, killed at the end of its test."""

    def finish(self, timeout: float = LONG) -> "Program":
        """Wait for the end, and keep what was written in `out` and `err`."""
        self.out, self.err = self.communicate(timeout=timeout)
        return self

    def expect(self, line: str) -> None:
        """Read up to a line of the program's output."""
        read = b""
        while read.splitlines()[-1:] != [line.encode()] or not read.endswith(b"\n"):
            byte = os.read(self.stdout.fileno(), 1)  # no more than that: `finish` reads the rest
            assert byte, f"the program did not say {line!r} but {read!r}; {self.finish().err}"
            read += byte

    def wait_until_main_thread_sleeps(self) -> None:
        """Wait until the main thread is blocked in the kernel."""
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            if Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S":
                return
        raise AssertionError("the main thread does not sleep")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program, given as text, with arguments."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background; programs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    programs: list[Program] = []

    def start(code: str, *args: object) -> Program:
        path = tmp_path / f"program{len(programs)}.py"
        path.write_text(textwrap.dedent(code))
        command = [sys.executable, str(path), *map(str, args)]
        pipe = subprocess.PIPE
        programs.append(Program(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()
        program.finish()
        for stream in (program.stdout, program.stderr):
            stream.close()


@pytest.fixture
def script(start: Callable[..., Program]) -> Callable[..., Program]:
    """Run a program, given as text, with arguments, to its end."""

    def script(code: str, *args: object, timeout: float = LONG) -> Program:
        return start(code, *args).finish(timeout)

    return script
