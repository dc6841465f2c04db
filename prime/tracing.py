"""One trace from the request for samples to the policy update: spans, and how they travel between processes.

A trace travels as W3C `traceparent` (https://www.w3.org/TR/trace-context/): in gRPC metadata and in entries of the
queue. Where no exporter was set up (`prime.adapters.telemetry`) nothing is recorded, and every traceparent is "".
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["TRACEPARENT", "Span", "begin", "current", "link", "span", "within"]

TRACEPARENT = "traceparent"

_tracer = trace.get_tracer("prime")
_propagator = TraceContextTextMapPropagator()


def span(name: str, *, parent: str = "", **attributes: str | int) -> AbstractContextManager[Span]:
    """Record what the block does. `parent`: a traceparent; without one, the span around the block."""
    return _tracer.start_as_current_span(name, _context(parent), attributes=attributes)


def begin(name: str, *, parent: str = "", **attributes: str | int) -> Span:
    """A span of something that runs beside other things; it ends with a block `within` it."""
    return _tracer.start_span(name, _context(parent), attributes=attributes)


def within(begun: Span) -> AbstractContextManager[Span]:
    """The last part of a begun span."""
    return trace.use_span(begun, end_on_exit=True)


def current() -> str:
    """The traceparent of the span around this; "" outside of any, or where nothing is recorded."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(TRACEPARENT, "")


def link(traceparents: Iterable[str]) -> None:
    """Tell which other traces led to the span around this: once each, and not its own."""
    here = trace.get_current_span()
    seen = {here.get_span_context().trace_id}
    for traceparent in traceparents:
        other = trace.get_current_span(_context(traceparent)).get_span_context()
        if other.is_valid and other.trace_id not in seen:
            seen.add(other.trace_id)
            here.add_link(other)


def _context(traceparent: str) -> Context | None:
    """None: whatever is current."""
    return _propagator.extract({TRACEPARENT: traceparent}, Context()) if traceparent else None
