"""Functions and classes: by reference where they will be found, else by value, and home again as themselves."""

import abc
import asyncio
import contextlib
import copyreg
import ctypes
import dataclasses
import dis
import enum
import functools
import gc
import importlib.util
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import types
import typing
import weakref
import xml.dom.minidom

import msgspec
import numpy as np
import pytest

from subiso import failures, messages
from subiso._pickling import classes, definitions, functions, references
from subiso.errors import SendError

ROOT = str(pathlib.Path(__file__).parent.parent)
ELSEWHERE = """
import sys, _pickle
from subiso import failures, messages
while True:
    try:
        kind, body, buffers = _pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        function, args = messages.decode(kind, body, [memoryview(bytearray(buffer)) for buffer in buffers])
        answer = True, messages.encode(function(*args))[:2]
    except BaseException as error:
        answer = False, failures.pack(error)
    sys.stdout.buffer.write(_pickle.dumps(answer))
    sys.stdout.buffer.flush()
"""


class Elsewhere:
    """Another interpreter, which knows nothing of this module."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": ROOT}
        self._process = subprocess.Popen(
            [sys.executable, "-c", ELSEWHERE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/"
        )

    def __call__(self, function, *args):
        """Return ``function(*args)``, called there."""
        kind, body, buffers, _ = messages.encode_call(function, args)
        pickle.dump((kind, body, [bytes(buffer) for buffer in buffers]), self._process.stdin)
        self._process.stdin.flush()
        succeeded, answer = pickle.load(self._process.stdout)
        if not succeeded:
            raise failures.unpack(answer)
        return messages.decode(*answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def elsewhere():
    """Call functions in another interpreter."""
    other = Elsewhere()
    yield other
    other.close()


@pytest.fixture(autouse=True)
def unknown_module(monkeypatch):
    """Take away the path entries under which another interpreter would find this module."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".", ROOT)])


def copied(value):
    """Return the value as it arrives."""
    kind, body, buffers, _ = messages.encode(value)
    return messages.decode(kind, body, buffers)


def arrived_anew(value):
    """Return the value as it arrives where its classes are not known."""
    kind, body, _, _ = messages.encode(value)
    functions.reset()
    return messages.decode(kind, body)


@pytest.fixture
def run_as_main(monkeypatch):
    """Run a program as ``__main__``, and return its globals."""

    def run(source, **names):
        module = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", module)
        vars(module).update(names)
        exec(textwrap.dedent(source), vars(module))
        return vars(module)

    return run


# -- by reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        json.loads,
        json.JSONDecoder,
        json.JSONDecoder.decode,
        re.compile,
        abc.ABC,
        np.ndarray,
        np.linalg.norm,
        SendError,
        int,
    ],
    ids=repr,
)
def test_what_is_installed_goes_by_reference(found):
    """Functions and classes of the standard library, of installed packages and of subiso go by reference."""
    assert references.is_reference(found)
    assert len(messages.encode(found)[1]) < 80


def test_what_is_not_found_goes_by_value(run_as_main):
    """Lambdas, local functions and classes, this module's and ``__main__``'s go by value."""

    def local():
        pass

    for obj in (lambda: 1, local, Elsewhere, copied, run_as_main("def f(): pass")["f"]):
        assert not references.is_reference(obj)


