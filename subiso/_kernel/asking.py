"""Asking main: a function of a module is called there by the broker's thread, even while main's own code is busy.

The kernel carries bytes to the function and back, and does not know what they mean.
"""

import sys

from subiso._kernel import node as nodes
from subiso._kernel import parcels, protocol
from subiso._kernel.arena import slot_of
from subiso._kernel.insisting import insist
from subiso._kernel.interrupt import unwind
from subiso._kernel.node import Node

MOST = 3500  # bytes of a question: it travels in one control message, beside some names


def ask(node: Node, module: str, function: str, question: bytes) -> bytes:
    """Have main call ``function(node, slot, number, question)`` of a module, and return what it returns.

    The function is given main's node, and the slot and number of the isolate that asks. In main it is called directly,
    so it may run in several threads.

    Raises:
        ValueError: the question is too long.
        RuntimeError: the function raised; the text says what.
        IsolateKilled: this isolate was killed meanwhile.
    """
    if len(question) > MOST:
        raise ValueError(f"a question to main has at most {MOST} bytes")
    if node.slot == nodes.MAIN:
        return _call(node, module, function, nodes.MAIN, node.number, question)
    inbox = node.mailbox.open_reply()
    try:
        node.tell(nodes.MAIN, nodes.ASK, node.number, inbox.address, module, function, question)
        node.mailbox.wait([inbox], lambda: inbox.messages or node.killed)
        if node.killed:
            raise unwind()
        kind, body, _ = parcels.unpack(*inbox.messages.popleft())
    finally:
        node.mailbox.close(inbox)
    if kind == protocol.TEXT:
        raise RuntimeError(str(body, "utf-8"))
    return bytes(body)


def answer(node: Node, number: int, address: int, module: str, function: str, question: bytes) -> None:
    """Answer what an isolate has asked; called by the broker."""
    try:
        kind, body = protocol.BYTES, _call(node, module, function, slot_of(address), number, question)
    except Exception as error:
        kind, body = protocol.TEXT, f"main could not answer: {type(error).__name__}: {error}".encode()
    insist(node.mailbox.send_message, address, kind, body, [])


def _call(node: Node, module: str, function: str, slot: int, number: int, question: bytes) -> bytes:
    __import__(module)
    answer: bytes = getattr(sys.modules[module], function)(node, slot, number, question)
    return answer
