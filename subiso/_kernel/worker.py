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
from time import monotonic, sleep

from subiso._kernel import extensions, parcels, protocol
from subiso._kernel import node as nodes
from subiso._kernel.arena import ABANDONED, FAULTS, ISOLATE, LEAVING, THREAD, Arena
from subiso._kernel.control import Control, tell_errors, tell_exit
from subiso._kernel.insisting import insist, report
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
_MOMENT = 0.2  # seconds for what was asked for with the start of an isolate
_PAUSE = 0.05  # seconds after which a wait that has failed is tried again
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
        insist(node.mailbox.park, worker.jobs)


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
        self._unfit = False  # whether a step failed that the next isolate would have to rely on
        self._withdrawn = 0  # the number of an isolate for which no job will come
        self._open = allocate_lock()  # taken until the body may begin
        self._open.acquire()
        self._body = self._new_body()  # before main is told: without a thread there is no interpreter to be had
        try:
            insist(node.tell, nodes.MAIN, nodes.READY, node.slot)
        except BaseException:
            self._retiring = True
            raise
        finally:
            self._open.release()  # after that: the body may keep the GIL from its first line on

    def live(self) -> None:
        node = self._node
        poller = select.poll()
        poller.register(self._pipe.descriptor, select.POLLIN)
        while not self._retiring:
            patience = self._interrupter.patience()
            try:
                if poller.poll(None if patience is None else int(patience * 1000) + 1):
                    self._read_control()
                else:
                    self._insist()
            except Exception as error:  # no memory, perhaps; who else should end the isolate?
                report(error)
        node.mailbox.stop_waits()
        self._body.join()
        while poller.poll(0):
            self._read_control()
        for message in self._early:  # for the next interpreter in this slot
            node.tell(node.slot, *message)

    def _read_control(self) -> None:
        for message in self._pipe.read():
            try:
                insist(self._receive, message)
            except Exception as error:  # the others are to be read nevertheless
                report(error)

    def _receive(self, message: "tuple[Any, ...]") -> None:
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
            if self._ending.locked():
                return
            if operation == nodes.WITHDRAW:  # if the job has come nevertheless, it ends here
                self._withdrawn = self._node.number
                self._kill()
            else:
                self._control.handle(operation, facts)

    # -- the body's thread ---------------------------------------------------------------------------------------------

    def _new_body(self) -> threading.Thread:
        stack_size(BODY_STACK)  # again: an isolate may have set another one
        threading.excepthook = _report_of_thread
        body = threading.Thread(target=self._run_body, name=_BODY)
        body.start()
        return body

    def _await_job(self) -> bool:
        """Wait until there is a job, or will be none; return whether an isolate has begun, with or without one."""
        jobs = self.jobs
        with self._open:
            pass
        while True:
            try:
                self._node.mailbox.wait([jobs], lambda: jobs.messages or self._retiring or self._withdrawn)
            except Exception as error:  # what has arrived stays in the ring
                report(error)
                sleep(_PAUSE)
            else:
                return bool(jobs.messages or self._withdrawn)

    def _run_body(self) -> None:
        node = self._node
        name_thread(f"subiso-{node.slot}-idle")
        node.arena.words[Arena.home(node.slot) + THREAD] = get_native_id()
        if not self._await_job():
            return
        number = node.number
        try:
            self._run_program()
        except BaseException as error:
            self._unfit = True
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
        baseline = self._baseline
        for step in (baseline.mend, lambda: self._farewell.run(baseline), _flush, self._stop_attendant):
            try:
                step()
            except BaseException as error:
                _report(error)
        try:
            self._end(number)
        except BaseException as error:  # main will say that it has ended
            self._unfit = node.ended = True
            _report(error)
        insist(node.tell, node.slot, nodes.ENDED, number)

    def _run_program(self) -> None:
        """Take the job, and live the life that it describes."""
        node, jobs = self._node, self.jobs
        module, data = "", None
        if node.arena.words[Arena.home(nodes.MAIN) + FAULTS] or "subiso._kernel.faults" in sys.modules:
            _obey_faults(node)
        if self._withdrawn:  # whoever was to send one could not
            while jobs.messages:
                parcels.discard(*jobs.messages.popleft())
            return
        try:
            _, body, buffers = parcels.unpack(*jobs.messages.popleft())
            module, data = _pickle.loads(body)
            __import__(module)
            self._program = sys.modules[module].host(data, buffers)
            self._is_running = True
        except BaseException as error:
            self._refuse(module, data, error)
            return
        try:
            self._program.run()
        except IsolateKilled:
            pass
        except BaseException as error:  # it could not even report what went wrong
            self._complain(error, f"{type(error).__name__}: {error}")

    def _refuse(self, module: str, data: object, error: BaseException) -> None:
        """Answer in place of an isolate that could not begin; the news of its end comes as ever."""
        if isinstance(error, IsolateKilled):
            return
        self._unfit = True
        try:
            if data is None:
                raise error
            sys.modules[module].refuse(data, f"it could not begin: {type(error).__name__}: {error}", ends=False)
        except BaseException:  # the layer above cannot be loaded: the kernel says what it can
            self._complain(error, f"IsolateSpawnError: the isolate could not begin: {type(error).__name__}: {error}")

    def _complain(self, error: BaseException, text: str) -> None:
        """Say on stderr, and to those who listen to errors, what nobody above can say."""
        _report(error)
        node = self._node
        deadline = monotonic() + _MOMENT
        while not node.gate.begun and monotonic() < deadline:  # listeners may be coming; to wait takes descriptors
            sleep(_MOMENT / 100)
        tell_errors(node, protocol.PICKLE, _pickle.dumps([text, None], 5))

    def _stop_attendant(self) -> None:
        attendant = self._node.locals.get("attendant")
        if attendant is not None:
            attendant.stop()

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
        program = self._program
        close_ports, tell = (lambda: insist(node.mailbox.close_ports)), (lambda: insist(tell_exit, node))
        for step in (close_ports, program and program.last_words, tell):
            try:
                if step is not None:
                    step()
            except BaseException as error:
                self._unfit = True
                _report(error)
            words[home + LEAVING] = number
        node.ended = True
        if abandoned:
            words[home + ABANDONED] = number
        words[home + ISOLATE] = 0
        try:
            insist(node.mailbox.announce_end, node.slot)
        except BaseException as error:  # main will
            self._unfit = True
            _report(error)
        return True

    # -- the kernel's thread -------------------------------------------------------------------------------------------

    def _kill(self) -> None:  # holds the guard: see _handle
        if not self._killed:
            self._interrupter.start()
            self._killed = self._seen = monotonic()
            self._woken = 0.0
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
        recyclable = False
        try:
            self._interrupter.stop()
            self._body.join()
            recyclable = self._renew()
        except BaseException:  # the isolate has broken something that scrubbing needs, or there is no thread
            recyclable = False
        if recyclable:
            early, self._early = self._early, []
            for operation, _, *facts in early:
                insist(self._handle, operation, facts)
        insist(node.tell, nodes.MAIN, nodes.IDLE, node.slot, ended, recyclable)

    def _renew(self) -> bool:
        """Scrub the interpreter, and begin to wait for the next isolate; return whether that is possible."""
        node = self._node
        own = threading.current_thread(), threading.main_thread()
        left_over = [thread for thread in threading.enumerate() if thread not in own]
        known = self._program is not None or self._withdrawn != 0
        recyclable = known and not (left_over or self._interrupter.tainted or self._unfit)
        self._program = None
        node.forget()
        if recyclable:
            self._baseline.restore(silently=node.killed)
            self._killed, self._spare, self._withdrawn = 0.0, None, 0
            self._ending = allocate_lock()
            node.renew()
            self._body = self._new_body()
        return recyclable


def _obey_faults(node: Node) -> None:
    from subiso._kernel import faults

    faults.obey(node.arena.words[Arena.home(nodes.MAIN) + FAULTS])


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
        report(error)
