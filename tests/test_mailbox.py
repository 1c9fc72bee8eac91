"""Mailboxes: what is sent arrives, waiting threads are woken, ends are noticed. Two of them, in one interpreter."""

import errno
import os
import threading
from time import monotonic

import pytest

from subiso._kernel import doorbell, parcels, protocol
from subiso._kernel.arena import CONTROL, DOORBELL, ISOLATE, PORTS, Arena
from subiso._kernel.mailbox import Mailbox
from subiso._kernel.post import FIRST_INDEX
from subiso._kernel.waitables import Waitable

LONG = 20  # seconds: the bound of a wait that should be over at once


@pytest.fixture
def mailboxes():
    """The mailboxes of slots 1 and 2, each with a view of the memory of its own."""
    arena = Arena.create()
    made = []
    for slot in (1, 2):
        home = Arena.home(slot)
        reader, writer = doorbell.create()
        arena.words[home + DOORBELL], arena.words[home + CONTROL], arena.words[home + ISOLATE] = writer, 0, slot
        made.append(Mailbox(Arena(arena.descriptor), slot, reader))
    yield made
    for mailbox in made:
        mailbox.close_ports()
        mailbox.park()
        doorbell.close(mailbox.doorbell, arena.words[Arena.home(mailbox.slot) + DOORBELL])
    os.close(arena.descriptor)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def until(condition):
    """Wait until another thread has got so far."""
    deadline = monotonic() + LONG
    while not condition():
        assert monotonic() < deadline
        os.sched_yield()


class Taker(threading.Thread):
    """A thread that waits for messages in an inbox, and takes them."""

    def __init__(self, mailbox, inbox, n=1):
        super().__init__(name="test-taker")
        self.taken = []
        self._arguments = mailbox, inbox, n
        self.start()

    def run(self):
        mailbox, inbox, n = self._arguments
        while len(self.taken) < n and mailbox.wait([inbox], lambda: inbox.messages, LONG):
            self.taken.append(inbox.messages.popleft())

    def result(self):
        self.join(LONG)
        return self.taken


def test_messages_arrive(mailboxes):
    """What one mailbox sends is in the other's inbox after a pump, in order."""
    here, there = mailboxes
    inbox = there.open()
    for i in range(100):
        here.send(inbox.address, protocol.BYTES, b"%d" % i)
    assert there.pump()
    assert list(inbox.messages) == [(protocol.BYTES, b"%d" % i) for i in range(100)]
    assert not there.pump()


def test_sending_to_oneself(mailboxes):
    """A mailbox can send to its own ports."""
    here, _ = mailboxes
    inbox = here.open()
    here.send(inbox.address, protocol.TEXT, b"me")
    here.settle()
    assert list(inbox.messages) == [(protocol.TEXT, b"me")]


def test_closed_ports_drop_what_arrives(mailboxes):
    """What comes for a closed port is dropped, large messages with their descriptors; its address never returns."""
    here, there = mailboxes
    before = descriptors()
    inbox = there.open()
    assert here.is_open(inbox.address)
    here.send_message(inbox.address, protocol.BYTES, b"x" * parcels.LARGE, [])
    there.settle()
    here.send_message(inbox.address, protocol.BYTES, b"y" * parcels.LARGE, [])
    there.close(inbox)
    there.close(inbox)
    assert not here.is_open(inbox.address)
    again = there.open()
    assert again.address != inbox.address
    assert again.address % PORTS == inbox.address % PORTS
    here.send(inbox.address, protocol.BYTES, b"late")
    there.settle()
    assert not again.messages
    assert not inbox.messages
    assert descriptors() == before


def test_ports_are_limited(mailboxes):
    """More ports than there are places for is an OSError; closing one makes room again."""
    here, _ = mailboxes
    opened = [here.open() for _ in range(PORTS - FIRST_INDEX)]
    with pytest.raises(OSError, match="too many open ports"):
        here.open()
    here.close(opened[7])
    here.open()


