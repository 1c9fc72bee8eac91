"""Supervisors: what ends is started again, as often as that is allowed."""

import logging
import queue
import threading
import time

import anyio
import pytest

from subiso import Actor, Isolate, IsolateKilledError, ReceivePort, SendError, Supervisor, SupervisorError

LONG = 20  # seconds: the bound of a wait that should be over at once

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(caplog):
    """Keep what supervisors log out of the way."""
    caplog.set_level(logging.CRITICAL + 1, "subiso.supervisor")
    caplog.set_level(logging.CRITICAL + 1, "subiso.actors")


def serve(name, port):
    """Say that it has begun, and do what it is told; say that it was unwound."""
    with ReceivePort(end_with_senders=False) as mine:
        port.send((name, mine.send_port))
        try:
            order = mine.receive()
        except BaseException:
            port.send((name, "unwound"))
            raise
        if order == "fail":
            raise ValueError(name)
        if order == "die":
            Isolate.current().kill()
            mine.receive()


async def serve_async(name, port):
    with ReceivePort(end_with_senders=False) as mine:
        port.send((name, mine.send_port))
        if await mine.areceive() == "fail":
            raise ValueError(name)


class Stage:
    """Three supervised isolates a, b, c, and the way to them."""

    def __init__(self, port, supervisor, restart="permanent", entry=serve):
        self.port = port
        self.supervisor = supervisor
        self.peers = {}
        for name in "abc":
            supervisor.add(entry, name, port.send_port, restart=restart, name=name)

    def expect(self, *names):
        """Wait until those have begun, and nobody else."""
        begun = []
        while len(begun) < len(names):
            name, what = self.port.receive(LONG)
            if what != "unwound":
                begun.append(name)
                self.peers[name] = what
        assert sorted(begun) == sorted(names)
        return begun


@pytest.fixture
def port():
    with ReceivePort(end_with_senders=False) as port:
        yield port


@pytest.mark.parametrize("order", ["fail", "die", "return"])
@pytest.mark.parametrize(
    ("strategy", "again"), [("one-for-one", ["b"]), ("one-for-all", ["a", "b", "c"]), ("rest-for-one", ["b", "c"])]
)
def test_strategies(port, strategy, again, order):
    """When one ends, however, it, all, or the rest are started again."""
    with Supervisor(strategy) as supervisor:
        stage = Stage(port, supervisor)
        stage.expect("a", "b", "c")
        stage.peers["b"].send(order)
        stage.expect(*again)
        assert [child.starts for child in supervisor.children] == [1 + (name in again) for name in "abc"]
        assert all(child.is_alive for child in supervisor.children)
        assert supervisor.is_running
    assert not any(child.is_alive for child in supervisor.children)
    assert not supervisor.is_running


@pytest.mark.parametrize("entry", [serve, serve_async])
@pytest.mark.parametrize(
    ("restart", "orders", "starts"), [("transient", ["fail", "return"], 2), ("temporary", ["fail"], 1)]
)
def test_restart_policies(port, entry, restart, orders, starts):
    """What is transient is started again after an error only, what is temporary never; then all is over."""
    with Supervisor(max_restarts=10) as supervisor:
        stage = Stage(port, supervisor, restart, entry)
        stage.expect("a", "b", "c")
        for order in orders:
            for name in "abc":
                stage.peers[name].send(order)
            if order is not orders[-1]:
                stage.expect("a", "b", "c")
        assert supervisor.join(LONG)
        assert [child.starts for child in supervisor.children] == [starts] * 3


def test_start_and_stop_in_order(port):
    """What is added is started in order, and stopped in the opposite order."""
    with Supervisor() as supervisor:
        stage = Stage(port, supervisor)
        stage.expect("a", "b", "c")
        assert [child.name for child in supervisor.children] == ["a", "b", "c"]
        numbers = [child.isolate._number for child in supervisor.children]
        assert numbers == sorted(numbers)
    # One that was killed may not get as far as to say so; those that did were unwound in this order.
    unwound = [port.receive(LONG) for _ in range(len(port._inbox.messages))]
    assert unwound
    assert unwound == sorted(unwound, reverse=True)


