"""What was aimed at, whether it was met, and what bounds it: computed from the results."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import buffers, echo, idle, memory, oversubscribed, paced, parts, pool, startup
from bench._figures import Results, Spread, human
from bench._messages import SMALL

type All = dict[str, Results]  # by question

SPAWN, STANDARD_POOL = "ProcessPoolExecutor (spawn)", "InterpreterPoolExecutor"
STRUCT, DATACLASS = list(parts.PARTS)[:2]


@dataclass(frozen=True)
class Target:
    """One thing that was aimed at."""

    what: str
    against: str
    bound: float
    measure: Callable[[All], Spread | None]
    limit: Callable[[All], str]  # the raw parts that bound it
    unit: str = "×"
    at_most: bool = False

    def aim(self) -> str:
        """Write what was aimed at."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:,g} {self.unit}"

    def is_met_by(self, found: Spread) -> bool:
        """Tell whether the median of the rounds meets it."""
        return found.median <= self.bound if self.at_most else found.median >= self.bound


def ratio(question: str, above: tuple[str, str, str], below: tuple[str, str, str]) -> Callable[[All], Spread | None]:
    """Return what computes a ratio of two of a question's figures, round by round."""

    def measure(every: All) -> Spread | None:
        return every[question].ratio(above, below) if question in every else None

    return measure


def value(question: str, of: tuple[str, str, str]) -> Callable[[All], Spread | None]:
    """Return what looks up one figure."""
    return lambda every: every[question].spread(*of) if question in every else None


def shown(every: All, question: str, opponent: str, case: str, metric: str, unit: str) -> str:
    """Write one figure, for a sentence."""
    found = every[question].spread(opponent, case, metric) if question in every else None
    return human(found.median, unit) if found else "(not measured)"


def _echo(every: All) -> str:
    return (
        f"an echo takes {shown(every, 'echo', 'subiso', SMALL, 'p50', 'µs')}, and the Pipe "
        f"{shown(every, 'echo', 'Pipe (spawn)', SMALL, 'p50', 'µs')}; encoding and decoding the Struct, done twice in "
        f"an echo, takes {shown(every, 'parts', 'pyperf', STRUCT, 'mean', 'µs')} each time, putting and getting "
        "through `_interpqueues` "
        f"{shown(every, 'parts', 'pyperf', 'put + get of 100 bytes (_interpqueues)', 'mean', 'µs')}"
    )


def _paced(every: All) -> str:
    return (
        f"two threads that wake each other by an eventfd, and do nothing else, take "
        f"{shown(every, 'paced', 'eventfd, there and back', paced.SYNC, 'p50', 'µs')} in the same rounds"
    )


def _queue(every: All) -> str:
    return (
        "the standard library's queue sleeps 10 ms between looks, so an echo through it takes 10 to 20 ms; it took "
        f"{shown(every, 'echo', 'interpreters.Queue', SMALL, 'p50', 'µs')}, a thousandth of which is less than two "
        "messages take in pure Python, each encoded, written, found, read and decoded "
        f"({shown(every, 'echo', 'subiso', SMALL, 'p50', 'µs')} together); with nothing but the bytes and a flag in "
        f"shared memory they take {shown(every, 'echo', echo.BY_HAND, SMALL, 'p50', 'µs')}, the rest is what makes a "
        "port of that: many senders, their order, types, who sleeps and who has ended"
    )


def _oneway(every: All) -> str:
    return (
        f"encoding and decoding one message takes {shown(every, 'parts', 'pyperf', STRUCT, 'mean', 'µs')} in one "
        f"thread; the queue's pickling {shown(every, 'parts', 'pyperf', DATACLASS, 'mean', 'µs')}"
    )


def _warm(every: All) -> str:
    return (
        f"a warm isolate takes {shown(every, 'startup', 'subiso', startup.WARM, 'p50', 'ms')}, a process "
        f"{shown(every, 'startup', 'process (spawn)', startup.WARM, 'p50', 'ms')}, a thread "
        f"{shown(every, 'startup', 'thread', startup.WARM, 'p50', 'ms')}"
    )


def _cold(every: All) -> str:
    return (
        "an interpreter of the standard library's, made, called and closed, takes "
        f"{shown(every, 'startup', 'concurrent.interpreters', startup.WARM, 'p50', 'ms')}; the import of subiso and of "
        f"what it needs is the difference between {shown(every, 'startup', 'subiso', startup.COLD, 'p50', 'ms')} and "
        f"{shown(every, 'startup', 'subiso', startup.IMPORTED, 'p50', 'ms')}"
    )


