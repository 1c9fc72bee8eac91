"""How many interpreters the process may have, and what they may load."""

from subiso._kernel import node as nodes


def configure(
    *,
    spares: int | None = None,
    idle: int | None = None,
    max_isolates: int | None = None,
    extensions: str | None = None,
) -> None:
    """Set how many interpreters there may be, and what they may load, from now on. What is not given stays as it is.

    Call this in main. No interpreter is made before the first isolate is started.

    Args:
        spares: how many interpreters are kept ready for the next isolates; 2 at first, or 1 on one processor.
        idle: how many are kept after their isolates have ended, to be used again; 32 at first.
        max_isolates: how many isolates may live at once; at first one for each 16 MiB of memory, at most 1007.
        extensions: what becomes of packages with compiled code in isolates that are started from now on: ``"private"``
            loads a copy of the compiled modules for each isolate, ``"off"`` refuses them with an ImportError, and
            ``"all"`` loads even those that subiso knows to do harm. It counts more than the environment variable
            ``SUBISO_EXTENSIONS``. What an interpreter has loaded for an earlier isolate stays loaded.

    Raises:
        TypeError: a number is not an int.
        ValueError: a number is negative, ``max_isolates`` is 0 or above 1007, or there is no such policy.
        RuntimeError: this is not main.
    """
    from subiso._kernel import setting
    from subiso._kernel.arena import SLOTS
    from subiso._kernel.extensions import check_policy
    from subiso._kernel.limits import Limits

    if (node := nodes.peek()) is not None and node.slot != nodes.MAIN:
        raise RuntimeError("only main can configure how many interpreters there may be")
    most = SLOTS - 33
    for name, number, least in (("spares", spares, 0), ("idle", idle, 0), ("max_isolates", max_isolates, 1)):
        if number is None:
            continue
        if not isinstance(number, int):
            raise TypeError(f"{name} must be an int, not {number!r}")
        if not least <= number <= most:
            raise ValueError(f"{name} must be {least} to {most}, not {number}")
    check_policy(extensions)
    if extensions is not None:
        setting.set_extensions(extensions)
    Limits.spares = Limits.spares if spares is None else spares
    Limits.idle = Limits.idle if idle is None else idle
    Limits.isolates = Limits.isolates if max_isolates is None else max_isolates