def make_module(directory, name, text="def f(): return 1\nclass C: pass\n"):
    """Write a module, import it under that name, whatever the path, and return it."""
    path = directory / (name.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clean_modules():
    """Take out of ``sys.modules`` what the test puts there."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.dart(
    "lib/isolate_import_test",
    "lib/issue_6610_test",
    differs=(
        "because an isolate imports modules itself; functions of `__main__`, and of modules that it would not find, "
        "run as they are loaded"
    ),
)
def test_modules_on_and_off_the_path(tmp_path, monkeypatch, clean_modules, elsewhere):
    """A module's functions go by reference exactly while the path leads to its file."""
    module = make_module(tmp_path, "subiso_sample")
    assert not references.is_reference(module.f)
    assert elsewhere(module.f) == 1

    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert references.is_reference(module.f)
    assert references.is_reference(module.C)

    other = tmp_path / "other"
    other.mkdir()
    (other / "subiso_sample.py").write_text("")
    sys.path.insert(0, str(other))
    assert not references.is_reference(module.f)

    sys.path.remove(str(other))
    assert references.is_reference(module.f)
    original, module.f = module.f, lambda: 2
    assert not references.is_reference(module.f)
    assert copied([original, module.f, module.C])[0]() == 1


def test_packages_on_the_path(tmp_path, monkeypatch, clean_modules):
    """Modules in packages and in namespace packages are found level by level."""
    (tmp_path / "subiso_package" / "inner").mkdir(parents=True)
    (tmp_path / "subiso_package" / "__init__.py").write_text("")
    (tmp_path / "subiso_package" / "inner" / "leaf.py").write_text("def f(): pass")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import subiso_package.inner.leaf as leaf

    assert references.is_reference(leaf.f)
    sys.path.remove(str(tmp_path))
    assert not references.is_reference(leaf.f)


def test_modules_of_editable_installs(tmp_path, monkeypatch, clean_modules):
    """A module that another finder finds in the same file goes by reference; finders that fail do not matter."""
    module = make_module(tmp_path, "subiso_editable")

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "subiso_editable":
                return importlib.util.spec_from_file_location(name, tmp_path / "subiso_editable.py")
            raise LookupError

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert references.is_reference(module.f)


def test_modules_go_by_reference_or_by_value(tmp_path, clean_modules, elsewhere):
    """A module that is found is imported there; one that is not travels with what is in it."""
    assert copied(json) is json
    assert elsewhere(lambda: json.dumps([1])) == "[1]"
    module = make_module(tmp_path, "subiso_unfound", "x = [1]\ndef f(): return x")
    arrived = arrived_anew(module)
    assert (arrived.__name__, arrived.x, arrived.f()) == ("subiso_unfound", [1], [1])
    dynamic = types.ModuleType("subiso_dynamic")
    dynamic.y = 2
    assert elsewhere(lambda: dynamic.y) == 2


def test_globals_of_modules_that_are_found(tmp_path, monkeypatch, clean_modules):
    """A lambda of a module that is found uses that module's globals, whatever they are."""
    module = make_module(tmp_path, "subiso_home", "import threading\nlock = threading.Lock()\nf = lambda: lock\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert copied(module.f)() is module.lock


def test_singletons_that_will_not_be_found(run_as_main):
    """An object that stands for a name in ``__main__`` is refused: that name will mean something else."""
    missing = run_as_main(
        """
        class Missing:
            def __reduce__(self): return "MISSING"
        MISSING = Missing()
        """
    )["MISSING"]
    with pytest.raises(SendError, match=r"stands for __main__\.MISSING, which will not be found"):
        messages.encode(missing)


# -- functions by value ------------------------------------------------------------------------------------------------

counter = 0
LIMIT = 10


def count():
    global counter
    counter += 1
    return counter


def counted():
    return counter


def is_even(n):
    return n == 0 or is_odd(n - 1)


def is_odd(n):
    return n != 0 and is_even(n - 1)


def factorial(n):
    """Return n!."""
    return 1 if n == 0 else n * factorial(n - 1)


@functools.lru_cache(maxsize=77)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def doubling(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return 2 * function(*args, **kwargs)

    return wrapper


@doubling
def add(a, b=1, *, c=LIMIT):
    """Add."""
    return a + b + c


def make_counter():
    n = 0

    def up():
        nonlocal n
        n += 1
        return n

    return up, lambda: n


def defining_a_class():
    class Local:
        limit = LIMIT

        def method(self):
            return [LIMIT for _ in range(2)]

    return Local.limit, Local().method()


def naming_a_submodule():
    return xml.dom.minidom.parseString("<a/>").documentElement.tagName


def generating(n):
    yield from range(n)


async def awaiting(n):
    await asyncio.sleep(0)
    return n


def annotated(x: int, y: "list[str]" = ()) -> bool:
    return True


class Callable:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return self.n + x

    def __hidden(self, x):
        return self.n * x

    def hidden(self):
        return self.__hidden


class Key:
    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return hash_of(self)

    def __eq__(self, other):
        return self.n == other.n


def hash_of(key):
    return hash(key.n)


TABLE = {Key(1): "one"}


@pytest.mark.dart(
    "lib/function_send1_test",
    "lib/static_function_test",
    "lib/spawn_generic_test",
    "vm/spawn_generic_function_test",
    "vm/closures_without_captured_variables_test",
    "vm/fast_object_copy2_test",
)
@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        (lambda x, y=2: x + y, (1,), 3),
        (is_even, (10,), True),
        (factorial, (5,), 120),
        (fibonacci, (30,), 832040),
        (add, (1,), 24),
        (functools.partial(add, 1, c=0), (), 4),
        (defining_a_class, (), (10, [10, 10])),
        (naming_a_submodule, (), "a"),
        (lambda: list(generating(3)), (), [0, 1, 2]),
        (lambda: asyncio.run(awaiting(4)), (), 4),
        (Callable(3), (4,), 7),
        (Callable(3).__call__, (4,), 7),
        (Callable(3).hidden(), (4,), 12),
        (lambda key: TABLE[key], (Key(1),), "one"),
        (lambda: (lambda: LIMIT)(), (), 10),
        (lambda: [i * LIMIT for i in range(2)], (), [0, 10]),
        (lambda: sorted(globals()) and __name__, (), __name__),
        (lambda: np.arange(3).sum().item(), (), 3),
        (int, ("5",), 5),
        ("".join, (["a", "b"],), "ab"),
        (eval("lambda: f'{1}{x}'", {"x": 2}), (), "12"),
    ],
    ids=str,
)
def test_functions_run_elsewhere(elsewhere, function, args, result):
    """A function of any sort does elsewhere what it does here."""
    assert function(*args) == result
    assert elsewhere(function, *args) == result


def test_functions_keep_their_attributes():
    """Name, documentation, defaults, annotations and attributes of a function arrive."""
    factorial.note = [1]
    for function in (factorial, add, annotated):
        arrived = copied(function)
        assert arrived is not function
        for name in (
            "__name__",
            "__qualname__",
            "__module__",
            "__doc__",
            "__defaults__",
            "__kwdefaults__",
            "__annotations__",
        ):
            assert getattr(arrived, name) == getattr(function, name)
    assert copied(factorial).note == [1]
    assert copied(add).__wrapped__(1) == 12
    assert copied(fibonacci).cache_parameters() == {"maxsize": 77, "typed": False}


def test_annotations_that_mean_nothing(run_as_main):
    """An annotation that cannot be evaluated keeps no function at home."""
    function = run_as_main("def f(x: int, y: 'Nowhere' = 0): return x")["f"]
    assert copied(function)(3) == 3
    with contextlib.suppress(NameError):  # evaluated at once before Python 3.14
        function = run_as_main("def f(x: Nowhere): return x")["f"]
        assert copied(function)(3) == 3


def test_functions_share_what_they_shared(elsewhere):
    """Functions in one message share globals and variables of closures, and have copies of them."""
    up, look = copied(make_counter())
    assert (up(), up(), look()) == (1, 2, 2)
    tick, told = copied((count, counted))
    assert (tick(), tick(), told(), counted()) == (1, 2, 2, 0)
    assert elsewhere(lambda: (count(), count(), counted())) == (1, 2, 2)
    assert counter == 0


def test_containers_of_weak_references():
    """Containers of weak references arrive with what is referred to from elsewhere in the message."""
    keys = [Callable(1), Callable(2)]
    for container in (
        weakref.WeakSet(keys[:1]),
        weakref.WeakKeyDictionary({keys[0]: 1}),
        weakref.WeakValueDictionary(a=keys[0]),
    ):
        arrived, others = copied((container, keys))
        assert type(arrived) is type(container)
        assert list(getattr(arrived, "values", arrived.__iter__)()) in ([others[0]], [1])


def test_modules_of_a_class_of_their_own(monkeypatch):
    """They are named like others, unless copyreg knows better."""

    class OwnModule(types.ModuleType):
        pass

    monkeypatch.setattr(json, "__class__", OwnModule)
    assert copied(json) is json
    functions.reset()
    monkeypatch.setitem(copyreg.dispatch_table, OwnModule, lambda obj: (str, (obj.__name__,)))
    assert copied(json) == "json"


@pytest.mark.skipif(not hasattr(types, "LazyImportType"), reason="lazy imports came with Python 3.15")
def test_lazy_imports(elsewhere, run_as_main):
    """A lazily imported module that a function names is imported where it runs."""
    assert elsewhere(run_as_main("lazy import json\ndef f(): return json.dumps([1])")["f"]) == "[1]"


def test_recursive_closures():
    """A closure that names itself, and an empty cell, arrive."""

    def make():
        def down(n):
            return n and down(n - 1)

        return down

    def make_empty():
        def f():
            return later

        if False:
            later = 1
        return f

    assert copied(make())(5) == 0
    with pytest.raises(NameError):
        copied(make_empty())()


def test_code_is_built_once():
    """A function that is sent again uses the same code object, so that it stays warm."""
    assert copied(factorial).__code__ is copied(factorial).__code__


def test_only_named_globals_travel(run_as_main):
    """Globals that a function does not name stay at home, even one named like an attribute that it uses."""
    names = run_as_main("def f(x): return x.lock", lock=threading.Lock())
    assert copied(names["f"])(types.SimpleNamespace(lock=3)) == 3


def test_global_names_are_those_that_dis_finds():
    """The names that are read from bytecode are those that the dis module finds."""
    operations = {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
    checked = 0
    for module in (json.decoder, dataclasses, enum, typing, asyncio.base_events, subprocess):
        for function in vars(module).values():
            if isinstance(function, types.FunctionType):
                found = {one.argval for one in dis.get_instructions(function) if one.opname in operations}
                assert set(definitions._global_names(function.__code__)) == found
                checked += 1
    assert checked > 100


def test_nothing_is_imported_for_a_function():
    """A by-value function costs the receiver no import beyond subiso's own."""
    script = textwrap.dedent(
        """
        import sys
        from subiso import messages
        before = set(sys.modules)
        kind, body, buffers, _ = messages.encode(lambda x: [x, LIMIT])
        sent = set(sys.modules) - before
        assert messages.decode(kind, body)
        print(sorted(name for name in set(sys.modules) - before if "." not in name))
        """
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env={"PYTHONPATH": ROOT}, capture_output=True, text=True, timeout=60
    )
    assert set(eval(done.stdout)) <= {"marshal", "opcode", "_opcode", "_opcode_metadata"}, done.stderr


# -- classes by value --------------------------------------------------------------------------------------------------

T = typing.TypeVar("T", bound="Rooted")
UserId = typing.NewType("UserId", int)
type Names = list[Pair]


class Rooted:
    registry: typing.ClassVar = []
    first = None

    def __init_subclass__(cls, kind, **kwargs):
        cls.registry.append((kind, cls))

    def who(self):
        return "rooted"


class Leaf(Rooted, kind="leaf"):
    __slots__ = ("__private", "shown")

    def __init__(self, shown=0):
        self.shown, self.__private = shown, 5

    def who(self):
        return f"leaf, {super().who()}, {self.private}"

    @property
    def private(self):
        return self.__private

    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def itself():
        return Leaf


Rooted.first = Leaf()


class Meta(type):
    def __new__(cls, name, bases, namespace, **kwargs):
        return super().__new__(cls, name, bases, {**namespace, "kwargs": kwargs})

    def called(cls):
        return cls.__name__


class WithMeta(metaclass=Meta, option=1):
    pass


class Abstract(abc.ABC):
    @abc.abstractmethod
    def f(self): ...


class Concrete(Abstract):
    def f(self):
        return 1


Abstract.register(WithMeta)


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias
    GREEN = "g"

    def next(self):
        return Color.GREEN

    @classmethod
    def _missing_(cls, value):
        return cls.RED if value == "red" else None


class Permission(enum.IntFlag):
    READ = 1
    WRITE = 2
    BOTH = 3


class Planet(enum.Enum):
    EARTH = (5.97, 6.37)
    MARS = (0.64, 3.39)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius


class Coordinate(bytes, enum.Enum):
    X = (0, "the x")
    Y = (1, "the y")

    def __new__(cls, value, label):
        member = bytes.__new__(cls, [value])
        member._value_ = value
        member.label = label
        return member


class Weekday(enum.StrEnum):
    MONDAY = enum.auto()


class Pair(typing.NamedTuple):
    left: int
    right: "Pair | None" = None

    def both(self):
        return self.left, self.right


class Movie(typing.TypedDict, total=False):
    title: typing.Required[str]
    year: int


@dataclasses.dataclass(order=True)
class Point:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list, compare=False, metadata={"a": 1})
    parent: "Point | None" = None
    key: int = dataclasses.field(default=3, kw_only=True)


@dataclasses.dataclass(slots=True, frozen=True)
class Tight:
    x: int

    def moved(self):
        return Tight(self.x + 1)


class Stack(typing.Generic[T]):  # noqa: UP046 - the old way
    def __init__(self, *items: T):
        self.items = items


class Box[U]:
    def __init__(self, content: U):
        self.content = content


class Sized(typing.Protocol):
    def size(self) -> int: ...


class BrokenError(LookupError):
    def __init__(self, code, *, hint=""):
        super().__init__(code)
        self.code, self.hint = code, hint


class Described:
    @functools.cached_property
    def answer(self):
        return 42

    view = types.MappingProxyType({"a": 1})
    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, Described)


