"""Groups of isolates: what their blocks wait for, what fails them, and what they raise."""

import asyncio
import concurrent.futures
import os
import signal
import sys
import threading

import anyio
import anyio.lowlevel
import pytest
import trio

from subiso import (
    Isolate,
    IsolateGroup,
    IsolateKilledError,
    IsolateSpawnError,
    IsolateTimeoutError,
    ReceivePort,
    RemoteTraceback,
    SendError,
)
from subiso._kernel import node as nodes
from subiso._kernel import nursery

LONG = 20  # seconds: the bound of a wait that should be over at once


class Custom(Exception):
    """An exception that can be compared, and therefore not be hashed."""

    def __eq__(self, other):
        return isinstance(other, Custom) and self.args == other.args


def add(a, b):
    return a + b


def fail(error):
    raise error


def fail_when_told(boot, error):
    with ReceivePort(end_with_senders=False) as port:
        boot.send(port.send_port)
        port.receive()
    raise error


def wait(port=None):
    """Say so, and wait for ever; say when unwound."""
    try:
        if port is not None:
            port.send("waiting")
        ReceivePort(end_with_senders=False).receive()
    finally:
        if port is not None:
            port.send("unwound")


def listen(port, error=None):
    """Listen to a port, and fail at the first message."""
    own = ReceivePort(end_with_senders=False)
    own.listen(lambda message: fail(message))
    port.send(own.send_port)
    if error is not None:
        raise error


def group_inside(port):
    with IsolateGroup() as group:
        group.spawn(wait, port)
        group.spawn(wait, port)


def in_isolate(error):
    with IsolateGroup() as group:
        group.spawn(wait)
        group.run(fail, error)


# -- a block that ends well --------------------------------------------------------------------------------------------


def test_the_block_waits_for_all():
    """The block ends when all its isolates have ended."""
    with ReceivePort() as port:
        with IsolateGroup("name") as group:
            isolate = group.spawn(wait, port.send_port, name="waiter")
            future = group.run(add, 1, 2)
            assert isolate.name == "waiter"
            assert future.result(LONG) == 3
            assert port.receive(LONG) == "waiting"
            killer = threading.Timer(0.01, isolate.kill)  # which is no failure
            killer.start()
            assert repr(group) == "<IsolateGroup 'name' open>"
        assert not isolate.is_alive
        assert port.receive(LONG) == "unwound"
        assert repr(group) == "<IsolateGroup 'name' ended>"
    killer.join()


def test_an_empty_group():
    """A group may have no isolates; main's threads and ports are as before."""
    with IsolateGroup() as group:
        pass
    assert group.name is None


async def test_the_block_waits_for_all_in_a_loop(anyio_backend):
    """The same in an event loop, which goes on meanwhile."""
    async with IsolateGroup() as group:
        isolate = group.spawn(add, 1, 2)
        assert await group.run(add, 3, 4) == 7

        async def kill():
            other.kill()

        other = group.spawn(wait)
        if anyio_backend == "asyncio":
            task = asyncio.get_running_loop().create_task(kill())
        else:
            trio.lowlevel.spawn_system_task(kill)
    assert not isolate.is_alive
    assert not other.is_alive
    if anyio_backend == "asyncio":
        await task


def test_cancelling_is_no_failure():
    """A run that is cancelled by hand does not fail the group."""
    with IsolateGroup() as group:
        assert group.run(wait).cancel()
        assert group.run(add, 1, 2).result(LONG) == 3


def test_leaving_by_sys_exit_is_no_failure():
    """`sys.exit` is a way to end an isolate."""
    with IsolateGroup() as group:
        group.spawn(sys.exit, 3)


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["spawn", "run"])
@pytest.mark.parametrize("error", [KeyError("key"), Custom("a", 1)])
def test_a_failure_kills_the_rest(start, error):
    """The first failure kills the others, and is raised as itself with the traceback that it had."""
    with ReceivePort() as port:
        with pytest.raises(ExceptionGroup, match="the group 'name'") as caught:
            with IsolateGroup("name") as group:
                isolates = [group.spawn(wait, port.send_port) for _ in range(2)]
                future = group.run(wait, port.send_port)
                assert [port.receive(LONG) for _ in range(3)] == ["waiting"] * 3
                getattr(group, start)(fail, error)
        assert [(type(one), one.args) for one in caught.value.exceptions] == [(type(error), error.args)]
        assert isinstance(caught.value.exceptions[0].__cause__, RemoteTraceback)
        assert "in fail" in str(caught.value.exceptions[0].__cause__)
        assert not any(isolate.is_alive for isolate in isolates)
        assert future.cancelled()
        assert [port.receive(LONG) for _ in range(3)] == ["unwound"] * 3


