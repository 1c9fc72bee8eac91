"""Who is told of an isolate's errors and its end; pings."""

import asyncio
import gc
import threading

import pytest

from subiso import Capability, Isolate, NoSendersError, ReceivePort, RemoteError, SendError, UncaughtErrors

LONG = 20  # seconds: the bound of a wait that should be over at once

RESPONSES = [None, True, False, 0, -1, 2**70, 2.5, "text", b"bytes", "x" * 2900, [1, [2]], {"a": (1, 2)}, {1, 2}]


def live(out):
    """Listen: raise what is sent, end with "end"."""
    port = ReceivePort(end_with_senders=False)

    def handle(message):
        if isinstance(message, Exception):
            raise message
        if message == "end":
            port.close()
        else:
            out.send(message)

    port.listen(handle)
    out.send(port.send_port)


def return_at_once():
    pass


def raise_at_once():
    raise ValueError("at once")


def exit_at_once():
    raise SystemExit(3)


def leave_at_once():
    Isolate.exit()


async def raise_later():
    await asyncio.sleep(0)
    raise ValueError("later")


@pytest.fixture
def out():
    with ReceivePort() as port:
        yield port


def is_silent(port):
    """Return whether nothing but what is sent now waits in a port."""
    port.send_port.send("the mark")
    return port.receive(LONG) == "the mark"


# -- exit listeners ----------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/exit_at_spawn_test", "co19/Isolate.addOnExitListener")
@pytest.mark.parametrize("entry", [return_at_once, raise_at_once, exit_at_once, leave_at_once, raise_later])
def test_every_end_is_told(entry, out):
    """The exit port given at spawn is sent None once, however quickly and in whatever way the isolate ends."""
    with ReceivePort() as errors:
        isolate = Isolate.spawn(entry, on_exit=out.send_port, on_error=errors.send_port)
        assert list(out) == [None]
        assert isolate.join(LONG)


@pytest.mark.dart("lib/ondone_test", "co19/Isolate.addOnExitListener")
@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: repr(response)[:12])
def test_responses(response, out):
    """An exit listener is sent the response that was asked for."""
    isolate = Isolate.spawn(return_at_once, paused=True)
    isolate.add_on_exit_listener(out.send_port, response)
    isolate.resume(isolate.pause_capability)
    (told,) = out
    assert (told, type(told)) == (response, type(response))


@pytest.mark.dart("co19/Isolate.addOnExitListener")
def test_a_capability_as_response(out):
    """A capability can be a response, and is recognized."""
    capability = Capability()
    isolate = Isolate.spawn(return_at_once, paused=True)
    isolate.add_on_exit_listener(out.send_port, capability)
    isolate.resume(isolate.pause_capability)
    assert list(out) == [capability]


@pytest.mark.dart("lib/ondone_test", "co19/Isolate.addOnExitListener")
def test_a_port_is_told_once(out):
    """A port that is added several times is told once; the response given last counts, over that of spawn, too."""
    isolate = Isolate.spawn(return_at_once, paused=True, on_exit=out.send_port)
    for response in ("first", "second", "third"):
        isolate.add_on_exit_listener(out.send_port, response)
    isolate.resume(isolate.pause_capability)
    assert list(out) == ["third"]


@pytest.mark.dart("co19/Isolate.addOnExitListener")
def test_several_ports_are_told(out):
    """Each of many ports is told, each what it was added with."""
    ports = [ReceivePort() for _ in range(30)]
    isolate = Isolate.spawn(return_at_once, paused=True)
    for i, port in enumerate(ports):
        isolate.add_on_exit_listener(port.send_port, i)
    isolate.resume(isolate.pause_capability)
    assert [port.receive(LONG) for port in ports] == list(range(30))
    for port in ports:
        port.close()


@pytest.mark.dart("lib/ondone_test", "co19/Isolate.removeOnExitListener")
def test_removing_exit_listeners(out):
    """A removed listener is not told, be it that of spawn; one that was not added can be removed; the others stay."""
    with ReceivePort() as other:
        isolate = Isolate.spawn(return_at_once, paused=True, on_exit=out.send_port)
        isolate.add_on_exit_listener(other.send_port, "told")
        isolate.remove_on_exit_listener(out.send_port)
        isolate.remove_on_exit_listener(out.send_port)
        isolate.resume(isolate.pause_capability)
        assert list(other) == ["told"]
        assert list(out) == []


