"""A pytest plugin; ``pytest_plugins = ["subiso.testing.plugin"]`` in a conftest.py, or ``-p subiso.testing.plugin``.

Two fixtures: ``inline_isolates`` has the isolates of a test run inline, ``no_isolates_left`` fails a test that leaves
isolates, ports or threads behind. ``--inline-isolates`` and ``--no-isolates-left`` use them for every test.
"""

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options."""
    group = parser.getgroup("subiso")
    group.addoption("--inline-isolates", action="store_true", help="run isolates inline, in the thread of the test")
    group.addoption("--no-isolates-left", action="store_true", help="fail tests that leave isolates or ports behind")


@pytest.fixture
def inline_isolates() -> "Iterator[None]":
    """Run what isolates would do in the thread of the test; see `subiso.testing.inline`."""
    from subiso.testing import inline

    with inline():
        yield


@pytest.fixture
def no_isolates_left() -> "Iterator[None]":
    """Fail the test that leaves isolates, ports or threads behind; see `subiso.testing.no_leaks`."""
    from subiso.testing import no_leaks

    with no_leaks():
        yield


@pytest.fixture(autouse=True)
def _for_every_test(request: pytest.FixtureRequest) -> None:
    for option, fixture in (("no_isolates_left", "no_isolates_left"), ("inline_isolates", "inline_isolates")):
        if request.config.getoption(option):
            request.getfixturevalue(fixture)
