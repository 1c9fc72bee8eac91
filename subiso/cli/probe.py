"""The inside of ``subiso check``: one package, in a process of its own, which may crash or hang.

The process is told on standard input what to do, as JSON, and writes a line of JSON for each stage that it begins and
for what comes out. So its parent knows how far it came.
"""

import importlib
import json
import os
import sys
from time import perf_counter
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from subiso import SendPort

    type Visit = dict[str, Any]

_FRESH = 25  # every so many rounds the isolates get new interpreters, which import everything again


def main(output: int) -> None:
    """Do what standard input says, in this process.

    Args:
        output: the descriptor to write to.
    """
    job = json.loads(sys.stdin.read())

    def tell(**event: object) -> None:
        os.write(output, json.dumps(event).encode() + b"\n")

    smoke = tuple(job["imports"]), job["code"]
    if not job["isolates"]:
        tell(stage="in main")
        tell(visit=visit(*smoke))
        return
    import faulthandler

    faulthandler.enable()
    _Probe(smoke, job["isolates"], job["rounds"], job["expected"], tell).run()


def visit(imports: tuple[str, ...], code: str) -> "Visit":
    """Import and use the package in this interpreter; return what came of it."""
    begin = perf_counter()
    try:
        for name in imports:
            importlib.import_module(name)
        seconds = perf_counter() - begin
        result = evaluate(code)
    except BaseException as error:  # what Rust panics with is no Exception
        return {"error": _described(error), "refused": _is_refusal(error)}
    return {"seconds": seconds, "result": result, "modules": compiled_modules()}


def evaluate(code: str) -> str:
    """Run the code and return how the value of its last line is shown, if that is an expression."""
    import ast

    tree = ast.parse(code, "<smoke>")
    namespace: dict[str, Any] = {"__name__": "smoke"}
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "<smoke>", "exec"), namespace)
        return ""
    tree.body.pop()
    exec(compile(tree, "<smoke>", "exec"), namespace)
    return repr(eval(compile(ast.Expression(last.value), "<smoke>", "eval"), namespace))


def compiled_modules() -> "dict[str, int | None]":
    """Return the compiled modules of packages that are loaded here, and where in memory: None if not to be known."""
    from importlib.machinery import ExtensionFileLoader

    from subiso._kernel import loading
    from subiso._kernel import node as nodes

    node = nodes.peek()
    in_main = node is None or node.slot == nodes.MAIN
    private = {} if in_main else {name: address for name, _, address in loading.loaded()}
    modules: dict[str, int | None] = dict(private)  # some replace themselves by a module of Python
    for module in _reachable_modules():
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if isinstance(loader, ExtensionFileLoader) and loader.name.partition(".")[0] not in sys.stdlib_module_names:
            modules[loader.name] = private.get(loader.name) or loading.address_of_original(loader.path)
    return modules


def _reachable_modules() -> "Iterator[Any]":
    """Yield what is in ``sys.modules``, and the modules that those hold: cv2 keeps its compiled one in a variable."""
    for module in list(sys.modules.values()):
        yield module
        yield from (value for value in list(getattr(module, "__dict__", {}).values()) if isinstance(value, ModuleType))


def _described(error: BaseException) -> str:
    import traceback

    text = "".join(traceback.format_exception_only(error)).strip()
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    places = [frame for frame in places if "importlib" not in frame.filename]
    return f"{text} ({os.path.basename(places[-1].filename)}:{places[-1].lineno})" if places else text


def _is_refusal(error: BaseException | None) -> bool:
    from subiso._kernel.extensions import RefusedExtension

    while error is not None:
        if isinstance(error, RefusedExtension):
            return True
        error = error.__cause__ or error.__context__
    return False


# -- isolates ----------------------------------------------------------------------------------------------------------


class _Probe:
    def __init__(
        self,
        smoke: "tuple[tuple[str, ...], str]",
        isolates: int,
        rounds: int,
        expected: str,
        tell: "Callable[..., None]",
    ) -> None:
        self._smoke = smoke
        self._isolates = isolates
        self._rounds = rounds
        self._expected = expected
        self._tell = tell

    def run(self) -> None:
        from subiso import configure
        from subiso.cli.measuring import private_memory

        configure(spares=0, idle=self._isolates)
        self._tell(stage="in one isolate")
        [first] = self._round(1)
        if not self._is_well([first]):
            return
        of_one = private_memory()
        self._tell(stage=f"in {self._isolates} isolates at once")
        visits = self._round(self._isolates)
        if not self._is_well(visits):
            return
        of_all, more = private_memory(), self._isolates - 1
        memory = None if of_one is None or of_all is None or not more else (of_all - of_one) // more
        new = [one["seconds"] for one in visits if one["seconds"] > first["seconds"] / 10]  # one was used again
        self._tell(visits=visits, first=first["seconds"], at_once=max(new, default=None), memory=memory)
        for number in range(1, self._rounds):
            self._tell(stage=f"in round {number + 1}")
            with_main = number == self._rounds // 2
            visits = self._round(self._isolates, fresh=number % _FRESH == 0, with_main=with_main)
            if not self._is_well(visits):
                return
        self._tell(stage="at the end", done=True)

    def _is_well(self, visits: "list[Visit]") -> bool:
        for one in visits:
            if "error" in one:
                self._tell(failure=one["error"], refused=one["refused"])
            elif one["result"] != self._expected:
                self._tell(failure=f"the result is {one['result'][:200]}, not {self._expected[:200]}, as in main")
            else:
                continue
            return False
        return True

    def _round(self, count: int, fresh: bool = False, with_main: bool = False) -> "list[Visit]":
        """Let so many isolates, and main if wanted, begin at the same time; return what came of each."""
        from subiso import Isolate, PortEmpty, ReceivePort

        gates: ReceivePort[SendPort] = ReceivePort()
        answers: ReceivePort[Visit] = ReceivePort(end_with_senders=False)
        errors: ReceivePort[list[str]] = ReceivePort()
        with gates, answers, errors:
            isolates = [
                Isolate.spawn(
                    _visit_when_told,
                    gates.send_port,
                    answers.send_port,
                    self._smoke,
                    fresh=fresh,
                    on_error=errors.send_port,
                )
                for _ in range(count)
            ]
            for gate in [gates.receive() for _ in isolates]:
                gate.send(None)
            visits = [visit(*self._smoke)] if with_main else []
            for isolate in isolates:
                isolate.join()
            for _ in isolates:
                try:
                    visits.append(answers.receive_nowait())
                except PortEmpty:
                    visits.append(
                        {"error": next(iter(errors), ["the isolate ended without a word"])[0], "refused": False}
                    )
        return visits


def _visit_when_told(gate: "SendPort", answers: "SendPort", smoke: "tuple[tuple[str, ...], str]") -> None:
    from subiso import ReceivePort

    go: ReceivePort[None] = ReceivePort()
    with go:
        gate.send(go.send_port)
        go.receive()
    answers.send(visit(*smoke))
