"""Log records and warnings of isolates reach main's handlers and filters."""

import logging
import threading
import warnings

import pytest

from subiso import Actor, Isolate, ReceivePort

LONG = 20  # seconds: the bound of a wait that should be over at once


class OwnWarning(UserWarning):
    """Travels by name."""


def log(level, *args):
    logging.getLogger("app.worker").log(level, *args, extra={"job": 3, "lock": threading.Lock()})


def log_an_error():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("app").exception("oh")


def test_records_of_run(caplog):
    """Records are handled here before the result is there, with the isolate's name."""
    Isolate.run(log, logging.INFO, "too quiet").result(LONG)
    Isolate.run(log, logging.WARNING, "%s is %d", "answer", 42, name="deep thought").result(LONG)
    Isolate.run(log_an_error).result(LONG)
    first, second = caplog.records
    assert (first.getMessage(), first.isolate, first.name) == ("answer is 42", "deep thought", "app.worker")
    assert (first.threadName, first.job, first.funcName) == ("deep thought", 3, "log")
    assert not hasattr(first, "lock")
    assert "ZeroDivisionError" in second.exc_text


def test_levels(caplog):
    """Each logger lets through what it lets through here when the isolate is started; `logging.disable` counts, too."""
    app = logging.getLogger("app")
    app.setLevel(logging.DEBUG)
    try:
        Isolate.run(log, logging.DEBUG, "fine").result(LONG)
        logging.disable(logging.INFO)
        Isolate.run(log, logging.DEBUG, "disabled").result(LONG)
    finally:
        logging.disable(logging.NOTSET)
        app.setLevel(logging.NOTSET)
    Isolate.run(log, logging.DEBUG, "as ever").result(LONG)
    assert caplog.messages == ["fine"]


def test_records_of_grandchildren_and_actors(caplog):
    """An isolate's isolates report to main, too, also after it has ended; and so do actors."""

    def start_child():
        Isolate.run(log, logging.ERROR, "grandchild", name="grandchild").result()

    Isolate.run(start_child, name="child").result(LONG)
    with Actor.spawn(Talker) as talker:
        talker.say("hello").result(LONG)
    assert [(record.getMessage(), record.isolate) for record in caplog.records] == [
        ("grandchild", "grandchild"),
        ("hello", talker.name),
    ]


class Talker:
    def say(self, text):
        logging.getLogger("app").error(text)


def spawned(port):
    logging.getLogger("app").error("nobody waits")


def test_records_of_spawn_where_nobody_waits(caplog):
    """A record arrives though no thread of main waits for anything of subiso's."""
    arrived = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            arrived.set()

    handler = Handler()
    logging.getLogger("app").addHandler(handler)
    try:
        with ReceivePort() as port:
            Isolate.spawn(spawned, port.send_port)
            assert arrived.wait(LONG)
    finally:
        logging.getLogger("app").removeHandler(handler)


def test_logging_that_is_imported_later(script):
    """An isolate that imports logging late reports from then on; nothing is lost at the program's end."""
    done = script(
        """
        import logging
        from subiso import Isolate

        logging.basicConfig(format="%(isolate)s: %(message)s")

        def late(number):
            assert number or "logging" not in sys.modules
            import logging
            logging.getLogger("late").error("late %d", number)

        import sys
        isolate = Isolate.spawn(late, 0, name="one")
        isolate.join()
        for number in (1, 2):
            Isolate.spawn(late, number, name="two").join()
        """
    )
    assert done.err == "one: late 0\ntwo: late 1\ntwo: late 2\n"


def configure(path):
    logging.basicConfig(filename=path, format="%(message)s", level=logging.DEBUG)
    logging.getLogger("app").debug("in the file")
    logging.shutdown()


def test_an_isolate_that_configures_logging(tmp_path, caplog):
    """`basicConfig` in an isolate works, and takes its records from main; the next isolate reports as ever."""
    path = tmp_path / "log"
    Isolate.run(configure, str(path)).result(LONG)
    assert path.read_text() == "in the file\n"
    assert caplog.messages == []
    Isolate.run(log, logging.WARNING, "again").result(LONG)
    assert caplog.messages == ["again"]


def warn(text, category=UserWarning):
    warnings.warn(text, category, stacklevel=1)
    return text


def test_warnings():
    """Warnings are shown here as they are, with the isolate's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Isolate.run(warn, "plain", name="worried").result(LONG)
        Isolate.run(warn, "own", OwnWarning).result(LONG)
    plain, own = caught
    assert (str(plain.message), plain.category, plain.message.isolate) == ("plain", UserWarning, "worried")
    assert plain.filename == __file__
    assert own.category is OwnWarning


def test_filters():
    """The filters that are in force here when an isolate is started are in force there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "quiet")
        warnings.filterwarnings("error", "loud", OwnWarning)
        Isolate.run(warn, "quiet").result(LONG)
        Isolate.run(warn, "heard").result(LONG)
        with pytest.raises(OwnWarning, match="loud"):
            Isolate.run(warn, "loud", OwnWarning).result(LONG)
    assert [str(one.message) for one in caught] == ["heard"]
    with pytest.raises(UserWarning, match="an error, in these tests"):
        Isolate.run(warn, "an error, in these tests").result(LONG)


def test_how_warnings_are_printed(script):
    """On stderr, the isolate's name stands behind the line of source; captured by logging, in the text."""
    done = script(
        """
        import logging, sys, warnings
        from subiso import Isolate

        def work():
            import warnings
            warnings.warn("careful")

        Isolate.run(work, name="worried").result()
        sys.stderr.flush()
        logging.captureWarnings(True)
        logging.basicConfig(format="%(name)s %(message)s")
        Isolate.run(work, name="again").result()
        """
    )
    first, second, third, fourth, *_ = done.err.splitlines()
    assert first.endswith("UserWarning: careful")
    assert second == '  warnings.warn("careful")  [worried]'
    assert third.startswith("py.warnings ")
    assert fourth == '  warnings.warn("careful")  [again]'


def test_a_handler_that_raises(caplog, capsys):
    """An error of main's handlers is printed, before there is the result, and harms nobody who waits."""

    class Handler(logging.Handler):
        def emit(self, record):
            raise ValueError("no disk")

    handler = Handler()
    logging.getLogger("app").addHandler(handler)
    try:
        for _ in range(60):  # the attendant may handle the report while this thread is given the result
            Isolate.run(log, logging.WARNING, "x").result(LONG)
            assert "ValueError: no disk" in capsys.readouterr().err
    finally:
        logging.getLogger("app").removeHandler(handler)
