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
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)
    """Of one answer: the budget that the report states."""
    seed: int = Field(0, ge=0)
    prompt: PromptStyle = "plain"
    """Of the sets known by name: the problem alone, or after the system prompt of PRIME's seven actions."""


class EvaluateSettings(Settings):
    """One evaluation."""

    output: Path
    """Folder of samples, verdicts and reports. Started again with the same settings, it goes on."""
    sets: tuple[str, ...] = Field(min_length=1)
    """Names, with a number of samples if it is another (`math500:4`), or `NAME=FILE` in the schema of
    Eurus-2-RL-Data."""
    data: Path = Path("evaluation-sets")
    """Folder with the files of the sets; `primectl fetch-set` fills it."""
    samples: int = Field(1, ge=0)
    """Per problem."""
    greedy: bool = False
    """One more, at temperature 0."""
    limit: int = Field(0, ge=0)
    """The first problems of each set alone; 0: all."""
    sampling: SamplerSettings = SamplerSettings()
    stop: tuple[str, ...] = ()
    """Texts that end an answer; inside `<think>` they do not."""
    at_once: int = Field(64, ge=1)
    """Samples under way."""

    model: Path | None = None
    """Hugging Face folder of the policy: an engine is started for it in this process. With `rollout_address`, the
    folder whose tokenizer the replica has."""
    rollout: RolloutSettings = RolloutSettings()
    """Of the engine that is started."""
    rollout_address: str = ""
    """A running rollout replica."""
    endpoint: str = ""
    """An engine that speaks OpenAI's chat completions, e.g. `http://127.0.0.1:8000/v1`."""
    endpoint_model: str = ""
    """The engine's name for its model."""
    call_seconds: float = Field(3600.0, gt=0)
    """Of one request to a replica or an engine."""
    patience_seconds: float = Field(120.0, ge=0)
    """For how long a request is repeated while nobody answers."""

    verifier: VerifierSettings = VerifierSettings()
    verifier_address: str = ""
    """A running verifier, instead of one that is started for it."""
    training: str = ""
    """The policy's training problems, or a dataset's name: problems of the sets that are among them are counted."""

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
