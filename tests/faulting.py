"""Try every fault at every step of every operation, and tell what came out.

``python tests/faulting.py --json docs/reference/faults/3.14.json`` tries all; ``--points``, ``--operations`` and
``--kinds`` choose. Each fault is put in, the operation is done, and then it is checked that isolates, ports and pools
work and that nothing is left: no thread, descriptor, isolate or port. This runs in a process of its own, which is
replaced when it crashes, hangs or does not come clean.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import functools
import gc
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from subiso import Actor, Buffer, Isolate, IsolateGroup, IsolatePool, ReceivePort, Supervisor
from subiso._kernel import faults
from subiso._kernel import node as nodes
from subiso._kernel import nursery as nurseries
from subiso._kernel.arena import Arena

LONG = 8.0  # seconds: the bound of a wait that should be over at once
HUNG = 45  # seconds for one trial
MODULE = "subiso_faults_module"  # a module of the user's, imported anew by each isolate


class Told(Exception):
    """What an error listener was told of."""


class Ended(Exception):
    """An isolate has ended without doing what it was to do; it was killed, or stderr says why."""


class Hung(Exception):
    """Something did not come in time."""


class Wrong(Exception):
    """Something came that was not sent."""


# -- what isolates do --------------------------------------------------------------------------------------------------


def add(one, other):
    return one + other


def say(out, what="said"):
    out.send(what)


def import_module(out):
    import subiso_faults_module

    out.send(subiso_faults_module.WORD)


def import_extension(out):
    import msgspec

    out.send(msgspec.json.decode(msgspec.json.encode([1, "a"])))


def run_nested(one, other):
    return Isolate.run(add, one, other).result(LONG)


def count(number):
    yield from range(number)


def echo(out):
    with ReceivePort() as port:
        out.send(port.send_port)
        for message in port:
            out.send(message)


def send_many(out, number):
    for i in range(number):
        out.send((i, "x" * 500))


def answer(out):
    with ReceivePort() as port:
        out.send(port.send_port)
        for request in port:
            request.reply(request.message * 2)


def listen(out):
    port = ReceivePort()
    out.send(port.send_port)
    port.listen(out.send)


def loop(out):
    out.send("running")
    while True:
        pass


def leave(out):
    try:
        Isolate.exit(out, "final")
    finally:
        try:
            out.send("finally")
        except Exception as error:
            out.send([type(error).__name__, "in finally"])


def start_thread(out):
    thread = threading.Thread(target=out.send, args=("from a thread",))
    thread.start()
    thread.join()


class Tally:
    def __init__(self):
        self.total = 0

    def add(self, number):
        self.total += number
        return self.total


# -- operations: each does something whole, and raises what comes of a fault -------------------------------------------


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise Wrong(f"{found!r} instead of {wanted!r}")


def spawn_and_collect(entry: Callable[..., object], *args: object, wanted: list[Any], **options: Any) -> None:
    """Spawn an isolate, and take what it sends and what its listeners are told, to the end."""
    with ReceivePort[Any]() as out, ReceivePort[Any]() as ends:
        isolate = Isolate.spawn(entry, out.send_port, *args, on_exit=ends.send_port, on_error=ends.send_port, **options)
        try:
            if not isolate.join(LONG):
                raise Hung("join")
            found, told = drain(out), drain(ends)
        finally:
            isolate.kill()
    for error in [*told, *found]:
        if isinstance(error, list) and len(error) == 2 and isinstance(error[0], str):
            raise Told(error[0])
    if told == [] and found == wanted:
        raise Ended("nobody was told of the end")
    if found != wanted and (found == wanted[: len(found)]):
        raise Ended(f"after {len(found)} of {len(wanted)} messages")
    expect(found, wanted)


def drain(port: ReceivePort[Any]) -> list[Any]:
    """Take what has come, without waiting: the isolate has ended."""
    found = []
    try:
        while True:
            found.append(port.receive(LONG))
    except TimeoutError:
        raise Hung("a port whose senders have ended") from None
    except EOFError:
        return found


def do_spawn() -> None:
    spawn_and_collect(say, wanted=["said"])


def do_fresh() -> None:
    spawn_and_collect(say, wanted=["said"], fresh=True)


def do_import() -> None:
    spawn_and_collect(import_module, wanted=["word"])


def do_extension() -> None:
    spawn_and_collect(import_extension, wanted=[[1, "a"]], fresh=True)


def do_run() -> None:
    expect(Isolate.run(add, 1, 2).result(LONG), 3)


def do_run_large() -> None:
    data = os.urandom(1_200_000)
    expect(Isolate.run(add, data, b"!").result(LONG), data + b"!")


def do_nested() -> None:
    expect(Isolate.run(run_nested, 1, 2).result(LONG), 3)


def do_async() -> None:
    async def main() -> None:
        expect(await asyncio.wait_for(Isolate.run(add, 1, 2), LONG), 3)
        with ReceivePort[Any]() as out:
            with Isolate.spawn(say, out.send_port):
                expect(await asyncio.wait_for(out.areceive(), LONG), "said")

    asyncio.run(main())


def do_stream() -> None:
    with Isolate.stream(count, 20, maxsize=4) as stream:
        expect(list(stream), list(range(20)))


def do_submit() -> None:
    with IsolatePool(1) as pool:
        expect(pool.submit(add, 1, 2).result(LONG), 3)


def do_map() -> None:
    with IsolatePool(2) as pool:
        expect(list(pool.map(functools.partial(add, 1), range(40), timeout=LONG)), list(range(1, 41)))


def do_actor() -> None:
    with Actor.spawn(Tally) as tally:
        first = tally.add(1)
        expect((first.result(LONG), tally.add(2).result(LONG)), (1, 3))


def do_messages() -> None:
    with ReceivePort[Any]() as out:
        with Isolate.spawn(echo, out.send_port):
            port = out.receive(LONG)
            for message in (1, "two", [3, {"four": 5.0}], None):
                port.send(message)
                expect(out.receive(LONG), message)


def do_large() -> None:
    with ReceivePort[Any]() as out:
        with Isolate.spawn(echo, out.send_port):
            port = out.receive(LONG)
            message = os.urandom(1_200_000)
            port.send(message)
            expect(out.receive(LONG), message)
            buffer = Buffer(100)
            with memoryview(buffer) as view:
                view[0] = 7
            port.send(buffer)
            expect(bytes(out.receive(LONG))[:2], b"\7\0")


def do_burst() -> None:
    spawn_and_collect(send_many, 300, wanted=[(i, "x" * 500) for i in range(300)])


def do_bounded() -> None:
    with ReceivePort[Any](maxsize=2) as out, ReceivePort[Any]() as ends:
        isolate = Isolate.spawn(send_many, out.send_port, 20, on_exit=ends.send_port, on_error=ends.send_port)
        with isolate:
            found = drain(out)
            if not isolate.join(LONG):
                raise Hung("join")
        for error in drain(ends):
            if isinstance(error, list):
                raise Told(error[0])
    if len(found) < 20:
        raise Ended(f"after {len(found)} of 20 messages")
    expect([message[0] for message in found], list(range(20)))


def do_typed() -> None:
    with ReceivePort(list[int]) as out:
        with Isolate.spawn(say, out.send_port, [1, 2]):
            expect(out.receive(LONG), [1, 2])


def do_request() -> None:
    with ReceivePort[Any]() as out:
        with Isolate.spawn(answer, out.send_port):
            expect(out.receive(LONG).request(21, timeout=LONG), 42)


def do_listen() -> None:
    with ReceivePort[Any]() as out:
        with Isolate.spawn(listen, out.send_port):
            port = out.receive(LONG)
            port.send("heard")
            expect(out.receive(LONG), "heard")


def do_pause() -> None:
    with ReceivePort[Any]() as out:
        with Isolate.spawn(echo, out.send_port, paused=True) as isolate:
            isolate.resume(isolate.pause_capability)
            port = out.receive(LONG)
            capability = isolate.pause()
            isolate.ping(out.send_port, "here")
            expect(out.receive(LONG), "here")  # which says that it is paused
            port.send("later")
            isolate.resume(capability)
            expect(out.receive(LONG), "later")


def do_kill() -> None:
    with ReceivePort[Any]() as out, ReceivePort[Any]() as ends:
        isolate = Isolate.spawn(loop, out.send_port, on_exit=ends.send_port, on_error=ends.send_port)
        try:
            expect(out.receive(LONG), "running")
        finally:
            isolate.kill()
        if not isolate.join(LONG):
            raise Hung("join")
        for error in drain(ends):
            if isinstance(error, list):
                raise Told(error[0])


def do_timeout() -> None:
    with ReceivePort[Any]() as out:
        future = Isolate.run(loop, out.send_port, timeout=0.02)
        error = future.exception(LONG)
    if type(error).__name__ != "IsolateTimeoutError":
        raise error if error is not None else Wrong("no error")


def do_cancel() -> None:
    with ReceivePort[Any]() as out:
        future = Isolate.run(loop, out.send_port)
        try:
            expect(out.receive(LONG), "running")
        finally:
            future.cancel()
        if not future.cancelled():
            future.result(0)


def do_exit() -> None:
    spawn_and_collect(leave, wanted=["finally", "final"])


def do_thread() -> None:
    spawn_and_collect(start_thread, wanted=["from a thread"])


def do_group() -> None:
    with IsolateGroup() as group, ReceivePort[Any]() as out:
        future = group.run(add, 1, 2)
        group.spawn(say, out.send_port)
        expect((future.result(LONG), out.receive(LONG)), (3, "said"))


def do_supervise() -> None:
    with ReceivePort[Any](end_with_senders=False) as out:
        with Supervisor(max_restarts=3) as supervisor:
            supervisor.add(say, out.send_port, restart="transient")
            try:
                expect(out.receive(LONG), "said")
            except TimeoutError:
                if not supervisor.join(0.1):
                    raise
                raise Ended("the supervisor") from None
            if not supervisor.join(LONG):
                raise Hung("the supervisor")


OPERATIONS: dict[str, Callable[[], None]] = {
    name.removeprefix("do_"): value for name, value in list(globals().items()) if name.startswith("do_")
}


# -- what must hold afterwards -----------------------------------------------------------------------------------------


def check_that_all_works(pools: bool = True) -> None:
    """Use isolates, ports and a pool."""
    expect(Isolate.run(add, 20, 3).result(LONG), 23)
    with ReceivePort[Any]() as out:
        isolate = Isolate.spawn(echo, out.send_port)
        port = out.receive(LONG)
        port.send("afterwards")
        expect(out.receive(LONG), "afterwards")
        isolate.kill()
        expect(isolate.join(LONG), True)
    if pools:
        with IsolatePool(1) as pool:
            expect(pool.submit(add, 1, 1).result(LONG), 2)


class Left(NamedTuple):
    """What there is."""

    ports: frozenset[int]
    threads: frozenset[str]
    descriptors: "Counter[str]"
    native: int  # threads of the system beside one for each of main's threads and interpreters


def look() -> Left:
    """Return what there is at this moment."""
    node, nursery = nodes.current(), nurseries._nursery
    assert nursery is not None
    node.mailbox.pump()
    kernel = {berth.thread for berth in nursery._berths}
    threads = [one for one in threading.enumerate() if one not in kernel]
    descriptors = Counter(map(kind_of, os.listdir("/proc/self/fd")))
    del descriptors["not counted"]
    words = node.arena.words
    for slot in range(len(nursery._berths) + 1):  # a bounded port's place keeps its descriptor for ever
        first = Arena.port(slot << 53 | 16)
        descriptors["anon_inode:[eventfd]"] -= sum(words[first + 2 * place + 1] != 0 for place in range(64))
    live = sum(berth.state == nurseries.IDLE for berth in nursery._berths)
    for kind, for_each in (("anon_inode:[eventfd]", 1), ("pipe", 2)):
        descriptors[kind] -= for_each * len(nursery._berths)
    # Ears are made when somebody first blocks, or first waits in an event loop: two for each interpreter at most.
    descriptors["anon_inode:[eventpoll]"] = max(descriptors["anon_inode:[eventpoll]"] - 2 * len(nursery._berths) - 2, 0)
    native = len(os.listdir("/proc/self/task")) - len(threads) - 2 * live
    return Left(frozenset(node.mailbox.inboxes), frozenset(one.name for one in threads), descriptors, native)


def kind_of(descriptor: str) -> str:
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return "not counted"
    if target.startswith(("/memfd:subiso (", "/memfd:subiso-segment")):
        return "not counted"  # the shared memory, once for each interpreter on 3.12; where a stream goes on, bounded
    return "pipe" if target.startswith("pipe:") else target


def segments() -> int:
    """Return how many memory files streams go on in."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:subiso-segment")
        except OSError:
            pass
    return found


