"""Libraries bundled with a package: which of them an isolate needs for itself, and loading copies of those.

A library that knows nothing of Python is one for the process: a copied module finds it by its name. But one that calls
the C API, or that a package guards by a lock of its own interpreter, must be copied like a module. Then the copy
gets another name, of the same length, in its own bytes and in those of every copy that asks for it: the dynamic linker
would otherwise take the first library of that name that it has loaded.
"""

import _thread
import os
import sys

from subiso._kernel import copies, elf, packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from subiso._kernel.elf import Image

_lock = _thread.RLock()
_images: "dict[str, Image]" = {}
_verdicts: dict[str, bool] = {}  # library's file -> whether this interpreter needs a copy
_names: dict[str, bytes] = {}  # library's file -> the name of this interpreter's loaded copy
_handles: dict[str, int] = {}


def load_private(original: str, image: "Image") -> list[tuple[bytes, bytes]]:
    """Load copies of the libraries that the original asks for and that must not be shared.

    Args:
        original: the path of a module or library, whose other libraries are loaded already.
        image: its layout.

    Returns:
        Old and new names, for `elf.rename`.

    Raises:
        OSError: a copy cannot be made or loaded.
    """
    with _lock:
        return [(name, _load(path)) for name, path in _bundled(original, image) if _is_private(path)]


def _bundled(original: str, image: "Image") -> "Iterator[tuple[bytes, str]]":
    """Yield name and file of the libraries that are looked for relative to where the original lies."""
    origin = os.path.dirname(original)
    for name in image.needed:
        for path in image.paths:
            if b"ORIGIN" in path:
                place = os.fsdecode(path).replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
                if os.path.isfile(file := f"{place}/{os.fsdecode(name)}"):
                    yield name, os.path.realpath(file)
                    break


def _is_private(path: str) -> bool:
    """Return whether each isolate needs a copy: for its own sake, or for that of a library that it asks for."""
    if path not in _verdicts:
        _verdicts[path] = False  # libraries may ask for each other
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            image = _images[path] = elf.read(fd)
            wanted = _is_known(path) or elf.calls_python(fd, image)
        finally:
            os.close(fd)
        below = [_is_private(file) for _, file in _bundled(path, image)]
        _verdicts[path] = bool(image.soname) and (wanted or any(below))
    return _verdicts[path]


def _is_known(path: str) -> bool:
    return os.path.basename(path).startswith(tuple(packages.PRIVATE_LIBRARIES))


def _load(path: str) -> bytes:
    if path not in _names:
        from subiso._kernel import capi, foreign, sharing

        image = _images[path]
        name = _new_name(image.soname)
        names = [(image.soname, name), *load_private(path, image)] if name else load_private(path, image)
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy = copies.make(source, os.path.basename(path), lambda target: elf.rename(target, image, names))
            try:
                handle = capi.load(copy, sys.getdlopenflags() & ~os.RTLD_GLOBAL)
                foreign.adopt(handle, image, source)
                sharing.share(handle, image, source, copy, names_differ=True)
            finally:
                copies.discard(copy)
        finally:
            os.close(source)
        _names[path], _handles[path] = name, handle
    return _names[path]


def _new_name(old: bytes) -> bytes:
    """Return a name that no library has, as long as the old one, and for people similar to it."""
    unique = os.urandom(8).hex().encode()
    return (old[: max(len(old) - len(unique), 0)] + unique)[: len(old)]


def intercept(ctypes: "ModuleType") -> None:
    """Have ``_ctypes`` open private copies, too, of the libraries that are known not to bear sharing."""
    original = ctypes.dlopen

    def dlopen(name: "str | None", flags: int = os.RTLD_NOW, /) -> int:
        path = os.fspath(name) if name is not None else ""
        if isinstance(path, str) and _is_known(path) and os.path.isfile(path):
            with _lock:
                path = os.path.realpath(path)
                _is_private(path)
                _load(path)
                return _handles[path]
        return original(name, flags)  # type: ignore[no-any-return]

    dlopen.__wrapped__ = original  # type: ignore[attr-defined]
    ctypes.dlopen = dlopen  # type: ignore[attr-defined]


# -- libraries that compute in threads of their own --------------------------------------------------------------------


class Computing:
    """A library that computes in several threads unless it is told otherwise."""

    def __init__(self, name: str, functions: tuple[str, ...]) -> None:
        self._name = name
        self._functions = functions

    def is_loaded(self) -> bool:
        """Return whether the library is in the process, so that somebody may rely on how it computes."""
        return self._handle() is not None

    def use_one_thread(self) -> None:
        """Have it compute in the thread that calls it.

        Isolates are for computing in parallel; if each had several threads besides, they would be in each other's way.
        """
        from subiso._kernel import capi

        handle = self._handle()
        for function in self._functions:
            if handle is not None and (address := capi.symbol(handle, function)):
                capi.returning_address(address, capi.Int)(1)
                break

    def _handle(self) -> int | None:
        from subiso._kernel import capi

        return capi.loaded(self._name)


def computing(image: "Image") -> list[Computing]:
    """Return the libraries asked for that compute in threads, that nobody uses yet, and that the user has not set."""
    found = []
    for name in map(os.fsdecode, image.needed):
        for part, (variables, functions) in packages.ONE_THREAD.items():
            if part in name and not any(variable in os.environ for variable in variables):
                found.append(Computing(name, functions))
    return [library for library in found if not library.is_loaded()]