class Structure(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int)]

    def doubled(self):
        return 2 * self.x


class Dispatching:
    @functools.singledispatchmethod
    def sort(self, value):
        return "other"

    @sort.register
    def _(self, value: int):
        return "number"

    tripled = functools.partialmethod(lambda self, factor, x: factor * x, 3)


@functools.singledispatch
def sort(value):
    return "other"


@sort.register
def _(value: int):
    return "number"


EVERYTHING = [
    Rooted, Leaf, Meta, WithMeta, Abstract, Concrete, Color, Permission, Planet, Coordinate, Weekday, Pair, Movie,
    Point, Tight, Stack, Box, Sized, BrokenError, Described, Callable, Structure, Dispatching,
]  # fmt: skip


@pytest.mark.dart("lib/spawn_function_custom_class_test")
@pytest.mark.parametrize("cls", EVERYTHING, ids=lambda cls: cls.__name__)
def test_classes_come_home_as_themselves(elsewhere, cls):
    """A class that was sent away comes back as that very class, unchanged."""
    before = contents(cls)
    assert elsewhere(lambda: cls) is cls
    assert elsewhere(lambda value: [value], cls) == [cls]
    assert contents(cls) == before


def contents(cls):
    """Return what is in a class, but for what Python notes there when it is looked at."""
    return {name: value for name, value in vars(cls).items() if name not in ("__annotations_cache__", "__slotnames__")}


