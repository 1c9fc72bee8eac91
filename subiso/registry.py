"""The registry of names: any isolate finds a send port by the name, or the tags, under which it was registered.

There is one for each process. It lives in main, and is asked through the kernel, so that it answers while main's own
code is busy. (Flutter: ``IsolateNameServer``; the tags are those of ``Registry`` in Dart's package:isolate.)
"""

import _pickle

from subiso._kernel import asking, locks
from subiso._kernel import node as nodes
from subiso._kernel.arena import REGISTRY
from subiso.errors import PortClosedError
from subiso.sending import SendPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from subiso._kernel.node import Node

# -- what users call ---------------------------------------------------------------------------------------------------


def register(name: str, port: SendPort, *, tags: "Iterable[str]" = ()) -> bool:
    """Make a send port known under a name to every isolate of the process.

    As long as it is registered the port does not end with its senders: anybody may still look it up. It is forgotten
    when its receive port is closed or its isolate ends. (Flutter: ``IsolateNameServer.registerPortWithName``.)

    Args:
        name: unique among the open ports that are registered.
        port: the send port, of any isolate.
        tags: under which `lookup_all` finds it, too.

    Returns:
        Whether it was registered; False if the name is in use.

    Raises:
        PortClosedError: the receive port is closed.
        TypeError: the name or a tag is not a str, or ``port`` is not a send port.
        ValueError: name and tags are too long: they may have some 3,000 bytes together.
    """
    if not isinstance(port, SendPort):
        raise TypeError(f"only a SendPort can be registered, not {port!r}")
    if isinstance(tags, str):
        raise TypeError(f"tags must be several strings, as in tags=[{tags!r}], not a str")
    tags = tuple(tags)
    if not nodes.current().mailbox.is_open(port._address):
        raise PortClosedError("the port is closed")
    return bool(_ask("register", _checked(name), _checked_tags(tags), port._address, port._flags))


def unregister(name: str) -> bool:
    """Forget a name, and return whether it was known; any isolate may do that.

    The port stays open. From now on it ends with its senders: the isolates that looked it up or were given it.
    (Flutter: ``IsolateNameServer.removePortNameMapping``.)
    """
    return bool(_ask("unregister", _checked(name)))


def lookup(name: str) -> SendPort | None:
    """Return the send port that is registered under a name, or None if none that is open is.

    Looking a port up is being given it: the port does not end with its senders before this isolate has ended.
    (Flutter: ``IsolateNameServer.lookupPortByName``.)
    """
    found = _ask("lookup", _checked(name))
    return None if found is None else SendPort._of(*found)


def lookup_all(*tags: str, max: int | None = None) -> list[SendPort]:  # noqa: A002 - as in Dart
    """Return the open send ports that were registered with all of these tags, the one registered first at first.

    Args:
        tags: none: every port that is registered is found.
        max: how many at most; None: all of them.

    Raises:
        TypeError: a tag is not a str, or ``max`` is not an int.
        ValueError: ``max`` is negative.
    """
    if max is not None and not isinstance(max, int):
        raise TypeError(f"max must be an int, not {max!r}")
    if max is not None and max < 0:
        raise ValueError(f"max must be 0 or more, not {max}")
    return [SendPort._of(*found) for found in _ask("lookup_all", _checked_tags(tags), max)]


def add_tags(name: str, *tags: str) -> bool:
    """Add tags to what is registered under a name; return whether anything is."""
    return bool(_ask("add_tags", _checked(name), _checked_tags(tags)))


def remove_tags(name: str, *tags: str) -> bool:
    """Take tags, if it has them, from what is registered under a name; return whether anything is."""
    return bool(_ask("remove_tags", _checked(name), _checked_tags(tags)))


