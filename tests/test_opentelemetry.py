"""`subiso.integrations.opentelemetry`: spans in isolates have parents."""

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from subiso import Isolate, IsolatePool
from subiso.integrations import opentelemetry

LONG = 60  # seconds: the bound of a wait that should be over at once


@pytest.fixture(autouse=True)
def instrumented():
    """Switch it on, and off again."""
    opentelemetry.instrument()
    yield
    opentelemetry.uninstrument()


def spans_of(provider):
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def work():
    """Make a span in the isolate; return its trace's number, its parent's, and the baggage."""
    provider = TracerProvider()
    exporter = spans_of(provider)
    with provider.get_tracer("isolate").start_as_current_span("inside"):
        pass
    (span,) = exporter.get_finished_spans()
    parent = span.parent
    return span.context.trace_id, parent and (parent.span_id, parent.is_remote), baggage.get_baggage("user")


async def work_async():
    return work()


def test_a_span_in_an_isolate():
    """It is a child of the span that the work was sent in; baggage comes along."""
    provider = TracerProvider()
    exporter = spans_of(provider)
    token = context.attach(baggage.set_baggage("user", "ann"))
    with provider.get_tracer("main").start_as_current_span("outside"):
        results = [Isolate.run(work).result(LONG), Isolate.run(work_async).result(LONG)]
        with IsolatePool(1) as pool:
            results.append(pool.submit(work).result(LONG))
    context.detach(token)
    (outside,) = exporter.get_finished_spans()
    expected = outside.context.trace_id, (outside.context.span_id, True), "ann"
    assert results == [expected] * 3
    assert not trace.get_current_span().get_span_context().is_valid


def test_without_a_span():
    """Spans in isolates are roots without a span outside, or when it is switched off; workers forget the last one."""
    provider = TracerProvider()
    with IsolatePool(1) as pool:
        with provider.get_tracer("main").start_as_current_span("outside"):
            assert pool.submit(work).result(LONG)[1]
        assert pool.submit(work).result(LONG)[1] is None
        opentelemetry.uninstrument()
        with provider.get_tracer("main").start_as_current_span("outside"):
            assert pool.submit(work).result(LONG)[1] is None
