"""What runs inside an isolate's interpreter: one thread of the kernel, and one new thread for each isolate's body.

The kernel's thread is the one that made the interpreter. It reads control messages, interrupts the body, scrubs the
interpreter after an isolate, and ends when it is told to retire. The body waits for a job, hands it to the layer above,
says farewell and ends. Only standard-library modules that start-up needs are imported here; a test proves it.

A job is a module's name and data: the kernel imports the module and calls its ``host(data, buffers)``, which returns an
object with ``run()``, the isolate's life, and ``last_words()``, its very last messages.
"""

import _pickle
import select
import sys
import threading
from _thread import stack_size

from subiso._kernel import extensions, links
from subiso._kernel import node as nodes
from subiso._kernel.arena import ISOLATE, LEAVING, Arena
from subiso._kernel.interrupt import Interrupter, IsolateKilled
from subiso._kernel.node import ControlPipe, Node
from subiso._kernel.scrub import Baseline, Farewell
from subiso._kernel.waitables import Inbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

BODY_STACK = 16 << 20  # bytes, of address space: OpenBLAS and deep recursion need more than 2 MiB


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
    stack_size(BODY_STACK)
    threading.current_thread().name = "subiso-kernel"
    worker = _Worker(node, ControlPipe(control))
    try:
        worker.live()
    finally:
        node.mailbox.park()


class _Worker:
    def __init__(self, node: Node, control: ControlPipe) -> None:
        self._node = node
        self._control = control
        self._jobs: Inbox = node.mailbox.open_fixed(nodes.JOBS)
        self._interrupter = Interrupter()
        self._retiring = False
        self._killed_early = -1
        self._farewell = Farewell()
        self._baseline = Baseline()
        self._body = self._new_body()

    def live(self) -> None:
        node = self._node
        node.tell(nodes.MAIN, nodes.READY, node.slot)
        poller = select.poll()
        poller.register(self._control.descriptor, select.POLLIN)
        while not self._retiring:
            patience = self._interrupter.patience()
            if not poller.poll(None if patience is None else int(patience * 1000) + 1):
                if self._interrupter.insist():
                    node.give_up()
                continue
            for operation, number, *_ in self._control.read():
                if operation == nodes.KILL:
                    self._kill(number)
                elif operation == nodes.ENDED:
                    self._recycle(number)
                elif operation == nodes.RETIRE:
                    self._retiring = True
        node.mailbox.stop_waits()
        self._body.join()

    # -- the body's thread ---------------------------------------------------------------------------------------------

    def _new_body(self) -> threading.Thread:
        stack_size(BODY_STACK)  # again: an isolate may have set another one
        threading.excepthook = _report_of_thread
        body = threading.Thread(target=self._run_body, name="subiso-body")
        body.start()
        return body

    def _run_body(self) -> None:
        node, jobs = self._node, self._jobs
        node.mailbox.wait([jobs], lambda: jobs.messages or self._retiring)
        if not jobs.messages:
            return
        program = None
        try:
            _, body, buffers = links.unpack(*jobs.messages.popleft())
            module, data = _pickle.loads(body)
            __import__(module)
            program = sys.modules[module].host(data, buffers)
            program.run()
        except BaseException as error:
            _report(error)
        _join_threads()  # a kill reaches them too
        self._interrupter.stop()
        try:
            self._farewell.run()
            _flush()
            attendant = node.locals.get("attendant")
            if attendant is not None:
                attendant.stop()
            node.mailbox.close_ports()
            node.arena.words[Arena.home(node.slot) + LEAVING] = node.number
            if program is not None:
                program.last_words()
        except BaseException as error:
            _report(error)
        self._end()

    def _end(self) -> None:
        """Take the isolate's name off the home, so that everybody sees that it has ended."""
        node = self._node
        number = node.number
        node.ended = True
        node.arena.words[Arena.home(node.slot) + ISOLATE] = 0
        node.mailbox.announce_end(node.slot)
        node.tell(node.slot, nodes.ENDED, number)

    # -- the kernel's thread -------------------------------------------------------------------------------------------

    def _kill(self, number: int) -> None:
        node = self._node
        if number != node.number:
            return
        if node.ended:  # the isolate that is meant has been promised this interpreter, which is not ready yet
            self._killed_early = number
            return
        if node.killed:
            return
        self._interrupter.start()
        node.give_up()

    def _recycle(self, ended: int) -> None:
        """Make the interpreter ready for its next isolate, and say so; or say that it is not fit for another one."""
        node = self._node
        self._interrupter.stop()
        self._body.join()
        node.wakers.clear()
        node.locals.clear()
        recyclable = False
        try:
            own = threading.current_thread(), threading.main_thread()
            left_over = [thread for thread in threading.enumerate() if thread not in own]
            recyclable = not left_over and not self._interrupter.tainted
            if recyclable:
                self._baseline.restore()
        except BaseException:  # the isolate has broken something that scrubbing needs
            recyclable = False
        if recyclable:
            node.killed = node.ended = False
            node.name = ""
            self._body = self._new_body()
            self._kill(self._killed_early)
        else:  # the next interpreter in this slot must find the job that may have come already
            for message in self._jobs.messages:
                node.mailbox.send(self._jobs.address, *message)
        node.tell(nodes.MAIN, nodes.IDLE, node.slot, ended, recyclable)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # replaced, closed, or nobody reads any more
            pass


def _join_threads() -> None:
    """Wait for the threads that the isolate has started."""
    kept = threading.current_thread(), threading.main_thread()
    for thread in threading.enumerate():
        if not (thread in kept or thread.name.startswith("subiso-")):
            thread.join()


def _report_of_thread(args: "threading.ExceptHookArgs") -> None:
    """Report an uncaught error of a thread as ever; one that was killed with its isolate has none."""
    if not issubclass(args.exc_type, IsolateKilled):
        threading.__excepthook__(args)


def _report(error: BaseException) -> None:
    """Say on stderr what went wrong in the kernel itself; the isolate ends."""
    if not isinstance(error, IsolateKilled):
        sys.__excepthook__(type(error), error, error.__traceback__)
        _flush()
