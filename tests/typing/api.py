"""What type checkers make of the public names; it is checked, never run.

``assert_type`` says what must be inferred without a cast. A ``type: ignore`` marks a mistake: a checker that does not
see it complains of a needless comment.
"""

import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, assert_type

import msgspec

import subiso
from subiso import (
    Actor,
    Buffer,
    Capability,
    Child,
    Isolate,
    IsolateFuture,
    IsolateGroup,
    IsolatePool,
    MapIterator,
    ReceivePort,
    RemoteError,
    Request,
    SendPort,
    SingleResponseChannel,
    Statistics,
    Stream,
    Subscription,
    Supervisor,
    Transferable,
    aselect,
    asingle_response,
    compute,
    lookup,
    select,
    single_response,
    worker_state,
)


class Progress(msgspec.Struct):
    """A message."""

    percent: int


def square(x: int) -> int:
    return x * x


def join_words(first: str, second: str = "") -> str:
    return first + second


def no_result(port: SendPort) -> None:
    port.send(1)


async def asquare(x: int) -> int:
    return x * x


def numbers(limit: int) -> Iterator[int]:
    yield from range(limit)


async def anumbers(limit: int) -> AsyncIterator[str]:
    yield str(limit)


class Counter:
    """An actor's class."""

    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, number: int, *, twice: bool = False) -> int:
        self.value += number * (1 + twice)
        return self.value

    async def later(self, word: str) -> str:
        return word


# -- isolates ----------------------------------------------------------------------------------------------------------


async def isolates(port: SendPort) -> None:
    """Isolates are started with the arguments that their functions take; results have their type."""
    assert_type(Isolate.run(square, 3), IsolateFuture[int])
    assert_type(Isolate.run(square, 3, timeout=1.5, name="work").result(), int)
    assert_type(await Isolate.run(square, 3), int)
    assert_type(Isolate.run(asquare, 3).result(timeout=1), int)
    assert_type(await Isolate.run(asquare, 3), int)
    assert_type(Isolate.run(join_words, "a").result(), str)
    assert_type(Isolate.run(join_words, "a", "b").result(), str)
    assert_type(Isolate.run(lambda: [1.5]).result(), list[float])
    assert_type(Isolate.run(sum, range(10)).result(), int)
    assert_type(Isolate.run(no_result, port).result(), None)
    assert_type(Isolate.run(square, 3).exception(), BaseException | None)
    assert_type(Isolate.run(square, 3).cancel(), bool)
    future: concurrent.futures.Future[int] = Isolate.run(square, 3)
    awaitable: Awaitable[int] = Isolate.run(square, 3)
    print(future, awaitable)

    assert_type(compute(square, 3), IsolateFuture[int])
    assert_type(await compute(asquare, 3, name="work"), int)

    assert_type(Isolate.spawn(no_result, port), Isolate)
    assert_type(Isolate.spawn(asquare, 3, paused=True, on_exit=port, errors_are_fatal=False), Isolate)
    assert_type(Isolate.spawn_path("program.py", ["a"], on_error=port), Isolate)
    assert_type(Isolate.spawn_module("program", name="other"), Isolate)
    async with Isolate.spawn(no_result, port) as isolate:
        assert_type(isolate, Isolate)
        assert_type(isolate.pause(), Capability)
        assert_type(isolate.join(1), bool)
    for error in isolate.errors:
        assert_type(error, RemoteError)
    async for error in isolate.errors:
        assert_type(error, RemoteError)
    assert_type(Isolate.current(), Isolate)

    with IsolateGroup("group") as group:
        assert_type(group.spawn(no_result, port, name="one"), Isolate)
        assert_type(group.run(square, 3), IsolateFuture[int])
        assert_type(await group.run(asquare, 3, timeout=1), int)


def leave() -> int:
    """Nothing is returned after the isolate was ended."""
    Isolate.exit()


def wrong_isolates(port: SendPort) -> None:
    """What is refused when it runs is refused before."""
    Isolate.run(square, "3")  # type: ignore[arg-type]
    Isolate.run(square)  # type: ignore[arg-type, call-arg]
    Isolate.run(square, 3, 4)  # type: ignore[arg-type, call-arg]
    Isolate.run(square, x=3)  # type: ignore[call-overload]
    Isolate.run(3)  # type: ignore[call-overload]
    Isolate.spawn(no_result, "port")  # type: ignore[arg-type]
    Isolate.spawn(no_result, port, nmae="work")  # type: ignore[arg-type]
    Isolate.spawn(no_result, port, on_exit=port.send)  # type: ignore[arg-type]
    compute(square, "3")  # type: ignore[arg-type]
    Isolate()  # type: ignore[call-arg]


