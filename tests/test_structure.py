"""The architecture, as far as it can be checked: what imports what, where versions are told apart, what is public."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import subiso

PACKAGE = Path(subiso.__file__).parent
MODULES = {
    ".".join(("subiso", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# From policy down to mechanism: a module may import what stands in its own line or further down.
LAYERS = [
    {"subiso.__main__"},
    {"subiso.cli", "subiso.integrations", "subiso.testing"},
    {"subiso.supervisor"},
    {"subiso.children"},
    {"subiso.actors", "subiso.pool"},
    {"subiso.chunks", "subiso.crew", "subiso.mapping", "subiso.progress", "subiso.inquiry"},
    {"subiso.mending"},
    {"subiso.lines", "subiso.members", "subiso.queues", "subiso.tasks", "subiso.alarms", "subiso.statistics"},
    {"subiso.groups"},
    {"subiso.isolate", "subiso.programs", "subiso.settings"},
    {"subiso.starting"},
    {"subiso.acting", "subiso.buffers", "subiso.streams", "subiso.workers"},
    {"subiso.listening", "subiso.futures", "subiso.uncaught"},
    {"subiso.requests", "subiso.responses", "subiso.registry"},
    {"subiso.ports", "subiso.entry", "subiso.sending", "subiso.records", "subiso.reports", "subiso.carriers"},
    {"subiso.coroutines"},
    {"subiso.failures", "subiso.messages", "subiso.typed"},
    {"subiso._pickling"},
    {"subiso.errors", "subiso.capabilities"},
    {"subiso._kernel.faults"},
    {"subiso._kernel.nursery", "subiso._kernel.worker"},
    {"subiso._kernel.waking"},
    {"subiso._kernel.asking", "subiso._kernel.attendant", "subiso._kernel.output", "subiso._kernel.waiting"},
    {"subiso._kernel.loops"},
    {"subiso._kernel.node"},
    {"subiso._kernel.control", "subiso._kernel.gate"},
    {"subiso._kernel.mailbox"},
    {"subiso._kernel.post"},
    {"subiso._kernel.links", "subiso._kernel.parcels", "subiso._kernel.semaphore", "subiso._kernel.waitables"},
]
# Policy that policy below it reaches when it is first needed: a port that is listened to, a request.
LAZY = {
    ("subiso.ports", "subiso.listening"),
    ("subiso.sending", "subiso.requests"),
    ("subiso._kernel.node", "subiso._kernel.nursery"),
    ("subiso._kernel.worker", "subiso._kernel.faults"),
}
NEEDLESS = ["weakref", "queue", "math", "subiso._kernel.loading", "subiso._kernel.loops", "subiso._kernel.output"]
HEAVY = ["msgspec", "asyncio", "typing", "re", "inspect", "logging", "dataclasses", "traceback", "enum", "ctypes"]


def layer_of(module: str) -> int:
    """Return the line of `LAYERS` where a module stands; what is named nowhere is at the bottom."""
    for number, layer in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in layer):
            return number
    return len(LAYERS)


def imports_of(path: Path) -> set[str]:
    """Return the modules of subiso that a file imports at run time, wherever in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{name.name}" for name in node.names}
            found |= {part if part in MODULES else node.module for part in parts}
    return {name for name in found if name.split(".")[0] == "subiso" and name != "subiso"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"subiso"}))
def test_imports_point_downwards(module):
    """A module imports only what stands beside it or below."""
    upwards = {name for name in imports_of(MODULES[module]) if layer_of(name) < layer_of(module)}
    assert {(module, name) for name in upwards} <= LAZY


def test_the_kernel_knows_no_policy():
    """Nothing of the kernel imports anything above it."""
    for module, path in MODULES.items():
        if module.startswith("subiso._kernel"):
            assert {name for name in imports_of(path) if not name.startswith("subiso._kernel")} == set(), module


def test_versions_are_told_apart_in_one_file():
    """Only one file of the library mentions Python's version; the command line may print it."""
    telling = {module for module, path in MODULES.items() if re.search("version_info|hexversion", path.read_text())}
    assert telling == {"subiso._kernel.interpreters"}


