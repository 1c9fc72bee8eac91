"""Context variables that isolates find as they are where their work was sent from."""

import copyreg
import sys
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

from subiso import carriers
from subiso._pickling import references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class _State:
    """What this isolate carries: variables by their keys, which say where they are found."""

    def __init__(self) -> None:
        self.carried: dict[str, ContextVar[Any]] = {}
        self.made: dict[str, ContextVar[Any]] = {}  # in place of those that cannot be found by name


def _state() -> _State:
    state: _State = carriers.state.setdefault("context", _State())
    return state


def carry(*variables: "ContextVar[Any]") -> None:
    """Have work that is sent to isolates find these context variables as they are where it is sent.

    That holds from now on, in this isolate and in those that it gives work to: for `Isolate.run` and `spawn`, tasks,
    maps and streams of pools, and calls of actors. Values are copied, as everything that is sent; what the work sets
    does not come back. A variable that is not set is not set there either. Where a value cannot be sent, sending the
    work raises a `SendError`.

    Raises:
        TypeError: something is no `contextvars.ContextVar`.
    """
    for variable in variables:
        if not isinstance(variable, ContextVar):
            raise TypeError(f"carry takes context variables, not {variable!r}")
    state = _state()
    for variable in variables:
        if variable not in state.carried.values():
            state.carried[_key_of(variable)] = variable
    if variables:
        carriers.add(_capture, _restore)


def drop(*variables: "ContextVar[Any]") -> None:
    """Have these context variables carried no more; those that are not carried are no error."""
    carried = _state().carried
    for key, variable in list(carried.items()):
        if variable in variables:
            del carried[key]
    if not carried:
        carriers.remove(_restore)


def _key_of(variable: "ContextVar[Any]") -> str:
    """Say where a variable is found: the module and the name of a global variable, if there is one."""
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return f"{name}:{attribute}"
    return f"{variable.name}:{id(variable)}"


def _capture() -> "tuple[list[ContextVar[Any]], dict[str, Any]]":
    context = copy_context()
    carried = _state().carried
    return list(carried.values()), {key: context[one] for key, one in carried.items() if one in context}


@contextmanager
def _restore(cargo: "tuple[list[ContextVar[Any]], dict[str, Any]]") -> "Iterator[None]":
    variables, values = cargo
    carry(*variables)
    carried = _state().carried
    tokens = [(carried[key], carried[key].set(value)) for key, value in values.items()]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


# -- variables in messages ---------------------------------------------------------------------------------------------


def _reduce(variable: "ContextVar[Any]") -> "tuple[Any, ...]":
    key = next((key for key, one in _state().carried.items() if one is variable), None)
    if key is None:
        raise TypeError(f"context variable {variable.name!r} cannot be sent; subiso.integrations.context.carry it")
    module = key.rpartition(":")[0]
    if module in sys.modules and references.is_reachable(module, sys.modules[module]):
        return _find, (key,)
    return _make, (key, variable.name, *_default_of(variable))


def _default_of(variable: "ContextVar[Any]") -> "tuple[Any, ...]":
    """Return a variable's default, if it has one."""
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()


def _find(key: str) -> "ContextVar[Any]":
    module, _, name = key.rpartition(":")
    __import__(module)
    variable: ContextVar[Any] = getattr(sys.modules[module], name)
    _state().carried[key] = variable
    return variable


def _make(key: str, name: str, *default: "Any") -> "ContextVar[Any]":
    """Return the variable that stands here for one that only its own isolate could find by name."""
    state = _state()
    known = state.carried.get(key) or state.made.get(key)
    if known is None:
        known = ContextVar(name, default=default[0]) if default else ContextVar(name)
    state.made[key] = state.carried[key] = known
    return known


copyreg.pickle(ContextVar, _reduce)
