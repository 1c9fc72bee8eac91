"""Faults that tests put in on purpose: at which step, and what happens there.

While none is put in, nothing calls this module and no interpreter has loaded it. `put_in` replaces the functions that
are the steps by others, which fail and then do as they did: in main at once; in a new interpreter before its first
line of the kernel; in one that is there already, when it takes its next job. What is to happen stands in a memory file,
whose descriptor all interpreters know, so that a step that was replaced for an earlier fault does the present one, or
nothing.

A fault fires so many times, whichever interpreters come first to the step: they take tokens from an eventfd, one by
one. A *meeting* is a step at which whoever comes stops, says so, and goes on when it is told to: meanwhile a test can
kill it there.
"""

import _pickle
import errno
import os
import select
import struct
import sys
from importlib import import_module

from subiso._kernel.arena import FAULTS, Arena

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

POINTS = {
    # in who spawns, and in main
    "spawn.encode": "subiso.messages:encode_call",
    "spawn.lease": "subiso._kernel.nursery:Nursery.lease",
    "spawn.descriptors": "subiso._kernel.nursery:Nursery._open",
    "spawn.boot": "subiso._kernel.nursery:Nursery._boot",
    "spawn.broker": "subiso._kernel.nursery:Nursery._lease_for",
    "spawn.pack": "subiso.entry:pack",
    "spawn.create": "subiso._kernel.interpreters:create",
    "spawn.ready": "subiso._kernel.nursery:Nursery._became_idle",
    "spawn.attach": "subiso.futures:IsolateFuture._attach",
    # in the isolate
    "start.node": "subiso._kernel.node:Node.__init__",
    "start.kernel": "subiso._kernel.worker:_Worker.__init__",
    "start.body": "subiso._kernel.worker:_Worker._new_body",
    "start.host": "subiso.entry:host",
    "start.setting": "subiso._kernel.setting:apply",
    "start.call": "subiso.entry:Body.call",
    "import.code": "_frozen_importlib_external:SourceLoader.get_code",
    "import.extension": "subiso._kernel.loading:create",
    "import.layout": "subiso._kernel.elf:read",
    "import.copy": "subiso._kernel.copies:make",
    "import.directory": "subiso._kernel.copies:_make_directory",
    "import.file": "subiso._kernel.copies:_create",
    "import.write": "subiso._kernel.copies:_transfer",
    "import.load": "subiso._kernel.capi:load",
    "import.threads": "subiso._kernel.foreign:adopt",
    "import.share": "subiso._kernel.sharing:share",
    "import.discard": "subiso._kernel.copies:discard",
    # in whoever sends
    "encode.message": "subiso.messages:encode",
    "encode.pickle": "subiso._pickling.functions:dumps",
    "send.grant": "subiso._kernel.post:Post.grant",
    "send.writer": "subiso._kernel.post:Post.writer",
    "send.room": "subiso._kernel.semaphore:take",
    "send.wait": "subiso._kernel.semaphore:wait",
    "send.enqueue": "subiso._kernel.links:Writer.write",
    "send.segment": "subiso._kernel.links:Writer._open_segment",
    "send.home": "subiso._kernel.links:Writer._go_back",
    "send.large": "subiso._kernel.parcels:pack",
    "send.ring": "subiso._kernel.doorbell:ring",
    "memory.file": "subiso._kernel.arena:memory_file",
    "memory.map": "subiso._kernel.arena:map_file",
    "memory.region": "subiso._kernel.regions:Region.create",
    # in whoever receives
    "receive.open": "subiso._kernel.post:Post.open",
    "receive.reply": "subiso._kernel.post:Post.open_reply",
    "receive.bound": "subiso._kernel.semaphore:open",
    "receive.watch": "subiso._kernel.post:Post.watch",
    "receive.attendant": "subiso._kernel.attendant:of",
    "receive.pump": "subiso._kernel.post:Post.pump_from",
    "receive.merge": "subiso._kernel.post:Post._merge",
    "receive.read": "subiso._kernel.links:Reader.read",
    "receive.move": "subiso._kernel.links:Reader._move",
    "receive.route": "subiso._kernel.post:Post._route",
    "receive.sleep": "subiso._kernel.mailbox:Mailbox._block",
    "receive.unpack": "subiso._kernel.parcels:_parts",
    "receive.decode": "subiso.messages:decode",
    "receive.close": "subiso._kernel.post:Post.close",
    "descriptors.doorbell": "subiso._kernel.doorbell:create",
    "descriptors.eventfd": "subiso._kernel.semaphore:_create",
    # what is asked of an isolate
    "control.tell": "subiso._kernel.node:Node.tell",
    "control.read": "subiso._kernel.node:ControlPipe.read",
    "control.handle": "subiso._kernel.control:Control.handle",
    "control.deliver": "subiso._kernel.control:deliver",
    "control.main": "subiso._kernel.nursery:Nursery._handle",
    "control.interrupt": "subiso._kernel.interrupt:Interrupter.start",
    # at an isolate's end
    "exit.mend": "subiso._kernel.scrub:Baseline.mend",
    "exit.farewell": "subiso._kernel.scrub:Farewell.run",
    "exit.ports": "subiso._kernel.post:Post.close_ports",
    "exit.words": "subiso.entry:Body.last_words",
    "exit.listeners": "subiso._kernel.control:tell_exit",
    "exit.end": "subiso._kernel.worker:_Worker._end",
    "exit.announce": "subiso._kernel.post:Post.announce_end",
    # between two isolates, and at an interpreter's end
    "recycle.begin": "subiso._kernel.worker:_Worker._recycle",
    "recycle.scrub": "subiso._kernel.scrub:Baseline.restore",
    "recycle.modules": "subiso._kernel.scrub:Baseline._forget_modules",
    "recycle.leftovers": "subiso._kernel.leftovers:reset",
    "recycle.renew": "subiso._kernel.node:Node.renew",
    "retire.park": "subiso._kernel.post:Post.park",
    "retire.closed": "subiso._kernel.nursery:Nursery._closed",
    # threads, by the beginning of their names
    "thread.interpreter": "threading:Thread.start subiso-#",
    "thread.body": "threading:Thread.start subiso-body",
    "thread.attendant": "threading:Thread.start subiso-attendant",
    "thread.listener": "threading:Thread.start subiso-listener",
    "thread.supervisor": "threading:Thread.start subiso-supervisor",
}
"""The steps, by name: each is a function; starting a thread is a step by the thread's name, # stands for a number."""

