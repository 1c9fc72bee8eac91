"""The end of a program: bounded, with its exit code, whatever its isolates do."""

import signal
import time

import pytest

from subiso._kernel.interpreters import SIGNALS_DELIVER_EXCEPTIONS

BOUND = 3 + 16  # seconds: what is promised, and what a busy machine may take to start Python and four isolates

RUNNING = """
    import sys
    from subiso import Isolate, ReceivePort

    def compute(hello):
        hello.send(1)
        while True:
            pass

    def sleep(hello):
        import time
        hello.send(1)
        time.sleep(1000)

    def wait(hello):
        port = ReceivePort()
        hello.send(1)
        port.receive()

    def listen(hello):
        ReceivePort(end_with_senders=False).listen(print)
        hello.send(1)

    with ReceivePort() as hello:
        for entry in map(globals().get, sys.argv[2:]):
            Isolate.spawn(entry, hello.send_port, name=entry.__name__)
            hello.receive()
    print("ready", flush=True)
    if sys.argv[1] == "raise":
        raise ValueError("main's own")
    sys.exit(int(sys.argv[1]))
"""
ENTRIES = ["compute", "sleep", "wait", "listen"]


@pytest.mark.parametrize(("how", "code"), [("0", 0), ("3", 3), ("raise", 1)])
def test_a_program_ends_whatever_its_isolates_do(start, how, code):
    """It ends in bounded time with the code that it would have had, and one line names the isolates that still ran."""
    program = start(RUNNING, how, *ENTRIES)
    program.expect("ready")
    begin = time.monotonic()
    program.finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == code, program.err
    named = [line for line in program.err.splitlines() if line.startswith("subiso:")]
    asleep = "sleep" if SIGNALS_DELIVER_EXCEPTIONS else "sleep (blocked in C code)"
    assert named == [f"subiso: the program ended while isolates were running: compute, {asleep}, wait, listen"]
    assert ("main's own" in program.err) == (how == "raise")
    assert "Fatal" not in program.err


MIXED = """
    import sys
    from subiso import Isolate, ReceivePort

    def compute(hello):
        hello.send(1)
        while True:
            pass

    def backtrack(hello):
        import functools, operator, re
        match = functools.partial(re.compile("(a+)+b").match, "a" * 60)
        list(map(operator.call, [functools.partial(hello.send, 1), match]))  # no line of Python between the two

    with ReceivePort() as hello:
        backtracking = [Isolate.spawn(backtrack, hello.send_port, name=f"backtrack-{i}") for i in range(2)]
        computing = Isolate.spawn(compute, hello.send_port, name="compute")
        for _ in range(3):
            hello.receive()
        paused = Isolate.spawn(compute, hello.send_port, paused=True, name="paused")
        backtracking[0].kill()
        assert backtracking[0].join(20) and backtracking[0].is_abandoned
    print("ready", flush=True)
    sys.exit(5)
"""


def test_a_program_ends_with_isolates_that_are_paused_stuck_or_abandoned(start):
    """Calls into C that hold an isolate's GIL, pauses and isolates that were given up do not delay or spoil the end."""
    program = start(MIXED)
    program.expect("ready")
    begin = time.monotonic()
    program.finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == 5, program.err
    named = [line for line in program.err.splitlines() if line.startswith("subiso:")]
    stuck = "backtrack-0 (blocked in C code), backtrack-1 (blocked in C code)"
    assert named == [f"subiso: the program ended while isolates were running: {stuck}, compute, paused"]
    assert "Fatal" not in program.err


@pytest.mark.parametrize("entry", ENTRIES)
def test_one_isolate_is_left_running(start, entry):
    """Each sort by itself ends with the program, without a complaint of CPython's."""
    program = start(RUNNING, "3", entry)
    program.finish()
    assert program.returncode == 3
    assert len(program.err.splitlines()) == 1, program.err


def test_nothing_is_said_where_nothing_ran(start):
    """A program whose isolates have ended ends silently."""
    program = start(
        """
        from subiso import Isolate
        print(Isolate.run(sum, [1, 2]).result())
        """
    ).finish()
    assert (program.returncode, program.out, program.err) == (0, "3\n", "")


