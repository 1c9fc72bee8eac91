"""``subiso doctor``: what this machine and this Python let isolates do, and what would not work."""

import os
import sys
from dataclasses import asdict, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_DESCRIPTION = """\
Look at this Python, its build and the machine: versions, limits, private copies of extension modules, and whether an
isolate runs. The exit code is 1 if something would not work.
"""
_ROOM = 256 << 20  # bytes on disk that a few isolates with large packages may need at once
_DESCRIPTORS = 4  # that each interpreter needs


@dataclass
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what it is about.
        fact: what was found.
        problem: what would not work, and what to do about it; None if nothing is wrong.
    """

    topic: str
    fact: str
    problem: str | None = None


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of the command line."""
    parser = commands.add_parser("doctor", help="what would not work here?", description=_DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="write the result as JSON on standard output")
    parser.set_defaults(run=run)


def run(arguments: "argparse.Namespace") -> int:
    """Tell what was found and return the exit code: 1 if there is a problem."""
    findings = [*_python(), *_versions(), *_limits(), *_copies(), *_policy(), _trial()]
    if arguments.json:
        import json

        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _show(findings)
    return 1 if any(finding.problem for finding in findings) else 0


def _python() -> "Iterator[Finding]":
    import platform
    import sysconfig

    compiler = platform.python_compiler()
    yield Finding("Python", f"{platform.python_implementation()} {platform.python_version()} ({compiler})")
    yield Finding("executable", sys.executable)
    debug = bool(sysconfig.get_config_var("Py_DEBUG"))
    yield Finding("build", "debug" if debug else "release", "isolates are several times slower" if debug else None)
    yield Finding("platform", platform.platform())


def _versions() -> "Iterator[Finding]":
    from importlib import metadata

    import subiso
    from subiso._kernel.interpreters import COPIES_BY_PYINIT, EXIT_NEEDS_HELP

    yield Finding("subiso", subiso.__version__)
    for name in ("msgspec", "rich", "interpreters-pep-734"):
        try:
            yield Finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    yield Finding("single-phase modules", "loaded by their init function" if COPIES_BY_PYINIT else "loaded by import")
    if EXIT_NEEDS_HELP:
        yield Finding("exit", "without finalization: destructors of what is left in modules do not run on this Python")


def _limits() -> "Iterator[Finding]":
    import resource

    from subiso._kernel.arena import SLOTS
    from subiso._kernel.limits import Limits

    yield Finding("processors", str(len(os.sched_getaffinity(0))))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Finding("memory", _bytes(memory))
    yield Finding("isolates", f"at most {Limits.isolates} at once (subiso.configure)")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _DESCRIPTORS * min(Limits.isolates, SLOTS)
    few = f"enough for some {soft // _DESCRIPTORS} isolates, not {Limits.isolates}: raise `ulimit -n`"
    unlimited = soft == resource.RLIM_INFINITY or soft >= needed
    yield Finding("open files", f"at most {soft}", None if unlimited else few)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        problem = "each interpreter maps 9 GB of address space, of which little is used: raise `ulimit -v`"
        yield Finding("address space", f"at most {_bytes(space)}", problem)


def _copies() -> "Iterator[Finding]":
    from subiso._kernel import copies

    place = copies.place()
    yield Finding("private copies", f"in {place} ({copies.SWITCH})")
    try:
        path = copies.probe()
    except OSError as error:
        yield Finding("a copy", f"cannot be made: {error}", copies.advice())
        return
    yield Finding("a copy", "can be made and loaded" if path else "cannot be loaded", None if path else copies.advice())
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    yield Finding("room for copies", _bytes(free), copies.advice() if free < _ROOM else None)
    living, dead = copies.directories()
    yield Finding("processes with copies", str(living))
    yield Finding("left by dead processes", f"{dead}{', removed by the next copy' if dead else ''}")


def _policy() -> "Iterator[Finding]":
    from subiso._kernel import extensions, packages

    policy = os.environ.get(extensions.SWITCH, "private")
    known = policy in extensions.POLICIES
    problem = None if known else f"there is no such policy; it counts as private: {', '.join(extensions.POLICIES)}"
    if policy == "off":
        problem = f"packages with compiled code cannot be imported in isolates: unset {extensions.SWITCH}"
    yield Finding("extension modules", f"{policy} ({extensions.SWITCH})", problem)
    for name, facts in packages.MODULES.items():
        if "refused" in facts:
            yield Finding(f"{name} in isolates", f"refused: {facts['refused']}")
    yield Finding("stand-ins in isolates", ", ".join(sorted(packages.STAND_INS)))


def _trial() -> Finding:
    from time import perf_counter

    from subiso import Isolate

    begin = perf_counter()
    try:
        Isolate.run(os.getpid).result(60)
    except Exception as error:
        return Finding("an isolate", "does not run", f"{type(error).__name__}: {error}")
    return Finding("an isolate", f"runs: {(perf_counter() - begin) * 1000:.0f} ms to the first result")


def _bytes(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB"


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(finding.topic, finding.fact)
    console.print(table)
    problems = [finding for finding in findings if finding.problem]
    console.print()
    for finding in problems:
        console.print(f"{finding.topic}: {finding.problem}", style="red", soft_wrap=True)
    if not problems:
        console.print("Nothing here would not work.")
