"""The inside of a pool's worker isolate: take a task, run it, answer, until there is no more to do.

A task is a message ``(function, args)`` or ``(function, args, keywords)``, the function as it is or, where it goes by
reference, as the bytes of its pickle, which are then decoded once. A chunk of a map begins with the map's number. None
tells the worker to end. Each task is answered by one message, which is its result or a failure; the first message of
all says where tasks are to be sent and what the thread is called, or why the initializer failed.
"""

import _pickle
import sys
from _thread import get_native_id
from time import perf_counter

from subiso import coroutines, messages
from subiso._kernel import node as nodes
from subiso._kernel import protocol
from subiso._kernel.interrupt import IsolateKilled
from subiso.errors import NoSendersError, PortClosedError, SendError
from subiso.ports import ReceivePort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from subiso._kernel.node import Node
    from subiso.failures import Packed
    from subiso.messages import Encoded
    from subiso.sending import SendPort

    Raw = tuple[int, bytes | memoryview, Sequence[memoryview]]


def worker_state() -> "Any":
    """Return the state of the pool's worker that runs this task.

    It is what the pool's ``initializer`` has returned in this worker; if that was None, or there is no initializer, a
    dict, empty at first, in which tasks may keep what later tasks of the same worker want.

    Raises:
        RuntimeError: this is no task of a pool.
    """
    worker = nodes.current().locals.get("worker")
    if worker is None:
        raise RuntimeError("only the tasks of an IsolatePool have a worker state")
    return worker.state


def serve(
    replies: "SendPort",
    initializer: "Callable[..., object] | None",
    initargs: "tuple[Any, ...]",
    finalizer: "Callable[[], object] | None",
) -> None:
    """Be a worker of the pool that receives at ``replies``."""
    node = nodes.current()
    worker = node.locals["worker"] = Worker(node, replies)
    with ReceivePort[tuple[int, bytes, list[memoryview]]]() as tasks:
        tasks._decode_by(lambda kind, body, buffers: (kind, body, buffers))  # what fails there must fail the task
        try:
            if initializer is not None:
                worker.initialize(initializer, initargs)
        except BaseException as error:
            worker.answer(worker.failure(error))
            return
        replies.send((tasks.send_port, get_native_id()))
        worker.work(tasks)
        if finalizer is not None:
            finalizer()


class Worker:
    """What a worker isolate knows.

    Attributes:
        state: what `worker_state` returns.
    """

    def __init__(self, node: "Node", replies: "SendPort") -> None:
        self.state: Any = {}
        self._node = node
        self._replies = replies
        self._functions: dict[bytes, Any] = {}  # by the pickle of their references
        self._maps: dict[int, Any] = {}  # the functions of the maps that are going on

    def initialize(self, initializer: "Callable[..., object]", initargs: "tuple[Any, ...]") -> None:
        """Make the state."""
        result = self._call(initializer, initargs)
        self.state = {} if result is None else result
        _flush()

    def work(self, tasks: "ReceivePort[Raw]") -> None:
        """Run tasks until there are to be no more of them."""
        while True:
            try:
                raw = [tasks.receive()]
            except (NoSendersError, PortClosedError):  # the pool's own isolate has ended
                return
            if raw[0][0] == protocol.NONE:
                return
            try:
                encoded = self._run(raw)
            except BaseException as error:
                encoded = self.failure(error)
            _flush()
            self.answer(encoded)

    def answer(self, encoded: "Encoded") -> None:
        """Send the pool an answer."""
        self._replies._post(self._node, *encoded)

    def failure(self, error: BaseException) -> "Encoded":
        """Encode an error in place of a result.

        Raises:
            IsolateKilled: the isolate is being killed; then it has nothing to say any more.
        """
        if isinstance(error, IsolateKilled) and self._node.killed:
            raise error
        return protocol.FAILURE, *messages.encode(_pack(error))[1:]

    def _run(self, raw: "list[Raw]") -> "Encoded":
        """Run the one task in the list, which is emptied, so that memory of a large one is free when it is done."""
        call = messages.decode(*raw.pop())
        if type(call[0]) is int:
            return self._run_chunk(*call)
        function, args, *keywords = call
        del call
        if type(function) is bytes:
            function = self._functions.get(function) or self._load(function)
        return messages.encode(self._call(function, args, *keywords), "result")

    def _call(
        self, function: "Callable[..., Any]", args: "tuple[Any, ...]", keywords: "dict[str, Any] | None" = None
    ) -> "Any":
        result = function(*args, **keywords) if keywords else function(*args)
        return coroutines.run(self._node, result) if coroutines.is_coroutine(result) else result

    def _load(self, reference: bytes) -> "Any":
        function = self._functions[reference] = _pickle.loads(reference)
        return function

    def _run_chunk(
        self,
        number: int,
        function: "Any",
        forgotten: "list[int]",
        several: bool,
        items: "list[Any]",
        budget: float | None,
    ) -> "Encoded":
        """Call a map's function with one item after the other, until one fails or the time is used up.

        The answer is the time that it took, the results, and the error that came after them, if any.
        """
        for other in forgotten:
            self._maps.pop(other, None)
        if type(function) is bytes:
            function = self._maps[number] = _pickle.loads(function)
        else:
            function = self._maps[number]
        results: list[Any] = []
        begin = perf_counter()
        end = None if budget is None else begin + budget
        failed = None
        try:
            for item in items:
                result = function(*item) if several else function(item)
                if coroutines.is_coroutine(result):
                    result = coroutines.run(self._node, result)
                results.append(result)
                if end is not None and perf_counter() > end:
                    break
        except BaseException as error:
            if isinstance(error, IsolateKilled) and self._node.killed:
                raise
            failed = _pack(error)
        return _encode_results(perf_counter() - begin, results, failed)


def _pack(error: BaseException) -> "Packed":
    from subiso import failures

    return failures.pack(error)


def _encode_results(seconds: float, results: "list[Any]", failed: "Packed | None") -> "Encoded":
    try:
        return messages.encode((seconds, results, failed))
    except SendError:
        for place, result in enumerate(results):
            try:
                messages.encode(result, "result")
            except SendError as error:
                return messages.encode((seconds, results[:place], _pack(error)))
        raise


def _flush() -> None:
    """What a task prints is there when its result is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # replaced, closed, or nobody reads any more
            pass
