"""A live view of a pool at work: a bar, and a line for each worker.

python examples/pool_progress.py
"""

from subiso import IsolatePool

BLOCK = 5_000


def count_primes(start: int) -> int:
    """Count the primes in a block of numbers, the slow way."""
    numbers = range(max(start, 2), start + BLOCK)
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in numbers)


with IsolatePool(name="primes") as pool:
    found = sum(pool.progress(pool.map(count_primes, range(0, 500_000, BLOCK)), "Counting primes"))
print(f"\n{found} primes below 500000; a block took {pool.statistics().running_time.mean * 1000:.0f} ms")
