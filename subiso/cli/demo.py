"""``subiso demo``: real work done in four ways, and what each way costs."""

import contextlib
import io
import os
import sys

from subiso.cli import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    from rich.console import Console
    from rich.table import Table

    from subiso.cli.analysis import Module
    from subiso.cli.measuring import Measurement

MOST_WORKERS = 1000  # of what any process can hold; a small machine holds fewer isolates
CHUNK = 64 << 10  # bytes of source: some 50 ms of work, so that no worker has to wait long for the last one
OVERHEAD = 1 << 10  # bytes of source that take as long as opening a file

_DESCRIPTION = """\
Parse every .py file of the running Python's standard library, or of another source tree, and count what is in it: in
one thread, in a thread pool, in a process pool and in isolates. The results are compared, and a table tells what each
way cost.
"""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of the command line."""
    parser = commands.add_parser("demo", help="the same real work in four ways", description=_DESCRIPTION)
    parser.add_argument("--path", metavar="DIR", help="source tree (the standard library)")
    parser.add_argument("--workers", metavar="N", type=int, help="threads, processes, isolates (one for each core)")
    parser.add_argument("--json", action="store_true", help="write the result as JSON on standard output")
    parser.set_defaults(run=run)


def run(arguments: "argparse.Namespace") -> int:
    """Run the demo and return its exit code: 1 if the four results are not equal.

    Raises:
        UsageError: the path or the number of workers makes no sense, or the system has not enough for so many.
    """
    import warnings

    from rich.console import Console

    from subiso import IsolateSpawnError
    from subiso._kernel.limits import Limits
    from subiso.cli.measuring import measure
    from subiso.cli.ways import WAYS

    workers = (os.cpu_count() or 1) if arguments.workers is None else arguments.workers
    most = min(MOST_WORKERS, Limits.isolates)
    if not 1 <= workers <= most:
        raise UsageError(f"--workers must be 1 to {most}, not {workers}")
    root, sizes = find_sources(arguments.path)
    chunks = chunked(sizes)
    busy = min(workers, len(chunks))

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the names of files may have any bytes
    console = Console(stderr=arguments.json, highlight=False, markup=False, emoji=False)
    megabytes = sum(sizes.values()) / 1e6
    console.print(f"{len(sizes):,} files, {megabytes:.1f} MB, in {root}; workers: {busy}", soft_wrap=True)
    with _progress(console, len(sizes)) as report, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the parser has to say about the sources
        measurements = []
        for name, way in WAYS.items():
            try:
                measurements.append(measure(name, way, chunks, busy, report))
            except (OSError, IsolateSpawnError) as error:
                raise UsageError(f"{name}: {busy} workers are too many here: {error}") from None
    if arguments.json:
        _write_json(root, workers, measurements)
    else:
        _show(console, root, busy, measurements)
    return 0 if are_equal(measurements) else 1


# -- the work ----------------------------------------------------------------------------------------------------------


def find_sources(path: str | None) -> tuple[str, dict[str, int]]:
    """Return a directory and the path and size of every ``.py`` file below it.

    Links to directories are not followed; directories that cannot be read are passed over.

    Args:
        path: of the directory; None: the standard library, without the packages installed into it.

    Raises:
        UsageError: there is no such directory, or no ``.py`` file in it.
    """
    import stat
    import sysconfig

    root = os.path.abspath(path if path is not None else sysconfig.get_path("stdlib"))
    if not os.path.isdir(root):
        raise UsageError(f"no such directory: {root}")
    sizes: dict[str, int] = {}
    for directory, directories, files in os.walk(root):
        if path is None and directory == root:
            directories[:] = [name for name in directories if name not in ("site-packages", "dist-packages")]
        for name in files:
            if name.endswith(".py"):
                file = os.path.join(directory, name)
                try:
                    status = os.stat(file)
                except OSError:  # a link that leads nowhere: the analysis will say so
                    sizes[file] = 0
                else:
                    if stat.S_ISREG(status.st_mode):
                        sizes[file] = status.st_size
    if not sizes:
        raise UsageError(f"no .py file in {root}")
    return root, sizes


def chunked(sizes: dict[str, int]) -> list[list[str]]:
    """Divide files into chunks of work.

    The first is the smallest file alone, so that the time to the first result is that of the start. The others are of
    about equal size and begin with the largest files: the last ones to be done are of small files.
    """
    smallest, *others = sorted(sizes, key=lambda path: (sizes[path], path))
    chunks, room = [[smallest]], 0
    for path in reversed(others):
        if room <= 0:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(path)
        room -= sizes[path] + OVERHEAD
    return chunks


def are_equal(measurements: "list[Measurement]") -> bool:
    """Return whether all ways gave the same results."""
    return all(one.modules == measurements[0].modules for one in measurements)


# -- on the screen -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(console: "Console", total: int) -> "Iterator[Callable[[str, int], None]]":
    """Show how far each way is: live in a terminal, elsewhere by a line for every quarter of the work."""
    if not console.is_interactive or not console.file.isatty():
        quarters: dict[str, int] = {}

        def tell(way: str, done: int) -> None:
            if (quarter := done * 4 // total) > quarters.get(way, 0):
                quarters[way] = quarter
                console.print(f"{way}: {done:,} of {total:,} files")

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(way: str, done: int) -> None:
            if way not in tasks:
                tasks[way] = bars.add_task(way, total=total)
            bars.update(tasks[way], completed=done)

        yield draw


def _show(console: "Console", root: str, workers: int, measurements: "list[Measurement]") -> None:
    modules = measurements[0].modules
    totals = _totals(modules)
    console.print()
    console.print(", ".join(f"{what}: {number:,}" for what, number in totals.items()))
    console.print(_most_complex(root, modules))
    failed = [module for module in modules if module.error]
    if failed:
        console.print(f"\nCould not be parsed: {len(failed):,} file{'s' if len(failed) > 1 else ''}")
    for module in failed:
        console.print(f"  {os.path.relpath(module.path, root)}: {module.error}", soft_wrap=True)
    console.print()
    console.print(_costs(measurements))
    for one in measurements[1:]:
        if one.modules != measurements[0].modules:
            console.print(f"The results of the {one.way} differ from those of one thread.", style="bold red")
    if are_equal(measurements):
        console.print("The four results are equal.")
    share = measurements[0].cpu / measurements[0].seconds
    if measurements[0].seconds > 1 and share < 0.9:
        console.print(
            f"The machine had other work to do: one thread got {share:.0%} of a core. Do not trust the times."
        )
    console.print(meaning(measurements, workers), soft_wrap=not console.is_terminal)


def _totals(modules: "list[Module]") -> dict[str, int]:
    return {
        what: sum(getattr(module, what) for module in modules)
        for what in ("lines", "functions", "classes", "methods", "branches")
    }


def _most_complex(root: str, modules: "list[Module]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("module", "most complex function", title="The most complex modules", title_justify="left")
    table.add_column("complexity", justify="right")
    table.add_column("mean", justify="right")
    for module in sorted(modules, key=lambda module: (-module.max_complexity, module.path))[:5]:
        path = Text(os.path.relpath(module.path, root), overflow="fold")
        table.add_row(path, module.most_complex, str(module.max_complexity), f"{module.mean_complexity:.1f}")
    return table


def _costs(measurements: "list[Measurement]") -> "Table":
    from rich.table import Table

    table = Table(
        title="What each way cost",
        title_justify="left",
        caption="start-up: until the first result, of a tiny file; memory: the most that was needed besides",
        caption_justify="left",
    )
    table.add_column("way")
    for heading in ("time", "speed-up", "start-up", "memory"):
        table.add_column(heading, justify="right")
    for one in measurements:
        speedup = measurements[0].seconds / one.seconds
        table.add_row(
            one.way, f"{one.seconds:.2f} s", f"{speedup:.2f}", f"{one.startup * 1000:.0f} ms", _megabytes(one.memory)
        )
    return table


def _megabytes(memory: int | None) -> str:
    return "unknown" if memory is None else f"{memory / 1e6:.1f} MB"


def meaning(measurements: "list[Measurement]", workers: int) -> str:
    """Return one sentence that says what the figures mean."""
    one, threads, processes, isolates = measurements
    if workers == 1:
        return (
            "With one worker there is nothing to gain: the figures show what a thread, a process and an isolate cost."
        )
    gain = {way.way: f"{one.seconds / way.seconds:.2f}" for way in measurements}
    if isolates.seconds > 0.9 * one.seconds:
        return (
            f"Here {workers} isolates gained nothing over one thread: there is too little "
            "work to be worth a start, or no idle core to do it."
        )
    return (
        f"{workers} isolates, each with a GIL of its own, were {gain[isolates.way]} times as fast as one thread; "
        f"threads, which share one, came to {gain[threads.way]} and processes to {gain[processes.way]}; "
        f"processes took {processes.startup * 1000:.0f} ms to start and {_megabytes(processes.memory)} of memory, "
        f"isolates {isolates.startup * 1000:.0f} ms and {_megabytes(isolates.memory)}."
    )


def _write_json(root: str, workers: int, measurements: "list[Measurement]") -> None:
    import json
    import platform

    modules = measurements[0].modules
    described = [{**module._asdict(), "path": os.path.relpath(module.path, root)} for module in modules]
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "path": root,
        "files": len(modules),
        "workers": workers,
        "equal": are_equal(measurements),
        "ways": [
            {
                "way": one.way,
                "seconds": one.seconds,
                "speedup": measurements[0].seconds / one.seconds,
                "startup_seconds": one.startup,
                "cpu_seconds": one.cpu,
                "memory_bytes": one.memory,
            }
            for one in measurements
        ],
        "totals": _totals(modules),
        "failures": [{"path": module["path"], "error": module["error"]} for module in described if module["error"]],
        "modules": described,
    }
    json.dump(report, sys.stdout, indent=1)
    sys.stdout.write("\n")
