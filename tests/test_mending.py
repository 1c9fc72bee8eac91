"""Ctrl-C in the middle of what a pool does in main's first thread."""

import threading
from time import monotonic

import pytest

from subiso import IsolateKilledError, IsolatePool
from subiso._kernel import attendant as attendants
from subiso._kernel import node as nodes
from subiso._kernel.mailbox import Mailbox
from subiso.crew import Crew
from subiso.members import Member
from subiso.tasks import TaskFuture

LONG = 20


class Tear:
    """Replaces a function: raises KeyboardInterrupt in main's first call of it, before or after what it does."""

    def __init__(self, monkeypatch, owner, name, after=False):
        self.happened = False
        self._over = threading.Event()
        original = getattr(owner, name)

        def torn(*args, **kwargs):
            if self.happened or threading.current_thread() is not threading.main_thread():
                return original(*args, **kwargs)
            self.happened = True
            self._over.set()
            if after:
                original(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(owner, name, torn)
        self._hold_the_attendant(monkeypatch)

    def _hold_the_attendant(self, monkeypatch):
        """Leave all answers to main until that has happened: else the attendant may take every one of them."""
        held, attend = threading.Event(), Mailbox.attend

        def attend_later(mailbox, *args):
            held.set()
            self._over.wait(LONG)
            return attend(mailbox, *args)

        monkeypatch.setattr(Mailbox, "attend", attend_later)
        attendants.of(nodes.current()).call_at(monotonic(), lambda: None)  # so that it begins to wait anew
        assert held.wait(LONG)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Member, "start"),
        (Crew, "_new_member"),
        (Crew, "_assign"),
        (Crew, "_send"),
        (Crew, "_take"),
        (Crew, "_greet"),
        (Crew, "_next_for"),
        (TaskFuture, "begin"),
        (TaskFuture, "take"),
    ],
)
def test_a_pool_that_is_torn_goes_on(monkeypatch, owner, name, after):
    """Ctrl-C in one step of a pool loses at most what was running: no future and no shutdown waits for ever."""
    with IsolatePool(2, name="torn") as pool:
        tear = Tear(monkeypatch, owner, name, after)
        futures = []
        for number in range(100):
            if tear.happened and number > 6:
                break
            try:
                futures.append((number, pool.submit(pow, number, 2)))
                if number % 3 == 0:
                    futures[-1][1].exception(LONG)
            except KeyboardInterrupt:
                continue
        for number, future in futures:
            try:
                assert future.result(LONG) == number**2
            except KeyboardInterrupt:  # while this waited, for whatever
                with pytest.raises((KeyboardInterrupt, IsolateKilledError)):
                    raise future.exception(LONG) or KeyboardInterrupt from None
            except IsolateKilledError as error:
                assert "a signal has interrupted" in str(error)
        assert tear.happened
        for _ in range(2):  # it may be mended only now
            try:
                assert pool.submit(pow, 7, 2).result(LONG) == 49
                assert list(pool.map(abs, range(-20, 0))) == [*range(20, 0, -1)]
                break
            except IsolateKilledError:
                continue
        else:
            pytest.fail("the pool loses work again")
