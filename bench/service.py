"""The web service of `examples/service.py` under load: on isolates, and on process pools that are spawned or forked.

Each service is started alone, warmed up, and loaded by wrk over the loopback; each turn runs all of them, one after the
other. Latency is what the client sees, waiting for a worker included. Memory is that of the service with all its processes when
the load is over: private to them (USS), and with their share of what they have in common (PSS). Needs aiohttp and
wrk (`apt install wrk`); says so and ends where they are missing.
"""

import argparse
import importlib.util
import json
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
    command = [sys.executable, str(SERVICE), f"--port={port}", f"--workers={workers}", f"--pool={pool}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
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


def load(address: str, script: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Load the service with wrk; return p50 and p99 in milliseconds, and the requests a second."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"{address}summary"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.rpartition("\n{")[2].join(["{", ""]))
    if found["errors"]:
        raise AssertionError(f"{found['errors']} requests failed: {run.stdout}")
    return found["p50"], found["p99"], found["throughput"]


SCRIPT = """
wrk.method, wrk.body = "POST", [==[%s]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"p50": %%f, "p99": %%f, "throughput": %%f, "errors": %%d}',
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.requests / summary.duration * 1e6,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def measure(pool: str, workers: int, connections: int, seconds: int, script: Path) -> Figures:
    """Start a service, warm it up, load it, look at its memory, end it."""
    with service(pool, workers) as (pid, address):
        load(address, script, 4 * workers, min(seconds, 2))  # every worker is there, and has done what it does only once
        latency = load(address, script, connections, seconds)
        return Figures(*latency, *memory_of(pid))


def report(pool: str, found: list[Figures], ours: list[Figures]) -> None:
    """Print the medians of all turns; beside isolates, the median ratio of one and the same turn."""

    def middle(name: str) -> float:
        return statistics.median(getattr(one, name) for one in found)

    def ratio(name: str) -> float:
        return statistics.median(
            getattr(mine, name) / getattr(theirs, name) for mine, theirs in zip(ours, found, strict=True)
        )

    line = (
        f"{pool:<11}{found[0].processes:3} processes  p50 {middle('p50'):6.1f} ms  p99 {middle('p99'):6.1f} ms  "
        f"{middle('throughput'):6.1f}/s  USS {middle('uss'):6.1f} MB  PSS {middle('pss'):6.1f} MB"
    )
    if found is not ours:
        line += "   isolates: " + ", ".join(f"{name} {ratio(name):.2f} x" for name in ("p99", "throughput", "uss", "pss"))
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
    if missing := [name for name in ("aiohttp",) if not importlib.util.find_spec(name)] + (
        [] if shutil.which("wrk") else ["wrk"]
    ):
        print(f"not measured: {' and '.join(missing)} is missing")
        return
    seconds, turns = (1, 1) if options.quick else (options.seconds, options.turns)
    connections = options.connections or 2 * options.workers
    print(f"Python {sys.version.split()[0]}, {options.workers} workers, {connections} connections, {turns} x {seconds} s")
    found: dict[str, list[Figures]] = {pool: [] for pool in options.pools}
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "post.lua"
        script.write_text(SCRIPT % make_body(70))
        for _ in range(turns):
            for pool in options.pools:
                found[pool].append(measure(pool, options.workers, connections, seconds, script))
    for pool in options.pools:
        report(pool, found[pool], found[options.pools[0]])


if __name__ == "__main__":
    main()
