"""How long until a busy isolate is gone? And what do a thousand kills leave behind?"""

import argparse
import os
import statistics
import sys
import threading
import time

from subiso import Isolate, ReceivePort, SendPort


def loop(hello: SendPort) -> None:
    hello.send(None)
    while True:
        pass


def swallow(hello: SendPort) -> None:
    hello.send(None)
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def kill(entry: object, hello: ReceivePort) -> float:
    """Return the seconds from `kill` of a busy isolate until `join` returns."""
    isolate = Isolate.spawn(entry, hello.send_port)
    hello.receive(60)
    begin = time.perf_counter()
    isolate.kill()
    isolate.join()
    return time.perf_counter() - begin


def resources() -> str:
    """Describe what the process holds."""
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return f"{threading.active_count()} threads, {len(os.listdir('/proc/self/fd'))} descriptors, {memory:.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    quick = parser.parse_args().quick
    count, warm = (50, 20) if quick else (1000, 100)
    print(f"Python {sys.version.split()[0]}")
    with ReceivePort(end_with_senders=False) as hello:
        for entry in (loop, swallow):
            times = sorted(kill(entry, hello) * 1000 for _ in range(max(count // 5, 20)))
            p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
            figures = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {times[-1]:.1f} ms"
            print(f"{entry.__name__:8} kill until join returns: {figures}")
        for _ in range(warm):
            kill(loop, hello)
        print(f"after {warm} kills:  {resources()}")
        for _ in range(count):
            kill(loop, hello)
        print(f"after {count} more: {resources()}")


if __name__ == "__main__":
    main()
