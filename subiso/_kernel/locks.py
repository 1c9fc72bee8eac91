"""Locks that ``with`` never leaves taken, not even where Ctrl-C comes just as the block begins.

In 3.14 alone, what a signal's handler raises may come after the lock was taken and before the block has begun, which
then does not release it: whoever wants the lock next waits for ever (CPython's issue 148874). There the locks of this
module take themselves back in such a case.

Why it is sound
    Signals are handled after a call to a function in C, and where a function in Python begins, but not where it
    returns. So what is raised in `__enter__` before the lock was taken has left it alone, what is raised at the call
    that takes it is caught, and after that nothing is raised until the block has begun.

tests/test_locks.py fails on a 3.14 that does not need this any more.
"""

import _thread

from subiso._kernel.interpreters import WITH_CAN_BE_TORN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Lock as Lock
    from threading import RLock as RLock
elif WITH_CAN_BE_TORN:

    class Lock(_thread.RLock):
        """A lock that is to be taken by ``with``, and not again by who has it."""

        __slots__ = ()

        def __enter__(self):
            try:
                return self.acquire()
            except BaseException:
                if self._is_owned():
                    self.release()
                raise

    class RLock(_thread.RLock):
        """A lock that is to be taken by ``with``, also by who has it."""

        __slots__ = ()

        def __enter__(self):
            depth = self._recursion_count()
            try:
                return self.acquire()
            except BaseException:
                if self._recursion_count() > depth:
                    self.release()
                raise

else:
    Lock, RLock = _thread.allocate_lock, _thread.RLock
