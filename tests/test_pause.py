"""Pausing: what stops and what does not, how pauses are counted, and starting paused."""

import time

import pytest

from subiso import Capability, Isolate, PortEmpty, ReceivePort, select
from subiso._kernel import node as nodes

LONG = 20  # seconds: the bound of a wait that should be over at once


# Echoes: each sends its port, then every message that it gets, and ends with "end".


def echo_listening(out):
    port = ReceivePort(end_with_senders=False)

    def handle(message):
        if message == "end":
            port.close()
        else:
            out.send(message)

    port.listen(handle)
    out.send(port.send_port)


def echo_receiving(out):
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        while (message := port.receive()) != "end":
            out.send(message)


def echo_iterating(out):
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        for message in port:
            if message == "end":
                break
            out.send(message)


def echo_selecting(out):
    with ReceivePort(end_with_senders=False) as port, ReceivePort() as other:
        out.send(port.send_port)
        while (message := select(other, port).receive()) != "end":
            out.send(message)


def echo_polling(out):
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        message = None
        while message != "end":
            try:
                message = port.receive_nowait()
            except PortEmpty:
                continue
            if message != "end":
                out.send(message)


async def echo_areceiving(out):
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        while (message := await port.areceive()) != "end":
            out.send(message)


async def echo_aiterating(out):
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        async for message in port:
            if message == "end":
                break
            out.send(message)


async def echo_alistening(out):
    port = ReceivePort(end_with_senders=False)

    async def handle(message):
        if message == "end":
            port.close()
        else:
            out.send(message)

    port.listen(handle)
    out.send(port.send_port)


def echo_in_a_thread(out):
    import threading

    threading.Thread(target=echo_receiving, args=(out,)).start()


ECHOES = [
    echo_listening,
    echo_receiving,
    echo_iterating,
    echo_selecting,
    echo_polling,
    echo_areceiving,
    echo_aiterating,
    echo_alistening,
    echo_in_a_thread,
]


def send_name(out):
    out.send(Isolate.current().name)


def pause(isolate, out, capability=None):
    """Pause an isolate, and wait until that is in force: messages do not wait for control messages."""
    capability = isolate.pause(capability)
    isolate.ping(out.send_port, "paused")
    assert out.receive(LONG) == "paused"
    return capability


def assert_paused(isolate, port, out):
    """Prove that nothing is handled: what is done before the next event is not done, but pings are answered."""
    port.send("queued")
    isolate.ping(out.send_port, "opened", Isolate.BEFORE_NEXT_EVENT)
    isolate.ping(out.send_port, "still paused")
    assert out.receive(LONG) == "still paused"


def assert_resumed(out):
    """Receive what `assert_paused` left behind."""
    assert [out.receive(LONG), out.receive(LONG)] == ["opened", "queued"]


@pytest.fixture
def out():
    with ReceivePort() as port:
        yield port


# -- starting paused ---------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/start_paused_test")
def test_a_paused_start_runs_nothing(out):
    """An isolate that was spawned paused runs not one line until it is resumed with its pause capability."""
    isolate = Isolate.spawn(send_name, out.send_port, paused=True, name="patient")
    isolate.ping(out.send_port, "alive")
    assert out.receive(LONG) == "alive"
    isolate.ping(out.send_port, "last", Isolate.BEFORE_NEXT_EVENT)  # answered before the first line
    isolate.resume(isolate.pause_capability)
    assert list(out) == ["last", "patient"]
    assert isolate.join(LONG)


def test_what_is_asked_of_a_paused_start_is_in_force(out):
    """Whatever is asked of an isolate before it is resumed holds when its first line runs."""

    def fail():
        raise ValueError("at once")

    isolate = Isolate.spawn(fail, paused=True)
    isolate.add_error_listener(out.send_port)
    isolate.add_on_exit_listener(out.send_port, "ended")
    isolate.resume(isolate.pause_capability)
    (text, _), end = out
    assert (text, end) == ("ValueError: at once", "ended")


