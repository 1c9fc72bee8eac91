"""How an isolate is started: its work is encoded, an interpreter is lent to it, and the job is sent there.

Nothing is lent before the work has been encoded, so that what cannot be sent fails first.
"""

import _pickle

from subiso import carriers, entry, errors, failures, messages, sending
from subiso._kernel import node as nodes
from subiso._kernel import protocol, setting
from subiso._kernel.insisting import insist
from subiso.errors import IsolateSpawnError

# What `entry.refuse` needs, loaded before anything can fail: without descriptors no file could be opened then.
FOR_REFUSING = failures.pack, errors.PortFull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from subiso._kernel.node import Node
    from subiso.sending import SendPort


def encode_call(
    function: "Callable[..., Any]", args: "tuple[Any, ...]", carrying: bool = True
) -> "tuple[int, bytes, Sequence[memoryview], Sequence[Any]]":
    """Encode what is to be called, and check it as far as that can be done here.

    Raises:
        TypeError: it cannot be called, or not with so many arguments.
        SendError: something in it cannot be sent.
    """
    if not callable(function):
        raise TypeError(f"an isolate runs a function, not {function!r}")
    code = getattr(function, "__code__", None)
    if code is not None and (code.co_argcount != len(args) or code.co_kwonlyargcount or code.co_flags & 0x0C):
        import inspect

        inspect.signature(function).bind(*args)
    return messages.encode_call(carriers.load(function) if carrying else function, args)


def lease(node: "Node", name: str | None, fresh: bool) -> tuple[int, int, str]:
    """Have an interpreter lent to a new isolate: its slot, the isolate's number and name."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    fresh = fresh or setting.is_confined()
    try:
        if node.slot == nodes.MAIN:
            from subiso._kernel import nursery

            slot, number = nursery.lease(name, fresh)
        else:
            slot, number = _lease_from_main(node, name, fresh)
    except (RuntimeError, OSError, MemoryError) as error:
        raise IsolateSpawnError(f"the isolate cannot be started: {error}") from None
    return slot, number, name or f"isolate-{number}"


def _lease_from_main(node: "Node", name: str | None, fresh: bool) -> tuple[int, int]:
    """Ask main's broker. It answers even while main's own code is busy."""
    inbox = node.mailbox.open_reply()
    try:
        node.tell(nodes.MAIN, nodes.LEASE, 0, inbox.address, name, fresh)
        insist(node.mailbox.wait, [inbox], lambda: inbox.messages)  # what is lent must be used or given back
        answer = _pickle.loads(inbox.messages.popleft()[1])
    finally:
        insist(node.mailbox.close, inbox)
    if isinstance(answer, tuple):
        return answer
    raise RuntimeError(answer)


def start(
    node: "Node",
    slot: int,
    number: int,
    call: "tuple[int, bytes, Sequence[memoryview], Sequence[Any]]",
    given: "list[SendPort]",
    *,
    name: str,
    **options: "Any",
) -> None:
    """Send the job to the interpreter that was lent."""
    kind, body, buffers, carried = call
    sending.grant(node, [*carried, *given], slot, number)
    forward = setting.forwards_output(in_main=node.slot == nodes.MAIN)
    job = entry.pack((kind, body), name=name, forward=forward, **options)
    node.mailbox.send_message(nodes.jobs_of(slot), protocol.PICKLE, job, buffers)
