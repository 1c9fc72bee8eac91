"""Functions and modules that travel by value: taken apart here, put together there; classes.py does it for classes.

Every ``reduce_*`` takes an object apart for the pickler; what it names to put it together runs where the message
arrives.

Guarantees
    A function is memoized before what it refers to is pickled, so every way from it back to itself ends.
    What functions share (globals, cells) they share afterwards, if they travel in one message. Yet each carries all of
    its own, so that it can run as soon as it is built: hashing a key may call it before the message is complete.

Why not cloudpickle: importing it costs an isolate about 50 ms and 2.5 MB, it takes two to three times as long for each
function, and it cannot rebuild classes well enough (classes.py). What it can send can be sent here too.
"""

import marshal
import sys
from types import CellType, CodeType, FunctionType, MappingProxyType, ModuleType

from subiso._pickling import functions, references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from subiso._pickling.functions import Pickler

_IDENTITY = ("__name__", "__package__", "__path__", "__file__")  # what imports inside a function look up in its globals
_MODULE_ONLY = frozenset({"__builtins__", "__cached__", "__loader__", "__spec__"})
_CODES = 512  # code objects that are kept

functions.own_namespaces.add(id(globals()))

_facts: "dict[int, _Facts]" = {}
_codes: dict[bytes, CodeType] = {}


class Scope:
    """What one message knows about the functions in it."""

    __slots__ = ("cells", "namespaces", "open_variables")

    def __init__(self) -> None:
        self.namespaces: dict[int, dict[str, Any]] = {}  # id of the globals here -> the beginning of those there
        self.cells: set[int] = set()  # id of each cell whose contents travel with a function
        self.open_variables: set[int] = set()  # type variables whose bounds are being reduced


def scope_of(pickler: "Pickler") -> Scope:
    """Return what the message knows."""
    if pickler.scope is None:
        pickler.scope = Scope()
    return pickler.scope


# -- functions ---------------------------------------------------------------------------------------------------------


class _Facts:
    """What is to be known of a code object: its bytes, the globals and all names that it or code inside it uses."""

    __slots__ = ("code", "global_names", "marshalled", "names")

    def __init__(self, code: CodeType) -> None:
        self.code = code  # kept alive, since the facts are found by its id
        self.marshalled = marshal.dumps(code)
        self.names: set[str] = set()
        found: dict[str, None] = {}
        for piece in _pieces(code):
            self.names.update(piece.co_names)
            found.update(dict.fromkeys(_global_names(piece)))
        self.global_names = tuple(found)


def _facts_of(code: CodeType) -> _Facts:
    facts = _facts.get(id(code))
    if facts is None:
        if len(_facts) >= _CODES:
            _facts.clear()
        facts = _facts[id(code)] = _Facts(code)
    return facts


def _pieces(code: CodeType) -> "Iterator[CodeType]":
    yield code
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _pieces(constant)


