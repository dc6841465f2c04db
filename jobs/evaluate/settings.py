"""What can be set for `primectl evaluate`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from prime.adapters.settings import Settings
from prime.evaluation.reading import PromptStyle
from services.rollout.settings import RolloutSettings
from services.verifier.settings import VerifierSettings


class SamplerSettings(Settings):
    """How samples are drawn. Part of an evaluation's identity: a restart may not change it."""

    temperature: float = Field(1.0, gt=0, le=2)
    """Sampling temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability that is sampled from."""
    max_tokens: int = Field(1024, ge=1)
    """Longest answer, in tokens: the budget that the report states."""
    seed: int = Field(0, ge=0)
    """Seed of all samples."""
    prompt: PromptStyle = "plain"
    """For sets known by name: the problem alone, or after the system prompt of PRIME's seven actions."""


class EvaluateSettings(Settings):
    """One evaluation."""

    output: Path
    """Folder of samples, verdicts and reports. Started again with the same settings, the evaluation continues there."""
    sets: tuple[str, ...] = Field(min_length=1)
    """Names of sets, with a number of samples if it differs (`math500:4`), or `NAME=FILE` in the schema of
    Eurus-2-RL-Data."""
    data: Path = Path("evaluation-sets")
    """Folder with the files of the sets. `primectl fetch-set` fills it."""
    samples: int = Field(1, ge=0)
    """Samples per problem."""
    greedy: bool = False
    """One more sample, at temperature 0."""
    limit: int = Field(0, ge=0)
    """The first problems of each set only. 0: all."""
    sampling: SamplerSettings = SamplerSettings()
    stop: tuple[str, ...] = ()
    """Texts that end an answer. Inside `<think>` they do not."""
    at_once: int = Field(64, ge=1)
    """Samples in flight."""

    model: Path | None = None
    """Hugging Face folder of the policy, for which an engine is started in this process. With `rollout_address`: the
    folder of the replica's tokenizer."""
    rollout: RolloutSettings = RolloutSettings()
    """The engine that is started for a folder. `max_context` follows from the prompts unless it is set."""
    rollout_address: str = ""
    """A running rollout replica to ask instead."""
    endpoint: str = ""
    """URL of an engine that speaks OpenAI's chat completions, e.g. `http://127.0.0.1:8000/v1`."""
    endpoint_model: str = ""
    """The engine's name for its model."""
    call_seconds: float = Field(3600.0, gt=0)
    """Deadline of one request to a replica or an engine."""
    patience_seconds: float = Field(120.0, ge=0)
    """For how long a request is repeated while the engine does not respond."""

    verifier: VerifierSettings = VerifierSettings()
    """The verifier that is started."""
    verifier_address: str = ""
    """A running verifier to use instead."""
    training: str = ""
    """The policy's training problems, a file or a dataset's name. Problems of the sets that occur among them are
    counted."""

    @model_validator(mode="after")
    def _somebody_answers(self) -> "EvaluateSettings":
        if self.endpoint and (self.model is not None or self.rollout_address):
            raise ValueError("give either a model folder (with or without rollout_address) or an endpoint, not both")
        if not self.endpoint and self.model is None:
            raise ValueError(
                "nobody is there to answer: give --model FOLDER, or --endpoint URL of an engine that speaks OpenAI's "
                "chat completions"
            )
        if self.samples == 0 and not self.greedy:
            raise ValueError("samples = 0 needs --greedy: otherwise nothing is sampled")
        return self

    @property
    def kind(self) -> Literal["endpoint", "replica", "engine"]:
        """Who answers."""
        if self.endpoint:
            return "endpoint"
        return "replica" if self.rollout_address else "engine"