@pytest.mark.parametrize("sleeping", [False, True])
def test_waiting_threads_are_woken(mailboxes, sleeping):
    """A thread that waits is woken by a message, asleep already or not."""
    here, there = mailboxes
    inbox = there.open()
    for _ in range(50):
        taker = Taker(there, inbox)
        if sleeping:
            until(lambda: inbox.waiters)
        here.send(inbox.address, protocol.NONE, b"")
        assert taker.result() == [(protocol.NONE, b"")]


def test_each_waiting_thread_gets_its_own(mailboxes):
    """Of several blocked threads the one is woken whose message comes, whichever of them listens to the doorbell."""
    here, there = mailboxes
    inboxes = [there.open() for _ in range(4)]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)):
        takers = [Taker(there, inbox) for inbox in inboxes]
        until(lambda: all(inbox.waiters for inbox in inboxes))
        for i in order:
            here.send(inboxes[i].address, protocol.INT, bytes([i]))
            assert takers[i].result() == [(protocol.INT, bytes([i]))]


def test_many_messages_for_many_threads(mailboxes):
    """Several threads on each side: every message comes exactly once."""
    here, there = mailboxes
    inboxes = [there.open() for _ in range(3)]
    takers = [Taker(there, inbox, 2000) for inbox in inboxes]

    def send(inbox):
        for i in range(1000):
            here.send(inbox.address, protocol.INT, b"%d" % i)

    senders = [threading.Thread(target=send, args=(inbox,)) for inbox in inboxes * 2]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(LONG)
    for taker in takers:
        assert sorted(int(payload) for _, payload in taker.result()) == sorted([*range(1000)] * 2)


def test_waiting_in_vain(mailboxes):
    """A wait that is not fulfilled returns False when its time is over."""
    here, _ = mailboxes
    inbox = here.open()
    for timeout in (0, 0.001, 0.01):
        assert not here.wait([inbox], lambda: inbox.messages, timeout)
    assert not inbox.waiters