def test_a_paused_start_can_be_killed(out):
    """A kill ends an isolate that was never resumed: its function does not run, its exit listeners hear of it."""
    for priority in (Isolate.IMMEDIATE, Isolate.BEFORE_NEXT_EVENT):
        isolate = Isolate.spawn(send_name, out.send_port, paused=True, on_exit=out.send_port)
        isolate.kill(priority)
        isolate.resume(isolate.pause_capability)
        assert isolate.join(LONG)
        assert list(out) == [None]


def test_a_paused_start_may_be_paused_further(out):
    """Further pauses of an isolate that was spawned paused have to be taken back as well."""
    isolate = Isolate.spawn(send_name, out.send_port, paused=True, name="patient")
    more = isolate.pause()
    isolate.resume(isolate.pause_capability)
    isolate.ping(out.send_port, "still paused")
    assert out.receive(LONG) == "still paused"
    isolate.resume(more)
    assert list(out) == ["patient"]


# -- what stops --------------------------------------------------------------------------------------------------------


@pytest.mark.dart(
    "lib/pause_test",
    "co19/Isolate.pause",
    differs=(
        "because messages do not wait for control messages: one that is sent right after `pause` may still be handled; "
        "an answer to `ping` says that the pause is in force"
    ),
)
@pytest.mark.dart("co19/Isolate.resume", "co19/Isolate.pauseCapability")
@pytest.mark.parametrize("echo", ECHOES, ids=lambda echo: echo.__name__)
def test_a_paused_isolate_handles_no_message(echo, out):
    """A paused isolate handles no message, however it waits for them; they queue until it is resumed."""
    isolate = Isolate.spawn(echo, out.send_port)
    port = out.receive(LONG)
    for _ in range(3):
        capability = pause(isolate, out)
        assert_paused(isolate, port, out)
        isolate.resume(capability)
        assert_resumed(out)
    port.send("end")
    assert isolate.join(LONG)


@pytest.mark.dart("lib/ping_pause_test")
def test_a_paused_isolate_answers_pings(out):
    """A paused isolate answers pings, but those that are for before its next event, in the order of asking."""
    isolate = Isolate.spawn(echo_listening, out.send_port)
    port = out.receive(LONG)
    capability = isolate.pause()
    isolate.ping(out.send_port, "before an event", Isolate.BEFORE_NEXT_EVENT)
    for i in range(10):
        isolate.ping(out.send_port, i)
    assert [out.receive(LONG) for _ in range(10)] == list(range(10))
    isolate.resume(capability)
    assert out.receive(LONG) == "before an event"
    port.send("end")
    assert isolate.join(LONG)


def test_running_code_is_not_paused(out):
    """Code that runs goes on, and may send; the isolate does not end before it is resumed."""

    def work(out):
        with ReceivePort(end_with_senders=False) as port:
            out.send(port.send_port)
            while not nodes.current().gate.shut:
                pass
        out.send("went on")

    isolate = Isolate.spawn(work, out.send_port, on_exit=out.send_port)
    out.receive(LONG)
    capability = isolate.pause()
    assert out.receive(LONG) == "went on"
    isolate.ping(out.send_port, "not ended")
    assert out.receive(LONG) == "not ended"
    assert isolate.is_alive
    isolate.resume(capability)
    assert out.receive(LONG) is None
    assert isolate.join(LONG)


def test_timers_stand_still(out):
    """The event loop of a paused isolate stands still, timers included."""

    async def arm(out):
        import asyncio

        Isolate.current().pause(capability)
        while not nodes.current().gate.shut:
            pass
        asyncio.get_running_loop().call_later(0, out.send, "timer")
        out.send("armed")
        await asyncio.sleep(0.001)
        out.send("woken")

    capability = Capability()
    isolate = Isolate.spawn(arm, out.send_port)
    assert out.receive(LONG) == "armed"
    isolate.ping(out.send_port, "still paused")
    assert out.receive(LONG) == "still paused"
    isolate.resume(capability)
    assert sorted(out) == ["timer", "woken"]
    assert isolate.join(LONG)