def test_instances_come_home():
    """Instances are of the very classes that they were of."""
    for value in (Color.RED, Permission.READ | Permission.WRITE, Coordinate.Y, Pair(1, Pair(2)), Point(1), Tight(2)):
        arrived = copied(value)
        assert type(arrived) is type(value)
        assert arrived == value
        if isinstance(value, enum.Enum):
            assert arrived is value


def test_what_was_changed_at_home_stays_changed(elsewhere):
    """A class that comes home does not undo what happened to it meanwhile."""

    class Config:
        level = 1

    def change(config):
        config.level = 5
        return config

    arrived = elsewhere(change, Config)
    assert arrived is Config
    assert Config.level == 1
    body = messages.encode(Config)[1]
    Config.level = 2
    assert messages.decode(24, body).level == 2


def test_classes_work_elsewhere(elsewhere):
    """Methods, super, properties, class attributes and private names work in a class that was rebuilt."""

    def check():
        leaf = Leaf.make()
        assert leaf.who() == "leaf, rooted, 5"
        assert type(Rooted.first) is Leaf
        assert Rooted.registry == [("leaf", Leaf)]
        assert leaf.itself() is Leaf
        assert "__dict__" not in vars(Leaf)
        assert WithMeta.called() == "WithMeta"
        assert WithMeta.kwargs == {"option": 1}
        assert isinstance(WithMeta(), Abstract)
        assert Concrete().f() == 1
        assert isinstance(Concrete(), Abstract)
        assert Described().answer == 42
        assert Described().view["a"] == 1
        assert Stack[int].__origin__ is Stack
        assert Box[int](1).content == 1
        assert UserId(3) == 3
        assert T.__name__ == "T"
        assert Structure(4).doubled() == 8
        assert (Dispatching().sort(1), Dispatching().sort(""), Dispatching().tripled(2)) == ("number", "other", 6)
        assert (sort(1), sort("")) == ("number", "other")
        error = BrokenError(1, hint="h")
        assert (error.code, error.hint, error.args) == (1, "h", (1,))
        try:
            Abstract()
        except TypeError as error:
            return str(error)

    assert "abstract" in elsewhere(check)


