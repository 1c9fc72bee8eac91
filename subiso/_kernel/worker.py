"""What runs inside an isolate's interpreter: one thread of the kernel, and one new thread for each isolate's body.

The kernel's thread is the one that made the interpreter. It reads control messages, interrupts the body, scrubs the
interpreter after an isolate, and ends when it is told to retire. The body waits for a job, hands it to the layer above,
says farewell and ends. Only standard-library modules that start-up needs are imported here; a test proves it.

A job is a module's name and data: the kernel imports the module and calls its ``host(data, buffers)``, which returns an
object with ``run()``, the isolate's life, and ``last_words()``, its very last messages.
"""

import _pickle
import atexit
import select
import sys
import threading
from _thread import allocate_lock, get_native_id, stack_size
from time import monotonic

from subiso._kernel import extensions, links
from subiso._kernel import node as nodes
from subiso._kernel.arena import ABANDONED, ISOLATE, LEAVING, THREAD, Arena
from subiso._kernel.control import Control, tell_exit
from subiso._kernel.interrupt import Interrupter, IsolateKilled
from subiso._kernel.naming import name_thread
from subiso._kernel.node import ControlPipe, Node
from subiso._kernel.scrub import Baseline, Farewell
from subiso._kernel.waitables import Inbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BODY_STACK = 16 << 20  # bytes, of address space: OpenBLAS and deep recursion need more than 2 MiB
ABANDON = 1.0  # seconds without a sign of life after which an isolate that is being killed is given up
_STILL = 0.15  # seconds without a sign of life after which its threads are woken wherever they sleep
_BODY = "subiso-body"
_LAST_CHANCE = 10.0  # seconds after which it is given up in any case


def main(slot: int, descriptor: int, control: int, doorbell: int) -> None:
    """Live in ``slot`` until told to retire.

    Args:
        slot: where.
        descriptor: of the shared memory.
        control: the descriptor to read control messages from.
        doorbell: the descriptor that wakes this slot's mailbox.
    """
    extensions.install()
    node = Node(Arena(descriptor), slot, doorbell)
    nodes.install(node)
    # Registered first, so called last: the heap of an interpreter that held private copies is never freed, nor would be
    # the mapping of the shared memory in it.
    atexit.register(node.arena.close)
    stack_size(BODY_STACK)
    threading.current_thread().name = "subiso-kernel"
    name_thread(f"subiso-{slot}")
    worker = _Worker(node, ControlPipe(control))
    try:
        worker.live()
    finally:
        node.mailbox.park(unread=worker.jobs)


