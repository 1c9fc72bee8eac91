"""Doorbells: each ring is heard by every ear, on an eventfd and on the pipe that stands in for one elsewhere."""

import importlib.util
import os
import select
import threading

import pytest

from subiso._kernel import doorbell

LONG = 20  # seconds: the bound of a wait that should be over at once
MANY = 70_001  # rings: more than a pipe has room for


@pytest.fixture
def on_pipes(monkeypatch):
    """The module as a system without eventfd gets it."""
    with monkeypatch.context() as patch:
        patch.delattr(os, "eventfd", raising=False)
        spec = importlib.util.spec_from_file_location("doorbell_on_pipes", doorbell.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["as here", "on pipes"])
def kind(request):
    """The module, of both kinds."""
    return doorbell if request.param == "as here" else request.getfixturevalue("on_pipes")


class Door:
    """A doorbell, and what listens to it."""

    def __init__(self, kind, ears=2):
        self.reader, self.bell = kind.create()
        self.ears = [kind.Ear(self.reader) for _ in range(ears)]

    def close(self, kind):
        for ear in self.ears:
            ear.close()
        kind.close(self.reader, self.bell)


@pytest.fixture
def door(kind):
    door = Door(kind)
    yield door
    door.close(kind)


@pytest.fixture
def piped(on_pipes):
    """A door of the other kind only."""
    door = Door(on_pipes)
    yield door
    door.close(on_pipes)


def is_readable(descriptor, timeout=0):
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def heard(ear):
    """Return whether an ear has heard a ring since the last time."""
    rung = is_readable(ear.fileno())
    ear.wait(0)
    assert not is_readable(ear.fileno())
    return rung


def fill(bell, on_pipes):
    """Fill a pipe to the last byte, by rings."""
    try:
        while True:
            os.write(bell & on_pipes._WRITER, b"\1")
    except BlockingIOError:
        pass


def test_a_ring_is_heard_once_by_every_ear(kind, door):
    """Whoever listens hears each ring, also those before the first look, and afterwards nothing until the next one."""
    assert [heard(ear) for ear in door.ears] == [False, False]
    for rings in (1, 1, 3):
        for _ in range(rings):
            kind.ring(door.bell)
        assert [heard(ear) for ear in door.ears] == [True, True]
        assert [heard(ear) for ear in door.ears] == [False, False]


def test_rings_that_nobody_takes(kind, door):
    """However often it was rung, the next ring is heard by everybody, and so is the one after it."""
    for _ in range(MANY):
        kind.ring(door.bell)
    for _ in range(3):
        assert [heard(ear) for ear in door.ears] == [True, True]
        kind.ring(door.bell)


def test_every_ring_is_heard(kind, door):
    """Rung again as soon as both have heard it, more than 70,000 times: none is lost."""
    rung, answers = [0], [threading.Semaphore(0) for _ in door.ears]

    def listen(ear, answer):
        seen = 0
        while seen < MANY:
            ear.wait(LONG)
            if rung[0] != seen:
                seen = rung[0]
                answer.release()

    for _ in range(MANY - 7000):
        kind.ring(door.bell)
    threads = [threading.Thread(target=listen, args=pair) for pair in zip(door.ears, answers, strict=True)]
    for thread in threads:
        thread.start()
    for number in range(MANY - 7000 + 1, MANY + 1):
        rung[0] = number
        kind.ring(door.bell)
        for answer in answers:
            assert answer.acquire(timeout=LONG), number
    for thread in threads:
        thread.join(LONG)


def test_many_ring_at_once(kind, door):
    """Several threads that ring, at a doorbell that is full or nearly, lose nobody's last ring."""
    ear, rounds, ringers = door.ears[0], 20, 4
    done, go_on = [0] * ringers, threading.Barrier(ringers + 1)

    def ring(place):
        for number in range(1, rounds + 1):
            go_on.wait(LONG)
            for _ in range(2000):
                kind.ring(door.bell)
            done[place] = number
            kind.ring(door.bell)

    for _ in range(MANY):
        kind.ring(door.bell)
    threads = [threading.Thread(target=ring, args=(place,)) for place in range(ringers)]
    for thread in threads:
        thread.start()
    for number in range(1, rounds + 1):
        go_on.wait(LONG)
        while min(done) < number:
            assert is_readable(ear.fileno(), LONG)
            ear.wait(0)
    for thread in threads:
        thread.join(LONG)


