"""For the tests of programs that use isolates: running everything inline, and finding what is left behind.

``pytest_plugins = ["subiso.testing.plugin"]`` makes fixtures of both.
"""

from subiso.testing._inline import InlineWaitError as InlineWaitError
from subiso.testing._inline import inline as inline
from subiso.testing._leaks import no_leaks as no_leaks

__all__ = ["InlineWaitError", "inline", "no_leaks"]
