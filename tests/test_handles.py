"""Handles as values, what they may do, gentle kills, and `Isolate.exit`."""

import sys

import pytest

from subiso import Capability, Isolate, IsolateKilledError, PortClosedError, ReceivePort, RemoteError, SendError

LONG = 20  # seconds: the bound of a wait that should be over at once


def echo(out):
    port = ReceivePort(end_with_senders=False)

    def handle(message):
        if message == "end":
            port.close()
        else:
            out.send(message)

    port.listen(handle)
    out.send(port.send_port)


def loop(out):
    try:
        out.send("running")
        while True:
            pass
    finally:
        out.send("finally")


@pytest.fixture
def out():
    with ReceivePort() as port:
        yield port


# -- capabilities ------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/capability_test", "co19/Capability")
def test_capabilities_are_values():
    """A capability is equal to its copies from other isolates, with the same hash, and to nothing else."""
    capabilities = [Capability() for _ in range(100)]
    assert len(set(capabilities)) == 100
    returned = Isolate.run(lambda values: values, capabilities).result(LONG)
    assert returned == capabilities
    assert [hash(one) for one in returned] == [hash(one) for one in capabilities]
    assert capabilities[0] != capabilities[1]
    assert capabilities[0] != capabilities[0]._token
    assert {capabilities[3]: "x"}[returned[3]] == "x"
    assert repr(returned[5]) == repr(capabilities[5]) != repr(capabilities[6])


@pytest.mark.dart("co19/Isolate.pauseCapability", "co19/Isolate.terminateCapability")
def test_each_isolate_has_capabilities_of_its_own(out):
    """Pause and terminate capability of an isolate differ from each other and from every other isolate's."""
    isolates = [Isolate.spawn(echo, out.send_port) for _ in range(3)]
    found = {one for isolate in isolates for one in (isolate.pause_capability, isolate.terminate_capability)}
    assert len(found) == 6
    for isolate in isolates:
        isolate.kill()
        assert isolate.join(LONG)
    with Isolate.spawn(echo, out.send_port) as successor:  # in the same place
        assert successor.terminate_capability not in found
        assert successor.pause_capability not in found


# -- handles -----------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/isolate_current_test", "co19/Isolate.current")
def test_a_handle_has_the_same_parts_inside(out):
    """`Isolate.current()` inside has the control port and the capabilities of the handle outside."""

    def tell(out):
        isolate = Isolate.current()
        out.send((isolate, isolate.control_port, isolate.pause_capability, isolate.terminate_capability))

    isolate = Isolate.spawn(tell, out.send_port)
    (parts,) = out
    assert parts == (isolate, isolate.control_port, isolate.pause_capability, isolate.terminate_capability)
    assert parts[0].terminate_capability == isolate.terminate_capability


def test_a_handle_can_be_rebuilt(out):
    """A handle made of another one's control port and capabilities is equal to it, and can do what it can."""
    isolate = Isolate.spawn(echo, out.send_port, on_exit=out.send_port)
    out.receive(LONG)
    rebuilt = Isolate(
        isolate.control_port,
        pause_capability=isolate.pause_capability,
        terminate_capability=isolate.terminate_capability,
        name="rebuilt",
    )
    assert rebuilt == isolate
    assert hash(rebuilt) == hash(isolate)
    assert rebuilt.name == "rebuilt"
    assert rebuilt.is_alive
    rebuilt.resume(rebuilt.pause())
    rebuilt.ping(out.send_port, "pinged")
    assert out.receive(LONG) == "pinged"
    rebuilt.kill()
    assert isolate.join(LONG)
    assert rebuilt.join(LONG)
    assert not rebuilt.is_alive


@pytest.mark.dart("lib/kill_self_test", "co19/Isolate.terminateCapability", "co19/Isolate.kill")
def test_killing_needs_the_capability(out):
    """A handle without the terminate capability, or with another one, kills nothing, whoever uses it."""
    with Isolate.spawn(echo, out.send_port) as other:
        out.receive(LONG)
        isolate = Isolate.spawn(echo, out.send_port)
        port = out.receive(LONG)
        for wrong in (None, Capability(), other.terminate_capability, isolate.pause_capability):
            powerless = Isolate(isolate.control_port, terminate_capability=wrong)
            assert powerless.terminate_capability == wrong
            for priority in (Isolate.IMMEDIATE, Isolate.BEFORE_NEXT_EVENT):
                powerless.kill(priority)
                Isolate.run(Isolate.kill, powerless, priority).result(LONG)
            port.send("handled")
            assert out.receive(LONG) == "handled"
        port.send("end")
        assert isolate.join(LONG)


def test_a_handle_is_made_of_a_control_port(out):
    """A handle cannot be made of another port or of something else, nor with something else as a capability."""
    with pytest.raises(ValueError, match="control port"):
        Isolate(out.send_port)
    with pytest.raises(TypeError, match="control_port"):
        Isolate(3)
    main = Isolate.current().control_port
    with pytest.raises(TypeError, match="pause_capability"):
        Isolate(main, pause_capability=3)
    with pytest.raises(TypeError, match="terminate_capability"):
        Isolate(main, terminate_capability=b"x" * 16)


