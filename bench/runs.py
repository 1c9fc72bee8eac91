"""Does a run leave anything behind? Memory, threads and descriptors over thousands of `Isolate.run` calls."""

import argparse
import os
import sys
import threading

from subiso import Isolate


def work(number: int) -> dict[str, int]:
    return {"number": number}


def memory() -> float:
    """Return the resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    total = 300 if parser.parse_args().quick else 10_000
    looks = {200, 1000, 2000, 5000, total}
    print(f"Python {sys.version.split()[0]}")
    for number in range(1, total + 1):
        if Isolate.run(work, number).result() != {"number": number}:
            raise AssertionError(f"run {number} gave something else")
        if number in looks:
            descriptors = len(os.listdir("/proc/self/fd"))
            print(
                f"after {number:6}: {memory():6.1f} MB, {threading.active_count()} threads, {descriptors} descriptors"
            )


if __name__ == "__main__":
    main()
