"""The records of chat completions: what an engine sampled, before anybody chose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCandidate:
    """One sampled message, as the engine gave it.

    Example: `ChatCandidate(message={"role": "assistant", "content": "56"}, finish_reason="stop")`.
    """

    message: Mapping[str, Any]
    finish_reason: str | None
    logprobs: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSamples:
    """All candidates of one request, and what they cost.

    Example: `ChatSamples(candidates=(..., ...), model="qwen", prompt_tokens=12, completion_tokens=61)`.
    """

    candidates: tuple[ChatCandidate, ...]
    model: str
    prompt_tokens: int
    """As often as the engine counted them: once per call to it."""
    completion_tokens: int
    """Over all candidates."""
    failed: int = 0
    """Candidates that were asked for and did not come."""