def isolates_left() -> list[str]:
    """Name the isolates that have not ended, or whose interpreters are not yet ready for others."""
    nursery = nurseries._nursery
    assert nursery is not None
    names = [
        f"{one.name} ({one.state})" for one in nursery._berths if one.state not in (nurseries.IDLE, nurseries.GONE)
    ]
    names += [
        f"{one.name} (its thread)"
        for one in nursery._berths
        if one.state == nurseries.GONE and one.thread is not None and one.thread.is_alive()
    ]
    words = nodes.current().arena.words
    for berth in nursery._berths:
        if words[Arena.home(berth.slot)]:
            names.append(f"{berth.name} (alive)")
        first = Arena.port(berth.slot << 53 | 16)
        if any(words[first + 2 * place] for place in range(64)):
            names.append(f"{berth.name} (open ports)")
    return names


def wait_until_clean(before: Left) -> str:
    """Wait until nothing is left but what there was; return what is left after a long time."""
    deadline = time.monotonic() + LONG
    for looks in itertools.count():
        if looks in (3, 30, 300):
            gc.collect()  # a forgotten port may be part of a cycle
        left = isolates_left()
        now = look()
        problems = [
            left and f"isolates: {left}",
            now.ports - before.ports and f"ports: {[hex(one) for one in now.ports - before.ports]}",
            now.threads - before.threads and f"threads: {now.threads - before.threads}",
            now.descriptors - before.descriptors and f"descriptors: {dict(now.descriptors - before.descriptors)}",
            now.native > before.native and f"native threads: {now.native - before.native}",
        ]
        found = "; ".join(str(one) for one in problems if one)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.002)
    raise AssertionError


