"""How many interpreters there may be."""

import pytest

import subiso
from subiso import Isolate, IsolatePool, IsolateSpawnError, configure
from subiso._kernel.limits import Limits

PATIENCE = 60  # seconds; an upper bound


@pytest.fixture
def limits():
    """Put the limits back after the test."""
    before = Limits.spares, Limits.idle, Limits.isolates
    yield Limits
    Limits.spares, Limits.idle, Limits.isolates = before


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


def test_packages_with_compiled_code_can_be_refused(script):
    """What main configures holds for isolates started afterwards, and for those that they start; the error helps."""
    pytest.importorskip("msgspec")
    program = script(
        """
        from subiso import Isolate, configure

        def use(depth):
            if depth:
                return Isolate.run(use, depth - 1).result(60)
            try:
                import msgspec
            except ImportError as error:
                return error.name, "configure(extensions='private')" in str(error)
            return "imported"

        configure(extensions="off")
        print(Isolate.run(use, 0).result(60), Isolate.run(use, 1).result(60))
        configure(extensions="private")
        print(Isolate.run(use, 0).result(60), Isolate.run(use, 1).result(60))
        """,
        timeout=PATIENCE,
    )
    assert program.out.splitlines() == ["('msgspec._core', True) ('msgspec._core', True)", "imported imported"]


def test_one_isolate_or_pool_may_be_told_apart(script):
    """What one isolate or pool is started with counts more than the rest, for it and for the isolates it starts."""
    pytest.importorskip("msgspec")
    program = script(
        """
        from subiso import Isolate, IsolatePool, ReceivePort, configure

        def use(depth=0):
            if depth:
                return Isolate.run(use, depth - 1).result(60)
            try:
                import msgspec
            except ImportError:
                return "refused"
            return "imported"

        def tell(port, depth):
            port.send(use(depth))

        def ask(depth, **options):
            with ReceivePort() as port:
                Isolate.spawn(tell, port.send_port, depth, **options)
                return port.receive(60)

        print(Isolate.run(use).result(60), ask(0, extensions="off"), ask(1, extensions="off"), ask(0))
        with IsolatePool(1, extensions="off") as pool:
            print(pool.submit(use).result(60), Isolate.run(use).result(60))
        configure(extensions="off")
        print(ask(0, extensions="private"), ask(1, extensions="private"), ask(0, fresh=True))
        """,
        timeout=PATIENCE,
    )
    assert program.out.splitlines() == [
        "imported refused refused imported",
        "refused imported",
        "imported imported refused",
    ]


def start_isolate(**options):
    Isolate.spawn(int, **options)


@pytest.mark.parametrize("start", [start_isolate, IsolatePool])
def test_an_unknown_policy_of_one_is_refused(start):
    """At once, and nothing is started."""
    with pytest.raises(ValueError, match="'private', 'off' or 'all', not 'on'"):
        start(extensions="on")


def test_an_unknown_policy_is_refused(limits):
    """A policy for extension modules that does not exist is an error, and changes nothing."""
    with pytest.raises(ValueError, match="'private', 'off' or 'all', not 'on'"):
        configure(extensions="on", spares=7)
    assert limits.spares != 7


def test_a_module_known_to_do_harm_is_refused(script):
    """A module that the table refuses says why, and the policy `all` lets it be loaded nevertheless."""
    program = script(
        """
        from importlib.machinery import ExtensionFileLoader
        from importlib.util import module_from_spec, spec_from_file_location
        from subiso import Isolate, configure

        def load():
            spec = spec_from_file_location("torch._C", "/nowhere/_C.so")
            try:
                module_from_spec(spec)
            except ImportError as error:
                return type(error).__name__, "SUBISO_EXTENSIONS=all" in str(error)

        print(Isolate.run(load).result(60))
        configure(extensions="all")
        print(Isolate.run(load).result(60))
        """,
        timeout=PATIENCE,
    )
    assert program.out.splitlines() == ["('RefusedExtension', True)", "('ImportError', False)"]
