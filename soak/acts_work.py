"""Acts about work: runs, streams, pools, actors, supervisors, groups, and isolates that are paused and killed."""

import asyncio
import concurrent.futures
import contextlib
import functools
import random
import threading

import bodies
from plans import LONG, Ledger, ViolationError, act, check, draw_count, draw_kill, draw_seconds, draw_styles

from subiso import (
    Actor,
    Isolate,
    IsolateGroup,
    IsolateKilledError,
    IsolatePool,
    IsolateTimeoutError,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    ReceivePort,
    RemoteError,
    SendError,
    Supervisor,
    SupervisorError,
)

KINDS = ("value", "value", "value", "large", "raise", "sys.exit", "exit", "die", "nest", "nap", "endless", "wait")


def outcome_of(future):
    """Wait for a future, and return its outcome as a word and a value."""
    try:
        return "value", future.result(LONG)
    except concurrent.futures.CancelledError:
        return "cancelled", None
    except IsolateTimeoutError:
        return "timeout", None
    except IsolateKilledError:
        return "killed", None
    except bodies.PlannedError as error:
        return "raise", error.args[0]
    except SystemExit as error:
        return "sys.exit", error.code
    except RemoteError as error:
        if error.type_name != "subiso.Isolate.exit":
            raise
        return "exit", None


def check_outcome(task, outcome, disturbed):
    """Compare the outcome of a task with what it does and with what was done to it."""
    word, value = outcome
    kind, number = task["kind"], task["number"]
    allowed = {"raise": "raise", "sys.exit": "sys.exit", "exit": "exit", "die": "killed"}.get(kind, "value")
    words = {allowed, *disturbed} | ({"killed"} if kind == "exit" else set())  # in a pool it ends the worker
    if kind in ("endless", "wait"):
        words.discard("value")
    check(word in words, f"task {task} came out as {outcome!r:.200}; allowed was {words}")
    if word == "value":
        expected = {
            "large": lambda: bodies.load("large", number, number),
            "array": lambda: bodies.load("array", number, 2),
            "nest": lambda: [number, bodies.load("nested", number, number)],
            "nap": lambda: number,
        }.get(kind, lambda: bodies.load("nested", number, number))()
        check(bodies.is_load("array", number, 2, value) if kind == "array" else value == expected, f"{task}: {value!r}")
    elif word in ("raise", "sys.exit"):
        check(value == number, f"task {task} came out as {outcome!r}")


def _draw_task(choose):
    kind = choose.choice(KINDS)
    disturb = choose.choice([None, None, "cancel", "timeout"]) if kind not in ("endless", "wait") else "cancel"
    if kind in ("endless", "wait"):
        disturb = choose.choice(["cancel", "timeout"])
    return {
        "kind": kind,
        "number": choose.randint(0, 1000),
        "disturb": disturb,
        "after": draw_seconds(choose),
        "async": choose.random() < 0.3,
    }


def _draw_runs(choose):
    return {"tasks": [_draw_task(choose) for _ in range(choose.randint(1, 6))], "awaited": choose.random() < 0.3}


@act(4, _draw_runs)
def runs(stage, *, tasks, awaited):
    """Functions run in isolates of their own; each future comes out as its function, its time, or its owner wants."""

    def start():
        futures = []
        for task in tasks:
            timeout = task["after"] if task["disturb"] == "timeout" else None
            function = bodies.work_async if task["async"] else bodies.work
            future = Isolate.run(function, task["kind"], task["number"], timeout=timeout)
            futures.append(future)
            if task["disturb"] == "cancel":
                stage.later(task["after"], future.cancel)
        return futures

    stage.counts["isolates"] += len(tasks)
    if awaited:

        async def gather():
            futures = start()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wait([asyncio.ensure_future(_settle(one)) for one in futures]), LONG)
            return futures

        futures = asyncio.run(gather())
    else:
        futures = start()
    for task, future in zip(tasks, futures, strict=True):
        disturbed = {"cancel": {"cancelled"}, "timeout": {"timeout"}}.get(task["disturb"], set())
        check_outcome(task, outcome_of(future), disturbed)


async def _settle(future):
    with contextlib.suppress(BaseException):
        await future


def _draw_streams(choose):
    styles = draw_styles(choose)
    kill = draw_kill(choose, 0.0)
    return {
        "count": choose.choice([None, draw_count(choose, styles)]),
        "styles": styles,
        "ending": choose.choice(["return", "return", "raise", "sys.exit"]),
        "async": choose.random() < 0.3,
        "maxsize": choose.choice([1, 10, 1000]),
        "stop": choose.randint(0, 100),
        "pool": choose.random() < 0.4,
        "kill": kill,
    }


