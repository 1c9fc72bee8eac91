"""Isolates in a Dask cluster: a scheduler, nannies and two worker processes, which talk by TCP on this machine."""

import os
import select
import signal
import subprocess
import sys

import pytest

pytest.importorskip("distributed", reason="Dask's distributed is not installed")

import dask
import numpy as np
from dask_tasks import come, meet, place
from distributed import Client, LocalCluster, wait

from subiso import Isolate, IsolateKilledError, IsolateTimeoutError, RemoteTraceback
from subiso._kernel import interpreters
from subiso.integrations.dask import IsolatesPlugin

LONG = 60  # seconds: the bound of a wait; starting a worker process takes some

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # worker processes that are killed


@pytest.fixture(autouse=True)
def leaves_nothing():
    """The isolates live in other processes here; threads and sockets are Dask's."""


def local_cluster(**options):
    """Start a cluster of processes that listen to this machine only, their web servers too."""
    web = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    return LocalCluster(host="127.0.0.1", protocol="tcp", **web, **options)


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of two threads each, without the profiler, which Python before 3.14 does not bear."""
    with (
        dask.config.set({"distributed.worker.profile.enabled": False, "distributed.deploy.lost-worker-timeout": LONG}),
        local_cluster(n_workers=2, threads_per_worker=2) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def connected(cluster):
    """A client of it, which has given isolates to the workers."""
    with Client(cluster, timeout=LONG) as client:
        client.register_plugin(IsolatesPlugin())
        yield client


@pytest.fixture
def client(connected):
    """That client, with both workers there; what it submits runs in isolates."""
    connected.wait_for_workers(2, timeout=LONG)
    with dask.annotate(executor="isolates"):
        yield connected


class Meeting:
    """Where a task, in whatever process, and the test wait for each other."""

    def __init__(self, folder):
        self.paths = [str(folder / name) for name in ("here", "go")]
        for path in self.paths:
            os.mkfifo(path)
        # For both directions: so neither side waits until the other has opened it, nor sees it end.
        self.here, self.go = (os.open(path, os.O_RDWR) for path in self.paths)

    def pids(self, number):
        """Wait until so many tasks have come; return their processes."""
        read = b""
        while read.count(b"\n") < number:
            assert select.select([self.here], [], [], LONG)[0], "no task came"
            read += os.read(self.here, 1)
        return [int(line) for line in read.split()]

    def release(self, number):
        os.write(self.go, b"." * number)

    def close(self):
        os.close(self.here)
        os.close(self.go)


@pytest.fixture
def meeting(tmp_path):
    """A meeting of the test and its tasks."""
    meeting = Meeting(tmp_path)
    yield meeting
    meeting.close()


def pids(client):
    return client.run(os.getpid)


def test_tasks_run_in_isolates(client, meeting):
    """Tasks run in isolates of both worker processes, two at a time in each."""
    assert all(name.startswith("dask-") for name, _ in client.gather(client.map(place, range(8), pure=False)))
    futures = client.map(meet, [meeting.paths] * 4, range(4), pure=False)
    here = meeting.pids(4)
    assert sorted(here) == sorted([*pids(client).values()] * 2)
    meeting.release(4)
    assert [result for result, _ in client.gather(futures)] == [0, 1, 2, 3]


def test_other_tasks_do_not(client):
    """What is not annotated runs in the worker's threads."""
    with dask.annotate(executor="default"):
        assert client.submit(place, pure=False).result(LONG)[0] == "main"


def test_dependencies(client):
    """Results of tasks are arguments of others, on whichever worker and in whatever container."""
    parts = [client.submit(pow, x, 2) for x in range(10)]
    total = client.submit(sum, parts)
    named = client.submit(lambda names: sorted(names.items()), {"total": total, "first": [parts[3]]})
    assert named.result(LONG) == [("first", [9]), ("total", 285)]


def test_numpy(client):
    """numpy's arrays go in and out of isolates, and numpy computes there."""
    a = client.submit(np.arange, 1_000_000.0)
    b = client.submit(lambda x: x.reshape(1000, 1000) @ np.ones((1000, 2)), a)
    c = client.submit(np.add, b, client.submit(np.full, (1000, 2), 1.0))
    expected = np.arange(1_000_000.0).reshape(1000, 1000).sum(axis=1) + 1
    np.testing.assert_allclose(c.result(LONG)[:, 1], expected)
    with dask.annotate(executor="default"):
        np.testing.assert_array_equal(client.submit(lambda x: x[::1000], a).result(LONG), np.arange(0.0, 1e6, 1000))