# -- trials ------------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """One fault at one step of one operation."""

    operation: str
    point: str
    where: str  # "main" or "isolate"
    kind: str


def kinds_of(point: str, where: str) -> list[str]:
    """Return what may happen at a step."""
    if point.startswith("thread."):
        return ["thread"]
    kinds = ["exception"]
    if where == "isolate" or point.startswith(("spawn.", "control.main", "retire.")):  # main works for an isolate there
        kinds += ["kill"]
    if point in ("import.copy", "import.directory", "import.file", "import.write"):
        kinds += ["disk", "descriptors"]
    if point in ("memory.file", "memory.map", "send.segment"):
        kinds += ["mapping", "descriptors"]
    if point in ("memory.region", "send.large", "encode.pickle", "receive.decode", "spawn.create"):
        kinds += ["memory"]
    if point in ("descriptors.doorbell", "descriptors.eventfd", "spawn.descriptors", "import.layout", "import.code"):
        kinds += ["descriptors"]
    return kinds


def attempt(trial: Trial, before: Left) -> dict[str, Any]:
    """Make a trial, and return what came out."""
    put_in = faults.of_process()
    put_in.put_in(trial.kind, trial.point, in_main=trial.where == "main")
    killer = threading.Thread(target=kill_at_meeting, args=(put_in,), name="killer") if trial.kind == "kill" else None
    over.clear()
    went_on.clear()
    if killer is not None:
        killer.start()
    try:
        OPERATIONS[trial.operation]()
        outcome, text = "done", ""
    except BaseException as error:
        outcome, text = describe(error)
        del error
    if trial.point.startswith(("exit.", "recycle.", "retire.", "start.body", "thread.body")):
        deadline = time.monotonic() + 2
        while isolates_left() and time.monotonic() < deadline:  # which come to that step after the operation
            time.sleep(0.001)
    fired = put_in.take_out()
    over.set()
    if killer is not None:
        killer.join()
        if fired and not went_on.is_set() and put_in.await_meeting(LONG):  # somebody has come when all was over
            put_in.go_on()
    problem = ""
    try:
        if outcome in ("hung", "wrong"):
            raise Hung(text) if outcome == "hung" else Wrong(text)
        check_that_all_works(trial.kind != "kill")
        problem = wait_until_clean(before)
    except BaseException as error:
        problem = f"afterwards: {type(error).__name__}: {error}"
    return {"outcome": outcome, "text": text, "fired": fired, "problem": problem}