def test_nothing_is_received_at_a_control_port(out):
    """Sending a message to a control port is an error."""
    with Isolate.spawn(echo, out.send_port) as isolate, pytest.raises(PortClosedError):
        isolate.control_port.send("hello")


def test_a_handle_on_the_dead(out):
    """A handle that is made of the control port of an isolate that has ended says so, and does nothing."""
    isolate = Isolate.spawn(echo, out.send_port)
    isolate.kill()
    assert isolate.join(LONG)
    rebuilt = Isolate(isolate.control_port, terminate_capability=isolate.terminate_capability)
    assert not rebuilt.is_alive
    assert rebuilt.join(0)
    rebuilt.kill()
    with Isolate.spawn(echo, out.send_port) as successor:
        rebuilt.kill()
        assert successor != rebuilt
        assert successor.is_alive


# -- kills -------------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/kill_test", "lib/kill2_test", "co19/Isolate.kill")
@pytest.mark.parametrize("priority", [Isolate.IMMEDIATE, Isolate.BEFORE_NEXT_EVENT])
def test_no_reply_after_a_kill(priority, out):
    """An isolate that replies to each message sends no further reply once it was killed; its exit listener is told."""
    isolate = Isolate.spawn(echo, out.send_port, on_exit=out.send_port)
    port = out.receive(LONG)
    for count in (4, 3, 2):
        port.send(count)
        assert out.receive(LONG) == count
    isolate.kill(priority)
    isolate.ping(out.send_port, "killed")  # may be answered or not, but after the kill
    assert isolate.join(LONG)
    with pytest.raises(PortClosedError):
        port.send(1)
    assert list(out) in ([None], ["killed", None])


def test_control_messages_are_handled_in_order(out):
    """What was asked of an isolate before a kill is done before it."""
    for priority in (Isolate.IMMEDIATE, Isolate.BEFORE_NEXT_EVENT):
        isolate = Isolate.spawn(loop if priority == Isolate.IMMEDIATE else echo, out.send_port)
        out.receive(LONG)
        for i in range(5):
            isolate.ping(out.send_port, i)
        isolate.add_on_exit_listener(out.send_port, "ended")
        isolate.kill(priority)
        assert isolate.join(LONG)
        assert [message for message in out if message != "finally"] == [*range(5), "ended"]


@pytest.mark.dart(
    "co19/Isolate.kill",
    differs="because `kill()` without a priority is immediate: that is what a Python programmer expects of the word",
)
def test_a_gentle_kill_lets_code_run(out):
    """A kill before the next event interrupts nothing: the entry function runs to its end, or to its next wait."""

    def work(out, wait):
        from subiso._kernel import node as nodes

        with ReceivePort(end_with_senders=False) as port:
            out.send("running")
            while not nodes.current().gate.shut:
                pass
            out.send("worked")
            if wait:
                port.receive()
            else:
                port.listen(out.send)
        out.send("returned")

    for wait in (True, False):
        isolate = Isolate.spawn(work, out.send_port, wait, on_exit=out.send_port)
        assert out.receive(LONG) == "running"
        isolate.kill(Isolate.BEFORE_NEXT_EVENT)
        assert isolate.join(LONG)
        assert list(out) == (["worked", None] if wait else ["worked", "returned", None])


def test_a_gentle_kill_of_what_runs_for_a_result(out):
    """A kill before the next event of an isolate that was to give a result: its future raises IsolateKilledError."""

    def work(out):
        from subiso._kernel import node as nodes

        out.send(Isolate.current())
        while not nodes.current().gate.shut:
            pass
        return "result"

    future = Isolate.run(work, out.send_port)
    out.receive(LONG).kill(Isolate.BEFORE_NEXT_EVENT)
    with pytest.raises(IsolateKilledError):
        future.result(LONG)


