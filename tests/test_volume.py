"""Much at once, and many times over: nothing is lost, and nothing is left."""

import faulthandler
import os
import select
import sys

import pytest

from subiso import Actor, Isolate, IsolatePool, ReceivePort

LONG = 60  # seconds: the bound of a wait that takes its time


def echo(port):
    """Send back every message, until it is None."""
    with ReceivePort(end_with_senders=False) as mine:
        port.send(mine.send_port)
        while (message := mine.receive()) is not None:
            port.send(message)


def test_three_senders_at_once():
    """100,000 small messages of three isolates all arrive, each isolate's in order."""

    def send(port, sender, n):
        for i in range(n):
            port.send((sender, i))

    n, seen = 33_334, [0, 0, 0]
    with ReceivePort() as port:
        for sender in range(3):
            Isolate.spawn(send, port.send_port, sender, n)
        for sender, i in port:
            assert i == seen[sender]
            seen[sender] += 1
    assert seen == [n, n, n]


def test_messages_to_and_fro():
    """10,000 messages each way, while both sides send and receive, all arrive in order."""

    def send_back(port, n):
        with ReceivePort(end_with_senders=False) as mine:
            port.send(mine.send_port)
            for i in range(n):
                port.send(("mine", i))
                assert mine.receive() == ("yours", i)

    n = 10_000
    with ReceivePort() as port:
        Isolate.spawn(send_back, port.send_port, n)
        theirs = port.receive(LONG)
        for i in range(n):
            theirs.send(("yours", i))
        assert list(port) == [("mine", i) for i in range(n)]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: [data, "beside", data[:100]]], ids=["bytes", "list"])
def test_64_megabytes(wrap):
    """A message of 64 MB arrives as it was, and comes back."""
    data = os.urandom(1 << 16) * 1024
    with ReceivePort() as port:
        Isolate.spawn(echo, port.send_port)
        theirs = port.receive(LONG)
        theirs.send(wrap(data))
        assert port.receive(LONG) == wrap(data)
        theirs.send(None)


def test_numpy_arrays():
    """Arrays arrive as they were: contiguous or not, big or small, of any type."""
    numpy = pytest.importorskip("numpy")

    with ReceivePort() as port:
        Isolate.spawn(echo, port.send_port)
        theirs = port.receive(LONG)
        big = numpy.arange(1_000_000, dtype="float64").reshape(1000, 1000)
        for array in (big, big.T, big[::2, ::3], numpy.array([1, 2, 3], "int8"), numpy.zeros((0, 3))):
            theirs.send({"array": array, "again": [array]})
            back = port.receive(LONG)
            numpy.testing.assert_array_equal(array, back["array"], strict=True)
            assert back["again"][0] is back["array"]
        theirs.send(None)


def test_many_arrays_are_kept():
    """A receiver may keep more big arrays than the process may have descriptors."""
    numpy = pytest.importorskip("numpy")

    def send(port, n):
        import numpy

        for i in range(n):
            port.send(numpy.full(40_000, i))

    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    with ReceivePort(maxsize=20) as port:
        Isolate.spawn(send, port.send_port, 400)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(opened + 300, soft), hard))
        try:
            kept = list(port)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [int(array[-1]) for array in kept] == list(range(400))
    assert isinstance(kept[0], numpy.ndarray)


MANY_RUNS = """
    import collections, ctypes, os, sys, threading
    from time import monotonic
    from subiso import Isolate
    from subiso._kernel import nursery
    from subiso._kernel.arena import SLEEPING, Arena

    def work(i):
        return [i] * 10

    def is_at_rest():
        idle = [berth for berth in made._berths if berth.state == "idle"]
        if {berth.state for berth in made._berths} - {"idle", "gone"}:
            return False
        sleeping = all(made._arena.words[Arena.home(berth.slot) + SLEEPING] for berth in idle)
        return sleeping and descriptors()["anon_inode:[eventpoll]"] == len(idle) + 1  # what each, and main, waits with

    def settle():
        deadline = monotonic() + 20
        while not is_at_rest():
            assert monotonic() < deadline, (descriptors(), [berth.state for berth in made._berths])
            os.sched_yield()

    def descriptors():
        found = collections.Counter()
        for name in os.listdir("/proc/self/fd"):
            try:
                found[os.readlink(f"/proc/self/fd/{name}").partition(" ")[0]] += 1
            except FileNotFoundError:  # of listing them
                pass
        return found

    def measure():
        settle()
        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return memory, threading.active_count(), descriptors()

    if sys.platform == "linux":
        # Python 3.15 asks for huge pages: the kernel makes them some time later, and memory grows by 2 MB then.
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
    runs = int(sys.argv[1])
    Isolate.run(work, 0).result(60)
    made = nursery._nursery
    for future in [Isolate.run(work, i) for i in range(6)]:  # enough interpreters for what follows
        future.result(60)
    settle()
    for i in range(runs):
        assert Isolate.run(work, i).result(60) == [i] * 10
        if i == runs // 10:
            before = measure()
    after = measure()
    print(*(now - then for now, then in zip(after[:2], before[:2])))
    print(dict((after[2] - before[2]) | (before[2] - after[2])))
"""