PASS, MEET, MARK = "pass", "meet", "mark"  # what is no fault: nothing, a meeting, a note that the step was reached


class FaultError(Exception):
    """An error that a test has put in."""


_ERRORS: "dict[str, Callable[[str], BaseException]]" = {
    "exception": lambda point: FaultError(f"an error was put in at {point}"),
    "memory": lambda point: MemoryError(f"no memory was left at {point}"),
    "disk": lambda point: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point),
    "descriptors": lambda point: OSError(errno.EMFILE, os.strerror(errno.EMFILE), point),
    "mapping": lambda point: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), point),
    "thread": lambda point: RuntimeError("can't start new thread"),
}
KINDS = (*_ERRORS, "kill")
"""What can be put in; a kill is a meeting, at which somebody else kills."""

_MARKS = 4096  # where in the memory file the marks begin: two bytes for each step, main's and the isolates'
_MET = _MARKS - 16  # where it says who has come to the meeting: slot and number of an isolate, two words
_NAMES = list(POINTS)
_MAINS_OWN = "subiso._kernel.nursery"

_plan = -1  # the memory file
_is_main = False
_replaced: "list[tuple[Any, str, Any]]" = []  # where, under which name, what was replaced here


class Faults:
    """The faults of this process, as main has them. There is one, made at the first use and kept for ever.

    Attributes:
        descriptor: of the memory file with the plan.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("subiso-faults")
        flags = os.EFD_NONBLOCK | os.EFD_SEMAPHORE | os.EFD_CLOEXEC
        self._tokens, self._met = os.eventfd(0, flags), os.eventfd(0, flags)
        self._times = 0
        self._go = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
        self._write({})

    def _write(self, actions: "dict[str, tuple[str, bool | None]]") -> None:
        text = _pickle.dumps((actions, self._tokens, self._met, self._go))
        os.pwrite(self.descriptor, len(text).to_bytes(8, "little") + text, 0)

    def put_in(self, kind: str, *points: str, times: int = 1, in_main: bool | None = None) -> None:
        """Have something happen at steps from now on.

        Args:
            kind: one of `KINDS`, `MEET` or `MARK`.
            points: names of `POINTS`.
            times: how often in all.
            in_main: whether in main's interpreter or in those of isolates; None: in any.
        """
        from subiso._kernel import node as nodes
        from subiso._kernel import nursery

        self.take_out()
        if kind == MARK:
            os.pwrite(self.descriptor, bytes(2 * len(_NAMES)), _MARKS)
        self._write(dict.fromkeys(points, (MEET if kind == "kill" else kind, in_main)))
        node = nodes.current()
        node.arena.words[Arena.home(nodes.MAIN) + FAULTS] = self.descriptor
        nursery.boot_prefix = f"from subiso._kernel.faults import obey\nobey({self.descriptor})\n"
        obey(self.descriptor, is_main=True)
        self._times = times
        os.eventfd_write(self._tokens, times)

    def take_out(self) -> int:
        """Have nothing happen any more; return how many times something has happened, or is about to this moment."""
        from subiso._kernel import node as nodes
        from subiso._kernel import nursery

        happened, self._times = self._times - _drain(self._tokens), 0
        self._write({})
        nursery.boot_prefix = ""
        node = nodes.peek()
        if node is not None:
            node.arena.words[Arena.home(nodes.MAIN) + FAULTS] = 0
        _put_back()
        return happened

    def await_meeting(self, timeout: float) -> tuple[int, int] | None:
        """Wait ``timeout`` seconds until somebody has stopped at a step.

        Returns:
            The slot and the number of the isolate; zeros for main, and for a number that there is not; None: nobody.
        """
        poller = select.poll()
        poller.register(self._met, select.POLLIN)
        if not poller.poll(int(timeout * 1000) + 1):
            return None
        os.eventfd_read(self._met)
        slot, number = struct.unpack("2Q", os.pread(self.descriptor, 16, _MET))
        return slot, number

    def go_on(self, times: int = 1) -> None:
        """Let somebody who has stopped, or will, go on."""
        os.eventfd_write(self._go, times)

    def marks(self) -> dict[str, str]:
        """Return the steps that were reached, and where: in "main", in an "isolate", or in "both"."""
        marks = os.pread(self.descriptor, 2 * len(_NAMES), _MARKS)
        where = {b"\1\0": "main", b"\0\1": "isolate", b"\1\1": "both"}
        each = {name: where.get(marks[2 * place : 2 * place + 2]) for place, name in enumerate(_NAMES)}
        return {name: found for name, found in each.items() if found}


def _drain(descriptor: int) -> int:
    count = 0
    while True:
        try:
            count += os.eventfd_read(descriptor)
        except BlockingIOError:
            return count


def obey(descriptor: int, is_main: bool = False) -> None:
    """Replace, in this interpreter, the steps that the plan in the memory file names; 0: put everything back."""
    global _plan, _is_main
    _put_back()
    if descriptor:
        _plan, _is_main = descriptor, is_main
        _replace(_read()[0])


def _read() -> "tuple[dict[str, tuple[str, bool | None]], int, int, int]":
    plan = os.pread(_plan, _MET, 0)  # in one step: it may be replaced meanwhile
    return _pickle.loads(plan[8 : 8 + int.from_bytes(plan[:8], "little")])  # type: ignore[no-any-return]


def _replace(points: "Iterable[str]") -> None:
    targets: dict[str, list[tuple[str, str]]] = {}
    for point in points:
        target, _, prefix = POINTS[point].partition(" ")
        targets.setdefault(target, []).append((point, prefix))
    for target, here in targets.items():
        module_name, _, path = target.partition(":")
        if module_name == _MAINS_OWN and not _is_main:
            continue
        try:
            owner: Any = import_module(module_name)
        except ImportError:  # not on this version
            continue
        *classes, name = path.split(".")
        for one in classes:
            owner = getattr(owner, one)
        original = vars(owner)[name]
        bare = original.__func__ if isinstance(original, (classmethod, staticmethod)) else original
        stand_in: Any = _failing(bare, here)
        stand_in = type(original)(stand_in) if bare is not original else stand_in
        places = [(owner, name)]
        if not classes:  # a function may stand in modules that have imported it by its name
            ours = [module for key, module in list(sys.modules.items()) if key.startswith("subiso.")]
            places = [(module, key) for module in ours for key, value in list(vars(module).items()) if value is bare]
        for place, key in places:
            _replaced.append((place, key, original))
            setattr(place, key, stand_in)


def _put_back() -> None:
    while _replaced:
        place, name, original = _replaced.pop()
        setattr(place, name, original)


def _failing(original: "Callable[..., Any]", points: list[tuple[str, str]]) -> "Callable[..., Any]":
    """Return the function that takes the place of a step."""

    def stand_in(*args: "Any", **kwargs: "Any") -> "Any":
        for point, prefix in points:
            if not prefix or _is_called(args[0], prefix):
                _happen(point)
        return original(*args, **kwargs)

    stand_in.__wrapped__ = original  # type: ignore[attr-defined]
    return stand_in


def _is_called(thread: "Any", name: str) -> bool:
    called: str = thread.name
    return called == name or (name.endswith("#") and called.removeprefix(name[:-1]).isdecimal())


def _happen(point: str) -> None:
    actions, tokens, met, go = _read()
    action, in_main = actions.get(point, (PASS, None))
    if action == PASS or in_main not in (None, _is_main):
        return
    if action == MARK:
        os.pwrite(_plan, b"\1", _MARKS + 2 * _NAMES.index(point) + (not _is_main))
        return
    try:
        os.eventfd_read(tokens)
    except BlockingIOError:  # it has happened often enough
        return
    if action != MEET:
        raise _ERRORS[action](point)
    from subiso._kernel import node as nodes

    node = None if _is_main else nodes.peek()
    os.pwrite(_plan, struct.pack("2Q", *((node.slot, node.number) if node else (0, 0))), _MET)
    os.eventfd_write(met, 1)
    os.eventfd_read(go)


_faults: Faults | None = None


def of_process() -> Faults:
    """Return the faults of this process. For main."""
    global _faults
    if _faults is None:
        _faults = Faults()
    return _faults