over, went_on = threading.Event(), threading.Event()


def kill_at_meeting(put_in: "faults.Faults") -> None:
    """Kill the isolate that comes to the step; where main comes to it, all there are."""
    while not over.is_set():
        met = put_in.await_meeting(0.02)
        if met is None:
            continue
        node, nursery = nodes.current(), nurseries._nursery
        assert nursery is not None
        words = node.arena.words
        slots = [met[0]] if met[0] else range(1, len(nursery._berths) + 1)
        for slot in slots:
            number = words[Arena.home(slot)]
            if number:
                node.kill(slot, number, node.arena.capabilities(slot)[1])
        put_in.go_on()
        went_on.set()
        return


def describe(error: BaseException) -> tuple[str, str]:
    """Return in a word what has come of it, and the error's text."""
    text = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, Hung) or (isinstance(error, TimeoutError) and type(error).__name__ != "IsolateTimeoutError"):
        return "hung", text
    if isinstance(error, (Wrong, AssertionError)):
        return "wrong", text
    if isinstance(error, Told):
        return f"told: {str(error).partition(':')[0]}", text
    if isinstance(error, Ended):
        return "ended", text
    if isinstance(error, BaseExceptionGroup):
        return describe(error.exceptions[0])
    return type(error).__name__, text


CLEAR = (
    "done",
    "ended",
    *("FaultError", "OSError", "MemoryError", "RuntimeError", "ImportError", "PermissionError"),
    *("IsolateSpawnError", "IsolateKilledError", "BrokenIsolatePool", "NoSendersError", "PortClosedError"),
    *("RemoteError", "SendError", "SupervisorError", "CancelledError"),
)


