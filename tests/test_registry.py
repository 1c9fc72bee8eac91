"""The registry of names: who finds what, what is forgotten, and what a registered port waits for."""

import threading

import pytest

from subiso import (
    Isolate,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    ReceivePort,
    add_tags,
    lookup,
    lookup_all,
    register,
    remove_tags,
    unregister,
)
from subiso._kernel import nursery

LONG = 20  # seconds: the bound of a wait that should be over at once


@pytest.fixture
def port():
    with ReceivePort() as port:
        yield port


def send(name, *messages):
    """Send messages to what is registered under a name; return whether there was anything."""
    port = lookup(name)
    for message in messages:
        port.send(message)
    return port is not None


def serve(name, boot):
    """Be a service with a name, until told to end."""
    with ReceivePort(name=name) as port:
        boot.send(register(name, port.send_port, tags=["service", name]))
        for message in port:
            if message == "end":
                return
            message.send(f"this is {name}")


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.dart(
    "package/registry_test", differs="because what is registered is a port: the objects of an isolate stay there"
)
def test_a_name_is_found_everywhere(port):
    """A port is found by its name in the isolate that registered it and in others; it is an equal port."""
    assert register("name", port.send_port) is True
    assert lookup("name") == port.send_port
    assert Isolate.run(lookup, "name").result(LONG) == port.send_port
    assert Isolate.run(send, "name", 1, 2).result(LONG) is True
    assert [port.receive(LONG), port.receive(LONG)] == [1, 2]


def test_a_name_from_an_isolate():
    """An isolate registers its own port, main and its siblings find it."""
    with ReceivePort() as boot, ReceivePort() as replies, Isolate.spawn(serve, "service", boot.send_port) as isolate:
        assert boot.receive(LONG) is True
        lookup("service").send(replies.send_port)
        assert replies.receive(LONG) == "this is service"
        assert Isolate.run(send, "service", replies.send_port).result(LONG) is True
        assert replies.receive(LONG) == "this is service"
        lookup("service").send("end")
        assert isolate.join(LONG)
    assert lookup("service") is None


@pytest.mark.dart("package/registry_test")
def test_a_name_is_given_once(port):
    """A name in use cannot be registered again, by nobody."""
    assert register("name", port.send_port) is True
    assert register("name", port.send_port) is False
    assert Isolate.run(register, "name", port.send_port).result(LONG) is False
    assert unregister("name") is True
    assert Isolate.run(register, "name", port.send_port).result(LONG) is True


def test_unknown_names():
    """What is not known is not found, and cannot be forgotten."""
    assert lookup("nothing") is None
    assert unregister("nothing") is False
    assert Isolate.run(lookup, "nothing").result(LONG) is None
    assert Isolate.run(unregister, "nothing").result(LONG) is False
    assert add_tags("nothing", "tag") is False
    assert remove_tags("nothing", "tag") is False


@pytest.mark.dart("package/registry_test")
def test_any_isolate_unregisters(port):
    """A name is forgotten by whoever asks for it."""
    register("name", port.send_port)
    assert Isolate.run(unregister, "name").result(LONG) is True
    assert lookup("name") is None


def test_a_closed_port_is_forgotten(port):
    """The name of a closed port is free."""
    with ReceivePort() as first:
        register("name", first.send_port, tags=["tag"])
    assert lookup("name") is None
    assert lookup_all("tag") == []
    assert register("name", port.send_port) is True
    assert lookup("name") == port.send_port


def test_many_closed_ports_are_forgotten(port):
    """Names of closed ports that nobody looks up do not pile up."""
    for number in range(300):
        with ReceivePort() as passing:
            assert register(f"name-{number}", passing.send_port)
    register("name", port.send_port)
    assert len(nursery._nursery.node.locals["registry"]._entries) <= 65


def test_main_may_be_busy(script):
    """Names are found while main's own code is busy."""
    program = script("""
        from subiso import Isolate, ReceivePort, lookup, register

        def find(done):
            done.send(lookup("name") is not None)

        with ReceivePort() as port, ReceivePort() as done:
            register("name", port.send_port)
            Isolate.spawn(find, done.send_port)
            while not done._inbox.messages:  # nothing in here lets others in but the interpreter's switch interval
                done._node.mailbox.pump()
            print(done.receive(0))
    """)
    assert (program.out, program.err) == ("True\n", "")


# -- tags --------------------------------------------------------------------------------------------------------------


@pytest.mark.dart("package/registry_test")
def test_tags():
    """Ports are found by all of some tags, in the order of registration, each once."""
    with ReceivePort() as one, ReceivePort() as two, ReceivePort() as three:
        first, second, third = one.send_port, two.send_port, three.send_port
        register("first", first, tags=["a", "b"])
        register("second", second, tags={"a"})
        register("third", third)
        register("third again", third, tags=("b",))
        assert lookup_all() == [first, second, third]
        assert lookup_all("a") == [first, second]
        assert lookup_all("b") == [first, third]
        assert lookup_all("a", "b") == [first]
        assert lookup_all("c") == []
        assert lookup_all(max=2) == [first, second]
        assert lookup_all("a", max=0) == []
        assert Isolate.run(lookup_all, "b").result(LONG) == [first, third]
        assert add_tags("second", "b", "c") is True
        assert Isolate.run(remove_tags, "first", "b", "unknown").result(LONG) is True
        assert lookup_all("b") == [second, third]
        assert lookup_all("c") == [second]