class _Worker:
    def __init__(self, node: Node, pipe: ControlPipe) -> None:
        self._node = node
        self._pipe = pipe
        self.jobs: Inbox = node.mailbox.open_fixed(nodes.JOBS)
        self._interrupter = Interrupter()
        self._control = Control(node, self._kill)
        self._retiring = False
        self._early: list[tuple[Any, ...]] = []  # asked of an isolate whose life has not begun here
        self._killed = self._seen = 0.0  # when the isolate was killed, and when its code was last seen to run
        self._program: Any = None
        self._woken = 0.0  # when sleeping threads were woken
        self._spare: Callable[[], None] | None = None  # takes back an interruption of this thread, once there was one
        self._is_running = False  # whether the body is in the program's code
        self._ending = allocate_lock()  # taken by whoever says the isolate's last words
        self._guard = allocate_lock()  # between what the kernel's thread does to the isolate and the isolate's end
        self._farewell = Farewell()
        self._baseline = Baseline()
        node.tell(nodes.MAIN, nodes.READY, node.slot)  # first: the body may keep the GIL from its first line on
        self._body = self._new_body()

    def live(self) -> None:
        node = self._node
        poller = select.poll()
        poller.register(self._pipe.descriptor, select.POLLIN)
        while not self._retiring:
            patience = self._interrupter.patience()
            if poller.poll(None if patience is None else int(patience * 1000) + 1):
                self._read_control()
            else:
                self._insist()
        node.mailbox.stop_waits()
        self._body.join()
        while poller.poll(0):
            self._read_control()
        for message in self._early:  # for the next interpreter in this slot
            node.tell(node.slot, *message)

    def _read_control(self) -> None:
        for message in self._pipe.read():
            operation, number, *facts = message
            if operation == nodes.ENDED:
                self._recycle(number)
            elif operation == nodes.RETIRE:
                self._retiring = True
            elif number == self._node.number:
                if self._node.ended:
                    self._early.append(message)
                else:
                    self._handle(operation, facts)

    def _handle(self, operation: str, facts: "list[Any]") -> None:
        """Do what is asked of the isolate, unless its last words have begun: the news of its end comes last."""
        with self._guard:
            if not self._ending.locked():
                self._control.handle(operation, facts)

    # -- the body's thread ---------------------------------------------------------------------------------------------

    def _new_body(self) -> threading.Thread:
        stack_size(BODY_STACK)  # again: an isolate may have set another one
        threading.excepthook = _report_of_thread
        body = threading.Thread(target=self._run_body, name=_BODY)
        body.start()
        return body

    def _run_body(self) -> None:
        node, jobs = self._node, self.jobs
        name_thread(f"subiso-{node.slot}-idle")
        node.arena.words[Arena.home(node.slot) + THREAD] = get_native_id()
        node.mailbox.wait([jobs], lambda: jobs.messages or self._retiring)
        if not jobs.messages:
            return
        number = node.number
        try:
            _, body, buffers = links.unpack(*jobs.messages.popleft())
            module, data = _pickle.loads(body)
            __import__(module)
            self._program = sys.modules[module].host(data, buffers)
            self._is_running = True
            self._program.run()
        except BaseException as error:
            _report(error)
        self._is_running = False
        try:
            for thread in _threads():  # a kill reaches them too
                if thread is not threading.current_thread():
                    thread.join()
        except BaseException:  # the isolate has broken what it takes; who is left costs the interpreter
            self._baseline.mend()
        with self._guard:
            if node.killed and not self._killed:  # by itself: what it told the kernel's thread may be read yet
                self._killed = monotonic()
            self._spare_body()
        try:
            self._baseline.mend()
            self._farewell.run()
            _flush()
            attendant = node.locals.get("attendant")
            if attendant is not None:
                attendant.stop()
        except BaseException as error:
            _report(error)
        self._end(number)
        node.tell(node.slot, nodes.ENDED, number)

    def _end(self, number: int, abandoned: bool = False) -> bool:
        """Say the last words and take the isolate's name off the home, so that everybody sees that it has ended.

        Args:
            number: the isolate's.
            abandoned: whether its code is still there: noted first, or main would lend the interpreter again.

        Returns:
            Whether that was not done before: a stuck isolate is ended by the kernel's thread or by main.
        """
        node = self._node
        words, home = node.arena.words, Arena.home(node.slot)
        with self._guard:
            if not self._ending.acquire(False) or words[home + ISOLATE] != number:
                node.ended = True
                return False
            if not abandoned:
                self._spare_body()  # the last words are not interrupted
        try:
            node.mailbox.close_ports()
            words[home + LEAVING] = number
            if self._program is not None:
                self._program.last_words()
            tell_exit(node)
        except BaseException as error:
            _report(error)
        node.ended = True
        if abandoned:
            words[home + ABANDONED] = number
        words[home + ISOLATE] = 0
        node.mailbox.announce_end(node.slot)
        return True

    # -- the kernel's thread -------------------------------------------------------------------------------------------

    def _kill(self) -> None:  # holds the guard: see _handle
        if not self._killed:
            self._killed = self._seen = monotonic()
            self._woken = 0.0
            self._interrupter.start()
            self._node.give_up()

    def _insist(self) -> None:
        now = monotonic()
        if self._interrupter.take_activity():
            self._seen = now
        if self._interrupter.insist():
            self._node.give_up()
            if now - self._seen > _STILL:
                self._wake(now)
        if now > min(self._seen + ABANDON, self._killed + _LAST_CHANCE) and not self._ending.locked():
            self._abandon()

    def _wake(self, now: float) -> None:
        """Wake the isolate's threads that sleep elsewhere than in subiso.

        At first their waits are ended in order. Calls into C are interrupted when that has stirred nothing: a thread
        that is on its way out would get a second exception, in its ``finally``.
        """
        from subiso._kernel import waking

        if self._seen > self._woken:
            self._woken = now
            waking.wake_waits()
            return
        with self._guard:
            if self._interrupter.is_active:
                self._spare = waking.spare_this_thread
                waking.interrupt_calls([one for one in _threads() if one is not self._body or self._is_running])

    def _spare_body(self) -> None:
        """Let the body's thread, which calls this, alone from now on."""
        self._interrupter.stop()
        if self._spare is not None:
            self._spare()

    def _abandon(self) -> None:
        """Give up an isolate that does not unwind: it is blocked in C. If it ever comes back, it finds its end done."""
        number = self._node.number
        if self._end(number, abandoned=True):
            self._node.tell(nodes.MAIN, nodes.ABANDONED, number, self._node.slot)

    def _recycle(self, ended: int) -> None:
        """Make the interpreter ready for its next isolate, and say so; or say that it is not fit for another one."""
        node = self._node
        self._interrupter.stop()
        self._body.join()
        recyclable = False
        try:
            own = threading.current_thread(), threading.main_thread()
            left_over = [thread for thread in threading.enumerate() if thread not in own]
            recyclable = not left_over and not self._interrupter.tainted and self._program is not None
            self._program = None
            if recyclable:
                self._baseline.restore()
        except BaseException:  # the isolate has broken something that scrubbing needs
            recyclable = False
        node.locals.clear()
        if recyclable:
            self._killed, self._spare = 0.0, None
            self._ending = allocate_lock()
            node.renew()
            self._body = self._new_body()
            early, self._early = self._early, []
            for operation, _, *facts in early:
                self._handle(operation, facts)
        node.tell(nodes.MAIN, nodes.IDLE, node.slot, ended, recyclable)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # replaced, closed, or nobody reads any more
            pass


def _threads() -> list[threading.Thread]:
    """Return the isolate's threads: its body, and those that it has started."""
    main = threading.main_thread()
    return [
        thread
        for thread in threading.enumerate()
        if thread is not main and (thread.name == _BODY or not thread.name.startswith("subiso-"))
    ]


def _report_of_thread(args: "threading.ExceptHookArgs") -> None:
    """Report an uncaught error of a thread as ever; one that was killed with its isolate has none."""
    if not issubclass(args.exc_type, IsolateKilled):
        threading.__excepthook__(args)


def _report(error: BaseException) -> None:
    """Say on stderr what went wrong in the kernel itself; the isolate ends."""
    if not isinstance(error, IsolateKilled):
        sys.__excepthook__(type(error), error, error.__traceback__)
        _flush()
