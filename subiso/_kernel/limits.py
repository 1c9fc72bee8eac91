"""How many interpreters and descriptors there may be. Main's: the system's limits are those of the process."""

import os

from subiso._kernel.arena import SLOTS


def _most_isolates() -> int:
    """Return how many isolates this machine can hold: one for each 16 MiB of memory, as far as there are slots."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        memory = 1 << 32
    return max(min(memory >> 24, SLOTS - 1 - 32), 8)


class Limits:
    """How many interpreters there may be.

    Attributes:
        spares: how many idle interpreters are kept warm, once the first isolate has been started.
        idle: how many are kept after isolates have ended, to be used again.
        isolates: how many isolates may live at once.
    """

    spares = min(2, os.cpu_count() or 1)
    idle = 32
    isolates = _most_isolates()


def keep_room_for_descriptors(highest: int) -> None:
    """Raise the limit in good time: interpreters that start read files, and so may the user."""
    import resource

    if highest * 4 > resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3:
        allow_more_descriptors()


def allow_more_descriptors() -> bool:
    """Raise the soft limit of open descriptors to the hard one; return whether that is more than before."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True