def test_giving_up(port):
    """After too many restarts in too short a time everything is stopped, and that is an error."""
    supervisor = Supervisor(max_restarts=3, within=1000, name="boss").start()
    stage = Stage(port, supervisor)
    stage.expect("a", "b", "c")
    for _ in range(3):
        stage.peers["b"].send("fail")
        stage.expect("b")
    stage.peers["b"].send("fail")
    with pytest.raises(SupervisorError, match="boss has given up: b has ended, and there have been 3 restarts"):
        supervisor.join(LONG)
    assert not any(child.is_alive for child in supervisor.children)
    with pytest.raises(RuntimeError, match="boss has ended"):
        supervisor.add(serve, "d", port.send_port)
    with pytest.raises(SupervisorError):
        supervisor.stop()


def test_old_restarts_do_not_count(port):
    """Only restarts within the given time count."""
    with Supervisor(max_restarts=1, within=0.0) as supervisor:
        stage = Stage(port, supervisor)
        stage.expect("a", "b", "c")
        for _ in range(5):
            stage.peers["a"].send("fail")
            stage.expect("a")


def test_a_block_that_ends_with_an_error(port):
    """`with` raises the supervisor's error, but not in place of another one."""
    with pytest.raises(SupervisorError):
        with Supervisor(max_restarts=0) as supervisor:
            supervisor.add(int, "x")
            with pytest.raises(SupervisorError):
                supervisor.join(LONG)
    with pytest.raises(KeyError):
        with Supervisor(max_restarts=0) as supervisor:
            supervisor.add(int, "x")
            raise KeyError


class Telling(Supervisor):
    """A supervisor that tells when each restart is due."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.told = queue.SimpleQueue()

    def _restart(self, child, due):
        super()._restart(child, due)
        self.told.put((child, due))


def test_back_off(port):
    """From the second restart in a row on there is a pause, during which others are looked after."""
    with Telling(max_restarts=10, within=1000, backoff=1000) as supervisor:
        stage = Stage(port, supervisor)
        stage.expect("a", "b", "c")
        stage.peers["a"].send("fail")
        stage.expect("a")
        child = supervisor.children[0]
        now = time.monotonic()
        first, due = supervisor.told.get(timeout=LONG)
        assert first is child
        assert due <= now
        stage.peers["a"].send("fail")
        again, due = supervisor.told.get(timeout=LONG)
        assert again is child
        assert due == child.due >= now + 1000
        assert not supervisor.join(0)


def test_adding_later(port):
    """What is added to a running supervisor is started at once."""
    with Supervisor() as supervisor:
        stage = Stage(port, supervisor)
        stage.expect("a", "b", "c")
        supervisor.add(serve, "d", port.send_port)
        stage.expect("d")
        assert "serve-4" in supervisor.children[3].name


def test_a_tree(port):
    """A supervisor that gives up is started again by the one above it, with all that it supervises."""
    with Supervisor(name="root") as root:
        branch = root.add_supervisor(Supervisor("one-for-all", max_restarts=0, name="branch"))
        stage = Stage(port, branch)
        stage.expect("a", "b", "c")
        stage.peers["c"].send("fail")
        stage.expect("a", "b", "c")
        assert [child.starts for child in root.children] == [2]
        assert branch.is_running
    assert not branch.is_running
    assert not any(child.is_alive for child in branch.children)


def test_a_tree_that_gives_up(port):
    """If that happens too often, the one above gives up too."""
    root = Supervisor(name="root", max_restarts=1, within=1000).start()
    branch = root.add_supervisor(Supervisor(max_restarts=0, name="branch"))
    branch.add(int, "x")
    with pytest.raises(SupervisorError, match="root has given up: branch has ended"):
        root.join(LONG)
    with pytest.raises(SupervisorError):
        root.stop()


@pytest.mark.anyio
async def test_async_supervision():
    """`async with` and `ajoin` work on asyncio and trio."""
    with anyio.fail_after(LONG):
        async with Supervisor() as supervisor:
            supervisor.add(int, restart="temporary")
            await supervisor.ajoin()
            assert not supervisor.children[0].is_alive


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"strategy": "all"}, "strategy"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"max_restarts": 1.5}, "max_restarts"),
        ({"within": -1}, "within"),
        ({"backoff": float("nan")}, "backoff"),
        ({"patience": -1}, "patience"),
    ],
)
def test_bad_options(options, what):
    """Bad options are refused at once."""
    with pytest.raises(ValueError, match=what):
        Supervisor(**options)


def test_bad_children():
    """What cannot be supervised is refused at once."""
    supervisor = Supervisor()
    with pytest.raises(TypeError, match="a supervisor starts functions, not 3"):
        supervisor.add(3)
    with pytest.raises(ValueError, match="restart must be 'permanent', 'transient', 'temporary', not 'often'"):
        supervisor.add(int, restart="often")
    with pytest.raises(SendError):
        supervisor.add(int, threading.Lock())
    with pytest.raises(TypeError, match="takes a Supervisor"):
        supervisor.add_supervisor(3)
    with pytest.raises(ValueError, match="cannot be supervised"):
        supervisor.add_supervisor(supervisor)
    with supervisor:
        with pytest.raises(RuntimeError, match="started already"):
            supervisor.start()
        with pytest.raises(ValueError, match="has been started"):
            Supervisor().add_supervisor(supervisor)


# -- supervised actors -------------------------------------------------------------------------------------------------


class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self):
        self.value += 1
        return self.value

    def die(self):
        Isolate.current().kill()
        ReceivePort(end_with_senders=False).receive()


def add_until_it_lives(counter):
    """Call an actor until it answers: a call that was sent to one that has ended fails."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        try:
            return counter.add().result(LONG)
        except IsolateKilledError:
            continue
    raise AssertionError("it is not started again")