def test_a_failure_kills_while_the_body_is_busy():
    """The rest is killed although the body of the block does not wait for anything of subiso's."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            done = threading.Event()
            group.run(wait).add_done_callback(lambda _: done.set())
            group.spawn(fail, KeyError("key"))
            assert done.wait(LONG)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_the_bodys_error_kills_the_rest():
    """What the body raises is one of the failures."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            isolate = group.spawn(wait)
            raise ValueError("body")
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('body')"]
    assert not isolate.is_alive


def test_failures_of_several():
    """All that failed before it was killed is in the group."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            future = group.run(fail, KeyError("key"))
            concurrent.futures.wait([future], LONG)
            raise ValueError("body")
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


def test_a_failure_that_the_body_meets():
    """A failure that the body is given, too, is there once; what it felt of the end is left out."""
    for start in ("run", "spawn"):
        with pytest.raises(ExceptionGroup) as caught:
            with IsolateGroup() as group:
                future = getattr(group, start)(fail, KeyError("key"))
                (future if start == "run" else group.run(wait)).result(LONG)
        assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_nothing_is_started_after_a_failure():
    """Starting something is refused then; that is no further failure."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            with pytest.raises(KeyError):
                group.run(fail, KeyError("key")).result(LONG)
            with pytest.raises(RuntimeError, match="ending because of a failure"):
                group.run(add, 1, 2)
            group.spawn(add, 1, 2)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_a_time_out_is_a_failure():
    """A run that takes too long fails the group; one that is killed from elsewhere, too."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            group.run(wait, timeout=0.01)
            group.spawn(wait)
    assert [type(error) for error in caught.value.exceptions] == [IsolateTimeoutError]
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group, ReceivePort() as port:
            group.run(lambda boot: (boot.send(Isolate.current()), wait()), port.send_port)
            port.receive(LONG).kill()
    assert [type(error) for error in caught.value.exceptions] == [IsolateKilledError]


def test_an_error_of_a_handler_is_a_failure():
    """An uncaught error of a listening port fails the group, if errors are fatal."""
    with ReceivePort() as port, ReceivePort() as errors:
        with pytest.raises(ExceptionGroup) as caught:
            with IsolateGroup() as group:
                group.spawn(listen, port.send_port)
                port.receive(LONG).send(KeyError("key"))
                group.run(wait)
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        with IsolateGroup() as group:
            isolate = group.spawn(listen, port.send_port, errors_are_fatal=False, on_error=errors.send_port)
            port.receive(LONG).send(KeyError("key"))
            assert errors.receive(LONG)[0] == "KeyError: 'key'"
            assert isolate.is_alive
            isolate.kill()


def test_an_error_beside_a_listening_port():
    """An entry that fails ends its isolate, though it listens."""
    with ReceivePort() as port, pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            group.spawn(listen, port.send_port, KeyError("key"))
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_error_and_exit_ports_are_told(capfd):
    """The listeners of an isolate in a group get what they always get; without them nothing is printed."""
    with ReceivePort() as errors, ReceivePort() as exits:
        with pytest.raises(ExceptionGroup):
            with IsolateGroup() as group:
                group.spawn(fail, KeyError("key"), on_error=errors.send_port, on_exit=exits.send_port)
        assert errors.receive(LONG)[0] == "KeyError: 'key'"
        assert exits.receive(LONG) is None
        with pytest.raises(ExceptionGroup):
            with IsolateGroup() as group:
                group.spawn(fail, KeyError("key"))
    assert capfd.readouterr().err == ""


def test_what_cannot_be_decoded_is_a_failure(tmp_path, monkeypatch):
    """An entry whose module fails over there is a failure as any other."""
    (tmp_path / "only_in_main.py").write_text(
        "import subiso\nif subiso.Isolate.current().name != 'main': raise KeyError\ndef entry(): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import only_in_main

    try:
        with pytest.raises(ExceptionGroup) as caught:
            with IsolateGroup() as group:
                group.spawn(only_in_main.entry)
                group.spawn(wait)
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
    finally:
        del sys.modules["only_in_main"]


def test_an_isolate_that_cannot_start_is_a_failure(monkeypatch):
    """The interpreter could not be made: the group fails with IsolateSpawnError."""

    def refuse():
        raise RuntimeError("no interpreter today")

    nodes.current()
    monkeypatch.setattr(nursery.interpreters, "create", refuse)
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            group.spawn(add, 1, 2, fresh=True)
            group.spawn(add, 1, 2, fresh=True)
            group.spawn(add, 1, 2, fresh=True)
    assert {type(error) for error in caught.value.exceptions} == {IsolateSpawnError}
    assert "no interpreter today" in str(caught.value.exceptions[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt("there"), SystemExit(3)])
def test_what_ends_a_program_is_raised_as_itself(error):
    """KeyboardInterrupt and SystemExit are not wrapped, wherever they come from."""
    with pytest.raises(type(error)):
        with IsolateGroup() as group:
            group.spawn(wait)
            group.run(fail, error)
    with pytest.raises(type(error)) as caught:
        with IsolateGroup() as group:
            isolate = group.spawn(wait)
            raise error
    assert caught.value is error
    assert not isolate.is_alive


def test_ctrl_c_while_the_block_ends(start):
    """Ctrl-C kills all isolates, and is raised when they have ended."""
    program = start("""
        from subiso import IsolateGroup, ReceivePort
        def wait(port):
            try:
                port.send(None)
                ReceivePort(end_with_senders=False).receive()
            finally:
                print("unwound", flush=True)
        with ReceivePort() as port:
            try:
                with IsolateGroup() as group:
                    isolate = group.spawn(wait, port.send_port)
                    port.receive()
                    print("ready", flush=True)
            except KeyboardInterrupt:
                print("interrupted", isolate.is_alive)
    """)
    program.expect("ready")
    program.wait_until_main_thread_sleeps()
    os.kill(program.pid, signal.SIGINT)
    program.finish()
    assert (program.out.split("\n", 1)[-1] if "ready" in program.out else program.out) == "unwound\ninterrupted False\n"
    assert program.err == ""


# -- in event loops ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["spawn", "run"])
async def test_a_failure_cancels_the_body(start, anyio_backend):
    """A failure cancels the body of the block, and what the block raises is the failure."""
    with pytest.raises(ExceptionGroup) as caught:
        async with IsolateGroup() as group:
            other = group.spawn(wait)
            getattr(group, start)(fail, KeyError("key"))
            await anyio.sleep(LONG)
            raise AssertionError("the body was not cancelled")
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert not other.is_alive
    await anyio.lowlevel.checkpoint()  # and no cancellation is left


async def test_a_failure_after_the_body(anyio_backend):
    """The body has ended already when an isolate fails."""
    async with anyio.create_task_group() as tasks:
        with ReceivePort() as boot:

            async def tell():
                (await boot.areceive()).send("now")

            tasks.start_soon(tell)
            with pytest.raises(ExceptionGroup) as caught:
                async with IsolateGroup() as group:
                    group.spawn(fail_when_told, boot.send_port, KeyError("key"))
                    group.spawn(wait)
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        await anyio.lowlevel.checkpoint()


async def test_the_bodys_error_in_a_loop(anyio_backend):
    """What the body raises is one of the failures, there too."""
    with pytest.raises(ExceptionGroup) as caught:
        async with IsolateGroup() as group:
            isolate = group.spawn(wait)
            raise ValueError("body")
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert not isolate.is_alive


@pytest.mark.parametrize("where", ["body", "end"])
async def test_cancelling_the_block(where, anyio_backend):
    """A cancellation from outside kills the isolates, and goes on when they have ended."""
    isolates = []
    with ReceivePort() as port:
        with anyio.CancelScope() as scope:

            async def cancel():
                assert await port.areceive() == "waiting"
                scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                async with IsolateGroup() as group:
                    isolates.append(group.spawn(wait, port.send_port))
                    if where == "body":
                        await anyio.sleep(LONG)
        assert scope.cancelled_caught
        assert not isolates[0].is_alive
        assert port.receive(LONG) == "unwound"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_failure_does_not_hide_a_cancellation(anyio_backend):
    """A task that is cancelled while its group fails is cancelled at its next wait."""

    async def body():
        try:
            async with IsolateGroup() as group:
                group.spawn(wait)
                asyncio.current_task().cancel()
                raise ValueError("body")
        except* ValueError:
            seen.append("failure")
        await asyncio.sleep(0)
        seen.append("not cancelled")

    seen = []
    task = asyncio.create_task(body())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["failure"]


def test_no_event_loop():
    """`async with` wants an event loop that is known."""
    with pytest.raises(RuntimeError, match="event loop"):
        IsolateGroup().__aenter__().send(None)


# -- groups in groups --------------------------------------------------------------------------------------------------


def test_nested_groups():
    """The failure of an inner group is one of the outer's."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup("outer") as outer:
            isolate = outer.spawn(wait)
            with IsolateGroup("inner") as inner:
                inner.run(fail, KeyError("key"))
    assert not isolate.is_alive
    (inner_error,) = caught.value.exceptions
    assert "'inner'" in str(inner_error)
    assert [type(error) for error in inner_error.exceptions] == [KeyError]


