"""`no_leaks`: the check that isolates, threads and ports do not outlive a piece of code."""

import gc
import threading
from contextlib import contextmanager

from subiso._kernel import node as nodes
from subiso._kernel import nursery as nurseries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_STAYING = ("subiso-broker", "subiso-attendant", "Trio thread")  # main's threads that stay, and trio's for a while

_SHORT = 0.2  # seconds after which isolates that still live may belong to what is garbage


@contextmanager
def no_leaks(timeout: float = 20.0) -> "Iterator[None]":
    """Raise an AssertionError at the end of the block if it has left isolates, ports or threads of this program behind.

    What is about to end is waited for. Ports and isolates count that were made by any thread. Use it in main.

    Args:
        timeout: seconds to wait for isolates and threads to end.
    """
    isolates, ports, threads = _living(), _open_ports(), _foreign_threads()
    yield
    if _wait_for_ends(isolates, min(timeout, _SHORT)) or _open_ports() - ports:
        gc.collect()  # a forgotten port or pool may be part of a cycle
    alive = _wait_for_ends(isolates, timeout)
    left = _foreign_threads() - threads
    for thread in left:
        thread.join(timeout)
    faults = []
    if alive:
        faults.append(f"isolates left alive: {', '.join(sorted(alive))}")
    if count := len(_open_ports() - ports):
        faults.append(f"ports left open: {count}")
    if running := sorted(thread.name for thread in left if thread.is_alive()):
        faults.append(f"threads left running: {', '.join(running)}")
    if faults:
        raise AssertionError("; ".join(faults))


def _living() -> set[str]:
    """Name the isolates that have not ended, or whose interpreters are not yet ready for others."""
    nursery = nurseries._nursery
    return set() if nursery is None else {one.name for one in nursery._berths if one.state == nurseries.BUSY}


def _wait_for_ends(but: set[str], timeout: float) -> set[str]:
    """Wait until no isolate lives but those; return the names of the others that do after that time."""
    if (nursery := nurseries._nursery) is not None:
        with nursery._changed:
            nursery._changed.wait_for(lambda: _living() <= but, timeout)
    return _living() - but


def _open_ports() -> set[int]:
    """Return the addresses of main's open ports, those for replies included."""
    node = nodes.peek()
    if node is None:
        return set()
    node.mailbox.pump()  # closes those that were forgotten while another thread was pumping
    return set(node.mailbox.inboxes) - {node.fixed(nodes.REPORTS)}


def _foreign_threads() -> set[threading.Thread]:
    """Return the threads that are not expected to stay."""
    nursery = nurseries._nursery
    kernel = set() if nursery is None else {berth.thread for berth in nursery._berths}
    return {one for one in threading.enumerate() if one not in kernel and not one.name.startswith(_STAYING)}
