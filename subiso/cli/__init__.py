"""The command line: ``subiso demo``, ``check`` and ``doctor``.

A command is a module with a function ``add_to(commands)``, which adds its parser and sets the parser's default ``run``
to a function from the parsed arguments to the exit code. Commands are imported when `main` is called: isolates that use
a module of this package import no more than that module.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class UsageError(Exception):
    """What the user asked for cannot be done; the text is one line that says why."""


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments; None: those of the program.

    Raises:
        SystemExit: help was asked for, or the arguments cannot be parsed.
    """
    import argparse

    from subiso import __version__
    from subiso.cli import check, demo, doctor

    parser = argparse.ArgumentParser(prog="subiso", description="Dart's isolates for Python.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (demo, check, doctor):
        command.add_to(commands)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except UsageError as error:
        print(f"subiso: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("subiso: interrupted", file=sys.stderr)
        return 130
    return code