def verdict(trial: Trial, found: dict[str, Any]) -> str:
    """Return what is wrong with an outcome; nothing if it is a clear error, or none, and a working library."""
    if found["problem"]:
        return found["problem"]
    outcome = found["outcome"].rpartition(".")[2].removeprefix("told: ")
    if outcome == "SendError" and trial.kind == "kill":
        return "a kill is no reason not to send"
    if outcome not in CLEAR:
        return f"no clear error: {found['text']}"
    if outcome == "ended" and trial.kind != "kill" and not found["stderr"].strip():
        return "nobody was told why"
    return ""


# -- the process that makes trials -------------------------------------------------------------------------------------


def prepare() -> Left:
    """Do every operation once or twice, so that all there is for ever is there."""
    nurseries.Limits.spares = 0
    directory = tempfile.mkdtemp()
    Path(directory, f"{MODULE}.py").write_text("WORD = 'word'\n")
    sys.path.insert(0, directory)
    faults.of_process()
    for _ in range(2):
        for name, operation in OPERATIONS.items():
            try:
                operation()
            except BaseException as error:
                raise RuntimeError(f"{name} fails without a fault") from error
    check_that_all_works()
    deadline = time.monotonic() + LONG
    while isolates_left() and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()
    return look()


def discover() -> None:
    """Print which steps each operation reaches."""
    prepare()
    put_in = faults.of_process()
    for name, operation in OPERATIONS.items():
        found: dict[str, str] = {}
        for _ in range(2):  # steps that are only reached at once, or only in another order
            nurseries._nursery and nurseries._nursery.retire_idle(LONG)
            for _ in range(2):  # with a new interpreter, and with one that was used
                put_in.put_in(faults.MARK, *faults.POINTS)
                operation()
                while isolates_left():
                    time.sleep(0.002)
                for point, where in put_in.marks().items():
                    found[point] = where if found.get(point, where) == where else "both"
        put_in.take_out()
        tell({"operation": name, "reached": found})


def tell(what: object) -> None:
    os.write(3, json.dumps(what).encode() + b"\n")


def work() -> None:
    """Make the trials that stdin lists, and tell of each."""
    faulthandler.dump_traceback_later(4 * HUNG, exit=True)  # its thread is one of those that there are
    before = prepare()
    for line in sys.stdin:
        trial = Trial(*json.loads(line))
        tell({"begin": trial})
        faulthandler.dump_traceback_later(HUNG, exit=True)
        begin = os.fstat(2).st_size
        found = attempt(trial, before)
        tell({"trial": trial, "found": found, "written": [begin, os.fstat(2).st_size]})
        if found["problem"]:
            os._exit(9)
    if segments() > 2 * len(nurseries._nursery._berths) ** 2:  # type: ignore[union-attr]
        tell({"leak": f"{segments()} segments"})
    os._exit(0)


class Process:
    """A process that makes trials."""

    def __init__(self, what: str) -> None:
        reader, writer = os.pipe()
        self.errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        root = Path(__file__).parent
        code = (
            f"import os, sys; os.dup2({writer}, 3); sys.path.insert(0, {str(root)!r}); import faulting as f; f.{what}()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", code],
            stdin=subprocess.PIPE,
            stderr=self.errors,
            pass_fds=[writer],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root.parent), os.environ.get("PYTHONPATH", "")])},
        )
        os.close(writer)
        self.told = os.fdopen(reader)

    def stderr(self, begin: int = 0, end: int | None = None) -> str:
        """Return what was written from one place to another."""
        end = os.fstat(self.errors.fileno()).st_size if end is None else end
        return os.pread(self.errors.fileno(), end - begin, begin).decode("utf-8", "replace")

    def close(self) -> int:
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it has not read all of its trials
                self.process.stdin.close()
        code = self.process.wait()
        self.told.close()
        self.errors.close()
        return code


