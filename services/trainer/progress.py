"""Where the run stands, for people who ask: written by the loop, read by `GetStatus`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from prime.types import TrainerStatus


@dataclass(slots=True)
class Progress:
    """The newest figures, and an estimate of the time left from the steps of this process."""

    run: str
    total_steps: int
    phase: str = "starting"
    step: int = 0
    error: str = ""
    accuracy: float = float("nan")
    mean_score: float = float("nan")
    tokens_per_second: float = 0.0
    sampler_kl: float = 0.0
    _finished: list[float] = field(default_factory=lambda: [time.monotonic()])

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take over a step's figures."""
        self.step = step
        self.mean_score = metrics.get("collect/mean_score", self.mean_score)
        self.tokens_per_second = metrics["time/tokens_per_second"]
        self._finished = [*self._finished[-10:], time.monotonic()]

    def status(self) -> TrainerStatus:
        """For the wire."""
        num_timed = len(self._finished) - 1
        per_step = (self._finished[-1] - self._finished[0]) / num_timed if num_timed else 0.0
        return TrainerStatus(
            run=self.run,
            phase=self.phase,
            step=self.step,
            total_steps=self.total_steps,
            policy_version=self.step,
            tokens_per_second=self.tokens_per_second,
            mean_score=self.mean_score,
            accuracy=self.accuracy,
            seconds_left=per_step * (self.total_steps - self.step),
            error=self.error,
        )