def test_a_module_that_main_has_not_used(start):
    """A keyword-taking function of a compiled module that only an isolate called does not break main's end (3.12)."""
    program = start(
        """
        from subiso import Isolate

        def digest():
            import hashlib
            return hashlib.sha256(b"", usedforsecurity=True).hexdigest()

        print(len(Isolate.run(digest).result()))
        raise SystemExit(5)
        """
    ).finish()
    assert (program.returncode, program.out, program.err) == (5, "64\n", "")


def test_atexit_functions_run_and_output_is_flushed(start):
    """What main has registered and written is not lost, even where an isolate cannot be stopped."""
    program = start(
        """
    import atexit
    atexit.register(print, "registered before")
        """
        + RUNNING.replace("sys.exit", "atexit.register(print, 'registered after'); print('written', end=''); sys.exit"),
        "4",
        "sleep",
    ).finish()
    assert program.returncode == 4
    assert program.out == "ready\nwrittenregistered after\nregistered before\n"


def test_starting_at_the_end_is_an_error(start):
    """Once the program is ending no isolate can be started, and that is said."""
    program = start(
        """
        import atexit
        from subiso import Isolate, IsolateSpawnError

        def late():
            try:
                Isolate.run(len, "")
            except IsolateSpawnError as error:
                print(error)

        atexit.register(late)
        Isolate.run(len, "").result()
        """
    ).finish()
    assert program.returncode == 0, program.err
    assert "the program is ending" in program.out


WAITING = """
    import sys
    from subiso import Isolate, ReceivePort

    def forever():
        while True:
            pass

    try:
        if sys.argv[1] == "result":
            future = Isolate.run(forever)
            print("ready", flush=True)
            future.result()
        elif sys.argv[1] == "receive":
            with ReceivePort() as port:
                print("ready", flush=True)
                port.receive()
        else:
            isolate = Isolate.spawn(forever)
            print("ready", flush=True)
            isolate.join()
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(7)
"""


@pytest.mark.parametrize("call", ["result", "receive", "join"])
def test_ctrl_c_interrupts_what_waits(start, call):
    """Ctrl-C raises KeyboardInterrupt in whatever main waits in."""
    program = start(WAITING, call)
    program.expect("ready")
    program.wait_until_main_thread_sleeps()
    program.send_signal(signal.SIGINT)
    program.finish()
    assert (program.returncode, program.out) == (7, "interrupted\n"), program.err


LEFT = """
    import asyncio, re, sys, threading, time
    from subiso import Isolate, ReceivePort

    def hold_the_lock(hello):
        hello.send(1)
        re.match("(a*)*b", "a" * 30)  # C code that goes on for hours and lets nobody else run

    def leave_a_thread(hello):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        hello.send(1)

    def swallow(hello):
        hello.send(1)
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass

    async def sleep_in_a_loop(hello):
        hello.send(1)
        await asyncio.sleep(1000)

    def have_a_child(hello):
        Isolate.spawn(swallow, hello)
        Isolate.run(time.sleep, 1000).result()

    def fill_a_port(hello):
        port = ReceivePort(maxsize=1)
        port.send_port.send(1)
        hello.send(1)
        port.send_port.send(2)

    hello = ReceivePort()
    entry = globals()[sys.argv[1]]
    Isolate.spawn(entry, hello.send_port)
    hello.receive()
    sys.exit(4)
"""


@pytest.mark.parametrize(
    "entry", ["hold_the_lock", "leave_a_thread", "swallow", "sleep_in_a_loop", "have_a_child", "fill_a_port"]
)
def test_isolates_that_are_hard_to_end(start, entry):
    """A program ends in bounded time, with its exit code, whatever holds its isolates up."""
    begin = time.monotonic()
    program = start(LEFT, entry).finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == 4, program.err
    assert "the program ended while isolates were running: isolate-2" in program.err
    assert "Fatal" not in program.err


