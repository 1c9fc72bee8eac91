"""Isolates: running functions in them, what becomes of errors, names, lifetimes, killing."""

import functools
import math
import os
import sys
import threading

import pytest

from subiso import (
    Isolate,
    IsolateError,
    IsolateFuture,
    IsolateKilledError,
    IsolateSpawnError,
    IsolateTimeoutError,
    NoSendersError,
    ReceivePort,
    RemoteError,
    RemoteTraceback,
    SendError,
    compute,
)
from subiso._kernel import interpreters, nursery
from subiso._kernel.limits import Limits

LONG = 20  # seconds: the bound of a wait that should be over at once


def add(a, b=10):
    return a + b


async def add_later(a, b):
    import asyncio

    await asyncio.sleep(0)
    return a + b


def fail(error):
    raise error


def wait(port):
    """Say so, and wait for a message that does not come; say when unwound."""
    try:
        port.send("waiting")
        ReceivePort(end_with_senders=False).receive()
    finally:
        port.send("unwound")


# -- one function, one result ------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/isolate_run_test", "lib/spawn_function_test", "co19/Isolate.spawn", "package/isolaterunner_test")
@pytest.mark.parametrize("function", [add, add_later, functools.partial(add, b=2), lambda a, b=2: a + b])
def test_run_gives_the_result(function):
    """`run` calls functions, coroutine functions, partials and lambdas, and gives their result."""
    args = (1, 2) if function in (add, add_later) else (1,)
    future = Isolate.run(function, *args)
    assert isinstance(future, IsolateFuture)
    assert future.result(LONG) == 3
    assert future.exception(LONG) is None
    assert future.done()
    assert not future.cancelled()


@pytest.mark.dart("vm/closure_entrypoint_test", "vm/spawn_function_test", "lib/static_function_test")
def test_closures_and_bound_methods():
    """A closure takes along what it refers to, a bound method its object."""
    factor = 3
    assert Isolate.run(lambda x: x * factor, 4).result(LONG) == 12
    assert Isolate.run({"a": 1}.get, "a").result(LONG) == 1


def test_compute():
    """`compute` is Flutter's name for `run` with one message."""
    assert compute(abs, -5).result(LONG) == 5
    assert compute(lambda _: Isolate.current().name, None, name="flutter").result(LONG) == "flutter"


@pytest.mark.dart("lib/object_leak_test", "lib/fast_copy_during_initial_message_test")
def test_nothing_is_shared():
    """An isolate has interpreter, modules and memory of its own, in the same process."""

    def look(values):
        import os
        import sys

        values.append(4)
        sys.our_mark = True
        return os.getpid(), values

    values = [1, 2, 3]
    assert Isolate.run(look, values).result(LONG) == (os.getpid(), [1, 2, 3, 4])
    assert values == [1, 2, 3]
    assert not hasattr(sys, "our_mark")


def test_many_at_once():
    """More isolates than processors run at once."""
    with ReceivePort() as port:
        isolates = [Isolate.spawn(wait, port.send_port) for _ in range(5)]
        assert [port.receive(LONG) for _ in isolates] == ["waiting"] * 5
        assert all(isolate.is_alive for isolate in isolates)
        for isolate in isolates:
            isolate.kill()
        assert all(isolate.join(LONG) for isolate in isolates)


# -- wrong calls -------------------------------------------------------------------------------------------------------


@pytest.mark.dart("co19/Isolate.spawn")
@pytest.mark.parametrize("start", [Isolate.run, Isolate.spawn])
@pytest.mark.parametrize("entry", [None, 3, "add", [add]])
def test_not_a_function(start, entry):
    """What is not callable is refused with a TypeError that shows it."""
    with pytest.raises(TypeError, match="function"):
        start(entry)