@act(3, _draw_streams)
def streams(stage, *, count, styles, ending, maxsize, stop, pool, kill, **how):
    """What a generator yields arrives in order, then what ended it; a stream that is closed ends its work."""
    ledger = Ledger(stage, styles)
    function = bodies.numbers_async if how["async"] else bodies.numbers
    stage.counts["isolates"] += 1
    taken, ended = 0, "stopped"
    with contextlib.ExitStack() as stack:
        open_stream = stack.enter_context(IsolatePool(1)).stream if pool else Isolate.stream
        with open_stream(function, 5, count, styles, ending, maxsize=maxsize) as items:
            try:
                for item in items:
                    ledger.take(item)
                    taken += 1
                    if count is None and taken >= stop:
                        break
                else:
                    ended = "return"
            except bodies.PlannedError:
                ended = "raise"
            except SystemExit:
                ended = "sys.exit"
    expected = "stopped" if count is None else ending
    check(ended == expected, f"a stream ended by {ended} instead of {expected}")
    ledger.settle(5, count if count is not None else taken, certain=True)
    ledger.close()


def _draw_pool(choose):
    tasks = [_draw_task(choose) for _ in range(choose.randint(0, 15))]
    maps = [
        {
            "items": choose.choice([0, 1, 50, 3000]),
            "chunksize": choose.choice([None, None, 1, 7]),
            "bad": choose.random() < 0.2,
            "stop": choose.choice([None, None, 3]),
        }
        for _ in range(choose.randint(0, 2))
    ]
    return {
        "workers": choose.randint(1, 3),
        "tasks": tasks,
        "maps": maps,
        "per_worker": choose.choice([None, None, None, 1, 4]),
        "resize": choose.choice([None, None, 1, 3]),
        "idle": choose.choice([None, None, 0.01]),
        "pending": choose.choice([None, None, 2]),
        "cancel": choose.random() < 0.15,
        "retries": choose.choice([0, 0, 1]),
    }


@act(5, _draw_pool)
def pools(stage, *, workers, tasks, maps, per_worker, resize, idle, pending, cancel, retries):
    """Every task of a pool has one outcome, its own; maps give every result in order; the end leaves nobody."""
    options = {"max_tasks_per_worker": per_worker, "idle_timeout": idle, "max_pending": pending}
    with IsolatePool(workers, **options) as pool:
        futures = []
        for task in tasks:
            timeout = task["after"] if task["disturb"] == "timeout" else None
            function = bodies.work_async if task["async"] else bodies.work
            if task["disturb"] == "cancel" and pending is not None:  # first: `run` may wait for its end
                task["after"] = min(task["after"], 0.05)
            future = pool.run(function, task["kind"], task["number"], timeout=timeout, retries=retries)
            futures.append(future)
            if task["disturb"] == "cancel":
                stage.later(task["after"], future.cancel)
        for job in maps:
            _map(pool, job)
            stage.counts["tasks"] += job["items"]
        if resize:
            pool.resize(resize)
        if cancel:
            pool.shutdown(wait=False, cancel_futures=True)
        outcomes = [outcome_of(future) for future in futures]
        pool.statistics()
    stage.counts["tasks"] += len(tasks)
    for task, outcome in zip(tasks, outcomes, strict=True):
        disturbed = {"cancel": {"cancelled"}, "timeout": {"timeout"}}.get(task["disturb"], set())
        check_outcome(task, outcome, disturbed | ({"cancelled"} if cancel else set()))


