"""Structured logs (one JSON object per line on stderr), where traces go, and the metrics every service has."""

import logging
import sys
from dataclasses import dataclass
from typing import TextIO, cast

import opentelemetry.trace
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from prime.adapters.settings import COLLECTOR_VARIABLE, collector_is_named
from prime.errors import SettingsError

# A collector that is away must not hold up a stop.
_SEND_SECONDS = 2.0


def configure_telemetry(service: str) -> None:
    """Logs, and traces to a collector where the environment names one. Called once, by each service's `main`.

    Raises:
        SettingsError: a collector is named, and what sends to it is not installed.
    """
    configure_logging(service)
    if not collector_is_named():
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingsError(
            f"{COLLECTOR_VARIABLE} is set, and what sends traces there is not installed: "
            f"pip install 'prime-services[otel]', or unset the variable"
        ) from None
    # Where to and how is read by the exporter itself, from OpenTelemetry's own variables.
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"prime-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_SEND_SECONDS)))
    opentelemetry.trace.set_tracer_provider(provider)


class _Stderr:
    """`sys.stderr` as it is when a line is written: tests and notebooks replace it, and close the one before."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(service: str) -> None:
    """Send structlog and the standard library's warnings through one JSON renderer."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """What `/metrics` shows of one metric: `CounterSpec("prime_prm_tokens_total", "Tokens scored.", ("kind",))`.

    Each service declares its own in `metric_specs.py`; `docs/metrics.md` is generated from them.
    """

    name: str
    """As Prometheus sees it: a counter's ends in `_total`."""
    text: str
    labels: tuple[str, ...] = ()


class CounterSpec(MetricSpec):
    """Of a count that only grows."""


class GaugeSpec(MetricSpec):
    """Of a value that rises and falls."""


class HistogramSpec(MetricSpec):
    """Of a distribution, in seconds."""


RPC_SECONDS = HistogramSpec("prime_rpc_seconds", "Time per gRPC call.", ("method", "code"))


class Meters:
    """One service's metrics: a registry of its own, the gRPC figures, and whatever the service adds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rpc_seconds = self.histogram(RPC_SECONDS)

    def counter(self, spec: CounterSpec) -> Counter:
        """A counter in this registry."""
        return Counter(spec.name, spec.text, spec.labels, registry=self.registry)

    def gauge(self, spec: GaugeSpec) -> Gauge:
        """A gauge in this registry."""
        return Gauge(spec.name, spec.text, spec.labels, registry=self.registry)

    def histogram(self, spec: HistogramSpec) -> Histogram:
        """A histogram in this registry."""
        return Histogram(spec.name, spec.text, spec.labels, registry=self.registry)
