"""The end of a program: bounded, with its exit code, whatever its isolates do."""

import signal
import time

import pytest

BOUND = 3 + 7  # seconds: what is promised, and what a busy machine may take to start Python and four isolates

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
    assert named == [
        "subiso: the program ended while isolates were running: compute, sleep (blocked in C code), wait, listen"
    ]
    assert ("main's own" in program.err) == (how == "raise")
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
