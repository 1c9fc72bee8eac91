"""Killing Python code that runs: whatever it does, it is unwound, and its interpreter can be used again."""

import opcode
import threading

import pytest

from subiso import Isolate, IsolateKilled, ReceivePort
from subiso._kernel import node as nodes
from subiso._kernel import nursery as nurseries
from subiso._kernel.interpreters import SIGNALS_DELIVER_EXCEPTIONS, UNGUARDED

LONG = 20  # seconds: the bound of a wait that should be over at once


def loop(port):
    try:
        port.send("running")
        while True:
            pass
    finally:
        port.send("finally")


def loop_that_swallows(port):
    port.send("running")
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def loop_that_catches_exceptions(port):
    try:
        while True:
            try:
                port.send("running")
                while True:
                    pass
            except Exception:
                pass
    finally:
        port.send("finally")


def sum_a_generator(port):
    import itertools

    try:
        port.send("running")
        sum(x for x in itertools.count())
    finally:
        port.send("finally")


def sort_with_a_key(port):
    try:
        port.send("running")
        while True:
            sorted(range(1_000_000), key=lambda x: -x)
    finally:
        port.send("finally")


def hold_a_lock(port):
    import threading

    lock = threading.Lock()
    try:
        port.send("running")
        with lock:
            while True:
                pass
    finally:
        port.send("finally" if lock.acquire(blocking=False) else "the lock is still held")


def recurse(port):
    def down():
        down()

    try:
        port.send("running")
        while True:
            try:
                down()
            except RecursionError:
                pass
    finally:
        port.send("finally")


def comprehend(port):
    try:
        port.send("running")
        while True:
            [x * x for x in range(1000)]
    finally:
        port.send("finally")


def match_forever(port):
    try:
        port.send("running")
        x = 1
        while x:
            x = x ^ 2 or 1
    finally:
        port.send("finally")


def clean_up_for_long(port):
    try:
        port.send("running")
        while True:
            pass
    finally:
        while True:  # is interrupted too
            pass


def import_endless_module(port):
    port.send("running")
    exec("while True: pass")


def run_threads(port):
    import threading

    def work():
        try:
            port.send("thread")
            while True:
                pass
        finally:
            port.send("finally")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    port.send("running")
    for thread in threads:
        thread.join()


async def await_forever(port):
    import asyncio

    try:
        port.send("running")
        await asyncio.sleep(1000)
    finally:
        port.send("finally")


async def await_busily(port):
    import asyncio

    try:
        port.send("running")
        while True:
            await asyncio.sleep(0)
    finally:
        port.send("finally")


async def await_and_swallow(port):
    import asyncio

    port.send("running")
    while True:
        try:
            await asyncio.sleep(1000)
        except BaseException:
            pass


async def compute_in_a_task(port):
    import asyncio

    async def compute():
        try:
            port.send("running")
            while True:
                pass
        finally:
            port.send("finally")

    await asyncio.gather(compute(), asyncio.sleep(1000))


def loop_on_one_line(port):
    try:
        port.send("running")
        while True: pass  # noqa: E701  # fmt: skip
    except BaseException:
        port.send("finally")
        raise


def handle_and_go_on(port):
    try:
        port.send("running")
        while True:
            try:
                int("x")
            except ValueError:
                continue
            finally:
                for _ in ():
                    break
                else:
                    pass
    finally:
        port.send("finally")


def resume_a_generator(port):
    import itertools

    def count():
        try:
            port.send("running")
            yield from itertools.count()
        finally:
            port.send("finally")

    for _ in count():
        pass


def log_the_end(port):
    """What `finally` does may be done by the standard library."""
    import logging

    try:
        port.send("running")
        while True:
            pass
    finally:
        logging.getLogger("killed").info("clean-up")
        port.send("finally")


def loop_in_the_standard_library(port):
    import random

    class Zero(random.Random):
        getrandbits = (0).__mul__  # is called with a number of bits: the sample never finds a second element

    try:
        port.send("running")
        Zero().sample(range(1_000_000), 2)
    finally:
        port.send("finally")


