"""Errors come back as themselves, with the traceback they had."""

import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading

import pytest

from subiso import failures, messages
from subiso._kernel.interrupt import IsolateKilled
from subiso._pickling import functions
from subiso.errors import IsolateError, RemoteError, RemoteTraceback, SendError

ROOT = str(pathlib.Path(__file__).parent.parent)


def caught(function):
    """Return what the function raises."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def back(error):
    """Return the error as it comes back."""
    kind, body, buffers, _ = messages.encode(failures.pack(error))
    return failures.unpack(messages.decode(kind, body, buffers))


def fail(message="deep down"):
    raise ValueError(message)


class DetailedError(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"error {code}")
        self.code, self.hint = code, hint

    def __reduce__(self):
        return _detailed, (self.code, self.hint), self.__dict__


def _detailed(code, hint):
    return DetailedError(code, hint=hint)


class UnbuildableError(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"error {code}")


class TextlessError(Exception):
    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


class UnpicklableError(Exception):
    def __reduce__(self):
        raise SystemExit("no pickle")


class KillingError(Exception):
    def __str__(self):
        raise IsolateKilled("now")


class KillingLaterError(Exception):
    def __reduce__(self):
        raise IsolateKilled("now")


@pytest.mark.dart(
    "lib/stacktrace_message_test",
    differs=(
        "because a traceback of Python's holds frames, with all that they refer to: it travels as text, with its error"
    ),
)
def test_errors_come_back_as_themselves():
    """An error has its type, arguments and attributes, and its isolate's traceback as its cause."""
    error = caught(fail)
    error.extra = [1]
    returned = back(error)
    assert type(returned) is ValueError
    assert (returned.args, returned.extra) == (("deep down",), [1])
    cause = returned.__cause__
    assert type(cause) is RemoteTraceback
    assert cause.traceback.startswith("Traceback (most recent call last):\n")
    assert "raise ValueError(message)\n" in cause.traceback
    assert cause.traceback.endswith("ValueError: deep down\n")
    assert cause.traceback in str(cause)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        SystemExit(3),
        KeyboardInterrupt(),
        SyntaxError("bad", ("f", 1, 2, "text", 1, 3)),
        ImportError("no", name="n", path="p"),
        RemoteError("a.B", "text", "trace"),
        SendError("message: no"),
        subprocess.CalledProcessError(1, ["x"], b"out"),
        DetailedError(3, hint="h"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_all_sorts(error):
    """Exceptions with constructors of their own come back equal."""
    returned = back(error)
    assert type(returned) is type(error)
    assert (returned.args, str(returned), repr(returned)) == (error.args, str(error), repr(error))
    own = {name: value for name, value in vars(error).items() if name != "__notes__"}
    assert vars(returned) == own


def test_notes_come_back():
    """Notes are kept, also by exceptions that say themselves how they are pickled."""
    for error in (ValueError("x"), DetailedError(1, hint="h"), SyntaxError("s")):
        error.add_note("first")
        error.add_note("second")
        returned = back(error)
        assert returned.__notes__ == ["first", "second"]
        assert returned.__cause__.traceback.endswith("first\nsecond\n")


def test_groups_come_back():
    """A group comes back with its exceptions, whose tracebacks are in the text."""

    def raise_group():
        raise ExceptionGroup("several", [caught(fail), ExceptionGroup("inner", [KeyError(1)])])

    returned = back(caught(raise_group))
    assert type(returned) is ExceptionGroup
    assert [type(one) for one in returned.exceptions] == [ValueError, ExceptionGroup]
    assert "deep down" in returned.__cause__.traceback
    assert "KeyError: 1" in returned.__cause__.traceback


def test_classes_of_errors_come_home():
    """An error class that travels by value comes back as itself; where it is not known, as one like it."""

    class LocalError(LookupError):
        pass

    assert type(back(LocalError("x"))) is LocalError
    packed = failures.pack(LocalError("x"))
    functions.reset()
    returned = failures.unpack(packed)
    assert type(returned) is not LocalError
    assert type(returned).__qualname__ == LocalError.__qualname__
    assert isinstance(returned, LookupError)


def test_errors_that_cannot_be_sent():
    """An error that holds what cannot be sent becomes a RemoteError that says what it was."""
    error = caught(fail)
    error.lock = threading.Lock()
    returned = back(error)
    assert type(returned) is RemoteError
    assert isinstance(returned, IsolateError)
    assert (returned.type_name, returned.text) == ("builtins.ValueError", "deep down")
    assert str(returned) == "builtins.ValueError: deep down"
    assert returned.traceback == returned.__cause__.traceback
    assert "raise ValueError(message)" in returned.traceback


def test_errors_that_carry_ports():
    """An error that holds a send port becomes a RemoteError: nobody would know that the port was given away."""

    class Port:
        def __reduce__(self):
            messages.carry(self)
            return Port, ()

    assert type(back(ValueError(Port()))) is RemoteError


def test_large_buffers_are_part_of_the_error():
    """An error's large buffers come back, though an error is sent as bytes."""
    numpy = pytest.importorskip("numpy")
    assert back(ValueError(numpy.arange(100_000))).args[0].sum() == sum(range(100_000))


def test_errors_that_cannot_be_built():
    """An error that fails when it is built again becomes a RemoteError, at the receiver."""
    packed = failures.pack(UnbuildableError(3, hint="h"))
    assert packed[0] is not None
    returned = failures.unpack(packed)
    assert type(returned) is RemoteError
    assert returned.text == "error 3"
    for body in (b"no pickle", pickle.dumps(1), pickle.dumps((1, None))):
        assert type(failures.unpack((body, "m.E", "t", "tb"))) is RemoteError


def test_errors_that_raise_when_asked():
    """What an error's own methods raise is never raised by packing."""
    returned = back(TextlessError())
    assert type(returned) is TextlessError
    _, name, text, traceback = failures.pack(TextlessError())
    assert (name, text) == (f"{__name__}.TextlessError", "<TextlessError object; its text could not be made>")
    assert "TextlessError" in traceback
    assert type(back(UnpicklableError("x"))) is RemoteError


@pytest.mark.parametrize("error", [KillingError(), KillingLaterError()], ids=["text", "pickle"])
def test_being_killed_while_packing(error):
    """That the isolate is killed passes through packing."""
    with pytest.raises(IsolateKilled):
        failures.pack(error)


def test_causes_and_contexts_are_in_the_text():
    """Causes, contexts and suppressed contexts are formatted as Python would."""

    def raise_from():
        try:
            fail("the cause")
        except ValueError as error:
            raise KeyError("outer") from error

    def raise_while():
        try:
            fail("the context")
        except ValueError:
            raise KeyError("outer")  # noqa: B904

    def raise_alone():
        try:
            fail("the context")
        except ValueError:
            raise KeyError("outer") from None

    text = back(caught(raise_from)).__cause__.traceback
    assert "the cause" in text
    assert "direct cause" in text
    text = back(caught(raise_while)).__cause__.traceback
    assert "the context" in text
    assert "During handling" in text
    assert "the context" not in back(caught(raise_alone)).__cause__.traceback


def test_own_frames_are_hidden():
    """Frames of subiso itself are no part of the traceback, in causes and groups neither."""
    error = caught(lambda: messages.encode(threading.Lock()))
    group = ExceptionGroup("g", [error])
    for one in (error, group):
        traceback = back(one).__cause__.traceback
        assert "objects cannot be sent" in traceback
        assert "cannot pickle" in traceback
        assert str(pathlib.Path(failures.__file__).parent) not in traceback


def test_endless_recursion_is_bounded():
    """The traceback of an endless recursion has a bounded length."""

    def down(n):
        return down(n + 1) if n % 2 else sideways(n + 1)

    def sideways(n):
        return down(n + 1) if n % 3 else sideways(n + 1)

    error = caught(lambda: down(0))
    returned = back(error)
    assert type(returned) is RecursionError
    assert returned.__cause__.traceback.count("\n") < 500
    assert "lines left out" in returned.__cause__.traceback


def test_long_texts_are_cut():
    """What is sent of an error's text and lines is bounded."""
    _, _, text, traceback = failures.pack(ValueError("x" * 10_000_000))
    assert len(text) < 200_000
    assert len(traceback) < 200_000


def test_unraised_errors():
    """An error that was made but never raised has a traceback too: its last line."""
    assert back(ValueError("v")).__cause__.traceback == "ValueError: v\n"


def test_across_processes():
    """An error of a class of ``__main__`` is raised where only its packed form has come."""

    class FailureError(Exception):
        pass

    kind, body, _, _ = messages.encode(failures.pack(FailureError("gone")))
    script = """
        import sys
        from subiso import failures, messages
        raise failures.unpack(messages.decode(int(sys.argv[1]), sys.stdin.buffer.read()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(kind)],
        input=body,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": ROOT},
    )
    assert done.stderr.decode().rstrip().endswith("FailureError: gone")
    assert "The above exception was the direct cause" in done.stderr.decode()


def test_traceback_is_not_imported_for_results():
    """The module for tracebacks is loaded only where something fails."""
    script = "import sys; from subiso import failures, messages; print('traceback' in sys.modules)"
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, env={"PYTHONPATH": ROOT}, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
