"""A live view of a pool at work."""

from subiso import IsolatePool


def count_primes(stop: int) -> int:
    return sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, stop))


with IsolatePool(name="primes") as pool:
    found = list(pool.progress(pool.map(count_primes, range(0, 40_000, 200)), "Counting primes"))
    print(found[-1], "primes below 39800;", pool.statistics().running_time)
