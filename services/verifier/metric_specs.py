"""The metrics that the verifier shows at `/metrics`."""

from prime.adapters.telemetry import CounterSpec, GaugeSpec, HistogramSpec

VERDICTS = CounterSpec("prime_verdicts_total", "Verdicts.", ("grader", "status", "reason", "tier"))
VERDICTS_CACHED = CounterSpec("prime_verdicts_cached_total", "Verdicts that were found before.", ("grader",))
GRADE_SECONDS = HistogramSpec("prime_grade_seconds", "Time per verdict, including the wait.", ("grader",))
GRADES_QUEUED = GaugeSpec("prime_grades_queued", "Answers accepted and not yet graded.")
CANARY_AGE_SECONDS = GaugeSpec(
    "prime_canary_age_seconds",
    "Time since hostile programs last tried to escape and failed; above 700 the sandbox does not hold.",
)
SANDBOX_RESTARTS = GaugeSpec("prime_sandbox_restarts", "Zygotes started again.")
TESTS_DROPPED = GaugeSpec("prime_tests_dropped", "Tests of programs that were left out because they expect nothing.")
MATH_WORKERS_REPLACED = GaugeSpec(
    "prime_math_workers_replaced",
    "Mathematics workers that were ended, used up or killed at the deadline; spares take their place.",
)