def test_delayed(client):
    """Delayed functions keep their annotation if the graph is not optimized."""
    parts = [dask.delayed(pow)(x, 2) for x in range(5)]
    assert dask.delayed(sum)(parts).compute(optimize_graph=False) == 30
    name, _ = dask.delayed(place)(parts).compute(optimize_graph=False)
    assert name.startswith("dask-")


def test_errors(client):
    """What a task raises arrives as itself, with the isolate's traceback as its cause; also of a class made here."""

    class OwnError(Exception):
        pass

    def fail(error):
        raise error

    for error in (LookupError("not there", 3), OwnError("mine")):
        found = client.submit(fail, error, pure=False).exception(LONG)
        assert type(found) is type(error)
        assert found.args == error.args
        assert type(found.__cause__) is RemoteTraceback
        assert "in fail" in str(found.__cause__)
    dependent = client.submit(abs, client.submit(fail, LookupError("first")))
    with pytest.raises(LookupError, match="first"):
        dependent.result(LONG)


def test_retries(client, tmp_path):
    """A task that fails is tried again as often as it is allowed to."""
    counter = tmp_path / "tries"

    def fail_twice(path):
        with open(path, "a") as file:
            file.write("x")
        with open(path) as file:
            if len(file.read()) < 3:
                raise LookupError("not yet")
        return "done"

    assert client.submit(fail_twice, str(counter), retries=2, pure=False).result(LONG) == "done"
    assert counter.read_text() == "xxx"
    counter.unlink()
    assert isinstance(client.submit(fail_twice, str(counter), retries=1, pure=False).exception(LONG), LookupError)


def test_killed_isolates(client):
    """A task whose isolate is killed has failed, and may be tried again; the worker goes on with new isolates."""
    before = pids(client)

    def die():
        Isolate.current().kill()
        while True:
            pass

    futures = [client.submit(die, pure=False, retries=1) for _ in range(8)]  # each isolate dies more than once
    assert {type(future.exception(LONG)) for future in futures} == {IsolateKilledError}
    assert client.gather(client.map(pow, range(20), [2] * 20)) == [x * x for x in range(20)]
    assert pids(client) == before


def test_leaving_by_sys_exit(client):
    """`sys.exit` in a task is the task's error, and ends no worker."""
    before = pids(client)
    assert "SystemExit: 3" in str(client.submit(sys.exit, 3).exception(LONG))
    assert pids(client) == before


def test_cancelling(client, meeting):
    """Cancelling a future stops its task, which can unwind; the worker is free for others."""

    def run(here):
        try:
            come(here)
            while True:
                pass
        finally:
            come(here)

    futures = [client.submit(run, meeting.paths[0], pure=False) for _ in range(4)]  # every isolate is busy
    running = meeting.pids(4)
    client.cancel(futures)
    assert sorted(meeting.pids(4)) == sorted(running)
    assert client.gather(client.map(pow, range(20), [3] * 20)) == [x**3 for x in range(20)]


def test_cancelling_what_is_wanted_again(client, meeting):
    """What was cancelled, and stopped, is done when it is asked for again."""

    def run(here):
        try:
            come(here)
            while True:
                pass
        finally:
            come(here)

    first = client.submit(run, meeting.paths[0], key="wanted")
    meeting.pids(1)
    first.cancel()
    meeting.pids(1)
    # By another client: this one may yet hear that its future was cancelled, and would take that for the new one's.
    with Client(client.scheduler.address, timeout=LONG) as other:
        assert other.submit(pow, 2, 5, key="wanted").result(LONG) == 32