@pytest.mark.dart("co19/Isolate.spawn")
@pytest.mark.parametrize("start", [Isolate.run, Isolate.spawn])
@pytest.mark.parametrize("args", [(), (1, 2, 3)])
def test_wrong_number_of_arguments(start, args):
    """Too few or too many arguments are a TypeError at once, in the caller."""
    with pytest.raises(TypeError, match="argument"):
        start(add, *args)


@pytest.mark.parametrize("start", [Isolate.run, Isolate.spawn])
def test_keywords_go_through_partial(start):
    """An unknown keyword is a TypeError that names functools.partial."""
    with pytest.raises(TypeError, match=r"'b'.*functools\.partial"):
        start(add, 1, b=2)


@pytest.mark.parametrize(
    ("start", "options", "named"),
    [
        (Isolate.run, {"name": 3}, "name"),
        (Isolate.run, {"timeout": "1"}, "'<='|'>='|timeout|number"),
        (Isolate.spawn, {"name": b"x"}, "name"),
        (Isolate.spawn, {"on_exit": print}, "on_exit"),
        (Isolate.spawn, {"on_error": 1}, "on_error"),
    ],
)
def test_options_of_the_wrong_type(start, options, named):
    """An option of the wrong type is a TypeError that names it."""
    with pytest.raises(TypeError, match=named):
        start(add, 1, **options)


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_timeouts_that_mean_nothing(timeout):
    """A negative timeout, or one that is no number, is a ValueError, for `run` and `join`."""
    with pytest.raises(ValueError, match="timeout"):
        Isolate.run(add, 1, timeout=timeout)
    with ReceivePort() as port, Isolate.spawn(wait, port.send_port) as isolate:
        with pytest.raises(ValueError, match="timeout"):
            isolate.join(timeout)


@pytest.mark.dart("vm/send_unsupported_objects_init_isolate_test")
@pytest.mark.parametrize("start", [Isolate.run, Isolate.spawn])
def test_arguments_that_cannot_be_sent(start):
    """A function or an argument that cannot be sent is a SendError at once; no isolate starts."""
    lock = threading.Lock()
    with pytest.raises(SendError, match="lock"):
        start(add, 1, {"b": [lock]})
    with pytest.raises(SendError, match="lock"):
        start(lambda: lock)


def test_isolates_are_started_not_made():
    """Isolate(function) is a TypeError that says how to start one."""
    with pytest.raises(TypeError, match=r"Isolate\.spawn"):
        Isolate(print)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/isolate_run_test")
def test_errors_come_back_as_themselves():
    """An error comes back with its type, arguments and notes, and the isolate's traceback as its cause."""

    def raise_it():
        error = KeyError("key", 3)
        error.add_note("a note")
        raise error

    with pytest.raises(KeyError) as caught:
        Isolate.run(raise_it).result(LONG)
    assert caught.value.args == ("key", 3)
    assert caught.value.__notes__ == ["a note"]
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in raise_it" in str(caught.value.__cause__)


def test_errors_of_the_users_own_classes():
    """An error of a class of the user's comes back as that same class."""

    class OwnError(Exception):
        def __init__(self, number):
            super().__init__(f"number {number}")
            self.number = number

        def __reduce__(self):
            return OwnError, (self.number,)

    with pytest.raises(OwnError, match="number 7") as caught:
        Isolate.run(fail, OwnError(7)).result(LONG)
    assert caught.value.number == 7


def test_errors_that_cannot_be_sent():
    """An error that cannot be sent becomes a RemoteError with its type's name, text and traceback."""

    def raise_it():
        import threading

        raise ValueError("text", threading.Lock())

    with pytest.raises(RemoteError) as caught:
        Isolate.run(raise_it).result(LONG)
    assert caught.value.type_name.endswith("ValueError")
    assert "text" in caught.value.text
    assert "in raise_it" in caught.value.traceback


