"""When not to use isolates: sentences whose figures come from the results."""

from collections.abc import Callable, Iterator

from bench import _workloads, buffers, pool, startup
from bench._figures import Results, human
from bench._messages import SMALL

type All = dict[str, Results]


def figure(every: All, question: str, opponent: str, case: str, metric: str, unit: str) -> str:
    """Write one figure; a KeyError if it was not measured."""
    return human(every[question].median(opponent, case, metric), unit)


def objects(every: All) -> str:
    small, large = (figure(every, "echo", "subiso", case, "p50", "µs") for case in (SMALL, "1 MB of bytes"))
    thread = figure(every, "echo", "thread", "1 MB of bytes", "p50", "µs")
    return (
        "**Your data is large, lives in objects, and is looked at only a little.** A message is a copy. There and "
        f"back, a small one takes {small} and 1 MB of bytes {large}; a thread hands over whatever it is in {thread}."
    )


def arrays(every: All) -> str:
    sent = figure(every, "buffers", buffers.SENT, "256 MB", "p50", "µs")
    handed = figure(every, "buffers", buffers.TRANSFERRED, "256 MB", "p50", "µs")
    return (
        f"**A large array is to be used on both sides.** Sending 256 MB copies them, in {sent}. Handing them over "
        f"takes {handed}, but then the sender has them no more. Threads share an array, and processes can with "
        "`multiprocessing.shared_memory`."
    )


def tasks(every: All) -> str:
    task = figure(every, "pool", "subiso", pool.SUBMIT, "p50", "µs")
    each = figure(every, "pool", "subiso", pool.OWN, "each", "µs")
    return (
        f"**A task is shorter than its way.** One that is submitted and waited for costs {task}, one of a large `map` "
        f"{each}. What takes less than that by itself is done sooner where it is."
    )


def short_programs(every: All) -> str:
    (first, process, thread), (whole, with_process, with_thread) = (
        [figure(every, "startup", name, case, "p50", "ms") for name in ("subiso", "process (spawn)", "thread")]
        for case in (startup.COLD, startup.PROGRAM)
    )
    return (
        f"**The program is short.** Its first isolate has answered after {first}, the import of the library included; "
        f"a process after {process}, a thread after {thread}. The whole program takes {whole}, with a process "
        f"{with_process}, with a thread {with_thread}."
    )


def waiting(every: All) -> str:
    ours, thread = (figure(every, "startup", name, startup.WARM, "p50", "ms") for name in ("subiso", "thread"))
    return (
        "**The work only waits**, for the network or for files. Threads and asyncio are lighter: a warm isolate "
        f"starts in {ours}, a thread in {thread}."
    )


def memory(every: All) -> str:
    bare, numpy = (figure(every, "memory", "subiso", case, "uss", "MB") for case in ("bare", "numpy"))
    process = figure(every, "memory", "process (spawn)", "numpy", "uss", "MB")
    return (
        f"**Many workers, each with large packages.** Each isolate has its own copy of every module: {bare} without "
        f"packages, {numpy} with numpy (a process takes {process}, a thread next to nothing)."
    )


def c_code(every: All) -> str:
    threads, ours, alone = (
        figure(every, "images", name, _workloads.WHOLE, "seconds", "s")
        for name in ("ThreadPoolExecutor", "subiso", _workloads.ALONE)
    )
    return (
        "**C code that lets go of the GIL does nearly all of the work.** Threads do that in parallel already, and "
        f"start at once: making images small takes threads {threads}, isolates {ours}, one thread {alone}, all from a "
        "cold start."
    )


def crashes(every: All) -> str:
    return (
        "**The code may crash, is not trusted, or needs a limit of memory.** No figure helps there: isolates share a "
        "process. Use processes. [Limits](explanation/limits.md) has more."
    )


ADVICE: list[Callable[[All], str]] = [objects, arrays, tasks, short_programs, waiting, memory, c_code, crashes]


def sentences(every: All) -> Iterator[str]:
    """Yield a list of those for which there are figures."""
    for advice in ADVICE:
        try:
            yield f"- {advice(every)}"
        except KeyError:
            continue  # not measured
