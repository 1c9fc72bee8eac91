"""OpenTelemetry's trace context and baggage: spans in isolates are children of the one their work was sent in."""

from contextlib import contextmanager

from opentelemetry import context, propagate

from subiso import carriers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def instrument() -> None:
    """Have work that is sent to isolates find the current trace context, as the global propagator writes it.

    By default that is W3C's ``traceparent``, ``tracestate`` and ``baggage``. It holds from now on, in this isolate and
    in those that it gives work to with a span. Isolates do not inherit the tracer provider: set one up there, in a
    pool's ``initializer`` for instance, or their spans are not recorded.
    """
    carriers.add(_capture, _restore)


def uninstrument() -> None:
    """Have the trace context carried no more."""
    carriers.remove(_restore)


def _capture() -> dict[str, str] | None:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier or None


@contextmanager
def _restore(carrier: dict[str, str]) -> "Iterator[None]":
    instrument()
    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
