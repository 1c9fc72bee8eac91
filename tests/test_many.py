"""Many isolates: rings, trees, chains, kills at once, one after another; with `-m stress` a thousand of them."""

import faulthandler
import functools
import os
import threading

import pytest

from subiso import Isolate, ReceivePort
from subiso._kernel import nursery as nurseries

LONG = 60  # seconds: the bound of a wait that should be over at once


def add_to_ring(out):
    """Send a port; from it take the next one's, then pass on what comes, one more each time, until None does."""
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        following = port.receive()
        for token in port:
            following.send(None if token is None else token + 1)
            if token is None:
                break


def add_to_wasteful_ring(out):
    """Make cyclic garbage with each token that passes."""
    import gc

    class Node:
        def __init__(self):
            self.me, self.load = self, bytearray(10_000)

    gc.set_threshold(50)
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        following = port.receive()
        for token in port:
            following.send(None if token is None else token + len([Node() for _ in range(100)]) // 100)
            if token is None:
                break
    out.send(gc.get_stats()[0]["collections"] > 0)


def go_round(entry, size, rounds):
    """Make a ring of isolates, send a token round, and end the ring; return what the isolates sent at the end."""
    with ReceivePort() as out, ReceivePort(end_with_senders=False) as home:
        isolates = [Isolate.spawn(entry, out.send_port) for _ in range(size)]
        ports = [out.receive(LONG) for _ in isolates]
        for port, following in zip(ports, [*ports[1:], home.send_port], strict=True):
            port.send(following)
        token = 0
        for _ in range(rounds):
            ports[0].send(token)
            token = home.receive(LONG)
        assert token == size * rounds
        ports[0].send(None)
        assert home.receive(LONG) is None
        assert all(isolate.join(LONG) for isolate in isolates)
        return list(out)


def resources():
    """Return how many threads and descriptors the process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.dart("vm/limited_active_mutator_test", "vm/thread_pool_test")
@pytest.mark.parametrize("size", [10, pytest.param(100, marks=pytest.mark.stress)])
def test_a_ring(size):
    """A token goes round a ring of isolates, each of which adds one to it."""
    assert go_round(add_to_ring, size, 20) == []


LARGE_RING = """
    import os, sys, time
    from subiso import Isolate, ReceivePort

    def add_to_ring(out):
        with ReceivePort(end_with_senders=False) as port:
            out.send(port.send_port)
            following = port.receive()
            for token in port:
                following.send(None if token is None else token + 1)
                if token is None:
                    break

    begin = time.monotonic()
    with ReceivePort() as out, ReceivePort(end_with_senders=False) as home:
        isolates = [Isolate.spawn(add_to_ring, out.send_port) for _ in range(1000)]
        ports = [out.receive() for _ in isolates]
        for port, following in zip(ports, [*ports[1:], home.send_port]):
            port.send(following)
        ports[0].send(0)
        print(home.receive())
        pages = int(open("/proc/self/statm").read().split()[1])
        held = f"{pages * os.sysconf('SC_PAGE_SIZE') >> 20} MB, {len(os.listdir('/proc/self/fd'))} descriptors"
        ports[0].send(None)
        print(home.receive(), all(isolate.join() for isolate in isolates))
    print(f"{time.monotonic() - begin:.1f} s, {held}", file=sys.stderr)
    sys.exit(5)
"""


@pytest.mark.stress
@pytest.mark.dart("vm/limited_active_mutator_test", "vm/thread_pool_test")
def test_a_ring_of_a_thousand(script):
    """A token goes round a ring of a thousand isolates, all alive at once; the program ends with its exit code."""
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 12 << 30:
        pytest.skip("a thousand isolates want some 7 GB")
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test is too short for this one
    program = script(LARGE_RING, timeout=600)
    print(f"\n1,000 isolates: {program.err}")
    assert (program.returncode, program.out) == (5, "1000\nNone True\n"), program.err
    assert len(program.err.splitlines()) == 1, program.err


@pytest.mark.dart("vm/ring_gc_test")
def test_a_ring_under_pressure():
    """A token goes round while each isolate of the ring collects its garbage."""
    assert go_round(add_to_wasteful_ring, 10, 20) == [True] * 10


@pytest.mark.dart("vm/ring_gc_sendAndExit_test")
def test_a_ring_whose_isolates_leave():
    """Each isolate of a chain makes garbage, starts the next one and leaves with `exit`; every message arrives."""

    def live(out, left, again):
        garbage = [[i] for i in range(10_000)]
        for item in garbage:
            item.append(item)
        if left:
            Isolate.spawn(again, out, left - 1, again)
            Isolate.exit(out, left)
        Isolate.exit(out, {"the end": garbage[:1]})

    with ReceivePort() as out:
        Isolate.spawn(live, out.send_port, 20, live)
        messages = list(out)
    counts = [message for message in messages if isinstance(message, int)]
    assert sorted(counts) == list(range(1, 21))
    (end,) = (message for message in messages if not isinstance(message, int))
    assert end["the end"][0][0] == 0


@pytest.mark.dart("vm/fibonacci_call_test", "vm/fibonacci_call_ig_test")
def test_fibonacci_by_isolates():
    """Every call of a recursive function is an isolate of its own."""

    def fibonacci(n, again):
        if n < 2:
            return n
        futures = [Isolate.run(again, n - i, again) for i in (1, 2)]
        return sum(future.result() for future in futures)

    assert Isolate.run(fibonacci, 7, fibonacci).result(LONG) == 13


@pytest.mark.dart("vm/sum_recursive_call_test")
@pytest.mark.parametrize("depth", [12, pytest.param(60, marks=pytest.mark.stress)])
def test_a_deep_chain(depth):
    """A chain of isolates, each of which waits for the next."""

    def add(n, again):
        return n + Isolate.run(again, n - 1, again).result() if n else 0

    assert Isolate.run(add, depth, add).result(LONG) == depth * (depth + 1) // 2


@pytest.mark.dart("vm/sum_recursive_tail_call_test", "vm/sum_recursive_tail_call_ig_test")
def test_a_long_relay():
    """A chain of isolates, each of which hands its result on to the next and ends."""

    def add(out, n, total, again):
        if n:
            Isolate.spawn(again, out, n - 1, total + n, again)
        else:
            out.send(total)

    with ReceivePort() as out:
        Isolate.spawn(add, out.send_port, 100, 0, add)
        assert list(out) == [5050]


def loop(out):
    out.send("running")
    while True:
        pass


def match(out):
    import re

    out.send("running")
    while True:
        re.match("(a*)*b", "a" * 12)


def swallow(out):
    out.send("running")
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@pytest.mark.dart("lib/kill_regexp_test")
@pytest.mark.parametrize("entry", [loop, match, swallow], ids=lambda entry: entry.__name__)
def test_killing_twenty_loops_at_once(entry):
    """Twenty isolates in endless loops are killed at once; all end, and are not abandoned."""
    with ReceivePort() as out:
        isolates = [Isolate.spawn(entry, out.send_port, on_exit=out.send_port) for _ in range(20)]
        assert [out.receive(LONG) for _ in isolates] == ["running"] * 20
        for isolate in isolates:
            isolate.kill()
        assert all(isolate.join(LONG) for isolate in isolates)
        assert list(out) == [None] * 20
        assert not any(isolate.is_abandoned for isolate in isolates)


@pytest.mark.dart("lib/isolate_stress_test")
def test_two_hundred_one_after_another():
    """After two hundred isolates, one after another, the process has the threads and descriptors that it had."""

    def live(out):
        with ReceivePort(end_with_senders=False) as port:
            out.send(port.send_port)
            out.send(port.receive())

    def start():
        with ReceivePort() as out:
            isolate = Isolate.spawn(live, out.send_port)
            out.receive(LONG).send("hello")
            assert list(out) == ["hello"]
            assert isolate.join(LONG)

    settle = functools.partial(nurseries._nursery.retire_idle, LONG) if nurseries._nursery else bool
    for _ in range(20):
        start()
    settle()
    before = resources()
    for _ in range(200):
        start()
    nurseries._nursery.retire_idle(LONG)
    assert [now <= then + 12 for now, then in zip(resources(), before, strict=True)] == [True, True]


def test_closed_interpreters_leave_no_mapping():
    """An interpreter that is closed lets go of the shared memory, also where its heap is lost to private copies."""

    def import_copy():
        import msgspec

        return msgspec.__name__

    def count_mappings():
        with open("/proc/self/maps") as file:
            return sum(line.rstrip().endswith("/memfd:subiso (deleted)") for line in file)

    assert [future.result(LONG) for future in [Isolate.run(import_copy) for _ in range(3)]] == ["msgspec"] * 3
    assert count_mappings() >= 4
    assert nurseries._nursery.retire_idle(LONG)
    assert count_mappings() == 1


@pytest.mark.dart("vm/many_debug_name_test")
def test_many_names():
    """Many isolates with long and strange names can be told apart."""
    names = [f"{'näme ' * 100}{i}\n\0'\"" for i in range(8)]
    futures = [Isolate.run(lambda: Isolate.current().name, name=name) for name in names]
    assert [future.result(LONG) for future in futures] == names


@pytest.mark.dart("vm/concurrency_stress_sanity_test")
def test_starting_from_many_threads():
    """Threads of main and of isolates start isolates all at once."""

    def spread(n, again):
        import threading

        futures = []
        threads = [
            threading.Thread(target=lambda: futures.append(Isolate.run(again, n - 1, again)))
            for _ in range(3 if n else 0)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 1 + sum(future.result() for future in futures)

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(Isolate.run(spread, 1, spread).result(LONG))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert results == [4] * 4


@pytest.mark.stress
def test_a_thousand_kills_leave_nothing():
    """After a thousand kills in a row the process has the threads and the descriptors that it had after a hundred."""
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test is too short for this one
    before = None
    for i in range(1100):
        with ReceivePort() as out:
            isolate = Isolate.spawn((loop, swallow)[i % 2], out.send_port)
            assert out.receive(LONG) == "running"
            isolate.kill()
            assert isolate.join(LONG)
        if i == 100:
            before = resources()
    assert [now <= then + 4 for now, then in zip(resources(), before, strict=True)] == [True, True]


def test_more_descriptors_than_the_soft_limit(script):
    """Where descriptors run out, the soft limit is raised to the hard one."""
    program = script(
        """
        import os, resource
        from subiso import Isolate, ReceivePort

        def wait(out):
            port = ReceivePort(end_with_senders=False)
            out.send(1)
            port.receive()

        Isolate.run(int).result()
        soft = len(os.listdir("/proc/self/fd")) + 30
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 500))
        with ReceivePort() as out:
            isolates = [Isolate.spawn(wait, out.send_port) for _ in range(20)]
            for isolate in isolates:
                out.receive()
            print(resource.getrlimit(resource.RLIMIT_NOFILE))
            for isolate in isolates:
                isolate.kill()
        """
    )
    assert (program.returncode, program.out) == (0, "(500, 500)\n"), program.err


def test_more_descriptors_than_the_hard_limit(script):
    """Where there are no more descriptors to be had, that is an IsolateSpawnError, and the program goes on."""
    program = script(
        """
        import errno, os
        from subiso import Isolate, IsolateSpawnError
        from subiso._kernel import doorbell

        def fail():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        Isolate.run(int).result()
        doorbell.create = fail
        isolates = []
        try:
            for _ in range(20):
                isolates.append(Isolate.spawn(int, paused=True))
        except IsolateSpawnError as error:
            print(error)
        for isolate in isolates:
            isolate.resume(isolate.pause_capability)
            isolate.join()
        print(Isolate.run(sum, [1, 2]).result())
        """
    )
    assert program.returncode == 0, program.err
    assert program.out == "the isolate cannot be started: [Errno 24] Too many open files\n3\n"
