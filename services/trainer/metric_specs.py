"""The metrics that the trainer shows at `/metrics`."""

from prime.adapters.telemetry import CounterSpec, GaugeSpec

STEP = GaugeSpec("prime_trainer_step", "Finished steps.")
MEAN_SCORE = GaugeSpec("prime_trainer_mean_score", "Mean score of the groups graded in the last step.")
ACCURACY = GaugeSpec("prime_trainer_accuracy", "Accuracy on held-out problems when last measured.")
SAMPLER_KL = GaugeSpec(
    "prime_trainer_sampler_kl", "Divergence of the sampler from the trainer in the last step, in nats per token."
)
TOKENS_PER_SECOND = GaugeSpec(
    "prime_trainer_tokens_per_second", "Response tokens learnt from per second of the last step."
)
TRACKER_LOST = CounterSpec(
    "prime_trainer_tracker_lost_total", "Rows that an experiment tracker did not take (docs/trackers.md).", ("tracker",)
)