def test_time_outs_run_on(out):
    """In a paused isolate `receive` and `select` still time out, though a message waits."""

    def work(out):
        isolate, capability = Isolate.current(), Capability()
        with ReceivePort() as port:
            port.send_port.send("waits")
            isolate.pause(capability)
            while not nodes.current().gate.shut:
                pass
            for wait in (port.receive_nowait, lambda: port.receive(0.001), lambda: select(port, timeout=0.001)):
                try:
                    out.send(wait())
                except PortEmpty:
                    out.send("empty")
            isolate.resume(capability)
            out.send(port.receive())

    isolate = Isolate.spawn(work, out.send_port)
    assert list(out) == ["empty"] * 3 + ["waits"]
    assert isolate.join(LONG)


def test_a_pause_between_two_handlers(out):
    """A pause that comes while a handler runs stops the handler of another port, though its message has come."""

    def live(out):
        first, second = ReceivePort(end_with_senders=False), ReceivePort(end_with_senders=False)

        def pause(_):
            Isolate.current().pause(capability)
            while not nodes.current().gate.shut:
                pass
            first.close()
            out.send("pausing")

        def end(_):
            second.close()
            out.send("second")

        for port in (first, second):
            port.send_port.send(None)
        first.listen(pause)
        second.listen(end)

    capability = Capability()
    isolate = Isolate.spawn(live, out.send_port)
    assert out.receive(LONG) == "pausing"
    isolate.ping(out.send_port, "opened", Isolate.BEFORE_NEXT_EVENT)
    isolate.ping(out.send_port, "still paused")
    assert out.receive(LONG) == "still paused"
    isolate.resume(capability)
    assert list(out) == ["opened", "second"]


def test_main_can_be_paused():
    """Main is paused and resumed like every isolate: here an isolate does it."""

    def pause(main, port):
        with ReceivePort() as own:
            capability = main.pause()
            main.ping(own.send_port, "paused")
            own.receive()
            port.send("queued")
            main.ping(port, "opened", Isolate.BEFORE_NEXT_EVENT)
            main.ping(own.send_port, "still paused")
            own.receive()
            main.resume(capability)

    with ReceivePort() as port:
        isolate = Isolate.spawn(pause, Isolate.current(), port.send_port)
        assert list(port) == ["queued", "opened"]
        assert isolate.join(LONG)


# -- how pauses are counted --------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/pause_test", "co19/Isolate.pause", "co19/Isolate.resume")
def test_each_capability_must_be_resumed(out):
    """Pauses with different capabilities must each be taken back, in any order; with the same one they count once."""
    isolate = Isolate.spawn(echo_listening, out.send_port)
    port = out.receive(LONG)
    capabilities = [isolate.pause() for _ in range(20)]
    assert len(set(capabilities)) == 20
    for capability in capabilities:
        assert pause(isolate, out, capability) == capability
    for capability in capabilities[10:] + capabilities[1:10]:
        isolate.resume(capability)
    assert_paused(isolate, port, out)
    isolate.resume(capabilities[0])
    assert_resumed(out)
    port.send("end")
    assert isolate.join(LONG)


@pytest.mark.dart("co19/Isolate.resume")
def test_resuming_what_was_not_paused(out):
    """Resuming with a capability that paused nothing, or twice, has no effect, not even on a later pause."""
    isolate = Isolate.spawn(echo_listening, out.send_port)
    port = out.receive(LONG)
    capability = Capability()
    for _ in range(3):
        isolate.resume(capability)
        isolate.resume(Capability())
        isolate.resume(isolate.pause_capability)
    pause(isolate, out, capability)
    isolate.resume(Capability())
    assert_paused(isolate, port, out)
    isolate.resume(capability)
    isolate.resume(capability)
    assert_resumed(out)
    pause(isolate, out, capability)
    assert_paused(isolate, port, out)
    isolate.resume(capability)
    assert_resumed(out)
    port.send("end")
    assert isolate.join(LONG)


@pytest.mark.dart("co19/Isolate.pauseCapability", "co19/Isolate.pause")
def test_pausing_needs_the_capability(out):
    """A handle without the pause capability, or with another one, pauses nothing."""
    isolate = Isolate.spawn(echo_listening, out.send_port)
    port = out.receive(LONG)
    with Isolate.spawn(echo_listening, out.send_port) as other:
        out.receive(LONG)
        for wrong in (None, Capability(), other.pause_capability, isolate.terminate_capability):
            powerless = Isolate(isolate.control_port, pause_capability=wrong)
            assert powerless.pause_capability == wrong
            assert isinstance(powerless.pause(), Capability)
            port.send("handled")
            assert out.receive(LONG) == "handled"
    port.send("end")
    assert isolate.join(LONG)


