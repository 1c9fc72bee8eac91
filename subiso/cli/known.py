"""Packages that ``subiso check`` can try: what the table knows of them, and what is installed."""

import os
import sys
from dataclasses import dataclass, field

from subiso.cli import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass
class Package:
    """What to try.

    Attributes:
        name: as the user gave it.
        imports: the modules to import.
        code: the smoke function's, or an empty text.
        compiled: the compiled modules that must be loaded; None: those that main loads.
        libraries: names of the distribution's modules with compiled code.
        version: of the distribution; None: unknown.
    """

    name: str
    imports: list[str]
    code: str = ""
    compiled: list[str] | None = None
    libraries: set[str] = field(default_factory=set)
    version: str | None = None


def table() -> "dict[str, dict[str, Any]]":
    """Return what is known of packages: smoke functions above all, by the distribution's name."""
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "packages.toml"), "rb") as file:
        return tomllib.load(file)


def find(name: str, code: str | None = None) -> Package:
    """Return the package of that name, a distribution's or a module's.

    Args:
        name: what the user calls it.
        code: a smoke function that takes the place of the table's.

    Raises:
        UsageError: it is not installed.
    """
    import importlib.util
    from importlib import metadata

    for known, entry in table().items():
        if _plain(name) in {_plain(known), _plain(known.partition("[")[0])}:
            imports = entry.get("import", known.partition("[")[0])
            package = Package(
                known.partition("[")[0],
                [imports] if isinstance(imports, str) else imports,
                entry["code"] if code is None else code,
                entry.get("compiled"),
            )
            break
    else:
        modules = [module for module, names in _distributions().items() if _plain(name) in map(_plain, names)]
        package = Package(name, modules or [name], code or "")
    try:
        distribution = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        pass
    else:
        package.version = distribution.version
        package.libraries = {_module_of(str(file)) for file in distribution.files or () if file.suffix == ".so"}
    try:
        missing = [module for module in package.imports if importlib.util.find_spec(module.partition(".")[0]) is None]
    except ValueError:
        missing = [name]
    if missing:
        raise UsageError(f"there is no package {name!r} installed for {sys.executable}")
    return package


def installed() -> list[Package]:
    """Return the installed packages that have a smoke function in the table."""
    from importlib import metadata

    names = {_plain(distribution.name) for distribution in metadata.distributions()}
    return [find(name) for name in table() if _plain(name.partition("[")[0]) in names]


def _module_of(file: str) -> str:
    package, _, name = file.rpartition("/")
    module = f"{package.replace('/', '.')}.{name.partition('.')[0]}"
    return module.removesuffix(".__init__").lstrip(".")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _distributions() -> "dict[str, list[str]]":
    from importlib import metadata

    modules = metadata.packages_distributions()
    return {name: names for name, names in modules.items() if name.isidentifier() and "__mypyc" not in name}