def _map(pool, job):
    items = list(range(job["items"]))
    if job["bad"] and items:
        items[len(items) // 2] = -1
    results = pool.map(bodies.square, items, chunksize=job["chunksize"])
    got = []
    try:
        for result in results:
            got.append(result)
            if len(got) == job["stop"]:
                break
    except bodies.PlannedError:
        check(job["bad"], "a map raised what nothing in it raises")
        check(len(got) == len(items) // 2, f"a map raised after {len(got)} results of {len(items)} // 2")
    else:
        check(not job["bad"] or job["stop"] or not items, "a map did not raise")
        check(job["stop"] or len(got) == len(items), f"a map gave {len(got)} results for {len(items)} items")
    check(got == [number * number for number in items[: len(got)]], "a map gave wrong results")
    results.close()


def _draw_actors(choose):
    return {
        "calls": choose.randint(0, 60),
        "callers": choose.randint(0, 2),
        "async": choose.random() < 0.4,
        "kill": draw_kill(choose, 0.3),
        "fails": choose.randint(0, 3),
    }


@act(3, _draw_actors)
def actors(stage, *, calls, callers, kill, fails, **how):
    """Calls of one caller are done once, and in order; those that a killed actor did not do say so."""
    actor = Actor.spawn(bodies.AsyncCounter if how["async"] else bodies.Counter, 0)
    stage.counts["isolates"] += 1 + callers
    if kill:
        stage.kill_later(actor.isolate, {**kill, "priority": 0})
    others = []
    with contextlib.suppress(SendError) if kill else contextlib.nullcontext():  # it has ended before it had a port
        others += [Isolate.run(bodies.call_actor, actor, f"isolate {n}", calls) for n in range(callers)]
    mine = [actor.add_later("main", 1) if how["async"] and n % 2 else actor.add("main", 1) for n in range(calls)]
    failing = [actor.fail(n) for n in range(fails)]
    answers = []
    for future in mine:
        with contextlib.suppress(IsolateKilledError):
            answers.append(future.result(LONG))
            stage.counts["messages"] += 2
    check(kill or len(answers) == calls, f"an actor answered {len(answers)} of {calls} calls")
    order = [before for _, before in answers]
    check(sorted(order) == list(range(len(order))), f"an actor did calls twice, or others not at all: {order}")
    totals = [total for total, _ in answers]
    check(how["async"] or totals == sorted(totals), f"an actor did calls out of order: {totals}")
    for number, future in enumerate(failing):
        word, value = outcome_of(future)
        check((word, value) == ("raise", number) or (kill and word == "killed"), f"call {number} was {word} {value}")
    for other in others:
        try:
            own = [before for _, before in other.result(LONG)]
            check(own == list(range(calls)), f"calls of another isolate were done in another order: {own}")
        except (IsolateKilledError, PortClosedError):
            check(kill, "the call of another isolate was not answered")
    if not kill:
        total, per_caller = actor.total().result(LONG)
        check(total == calls * (1 + callers) == sum(per_caller.values()), f"an actor counted {total}: {per_caller}")
        actor.stop()
    check(actor.join(LONG), "an actor did not end")


def _draw_supervisors(choose):
    return {
        "strategy": choose.choice(["one-for-one", "one-for-all", "rest-for-one"]),
        "children": choose.randint(1, 3),
        "orders": [(choose.randint(0, 2), choose.choice(["raise", "sys.exit", "die"])) for _ in range(4)],
        "give_up": choose.random() < 0.3,
    }


@act(2, _draw_supervisors)
def supervisors(stage, *, strategy, children, orders, give_up):
    """What ends is started again with those that belong to it, no more and no less; or the supervisor gives up."""
    most = 1 if give_up else 100
    starts = [1] * children
    how = orders[0][1]
    with ReceivePort(end_with_senders=False) as port:
        supervisor = Supervisor(strategy, max_restarts=most, within=1000)
        for number in range(children):
            supervisor.add(bodies.supervised, port.send_port, number, 1, how)
        supervisor.start()
        peers = dict(port.receive(LONG) for _ in range(children))
        failed = 0
        for place, _ in orders:
            place %= children
            failed += 1
            stage.counts["kills"] += how == "die"
            peers[place].send(0)
            if failed > most:
                break
            again = {"one-for-one": [place], "one-for-all": range(children), "rest-for-one": range(place, children)}
            for _ in again[strategy]:
                number, peer = port.receive(LONG)
                peers[number] = peer
            for number in again[strategy]:
                starts[number] += 1
        if failed > most:
            try:
                supervisor.join(LONG)
                raise ViolationError("a supervisor did not give up")
            except SupervisorError:
                pass
            with contextlib.suppress(SupervisorError):
                supervisor.stop()
        else:
            supervisor.stop()
        check([child.starts for child in supervisor.children] == starts, "children were started too often, or seldom")
        check(not any(child.is_alive for child in supervisor.children), "a child outlived its supervisor")
        with contextlib.suppress(PortEmpty):
            raise ViolationError(f"one more was started: {port.receive(0)!r}")
    stage.counts["isolates"] += sum(starts)


def _draw_groups(choose):
    return {
        "members": [choose.choice(["return", "return", "raise", "wait"]) for _ in range(choose.randint(1, 5))],
        "runs": choose.randint(0, 2),
        "body": choose.choice(["return", "raise"]),
        "async": choose.random() < 0.4,
    }


@act(2, _draw_groups)
def groups(stage, *, members, runs, body, **how):
    """A group ends when all its isolates have; the first failure ends the rest, and every failure is told."""
    if "wait" in members and "raise" not in members:
        body = "raise"
    stage.counts["isolates"] += len(members) + runs

    def fill(group, port):
        with contextlib.suppress(RuntimeError):  # it is ending already
            for number, kind in enumerate(members):
                group.spawn(bodies.member, port.send_port, number, kind)
            for number in range(runs):
                group.run(bodies.work, "value", number)
        if body == "raise":
            raise bodies.PlannedError("body")

    async def fill_async(port):
        async with IsolateGroup() as group:
            fill(group, port)

    with ReceivePort() as port:
        try:
            if how["async"]:
                asyncio.run(fill_async(port))
            else:
                with IsolateGroup() as group:
                    fill(group, port)
            failures = []
        except* (bodies.PlannedError, IsolateKilledError) as errors:
            failures = list(errors.exceptions)
        if members:
            seen = list(port)
            check(len(seen) == len({*seen}) and {*seen} <= {*range(len(members))}, f"members said {seen}")
    planned = body == "raise" or "raise" in members
    check(bool(failures) == planned, f"a group of {members} failed by {failures}")
    allowed = {number for number, kind in enumerate(members) if kind == "raise"} | {"body"}
    for error in failures:
        check(isinstance(error, IsolateKilledError) or error.args[0] in allowed, f"a group failed by {error!r}")


def _draw_pauses(choose):
    return {"how": choose.choice(list(bodies.ECHOES)), "turns": [choose.randint(1, 20) for _ in range(4)],
            "kill": choose.choice([None, None, "paused", "running"])}  # fmt: skip


@act(3, _draw_pauses)
def pauses(stage, *, how, turns, kill):
    """A paused isolate answers pings and handles nothing; resumed, it handles everything, in order."""
    ledger = Ledger(stage, ["nested"])
    sent = 0
    with ReceivePort(end_with_senders=False) as port, ReceivePort(end_with_senders=False) as pongs:
        isolate = Isolate.spawn(bodies.ECHOES[how], port.send_port)
        stage.counts["isolates"] += 1
        peer = port.receive(LONG)
        for turn, count in enumerate(turns):
            capability = isolate.pause()
            isolate.ping(pongs.send_port, turn)
            check(pongs.receive(LONG) == turn, "a ping was not answered")
            for _ in range(count):
                peer.send((3, sent, bodies.load("nested", 3, sent)))
                sent += 1
            if turn == 2 and kill == "paused":
                isolate.kill()
                check(isolate.join(LONG), "a paused isolate could not be killed")
                with contextlib.suppress(PortEmpty):
                    raise ViolationError(f"a paused isolate handled {port.receive(0)!r}")
                break
            isolate.ping(pongs.send_port, turn)
            check(pongs.receive(LONG) == turn, "a ping was not answered")
            with contextlib.suppress(PortEmpty):
                raise ViolationError(f"a paused isolate handled {port.receive(0)!r}")
            isolate.resume(capability)
            for _ in range(count):
                ledger.take(port.receive(LONG))
        else:
            if kill:
                stage.counts["kills"] += 1
                isolate.kill()
            else:
                peer.send(None)
        check(isolate.join(LONG), "an isolate did not end")
    ledger.settle(3, sent, certain=kill != "paused")


def _draw_victims(choose):
    return {
        "victims": [
            {"body": choose.choice(list(bodies.VICTIMS)), "begun": choose.random() < 0.5, "after": draw_seconds(choose)}
            for _ in range(choose.randint(1, 4))
        ]
    }


@act(4, _draw_victims)
def victims(stage, *, victims):
    """Whatever an isolate does, and whenever, a kill ends it, and runs its `finally` once."""
    for victim in victims:
        _kill(stage, **victim)


def _kill(stage, body, begun, after):
    stage.counts["isolates"] += 1
    stage.counts["kills"] += 1
    with ReceivePort() as port:
        isolate = Isolate.spawn(bodies.VICTIMS[body], port.send_port)
        said = [port.receive(LONG) for _ in range(2 if body == "threading_" else 1)] if begun else []
        threading.Event().wait(after)
        isolate.kill()
        check(isolate.join(LONG), f"{body} was not ended")
        said += port
        if isolate.is_abandoned:
            stage.counts["abandoned"] += 1
            return
    expected = {"stubborn": 0, "threading_": 2}.get(body, 1)
    unwound = said.count("unwound")
    check(unwound == expected if begun else unwound <= expected, f"{body} said {said}")
    check(said.count("begun") <= (2 if body == "threading_" else 1), f"{body} said {said}")


def _draw_sleepers(choose):
    return {"seconds": round(choose.uniform(1.5, 3.0), 2), "after": draw_seconds(choose)}


@act(0.3, _draw_sleepers)
def sleepers(stage, *, seconds, after):
    """An isolate that is blocked in C is given up, counts as ended, and is gone when the call returns."""
    stage.counts["isolates"] += 1
    stage.counts["kills"] += 1
    with ReceivePort() as port, ReceivePort() as ends:
        isolate = Isolate.spawn(bodies.sleeping, port.send_port, seconds, on_exit=ends.send_port)
        check(port.receive(LONG) == "begun", "")
        threading.Event().wait(after)
        isolate.kill()
        check(isolate.join(LONG), "a sleeping isolate was not given up")
        check(list(ends) == [None], "the end of a sleeping isolate was not told once")
        stage.counts["abandoned"] += isolate.is_abandoned


def _draw_asyncio(choose):
    styles = draw_styles(choose)
    return {
        "count": draw_count(choose, styles),
        "styles": styles,
        "cancel": choose.choice([None, draw_seconds(choose)]),
        "tasks": choose.randint(1, 5),
    }


@act(3, _draw_asyncio)
def loops(stage, *, count, styles, cancel, tasks):
    """In main's event loop: ports, futures and pools side by side, one of them cancelled in the middle."""
    ledger = Ledger(stage, styles)
    stage.counts["isolates"] += 2

    async def read():
        async with ReceivePort(maxsize=5) as port:
            isolate = Isolate.spawn(bodies.send_async, port.send_port, 2, count, styles, "return")
            async for message in port:
                ledger.take(message)
            await isolate.ajoin()

    async def wait_for_ever():
        with contextlib.suppress(asyncio.CancelledError):
            await Isolate.run(bodies.work, "wait", 1)
            raise ViolationError("what waits for ever has returned")

    async def use_pool():
        async with IsolatePool(2) as pool:
            futures = [await pool.asubmit(bodies.work_async, "value", n) for n in range(tasks)]
            for number, future in enumerate(futures):
                check(await future == bodies.load("nested", number, number), "a pool gave a wrong result")

    async def main():
        waiting = asyncio.ensure_future(wait_for_ever())
        both = asyncio.gather(read(), use_pool())
        await asyncio.sleep(cancel or 0)
        if cancel is not None:
            waiting.cancel()
        await asyncio.wait_for(both, LONG)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    ledger.settle(2, count, certain=True)
    ledger.close()


def _draw_shared_handles(choose):
    return {"threads": choose.randint(2, 4), "seed": choose.getrandbits(32), "tasks": choose.randint(1, 20)}


@act(2, _draw_shared_handles)
def threads(stage, *, threads, seed, tasks):
    """Many threads of main use one pool and one port at once; every task and message is somebody's, once."""
    results: list = []
    taken: list = []
    with ReceivePort(maxsize=4) as port, IsolatePool(2) as pool:

        def use(number):
            choose = random.Random(seed + number)
            futures = [pool.submit(bodies.square, number * 1000 + n) for n in range(tasks)]
            for future in choose.sample(futures, len(futures)):
                results.append(future.result(LONG))
            with contextlib.suppress(NoSendersError, PortClosedError):
                while True:
                    taken.append(port.receive(LONG)[1])

        isolate = Isolate.spawn(bodies.send, port.send_port, 1, tasks * 5, ["int"], "return")
        users = [functools.partial(use, number) for number in range(threads)]
        with concurrent.futures.ThreadPoolExecutor(threads) as executor:
            for done in [executor.submit(user) for user in users]:
                done.result()
        isolate.join(LONG)
    stage.counts["isolates"] += 3
    stage.counts["messages"] += len(taken)
    stage.counts["tasks"] += threads * tasks
    expected = sorted((number * 1000 + n) ** 2 for number in range(threads) for n in range(tasks))
    check(sorted(results) == expected, "threads that share a pool got other results")
    check(sorted(taken) == list(range(tasks * 5)), f"threads that share a port got {len(taken)} of {tasks * 5}")