def test_enumerations_work_elsewhere(elsewhere):
    """Members of enumerations are themselves elsewhere, with values, aliases, flags and attributes."""

    def check(red, both, mars, y, monday):
        assert red is Color.RED is Color.CRIMSON is Color(1) is Color("red")
        assert list(Color) == [Color.RED, Color.GREEN]
        assert list(Color.__members__) == ["RED", "CRIMSON", "GREEN"]
        assert red.next() is Color.GREEN
        assert both is Permission.BOTH is Permission.READ | Permission.WRITE is Permission(3)
        assert Permission.READ | 4 == 5
        assert list(both) == [Permission.READ, Permission.WRITE]
        assert (mars.mass, mars.value) == (0.64, (0.64, 3.39))
        assert Planet((5.97, 6.37)) is Planet.EARTH
        assert (y, y.label) == (b"\1", "the y")
        assert Coordinate(1) is y
        assert monday == "monday" == Weekday("monday")
        assert {red: 1}[Color.RED] == 1
        return Color.GREEN, both, Permission.READ | Permission.WRITE

    returned = elsewhere(check, Color.RED, Permission.BOTH, Planet.MARS, Coordinate.Y, Weekday.MONDAY)
    assert all(map(lambda one, other: one is other, returned, (Color.GREEN, Permission.BOTH, Permission.BOTH)))


