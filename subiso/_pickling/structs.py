"""msgspec's Structs that travel by value, instances of Structs that pickle alone would change, encoders and decoders.

Pickle calls a Struct's class with the values. That never ends where a Struct leads back to itself, loses what is in its
``__dict__``, and lets ``__post_init__`` change values that it has changed before.
"""

from operator import attrgetter
from types import FunctionType

from subiso._pickling import classes, definitions, functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from subiso._pickling.functions import Pickler, Reducer

functions.own_namespaces.add(id(globals()))

_POST_INIT = "__post_init__"
_REQUIRED, _DEFAULT, _FACTORY = 0, 1, 2
_OPTIONS = ("frozen", "eq", "order", "array_like", "gc", "omit_defaults", "repr_omit_defaults", "forbid_unknown_fields")
_INHERITED = ("weakref", "dict", "cache_hash")  # options that must not be switched off where a base has them on


# -- classes -----------------------------------------------------------------------------------------------------------


def reduce_struct(cls: "Any") -> "tuple[Any, ...]":
    """Take a Struct class apart: its metaclass must know fields, defaults and options at once."""
    beginning = classes.beginning_of(cls)
    state = classes.state_of(cls, beginning)
    if _POST_INIT in vars(cls):
        beginning[_POST_INIT] = None
    fields = _fields(cls)
    arguments = classes.token_of(cls), type(cls), cls.__name__, cls.__bases__, beginning, fields, _config(cls, fields)
    return make_struct, arguments, state, None, None, classes.set_class


def _fields(cls: "Any") -> "list[tuple[str, str, int, Any]]":
    """Return the class's own fields: name, name in messages, what sort of default, the default."""
    import msgspec

    names, defaults = cls.__struct_fields__, cls.__struct_defaults__
    default_of = dict(zip(reversed(names), reversed(defaults), strict=False))
    encoded = dict(zip(names, cls.__struct_encode_fields__, strict=True))
    fields = []
    for name in definitions.annotations_of(cls):
        if name in encoded:
            default = default_of.get(name, msgspec.NODEFAULT)
            if default is msgspec.NODEFAULT:
                fields.append((name, encoded[name], _REQUIRED, None))
            elif type(default).__name__ == "Factory":
                fields.append((name, encoded[name], _FACTORY, default.factory))
            else:
                fields.append((name, encoded[name], _DEFAULT, default))
    return fields


def _config(cls: "Any", fields: "list[tuple[str, str, int, Any]]") -> "dict[str, Any]":
    config = cls.__struct_config__
    options = {name: getattr(config, name) for name in _OPTIONS}
    options.update({name: True for name in _INHERITED if getattr(config, name)})
    own_tag = cls.__qualname__.rpartition(".<locals>.")[2]
    options["tag"] = False if config.tag is None else True if config.tag == own_tag else config.tag
    options["tag_field"] = config.tag_field
    options["kw_only"] = any(name not in cls.__match_args__ for name, *_ in fields)
    return options


class _PostInit:
    """Stands for a class's ``__post_init__``, which msgspec looks up before it can be there."""

    owner: "Any" = None

    def __call__(self, struct: object) -> None:
        real = vars(self.owner)[_POST_INIT]
        if real is not self:
            real(struct)


def make_struct(
    token: bytes,
    metaclass: "Any",
    name: str,
    bases: tuple[type, ...],
    beginning: "dict[str, Any]",
    fields: "list[tuple[str, str, int, Any]]",
    options: "dict[str, Any]",
) -> type:
    """Build a Struct class; its methods and the types of its fields come later."""
    known = classes.known(token)
    if known is not None:
        return known  # type: ignore[no-any-return]
    import msgspec

    namespace = {**beginning, "__annotations__": dict.fromkeys((field for field, *_ in fields), object)}
    for field, encoded, sort, default in fields:
        given = {} if sort == _REQUIRED else {"default" if sort == _DEFAULT else "default_factory": default}
        namespace[field] = msgspec.field(name=encoded, **given)
    if _POST_INIT in namespace:
        namespace[_POST_INIT] = _PostInit()
    cls = classes.quietly(bases, lambda: metaclass(name, bases, namespace, **options))
    if _POST_INIT in namespace:
        namespace[_POST_INIT].owner = cls
    classes.begin(cls, token)
    return cls


# -- instances ---------------------------------------------------------------------------------------------------------


def reducer_for(kind: "Any", cyclic: bool) -> "Reducer | None":
    """Return how instances are taken apart, or None where msgspec's own way changes nothing.

    Args:
        kind: the Struct class.
        cyclic: whether instances may lead back to themselves.
    """
    if type(kind.__reduce__) is FunctionType or type(kind.__reduce_ex__) is FunctionType:
        return None  # the user's own way
    config = kind.__struct_config__
    fields = kind.__struct_fields__
    get_all = attrgetter(*fields) if len(fields) > 1 else None

    def values_of(struct: object) -> "tuple[Any, ...]":
        return get_all(struct) if get_all else tuple(getattr(struct, name) for name in fields)

    def reduce_whole(pickler: "Pickler", struct: "Any") -> "Any":
        return make_instance, (kind, values_of(struct)), getattr(struct, "__dict__", None)

    def reduce_in_steps(pickler: "Pickler", struct: "Any") -> "Any":
        state = values_of(struct), getattr(struct, "__dict__", None)
        return make_blank, (kind,), state, None, None, fill

    if hasattr(kind, _POST_INIT):
        return reduce_whole
    return reduce_in_steps if config.dict or (cyclic and not config.frozen) else None


def make_instance(cls: "Any", values: "tuple[Any, ...]") -> "Any":
    """Build a Struct; ``__post_init__`` runs, but the values stay what they were."""
    names, positional = cls.__struct_fields__, len(cls.__match_args__)
    struct = cls(*values[:positional], **dict(zip(names[positional:], values[positional:], strict=True)))
    fill(struct, (values, None))
    return struct


def make_blank(cls: "Any") -> "Any":
    """Build a Struct that `fill` will give its values."""
    positional = len(cls.__match_args__)
    return cls(*(None,) * positional, **dict.fromkeys(cls.__struct_fields__[positional:]))


def fill(struct: "Any", state: "tuple[tuple[Any, ...], dict[str, Any] | None]") -> None:
    """Give a Struct its values, frozen or not."""
    from msgspec.structs import force_setattr

    values, own = state
    for name, value in zip(struct.__struct_fields__, values, strict=True):
        force_setattr(struct, name, value)
    if own:
        struct.__dict__.update(own)


# -- what msgspec makes of options -------------------------------------------------------------------------------------

_ARGUMENTS = {
    "Meta": (
        "gt ge lt le multiple_of pattern min_length max_length tz title description examples extra_json_schema extra"
    ),
    "Encoder": "enc_hook decimal_format uuid_format order",
    "Decoder": "type strict dec_hook ext_hook float_hook",
}


def reduce_options(pickler: "Pickler", obj: "Any") -> "tuple[Any, ...]":
    """Take apart what is wholly described by the options that it was made with."""
    kind = type(obj)
    options = {name: getattr(obj, name, None) for name in _ARGUMENTS[kind.__name__].split()}
    return make_with_options, (kind, {name: value for name, value in options.items() if value is not None})


def make_with_options(kind: "Any", options: "dict[str, Any]") -> "Any":
    """Build it again."""
    return kind(**options)