@pytest.mark.dart("co19/Isolate.removeOnExitListener")
def test_a_listener_can_be_added_again(out):
    """A listener that was removed can be added again."""
    isolate = Isolate.spawn(return_at_once, paused=True, on_exit=out.send_port)
    isolate.remove_on_exit_listener(out.send_port)
    isolate.add_on_exit_listener(out.send_port, "again")
    isolate.resume(isolate.pause_capability)
    assert list(out) == ["again"]


@pytest.mark.dart("co19/Isolate.addOnExitListener", "co19/Isolate.ping", "co19/Isolate.addErrorListener")
def test_the_dead_say_nothing(out):
    """An isolate that has ended tells no listener that is added then, and answers no ping."""
    isolate = Isolate.spawn(return_at_once)
    assert isolate.join(LONG)
    isolate.add_on_exit_listener(out.send_port, "ended")
    isolate.add_error_listener(out.send_port)
    isolate.ping(out.send_port, "alive")
    isolate.ping(out.send_port, "alive", Isolate.BEFORE_NEXT_EVENT)
    isolate.set_errors_fatal(False)
    for entry in (return_at_once, return_at_once):  # the next ones in its place do not either
        assert Isolate.spawn(entry).join(LONG)
    assert is_silent(out)
    isolate.remove_error_listener(out.send_port)
    isolate.remove_on_exit_listener(out.send_port)


def test_a_closed_listener_does_not_matter(out):
    """A listener whose port is closed, or whose isolate has ended, is passed over; the others are told."""
    with ReceivePort() as handles:
        with Isolate.spawn(live, handles.send_port):
            gone = handles.receive(LONG)
    closed = ReceivePort()
    isolate = Isolate.spawn(raise_at_once, paused=True)
    for port in [gone, closed.send_port, out.send_port]:
        isolate.add_on_exit_listener(port, "told")
        isolate.add_error_listener(port)
    closed.close()
    isolate.resume(isolate.pause_capability)
    (text, _), end = out
    assert (text, end) == ("ValueError: at once", "told")


def test_a_full_listener_does_not_hold_up_the_end():
    """A bounded port that is full when the isolate ends misses the news; the isolate ends all the same."""
    with ReceivePort(maxsize=1, end_with_senders=False) as full:
        full.send_port.send("full")
        isolate = Isolate.spawn(raise_at_once, on_exit=full.send_port, on_error=full.send_port)
        assert isolate.join(LONG)
        assert full.receive(LONG) == "full"


def test_listeners_of_other_isolates(out):
    """A listener may be added by an isolate, for a port of a third one."""

    def watch(isolate, port):
        isolate.add_on_exit_listener(port, "watched")
        isolate.add_error_listener(port)

    isolate = Isolate.spawn(raise_at_once, paused=True)
    Isolate.run(watch, isolate, out.send_port).result(LONG)
    isolate.resume(isolate.pause_capability)
    (text, _), end = out
    assert (text, end) == ("ValueError: at once", "watched")


@pytest.mark.parametrize("method", ["add_on_exit_listener", "add_error_listener", "ping"])
@pytest.mark.parametrize("wrong", [None, 3, print])
def test_a_listener_is_a_send_port(method, wrong, out):
    """Something else in place of the port is a TypeError that shows it."""
    with Isolate.spawn(live, out.send_port) as isolate:
        with pytest.raises(TypeError, match="port must be a SendPort"):
            getattr(isolate, method)(wrong)


@pytest.mark.parametrize("method", ["add_on_exit_listener", "ping"])
def test_responses_that_cannot_be_sent(method, out):
    """A response that cannot be sent, that is large, or that holds a send port is a SendError at once."""
    with ReceivePort() as port, Isolate.spawn(live, port.send_port) as isolate:
        with pytest.raises(SendError, match=r"response\[1\]: .*lock"):
            getattr(isolate, method)(out.send_port, [1, threading.Lock()])
        with pytest.raises(SendError, match="small"):
            getattr(isolate, method)(out.send_port, "x" * 3100)
        with pytest.raises(SendError, match="without send ports"):
            getattr(isolate, method)(out.send_port, [out.send_port])
    assert is_silent(out)


# -- error listeners ---------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/error_exit_at_spawn_test", "lib/error_exit_at_spawning_shared")
def test_errors_come_before_the_end(out):
    """A port that listens to both gets every error first, and the news of the end last."""
    isolate = Isolate.spawn(live, out.send_port, on_exit=out.send_port, on_error=out.send_port, errors_are_fatal=False)
    port = out.receive(LONG)
    for i in range(5):
        port.send(ValueError(i))
    port.send("end")
    *errors, end = out
    assert [text for text, _ in errors] == [f"ValueError: {i}" for i in range(5)]
    assert end is None
    assert isolate.join(LONG)


