"""Creating one C extension module from a private copy of its file, and with private copies of libraries it needs."""

import _imp
import os
import sys
from _frozen_importlib import ModuleSpec

from subiso._kernel import copies, elf, libraries
from subiso._kernel.interpreters import COPIES_BY_PYINIT, REFUSING_STDLIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_NO_MODULE = "subiso_loads_no_module"  # a name for which no library has an init function

_copied: "dict[tuple[str, str], Any]" = {}  # (module, original) -> this interpreter's copy: its path or its handle
_single_phase: "dict[tuple[str, str], ModuleType]" = {}


def create(spec: "ModuleSpec") -> "ModuleType":
    """Create the module from a copy; the check for modules that refuse isolates must be lifted.

    Raises:
        ImportError: there can be no copy, or it cannot be loaded.
        Exception: whatever the module's init function raises.
    """
    return _create_by_pyinit(spec) if COPIES_BY_PYINIT else _create_by_import(spec)


class Attempt:
    """Forgets the copy if the module's initialisation fails: who imports it again gets another, with statics unspoilt.

    So an interpreter in which an isolate was killed while it imported something is as good as new for the next one.
    """

    def __init__(self, name: str, original: str | None) -> None:
        self._key = name, str(original)

    def __enter__(self) -> None:
        pass

    def __exit__(self, failed: object, *_: object) -> None:
        if failed:
            _copied.pop(self._key, None)


def loaded() -> list[tuple[str, str, int]]:
    """Tell of each module that this interpreter has loaded from a private copy: its name, its original, its address."""
    from subiso._kernel import capi, sharing

    found = []
    for (name, original), library in list(_copied.items()):
        handle = library if COPIES_BY_PYINIT else capi.loaded(library) or 0
        found.append((name, original, sharing.base_of(handle)))
    return found


def address_of_original(path: str) -> int | None:
    """Return where in memory the library of that path lies, or None if the process has not loaded it."""
    from subiso._kernel import capi, sharing

    handle = capi.loaded(path)
    return None if handle is None else sharing.base_of(handle)


def import_error(spec: "ModuleSpec", text: str, kind: type[ImportError] = ImportError) -> ImportError:
    """Return the error that the module cannot be loaded."""
    return kind(f"C extension module {spec.name!r}: {text}", name=spec.name, path=spec.origin)


def _create_by_import(spec: "ModuleSpec") -> "ModuleType":
    """Create the module by the import machinery, which runs its init function in this interpreter (before 3.13)."""
    key = spec.name, str(spec.origin)

    def create(path: str) -> "ModuleType":
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags & ~os.RTLD_GLOBAL)
        try:
            module = _imp.create_dynamic(ModuleSpec(spec.name, spec.loader, origin=path))
        finally:
            sys.setdlopenflags(flags)
        _copied[key] = path
        return module

    if key in _copied:  # imported again: the linker and the machinery know the library by its path, file or no file
        module = create(_copied[key])
    else:
        with _Copy(spec) as copy:
            if spec.name not in REFUSING_STDLIB:
                from subiso._kernel import capi

                copy.prepare(capi.load(copy.path, sys.getdlopenflags() & ~os.RTLD_GLOBAL))
            module = create(copy.path)
    module.__file__ = spec.origin
    return module


def _create_by_pyinit(spec: "ModuleSpec") -> "ModuleType":
    """Create the module by calling its init function; the import machinery would run it in main (since 3.13)."""
    from subiso._kernel import capi, pyinit

    key = spec.name, str(spec.origin)
    if key in _single_phase:
        return _single_phase[key]
    if key not in _copied:
        with _Copy(spec) as copy:
            _copied[key] = capi.load(copy.path, sys.getdlopenflags() & ~os.RTLD_GLOBAL)
            copy.prepare(_copied[key])
            copy.share(_copied[key])
    module, is_single_phase = pyinit.create(_copied[key], spec)
    if is_single_phase:
        _single_phase[key] = module
    return module


class _Copy:
    """A copy of a module's file, there for a ``with`` block that loads it from `path`.

    It must not be loaded ``RTLD_GLOBAL``: the statics of the next isolate's copy would be bound to its own.

    A library bundled beside the module stays one for the process, unless `libraries` says that it must not be shared.

    Raises:
        ImportError: the copy cannot be made, or the linker refuses it.
    """

    def __init__(self, spec: "ModuleSpec") -> None:
        self._spec, self._original = spec, str(spec.origin)

    def __enter__(self) -> "_Copy":
        try:
            self._source = os.open(self._original, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._image = elf.read(self._source)
                self._renamed = self._load_libraries()
                self.path = copies.make(self._source, self._spec.name, self._rename)
            except BaseException:
                os.close(self._source)
                raise
        except OSError as error:
            text = f"a private copy of it cannot be made ({error}): {copies.advice()}"
            raise import_error(self._spec, text) from error
        return self

    def _load_libraries(self) -> list[tuple[bytes, bytes]]:
        """Bring what the module needs into the process; return the old and new names of what is the isolate's own."""
        if not self._image.needs_origin:
            return []
        unused = libraries.computing(self._image)
        _keep_libraries(self._original)
        for library in unused:
            library.use_one_thread()
        return libraries.load_private(self._original, self._image)

    def _rename(self, target: int) -> None:
        if self._renamed:
            elf.rename(target, self._image, self._renamed)

    def prepare(self, handle: int) -> None:
        """Have the loaded copy's own threads attach to this interpreter."""
        from subiso._kernel import foreign

        foreign.adopt(handle, self._image, self._source)

    def share(self, handle: int) -> None:
        """Have the loaded copy use the original's memory for what is never written."""
        from subiso._kernel import sharing

        sharing.share(handle, self._image, self._source, self.path, names_differ=bool(self._renamed))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        os.close(self._source)
        copies.discard(self.path)
        if isinstance(error, (ImportError, OSError)) and self.path in str(error):  # the linker's, about the copy
            text = str(error).replace(self.path, self._original)
            if "failed to map segment" in text:  # as it does where files must not be executed
                text = f"its private copy {self.path} cannot be loaded: {copies.advice()}"
            raise import_error(self._spec, text) from error


def _keep_libraries(original: str) -> None:
    """Bring the libraries that the original finds beside itself into the process, without initialising a module.

    An import does so before it misses the init function. A copy lies elsewhere, but the dynamic linker then sees that
    libraries of the names it asks for are loaded.
    """
    try:
        _imp.create_dynamic(ModuleSpec(_NO_MODULE, None, origin=original))
    except ImportError:
        pass  # always; if the original cannot be loaded, the copy's own error tells
