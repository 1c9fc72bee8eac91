"""Four ways to do the same work: in one thread, in a thread pool, in a process pool, and in isolates.

Each is a generator: it takes chunks of paths and yields what `analyse_all` gives for them, chunk after chunk, in the
order in which they are done. When it ends, or is closed, everything that it has started has ended. What a way needs it
imports itself: that is part of its start-up. Warnings about the sources are silenced in what a way starts; in its own
interpreter that is left to the caller.
"""

import contextlib
import warnings

from subiso.cli.analysis import Module, analyse_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Executor

    from subiso import SendPort

    type Results = Generator[list[Module], None, None]
    type Way = Callable[[list[list[str]], int], Results]


def one_thread(chunks: list[list[str]], workers: int) -> "Results":
    """Work in the thread that calls, whatever ``workers`` says."""
    for chunk in chunks:
        yield analyse_all(chunk)


def thread_pool(chunks: list[list[str]], workers: int) -> "Results":
    """Work in threads, which share one GIL."""
    from concurrent.futures import ThreadPoolExecutor

    return _through(ThreadPoolExecutor(workers), chunks)


def process_pool(chunks: list[list[str]], workers: int) -> "Results":
    """Work in new processes."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, initializer=warnings.simplefilter, initargs=("ignore",))
    return _through(pool, chunks)


def _through(pool: "Executor", chunks: list[list[str]]) -> "Results":
    from concurrent.futures import as_completed

    try:
        with _interrupts_held_back():
            futures = [pool.submit(analyse_all, chunk) for chunk in chunks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held_back() -> "Iterator[None]":
    """Hold Ctrl-C back while something is started, which would not be ended otherwise.

    Processes that are started meanwhile never see it: they inherit the mask.
    """
    import signal

    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))  # another thread may be told
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def isolates(chunks: list[list[str]], workers: int) -> "Results":
    """Work in isolates: each asks for a chunk whenever it has none.

    Raises:
        RuntimeError: an isolate failed, and the text is its traceback; or one ended with work undone.
    """
    from subiso import Isolate, ReceivePort, configure
    from subiso._kernel.limits import Limits

    remaining, missing = iter(chunks), len(chunks)
    results: ReceivePort[tuple[SendPort, list[Module]]] = ReceivePort()
    errors: ReceivePort[list[str]] = ReceivePort()
    with results, errors, contextlib.ExitStack() as running:
        # There will be no more isolates than these; spares would be made on their processors meanwhile.
        running.callback(configure, spares=Limits.spares)
        configure(spares=0)
        with _interrupts_held_back():
            for number in range(workers):
                isolate = Isolate.spawn(_work, results.send_port, name=f"analyst-{number}", on_error=errors.send_port)
                running.enter_context(isolate)
        for tasks, modules in results:  # until every isolate has ended
            tasks.send(next(remaining, None))
            if modules:
                missing -= 1
                yield modules
        for _, traceback in errors:
            raise RuntimeError(f"an isolate failed:\n{traceback}")
        if missing:
            raise RuntimeError("an isolate ended with work undone")


def _work(results: "SendPort") -> None:
    """Be one of the isolates: take chunks until there are no more."""
    from subiso import ReceivePort

    warnings.simplefilter("ignore")
    tasks: ReceivePort[list[str] | None] = ReceivePort()
    with tasks:
        results.send((tasks.send_port, []))
        for chunk in iter(tasks.receive, None):
            results.send((tasks.send_port, analyse_all(chunk)))


WAYS: "dict[str, Way]" = {
    "one thread": one_thread,
    "thread pool": thread_pool,
    "process pool": process_pool,
    "isolates": isolates,
}
