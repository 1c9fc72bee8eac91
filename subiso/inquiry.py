"""Asking the workers of a pool where they stand."""

from time import monotonic

from subiso import messages, workers
from subiso._kernel import links
from subiso._kernel.waitables import Inbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subiso.crew import Crew


def ask(crew: "Crew", timeout: float | None) -> str:
    """Return where each worker stands; those that do not answer in ``timeout`` seconds are said to."""
    mailbox = crew.node.mailbox
    asked: list[tuple[str, Inbox]] = []
    try:
        for isolate, task in crew.isolates():
            inbox = mailbox.open_reply()
            asked.append((f"{isolate.name}, {f'running {task}' if task else 'idle'}:\n", inbox))
            crew.node.tell(isolate._slot, workers.STACKS, isolate._number, inbox.address)
        deadline = None if timeout is None else monotonic() + timeout
        parts = []
        for title, inbox in asked:
            remaining = None if deadline is None else max(deadline - monotonic(), 0)
            mailbox.wait([inbox], lambda inbox=inbox: inbox.messages, remaining)  # type: ignore[misc]
            parts.append(title + _read(inbox))
        return "\n".join(parts)
    finally:
        for _, inbox in asked:
            mailbox.close(inbox)


def _read(inbox: Inbox) -> str:
    if not inbox.messages:
        return "  no answer: it is starting, or in C code that keeps its GIL\n"
    return str(messages.decode(*links.unpack(*inbox.messages.popleft())))
