"""The metrics that the PRM shows at `/metrics`."""

from prime.adapters.telemetry import CounterSpec, GaugeSpec, HistogramSpec

VERSION = GaugeSpec("prime_prm_version", "Updates of the PRM.")
WAITING = GaugeSpec("prime_prm_waiting", "Scoring requests over HTTP that are accepted and not yet answered.")
TOKENIZE_SECONDS = HistogramSpec("prime_prm_tokenize_seconds", "Time to encode a scoring request.")
QUEUE_SECONDS = HistogramSpec("prime_prm_queue_seconds", "Time that a scoring request waits for its forward pass.")
INFERENCE_SECONDS = HistogramSpec(
    "prime_prm_inference_seconds", "Time of the forward passes of a scoring request's batch."
)
TOKENS = CounterSpec(
    "prime_prm_tokens_total", "Tokens scored: prompt, response, and of the latter reference_cached.", ("kind",)
)
HTTP_SECONDS = HistogramSpec("prime_prm_http_seconds", "Time per HTTP request.", ("route", "status"))
HTTP_ERRORS = CounterSpec(
    "prime_prm_http_errors_total",
    "HTTP requests that were refused or failed; docs/prm-api.md lists the classes.",
    ("route", "error_type"),
)
KEY_REQUESTS = CounterSpec(
    "prime_prm_key_requests_total",
    "Requests that a key was admitted with, over HTTP and gRPC; the key of the shared token is named services.",
    ("key",),
)
KEY_TOKENS = CounterSpec(
    "prime_prm_key_tokens_total", "Tokens scored for a key; anyone if no key is required.", ("key",)
)
KEY_REFUSED = CounterSpec(
    "prime_prm_key_refused_total",
    "Requests that a key was refused: scope, priority, requests (per minute), tokens (per day).",
    ("key", "reason"),
)
KEY_FILE_STALE = GaugeSpec(
    "prime_prm_key_file_stale", "1 while the key file cannot be used and the keys read before stay in force."
)