@pytest.mark.dart("lib/kill_infinite_loop_in_initializer_test")
def test_killing_a_module_that_never_loads(out, tmp_path, monkeypatch):
    """An isolate whose import runs an endless loop on the module's own level can be killed."""

    def load(out):
        sys.our_port = out
        import endless_module_of_test_handles  # noqa: F401

    (tmp_path / "endless_module_of_test_handles.py").write_text(
        "import sys\nsys.our_port.send('running')\nwhile True:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    isolate = Isolate.spawn(load, out.send_port, on_exit=out.send_port)
    assert out.receive(LONG) == "running"
    isolate.kill()
    assert list(out) == [None]


@pytest.mark.dart("lib/kill_self_synchronously_test", "lib/kill_self_test")
@pytest.mark.parametrize("rebuilt", [True, False])
def test_killing_oneself_at_once(rebuilt, out):
    """An isolate that kills itself, with a handle rebuilt from its parts too, does not reach the next statement."""

    def end(out):
        me = Isolate.current()
        if rebuilt:
            me = Isolate(me.control_port, terminate_capability=me.terminate_capability)
        try:
            out.send("before")
            me.kill()
            out.send("after")
        except Exception:
            out.send("caught")

    isolate = Isolate.spawn(end, out.send_port, on_exit=out.send_port)
    assert list(out) == ["before", None]
    assert isolate.join(LONG)


def test_killing_oneself_gently(out):
    """An isolate that kills itself before its next event goes on until then."""

    def end(out):
        Isolate.current().kill(Isolate.BEFORE_NEXT_EVENT)
        out.send("after")
        ReceivePort(end_with_senders=False).listen(print)

    Isolate.spawn(end, out.send_port, on_exit=out.send_port)
    assert list(out) == ["after", None]


def test_a_kill_of_either_sort_after_the_other(out):
    """A gentle kill that has not taken effect is overtaken by an immediate one."""
    isolate = Isolate.spawn(loop, out.send_port, on_exit=out.send_port)
    assert out.receive(LONG) == "running"
    isolate.kill(Isolate.BEFORE_NEXT_EVENT)
    isolate.kill(Isolate.IMMEDIATE)
    isolate.kill(Isolate.BEFORE_NEXT_EVENT)
    assert list(out) == ["finally", None]


# -- Isolate.exit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["text", None, b"x" * 3_000_000, [1, {"a": {2}}], Capability])
def test_leaving_with_a_message(message, out):
    """`exit` ends the isolate there and then; its message comes after all others, before the exit listener's."""

    def leave(out):
        def deep_down():
            Isolate.exit(out, message)

        try:
            out.send("leaving")
            deep_down()
            out.send("after")
        except Exception:
            out.send("caught")
        finally:
            out.send("finally")

    Isolate.spawn(leave, out.send_port, on_exit=out.send_port)
    assert list(out) == ["leaving", "finally", message, None]


def test_leaving_from_everywhere(out):
    """`exit` ends the isolate from a handler, a coroutine, a callback of a loop and a thread."""

    def handler(out):
        port = ReceivePort(end_with_senders=False)
        port.send_port.send("go")
        port.listen(lambda message: Isolate.exit(out, message))

    async def coroutine(out):
        import asyncio

        await asyncio.sleep(0)
        Isolate.exit(out, "go")

    async def callback(out):
        import asyncio

        asyncio.get_running_loop().call_soon(Isolate.exit, out, "go")
        await asyncio.sleep(1000)

    def thread(out):
        import threading

        threading.Thread(target=Isolate.exit, args=(out, "go")).start()
        ReceivePort(end_with_senders=False).receive()

    for entry in (handler, coroutine, callback, thread):
        Isolate.spawn(entry, out.send_port, on_exit=out.send_port, on_error=out.send_port)
        assert list(out) == ["go", None], entry.__name__


@pytest.mark.dart("vm/send_unsupported_objects_exit_test")
def test_leaving_with_what_cannot_be_sent(out):
    """A final message that cannot be sent is a SendError that names the way to it; the isolate goes on."""

    def leave(out):
        import threading

        for message in ({"jobs": [threading.Lock()]}, ReceivePort()):
            try:
                Isolate.exit(out, message)
            except SendError as error:
                out.send(str(error))
        out.send("goes on")

    Isolate.spawn(leave, out.send_port)
    texts = list(out)
    assert len(texts) == 3
    assert "['jobs'][0]" in texts[0]
    assert "send_port" in texts[1]
    assert texts[2] == "goes on"


def test_leaving_for_a_port_that_is_closed(out):
    """If the port for the final message is closed, that is a PortClosedError, and the isolate goes on."""

    def leave(closed, out):
        try:
            Isolate.exit(closed, "never")
        except PortClosedError:
            out.send("goes on")

    closed = ReceivePort()
    closed.close()
    Isolate.spawn(leave, closed.send_port, out.send_port)
    assert list(out) == ["goes on"]


def test_leaving_without_a_result(out):
    """A future whose isolate leaves by `exit` raises a RemoteError; the final message arrives."""
    future = Isolate.run(Isolate.exit, out.send_port, "final")
    with pytest.raises(RemoteError, match="without a result"):
        future.result(LONG)
    assert list(out) == ["final"]


def test_main_does_not_leave(out):
    """In main `exit` is a RuntimeError that names sys.exit."""
    with pytest.raises(RuntimeError, match=r"sys\.exit"):
        Isolate.exit()
    with pytest.raises(RuntimeError, match=r"sys\.exit"):
        Isolate.exit(out.send_port, "final")


def test_wrong_exits(out):
    """A message without a port, or something else in place of the port, is a TypeError; the isolate goes on."""

    def leave(out):
        for arguments in ((None, "message"), (3, "message")):
            try:
                Isolate.exit(*arguments)
            except TypeError as error:
                out.send(str(error))

    Isolate.spawn(leave, out.send_port)
    texts = list(out)
    assert len(texts) == 2
    assert all("port" in text for text in texts)