def reached() -> dict[str, dict[str, str]]:
    """Return which steps each operation reaches."""
    process = Process("discover")
    found = {}
    for line in process.told:
        one = json.loads(line)
        found[one["operation"]] = one["reached"]
    errors = process.stderr()
    if process.close() or len(found) < len(OPERATIONS):
        raise SystemExit(f"discovery failed: {errors}")
    return found


def trials(found: dict[str, dict[str, str]], options: argparse.Namespace) -> Iterator[Trial]:
    """Yield what is to be tried."""
    for point in faults.POINTS:
        for operation, points in found.items():
            if point not in points or not chosen(options, point, operation):
                continue
            sides = ("main", "isolate") if points[point] == "both" else (points[point],)
            for where in sides:
                for kind in kinds_of(point, where):
                    if not options.kinds or kind in options.kinds:
                        yield Trial(operation, point, where, kind)


def chosen(options: argparse.Namespace, point: str, operation: str) -> bool:
    return (not options.points or any(point.startswith(one) for one in options.points)) and (
        not options.operations or operation in options.operations
    )


def make(todo: list[Trial]) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Make trials, in one process after another, and yield what came out of each."""
    while todo:
        process = Process("work")
        done, current = 0, None
        feed = "".join(json.dumps(trial) + "\n" for trial in todo).encode()
        threading.Thread(target=_feed, args=(process, feed), daemon=True).start()
        for line in process.told:
            one = json.loads(line)
            if "begin" in one:
                current = Trial(*one["begin"])
            elif "trial" in one:
                found = one["found"]
                found["stderr"] = process.stderr(*one["written"])[-3000:]
                done, current = done + 1, None
                yield todo[done - 1], found
        errors, code = process.stderr(), process.close()
        if current is not None:
            what = "hung" if "Timeout (" in errors else f"crashed with {code}"
            yield current, {"outcome": what, "text": "", "fired": 1, "problem": what, "stderr": errors[-6000:]}
            done += 1
        elif not done:
            raise SystemExit(f"the process fails by itself: {errors}")
        todo = todo[done:]


def summary(report: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what came out, as docs/faults.py wants it: step, fault and outcome -> operations."""
    steps: dict[str, dict[str, dict[str, list[str]]]] = {}
    for one in report:
        outcome = one["outcome"].replace("subiso._kernel.faults.", "")
        if one["wrong"]:
            outcome = f"WRONG: {one['wrong']}"
        elif not one["fired"]:
            outcome = "not reached"
        where = steps.setdefault(f"{one['point']} {one['where']}", {})
        where.setdefault(one["kind"], {}).setdefault(outcome, []).append(one["operation"])
    return {
        "python": platform.python_version(),
        "trials": len(report),
        "fired": sum(one["fired"] > 0 for one in report),
        "wrong": sum(bool(one["wrong"]) for one in report),
        "steps": steps,
    }


def _feed(process: Process, text: bytes) -> None:
    try:
        assert process.process.stdin is not None
        process.process.stdin.write(text)
        process.process.stdin.close()
    except (OSError, ValueError):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("points", "operations", "kinds"):
        parser.add_argument(f"--{option}", type=lambda text: text.split(","), default=[])
    parser.add_argument("--json", type=Path, help="write what came out to this file")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    found = reached()
    todo = list(trials(found, options))
    print(f"Python {platform.python_version()}: {len(todo)} trials", flush=True)
    report, wrong, begin = [], 0, time.monotonic()
    for trial, came in make(todo):
        problem = verdict(trial, came)
        report.append({**trial._asdict(), **{key: came[key] for key in ("outcome", "text", "fired")}, "wrong": problem})
        if problem:
            wrong += 1
            print(*trial, came["outcome"], "WRONG:", problem, flush=True)
            if options.verbose:
                print(came["stderr"], flush=True)
        elif options.verbose:
            print(*trial, came["outcome"], came["fired"], came["text"], flush=True)
    print(f"{len(report)} trials, {wrong} wrong, in {time.monotonic() - begin:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(summary(report), indent=1) + "\n")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    import faulting

    faulting.main()
