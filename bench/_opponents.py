"""Pools, behind one interface: what each of them needs for the same work."""

import asyncio
import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from bench._harness import Unavailable, need


@dataclass
class Pool:
    """Runs functions in workers."""

    call: Callable[..., Any]  # submits one call, and waits for its result
    map: Callable[..., Iterable[Any]]  # (function, items); the results in order, chunked as it does of itself
    map_singly: Callable[..., Iterable[Any]] | None = None  # the same, one item at a time


type Opened = Iterator[Pool]


def of_executor(pool: Any, singly: bool) -> Pool:
    """Return the pool that a `concurrent.futures.Executor` is."""
    return Pool(
        lambda function, *args: pool.submit(function, *args).result(),
        pool.map,
        (lambda function, items: pool.map(function, items, chunksize=1)) if singly else None,
    )


@contextmanager
def isolates(workers: int) -> Opened:
    from subiso import IsolatePool

    with IsolatePool(workers) as pool:
        yield of_executor(pool, singly=True)


@contextmanager
def processes(workers: int, method: str = "spawn") -> Opened:
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context(method)) as pool:
        yield of_executor(pool, singly=True)


@contextmanager
def multiprocessing_pool(workers: int) -> Opened:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield Pool(
            lambda function, *args: pool.apply(function, args),
            pool.map,
            lambda function, items: pool.imap(function, items, chunksize=1),
        )


@contextmanager
def loky(workers: int) -> Opened:
    need("loky")
    import loky

    pool = loky.get_reusable_executor(workers, timeout=60)
    try:
        yield of_executor(pool, singly=True)
    finally:
        pool.shutdown()


@contextmanager
def mpire(workers: int) -> Opened:
    need("mpire")
    from mpire import WorkerPool

    def wrapped(items: Iterable[Any]) -> list[Any]:
        return [(item,) if isinstance(item, (list, tuple, str)) else item for item in items]  # it would unpack these

    with WorkerPool(workers, start_method="spawn", keep_alive=True) as pool:
        yield Pool(
            lambda function, *args: pool.apply(function, args),
            lambda function, items: pool.map(function, wrapped(items)),
            lambda function, items: pool.imap(function, wrapped(items), chunk_size=1),
        )


@contextmanager
def interpreters(workers: int) -> Opened:
    executor = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    if executor is None:
        raise Unavailable("InterpreterPoolExecutor came with Python 3.14")
    with executor(workers) as pool:
        yield of_executor(pool, singly=True)


@contextmanager
def threads(workers: int) -> Opened:
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield of_executor(pool, singly=True)


@contextmanager
def aiointerpreters(workers: int) -> Opened:
    need("aiointerpreters.runner")
    from aiointerpreters.runner import Runner

    async def gather(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return await asyncio.gather(*(runner.run(function, item) for item in items))

    loop = asyncio.new_event_loop()
    with Runner(workers=workers).start() as runner:
        yield Pool(
            lambda function, *args: loop.run_until_complete(runner.run(function, *args)),
            lambda function, items: loop.run_until_complete(gather(function, items)),
            lambda function, items: loop.run_until_complete(gather(function, items)),
        )
    loop.close()


POOLS: dict[str, Callable[[int], AbstractContextManager[Pool]]] = {
    "subiso": isolates,
    "ProcessPoolExecutor (spawn)": processes,
    "ProcessPoolExecutor (forkserver)": lambda workers: processes(workers, "forkserver"),
    "multiprocessing.Pool (spawn)": multiprocessing_pool,
    "loky": loky,
    "mpire (spawn)": mpire,
    "InterpreterPoolExecutor": interpreters,
    "aiointerpreters": aiointerpreters,
    "ThreadPoolExecutor": threads,
}
