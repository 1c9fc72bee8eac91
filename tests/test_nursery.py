"""The nursery: what Ctrl-C tears while an interpreter is lent is at hand again."""

# Each call into C that code of the nursery's makes is followed by a Ctrl-C, one call after the other, until nothing is
# left to be torn: a signal's handler runs after such calls, and where functions begin.
TEAR = """
    import sys, threading, time
    from subiso import Isolate
    from subiso._kernel import nursery

    events = sys.monitoring.events
    tool = next(number for number in range(6) if sys.monitoring.get_tool(number) is None)
    sys.monitoring.use_tool_id(tool, "test")
    left = 0

    def interrupt(code, offset, callee=None, argument=None):
        global left
        if threading.current_thread() is not threading.main_thread():
            return
        if getattr(callee, "__name__", "") == "__enter__":  # a signal is not handled after that
            return
        left -= 1
        if not left:
            watch(0)
            raise KeyboardInterrupt

    def watch(which):
        for name in ("lease", "_take", "_take_idle", "_take_recycling", "_vacate", "_boot", "_lend"):
            code = getattr(nursery.Nursery, name).__code__
            sys.monitoring.set_local_events(tool, code, which)

    sys.monitoring.register_callback(tool, events.C_RETURN, interrupt)
    sys.monitoring.register_callback(tool, events.PY_START, interrupt)
    sys.monitoring.register_callback(tool, events.PY_START, interrupt)
    assert Isolate.run(abs, -1).result(20) == 1
    kept = nursery._nursery

    def tear(fresh):
        global left
        torn = 0
        while True:
            left = torn + 1
            watch(events.CALL | events.PY_START)
            try:
                isolate = Isolate.spawn(abs, -1, fresh=fresh)
            except KeyboardInterrupt:
                torn += 1
                assert Isolate.run(abs, -torn).result(20) == torn
            else:
                watch(0)
                assert isolate.join(20)
                return torn

    warm, fresh = tear(False), tear(True)
    deadline = time.monotonic() + 20
    while (living := kept.living()) and time.monotonic() < deadline:
        time.sleep(0.01)
    closed = kept.retire_idle(20)
    lost = [(berth.slot, berth.state) for berth in kept._berths if berth not in kept._vacant]
    print(warm > 3, fresh > warm, living, closed, lost)
"""


def test_a_ctrl_c_while_an_interpreter_is_lent(script):
    """Wherever it comes, the interpreter is used again, and none is left that would hold up a fork or the end."""
    program = script(TEAR)
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
