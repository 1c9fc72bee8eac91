"""A web service that computes: each request costs some 10 ms of a core, and the event loop stays free of it.

    python examples/service.py [--port 8080] [--workers N]
    curl -d '{"text": "One sentence. Another one. A third sentence.", "sentences": 1}' http://127.0.0.1:8080/summary

Needs aiohttp. What it shows: msgspec checks a request before anything is done for it (or answers 400), and a pool of
isolates does the work. Work that takes longer than `--limit` is killed, and answered with 503. When a client goes away,
aiohttp cancels the handler, which cancels the future, which kills the work: the core is free for the next request. `GET
/` tells what the pool has done.

`--pool spawn` and `--pool forkserver` run the same service on a process pool, for `bench/service.py`. It cannot stop
what runs: there, a time-out and a client that goes away end the waiting only.
"""

import argparse
import asyncio
import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Annotated

import msgspec
from aiohttp import web
from summary import summarise

import subiso

LIMIT = web.AppKey("limit", float)  # seconds that a request may take, waiting for a worker included
POOL = web.AppKey("pool", Executor)


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """What a client asks for."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=200_000)]
    sentences: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3


class Summary(msgspec.Struct):
    """What it gets."""

    sentences: list[str]
    keywords: list[str]


def reply(content: object, status: int = 200) -> web.Response:
    """Return anything as JSON."""
    return web.Response(body=msgspec.json.encode(content), content_type="application/json", status=status)


async def post_summary(request: web.Request) -> web.Response:
    """Have a worker do it. Whatever ends this coroutine early stops the worker."""
    pool, limit = request.app[POOL], request.app[LIMIT]
    try:
        order = msgspec.json.decode(await request.read(), type=Order)
    except msgspec.DecodeError as error:
        return reply({"error": str(error)}, 400)
    try:
        async with asyncio.timeout(limit):
            if isinstance(pool, subiso.IsolatePool):
                found = await pool.submit(summarise, order.text, order.sentences)
            else:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(pool, summarise, order.text, order.sentences)
    except TimeoutError:
        return reply({"error": f"it took longer than {limit:g} seconds"}, 503)
    return reply(Summary(*found))


async def get_statistics(request: web.Request) -> web.Response:
    """Tell what the pool has done so far."""
    pool = request.app[POOL]
    return reply(pool.statistics() if isinstance(pool, subiso.IsolatePool) else None)


def make_app(pool: Executor, limit: float) -> web.Application:
    """Return the service, on a pool that is shut down with it."""

    async def close(_: web.Application) -> None:
        pool.shutdown(wait=False, cancel_futures=True)

    app = web.Application(client_max_size=2**20)
    app[POOL], app[LIMIT] = pool, limit
    app.add_routes([web.get("/", get_statistics), web.post("/summary", post_summary)])
    app.on_cleanup.append(close)
    return app


def make_pool(kind: str, workers: int) -> Executor:
    """Return a pool of isolates, or one of processes that are started in that way."""
    if kind == "isolates":
        subiso.configure(spares=0)  # nobody but the pool wants any, and that makes its own
        return subiso.IsolatePool(workers, name="summaries")
    return ProcessPoolExecutor(workers, multiprocessing.get_context(kind))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="one for each core")
    parser.add_argument("--limit", metavar="S", type=float, default=2.0, help="seconds that a request may take")
    parser.add_argument("--pool", choices=["isolates", "spawn", "forkserver"], default="isolates")
    options = parser.parse_args()
    app = make_app(make_pool(options.pool, options.workers), options.limit)
    # aiohttp lets handlers run on when their clients have gone, unless it is told otherwise.
    web.run_app(app, host="127.0.0.1", port=options.port, handler_cancellation=True)


if __name__ == "__main__":
    main()