# -- ports -------------------------------------------------------------------------------------------------------------


async def ports() -> None:
    """A port's messages have the type that it was made with."""
    assert_type(ReceivePort(int), ReceivePort[int])
    assert_type(ReceivePort(Progress, maxsize=3), ReceivePort[Progress])
    assert_type(ReceivePort(list[int]), ReceivePort[list[int]])
    assert_type(ReceivePort(), ReceivePort[Any])
    anything: ReceivePort[Any] = ReceivePort(Any)
    either: ReceivePort[int | str] = ReceivePort(int | str)
    assert_type(either.receive(), int | str)
    assert_type(anything.receive(), Any)
    with ReceivePort(Progress) as port:
        assert_type(port, ReceivePort[Progress])
        assert_type(port.send_port, SendPort)
        for message in port:
            assert_type(message, Progress)
            print(message.percent)
        assert_type(port.receive(1), Progress)
        assert_type(port.receive_nowait(), Progress)
        assert_type(await port.areceive(), Progress)
        assert_type(port.listen(lambda progress: progress.percent), Subscription)
    async with ReceivePort(Progress) as port:
        async for message in port:
            assert_type(message, Progress)
    assert_type(select(port, either, timeout=1), ReceivePort[Any])
    assert_type(await aselect(port, either), ReceivePort[Any])
    assert_type(lookup("name"), SendPort | None)
    await port.send_port.asend(Progress(3))
    assert_type({port.send_port: 1}, dict[SendPort, int])


async def requests(port: SendPort, request: Request) -> None:
    """Answers may be anything; a single response has the type that is asked for."""
    assert_type(port.request("question", timeout=1), Any)
    assert_type(await port.arequest("question"), Any)
    assert_type(request.reply(1), bool)
    assert_type(single_response(no_result, type=int), int)
    assert_type(await asingle_response(no_result, type=int), int)
    assert_type(single_response(no_result), Any)
    with SingleResponseChannel(Progress) as channel:
        assert_type(channel.result(1), Progress)
        assert_type(await channel, Progress)


def wrong_ports(port: ReceivePort[int], send_port: SendPort) -> None:
    """Mistakes with ports."""
    ReceivePort(int, 3)  # type: ignore[call-overload]
    ReceivePort(int, maxsize="3")  # type: ignore[call-overload]
    port.receive("1")  # type: ignore[arg-type]
    port.send(3)  # type: ignore[attr-defined]
    port.listen(len)  # type: ignore[arg-type]
    select(send_port)  # type: ignore[arg-type]
    wrong: ReceivePort[str] = port  # type: ignore[assignment]
    print(wrong)


# -- pools -------------------------------------------------------------------------------------------------------------


async def pools() -> None:
    """A pool's functions are called with what they take; results have their type."""
    async with IsolatePool(2, initializer=square, initargs=(3,)) as pool:
        executor: concurrent.futures.Executor = pool
        print(executor)
        assert_type(pool, IsolatePool)
        assert_type(pool.submit(square, 3), IsolateFuture[int])
        assert_type(pool.submit(square, x=3).result(), int)
        assert_type(pool.submit(join_words, "a", second="b").result(), str)
        assert_type(pool.submit(asquare, 3).result(), int)
        assert_type(await pool.submit(asquare, x=3), int)
        assert_type(pool.submit(sum, [1, 2]).result(), int)
        assert_type(pool.run(square, 3, timeout=1, retries=2), IsolateFuture[int])
        assert_type(await pool.run(asquare, 3), int)
        assert_type(await pool.asubmit(square, 3), IsolateFuture[int])
        assert_type(await pool.asubmit(asquare, x=3), IsolateFuture[int])

        assert_type(pool.map(square, range(3)), MapIterator[int])
        assert_type(list(pool.map(lambda x: x + 0.5, [1, 2], chunksize=10)), list[float])
        assert_type(pool.map(asquare, [1, 2]), MapIterator[int])
        assert_type(pool.map(join_words, ["a"], ["b"], timeout=3), MapIterator[str])
        assert_type(list(pool.map(pow, [1], [2], [3])), list[int])
        async for number in pool.map(square, [1], task_timeout=3):
            assert_type(number, int)
        for number in pool.progress(pool.map(square, [1]), "Squares", total=1):
            assert_type(number, int)

        assert_type(pool.stream(numbers, 3), Stream[int])
        assert_type(pool.stream(anumbers, 3, maxsize=10), Stream[str])
        assert_type(pool.statistics(), Statistics)
        assert_type(pool.dump_stacks(), str)
    assert_type(worker_state(), Any)


