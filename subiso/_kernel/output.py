"""What an isolate prints, where main's streams are not the process's own (a notebook, pytest's capture)."""

import io
import sys

from subiso._kernel import node as nodes
from subiso._kernel.node import Node

_CHUNK = 800  # characters; they fit one control message, however they are encoded


class ForwardedStream(io.TextIOBase):
    """A text stream whose text main writes to its own stream of that name."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name
        self._pending: list[str] = []
        self._written = False  # since the last flush

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._pending.append(text)
        self._written = True
        if "\n" in text:
            self._send()
        return len(text)

    def _send(self) -> None:
        text, self._pending = "".join(self._pending), []
        for start in range(0, len(text), _CHUNK):
            self._node.tell(nodes.MAIN, nodes.OUTPUT, self._node.slot, self._name, text[start : start + _CHUNK])

    def flush(self) -> None:
        """Return when main has written everything, or after a second."""
        if not self._written:
            return
        self._written = False
        self._send()
        if self._node.ended:  # nothing is read any more: what comes may be for the next isolate here
            return
        written = self._node.mailbox.inboxes[self._node.fixed(nodes.WRITTEN)]
        written.messages.clear()
        self._node.tell(nodes.MAIN, nodes.OUTPUT, self._node.slot, self._name, "")
        self._node.mailbox.wait([written], lambda: written.messages, timeout=1)


def forward(node: Node) -> None:
    """Send what this isolate prints to main."""
    if node.fixed(nodes.WRITTEN) not in node.mailbox.inboxes:
        node.mailbox.open_fixed(nodes.WRITTEN)
    sys.stdout = ForwardedStream(node, "stdout")
    sys.stderr = ForwardedStream(node, "stderr")