def test_errors_whose_str_raises():
    """An error whose __str__ raises still says what it was."""

    def raise_it():
        class BadError(Exception):
            def __str__(self):
                raise ValueError("no text")

        raise BadError

    with pytest.raises(Exception) as caught:  # noqa: PT011 - its class exists only there
        Isolate.run(raise_it).result(LONG)
    described = f"{type(caught.value).__name__} {getattr(caught.value, 'type_name', '')} {caught.value.__cause__}"
    assert "BadError" in described


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_errors_that_are_no_exceptions(error):
    """SystemExit and KeyboardInterrupt inside `run` are its outcome; the program goes on."""
    raised = Isolate.run(fail, error).exception(LONG)
    assert (type(raised), raised.args) == (type(error), error.args)


def test_imports_that_fail():
    """A module that cannot be imported inside is a ModuleNotFoundError with its name."""

    def import_it():
        import no_such_module_anywhere  # noqa: F401

    raised = Isolate.run(import_it).exception(LONG)
    assert isinstance(raised, ModuleNotFoundError)
    assert raised.name == "no_such_module_anywhere"


def test_recursion_without_end():
    """Recursion without end is a RecursionError, in Python code and in C code, and the process lives."""

    def recurse(n):
        return recurse(n + 1)

    def recurse_in_c():
        nested = []
        for _ in range(300_000):
            nested = [nested]
        return nested == [nested]

    for call in (functools.partial(recurse, 0), recurse_in_c):
        assert isinstance(Isolate.run(call).exception(LONG), RecursionError)


def test_results_that_cannot_be_sent():
    """A result that cannot be sent is a SendError with the way to the culprit."""

    def lock():
        import threading

        return {"jobs": [1, threading.Lock()]}

    with pytest.raises(SendError, match=r"result\['jobs'\]\[1\]"):
        Isolate.run(lock).result(LONG)


@pytest.mark.dart(
    "lib/isolate_run_test",
    differs=(
        "because a killed isolate's future raises `IsolateKilledError`, not a RemoteError; an error in a forgotten "
        "task is told, but is not the result"
    ),
)
def test_an_isolate_that_ends_without_a_result():
    """Work killed from elsewhere raises IsolateKilledError, which is no CancelledError."""

    def hand_over(port):
        port.send(Isolate.current())
        ReceivePort(end_with_senders=False).receive()

    with ReceivePort() as port:
        future = Isolate.run(hand_over, port.send_port, name="victim")
        port.receive(LONG).kill()
        with pytest.raises(IsolateKilledError, match="victim"):
            future.result(LONG)
        assert not future.cancelled()
        assert not future.cancel()


def test_time_out_of_the_work():
    """`run(timeout=)` kills the work; the error is an IsolateTimeoutError, so a TimeoutError."""
    with ReceivePort() as port:
        future = Isolate.run(wait, port.send_port, timeout=0.05, name="slow")
        with pytest.raises(IsolateTimeoutError, match="slow") as caught:
            future.result(LONG)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, IsolateError)
        assert list(port)[-1:] in (["unwound"], [])  # killed before it began, or in the middle
    assert Isolate.run(add, 1, timeout=LONG).result() == 11


def test_time_out_of_the_waiting():
    """`result(timeout)` ends only the waiting; the result can still be had."""
    with ReceivePort() as port:

        def work(out):
            with ReceivePort(end_with_senders=False) as mine:
                out.send(mine.send_port)
                return mine.receive()

        future = Isolate.run(work, port.send_port)
        theirs = port.receive(LONG)
        for timeout in (0, 0.01, -1):
            with pytest.raises(TimeoutError) as caught:
                future.result(timeout)
            assert not isinstance(caught.value, IsolateError)
            with pytest.raises(TimeoutError):
                future.exception(timeout)
        theirs.send("go on")
        assert future.result(LONG) == "go on"