@pytest.mark.dart("co19/Isolate.resume")
def test_resuming_needs_no_other_capability(out):
    """Whoever holds the capability of a pause can resume, also with a handle that cannot pause, and from elsewhere."""
    isolate = Isolate.spawn(echo_listening, out.send_port)
    port = out.receive(LONG)
    capability = pause(isolate, out)
    assert_paused(isolate, port, out)
    Isolate.run(lambda handle: handle.resume(capability), Isolate(isolate.control_port)).result(LONG)
    assert_resumed(out)
    port.send("end")
    assert isolate.join(LONG)


@pytest.mark.parametrize("wrong", [3, "x", object])
def test_a_capability_is_a_capability(wrong, out):
    """Something else in place of a capability is a TypeError."""
    with Isolate.spawn(echo_listening, out.send_port) as isolate:
        out.receive(LONG)
        with pytest.raises(TypeError, match="Capability"):
            isolate.pause(wrong)
        for what in (wrong, None):
            with pytest.raises(TypeError, match="Capability"):
                isolate.resume(what)


def test_pausing_the_dead(out):
    """Pausing and resuming an isolate that has ended does nothing, to its successor least of all."""
    isolate = Isolate.spawn(send_name, out.send_port)
    assert isolate.join(LONG)
    for _ in out:
        pass
    for _ in range(5):
        with Isolate.spawn(echo_listening, out.send_port):
            port = out.receive(LONG)
            isolate.resume(isolate.pause())
            isolate.pause()
            port.send("handled")
            assert out.receive(LONG) == "handled"


def test_an_isolate_pauses_itself(out):
    """An isolate may pause itself; somebody else resumes it."""

    def live(out, capability):
        Isolate.current().pause(capability)
        while not nodes.current().gate.shut:
            pass
        with ReceivePort(end_with_senders=False) as port:
            port.send_port.send("from before")
            out.send("pausing")
            out.send(port.receive())

    capability = Capability()
    isolate = Isolate.spawn(live, out.send_port, capability)
    assert out.receive(LONG) == "pausing"
    isolate.ping(out.send_port, "still paused")
    assert out.receive(LONG) == "still paused"
    isolate.resume(capability)
    assert list(out) == ["from before"]


# -- the end of what is paused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("echo", ECHOES, ids=lambda echo: echo.__name__)
def test_killing_what_is_paused(echo, out):
    """A paused isolate can be killed at once, wherever it waits; what was queued is dropped."""
    isolate = Isolate.spawn(echo, out.send_port, on_exit=out.send_port)
    port = out.receive(LONG)
    pause(isolate, out)
    assert_paused(isolate, port, out)
    isolate.kill()
    assert isolate.join(LONG)
    assert list(out) == [None]


@pytest.mark.parametrize("echo", ECHOES, ids=lambda echo: echo.__name__)
def test_a_gentle_kill_waits_for_the_resume(echo, out):
    """A kill before the next event takes effect when the isolate is resumed, before what was queued is handled."""
    isolate = Isolate.spawn(echo, out.send_port, on_exit=out.send_port)
    port = out.receive(LONG)
    capability = pause(isolate, out)
    port.send("queued")
    isolate.kill(Isolate.BEFORE_NEXT_EVENT)
    isolate.ping(out.send_port, "still paused")
    assert out.receive(LONG) == "still paused"
    assert isolate.is_alive
    isolate.resume(capability)
    assert isolate.join(LONG)
    assert list(out) == [None]


def test_waiting_paused_burns_no_cpu(out):
    """A paused isolate with messages in its port uses no processor time."""
    isolate = Isolate.spawn(echo_receiving, out.send_port)
    port = out.receive(LONG)
    capability = pause(isolate, out)
    assert_paused(isolate, port, out)
    before, begin = time.process_time(), time.monotonic()
    assert not isolate.join(0.3)
    assert time.process_time() - before < 0.5 * (time.monotonic() - begin)
    isolate.resume(capability)
    assert_resumed(out)
    port.send("end")
    assert isolate.join(LONG)
