"""The metrics that a rollout replica shows at `/metrics`."""

from prime.adapters.telemetry import GaugeSpec

VERSION = GaugeSpec("prime_rollout_version", "Policy version in use.")
TOKENS = GaugeSpec("prime_rollout_tokens", "Tokens sampled.")
GROUPS = GaugeSpec("prime_rollout_groups", "Groups delivered.")
IN_FLIGHT = GaugeSpec("prime_rollout_in_flight", "Groups being sampled.")