def _task(every: All) -> str:
    return (
        f"a task in a thread pool, where nothing is encoded and one GIL is for both, takes "
        f"{shown(every, 'pool', 'ThreadPoolExecutor', pool.SUBMIT, 'p50', 'µs')}, an echo between isolates "
        f"{shown(every, 'echo', 'subiso', 'int', 'p50', 'µs')}"
    )


def _map(every: All) -> str:
    return f"each task of the map takes {shown(every, 'pool', 'subiso', pool.OWN, 'each', 'µs')}"


def _handed(every: All) -> str:
    sizes = ("1 kB", "256 MB", "1 GB")
    took = ", ".join(f"{size}: {shown(every, 'buffers', buffers.TRANSFERRED, size, 'p50', 'µs')}" for size in sizes)
    return f"to map and unmap memory costs the kernel something for its size; {took}"


def _copied(every: All) -> str:
    used, fresh = (
        shown(every, "buffers", name, "256 MB", "p50", "µs")
        for name in ("copy into used memory", "copy into fresh memory")
    )
    return f"copying the array takes {used} into memory that was used before, {fresh} into fresh memory"


def _gain(every: All) -> str:
    return "two processes do nothing together but share the processors' caches and clock: that is the bound"


def _memory(every: All) -> str:
    bare, loaded, receiving, process = (
        shown(every, "memory", name, case, "uss", "MB")
        for name, case in (
            (memory.RAW_INTERPRETER, "bare"),
            (memory.RAW_INTERPRETER, "msgspec"),
            (memory.RAW_RECEIVER, "msgspec"),
            (memory.RAW_PROCESS, "msgspec"),
        )
    )
    least = ratio("memory", (memory.RAW_RECEIVER, "msgspec", "uss"), ("process (spawn)", "msgspec", "uss"))(every)
    return (
        f"an interpreter on a thread, with nothing of subiso's, takes {bare}; with msgspec and what that imports "
        f"{loaded}; with `threading` and `pickle` besides {receiving}"
        + (f", which is {least.median:.3g} of a process: so much would remain if subiso were nothing" if least else "")
        + f'; `python -c "import msgspec"` {process}'
    )


def grown(every: All) -> Spread | None:
    """Return the MB by which memory grew from the 1,000th run to the 10,000th."""
    if "runs" not in every:
        return None
    before, after = (every["runs"].spread("subiso", f"after {count}", "memory") for count in ("1,000", "10,000"))
    return Spread.of([after.median - before.median]) if before and after else None


def _runs(every: All) -> str:
    before, after = (shown(every, "runs", "subiso", f"after {count}", "memory", "MB") for count in ("1,000", "10,000"))
    return f"the program has {before} after 1,000 runs, {after} after 10,000"


def _idle(every: All) -> str:
    threads, processes = (shown(every, "idle", name, idle.CASE, "cpu", "ms") for name in ("thread", "process (spawn)"))
    return f"a hundred threads that wait use {threads}, a hundred processes {processes}"


def _crowd(case: str) -> Callable[[All], str]:
    def limit(every: All) -> str:
        on, off = (shown(every, "oversubscribed", "subiso", case, rate, "per s") for rate in ("rate", "rate without"))
        beside = value("oversubscribed", ("subiso", oversubscribed.ECHOES_AND_WORK, "ratio"))(every)
        told = f"{on} with the spin, {off} without"
        if case == oversubscribed.WORK and beside:
            told += (
                f"; the echoes beside them are {beside.median:.3g} times as many meanwhile, and what these do more on "
                "full processors the others do less"
            )
        return told

    return limit