def test_the_worker_is_a_leaf():
    """What runs in every isolate imports nothing that is costly or that only some messages need."""
    code = f"import sys, subiso._kernel.worker; print([name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {code}"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert outcome.stdout == "[]\n"


@pytest.mark.parametrize(
    ("kind", "costly"),
    [
        ("object", HEAVY + NEEDLESS),
        ("list[int]", ["asyncio", "ctypes", "dataclasses", "inspect", "logging", "traceback", "typing_extensions"]),
    ],
    ids=["untyped", "typed"],
)
def test_messages_load_little(script, kind, costly):
    """An isolate that has received a message has loaded nothing that only other isolates need."""
    code = f"""
        from subiso import Isolate, ReceivePort

        def receive(hello):
            import sys

            with ReceivePort({kind}, end_with_senders=False) as port:
                hello.send(port.send_port)
                port.receive()
            hello.send([name for name in {costly} if name in sys.modules])

        with ReceivePort() as hello:
            Isolate.spawn(receive, hello.send_port, fresh=True)
            hello.receive().send([1])
            print(hello.receive())
    """
    assert script(code).out == "[]\n"


def test_the_first_isolate_of_main_loads_little(script):
    """Futures, and with them logging, are loaded where there is a result to wait for."""
    program = script(
        """
        import sys
        from subiso import Isolate, ReceivePort

        port = ReceivePort()
        Isolate.spawn(port.send_port.send, 1).join()
        print("concurrent.futures" in sys.modules, port.receive(), Isolate.run(abs, -2).result())
        print("concurrent.futures" in sys.modules)
        """
    )
    assert program.out == "False 1 2\nTrue\n"


def test_importing_makes_nothing():
    """Importing the package starts no thread and loads none of its parts."""
    code = (
        "import sys, threading, subiso; "
        "print(threading.active_count(), sorted(name for name in sys.modules if name.startswith('subiso.')))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert outcome.stdout == "1 ['subiso._kernel', 'subiso._kernel.interpreters']\n"


@pytest.mark.parametrize("name", subiso.__all__)
def test_public_names(name):
    """Every public name is there, says what it is, and shows itself as the package's."""
    value = getattr(subiso, name)
    assert value.__doc__
    assert name in dir(subiso)


def test_an_unknown_name():
    """What the package does not have is an AttributeError, as everywhere."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        subiso.nonsense  # noqa: B018


def test_the_reference_is_complete():
    """The reference has every public name."""
    reference = Path(__file__).parent.parent / "docs" / "reference" / "api.md"
    core = re.sub("## Integrations.*?(?=## Errors)", "", reference.read_text(), flags=re.DOTALL)
    documented = set(re.findall(r"auto(?:class|function|exception):: (\w+)", core))
    assert documented == set(subiso.__all__)


def test_the_version():
    """The version is that of the distribution."""
    try:
        installed = importlib.metadata.version("subiso")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here")
    assert subiso.__version__ == installed


def test_threads_in_main_import_nothing(script):
    """They would wait for ever where a Ctrl-C in the middle of main's own import has left the import lock held."""
    program = script(
        """
        import builtins, sys, threading
        from subiso import Isolate, ReceivePort

        found, original = [], builtins.__import__

        def note(name, globals=None, locals=None, fromlist=(), level=0):
            if threading.current_thread().name.startswith("subiso") and not level:
                module = sys.modules.get(name)
                if module is None or any(not hasattr(module, one) for one in fromlist or ()):
                    found.append((threading.current_thread().name, name, fromlist))
            return original(name, globals, locals, fromlist, level)

        def wait(port):
            port.send(None)
            ReceivePort(end_with_senders=False).receive()

        builtins.__import__ = note
        assert Isolate.run(int).result(20) == 0
        with ReceivePort() as port:
            isolate = Isolate.spawn(wait, port.send_port, fresh=True)
            port.receive(20)
            isolate.kill()
            assert isolate.join(20)
        print(found)
        """
    )
    assert program.out == "[]\n", program.out + program.err
