"""What modules of the standard library keep for the whole interpreter, and how it is put back after an isolate.

Most of it is an attribute that some function sets (``tempfile.tempdir``, the opener of ``urllib.request``): `STATE`
says where it lies. It is remembered when the module has just been executed, before anybody could have changed it, and
nothing is imported for it. The rest is reset through functions of the library's own.
"""

import sys
from _frozen_importlib_external import _LoaderBasics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

STATE = {
    "asyncio.events": ("_event_loop_policy",),
    "calendar": ("c.firstweekday",),
    "copyreg": ("_extension_registry", "_inverted_registry", "_extension_cache"),
    "doctest": ("OPTIONFLAGS_BY_NAME", "_unittest_reportflags"),
    "email.charset": ("CHARSETS", "ALIASES", "CODEC_MAP"),
    "email.policy": ("EmailPolicy.header_factory.registry",),
    "fileinput": ("_state",),
    "gettext": ("_current_domain", "_localedirs", "_translations"),
    "http.client": ("HTTPConnection.debuglevel",),
    "imaplib": ("Debug",),
    "locale": ("_override_localeconv",),
    "logging": (
        *("_logRecordFactory", "_loggerClass", "_levelToName", "_nameToLevel", "lastResort", "raiseExceptions"),
        *("basicConfig", "logThreads", "logMultiprocessing", "logProcesses", "logAsyncioTasks", "_srcfile"),
        *("root.manager.loggerClass", "root.manager.logRecordFactory", "root.manager.emittedNoHandlerWarning"),
    ),
    "mimetypes": (
        *("inited", "_db", "knownfiles", "suffix_map", "encodings_map", "types_map", "common_types"),
        *("_suffix_map_default", "_encodings_map_default", "_types_map_default", "_common_types_default"),
    ),
    "multiprocessing.context": ("_default_context._actual_context",),
    "multiprocessing.spawn": ("_python_exe",),
    "reprlib": ("aRepr.__dict__",),
    "shutil": ("_ARCHIVE_FORMATS", "_UNPACK_FORMATS"),
    "sqlite3.dbapi2": ("adapters", "converters"),
    "ssl": ("_create_default_https_context",),
    "subprocess": ("_USE_POSIX_SPAWN", "_USE_VFORK"),
    "tarfile": ("TarFile.extraction_filter",),
    "tempfile": ("tempdir", "template"),
    "urllib.parse": ("uses_relative", "uses_netloc", "uses_params"),
    "urllib.request": ("_opener",),
    "webbrowser": ("_browsers", "_tryorder", "_os_preferred_browser"),
    "xml.dom.domreg": ("registered",),
    "xml.etree.ElementTree": ("_namespace_map",),
    "xml.sax": ("default_parser_list",),
    "zoneinfo._tzpath": ("TZPATH",),
}
"""Module -> what to put back: attributes, also of objects in it. What a version has not is passed over."""

_MISSING = object()

awaited: "dict[str, Callable[[], object]]" = {}
"""What this isolate wants done when a module has been executed, by the module's name."""

_remembered: "dict[str, tuple[ModuleType, list[_Place]]]" = {}


class _Place:
    """An attribute, as it was when it was remembered; of a list, dict or set also what was in it."""

    __slots__ = ("_attribute", "_contents", "_owner", "_value")

    def __init__(self, owner: "Any", attribute: str) -> None:
        self._owner = owner
        self._attribute = attribute
        value: Any = getattr(owner, attribute, _MISSING)
        self._value = value
        self._contents = value.copy() if type(value) in (dict, list, set) else None

    def put_back(self) -> None:
        """Make the attribute what it was."""
        owner, attribute, value, contents = self._owner, self._attribute, self._value, self._contents
        if contents is not None and value != contents:
            value.clear()
            (value.extend if type(value) is list else value.update)(contents)
        if getattr(owner, attribute, _MISSING) is not value:
            if value is _MISSING:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, value)


def watch() -> None:
    """Remember the state of the modules that are loaded, and from now on that of each when it has been executed."""
    loaders: Any = _LoaderBasics
    execute = loaders.exec_module

    def exec_module(loader: object, module: "ModuleType") -> None:
        """Take the place of the method of all loaders of Python code."""
        execute(loader, module)
        if module.__name__ in STATE:
            _remember(module)
        if awaited and module.__name__ in awaited:
            awaited.pop(module.__name__)()

    for name in STATE.keys() & sys.modules.keys():
        _remember(sys.modules[name])
    loaders.exec_module = exec_module


