"""The web service of `examples/service.py` under load: on isolates, and on process pools that are spawned or forked.

Each service is started alone, warmed up, and loaded by wrk over the loopback; each turn runs all of them, one after the
other. Latency is what the client sees, waiting for a worker included. Memory is that of the service with all its
processes under load: what is private to them (USS), and that with their shares of what they have in common (PSS):
forked processes have much in common, which is nobody's in the first figure. Needs aiohttp and wrk (`apt install wrk`);
says so and ends where they are missing.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVICE = Path(__file__).parent.parent / "examples" / "service.py"
POOLS = ["isolates", "spawn", "forkserver"]


@dataclass
class Figures:
    """What one service did in one turn: milliseconds, requests a second, MB."""

    p50: float
    p99: float
    throughput: float
    uss: float
    pss: float
    processes: int


def make_body(sentences: int) -> str:
    """Return a request with a text of so many sentences."""
    chance = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randrange(3, 9))) for _ in range(400)]
    text = " ".join(" ".join(chance.choices(words, k=chance.randrange(8, 20))) + "." for _ in range(sentences))
    return json.dumps({"text": text, "sentences": 3})


def tree_of(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from tree_of(int(child))


def memory_of(pid: int) -> tuple[float, float, int]:
    """Return what a process and those below it take, in MB (USS and PSS), and how many they are."""
    uss = pss = 0
    pids = list(tree_of(pid))
    for one in pids:
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb"):
                uss += int(rest.split()[0])
            elif name == "Pss":
                pss += int(rest.split()[0])
    return uss / 1e3, pss / 1e3, len(pids)


@contextmanager
def service(pool: str, workers: int) -> Iterator[tuple[int, str]]:
    """Run the service on a free port; give its process and its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, str(SERVICE), f"--port={port}", f"--workers={workers}", f"--pool={pool}", "--limit=60"]
    # Bytecode that may not be kept would be compiled again by each worker, which costs some 5 MB each.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(500):
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield process.pid, address
    finally:
        process.terminate()
        process.wait(30)


def warm_up(address: str, workers: int, body: bytes) -> None:
    """Have every worker started, and do what it does only once. No request is broken off: that would kill a worker."""

    def ask(_: int) -> None:
        request = urllib.request.Request(f"{address}summary", body)
        urllib.request.urlopen(request, timeout=60).close()

    with ThreadPoolExecutor(2 * workers) as clients:
        list(clients.map(ask, range(10 * workers)))


def load(address: str, pid: int, script: Path, connections: int, seconds: int) -> Figures:
    """Load the service with wrk, and look at its memory half a second before the end."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout=60s",
        "-s",
        str(script),
        f"{address}summary",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        time.sleep(seconds - 0.5)
        memory = memory_of(pid)
        output = wrk.communicate(timeout=60)[0]
    found = json.loads("{" + output.rpartition("\n{")[2])
    if found["errors"]:
        raise AssertionError(f"{found['errors']} requests failed: {output}")
    return Figures(found["p50"], found["p99"], found["throughput"], *memory)


SCRIPT = """
wrk.method, wrk.body = "POST", [==[%s]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"p50": %%f, "p99": %%f, "throughput": %%f, "errors": %%d}',
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.requests / summary.duration * 1e6,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def measure(pool: str, workers: int, connections: int, seconds: int, body: str) -> Figures:
    """Start a service, warm it up, load it, end it."""
    with tempfile.TemporaryDirectory() as directory, service(pool, workers) as (pid, address):
        script = Path(directory) / "post.lua"
        script.write_text(SCRIPT % body)
        warm_up(address, workers, body.encode())
        return load(address, pid, script, connections, seconds)


def report(pool: str, found: list[Figures], ours: list[Figures]) -> None:
    """Print the medians of all turns; beside isolates, the median ratio of one and the same turn."""

    def middle(name: str) -> float:
        return statistics.median(float(getattr(one, name)) for one in found)

    def ratio(name: str) -> float:
        return statistics.median(
            float(getattr(mine, name)) / float(getattr(theirs, name)) for mine, theirs in zip(ours, found, strict=True)
        )

    line = (
        f"{pool:<11}{found[0].processes:3} processes  p50 {middle('p50'):6.1f} ms  p99 {middle('p99'):6.1f} ms  "
        f"{middle('throughput'):6.1f}/s  USS {middle('uss'):6.1f} MB  PSS {middle('pss'):6.1f} MB"
    )
    if found is not ours:
        line += "   isolates: " + ", ".join(
            f"{name} {ratio(name):.2f} x" for name in ("p99", "throughput", "uss", "pss")
        )
    print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    parser.add_argument("--workers", metavar="N", type=int, default=2)
    parser.add_argument("--connections", metavar="N", type=int, help="of the client; two for each worker")
    parser.add_argument("--seconds", metavar="S", type=int, default=8, help="of load, in each turn")
    parser.add_argument("--turns", metavar="N", type=int, default=3)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=POOLS)
    options = parser.parse_args()
    if not importlib.util.find_spec("aiohttp") or not shutil.which("wrk"):
        print("not measured: this needs aiohttp and wrk")
        return
    seconds, turns = (1, 1) if options.quick else (options.seconds, options.turns)
    connections = options.connections or 2 * options.workers
    version = sys.version.split()[0]
    print(f"Python {version}, {options.workers} workers, {connections} connections, {turns} turns of {seconds} s")
    found: dict[str, list[Figures]] = {pool: [] for pool in options.pools}
    body = make_body(70)
    for _ in range(turns):
        for pool in options.pools:
            found[pool].append(measure(pool, options.workers, connections, seconds, body))
    for pool in options.pools:
        report(pool, found[pool], found[options.pools[0]])


if __name__ == "__main__":
    main()
