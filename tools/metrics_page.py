"""The generated block of `docs/metrics.md`: every metric at `/metrics`, from the declarations of the services."""

from types import ModuleType

import prime.adapters.telemetry
import services.prm.metric_specs
import services.rollout.metric_specs
import services.trainer.metric_specs
import services.verifier.metric_specs
from prime.adapters.telemetry import MetricSpec
from tools.markdown import code, table

_OWNERS: tuple[tuple[str, ModuleType], ...] = (
    ("all", prime.adapters.telemetry),
    ("trainer", services.trainer.metric_specs),
    ("rollout", services.rollout.metric_specs),
    ("prm", services.prm.metric_specs),
    ("verifier", services.verifier.metric_specs),
)


def declared_metrics() -> list[tuple[str, MetricSpec]]:
    """Every metric with the service that shows it; `all` for those of every service."""
    return [
        (service, spec) for service, module in _OWNERS for spec in vars(module).values() if isinstance(spec, MetricSpec)
    ]


def metrics_blocks() -> dict[str, str]:
    """Name to text of the generated block."""
    rows = [
        (
            code(spec.name),
            type(spec).__name__.removesuffix("Spec").lower(),
            ", ".join(map(code, spec.labels)),
            service,
            spec.text,
        )
        for service, spec in declared_metrics()
    ]
    return {"metrics": table(("metric", "type", "labels", "service", "meaning"), rows)}
