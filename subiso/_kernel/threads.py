"""Starting a thread where Ctrl-C may come."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading


def start_thread(thread: "threading.Thread") -> None:
    """Start a thread; what a signal's handler raises meanwhile is raised as itself.

    `threading` waits for the thread to begin with a condition. Where that is torn as it gives its lock back, the block
    around it does so again, and a RuntimeError ("release unlocked lock") takes the place of what was raised.
    """
    try:
        thread.start()
    except RuntimeError as error:
        torn = error.__context__
        if torn is None or isinstance(torn, Exception):
            raise
        raise torn from None
