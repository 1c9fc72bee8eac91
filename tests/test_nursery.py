"""The nursery: how many interpreters it makes; and what Ctrl-C tears while one is lent is at hand again."""

from pathlib import Path

import pytest

LEAVING = """
    import os
    from subiso import Isolate, configure
    from subiso._kernel import nursery
    from subiso._kernel.arena import ISOLATE, LEAVING, Arena

    configure(spares=2)
    assert Isolate.run(abs, -1).result(20) == 1
    kept = nursery._nursery
    with kept._changed:
        assert kept._changed.wait_for(lambda: [one.state for one in kept._berths] == [nursery.IDLE] * 2, 20)
        leaving, ready = sorted(kept._berths, key=lambda berth: not berth.used)
        kept._idle.clear()
        words, home = kept._arena.words, Arena.home(leaving.slot)
        leaving.state, words[home + ISOLATE], words[home + LEAVING] = nursery.BUSY, leaving.number, {leaving}
        ready.state = nursery.BOOTING
        kept._became_idle(ready, recyclable=True)
        print(len(kept._berths), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(("leaving", "made"), [("leaving.number", 2), ("0", 3)], ids=["about to end", "at work"])
def test_a_spare_is_made_for_an_isolate_that_works(script, leaving, made):
    """None is made for one that is about to end, since its interpreter will be idle."""
    program = script(LEAVING.replace("{leaving}", leaving))
    assert (program.out, program.returncode) == (f"{made}\n", 0), program.err


# Each call into C that code of the nursery's makes is followed by a Ctrl-C, one call after the other, until nothing is
# left to be torn: a signal's handler runs after such calls, and where functions begin.
TEAR = """
    import sys
    from subiso import Isolate
    from subiso._kernel import nursery

    sys.path.insert(0, sys.argv[1])
    from tearing import Tear

    names = ("lease", "_take", "_take_idle", "_take_recycling", "_is_leaving", "_vacate", "_boot", "_lend")
    tearing = Tear({getattr(nursery.Nursery, name).__code__ for name in names}.__contains__)
    assert Isolate.run(abs, -1).result(20) == 1
    kept = nursery._nursery

    def tear(fresh):
        torn = 0
        while True:
            tearing.arm(torn + 1)
            try:
                isolate = Isolate.spawn(abs, -1, fresh=fresh)
            except KeyboardInterrupt:
                torn += 1
                assert Isolate.run(abs, -torn).result(20) == torn
            else:
                tearing.disarm()
                assert isolate.join(20)
                return torn

    warm, fresh = tear(False), tear(True)
    living = kept.await_ends(20)
    closed = kept.retire_idle(20)
    lost = [(berth.slot, berth.state) for berth in kept._berths if berth not in kept._vacant]
    print(warm > 3, fresh > warm, living, closed, lost)
"""


def test_a_ctrl_c_while_an_interpreter_is_lent(script):
    """Wherever it comes, the interpreter is used again, and none is left that would hold up a fork or the end."""
    program = script(TEAR, Path(__file__).parent)
    assert (program.out, program.returncode) == ("True True [] True []\n", 0), program.err
    assert not program.err


TEAR_START = """
    import sys, threading
    from subiso import Isolate
    from subiso._kernel import nursery

    assert Isolate.run(abs, -1).result(20) == 1
    events = sys.monitoring.events
    tool = next(number for number in range(6) if sys.monitoring.get_tool(number) is None)
    sys.monitoring.use_tool_id(tool, "test")
    release = threading.Condition._release_save.__code__

    def interrupt(code, offset, callee, argument):
        if threading.current_thread() is main:
            sys.monitoring.set_local_events(tool, release, 0)
            raise SystemExit(4)

    main = threading.main_thread()
    sys.monitoring.register_callback(tool, events.C_RETURN, interrupt)
    torn = 0
    while not torn:  # the thread may have begun before anybody waits for that
        sys.monitoring.set_local_events(tool, release, events.CALL)
        try:
            Isolate.spawn(abs, -1, fresh=True)
        except SystemExit:
            torn += 1
    sys.monitoring.set_local_events(tool, release, 0)
    print(torn, Isolate.run(abs, -2).result(20))
"""


def test_a_signal_while_threading_waits_for_a_thread_to_begin(script):
    """What its handler raises is not lost in an error of `threading`."""
    program = script(TEAR_START)
    assert (program.out, program.returncode) == ("1 2\n", 0), program.err