ENDLESS = [
    loop,
    loop_that_catches_exceptions,
    sum_a_generator,
    sort_with_a_key,
    hold_a_lock,
    recurse,
    comprehend,
    match_forever,
    loop_on_one_line,
    handle_and_go_on,
    resume_a_generator,
    log_the_end,
    await_forever,
    await_busily,
    compute_in_a_task,
    loop_in_the_standard_library,
]
WITHOUT_FINALLY = [loop_that_swallows, clean_up_for_long, import_endless_module, await_and_swallow]


@pytest.mark.dart("lib/kill_infinite_loop_in_initializer_test")
@pytest.mark.parametrize("entry", ENDLESS + WITHOUT_FINALLY, ids=lambda entry: entry.__name__)
def test_code_that_runs_is_stopped(entry):
    """Endless Python code is unwound, its `finally` blocks run, and nothing is reported as an error."""
    with ReceivePort() as port, ReceivePort() as ends:
        isolate = Isolate.spawn(entry, port.send_port, on_exit=ends.send_port, on_error=ends.send_port)
        assert port.receive(LONG) == "running"
        isolate.kill()
        assert isolate.join(LONG)
        assert list(port) == (["finally"] if entry in ENDLESS else [])
        assert list(ends) == [None]


def wait_for_an_event(port):
    import threading

    event = threading.Event()
    try:
        port.send("running")
        while True:
            event.wait()
    finally:
        port.send("finally")


def wait_for_a_queue(port):
    import queue

    try:
        port.send("running")
        while True:
            queue.Queue().get()
    finally:
        port.send("finally")


def sleep_on_a_loop_of_its_own(port):
    import asyncio

    async def sleep():
        try:
            port.send("running")
            while True:
                await asyncio.sleep(1000)
        finally:
            port.send("finally")

    asyncio.run(sleep())


def sleep_on_trio(port):
    import trio

    async def sleep():
        try:
            port.send("running")
            while True:
                await trio.sleep(1000)
        finally:
            port.send("finally")

    trio.run(sleep)


def sleep(port):
    import time

    try:
        port.send("running")
        while True:
            time.sleep(1000)
    finally:
        port.send("finally")


def read_from_a_pipe(port):
    import os

    reader, writer = os.pipe()
    try:
        port.send("running")
        while True:
            os.read(reader, 1)
    finally:
        port.send("finally")
        os.close(reader)
        os.close(writer)


IN_C = pytest.mark.skipif(not SIGNALS_DELIVER_EXCEPTIONS, reason="before 3.15 such isolates are abandoned")


@pytest.mark.parametrize(
    "entry",
    [
        wait_for_an_event,
        wait_for_a_queue,
        sleep_on_a_loop_of_its_own,
        sleep_on_trio,
        pytest.param(sleep, marks=IN_C),
        pytest.param(read_from_a_pipe, marks=IN_C),
    ],
    ids=lambda entry: entry.__name__,
)
def test_code_that_sleeps_is_woken(entry):
    """What waits elsewhere than in subiso is woken and unwound, and is not abandoned."""
    with ReceivePort() as port, ReceivePort() as ends:
        isolate = Isolate.spawn(entry, port.send_port, on_exit=ends.send_port, on_error=ends.send_port)
        assert port.receive(LONG) == "running"
        isolate.kill()
        assert isolate.join(LONG)
        assert not isolate.is_abandoned
        assert list(port) == ["finally"]
        assert list(ends) == [None]