@pytest.mark.dart("lib/error_exit_at_spawn_test", "co19/Isolate.spawn")
def test_uncaught_errors_go_to_the_error_port():
    """An uncaught error is sent to on_error as its text and its traceback, and then None to on_exit."""
    with ReceivePort() as port:
        send_port = port.send_port
        isolate = Isolate.spawn(fail, ValueError("bad"), on_error=send_port, on_exit=send_port)
        (text, traceback), end = port
        assert text == "ValueError: bad"
        assert traceback.rstrip().endswith("ValueError: bad")
        assert "in fail" in traceback
        assert end is None
        assert isolate.join(LONG)


def test_uncaught_errors_without_a_listener_go_to_stderr(capfd):
    """Without an error port, an uncaught error is printed with the isolate's name."""
    assert Isolate.spawn(fail, ValueError("bad"), name="worker-7").join(LONG)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "'worker-7'" in printed.err
    assert "ValueError: bad" in printed.err


@pytest.mark.parametrize("code", [None, 0, 3, "text"])
def test_leaving_by_system_exit(code, capfd):
    """SystemExit ends a spawned isolate without an error, as it ends a thread."""
    with ReceivePort() as port:
        Isolate.spawn(fail, SystemExit(code), on_error=port.send_port, on_exit=port.send_port)
        assert list(port) == [None]
    assert capfd.readouterr() == ("", "")


def test_the_exit_port_hears_last():
    """What an isolate sends, its atexit functions too, arrives before the news of its end."""

    def live(port):
        import atexit

        atexit.register(port.send, "at exit")
        port.send("alive")

    with ReceivePort() as port:
        Isolate.spawn(live, port.send_port, on_exit=port.send_port)
        assert list(port) == ["alive", "at exit", None]


def test_listeners_that_are_gone(capfd):
    """Closed error and exit ports do not matter; the error then goes to stderr."""
    port = ReceivePort()
    port.close()
    assert Isolate.spawn(fail, ValueError("bad"), on_error=port.send_port, on_exit=port.send_port).join(LONG)
    assert "ValueError: bad" in capfd.readouterr().err


@pytest.mark.dart("co19/Isolate.spawn")
@pytest.mark.parametrize("fatal", [True, False])
def test_errors_are_fatal_or_not(fatal):
    """An error in a handler ends the isolate, unless errors_are_fatal is False; on_error hears of it either way."""

    def live(out):
        port = ReceivePort(end_with_senders=False)

        def handle(message):
            if message == "end":
                port.close()
            raise ValueError(message)

        port.listen(handle)
        out.send(port.send_port)

    with ReceivePort() as out, ReceivePort() as errors:
        isolate = Isolate.spawn(live, out.send_port, on_error=errors.send_port, errors_are_fatal=fatal)
        port = out.receive(LONG)
        for message in ("one", "two", "end"):
            try:
                port.send(message)
            except IsolateError:  # it has ended already
                break
        texts = [text for text, _ in errors]
        assert texts == (["ValueError: one"] if fatal else ["ValueError: one", "ValueError: two", "ValueError: end"])
        assert isolate.join(LONG)


# -- starts that fail --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_interpreters(monkeypatch):
    """Let no interpreter be made."""

    def create():
        raise RuntimeError("interpreter creation failed")

    Isolate.run(int).result(LONG)
    nursery._nursery.retire_idle(LONG)
    monkeypatch.setattr(interpreters, "create", create)


@pytest.mark.usefixtures("no_interpreters")
def test_a_start_that_fails():
    """What fails after `spawn` has returned is an IsolateSpawnError to on_error, then on_exit; `run` raises it."""
    with pytest.raises(IsolateSpawnError, match="creation failed"):
        Isolate.run(int, name="unborn").result(LONG)
    with ReceivePort() as port:
        isolate = Isolate.spawn(int, on_error=port.send_port, on_exit=port.send_port)
        (text, _), end = port
        assert "IsolateSpawnError" in text
        assert "creation failed" in text
        assert end is None
        assert isolate.join(LONG)