@pytest.mark.dart("lib/handle_error_stacktrace_test", "co19/Isolate.addErrorListener")
@pytest.mark.parametrize("fatal", [True, False])
def test_errors_have_text_and_traceback(fatal, out):
    """An error listener is sent a list of two: the error's text, and its traceback, whose last line is that text."""

    def fail_deep_down():
        def inner():
            raise KeyError("deep")

        inner()

    Isolate.spawn(fail_deep_down, on_error=out.send_port, errors_are_fatal=fatal)
    ((text, traceback),) = out
    assert text == "KeyError: 'deep'"
    assert traceback.splitlines()[-1] == text
    assert "in fail_deep_down" in traceback
    assert "in inner" in traceback


@pytest.mark.dart("co19/Isolate.addErrorListener")
def test_an_error_listener_is_told_once(out):
    """A port that is added several times is sent each error once; several ports are all sent it."""
    with ReceivePort() as other:
        isolate = Isolate.spawn(raise_at_once, paused=True, on_error=out.send_port)
        for port in (out, other, out, other):
            isolate.add_error_listener(port.send_port)
        isolate.resume(isolate.pause_capability)
        assert list(out) == list(other)
        assert isolate.join(LONG)


@pytest.mark.dart("lib/remove_error_listener_test", "co19/Isolate.removeErrorListener")
def test_removing_error_listeners(out, capfd):
    """When the last listener has been removed, errors are printed again; one never added can be removed."""
    isolate = Isolate.spawn(live, out.send_port, errors_are_fatal=False, name="talker")
    port = out.receive(LONG)
    with ReceivePort() as errors:
        isolate.remove_error_listener(errors.send_port)
        isolate.add_error_listener(errors.send_port)
        isolate.ping(out.send_port)  # control messages are handled in order, and go another way than others
        out.receive(LONG)
        port.send(ValueError("heard"))
        assert errors.receive(LONG)[0] == "ValueError: heard"
        isolate.remove_error_listener(errors.send_port)
        isolate.ping(out.send_port)
        out.receive(LONG)
        port.send(ValueError("printed"))
        port.send("end")
        assert isolate.join(LONG)
        assert list(errors) == []
    printed = capfd.readouterr().err
    assert "ValueError: printed" in printed
    assert "'talker'" in printed
    assert "heard" not in printed


@pytest.mark.dart(
    "lib/handle_throwing_to_string_error_test",
    differs="because Python has a text for such errors: the class's name, and `<exception str() failed>`.",
)
def test_an_error_whose_text_raises(out):
    """An error whose text cannot be had is reported all the same."""

    def fail():
        class BadError(Exception):
            def __str__(self):
                raise ValueError("no text")

        raise BadError

    Isolate.spawn(fail, on_error=out.send_port, on_exit=out.send_port)
    (text, traceback), end = out
    assert "BadError" in text
    assert "BadError" in traceback
    assert end is None


@pytest.mark.dart(
    "lib/handle_exiting_to_string_error_test",
    differs="because what an error's own methods raise is never raised by subiso: the error is reported by its class.",
)
@pytest.mark.parametrize("how", ["exit", "kill", "SystemExit"])
def test_an_error_whose_text_ends_the_isolate(how, out):
    """An error whose text ends the isolate when it is asked for does not keep the exit listeners waiting."""

    def fail():
        class ExitingError(Exception):
            def __str__(self):
                if how == "exit":
                    Isolate.exit()
                if how == "kill":
                    Isolate.current().kill()
                raise SystemExit(3)

        raise ExitingError

    Isolate.spawn(fail, on_error=out.send_port, on_exit=out.send_port)
    *errors, end = out
    assert end is None
    assert len(errors) <= 1
    assert all("ExitingError" in text for text, _ in errors)


@pytest.mark.dart("lib/error_at_spawn_test")
def test_an_error_in_the_first_line(out):
    """The error port given at spawn hears of an error that is raised at once, before the handle is used."""
    Isolate.spawn(raise_at_once, on_error=out.send_port)
    ((text, _),) = out
    assert text == "ValueError: at once"


def test_errors_of_threads_and_of_tasks(out):
    """What a forgotten task, or a callback of the event loop, raises is an uncaught error."""

    async def fail(out):

        async def work():
            raise ValueError("in a task")

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        del task
        gc.collect()
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon((1).__truediv__, 0)
        await asyncio.sleep(0)

    Isolate.spawn(fail, out.send_port, on_error=out.send_port, errors_are_fatal=False)
    assert [text for text, _ in out] == ["ValueError: in a task", "ZeroDivisionError: division by zero"]


# -- whether errors are fatal ------------------------------------------------------------------------------------------


