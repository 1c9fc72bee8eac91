"""Ctrl-C after each call into C that subiso's code makes in main's first thread, one after the other.

    python tests/tearing.py group           every instant of that piece of work
    python tests/tearing.py pool 40 7       so many of them, by chance, with that seed

A signal's handler runs after a call into C, and where a function begins; there `KeyboardInterrupt` is raised, by
`sys.monitoring`. Whatever is torn by that, afterwards isolates must work as before, what was started by that piece of
work must have ended, and nobody may have been told anything but what has happened.
"""

import faulthandler
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType

import subiso
from subiso import Actor, Isolate, IsolateGroup, IsolatePool, ReceivePort, Supervisor, Transferable
from subiso import pool as pools
from subiso._kernel import nursery

BOUND = 30  # seconds after which one of them hangs
PATIENCE = 4  # seconds after which something was waited for that did not come
OURS = os.path.dirname(subiso.__file__) + os.sep


to_be_ended: list[Actor] = []  # when the work is over, torn or not


def double(number):
    return 2 * number


def answer(port):
    with ReceivePort() as inbox:
        port.send(inbox.send_port)
        for request in inbox:
            request.reply(request.message + 1)
            return


class Adder:
    def __init__(self):
        self.sum = 0

    def add(self, number):
        self.sum += number
        return self.sum


def run():
    assert Isolate.run(double, 4).result(BOUND) == 8


def pool():
    with IsolatePool(2) as workers:
        assert list(workers.map(double, range(5))) == [0, 2, 4, 6, 8]
        assert workers.submit(double, 3).result(BOUND) == 6


def group():
    with IsolateGroup() as isolates:
        runs = [isolates.run(double, number) for number in range(3)]
        isolates.spawn(double, 3)
    assert [one.result(BOUND) for one in runs] == [0, 2, 4]


def actor():
    adder = Actor.spawn(Adder)
    to_be_ended.append(adder)
    assert adder.add(2).result(BOUND) == 2


def stream():
    with Isolate.stream(range, 5) as numbers:
        assert list(numbers) == [0, 1, 2, 3, 4]


def request():
    with IsolateGroup() as isolates, ReceivePort() as port:
        isolates.spawn(answer, port.send_port)
        assert port.receive(BOUND).request(1, timeout=BOUND) == 2


def supervisor():
    with Supervisor() as supervising:
        assert supervising.add_actor(Adder).add(2).result(BOUND) == 2


def length(given):
    return len(given.materialize())


def transfer():
    assert Isolate.run(length, Transferable(b"x" * 4096)).result(BOUND) == 4096


def trio():
    import trio

    async def main():
        assert await Isolate.run(double, 4) == 8
        with ReceivePort() as port:
            one = Isolate.spawn(port.send_port.send, 3)
            assert await port.areceive() == 3
            await one.ajoin()

    trio.run(main)


WORK: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (run, pool, group, actor, stream, request, supervisor, transfer, trio)
}


def is_ours(code: CodeType) -> bool:
    """Tell of code of subiso's; under trio, where trio lets Ctrl-C in."""
    if not code.co_filename.startswith(OURS):
        return False
    trio = sys.modules.get("trio")
    return not (trio and trio.lowlevel.in_trio_run() and trio.lowlevel.currently_ki_protected())


class Tear:
    """Raises `KeyboardInterrupt` once, at the instant of that number, of those in the code that is chosen."""

    def __init__(self, is_chosen: Callable[[CodeType], bool] = is_ours) -> None:
        self._is_chosen = is_chosen
        self._main = threading.get_ident()
        self._tool = next(number for number in (5, 1, 0, 2) if sys.monitoring.get_tool(number) is None)
        self.left = 0
        self.place = ""
        sys.monitoring.use_tool_id(self._tool, "tearing")
        for event in (sys.monitoring.events.C_RETURN, sys.monitoring.events.PY_START):
            sys.monitoring.register_callback(self._tool, event, self._on_event)

    def arm(self, instant: int) -> None:
        self.left, self.place = instant, ""
        sys.monitoring.set_events(self._tool, sys.monitoring.events.CALL | sys.monitoring.events.PY_START)

    def disarm(self) -> None:
        sys.monitoring.set_events(self._tool, 0)

    def _on_event(self, code, offset, callee=None, argument=None):
        if not self._is_chosen(code) or threading.get_ident() != self._main or self.place:
            return
        if getattr(callee, "__name__", "") == "__enter__":  # a signal is not handled after that
            return
        if code.co_name == "__exit__" and callee is None:  # before it can do anything: any block is left alone then
            return
        places = []
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name in ("__del__", "__release_buffer__", "_close_later"):  # where it would be dropped
                return
            places.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
        self.left -= 1
        if not self.left:
            self.place = f"after {callee!r}: {' < '.join(places)}"
            self.disarm()
            raise KeyboardInterrupt


def try_instant(work: Callable[[], None], tear: Tear, instant: int) -> tuple[bool, list[str]]:
    """Do the work, torn at that instant; return whether it has come to that, and what was wrong afterwards."""
    wrong = []
    begun = time.monotonic()
    faulthandler.dump_traceback_later(BOUND, exit=True)
    tear.arm(instant)
    try:
        work()
        if tear.place:
            wrong.append("nobody was told of it")
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        wrong.append(f"raised {error!r}")
    finally:
        tear.disarm()
    while to_be_ended:
        to_be_ended.pop().isolate.kill()
    try:
        assert Isolate.run(double, instant).result(BOUND / 3) == 2 * instant
    except BaseException as error:
        wrong.append(f"afterwards {error!r}")
    for crew in [*pools._crews]:
        crew.close()
        if not crew.node.mailbox.wait([crew.changed], lambda crew=crew: crew.is_over, BOUND / 3):
            wrong.append("a pool never ends")
    if living := nursery._nursery.await_ends(BOUND / 3):
        wrong.append(f"there is still {', '.join(living)}")
    faulthandler.cancel_dump_traceback_later()
    if (took := time.monotonic() - begun) > PATIENCE:
        wrong.append(f"it took {took:.1f} s")
    return bool(tear.place), wrong


def main() -> int:
    """Try one piece of work, print what was wrong, and return the exit code."""
    name = sys.argv[1]
    work, tear = WORK[name], Tear()
    for _ in range(3):  # what is imported and made only once is there
        work()
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chance = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    tear.arm(1 << 60)
    work()
    tear.disarm()
    length = (1 << 60) - tear.left
    failed = tried = instant = 0
    while failed < 10 and (not times or tried < times):
        instant = chance.randrange(length) + 1 if times else instant + 1
        reached, wrong = try_instant(work, tear, instant)
        tried += 1
        if wrong:
            failed += 1
            print(f"{instant}: {'; '.join(wrong)}; {tear.place}", flush=True)
        if not reached and not times:
            break
    print(f"{name}: {tried} of some {length} instants, {failed} failures", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