def test_the_limit_of_isolates(monkeypatch):
    """An isolate that spawns itself without end meets a limit: an IsolateSpawnError that tells it."""

    def spawn_one_more(port, again):
        port.send(Isolate.current())
        try:
            Isolate.spawn(again, port, again)
        except Exception as error:
            port.send(error)
        ReceivePort(end_with_senders=False).receive()

    monkeypatch.setattr(Limits, "isolates", 4)
    with ReceivePort() as port:
        Isolate.spawn(spawn_one_more, port.send_port, spawn_one_more)
        isolates = []
        while isinstance(message := port.receive(LONG), Isolate):
            isolates.append(message)
        assert isinstance(message, IsolateSpawnError)
        assert "4 isolates" in str(message)
        assert len(isolates) == 4
        for isolate in isolates:
            isolate.kill()
        assert all(isolate.join(LONG) for isolate in isolates)
    monkeypatch.undo()
    assert Isolate.run(add, 1).result(LONG) == 11


# -- the handle --------------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/isolate_current_test", "co19/Isolate.current")
def test_the_handle_inside_and_outside():
    """`Isolate.current()` inside is equal to the handle that `spawn` returned, with the same hash and name."""

    def live(port):
        port.send((Isolate.current(), hash(Isolate.current()), Isolate.current().name))

    with ReceivePort() as port:
        isolate = Isolate.spawn(live, port.send_port, name="me")
        inside, its_hash, its_name = port.receive(LONG)
        assert isolate == inside
        assert hash(isolate) == its_hash == hash(inside)
        assert isolate.name == its_name == inside.name == "me"
        assert isolate != Isolate.current()
        assert isolate != "me"


@pytest.mark.dart("co19/Isolate.current")
def test_main_is_an_isolate():
    """Main has a handle too; it is alive, and cannot be killed or joined by itself."""
    main = Isolate.current()
    assert main == Isolate.current()
    assert main.name == "main"
    assert main.is_alive
    with pytest.raises(ValueError, match="main"):
        main.kill()
    with pytest.raises(RuntimeError, match="own end"):
        main.join()


def test_names():
    """Every isolate has a name, given or made up; its repr tells whether it has ended."""
    with ReceivePort() as port:
        with Isolate.spawn(wait, port.send_port) as one, Isolate.spawn(wait, port.send_port, name="other") as other:
            assert one.name != other.name
            assert repr(other) == "<Isolate 'other'>"
        assert repr(other) == "<Isolate 'other' ended>"


def test_join():
    """`join` returns whether the isolate has ended; it can be called again, and from other isolates."""

    def join(isolate, out):
        out.send("joining")
        return isolate.join()

    with ReceivePort() as port, ReceivePort() as out:
        isolate = Isolate.spawn(wait, port.send_port)
        other = Isolate.run(join, isolate, out.send_port)
        assert isolate.is_alive
        for timeout in (0, 0.001):
            assert isolate.join(timeout) is False
        assert [port.receive(LONG), out.receive(LONG)] == ["waiting", "joining"]
        isolate.kill()
        assert other.result(LONG) is True
        assert isolate.join() is True
        assert isolate.join(0) is True
        assert not isolate.is_alive


def test_an_isolate_cannot_join_itself():
    """Waiting for one's own end is a RuntimeError."""
    raised = Isolate.run(lambda: Isolate.current().join()).exception(LONG)
    assert isinstance(raised, RuntimeError)


def test_a_with_block_ends_its_isolate():
    """At the end of a `with` block the isolate is killed, and has ended."""
    with ReceivePort() as port:
        with Isolate.spawn(wait, port.send_port) as isolate:
            assert port.receive(LONG) == "waiting"
        assert not isolate.is_alive
        assert list(port) == ["unwound"]