def test_events_of_other_kinds_wake_too(mailboxes):
    """Whoever notifies a waitable wakes those who wait for it; stopping all waits makes everybody look."""
    here, _ = mailboxes
    event, happened = Waitable(), []
    for notify in (event.notify, here.stop_waits):
        happened.clear()
        threads = [threading.Thread(target=here.wait, args=([event], lambda: happened, LONG)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(event.waiters) == 3)
        happened.append(1)
        notify()
        for thread in threads:
            thread.join(LONG)
        assert not event.waiters


def test_callbacks_of_inboxes(mailboxes):
    """An inbox's callback is called by whoever pumps, each time something has come."""
    here, there = mailboxes
    called = []
    inbox = there.open()
    inbox.on_event = lambda: called.append(len(inbox.messages))
    here.send(inbox.address, protocol.NONE, b"")
    here.send(inbox.address, protocol.NONE, b"")
    there.pump()
    assert called[-1] == 2
    there.close(inbox)


def test_the_end_of_an_isolate_is_noticed(mailboxes):
    """Whoever watches an isolate is notified when it has ended, after its last message, and only once."""
    here, there = mailboxes
    inbox, ended = there.open(), Waitable()
    there.watch(1, 1, ended)
    waiting = threading.Thread(target=there.wait, args=([ended], lambda: not there.is_alive(1, 1), LONG))
    waiting.start()
    until(lambda: ended.waiters)
    here.send(inbox.address, protocol.TEXT, b"last")
    here.arena.words[Arena.home(1) + ISOLATE] = 0
    here.announce_end(1)
    waiting.join(LONG)
    assert not there.is_alive(1, 1)
    there.settle()
    assert list(inbox.messages) == [(protocol.TEXT, b"last")]
    assert here.arena.memory[Arena.watchers(1) + 2] == 0


def test_an_end_is_told_though_ctrl_c_comes_as_it_is_noticed(mailboxes, monkeypatch):
    """Whoever waits next is told of it: a watch is not taken out before its waiter is among those to be told."""
    one, other = mailboxes
    told = Waitable()
    other.watch(1, 1, told)
    one.arena.words[Arena.home(1) + ISOLATE] = 0
    one.announce_end(1)
    ends = []
    told.on_event = lambda: ends.append(1)

    def tear(slot):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(other, "_forget_slot", tear)
    with pytest.raises(KeyboardInterrupt):
        other.pump()
    other.pump()
    assert ends


def test_taking_back_a_watch(mailboxes):
    """A watch that is taken back costs nothing more; taking it back again does nothing."""
    here, there = mailboxes
    ended = Waitable(lambda: pytest.fail("was notified"))
    there.watch(1, 1, ended)
    there.unwatch(1, 1, ended)
    there.unwatch(1, 1, ended)
    assert here.arena.memory[Arena.watchers(1) + 2] == 0
    here.arena.words[Arena.home(1) + ISOLATE] = 0
    here.announce_end(1)
    there.settle()


def test_the_senders_of_a_port(mailboxes):
    """A port has senders until every isolate that was given it has ended; one that was given to nobody has some."""
    here, there = mailboxes
    inbox = there.open()
    words = here.arena.words
    assert there.has_senders(inbox)
    there.grant(inbox.address, 1, 1)
    here.grant(inbox.address, 3, 7)  # an isolate hands it on
    words[Arena.home(3) + ISOLATE] = 7
    there.settle()
    words[Arena.home(1) + ISOLATE] = 0
    assert there.has_senders(inbox)
    words[Arena.home(3) + ISOLATE] = 8  # the slot's next isolate is another one
    assert not there.has_senders(inbox)
    there.grant(inbox.address, 3, 8)
    assert there.has_senders(inbox)


def test_replies(mailboxes):
    """An inbox for one reply gets it; what comes when it is closed is dropped."""
    here, there = mailboxes
    first, second = there.open_reply(), there.open_reply()
    assert first.address != second.address
    there.close(first)
    here.send(first.address, protocol.BYTES, b"too late")
    here.send(second.address, protocol.BYTES, b"in time")
    there.settle()
    assert not first.messages
    assert list(second.messages) == [(protocol.BYTES, b"in time")]
    there.close(second)


def test_the_next_interpreter_in_a_slot_goes_on(mailboxes):
    """A mailbox that takes over a slot reads what was sent to it before, and sends on."""
    here, there = mailboxes
    jobs = there.open_fixed(1)
    here.send(jobs.address, protocol.BYTES, b"for the first")
    there.settle()
    there.park()
    here.send(jobs.address, protocol.BYTES, b"for the next")
    successor = Mailbox(there.arena, there.slot, there.doorbell)
    jobs = successor.open_fixed(1)
    successor.settle()
    assert list(jobs.messages) == [(protocol.BYTES, b"for the next")]
    inbox = here.open()
    successor.send(inbox.address, protocol.BYTES, b"back")
    here.settle()
    assert list(inbox.messages) == [(protocol.BYTES, b"back")]
    successor.park()


def test_no_descriptor_to_listen_with(mailboxes, monkeypatch):
    """Who waits looks again after a short while, and listens as soon as there is a descriptor."""
    one, two = mailboxes
    tried = []

    class Refused:
        def __init__(self, descriptor):
            tried.append(descriptor)
            if len(tried) == 1:
                go_on.wait(LONG)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    go_on = threading.Event()
    monkeypatch.setattr(doorbell, "Ear", Refused)
    inbox = two.open()
    taker = Taker(two, inbox, 2)
    until(lambda: tried)
    one.send(inbox.address, protocol.BYTES, b"1")
    go_on.set()
    until(lambda: taker.taken)
    until(lambda: len(tried) > 1)
    monkeypatch.undo()
    until(lambda: two._ear is not None)
    one.send(inbox.address, protocol.BYTES, b"2")
    taker.join(LONG)
    assert [body for _, body in taker.taken] == [b"1", b"2"]