def test_threads_are_stopped():
    """Every thread of a killed isolate is unwound, and its `finally` runs."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(run_threads, port.send_port)
        assert sorted(port.receive(LONG) for _ in range(3)) == ["running", "thread", "thread"]
        isolate.kill()
        assert isolate.join(LONG)
        assert list(port) == ["finally"] * 2


def test_the_exception_is_no_error_of_the_user():
    """What unwinds the code is an IsolateKilled, which `except Exception` does not catch."""

    def work(port):
        try:
            port.send("running")
            while True:
                pass
        except BaseException as error:
            port.send([type(error).__mro__[i].__name__ for i in range(2)])
            raise

    assert not issubclass(IsolateKilled, Exception)
    with ReceivePort() as port:
        isolate = Isolate.spawn(work, port.send_port)
        assert port.receive(LONG) == "running"
        isolate.kill()
        assert list(port) == [["IsolateKilled", "BaseException"]]


def look():
    """Return the slot, and who monitors the interpreter in it."""
    import sys

    return Isolate.current()._slot, [sys.monitoring.get_tool(i) for i in range(6)]


def wait_until_ready(slot):
    """Wait until the interpreter in a slot can be lent again."""
    nursery = nurseries._nursery
    with nursery._changed:
        assert nursery._changed.wait_for(lambda: nursery._berths[slot - 1].state == nurseries.IDLE, LONG)


@pytest.mark.parametrize("entry", [loop, sum_a_generator, await_forever], ids=lambda entry: entry.__name__)
def test_nothing_is_left_behind(entry):
    """After a kill the interpreter is used again, unmonitored, and code in it runs undisturbed."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(entry, port.send_port)
        assert port.receive(LONG) == "running"
        isolate.kill()
        assert isolate.join(LONG)
        wait_until_ready(isolate._slot)
        # The interpreter used last is lent first.
        assert Isolate.run(look).result(LONG) == (isolate._slot, [None] * 6)


def test_the_numbers_of_instructions():
    """They are noted for this version of Python, as it has them."""
    names = (name for name in opcode.opmap if name == "NOP" or name.startswith("JUMP_"))
    assert {number for name in names if (number := opcode.opmap[name]) < 256} == UNGUARDED


def test_tools_of_the_user():
    """An isolate that monitors itself can be killed, though it has taken every tool's place."""

    def work(port):
        import sys

        for tool in range(6):
            try:
                sys.monitoring.use_tool_id(tool, f"user-{tool}")
            except ValueError:
                pass
        port.send("running")
        while True:
            pass

    with ReceivePort() as port:
        isolate = Isolate.spawn(work, port.send_port)
        assert port.receive(LONG) == "running"
        isolate.kill()
        assert isolate.join(LONG)
    assert Isolate.run(look).result(LONG)[1] == [None] * 6


def test_kills_one_after_another():
    """Killing again and again, right after the start or later, leaves everything in working order."""
    with ReceivePort(end_with_senders=False) as port:
        for i in range(40):
            isolate = Isolate.spawn(ENDLESS[i % 3], port.send_port)
            if i % 2:
                while port.receive(LONG) != "running":
                    pass
            isolate.kill()
            assert isolate.join(LONG)
    assert Isolate.run(sum, [1, 2, 3]).result(LONG) == 6


def test_kills_at_once():
    """Several isolates can be killed at the same time, from several threads."""
    with ReceivePort() as port:
        isolates = [Isolate.spawn(loop, port.send_port) for _ in range(4)]
        assert [port.receive(LONG) for _ in isolates] == ["running"] * 4
        threads = [threading.Thread(target=isolate.kill) for isolate in isolates * 2]
        for thread in threads:
            thread.start()
        assert all(isolate.join(LONG) for isolate in isolates)
        for thread in threads:
            thread.join(LONG)
        assert list(port) == ["finally"] * 4


def test_a_kill_is_meant_for_one_isolate():
    """A kill that comes too late does not touch the isolate that lives in the interpreter now."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(loop, port.send_port)
        assert port.receive(LONG) == "running"
        isolate.kill()
        assert isolate.join(LONG)
        wait_until_ready(isolate._slot)
        assert port.receive(LONG) == "finally"
        with Isolate.spawn(loop, port.send_port) as successor:
            assert successor._slot == isolate._slot
            assert port.receive(LONG) == "running"
            nodes.current().kill(isolate._slot, isolate._number, isolate._terminate)
            assert Isolate.run(int).result(LONG) == 0
            assert successor.is_alive