def test_data_classes_work_elsewhere(elsewhere):
    """Fields, defaults, annotations and generated methods of data classes and named tuples are there."""

    def check(point, pair, movie):
        assert point == Point(1, ["a"], Point(0))
        assert Point(1) < Point(2)
        assert dataclasses.replace(point, x=2).tags == ["a"]
        fields = {field.name: field for field in dataclasses.fields(Point)}
        assert fields["x"].default is dataclasses.MISSING
        assert fields["tags"].metadata["a"] == 1
        assert fields["key"].kw_only
        assert dataclasses.asdict(Point(1)) == {"x": 1, "tags": [], "parent": None, "key": 3}
        assert Point.__annotations__["tags"] == list[str]
        assert typing.get_type_hints(Point)["parent"] == Point | None
        assert (Tight(1).moved(), hasattr(Tight(1), "__dict__")) == (Tight(2), False)
        try:
            Tight(1).x = 2
        except dataclasses.FrozenInstanceError:
            pass
        assert (pair, pair.both(), pair._replace(left=3).left) == (Pair(1, Pair(2)), (1, Pair(2)), 3)
        assert Pair._fields == ("left", "right")
        assert Movie.__required_keys__ == {"title"}
        assert movie == Movie(title="t")

        @dataclasses.dataclass
        class Sub(Point):
            z: int = 1

        return Sub(1, z=2).z

    assert elsewhere(check, Point(1, ["a"], Point(0)), Pair(1, Pair(2)), Movie(title="t")) == 2


def test_classes_used_by_msgspec_before(elsewhere):
    """What msgspec remembers about a class does not travel, and keeps it from nothing."""
    for cls, value in ((Point, Point(1)), (Pair, Pair(1)), (Movie, {"title": "t"}), (Weekday, Weekday.MONDAY)):
        msgspec.json.decode(msgspec.json.encode(value), type=cls)
        assert "__msgspec_cache__" in vars(cls)
        assert (
            elsewhere(lambda cls=cls, value=value: msgspec.json.decode(msgspec.json.encode(value), type=cls)) == value
        )


