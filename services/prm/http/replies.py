"""What the routes of other servers' clients reply, for the description at `/docs`.

The handlers write these replies by hand, in the form that each client reads; tests check that the two agree.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class HealthReply(_Reply):
    """The PRM is loaded."""

    status: Literal["ok"]


# ---------------------------------------------------------------- rerankers


class RerankedText(_Reply):
    """The text of a document."""

    text: str


class RerankResult(_Reply):
    """A document by its place in the request."""

    index: int
    relevance_score: float
    document: RerankedText | None = None


class RerankUsage(_Reply):
    """Tokens that were read."""

    total_tokens: int
    prompt_tokens: int


class ApiVersion(_Reply):
    """Cohere's version of the form."""

    version: str


class BilledUnits(_Reply):
    """Cohere's unit."""

    search_units: int


class RerankMeta(_Reply):
    """What Cohere's clients expect besides."""

    api_version: ApiVersion
    billed_units: BilledUnits


class RerankReply(_Reply):
    """To `documents`: the results by falling relevance."""

    id: str
    model: str
    usage: RerankUsage
    meta: RerankMeta
    results: list[RerankResult]


class TextRank(_Reply):
    """To `texts`: a text by its place in the request."""

    index: int
    score: float
    text: str | None = None


class Prediction(_Reply):
    """The one label with its score."""

    score: float
    label: Literal["reward"]


# ---------------------------------------------------------------- vLLM, SGLang


class ListUsage(_Reply):
    """Tokens that were read."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _ListReply(_Reply):
    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: ListUsage


class PooledSteps(_Reply):
    """A row per step; base64 if that was asked for."""

    index: int
    object: Literal["pooling"]
    data: list[list[float]] | str


class PoolingReply(_ListReply):
    """To `/pooling`."""

    data: list[PooledSteps]


class PairScore(_Reply):
    """The score of a pair."""

    index: int
    object: Literal["score"]
    score: float


class PairScoresReply(_ListReply):
    """To `/score`, in the order of the pairs."""

    data: list[PairScore]


class Classification(_Reply):
    """The one probability of a conversation."""

    index: int
    label: Literal["reward"]
    probs: list[float]
    num_classes: Literal[1]


class ClassifyReply(_ListReply):
    """To `/classify`."""

    data: list[Classification]


class NoMeta(_Reply):
    """Empty."""


class SglangClassification(_Reply):
    """To `/classify` with SGLang's `text`."""

    embedding: list[float]
    meta_info: NoMeta


class Embedding(_Reply):
    """The raw score as an embedding of one number; base64 if that was asked for."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class EmbeddingsReply(_ListReply):
    """To `/v1/embeddings`."""

    data: list[Embedding]


# ---------------------------------------------------------------- trainers


class OpenRlhfLogs(_Reply):
    """Figures that OpenRLHF logs."""

    response_reward: list[float]
    num_steps: list[int]


class OpenRlhfReply(_Reply):
    """To `/get_reward`: raw scores, twice."""

    rewards: list[float]
    scores: list[float]
    extra_logs: OpenRlhfLogs


class SlimeReply(_Reply):
    """To `/reward?form=object`."""

    score: float
    response_reward: float
    steps: list[float]
    prm_version: int


# ---------------------------------------------------------------- the engine's models


class ModelCard(_Reply):
    """A model of the engine."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsReply(_Reply):
    """What the engine serves."""

    object: Literal["list"]
    data: list[ModelCard]