async def test_nested_groups_in_a_loop(anyio_backend):
    """A failure of the outer group cancels the inner block, and kills what is in it."""
    with pytest.raises(ExceptionGroup) as caught:
        async with IsolateGroup("outer") as outer:
            async with IsolateGroup("inner") as inner:
                isolate = inner.spawn(wait)
                outer.spawn(fail, KeyError("key"))
                await anyio.sleep(LONG)
    assert not isolate.is_alive
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_a_group_in_an_isolate():
    """An isolate may have a group; its failure comes back as any error."""
    with pytest.raises(ExceptionGroup) as caught:
        Isolate.run(in_isolate, KeyError("key")).result(LONG)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_an_isolate_that_is_killed_kills_its_group():
    """The isolates of a group do not outlive the isolate whose group it is."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(group_inside, port.send_port)
        assert [port.receive(LONG) for _ in range(2)] == ["waiting"] * 2
        isolate.kill()
        assert list(port) == ["unwound"] * 2


# -- wrong calls -------------------------------------------------------------------------------------------------------


def test_before_and_after_the_block():
    """Nothing is started outside of the block, and a group is used once."""
    group = IsolateGroup()
    for call in (group.spawn, group.run):
        with pytest.raises(RuntimeError, match="must be entered"):
            call(add, 1, 2)
    with group:
        with pytest.raises(RuntimeError, match="only once"), group:
            pass
    for call in (group.spawn, group.run):
        with pytest.raises(RuntimeError, match="has ended"):
            call(add, 1, 2)
    with pytest.raises(RuntimeError, match="only once"), group:
        pass


def test_wrong_options():
    """The options are those of `Isolate.spawn` and `Isolate.run`, and so are the errors."""
    with pytest.raises(ExceptionGroup) as caught:
        with IsolateGroup() as group:
            for call, options in ((group.spawn, {"timeout": 3}), (group.run, {"fresh": True})):
                with pytest.raises(TypeError, match="no option"):
                    call(add, 1, 2, **options)
            with pytest.raises(SendError, match=r"^args\[1\]"):
                group.spawn(add, 1, threading.Lock())
            with pytest.raises(TypeError, match="argument"):
                group.run(add, 1)
            group.spawn(3)
    assert [type(error) for error in caught.value.exceptions] == [TypeError]
    with pytest.raises(TypeError, match="name"):
        IsolateGroup(3)


def test_a_group_cannot_be_sent():
    """A group belongs to its block."""
    with ReceivePort() as port, pytest.raises(SendError, match="IsolateGroup"):
        port.send_port.send(IsolateGroup())
