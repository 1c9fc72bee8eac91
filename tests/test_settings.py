"""How many interpreters there may be."""

import pytest

import subiso
from subiso import Isolate, IsolateSpawnError, configure
from subiso._kernel import nursery

PATIENCE = 60  # seconds; an upper bound


@pytest.fixture
def limits():
    """Put the limits back after the test."""
    before = nursery.Limits.spares, nursery.Limits.idle, nursery.Limits.isolates
    yield nursery.Limits
    nursery.Limits.spares, nursery.Limits.idle, nursery.Limits.isolates = before


def descend(depth: int) -> int:
    """Start an isolate that does the same, until there is a limit; return how deep that was."""
    try:
        return Isolate.run(descend, depth + 1).result(PATIENCE)
    except IsolateSpawnError:
        return depth


def test_an_isolate_that_spawns_itself_without_end_meets_the_limit(limits):
    """The innermost isolate gets an IsolateSpawnError; nothing hangs, and all of them end."""
    configure(max_isolates=6)
    assert Isolate.run(descend, 1).result(PATIENCE) == 6


def test_the_limit_is_named_in_the_error(limits):
    """The error says how many isolates there are."""
    configure(max_isolates=1)
    with subiso.ReceivePort() as port:
        with Isolate.spawn(wait_for_a_message, port.send_port):
            port.receive(PATIENCE)
            with pytest.raises(IsolateSpawnError, match="there are 1 isolates already"):
                Isolate.run(len, "never")


def wait_for_a_message(hello):
    with subiso.ReceivePort(end_with_senders=False) as port:
        hello.send(None)
        port.receive()


def test_what_is_not_given_stays_as_it_is(limits):
    """Each limit is set by itself."""
    configure(spares=1)
    configure(idle=3)
    configure(max_isolates=5)
    assert (limits.spares, limits.idle, limits.isolates) == (1, 3, 5)


@pytest.mark.parametrize("option", ["spares", "idle", "max_isolates"])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1008, ValueError), ("2", TypeError), (1.5, TypeError)])
def test_a_wrong_number_is_refused(limits, option, value, error):
    """A number that is none, or out of range, is an error that names the option."""
    with pytest.raises(error, match=option):
        configure(**{option: value})


def test_an_isolate_cannot_configure(limits):
    """The limits are the process's: only main sets them."""
    with pytest.raises(RuntimeError, match="only main"):
        Isolate.run(configure_in_isolate).result(PATIENCE)


def configure_in_isolate():
    configure(spares=0)