def test_what_an_isolate_prints(capsys):
    """What isolates print appears in the caller's streams, in order, by the time that their work has ended."""

    def talk(first):
        import sys

        for i in range(first, first + 50):
            print("line", i)
        print("x" * 10_000, end="")
        print("no newline at the end", end="")
        print("an error", file=sys.stderr)

    Isolate.run(talk, 0).result(LONG)
    assert Isolate.spawn(talk, 0).join(LONG)
    lines = "".join(f"line {i}\n" for i in range(50)) + "x" * 10_000 + "no newline at the end"
    assert capsys.readouterr() == (lines * 2, "an error\n" * 2)


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def nest(port, levels):
    """Spawn an isolate that does the same, down to the last; each sends its level and then ends."""
    if levels:
        child = Isolate.spawn(nest, port, levels - 1)
        assert child.join()
    port.send(levels)


@pytest.mark.dart("lib/nested_spawn_test")
def test_isolates_spawn_isolates():
    """Isolates can be nested: each sees its own children end."""
    with ReceivePort() as port:
        Isolate.spawn(nest, port.send_port, 3)
        assert list(port) == [0, 1, 2, 3]


def test_isolates_run_isolates():
    """Futures work inside isolates, results and errors alike."""

    def run(levels, again):
        if levels:
            return 1 + Isolate.run(again, levels - 1, again).result()
        try:
            Isolate.run(fail, ValueError("deep")).result()
        except ValueError as error:
            return len(error.args)

    assert Isolate.run(run, 2, run).result(LONG) == 3


@pytest.mark.dart("lib/nested_spawn2_test")
def test_a_child_outlives_its_parent():
    """An isolate goes on when the one that spawned it has ended."""

    def parent(port):
        Isolate.spawn(child, port)

    def child(port):
        with ReceivePort(end_with_senders=False) as mine:
            port.send(mine.send_port)
            port.send(mine.receive())

    with ReceivePort() as port:
        isolate = Isolate.spawn(parent, port.send_port)
        theirs = port.receive(LONG)
        assert isolate.join(LONG)
        theirs.send("still here")
        assert list(port) == ["still here"]


def test_a_thread_keeps_its_isolate():
    """An isolate lives as long as a non-daemon thread that it has started."""

    def live(port):
        import threading

        def in_thread():
            with ReceivePort(end_with_senders=False) as mine:
                port.send(mine.send_port)
                port.send(mine.receive())

        threading.Thread(target=in_thread).start()

    with ReceivePort() as port:
        isolate = Isolate.spawn(live, port.send_port)
        theirs = port.receive(LONG)
        assert isolate.is_alive
        theirs.send("from the thread")
        assert list(port) == ["from the thread"]


def test_a_forgotten_port_keeps_nothing():
    """A port that is open but not listened to does not keep its isolate alive."""

    def live(keep):
        keep.append(ReceivePort())
        import builtins

        builtins.kept = keep

    assert Isolate.spawn(live, []).join(LONG)


def test_fresh_interpreters():
    """With fresh=True an isolate gets an interpreter in which none has run before."""

    def mark(port):
        import json

        port.send(hasattr(json, "our_mark"))
        json.our_mark = True

    with ReceivePort() as port:
        for _ in range(3):
            assert Isolate.spawn(mark, port.send_port).join(LONG)
            assert Isolate.spawn(mark, port.send_port, fresh=True).join(LONG)
            assert list(port)[1] is False


# -- killing -----------------------------------------------------------------------------------------------------------


def wait_in_a_loop(port):
    try:
        port.send("waiting")
        for _ in ReceivePort(end_with_senders=False):
            pass
    finally:
        port.send("unwound")


def wait_in_select(port):
    from subiso import select

    try:
        port.send("waiting")
        select(ReceivePort(end_with_senders=False), ReceivePort(end_with_senders=False))
    finally:
        port.send("unwound")


def wait_in_send(port):
    try:
        mine = ReceivePort(maxsize=1)
        mine.send_port.send(1)
        port.send("waiting")
        mine.send_port.send(2)
    finally:
        port.send("unwound")


