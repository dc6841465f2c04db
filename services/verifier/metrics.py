"""The verifier's figures for `/metrics`. A `grade.Watcher`."""

from collections.abc import Callable

from prime.adapters.telemetry import GaugeSpec, Meters
from prime.types import Verdict, VerdictStatus
from services.verifier import metric_specs


class VerdictMeters:
    """Counts verdicts by grader, status, reason and tier, and times them."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._verdicts = meters.counter(metric_specs.VERDICTS)
        self._seconds = meters.histogram(metric_specs.GRADE_SECONDS)
        self._queued = meters.gauge(metric_specs.GRADES_QUEUED)
        self._cached = meters.counter(metric_specs.VERDICTS_CACHED)

    def waiting(self, count: int) -> None:
        """So many answers are accepted and not yet graded."""
        self._queued.set(count)

    def graded(self, grader: str, verdict: Verdict) -> None:
        """A verdict was found."""
        # Without places and sentences, so that there are few of them.
        reason = verdict.reason.partition(":")[0]
        if verdict.status is VerdictStatus.INVALID_REQUEST:
            reason = "invalid_request"
        self._verdicts.labels(grader, verdict.status.value, reason, verdict.tier).inc()
        self._seconds.labels(grader).observe(verdict.milliseconds / 1000)
        if verdict.cached:
            self._cached.labels(grader).inc()

    def follow(self, spec: GaugeSpec, value: Callable[[], float]) -> None:
        """A gauge that asks when it is read."""
        self._meters.gauge(spec).set_function(value)
