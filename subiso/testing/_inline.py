"""`inline`: isolates whose work is done at once, in the thread that asks for it."""

import itertools
from contextlib import ExitStack, contextmanager
from unittest import mock

from subiso import entry, isolate, sending, starting, streams, supervisor
from subiso._kernel import node as nodes
from subiso._kernel import semaphore
from subiso._kernel.arena import NOBODY
from subiso._kernel.extensions import check_policy
from subiso._kernel.mailbox import Mailbox
from subiso.errors import IsolateTimeoutError
from subiso.failures import pack
from subiso.isolate import Isolate
from subiso.lines import Line
from subiso.pool import IsolatePool
from subiso.sending import SendPort, check_timeout
from subiso.testing import _inline_pools, _work
from subiso.testing._work import Exited
from subiso.testing._work import InlineWaitError as InlineWaitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

_numbers = itertools.count(1)
_block: "Any" = Mailbox.block
_wait_for_room: "Any" = semaphore.wait


@contextmanager
def inline() -> "Iterator[None]":
    """Have the work of isolates done at once, in the thread that asks for it, as long as the block lasts.

    `Isolate.run`, `compute`, `Isolate.spawn`, streams, `IsolatePool` and `Actor` return when the work is done; what
    they return is done already. Arguments, results, items and errors are encoded and decoded as ever: what cannot be
    sent fails, and the work gets copies. Work that would wait for a message that is not there raises an
    `InlineWaitError`. No interpreter is made. It holds for all threads of the program; blocks may be nested.

    Not imitated: modules of its own (globals are the program's), its own GIL, `kill`, time-outs (but for 0), pauses,
    supervisors, ports that listen, the names and handles of isolates.
    """
    with ExitStack() as stack:

        def put(owner: object, name: str, new: object) -> None:
            stack.enter_context(mock.patch.object(owner, name, new))

        put(Isolate, "run", staticmethod(_run))
        put(Isolate, "spawn", staticmethod(_spawn))
        put(Isolate, "exit", staticmethod(_exit))
        put(Mailbox, "block", _guarded_block)
        put(semaphore, "wait", _guarded_wait_for_room)
        put(streams, "open_stream", _inline_pools.open_stream)
        put(IsolatePool, "_submit", _inline_pools.submit)
        put(IsolatePool, "map", _inline_pools.map_)
        put(IsolatePool, "shutdown", _inline_pools.shutdown)
        put(Line, "start", _inline_pools.start_actor)
        put(Line, "call", _inline_pools.call_actor)
        put(Line, "stop", _inline_pools.stop_actor)
        put(supervisor.Supervisor, "_begin", _refuse_to_supervise)
        yield


def _run(
    fn: "Callable[..., Any]", /, *args: "Any", name: str | None = None, timeout: float | None = None, **unknown: "Any"
) -> "_work.InlineFuture[Any]":
    isolate._refuse_options("run", unknown)
    check_timeout(timeout)
    kind, body, buffers, _ = starting.encode_call(fn, args)
    if timeout == 0:
        future: _work.InlineFuture[Any] = _work.InlineFuture()
        future._settle(None, IsolateTimeoutError("the work took longer than it was allowed to, and was killed"))
        return future
    return _work.settle(_work.call_of(kind, body, buffers))


def _spawn(
    entry_function: "Callable[..., object]",
    /,
    *args: "Any",
    paused: bool = False,
    name: str | None = None,
    on_exit: SendPort | None = None,
    on_error: SendPort | None = None,
    errors_are_fatal: bool = True,
    fresh: bool = False,
    extensions: str | None = None,
    **unknown: "Any",
) -> Isolate:
    group = unknown.pop("_group", 0)
    unknown.pop("_carrying", None)
    isolate._refuse_options("spawn", unknown)
    for option, port in (("on_exit", on_exit), ("on_error", on_error)):
        if port is not None:
            isolate._check_port(option, port)
    check_policy(extensions)
    if paused:
        raise RuntimeError("an isolate that is run inline cannot be started paused")
    node = nodes.current()
    kind, body, buffers, carried = starting.encode_call(entry_function, args)
    given = [port for port in (on_exit, on_error) if port is not None]
    sending.grant(node, [*carried, *given], *NOBODY)  # who has ended by the time when anybody asks
    name = name or f"inline-{next(_numbers)}"
    try:
        _work.do(_work.call_of(kind, body, buffers))
    except (Exited, SystemExit):
        pass
    except (KeyboardInterrupt, InlineWaitError):
        raise
    except BaseException as error:
        described = _work.tell(name, error)
        told = entry._try_to_fail(group, pack(error))
        if on_error is not None:
            told = entry._try_to_send(on_error, described) or told
        if not told:
            _work.report(name, described)
    if on_exit is not None:
        entry._try_to_send(on_exit, None)
    return Isolate._of(*NOBODY, name)


def _exit(port: SendPort | None = None, message: object = None) -> "NoReturn":
    if not _work.is_going_on():
        raise RuntimeError("main is not ended by Isolate.exit; use sys.exit")
    if port is None and message is not None:
        raise TypeError("a final message needs a port")
    if port is not None:
        isolate._check_port("port", port)
        port.send(message)
    raise Exited


def _guarded_block(self: "Any", waitables: "Any", ready: "Any", timeout: float | None = None) -> bool:
    """Take the place of `Mailbox.block`: nobody else will do what is waited for."""
    if timeout is None and _work.is_going_on() and not ready():
        self.settle()
        if not ready():
            raise InlineWaitError("inline, this would wait for ever: the other side goes on when this has ended")
    return bool(_block(self, waitables, ready, timeout))


def _guarded_wait_for_room(node: "Any", descriptor: int, timeout: float | None) -> None:
    if timeout is None and _work.is_going_on():
        raise InlineWaitError("inline, this would wait for ever: the port is full, and is read when this has ended")
    _wait_for_room(node, descriptor, timeout)


def _refuse_to_supervise(self: object, above: object) -> None:
    raise RuntimeError("supervisors cannot be run inline")