def test_many_ports_are_found():
    """What is found need not fit a control message."""
    ports = [ReceivePort() for _ in range(500)]
    try:
        for number, port in enumerate(ports):
            register(f"port-{number}", port.send_port)
        assert Isolate.run(lookup_all).result(LONG) == [port.send_port for port in ports]
    finally:
        for port in ports:
            port.close()


# -- wrong calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, 3, b"name"])
def test_wrong_names(name, port):
    """A name is a str."""
    for call in (lookup, unregister, add_tags, remove_tags, lambda name: register(name, port.send_port)):
        with pytest.raises(TypeError, match="a name must be a str"):
            call(name)


def test_wrong_ports(port):
    """Only send ports that are open are registered."""
    with pytest.raises(TypeError, match="SendPort"):
        register("name", port)
    port.close()
    with pytest.raises(PortClosedError):
        register("name", port.send_port)


def test_wrong_tags(port):
    """Tags are several strings."""
    with pytest.raises(TypeError, match=r"tags=\['tag'\]"):
        register("name", port.send_port, tags="tag")
    for call in (
        lambda: register("name", port.send_port, tags=[1]),
        lambda: lookup_all(1),
        lambda: add_tags("name", None),
    ):
        with pytest.raises(TypeError, match="a tag must be a str"):
            call()
    with pytest.raises(TypeError, match="max"):
        lookup_all(max="1")
    with pytest.raises(ValueError, match="max"):
        lookup_all(max=-1)


@pytest.mark.parametrize("where", ["main", "isolate"])
def test_too_long(where, port):
    """Names and tags have a limit, the same everywhere, and what fits works everywhere."""

    def call(function, *args):
        return function(*args) if where == "main" else Isolate.run(function, *args).result(LONG)

    with pytest.raises(ValueError, match="too long"):
        call(lookup, "x" * 4000)
    with pytest.raises(ValueError, match="too long"):
        call(add_tags, "name", *[f"tag-{number}" for number in range(400)])
    assert call(register, "x" * 3000, port.send_port) is True
    assert call(lookup, "x" * 3000) == port.send_port
    assert call(unregister, "x" * 3000) is True


# -- what a registered port waits for ----------------------------------------------------------------------------------


def test_a_registered_port_does_not_end_with_its_senders(port):
    """Whoever looks the name up may still send, so the end of those who did so is not the end."""
    register("name", port.send_port)
    assert Isolate.run(send, "name", 1).result(LONG)
    assert port.receive(LONG) == 1
    with pytest.raises(PortEmpty):
        port.receive(0.01)
    assert Isolate.run(send, "name", 2).result(LONG)
    assert port.receive(LONG) == 2


def test_an_unregistered_port_ends_with_its_senders(port):
    """Without its name the port ends when all that looked it up have ended; also if none ever has."""
    register("name", port.send_port)
    assert Isolate.run(send, "name", 1).result(LONG)
    unregister("name")
    assert list(port) == [1]
    with ReceivePort() as other:
        register("name", other.send_port)
        unregister("name")
        assert list(other) == []


def test_who_looked_up_is_a_sender(port):
    """A port that an isolate has looked up does not end before that isolate, though the name be forgotten."""

    def find(name, boot):
        found = lookup(name)
        with ReceivePort(end_with_senders=False) as orders:
            boot.send(orders.send_port)
            found.send(orders.receive())

    register("name", port.send_port)
    with ReceivePort() as boot:
        isolate = Isolate.spawn(find, "name", boot.send_port)
        orders = boot.receive(LONG)
        unregister("name")
        with pytest.raises(PortEmpty):
            port.receive(0.01)
        orders.send("last")
        assert list(port) == ["last"]
        assert isolate.join(LONG)


def test_unregistering_wakes_who_waits(port):
    """A thread that waits at the port learns that the name is gone."""
    seen = []

    def wait():
        try:
            port.receive(LONG)
        except NoSendersError as error:
            seen.append(error)

    register("name", port.send_port)
    register("second name", port.send_port)
    thread = threading.Thread(target=wait)
    thread.start()
    unregister("name")
    thread.join(0.01)
    assert thread.is_alive()  # it has another name
    unregister("second name")
    thread.join(LONG)
    assert len(seen) == 1


def test_a_port_of_an_isolate_ends_with_its_senders():
    """The same holds where the port's owner, the registry, and who looks up are three isolates."""
    with ReceivePort() as boot, ReceivePort() as replies:
        isolate = Isolate.spawn(serve, "service", boot.send_port)
        assert boot.receive(LONG) is True
        for _ in range(3):
            assert Isolate.run(send, "service", replies.send_port).result(LONG) is True
            assert replies.receive(LONG) == "this is service"
        assert isolate.is_alive
        assert Isolate.run(unregister, "service").result(LONG) is True
        assert isolate.join(LONG)