@pytest.mark.dart("co19/Isolate.setErrorsFatal", "co19/Isolate.terminateCapability")
def test_errors_become_fatal_and_not(out):
    """`set_errors_fatal` takes effect for the errors that come after it, and needs the terminate capability."""
    isolate = Isolate.spawn(live, out.send_port, on_error=out.send_port, on_exit=out.send_port)
    port = out.receive(LONG)
    powerless = Isolate(isolate.control_port, pause_capability=isolate.pause_capability)
    wrong = Isolate(isolate.control_port, terminate_capability=Capability())

    def fail():
        isolate.ping(out.send_port, "in force")
        assert out.receive(LONG) == "in force"
        port.send(ValueError("again"))
        return out.receive(LONG)[0]

    isolate.set_errors_fatal(False)
    assert fail() == "ValueError: again"
    for handle in (powerless, wrong):
        handle.set_errors_fatal(True)
    assert fail() == "ValueError: again"
    port.send("handled")
    assert out.receive(LONG) == "handled"
    isolate.set_errors_fatal(True)
    for handle in (powerless, wrong):
        handle.set_errors_fatal(False)
    assert fail() == "ValueError: again"
    assert out.receive(LONG) is None


@pytest.mark.dart("lib/non_fatal_exception_in_timer_callback_test")
def test_an_error_in_a_timer(out):
    """An error in a timer, if errors are not fatal, does not stop later timers."""

    async def tick(out):
        loop = asyncio.get_running_loop()
        last = loop.create_future()
        loop.call_later(0, (1).__truediv__, 0)
        loop.call_later(0.001, out.send, "later")
        loop.call_later(0.002, last.set_result, None)
        await last

    Isolate.spawn(tick, out.send_port, on_error=out.send_port, errors_are_fatal=False)
    (text, _), later = out
    assert (text, later) == ("ZeroDivisionError: division by zero", "later")


def test_a_fatal_error_in_a_timer(out):
    """An error in a timer, if errors are fatal, ends the isolate."""

    async def tick(out):
        asyncio.get_running_loop().call_soon((1).__truediv__, 0)
        await asyncio.sleep(1000)
        out.send("later")

    Isolate.spawn(tick, out.send_port, on_error=out.send_port, on_exit=out.send_port)
    (text, _), end = out
    assert (text, end) == ("ZeroDivisionError: division by zero", None)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/handle_error_test", "co19/Isolate.errors")
def test_errors_of_an_isolate(out):
    """`errors` gives each uncaught error as a RemoteError; the isolate goes on if they are not fatal; then it ends."""
    isolate = Isolate.spawn(live, out.send_port, errors_are_fatal=False)
    port = out.receive(LONG)
    with isolate.errors as errors:
        assert isinstance(errors, UncaughtErrors)
        isolate.ping(out.send_port)  # answered when the listener is in force: messages go another way
        assert out.receive(LONG) is None
        for text in ("one", "two: three"):
            port.send(ValueError(text))
            error = next(errors)
            assert isinstance(error, RemoteError)
            assert (error.type_name, error.text) == ("ValueError", text)
            assert "in handle" in error.traceback
        port.send("goes on")
        assert out.receive(LONG) == "goes on"
        port.send("end")
        assert list(errors) == []


@pytest.mark.dart("lib/handle_error2_test")
def test_errors_of_two_isolates_do_not_mix(out):
    """The errors of two isolates are told apart."""
    isolates = [Isolate.spawn(live, out.send_port, errors_are_fatal=False) for _ in range(2)]
    ports = {}
    for isolate in isolates:
        port = out.receive(LONG)
        ports[port] = isolate
    listened = [isolate.errors for isolate in isolates]
    for isolate in isolates:
        isolate.ping(out.send_port)
        out.receive(LONG)
    for port in ports:
        for i in range(3):
            port.send(ValueError(i))
        port.send(port)  # who is who
        assert out.receive(LONG) == port
        port.send("end")
    assert [[error.text for error in errors] for errors in listened] == [["0", "1", "2"]] * 2
    for errors in listened:
        errors.close()


@pytest.mark.dart("lib/handle_error3_test")
def test_errors_and_listeners(out):
    """`errors` and error listeners all get each error."""
    isolate = Isolate.spawn(raise_at_once, paused=True, on_error=out.send_port)
    with isolate.errors as one, isolate.errors as other:
        isolate.resume(isolate.pause_capability)
        ((text, traceback),) = out
        assert [(error.text, error.traceback) for error in one] == [(text.partition(": ")[2], traceback)]
        assert [str(error) for error in other] == [text]