def test_classes_of_main_with_future_annotations(elsewhere, run_as_main):
    """Annotations in text are resolved where they mean something, those of the class itself included."""
    names = run_as_main(
        """
        from __future__ import annotations
        import dataclasses, datetime, typing
        import msgspec

        class Tree(msgspec.Struct):
            name: str
            when: datetime.date
            children: list["Tree"] = []
            parent: typing.Optional["Tree"] = None
            kind: typing.ClassVar[int] = 3

        @dataclasses.dataclass
        class Node:
            next: Node | None = None
            only_for_checkers: Nowhere | None = None

        def check(tree):
            data = b'{"name": "a", "when": "2024-01-01", "children": [{"name": "b", "when": "2024-01-02"}]}'
            decoded = msgspec.json.decode(data, type=Tree)
            assert decoded.children[0].when == datetime.date(2024, 1, 2)
            assert Tree.kind == 3
            assert Node(Node()).next == Node()
            return decoded, tree
        """
    )
    decoded, tree = elsewhere(names["check"], names["Tree"]("x", None))
    assert type(decoded) is type(tree) is names["Tree"]


def test_equal_names_are_different_classes():
    """A class that is defined anew is another class, also on arrival."""

    def define():
        class Same:
            pass

        return Same

    first, second = define(), define()
    arrived = arrived_anew([first, second, first()])
    assert arrived[0] is not arrived[1]
    assert type(arrived[2]) is arrived[0]


def test_type_variables_and_aliases():
    """Type variables, aliases and new types come home as themselves, and can be rebuilt."""
    parameters = typing.ParamSpec("parameters")
    for value in (T, UserId, Names, parameters):
        assert copied(value) is value
    arrived = arrived_anew([Stack, T, typing.TypeVar("V", int, str), UserId, parameters, typing.TypeVarTuple("Ts")])
    assert arrived[0].__parameters__ == (arrived[1],)
    assert arrived[2].__constraints__ == (int, str)
    assert arrived[3].__supertype__ is int