def _global_names(code: CodeType) -> "Iterator[str]":
    """Yield the names that the code looks up in its globals."""
    import opcode

    numbers = opcode.opmap
    direct = {numbers[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")}
    load_global, extended = numbers["LOAD_GLOBAL"], numbers["EXTENDED_ARG"]
    argument = 0
    instructions = code.co_code
    for place in range(0, len(instructions), 2):
        operation = instructions[place]
        argument |= instructions[place + 1]
        if operation == extended:
            argument <<= 8
            continue
        if operation == load_global:
            yield code.co_names[argument >> 1]
        elif operation in direct:
            yield code.co_names[argument]
        argument = 0


def reduce_function(pickler: "Pickler", function: FunctionType) -> "tuple[Any, ...]":
    """Take a function apart. Of its globals only those that its code names travel, or none if its module is there."""
    scope, code = scope_of(pickler), function.__code__
    facts = _facts_of(code)
    contents = []
    for cell in function.__closure__ or ():
        scope.cells.add(id(cell))
        try:
            contents.append((cell, cell.cell_contents))
        except ValueError:  # empty
            pass
    namespace: ModuleType | dict[str, Any] | None = home_of(function)
    names = {} if namespace else globals_of(function)
    if namespace is None:
        outside = function.__globals__
        namespace = scope.namespaces.get(id(outside))
        if namespace is None:
            namespace = {name: outside[name] for name in _IDENTITY if name in outside}
            scope.namespaces[id(outside)] = namespace
    modules = [value for value in names.values() if isinstance(value, ModuleType)]
    modules += [value for _, value in contents if isinstance(value, ModuleType)]
    state = names, _attributes(function), function.__dict__ or None, contents, _submodules(modules, facts.names)
    return make_function, (facts.marshalled, namespace, function.__closure__), state, None, None, set_function


def home_of(function: FunctionType) -> ModuleType | None:
    """Return the module whose globals are the function's, if the other side will find it."""
    namespace = function.__globals__
    name = namespace.get("__name__")
    home = sys.modules.get(name) if isinstance(name, str) else None
    if home is None or getattr(home, "__dict__", None) is not namespace or not references.is_reachable(str(name), home):
        return None
    return home


def globals_of(function: FunctionType) -> "dict[str, Any]":
    """Return the globals that a function, and code inside it, names."""
    namespace = function.__globals__
    names = _facts_of(function.__code__).global_names
    return {name: _resolved(namespace[name]) for name in names if name in namespace and name != "__builtins__"}


def _resolved(value: "Any") -> "Any":
    """Return the value, or the module that a lazy import stands for."""
    return value.resolve() if type(value).__name__ == "lazy_import" else value


def _attributes(function: FunctionType) -> "dict[str, Any]":
    """Return the attributes that a new function of the same code and globals would not have by itself."""
    code = function.__code__
    found: dict[str, Any] = {}
    if function.__defaults__ is not None:
        found["__defaults__"] = function.__defaults__
    if function.__kwdefaults__ is not None:
        found["__kwdefaults__"] = function.__kwdefaults__
    if function.__name__ != code.co_name:
        found["__name__"] = function.__name__
    if function.__qualname__ != code.co_qualname:
        found["__qualname__"] = function.__qualname__
    if function.__module__ != function.__globals__.get("__name__"):
        found["__module__"] = function.__module__
    if function.__type_params__:
        found["__type_params__"] = function.__type_params__
    if function.__doc__ is not (code.co_consts[0] if code.co_consts and type(code.co_consts[0]) is str else None):
        found["__doc__"] = function.__doc__
    annotations = annotations_of(function)
    if annotations:
        found["__annotations__"] = annotations
    return found


def annotations_of(obj: "Any") -> "dict[str, Any]":
    """Return the annotations; as text where names in them mean nothing yet or at run time."""
    try:
        return obj.__annotations__ or {}
    except Exception:  # whatever code in an annotation may raise, from Python 3.14 on
        annotationlib: Any = __import__("annotationlib")
        as_text: dict[str, Any] = annotationlib.get_annotations(obj, format=annotationlib.Format.STRING)
        return as_text


def _submodules(modules: list[ModuleType], names: set[str]) -> list[ModuleType]:
    """Return the loaded submodules that code can name through packages it has: they must be loaded there too."""
    found = []
    packages = [module.__name__ for module in modules if hasattr(module, "__path__")]
    for package in packages:
        for name in names:
            module = sys.modules.get(full := f"{package}.{name}")
            if module is not None:
                found.append(module)
                packages.append(full)
    return found


def make_function(code: bytes, home: "ModuleType | dict[str, Any]", cells: tuple[CellType, ...] | None) -> FunctionType:
    """Build a function; its globals and cells are filled by `set_function`."""
    namespace = home if type(home) is dict else home.__dict__
    if "__builtins__" not in namespace:
        namespace["__builtins__"] = sys.modules["builtins"]
    return FunctionType(_code(code), namespace, None, None, cells)


def _code(marshalled: bytes) -> CodeType:
    """Return the code object; the same one each time, so that what the interpreter learns about it is kept."""
    code = _codes.get(marshalled)
    if code is None:
        if len(_codes) >= _CODES:
            _codes.clear()
        code = _codes[marshalled] = marshal.loads(marshalled)
    return code


def set_function(function: FunctionType, state: "tuple[Any, ...]") -> None:
    """Give a function its globals, attributes and the contents of its cells."""
    names, attributes, own, contents, _ = state
    function.__globals__.update(names)
    for name, value in attributes.items():
        setattr(function, name, value)
    if own:
        function.__dict__.update(own)
    for cell, value in contents:
        cell.cell_contents = value


def reduce_cell(pickler: "Pickler", cell: CellType) -> "tuple[Any, ...]":
    """Take a cell apart; its contents travel with the first function that has it, or here."""
    if id(cell) in scope_of(pickler).cells:
        return CellType, ()
    try:
        return CellType, (), cell.cell_contents, None, None, set_cell
    except ValueError:  # empty
        return CellType, ()


def set_cell(cell: CellType, value: object) -> None:
    """Fill a cell."""
    cell.cell_contents = value


def reduce_code(pickler: "Pickler", code: CodeType) -> "tuple[Any, ...]":
    """Take a code object apart."""
    return marshal.loads, (_facts_of(code).marshalled,)


# -- modules, and small things -------------------------------------------------------------------------------------


def reduce_module(pickler: "Pickler", module: ModuleType) -> "Any":
    """Name a module that will be found, or take it apart, unless it is of a class of its own."""
    name = module.__name__
    if name == "__main__" or references.is_reachable(name, module):
        return find_module, (name,)
    if type(module) is not ModuleType:
        return NotImplemented
    contents = {key: value for key, value in vars(module).items() if key not in _MODULE_ONLY}
    return ModuleType, (name,), contents, None, None, set_module


def find_module(name: str) -> ModuleType:
    """Import a module."""
    __import__(name)
    return sys.modules[name]


def set_module(module: ModuleType, contents: "dict[str, Any]") -> None:
    """Fill a module."""
    module.__dict__.update(contents, __builtins__=sys.modules["builtins"])


def reduce_property(pickler: "Pickler", obj: property) -> "tuple[Any, ...]":
    """Take a property apart."""
    return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)


def reduce_wrapped(pickler: "Pickler", obj: "classmethod[Any, Any, Any] | staticmethod[Any, Any]") -> "tuple[Any, ...]":
    """Take a class method or static method apart."""
    return type(obj), (obj.__func__,)


def reduce_descriptor(pickler: "Pickler", obj: "Any") -> "tuple[Any, ...]":
    """Name a descriptor of another class."""
    return getattr, (obj.__objclass__, obj.__name__)


def reduce_proxy(pickler: "Pickler", proxy: "MappingProxyType[Any, Any]") -> "tuple[Any, ...]":
    """Take a read-only view of a mapping apart."""
    return MappingProxyType, (dict(proxy),)


def reduce_view(pickler: "Pickler", view: "Any") -> "tuple[Any, ...]":
    """Take a view of a dict apart; the rest of the dict stays here."""
    name = type(view).__name__.removeprefix("dict_")
    pairs = {"items": lambda: list(view), "keys": lambda: [(key, None) for key in view]}.get(
        name, lambda: enumerate(view)
    )
    return make_view, (name, list(pairs()))


def make_view(name: str, pairs: "list[tuple[Any, Any]]") -> "Any":
    """Build a view of a new dict."""
    return getattr(dict(pairs), name)()


def reduce_weak(pickler: "Pickler", container: "Any") -> "tuple[Any, ...]":
    """Take a container of weak references apart."""
    contents = dict(container) if hasattr(container, "keys") else list(container)
    return type(container), (), contents, None, None, fill_weak


def fill_weak(container: "Any", contents: "Any") -> None:
    """Fill a container of weak references."""
    container.update(contents)


def reset() -> None:
    """Forget all code."""
    _facts.clear()
    _codes.clear()
