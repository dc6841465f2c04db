"""The port of an environment: a world of text that answers what the model does, until the episode ends.

An environment is a function of its task and of the actions so far: no clock, no chance. So the rollout replica plays an
episode, and the verifier plays the same actions again and finds the score by itself.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the world answers: `Observation(text="#@.#", done=False)`."""

    text: str
    done: bool
    """Whether the episode has ended; then nobody reads the text."""


class Environment(Protocol):
    """One episode. `reset` comes first, then `step` until it is done."""

    def reset(self) -> str:
        """Begin; returns what the model reads first."""

    def step(self, action: str) -> Observation:
        """Take what the model wrote in its turn, whatever it is."""

    @property
    def score(self) -> float:
        """How good the episode has been so far, in [0, 1]."""