def test_a_full_pipe_has_room_again(piped, on_pipes):
    """A ring at a full pipe is heard by those who have heard all before, and by those who have heard nothing yet."""
    first, second = piped.ears
    fill(piped.bell, on_pipes)
    assert heard(first)
    on_pipes.ring(piped.bell)
    assert [heard(first), heard(second)] == [True, True]


@pytest.mark.parametrize("meanwhile", ["nothing", "heard", "emptied", "filled"])
def test_between_making_room_and_ringing(piped, on_pipes, monkeypatch, meanwhile):
    """Whatever others do between the two steps of a ring at a full pipe, everybody hears it."""
    first, second = piped.ears
    fill(piped.bell, on_pipes)
    assert heard(first)
    make_room, times = on_pipes._make_room, []

    def make_room_meanwhile(reader):
        make_room(reader)
        times.append(1)
        if len(times) > 1:
            return
        if meanwhile == "heard":  # an ear that has heard nothing yet finds what the others have left
            heard(first)  # Linux rings once more when something is read and something is left
            assert heard(second)
        elif meanwhile == "emptied":  # by others that make room, each of whom will ring
            on_pipes.silence(reader)
            assert [heard(first), heard(second)] == [False, False]
        elif meanwhile == "filled":
            fill(piped.bell, on_pipes)
            assert [heard(first), heard(second)] == [True, True]

    monkeypatch.setattr(on_pipes, "_make_room", make_room_meanwhile)
    on_pipes.ring(piped.bell)
    assert [heard(first), heard(second)] == [True, True]
    assert len(times) == 1 + (meanwhile == "filled")


def test_another_has_made_room(piped, on_pipes, monkeypatch):
    """Where others have emptied the pipe since it was found full, there is nothing to take out."""
    fill(piped.bell, on_pipes)
    make_room = on_pipes._make_room

    def make_room_of_the_empty(reader):
        on_pipes.silence(reader)
        make_room(reader)

    monkeypatch.setattr(on_pipes, "_make_room", make_room_of_the_empty)
    on_pipes.ring(piped.bell)
    assert [heard(ear) for ear in piped.ears] == [True, True]


def test_silence(kind, door):
    """What is silenced is not readable until it is rung again, however often it was rung before."""
    assert not is_readable(door.reader)
    for rings in (1, 2, MANY):
        for _ in range(rings):
            kind.ring(door.bell)
        assert is_readable(door.reader)
        kind.silence(door.reader)
        assert not is_readable(door.reader)
    kind.silence(door.reader)
    assert not is_readable(door.reader)


def test_closing_leaves_nothing(kind):
    """A doorbell and its ears give back every descriptor, and are not inherited."""
    before = len(os.listdir("/proc/self/fd"))
    door = Door(kind)
    assert len(os.listdir("/proc/self/fd")) - before == (3 if kind is doorbell else 4)
    ends = [door.reader] if kind is doorbell else [door.reader, door.bell & kind._WRITER]
    assert not any(os.get_inheritable(end) for end in ends)
    door.close(kind)
    assert len(os.listdir("/proc/self/fd")) == before


def test_isolates_without_eventfd(script):
    """Isolates talk over pipes as they do over eventfds, however often their doorbells were rung."""
    program = script(
        f"""
        import asyncio, os
        del os.eventfd
        from subiso import Isolate, ReceivePort
        from subiso._kernel import doorbell, nursery
        from subiso._kernel import node as nodes
        from subiso._kernel.arena import DOORBELL, Arena

        nursery.boot_prefix = "import os; del os.eventfd\\n"

        def echo(out):
            import os
            with ReceivePort(end_with_senders=False) as port:
                out.send((port.send_port, hasattr(os, "eventfd")))
                while (message := port.receive()) is not None:
                    out.send(message)

        async def take(out, theirs):
            theirs.send("async")
            return await out.areceive()

        with ReceivePort() as out:
            isolate = Isolate.spawn(echo, out.send_port)
            theirs, has_eventfd = out.receive(20)
            assert not has_eventfd
            node, number = nodes.current(), 0
            for slot in (nodes.MAIN, isolate._slot):
                bell = node.arena.words[Arena.home(slot) + DOORBELL]
                for _ in range({MANY}):
                    doorbell.ring(bell)
            for number in range(1000):
                theirs.send(number)
                assert out.receive(20) == number
            assert asyncio.run(take(out, theirs)) == "async"
            theirs.send(None)
            assert isolate.join(20)
        print(Isolate.run(sum, [1, 2]).result(20))
        """
    )
    assert (program.returncode, program.out) == (0, "3\n"), program.err