TARGETS = [
    Target(
        "echo of a small typed message, flat out, p50",
        "`multiprocessing.Pipe`",
        8,
        ratio("echo", ("Pipe (spawn)", SMALL, "p50"), ("subiso", SMALL, "p50")),
        _echo,
    ),
    Target(
        "the same, one every 5 ms, in threads",
        "the same",
        1,
        ratio("paced", ("Pipe (spawn)", paced.SYNC, "p50"), ("subiso", paced.SYNC, "p50")),
        _paced,
    ),
    Target(
        "the same, one every 5 ms, in asyncio",
        "the same, by `add_reader`",
        1,
        ratio("paced", ("Pipe (spawn)", paced.ASYNC, "p50"), ("subiso", paced.ASYNC, "p50")),
        _paced,
    ),
    Target(
        "the same, flat out",
        "`concurrent.interpreters.Queue`",
        1000,
        ratio("echo", ("interpreters.Queue", SMALL, "p50"), ("subiso", SMALL, "p50")),
        _queue,
    ),
    Target(
        "small typed messages one way",
        "`multiprocessing.Queue`",
        4,
        ratio("oneway", ("subiso", SMALL, "rate"), ("mp.Queue (spawn)", SMALL, "rate")),
        _oneway,
    ),
    Target(
        "spawn to first message, warm",
        "a `spawn` process",
        50,
        ratio("startup", ("process (spawn)", startup.WARM, "p50"), ("subiso", startup.WARM, "p50")),
        _warm,
    ),
    Target(
        "the same, cold, import included",
        "`InterpreterPoolExecutor`'s first result",
        1,
        ratio("startup", (STANDARD_POOL, startup.COLD, "p50"), ("subiso", startup.COLD, "p50")),
        _cold,
    ),
    Target(
        "the same, cold, import not included",
        "the same",
        1,
        ratio("startup", (STANDARD_POOL, startup.IMPORTED, "p50"), ("subiso", startup.IMPORTED, "p50")),
        _cold,
    ),
    Target(
        "`pool.submit(f).result()`, p50",
        "`InterpreterPoolExecutor`",
        2.5,
        ratio("pool", (STANDARD_POOL, pool.SUBMIT, "p50"), ("subiso", pool.SUBMIT, "p50")),
        _task,
    ),
    Target(
        "`pool.map` of 10,000 small tasks",
        "`ProcessPoolExecutor.map(chunksize=1)`",
        20,
        ratio("pool", (SPAWN, pool.SINGLY, "each"), ("subiso", pool.OWN, "each")),
        _map,
    ),
    Target(
        "the same",
        "`InterpreterPoolExecutor.map`",
        8,
        ratio("pool", (STANDARD_POOL, pool.OWN, "each"), ("subiso", pool.OWN, "each")),
        _map,
    ),
    Target(
        "handing over 256 MB in a `Buffer`",
        "pickled, to a process",
        1000,
        ratio("buffers", ("Pipe (spawn)", "256 MB", "p50"), (buffers.TRANSFERRED, "256 MB", "p50")),
        _handed,
    ),
    Target(
        "handing over 1 GB",
        "handing over 1 kB",
        2,
        ratio("buffers", (buffers.TRANSFERRED, "1 GB", "p50"), (buffers.TRANSFERRED, "1 kB", "p50")),
        _handed,
        at_most=True,
    ),
    Target(
        "256 MB as `Transferable(array)`, made and received",
        "one copy of the array into fresh memory",
        1.5,
        ratio("buffers", (buffers.COPIED, "256 MB", "p50"), ("copy into fresh memory", "256 MB", "p50")),
        _copied,
        at_most=True,
    ),
    Target(
        "a numpy array of 256 MB as an ordinary message",
        "pickled, to a process",
        5,
        ratio("buffers", ("Pipe (spawn)", "256 MB", "p50"), (buffers.SENT, "256 MB", "p50")),
        _copied,
    ),
    *(
        Target(
            f"gain of two isolates: {name}",
            "gain of two processes",
            0.97,
            ratio("speedup", ("subiso", f"{name}, 2 workers", "gain"), (SPAWN, f"{name}, 2 workers", "gain")),
            _gain,
        )
        for name in ("pure Python", "msgspec", "numpy")
    ),
    Target(
        "memory of one more isolate with msgspec",
        "one more `spawn` process with msgspec (USS)",
        0.65,
        ratio("memory", ("subiso", "msgspec", "uss"), ("process (spawn)", "msgspec", "uss")),
        _memory,
        at_most=True,
    ),
    Target("memory after 10,000 `Isolate.run`", "after 1,000", 1, grown, _runs, unit="MB more", at_most=True),
    Target(
        "processor time of 100 waiting isolates in 10 s",
        "–",
        50,
        value("idle", ("subiso", idle.CASE, "cpu")),
        _idle,
        unit="ms",
        at_most=True,
    ),
    *(
        Target(
            f"with more busy isolates than processors: {case}",
            "the same without the spin",
            0.97,
            value("oversubscribed", ("subiso", case, "ratio")),
            _crowd(case),
        )
        for case in oversubscribed.CASES
    ),
]