def test_a_supervised_actor():
    """An actor that dies is made anew; its callers go on with the next one, and those that waited are told."""
    with Supervisor() as supervisor:
        counter = supervisor.add_actor(Counter, 10, name="counter")
        assert isinstance(counter, Actor)
        assert [counter.add().result(LONG), counter.add().result(LONG)] == [11, 12]
        with pytest.raises(IsolateKilledError):
            counter.die().result(LONG)
        assert add_until_it_lives(counter) == 11
        assert supervisor.children[0].starts == 2
        assert counter.name == "counter"
        counter.stop()
    with pytest.raises(IsolateKilledError, match="was stopped by"):
        counter.add().result(LONG)


def test_calls_wait_for_the_start():
    """Calls that are made before the supervisor has started the actor wait for it."""
    supervisor = Supervisor()
    counter = supervisor.add_actor(Counter)
    with pytest.raises(RuntimeError, match="not been started yet"):
        counter.isolate  # noqa: B018
    assert not counter.is_alive
    future = counter.add()
    assert not future.done()
    with supervisor:
        assert future.result(LONG) == 1


def test_an_actor_that_cannot_be_made():
    """If it can never be made, the calls that waited get the supervisor's error."""

    class Broken:
        def __init__(self):
            raise OSError

        def use(self):
            pass

    supervisor = Supervisor(max_restarts=2).start()
    future = supervisor.add_actor(Broken).use()
    with pytest.raises(SupervisorError):
        future.result(LONG)
    with pytest.raises(SupervisorError):
        supervisor.stop()


def bombard(kills):
    """Kill a supervised actor again and again while clients call it; return how the calls have ended."""
    outcomes, ended = queue.SimpleQueue(), set()
    over = threading.Event()

    def use(counter):
        while not over.is_set():
            try:
                outcomes.put(type(counter.add().result(LONG)))
            except IsolateKilledError as error:
                outcomes.put(type(error))

    with Supervisor(max_restarts=kills, within=10_000) as supervisor:
        counter = supervisor.add_actor(Counter)
        clients = [threading.Thread(target=use, args=(counter,)) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            for number in range(kills):
                add_until_it_lives(counter)
                assert supervisor.children[0].starts == number + 1
                isolate = counter.isolate
                counter.kill()
                assert isolate.join(LONG)
            add_until_it_lives(counter)
            assert supervisor.children[0].starts == kills + 1
            assert supervisor.is_running
            while not outcomes.empty():
                ended.add(outcomes.get())
            ended |= {outcomes.get(timeout=LONG) for _ in range(20)}
        finally:
            over.set()
            for client in clients:
                client.join(LONG)
        counter.kill()
        with pytest.raises(SupervisorError, match=f"{kills} restarts"):
            supervisor.join(LONG)
        supervisor.error = None  # which the block would raise
    return ended


def test_clients_of_a_supervised_actor():
    """While it is killed, each call ends in a result or a clear error; the limit of restarts is exact."""
    assert bombard(10) <= {int, IsolateKilledError}


@pytest.mark.stress
def test_a_thousand_kills():
    """The same a thousand times."""
    assert bombard(1000) == {int, IsolateKilledError}