@pytest.mark.parametrize(
    ("ending", "codes", "said"),
    [
        ("sys.exit('a text')", {1}, "a text"),
        ("sys.exit(None)", {0}, ""),
        ("sys.exit(True)", {1}, ""),
        ("sys.exit(256 + 7)", {7}, ""),
        ("raise KeyboardInterrupt", {-2, 130}, "KeyboardInterrupt"),
        ("raise SystemExit(9)", {9}, ""),
        ("sys.exit(130)", {130}, ""),
        ("os._exit(8)", {8}, ""),
        ("asyncio.run(main())", {6}, ""),
        ("threading.Thread(target=time.sleep, args=(0.1,)).start(); sys.exit(5)", {5}, ""),
        ("no_such_name", {1}, "NameError"),
        ("compile('1 +', 'x', 'eval')", {1}, "SyntaxError"),
        ("future = Isolate.run(time.sleep, 1000); sys.exit(5)", {5}, "isolate-3"),
        ("[Isolate.spawn(int) for _ in range(20)]; sys.exit(5)", {5}, ""),
    ],
)
def test_exit_codes(start, ending, codes, said):
    """A program that has used isolates ends with the code that it would have had without them."""
    program = start(
        f"""
        import asyncio, os, sys, threading, time
        from subiso import Isolate

        async def main():
            await Isolate.run(int)
            sys.exit(6)

        Isolate.run(int).result()
        {ending}
        """
    ).finish()
    assert program.returncode in codes, program.err
    assert said in program.err
    assert "Fatal" not in program.err


def test_what_can_still_be_done_at_the_end(start):
    """An atexit function can receive what has come, and ask how things stand; nothing hangs."""
    program = start(
        """
        import atexit
        from subiso import Isolate, ReceivePort

        def send(port):
            port.send("late")

        def last():
            print(port.receive(1), isolate.is_alive, isolate.join(1), future.result(1), list(port), flush=True)
            port.close()

        port = ReceivePort()
        isolate = Isolate.spawn(send, port.send_port)
        future = Isolate.run(int)
        isolate.join()
        atexit.register(last)
        """
    ).finish()
    assert (program.returncode, program.out, program.err) == (0, "late False True 0 []\n", "")


WRITING = """
    import atexit, functools, logging, operator, sys, threading, time
    from subiso import Isolate, ReceivePort
    from subiso._kernel import nursery as nurseries

    def work(out):
        with ReceivePort() as port:
            out.send(port.send_port)
            port.receive()

    def block(out):
        lock = threading.Lock()
        lock.acquire()
        list(map(operator.call, [functools.partial(out.send, 1), lock.acquire]))  # no line of Python between the two

    begun, over = threading.Event(), threading.Event()
    atexit.register(over.set)  # before subiso's own, so it is called after it

    def write(what):
        \"\"\"Be at it when the program ends, and for a moment longer.\"\"\"
        begun.set()
        while not nurseries._nursery.closing:
            time.sleep(0.001)
        sys.stderr.write("too late" if over.wait(0.3) else "in time")

    with ReceivePort() as out:
        if sys.argv[1] == "a callback":
            future = Isolate.run(work, out.send_port)
            go = out.receive()
            future.add_done_callback(write)
            go.send(1)
        else:
            logging.getLogger("subiso").addFilter(write)
            isolate = Isolate.spawn(block, out.send_port)
            out.receive()
            isolate.kill()
    begun.wait()
    sys.exit(9)
"""


@pytest.mark.parametrize("writer", ["a callback", "a filter of the log"])
def test_what_writes_at_the_end_is_waited_for(script, writer):
    """Finalization aborts where a thread is stopped that has taken a stream's lock: none of subiso's is then."""
    program = script(WRITING, writer)
    assert program.returncode == 9, program.err
    assert "in time" in program.err
    assert "Fatal" not in program.err


@pytest.mark.parametrize("blocked", ["a callback", "a filter of the log"])
def test_what_never_returns_does_not_hold_up_the_end(start, blocked):
    """A callback or filter that blocks for ever in a thread of subiso's is given up."""
    program = start(WRITING.replace("while not nurseries._nursery.closing", "while True"), blocked)
    begin = time.monotonic()
    program.finish()
    assert time.monotonic() - begin < BOUND
    assert program.returncode == 9, program.err
    assert "Fatal" not in program.err


@pytest.mark.stress
@pytest.mark.parametrize("how", ["0", "3", "raise"])
@pytest.mark.parametrize("entries", [[entry] for entry in ENTRIES] + [ENTRIES], ids="-".join)
def test_ending_again_and_again(start, how, entries):
    """Fifty programs in a row end in time, with their exit codes, and without a complaint of CPython's."""
    for _ in range(50):
        program = start(RUNNING, how, *entries)
        program.expect("ready")
        begin = time.monotonic()
        program.finish()
        assert time.monotonic() - begin < BOUND
        assert program.returncode == {"0": 0, "3": 3, "raise": 1}[how], program.err
        assert len([line for line in program.err.splitlines() if line.startswith("subiso:")]) == 1
        assert "Fatal" not in program.err