def _remember(module: "ModuleType") -> None:
    places = []
    for path in STATE[module.__name__]:
        *owners, attribute = path.split(".")
        owner: Any = module
        for name in owners:
            owner = getattr(owner, name, _MISSING)
        if owner is not _MISSING:
            places.append(_Place(owner, attribute))
    _remembered[module.__name__] = module, places


def reset(is_kept: "Callable[[Any], bool]") -> None:
    """Reset the state of the libraries that are loaded.

    Args:
        is_kept: tells whether a module outlives the isolate.
    """
    awaited.clear()
    modules: dict[str, Any] = sys.modules
    for name, reset_one in _RESETS.items():
        if name in modules:
            reset_one(modules[name])
    if "logging" in modules:
        _reset_loggers(modules["logging"], is_kept)
    for name, (module, places) in list(_remembered.items()):
        if modules.get(name) is module:
            for place in places:
                place.put_back()
        else:  # a namesake of the user's, or a copy that was thrown away
            del _remembered[name]


def _reset_loggers(logging: "Any", is_kept: "Callable[[Any], bool]") -> None:
    """Make loggers as good as new. What a package keeps silent stays silent: its null handlers stay."""
    logging.disable(logging.NOTSET)
    logging.captureWarnings(False)
    root = logging.root
    loggers = root.manager.loggerDict
    for name, logger in list(loggers.items()):
        if not is_kept(sys.modules.get(type(logger).__module__)):  # of a class of the user's
            del loggers[name]
    for logger in (root, *(one for one in loggers.values() if isinstance(one, logging.Logger))):
        silent = [one for one in logger.handlers if type(one) is logging.NullHandler]
        logger.handlers[:] = silent if is_kept(sys.modules.get(logger.name.partition(".")[0])) else ()
        logger.filters.clear()
        logger.setLevel(logging.NOTSET if logger is not root else logging.WARNING)
        logger.propagate = True
        logger.disabled = False
        if logger is not root:
            root.manager._fixupParents(logger)
    logging._handlers.clear()
    del logging._handlerList[:]
    if logging._defaultLastResort is not None:
        logging._addHandlerRef(logging._defaultLastResort)


def _reset_decimal(decimal: "Any") -> None:
    usual = decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow
    for context, precision, rounding, traps in (
        (decimal.DefaultContext, 28, decimal.ROUND_HALF_EVEN, usual),
        (decimal.BasicContext, 9, decimal.ROUND_HALF_UP, (*usual, decimal.Clamped, decimal.Underflow)),
        (decimal.ExtendedContext, 9, decimal.ROUND_HALF_EVEN, ()),
    ):
        context.prec, context.rounding = precision, rounding
        context.Emin, context.Emax, context.capitals, context.clamp = -999999, 999999, 1, 0
        context.clear_flags()
        context.clear_traps()
        for signal in traps:
            context.traps[signal] = True


def _reset_csv(csv: "Any") -> None:
    csv.field_size_limit(131072)
    for name in csv.list_dialects():
        csv.unregister_dialect(name)
    for name, dialect in (("excel", csv.excel), ("excel-tab", csv.excel_tab), ("unix", csv.unix_dialect)):
        csv.register_dialect(name, dialect)


def _reset_typing(typing: "Any") -> None:
    for forget in getattr(typing, "_cleanups", ()):
        forget()


def _reset_weakref(weakref: "Any") -> None:
    weakref.finalize._registered_with_atexit = False


_RESETS: "dict[str, Callable[[Any], object]]" = {
    "csv": _reset_csv,
    "decimal": _reset_decimal,
    "linecache": lambda linecache: linecache.clearcache(),
    "random": lambda random: random.seed(),
    "socket": lambda socket: socket.setdefaulttimeout(None),
    "sqlite3": lambda sqlite3: sqlite3.enable_callback_tracebacks(False),
    "typing": _reset_typing,
    "weakref": _reset_weakref,
    "subiso.carriers": lambda carriers: carriers.reset(),
    "subiso.messages": lambda messages: messages.reset(),
}