def test_a_worker_process_is_killed(client, meeting):
    """Nothing is lost when a worker process is killed in the middle: its tasks, and what it held, are done again."""
    before = pids(client)
    held = client.map(pow, range(50), [2] * 50)
    wait(held, LONG)
    sums = [client.submit(lambda i, x, _: x + i, i, x, None) for i, x in enumerate(held)]
    blocked = client.map(meet, [meeting.paths] * 4, range(4), pure=False)
    here = meeting.pids(4)
    victim = here[0]
    os.kill(victim, signal.SIGKILL)
    meeting.release(2)  # those of the other worker
    meeting.pids(2)  # those of the killed one have come again
    meeting.release(4)
    results = client.gather(blocked)
    assert [number for number, _ in results] == [0, 1, 2, 3]
    assert victim not in {process for _, process in results}
    assert client.gather(sums) == [x * x + x for x in range(50)]
    # The nanny has started another process, which has isolates too.
    client.wait_for_workers(2, timeout=LONG)
    after = pids(client)
    assert len(set(before.values()) & set(after.values())) == 1
    (new,) = set(after) - set(before)
    name, process = client.submit(place, workers=[new], pure=False).result(LONG)
    assert name.startswith("dask-")
    assert process == after[new]


def test_a_worker_closes(client, meeting):
    """A worker that closes while an isolate of its runs stops it, and the task is done elsewhere."""
    before = pids(client)

    def run(paths):
        import os

        here, go = paths
        come(here)
        file = os.open(go, os.O_RDONLY | os.O_NONBLOCK)
        while True:
            try:
                os.read(file, 1)
                return os.getpid()
            except BlockingIOError:
                pass

    future = client.submit(run, meeting.paths, pure=False)
    (first,) = meeting.pids(1)
    (address,) = [address for address, pid in before.items() if pid == first]
    assert client.restart_workers([address], timeout=LONG, raise_for_error=True) == {address: "OK"}
    meeting.pids(1)
    meeting.release(1)
    assert future.result(LONG) != first


def test_options_and_removal(client):
    """The plugin can be taken away, and registered again with a time limit for each task."""

    def endless():
        while True:
            pass

    client.unregister_worker_plugin("isolates")
    with pytest.raises(ValueError, match="Invalid executor 'isolates'"):
        client.submit(pow, 2, 20).result(LONG)
    client.register_plugin(IsolatesPlugin(1, task_timeout=0.1))
    try:
        assert isinstance(client.submit(endless).exception(LONG), IsolateTimeoutError)
    finally:
        client.unregister_worker_plugin("isolates")
        client.register_plugin(IsolatesPlugin())


def test_wrong_options(client):
    """What the isolates cannot be made with is said where the plugin is registered."""
    client.unregister_worker_plugin("isolates")
    try:
        with pytest.raises(ValueError, match="max_workers"):
            client.register_plugin(IsolatesPlugin(0))
    finally:
        client.unregister_worker_plugin("isolates")
        client.register_plugin(IsolatesPlugin())


def test_the_preload():
    """Workers that start with the preload have isolates, with the options that Dask's configuration gives."""
    with (
        dask.config.set({"distributed.worker.profile.enabled": False, "subiso.max-workers": 1}),
        local_cluster(n_workers=1, threads_per_worker=2, preload=["subiso.integrations.dask"]) as cluster,
        Client(cluster, timeout=LONG) as client,
        dask.annotate(executor="isolates"),
    ):
        assert client.submit(place).result(LONG)[0].startswith("dask-")
        (limit,) = client.run(lambda dask_worker: dask_worker.executors["isolates"]._max_workers).values()
        assert limit == 1


# In a process of its own: the scheduler has the profiler, too, and this process may have interpreters of other tests.
WITH_PROFILER = """
import dask
from distributed import Client, LocalCluster

from subiso.integrations.dask import IsolatesPlugin

if __name__ == "__main__":
    web = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    dask.config.set({"distributed.worker.profile.enabled": True})
    with LocalCluster(1, threads_per_worker=1, host="127.0.0.1", **web) as cluster, Client(cluster) as client:
        try:
            client.register_plugin(IsolatesPlugin())
        except RuntimeError as error:
            print(error)
        print(client.submit(pow, 2, 3).result())
"""


@pytest.mark.skipif(interpreters.FRAMES_ARE_OWN, reason="from Python 3.14 on the profiler does no harm")
def test_the_profiler(tmp_path):
    """On a worker with the profiler, registering the plugin says what to set, and the worker lives on."""
    (tmp_path / "program.py").write_text(WITH_PROFILER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LONG, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False" in done.stdout
    assert done.stdout.endswith("\n8\n")