@pytest.mark.parametrize("runs", [1000, pytest.param(20_000, marks=pytest.mark.stress)])
def test_many_runs_leave_nothing(script, runs):
    """Memory, threads and descriptors after so many runs are what they were after a tenth of them."""
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test is too short for the many
    program = script(MANY_RUNS, runs, timeout=LONG + runs // 50)
    assert program.returncode == 0, program.err
    counts, descriptors = program.out.splitlines()
    memory, threads = map(int, counts.split())
    assert memory < 2 << 20
    assert threads == 0
    assert descriptors == "{}"


@pytest.mark.parametrize("messages", [200, pytest.param(5000, marks=pytest.mark.stress)])
@pytest.mark.parametrize("size", [1 << 18, 1 << 20])
def test_large_messages_leave_nothing(size, messages):
    """Large messages, one after the other, take up no descriptors beyond the first one's."""
    counts = set()
    with ReceivePort() as port:
        for _ in range(messages):
            port.send_port.send(bytes(size))
            assert len(port.receive(LONG)) == size
            counts.add(len(os.listdir("/proc/self/fd")))
    assert len(counts) == 1


MOURNED = """
import os

class Mourned:
    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __del__(self):
        os.write(self.descriptor, b"x")

def remember(descriptor):
    global mourned
    mourned = Mourned(descriptor)

class Remembering:
    def remember(self, descriptor):
        remember(descriptor)

def listen(descriptor):
    from subiso import ReceivePort
    port = ReceivePort()
    port.listen(lambda message: port.close())
    remember(descriptor)
    port.send_port.send(None)

def generate(descriptor):
    yield remember(descriptor)

def fail(descriptor):
    remember(descriptor)
    raise ValueError("planned")
"""


def _with_pool(mourned, descriptor):
    with IsolatePool(1) as pool:
        pool.submit(mourned.remember, descriptor).result(LONG)


def _with_map(mourned, descriptor):
    with IsolatePool(1) as pool:
        list(pool.map(mourned.remember, [descriptor]))


def _with_initializer(mourned, descriptor):
    with IsolatePool(1, initializer=mourned.remember, initargs=(descriptor,)) as pool:
        pool.submit(int).result(LONG)


def _with_actor(mourned, descriptor):
    with Actor.spawn(mourned.Remembering) as actor:
        actor.remember(descriptor).result(LONG)


USES = {
    "run": lambda mourned, descriptor: Isolate.run(mourned.remember, descriptor).result(LONG),
    "fail": lambda mourned, descriptor: Isolate.run(mourned.fail, descriptor).exception(LONG),
    "spawn": lambda mourned, descriptor: Isolate.spawn(mourned.remember, descriptor).join(LONG),
    "listen": lambda mourned, descriptor: Isolate.spawn(mourned.listen, descriptor).join(LONG),
    "stream": lambda mourned, descriptor: list(Isolate.stream(mourned.generate, descriptor)),
    "pool": _with_pool,
    "map": _with_map,
    "initializer": _with_initializer,
    "actor": _with_actor,
}


@pytest.mark.parametrize("use", USES)
def test_recycling_frees_the_users_modules(use, tmp_path, monkeypatch):
    """What an isolate's own modules held is gone when its interpreter is ready for the next isolate."""
    (tmp_path / "mourned.py").write_text(MOURNED)
    monkeypatch.syspath_prepend(tmp_path)
    import mourned

    try:
        reader, writer = os.pipe()
        USES[use](mourned, writer)
        assert select.select([reader], [], [], LONG)[0], "it is still there"
    finally:
        del sys.modules["mourned"]
        os.close(reader)
        os.close(writer)