@pytest.mark.anyio
async def test_errors_asynchronously():
    """`errors` can be iterated over in an event loop."""
    isolate = Isolate.spawn(raise_at_once, paused=True)
    with isolate.errors as errors:
        isolate.resume(isolate.pause_capability)
        assert [str(error) async for error in errors] == ["ValueError: at once"]


@pytest.mark.dart("co19/Isolate.errors")
def test_errors_of_the_dead():
    """`errors` of an isolate that has ended is empty."""
    isolate = Isolate.spawn(return_at_once)
    assert isolate.join(LONG)
    assert list(isolate.errors) == []


@pytest.mark.dart("co19/Isolate.errors", "lib/remove_error_listener_test")
def test_closed_errors_are_printed(capfd):
    """When `errors` has been closed, errors are printed again; closing twice does nothing."""
    isolate = Isolate.spawn(raise_at_once, paused=True)
    errors = isolate.errors
    errors.close()
    errors.close()
    isolate.resume(isolate.pause_capability)
    assert isolate.join(LONG)
    assert list(errors) == []
    assert "ValueError: at once" in capfd.readouterr().err


# -- pings -------------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/ping_test", "co19/Isolate.ping")
@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: repr(response)[:12])
def test_pings(response, out):
    """An isolate that waits answers a ping of either priority with the response that was asked for."""
    with ReceivePort() as answers, Isolate.spawn(live, out.send_port) as isolate:
        out.receive(LONG)
        for priority in (Isolate.IMMEDIATE, Isolate.BEFORE_NEXT_EVENT):
            isolate.ping(answers.send_port, response, priority)
            answer = answers.receive(LONG)
            assert (answer, type(answer)) == (response, type(response))


@pytest.mark.dart("lib/ping_test", "co19/Isolate.ping")
def test_a_busy_isolate_answers(out):
    """While Python code runs, an isolate answers pings, in order, but not those for before the next event."""

    def compute(out):
        port = ReceivePort(end_with_senders=False)
        out.send(port.send_port)
        while not port._inbox.messages:
            port._node.mailbox.pump()
        out.send("computed")
        port.receive()

    isolate = Isolate.spawn(compute, out.send_port)
    port = out.receive(LONG)
    isolate.ping(out.send_port, "before an event", Isolate.BEFORE_NEXT_EVENT)
    for i in range(10):
        isolate.ping(out.send_port, i)
    assert [out.receive(LONG) for _ in range(10)] == list(range(10))
    port.send("enough")
    assert list(out) == ["computed", "before an event"]
    assert isolate.join(LONG)


@pytest.mark.dart("lib/ping_test", "co19/Isolate.ping")
def test_pings_before_the_next_event_keep_their_order(out):
    """Pings for before the next event are answered in the order of asking, and before an event that comes later."""
    isolate = Isolate.spawn(live, out.send_port)
    port = out.receive(LONG)
    capability = isolate.pause()
    for i in range(10):
        isolate.ping(out.send_port, i, Isolate.BEFORE_NEXT_EVENT)
    isolate.ping(out.send_port, "asked")
    assert out.receive(LONG) == "asked"
    port.send("event")
    isolate.resume(capability)
    assert [out.receive(LONG) for _ in range(11)] == [*range(10), "event"]
    port.send("end")
    assert isolate.join(LONG)


def test_main_answers_pings(out):
    """Main answers pings of itself and of isolates, also while its own code is busy."""

    def ping(main):
        with ReceivePort() as answers:
            main.ping(answers.send_port, "from main")
            return answers.receive()

    assert Isolate.run(ping, Isolate.current()).result(LONG) == "from main"
    Isolate.current().ping(out.send_port, "myself")
    assert out.receive(LONG) == "myself"


@pytest.mark.parametrize("priority", [2, -1, None, "immediate"])
def test_priorities_that_are_none(priority, out):
    """An unknown priority is a ValueError that names those there are."""
    with Isolate.spawn(live, out.send_port) as isolate:
        with pytest.raises(ValueError, match=r"Isolate\.IMMEDIATE"):
            isolate.ping(out.send_port, None, priority)
        with pytest.raises(ValueError, match=r"Isolate\.IMMEDIATE"):
            isolate.kill(priority)


def test_who_listens_counts_as_one_who_sends(out):
    """A port that an isolate will tell of its end does not end before that; then it does."""
    isolate = Isolate.spawn(live, out.send_port, on_exit=out.send_port)
    out.receive(LONG).send("end")
    assert out.receive(LONG) is None
    with pytest.raises(NoSendersError):
        out.receive(LONG)
    assert isolate.join(LONG)