def _checked(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {name!r}")
    return str(name)  # no subclass: main may not have its class


def _checked_tags(tags: "tuple[object, ...]") -> tuple[str, ...]:
    for tag in tags:
        if not isinstance(tag, str):
            raise TypeError(f"a tag must be a str, not {tag!r}")
    return tuple(map(str, tags))


def _ask(operation: str, *args: object) -> "Any":
    question = _pickle.dumps((operation, args))
    if len(question) > asking.MOST:
        raise ValueError(f"name and tags are too long: {len(question)} bytes, of which there may be {asking.MOST}")
    return _pickle.loads(asking.ask(nodes.current(), __name__, "answer", question))


# -- the store, in main ------------------------------------------------------------------------------------------------


class _Entry:
    def __init__(self, address: int, flags: int, tags: "Iterable[str]") -> None:
        self.address = address
        self.flags = flags
        self.tags = set(tags)


class _Registry:
    """The registry of the process. The broker's thread and those of main use it, one at a time.

    In the eyes of a port the registry is an isolate that holds it, in a slot of its own where nobody lives.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._entries: dict[str, _Entry] = {}  # in the order of registration
        self._sweep_at = 64  # how many entries make it worth while to look for closed ports among them
        self.lock = locks.Lock()

    def register(self, asker: tuple[int, int], name: str, tags: tuple[str, ...], address: int, flags: int) -> bool:
        self._sweep()
        if self._find(name) is not None:
            return False
        self._entries[name] = _Entry(address, flags, tags)
        self._node.mailbox.grant(address, REGISTRY, 1)
        return True

    def unregister(self, asker: tuple[int, int], name: str) -> bool:
        entry = self._find(name)
        if entry is None:
            return False
        del self._entries[name]
        if all(other.address != entry.address for other in self._entries.values()):
            self._node.mailbox.grant(entry.address, REGISTRY, 1, holds=False)
        return True

    def lookup(self, asker: tuple[int, int], name: str) -> tuple[int, int] | None:
        entry = self._find(name)
        return None if entry is None else self._give(entry, asker)

    def lookup_all(self, asker: tuple[int, int], tags: tuple[str, ...], most: int | None) -> list[tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}  # by address: a port may have several names
        for name in list(self._entries):
            if most is not None and len(found) >= most:
                break
            entry = self._find(name)
            if entry is not None and entry.tags.issuperset(tags) and entry.address not in found:
                found[entry.address] = self._give(entry, asker)
        return list(found.values())

    def add_tags(self, asker: tuple[int, int], name: str, tags: tuple[str, ...]) -> bool:
        entry = self._find(name)
        if entry is not None:
            entry.tags.update(tags)
        return entry is not None

    def remove_tags(self, asker: tuple[int, int], name: str, tags: tuple[str, ...]) -> bool:
        entry = self._find(name)
        if entry is not None:
            entry.tags.difference_update(tags)
        return entry is not None

    def _find(self, name: str) -> _Entry | None:
        """Return what is registered under a name; forget it if its port is closed."""
        entry = self._entries.get(name)
        if entry is not None and not self._node.mailbox.is_open(entry.address):
            del self._entries[name]
            return None
        return entry

    def _give(self, entry: _Entry, asker: tuple[int, int]) -> tuple[int, int]:
        # The port's owner learns of it first: what main sends before it sends the answer also arrives before what
        # the asker then sends, and before its end is seen.
        self._node.mailbox.grant(entry.address, *asker)
        return entry.address, entry.flags

    def _sweep(self) -> None:
        """Forget closed ports, each time when the number of entries has doubled."""
        if len(self._entries) >= self._sweep_at:
            for name in list(self._entries):
                self._find(name)
            self._sweep_at = max(64, 2 * len(self._entries))


def answer(node: "Node", slot: int, number: int, question: bytes) -> bytes:
    """Do in main what the isolate in ``slot`` asks for."""
    with node.lock:
        registry: _Registry = node.locals.get("registry") or node.locals.setdefault("registry", _Registry(node))
    operation, args = _pickle.loads(question)
    with registry.lock:
        return _pickle.dumps(getattr(registry, operation)((slot, number), *args))
