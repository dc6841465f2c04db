"""The verifier's figures for `/metrics`. A `grade.Watcher`."""

from collections.abc import Callable

from prime.adapters.telemetry import Meters
from prime.types import Verdict, VerdictStatus


class VerdictMeters:
    """Counts verdicts by grader, status, reason and tier, and times them."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._verdicts = meters.counter(
            "prime_verdicts_total",
            "Verdicts by grader, status, reason and tier.",
            ("grader", "status", "reason", "tier"),
        )
        self._seconds = meters.histogram("prime_grade_seconds", "Time per verdict, waiting included.", ("grader",))
        self._queued = meters.gauge("prime_grades_queued", "Answers accepted and not yet graded.")
        self._cached = meters.counter("prime_verdicts_cached_total", "Verdicts that were found before.", ("grader",))

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

    def follow(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that asks when it is read."""
        self._meters.gauge(name, text).set_function(value)
