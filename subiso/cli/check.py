"""``subiso check``: do these packages work in isolates? Each is tried in a process of its own."""

import os
import sys
from dataclasses import asdict, dataclass, field

from subiso.cli import UsageError
from subiso.cli.known import Package, find, installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from rich.table import Table

_DESCRIPTION = """\
Import each package in one isolate, then in several at once, and call a smoke function there, many times over. What it
returns must be what it returns in main, and the package's compiled modules must be loaded in each isolate for itself.
Each package gets a process of its own, so that one that crashes stops nothing. The exit code is 1 unless all work.
"""

WORKS, IMPORTS, FAILS, CRASHES, REFUSED = "works", "imports", "fails", "crashes", "refused"
BROKEN = "broken"  # it fails in main, too
_STYLES = {WORKS: "green", IMPORTS: "yellow"}


@dataclass
class Verdict:
    """What came out for a package.

    Attributes:
        package: its name.
        version: of its distribution; None: unknown.
        verdict: ``works``, ``imports`` (there is no smoke function), ``fails``, ``crashes``, ``refused``, or ``broken``
            for what fails in main, too.
        reason: why it does not work; None if it does.
        modules: the compiled modules of which every isolate had loaded a copy of its own.
        ordinary: those that say themselves that isolates can share them.
        isolates: how many isolates there were at once.
        rounds: how often the smoke function was called in each.
        seconds_main: that the import took in main, alone in its process.
        seconds_first: that it took in the first isolate.
        seconds_at_once: that it took in the slowest of the isolates that imported it at the same time.
        memory: bytes that each further isolate with the package took.
    """

    package: str
    version: str | None
    verdict: str
    reason: str | None = None
    modules: list[str] = field(default_factory=list)
    ordinary: list[str] = field(default_factory=list)
    isolates: int = 0
    rounds: int = 0
    seconds_main: float | None = None
    seconds_first: float | None = None
    seconds_at_once: float | None = None
    memory: int | None = None


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of the command line."""
    parser = commands.add_parser("check", help="do packages work in isolates?", description=_DESCRIPTION)
    parser.add_argument("packages", metavar="PACKAGE", nargs="*", help="a distribution or module that is installed")
    parser.add_argument("--all", action="store_true", help="all installed ones that have a smoke function here")
    parser.add_argument("--code", metavar="CODE", help="a smoke function of your own: its last line is the result")
    parser.add_argument("--isolates", metavar="N", type=int, default=4, help="how many at once (4)")
    parser.add_argument("--rounds", metavar="N", type=int, default=10, help="how often the code is called (10)")
    parser.add_argument("--timeout", metavar="S", type=float, default=300.0, help="seconds for each package (300)")
    parser.add_argument("--json", action="store_true", help="write the result as JSON on standard output")
    parser.set_defaults(run=run)


def run(arguments: "argparse.Namespace") -> int:
    """Check the packages and return the exit code: 0 if all work.

    Raises:
        UsageError: a package is not installed, or a number makes no sense.
    """
    from rich.console import Console

    for option in ("isolates", "rounds", "timeout"):
        if getattr(arguments, option) < 1:
            raise UsageError(f"--{option} must be 1 or more, not {getattr(arguments, option)}")
    if not arguments.packages and not arguments.all:
        raise UsageError("say which packages, or --all")
    packages = [find(name, arguments.code) for name in arguments.packages]
    if arguments.all:
        packages += installed()
    console = Console(stderr=arguments.json, highlight=False, markup=False, emoji=False)
    verdicts = []
    for number, package in enumerate(packages, 1):
        with console.status(f"{package.name} ({number} of {len(packages)})"):
            verdict = check(package, arguments.isolates, arguments.rounds, arguments.timeout)
        verdicts.append(verdict)
        if arguments.json:
            console.print(f"{verdict.package}: {verdict.verdict} {verdict.reason or ''}", soft_wrap=True)
    if arguments.json:
        _write_json(verdicts)
    else:
        console.print(_table(verdicts))
        for verdict in verdicts:
            if verdict.reason:
                console.print(f"{verdict.package}: {verdict.reason}", soft_wrap=True)
    return 0 if all(verdict.verdict == WORKS for verdict in verdicts) else 1


# -- checking one ------------------------------------------------------------------------------------------------------


def check(package: Package, isolates: int = 4, rounds: int = 10, timeout: float = 300.0) -> Verdict:
    """Try a package, and say what came out.

    Args:
        package: what to try.
        isolates: how many at once.
        rounds: how often the smoke function is called in each; every 25th time the interpreters are new ones.
        timeout: seconds that it may take.
    """
    verdict = Verdict(package.name, package.version, BROKEN, isolates=isolates, rounds=rounds)
    alone = _Trial(package, 0, 0, "", timeout)
    if (reason := alone.failure()) or not (seen := alone.find("visit")):
        verdict.reason = f"in main, without isolates: {reason or alone.last_words()}"
        return verdict
    if absent := [name for name in package.compiled or () if name not in seen["modules"]]:
        verdict.reason = f"in main, without isolates: no compiled module {', '.join(absent)}"
        return verdict
    verdict.seconds_main = seen["seconds"]
    trial = _Trial(package, isolates, rounds, seen["result"], timeout)
    if measures := trial.find("visits"):
        verdict.seconds_first = trial.find("first")
        verdict.seconds_at_once, verdict.memory = trial.find("at_once"), trial.find("memory")
        wanted = _wanted(package, seen["modules"])
        loaded = [visit["modules"] for visit in measures]
        verdict.ordinary = [name for name in wanted if _is_ordinary(name, loaded)]
        verdict.modules = [name for name in wanted if _is_private(name, loaded)]
        missing = [name for name in wanted if name not in {*verdict.modules, *verdict.ordinary}]
    if reason := trial.failure():
        verdict.verdict = REFUSED if trial.find("refused") else FAILS
        verdict.reason = f"{trial.stage}: {reason}"
    elif trial.signal:
        verdict.verdict, verdict.reason = CRASHES, f"{trial.stage}: {trial.signal}{trial.last_words(': ')}"
    elif not trial.find("done"):
        verdict.verdict, verdict.reason = FAILS, f"{trial.stage}: {trial.last_words() or 'the process ended'}"
    elif missing:
        verdict.verdict = FAILS
        verdict.reason = f"not loaded in each isolate for itself: {', '.join(missing)}"
    else:
        verdict.verdict = WORKS if package.code else IMPORTS
    return verdict


def _wanted(package: Package, in_main: "dict[str, int | None]") -> list[str]:
    """Return the compiled modules that must be loaded in isolates: those named, and the package's own that main has.

    Some modules have a file that is never loaded: another compiled module makes them. Those have no place in memory.
    """
    own = {module.partition(".")[0] for module in package.imports} | package.libraries
    found = {name for name, place in in_main.items() if place is not None and not own.isdisjoint(_parents(name))}
    return sorted({*(package.compiled or ()), *found})


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _is_private(name: str, loaded: "list[dict[str, int | None]]") -> bool:
    """Return whether every isolate has the module, each at another place in memory."""
    places = [modules.get(name) for modules in loaded]
    return None not in places and len(set(places)) == len(places)


def _is_ordinary(name: str, loaded: "list[dict[str, int | None]]") -> bool:
    places = {modules.get(name) for modules in loaded}
    return len(loaded) > 1 and None not in places and len(places) == 1


class _Trial:
    """One process that has tried a package.

    Attributes:
        stage: the last that it reached.
        signal: the name of the signal that ended it; or an empty text.
    """

    def __init__(self, package: Package, isolates: int, rounds: int, expected: str, timeout: float) -> None:
        import json
        import signal
        import subprocess
        import tempfile

        job = {"imports": package.imports, "code": package.code, "isolates": isolates, "rounds": rounds}
        with tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as output:
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from subiso.cli import probe; probe.main({events.fileno()})"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[events.fileno()],
                env=os.environ | {"PYTHONHASHSEED": "0"},
                start_new_session=True,
                text=True,
            )
            self._timeout = timeout
            try:
                process.communicate(json.dumps({**job, "expected": expected}), timeout)
                self._hung = False
            except subprocess.TimeoutExpired:
                self._hung = True
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            events.seek(0)
            self._events = [json.loads(line) for line in events]
            output.seek(0)
            self._output = output.read().decode(errors="replace")
        self.stage: str = ([event["stage"] for event in self._events if "stage" in event] or ["at the start"])[-1]
        died = process.returncode < 0 and not self._hung
        self.signal = signal.Signals(-process.returncode).name if died else ""

    def find(self, key: str) -> "Any":
        """Return what was told under the key, or None."""
        return next((event[key] for event in self._events if key in event), None)

    def failure(self) -> str | None:
        """Return what went wrong in Python, or None."""
        if self._hung:
            return f"no end after {self._timeout:g} seconds"
        visit = self.find("visit") or {}
        failure: str | None = self.find("failure") or visit.get("error")
        return failure

    def last_words(self, before: str = "") -> str:
        """Return the last line, or the one about a fatal error, that the process wrote."""
        lines = [line.strip() for line in self._output.splitlines() if line.strip()]
        fatal = [line for line in lines if "fatal" in line.lower() or "terminate called" in line]
        last = (fatal or lines)[-1:]
        return f"{before}{last[0]}" if last else ""


# -- telling -----------------------------------------------------------------------------------------------------------


def _write_json(verdicts: list[Verdict]) -> None:
    import json
    import platform

    import subiso

    report = {"python": platform.python_version(), "platform": platform.platform(), "subiso": subiso.__version__}
    print(json.dumps({**report, "packages": [asdict(verdict) for verdict in verdicts]}, indent=1))


def _table(verdicts: list[Verdict]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("package", "version", "", "compiled", "main", "isolate", "at once", "each", box=box.SIMPLE_HEAD)
    for column in table.columns[3:]:
        column.justify = "right"
    for one in verdicts:
        table.add_row(
            one.package,
            one.version or "",
            Text(one.verdict, _STYLES.get(one.verdict, "red")),
            str(len(one.modules) + len(one.ordinary)),
            *(_milliseconds(value) for value in (one.seconds_main, one.seconds_first, one.seconds_at_once)),
            "" if one.memory is None else f"{one.memory / 1e6:.1f} MB",
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"