def wait_in_result(port):
    with ReceivePort() as own, ReceivePort() as handle:

        def hand_over(port):
            port.send(Isolate.current())
            ReceivePort(end_with_senders=False).receive()

        future = Isolate.run(hand_over, handle.send_port)
        child = handle.receive()
        try:
            port.send("waiting")
            future.result()
        finally:
            child.kill()
            port.send("unwound")
        own.close()


def wait_in_join(port):
    with ReceivePort() as own:
        child = Isolate.spawn(wait, own.send_port)
        try:
            port.send("waiting")
            child.join()
        finally:
            child.kill()
            port.send("unwound")


async def wait_in_areceive(port):
    try:
        port.send("waiting")
        await ReceivePort(end_with_senders=False).areceive()
    finally:
        port.send("unwound")


async def wait_in_asend(port):
    try:
        mine = ReceivePort(maxsize=1)
        mine.send_port.send(1)
        port.send("waiting")
        await mine.send_port.asend(2)
    finally:
        port.send("unwound")


async def wait_in_asyncio(port):
    import asyncio

    try:
        port.send("waiting")
        await asyncio.sleep(1000)
    finally:
        port.send("unwound")


def wait_listening(port):
    import atexit

    atexit.register(port.send, "unwound")
    ReceivePort(end_with_senders=False).listen(print)
    port.send("waiting")


def wait_in_python(port):
    try:
        port.send("waiting")
        while True:
            pass
    finally:
        port.send("unwound")


WAITS = [
    wait,
    wait_in_a_loop,
    wait_in_select,
    wait_in_send,
    wait_in_result,
    wait_in_join,
    wait_in_areceive,
    wait_in_asend,
    wait_in_asyncio,
    wait_listening,
    wait_in_python,
]


@pytest.mark.dart("co19/Isolate.kill", "package/isolaterunner_test")
@pytest.mark.parametrize("entry", WAITS, ids=lambda entry: entry.__name__)
def test_killing_what_waits(entry):
    """A kill ends an isolate wherever it waits: `finally` runs, on_exit hears of it, on_error of nothing."""
    with ReceivePort() as port, ReceivePort() as ends:
        isolate = Isolate.spawn(entry, port.send_port, on_exit=ends.send_port, on_error=ends.send_port)
        assert port.receive(LONG) == "waiting"
        isolate.kill()
        assert list(port) == ["unwound"]
        assert list(ends) == [None]
        assert isolate.join(LONG)


def test_killing_at_the_start():
    """A kill right after `spawn` ends the isolate before its function begins, or in the middle of it."""
    with ReceivePort() as port:
        for _ in range(10):
            isolate = Isolate.spawn(wait_in_python, port.send_port, on_exit=port.send_port)
            isolate.kill()
            assert isolate.join(LONG)
            assert list(port) in ([None], ["unwound", None], ["waiting", "unwound", None])


@pytest.mark.dart("package/isolaterunner_test")
def test_killing_again():
    """Killing an isolate twice, or when it has ended, does nothing more, to its successor least of all."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(wait, port.send_port)
        assert port.receive(LONG) == "waiting"
        isolate.kill()
        isolate.kill()
        assert isolate.join(LONG)
        for _ in range(10):
            with Isolate.spawn(wait, port.send_port):
                isolate.kill()
                while port.receive(LONG) != "waiting":
                    pass
        with pytest.raises(NoSendersError):
            while True:
                assert port.receive(LONG) == "unwound"


def test_killing_from_another_isolate():
    """Whoever has the handle can kill."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(wait, port.send_port)
        assert port.receive(LONG) == "waiting"
        Isolate.run(Isolate.kill, isolate).result(LONG)
        assert isolate.join(LONG)


@pytest.mark.dart("lib/kill_self_test")
def test_killing_oneself():
    """An isolate may kill itself."""

    def end(port):
        try:
            Isolate.current().kill()
            ReceivePort(end_with_senders=False).receive()
        finally:
            port.send("unwound")

    with ReceivePort() as port:
        assert Isolate.spawn(end, port.send_port).join(LONG)
        assert list(port) == ["unwound"]
