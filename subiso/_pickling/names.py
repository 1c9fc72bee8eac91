"""What pickle knows by name only, or not at all: taken apart into what it was made from."""

from subiso._pickling import classes, definitions, functions, references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from subiso._pickling.functions import Pickler

functions.own_namespaces.add(id(globals()))


def reduce_named(pickler: "Pickler", obj: "Any") -> "Any":
    """Take apart what pickle knows by name only: type variables, aliases and new types, functions with a cache."""
    kind = type(obj).__name__
    if kind == "_lru_cache_wrapper":
        if references.is_reference(obj):
            return NotImplemented
        own = {name: value for name, value in vars(obj).items() if name != "cache_parameters"}
        return make_cached, (obj.__wrapped__, obj.cache_parameters()), own
    if references.is_reference(obj, getattr(obj, "__name__", "")) or kind not in _ARGUMENTS:
        return NotImplemented
    scope = definitions.scope_of(pickler)
    if id(obj) in scope.open_variables:  # its bound is a class that is generic in it
        return make_named, (classes.token_of(obj), type(obj), obj.__module__, (obj.__name__,), {})
    scope.open_variables.add(id(obj))
    positional, optional = _ARGUMENTS[kind]
    arguments = [obj.__name__, *(getattr(obj, name) for name in positional)]
    if kind == "TypeVar":
        arguments += obj.__constraints__
    options = {name: getattr(obj, f"__{name}__", None) for name in optional}
    if type(options.get("default")).__name__ == "NoDefaultType":
        del options["default"]
    return make_named, (
        classes.token_of(obj),
        type(obj),
        obj.__module__,
        arguments,
        {k: v for k, v in options.items() if v},
    )


_VARIABLE = ("bound", "covariant", "contravariant", "infer_variance", "default")
_ARGUMENTS: "dict[str, tuple[tuple[str, ...], tuple[str, ...]]]" = {
    "TypeVar": ((), _VARIABLE),
    "ParamSpec": ((), _VARIABLE),
    "TypeVarTuple": ((), ("default",)),
    "TypeAliasType": (("__value__",), ("type_params",)),
    "NewType": (("__supertype__",), ()),
}


def make_named(token: bytes, kind: "Any", module: str, arguments: "list[Any]", options: "dict[str, Any]") -> "Any":
    """Build a type variable, an alias or a new type, or take the one that is known."""
    found = classes.known(token)
    if found is None:
        found = kind(*arguments, **options)
        classes.remember(found, token)
        try:
            found.__module__ = module
        except AttributeError:  # an alias has that of whoever builds it
            pass
    return found


def make_cached(function: "Callable[..., Any]", parameters: "dict[str, Any]") -> "Any":
    """Build a function with an empty cache."""
    from functools import lru_cache

    return lru_cache(**parameters)(function)


def reduce_partial_method(pickler: "Pickler", method: "Any") -> "tuple[Any, ...]":
    """Take a method with some arguments given apart."""
    return make_partial_method, (type(method), method.func, method.args, method.keywords)


def make_partial_method(kind: "Any", function: "Any", args: "tuple[Any, ...]", keywords: "dict[str, Any]") -> "Any":
    """Build it again."""
    return kind(function, *args, **keywords)