def test_two_threads_build_a_class():
    """Of two messages that bring the same class at once, the second fills the class that the first has begun."""
    kind, body, _, _ = messages.encode(Callable(3))
    functions.reset()
    begun = classes.make_class(b"t", type, "Begun", (), {"__module__": "__main__"})
    again = classes.make_class(b"t", type, "Begun", (), {"__module__": "__main__"})
    assert again is begun
    classes.set_class(again, ({"x": 1}, None, [], None))
    classes.set_class(begun, ({"x": 2}, None, [], None))
    assert begun.x == 1
    results = []
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        results.append(messages.decode(kind, body)(4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [7] * 4


# -- Structs -----------------------------------------------------------------------------------------------------------


class Base(msgspec.Struct, kw_only=True, rename="camel", tag_field="kind", tag=str.lower):
    base_field: int = 0

    def who(self):
        return f"base {self.base_field}"


class Derived(Base, order=True, forbid_unknown_fields=True):
    own_field: str
    tags: list[str] = []
    made: list = msgspec.field(default_factory=lambda: [Derived])
    named: int = msgspec.field(default=3, name="other")
    limit: typing.ClassVar[int] = 5

    def who(self):
        return f"derived, {super().who()}"

    @property
    def loud(self):
        return self.own_field.upper()

    @classmethod
    def make(cls):
        return cls(base_field=1, own_field="made")


class Checked(msgspec.Struct, frozen=True, array_like=True, weakref=True, cache_hash=True):
    x: int
    inner: "Checked | None" = None

    def __post_init__(self):
        if self.x < 0:
            raise ValueError(f"negative, not at least {LIMIT}")


class Checking(Checked, frozen=True):
    y: int = 1


class Wrapped[V](msgspec.Struct, gc=False, omit_defaults=True, repr_omit_defaults=True, eq=False):
    content: V
    day: Weekday = Weekday.MONDAY


class Constrained(msgspec.Struct, dict=True):
    n: typing.Annotated[int, msgspec.Meta(ge=0, description="not negative")]


STRUCTS = [Base, Derived, Checked, Checking, Wrapped, Constrained]


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_structs_come_home_as_themselves(elsewhere, cls):
    """A Struct class comes back as that very class, also after msgspec has used it."""
    msgspec.json.Decoder(cls)
    before = contents(cls)
    assert elsewhere(lambda: cls) is cls
    assert contents(cls) == before


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_structs_are_rebuilt_alike(cls):
    """Fields, defaults and options of a rebuilt Struct are those of the original."""
    original = described(cls)
    arrived = arrived_anew(cls)
    assert arrived is not cls
    assert described(arrived) == original


def described(cls):
    config = cls.__struct_config__
    options = {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
    defaults = [getattr(one, "factory", one) for one in cls.__struct_defaults__]
    plain = [one if isinstance(one, (int, str, type(None))) else str(one).partition(" at ")[0] for one in defaults]
    names = cls.__struct_fields__, cls.__struct_encode_fields__, cls.__match_args__
    return options, plain, names, cls.__name__, cls.__module__, cls.__qualname__, cls.__doc__


def test_structs_work_elsewhere(elsewhere):
    """Methods, super, validation, generics and typed decoding work in Struct classes that were rebuilt."""

    def check(derived):
        assert derived.who() == "derived, base 1"
        assert (derived.loud, Derived.limit, Derived.make().made) == ("MADE", 5, [Derived])
        assert derived.tags is not Derived.make().tags
        derived.made.clear()
        encoded = msgspec.json.encode(derived)
        assert all(part in encoded for part in (b'"kind":"derived"', b'"ownField":"made"', b'"other":3'))
        try:
            msgspec.json.decode(b"[1, [-1]]", type=Checked)
        except msgspec.ValidationError as error:
            assert "negative, not at least 10" in str(error)
        else:
            raise AssertionError
        try:
            Checking(-1)
        except ValueError:
            pass
        else:
            raise AssertionError
        assert hash(Checked(1)) == hash(Checked(1))
        assert Wrapped(3) != Wrapped(3)
        assert msgspec.json.decode(b'{"content": 3}', type=Wrapped[int]).content == 3
        assert msgspec.json.encode(Wrapped(3)) == b'{"content":3}'
        try:
            msgspec.json.decode(b'{"n": -1}', type=Constrained)
        except msgspec.ValidationError as error:
            assert ">= 0" in str(error)
        return derived, Checked(1, Checked(2)), Wrapped(Color.RED)

    derived, checked, wrapped = elsewhere(check, Derived.make())
    assert derived.base_field == 1
    assert checked == Checked(1, Checked(2))
    assert type(wrapped) is Wrapped
    assert wrapped.content is Color.RED


def test_encoders_and_decoders_of_msgspec(elsewhere):
    """Encoders and decoders of msgspec that a function names are built again."""
    encoder, decoder = msgspec.json.Encoder(order="sorted"), msgspec.msgpack.Decoder(list[int])

    def check():
        return encoder.encode({"b": 1, "a": 2}), decoder.decode(msgspec.msgpack.encode([1])), decoder.type

    assert elsewhere(check) == (b'{"a":2,"b":1}', [1], list[int])


# -- nothing is left ---------------------------------------------------------------------------------------------------


def test_nothing_sent_is_kept():
    """Neither encoding nor decoding keeps objects, functions or classes alive, but code."""

    def make():
        class Short:
            def method(self):
                return super().__hash__()

        return Short

    cls = make()
    arrived = arrived_anew(cls)
    refs = [weakref.ref(one) for one in (cls, cls.method, arrived, arrived.method)]
    copied(cls())
    del cls, arrived
    gc.collect()
    assert [one() for one in refs] == [None] * 4
    assert not classes._unfinished


def test_reset():
    """After a reset the interpreter knows no class, no module and no code."""
    copied([Color.RED, factorial, json.loads])
    functions.reset()
    for known in (classes._objects, classes._tokens, definitions._codes, definitions._facts, references._reachable):
        assert not known
    assert copied(Color.RED) is Color.RED


def test_callers_of_c_that_are_not_found(clean_modules):
    """A class of a C extension is never taken apart, even if its module cannot be found again."""
    module = types.ModuleType("subiso_fake")
    sys.modules["subiso_fake"] = module
    for cls in (type(re.compile("")), type(json.loads), type(iter([]))):
        with contextlib.suppress(SendError):
            assert copied(cls) is cls