def wrong_pools(pool: IsolatePool) -> None:
    """Mistakes with pools."""
    pool.submit(square, "3")  # type: ignore[call-overload]
    pool.submit(square, y=3)  # type: ignore[call-overload]
    pool.submit(square)  # type: ignore[call-overload]
    pool.run(square, 3, timout=1)  # type: ignore[call-overload]
    pool.run(square, "3")  # type: ignore[arg-type]
    pool.map(square, ["3"])  # type: ignore[arg-type]
    pool.map(square, 3)  # type: ignore[call-overload]
    pool.map(square, [3], chunk=1)  # type: ignore[call-overload]
    pool.stream(square, 3)  # type: ignore[arg-type]
    IsolatePool(max_worker=3)  # type: ignore[call-arg]


# -- streams, actors, supervisors, memory ------------------------------------------------------------------------------


async def streams() -> None:
    """A stream has the items that its generator yields."""
    assert_type(Isolate.stream(numbers, 3), Stream[int])
    assert_type(Isolate.stream(anumbers, 3, maxsize=3), Stream[str])
    with Isolate.stream(numbers, 3, name="numbers") as stream:
        for number in stream:
            assert_type(number, int)
    async with Isolate.stream(anumbers, 3) as words:
        async for word in words:
            assert_type(word, str)


async def actors() -> None:
    """An actor is one of its class; `call` knows its methods."""
    actor = Actor.spawn(Counter, 3)
    assert_type(actor, Actor[Counter])
    assert_type(actor.call(Counter.add, 3), IsolateFuture[int])
    assert_type(await actor.call(Counter.add, 3, twice=True), int)
    assert_type(await actor.call(Counter.later, "word"), str)
    assert_type(actor.add(3), IsolateFuture[Any])
    async with Actor.spawn(Counter, start=3) as same:
        assert_type(same, Actor[Counter])
        assert_type(same.isolate, Isolate)


async def supervisors(port: SendPort) -> None:
    """Supervisors start functions and actors with what they take."""
    with Supervisor("one-for-all", max_restarts=3) as supervisor:
        assert_type(supervisor.add(no_result, port, restart="transient"), Child)
        assert_type(supervisor.add_actor(Counter, 3, name="counter"), Actor[Counter])
        assert_type(supervisor.add_supervisor(Supervisor()), Supervisor)
        assert_type(supervisor.children[0].isolate, Isolate | None)
    assert_type(await supervisor.ajoin(), None)


def memory() -> None:
    """Memory that is handed over."""
    buffer = Buffer(8)
    view: memoryview = memoryview(buffer)
    assert_type(Transferable(view).materialize(), Buffer)
    assert_type(subiso.Transferable([b"a", b"b"]), Transferable)


def wrong_others(actor: Actor[Counter], supervisor: Supervisor, port: SendPort) -> None:
    """Mistakes with the rest."""
    Isolate.stream(square, 3)  # type: ignore[arg-type]
    Isolate.stream(numbers, "3")  # type: ignore[arg-type]
    Actor.spawn(Counter, "3")  # type: ignore[arg-type]
    Actor.spawn(Counter)  # type: ignore[call-arg]
    actor.call(Counter.add, "3")  # type: ignore[call-overload]
    actor.call(join_words, "3")  # type: ignore[call-overload]
    supervisor.add(no_result, "port")  # type: ignore[arg-type]
    supervisor.add(no_result, port, restart="always")  # type: ignore[arg-type]
    supervisor.add_actor(Counter, "3")  # type: ignore[arg-type]
    Supervisor("one-for-none")  # type: ignore[arg-type]
    Buffer("8")  # type: ignore[arg-type]


def through_callables(call: Callable[[int], str]) -> None:
    """Functions that are values keep their types."""
    assert_type(Isolate.run(call, 3).result(), str)
