"""The records of chat completions: what an engine sampled, before anybody chose."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prime.errors import InvalidInput


class Selection(StrEnum):
    """How a winner is found."""

    BEST = "best"
    MAJORITY = "majority"
    WEIGHTED = "weighted"


class Strategy(StrEnum):
    """How answers are found: whole, or searched step by step."""

    BEST_OF_N = "best_of_n"
    BEAM = "beam"
    DVTS = "dvts"
    PARTICLE = "particle"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCandidate:
    """One sampled message, as the engine gave it.

    Example: `ChatCandidate(message={"role": "assistant", "content": "56"}, finish_reason="stop")`.
    """

    message: Mapping[str, Any]
    finish_reason: str | None
    logprobs: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the engine says of this choice, such as `stop_reason`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSamples:
    """All candidates of one request, and what they cost.

    Example: `ChatSamples(candidates=(..., ...), model="qwen", usage={"prompt_tokens": 12, "completion_tokens": 61,
    "total_tokens": 73})`.
    """

    candidates: tuple[ChatCandidate, ...]
    model: str
    usage: Mapping[str, Any] | None
    """In the engine's words, added up over the calls to it; None where it counts nothing."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else its first reply says, such as `system_fingerprint`."""
    failed: int = 0
    """Candidates that were asked for and did not come."""

    @property
    def prompt_tokens(self) -> int:
        """As often as the engine counted them: once per call to it; 0 where it counts nothing."""
        return int((self.usage or {}).get("prompt_tokens") or 0)

    @property
    def completion_tokens(self) -> int:
        """Over all candidates; 0 where the engine counts nothing."""
        return int((self.usage or {}).get("completion_tokens") or 0)


def added_usage(usages: Iterable[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """Usage of several calls as one: numbers are added, also those of details; None where no call has any.

    Example: `added_usage([{"prompt_tokens": 3, "details": {"cached": 2}}, {"prompt_tokens": 3}])` is
    `{"prompt_tokens": 6, "details": {"cached": 2}}`.
    """
    total: dict[str, Any] | None = None
    for usage in usages:
        if usage is None:
            continue
        total = {} if total is None else total
        for name, value in usage.items():
            known = total.get(name)
            if isinstance(value, Mapping):
                total[name] = added_usage([known if isinstance(known, Mapping) else None, value])
            elif isinstance(value, (int, float)) and isinstance(known, (int, float)):
                total[name] = known + value
            elif known is None:
                total[name] = value
    return total


def plain_text(content: Any) -> str:
    """A message's content as text: of a content in parts, the texts; "" where it has none.

    Raises:
        InvalidInput: a part is no text, which nobody here can read; or the content is neither text nor parts.
    """
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "\n".join(map(_part, content))
    raise InvalidInput(f"a message's content is {type(content).__name__}, and has to be a text or a list of parts")


def _part(part: Any) -> str:
    text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
    if isinstance(text, str):
        return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise InvalidInput(f"a message has a part of type {kind!r}, and the PRM reads text only")


def begun_answer(body: Mapping[str, Any]) -> str:
    """What the client of a chat completion wrote of the answer itself, which the engine goes on with; "" if nothing."""
    last = body["messages"][-1]
    if body.get("continue_final_message") and last.get("role") == "assistant":
        return plain_text(last.get("content"))
    return ""


def readable(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message without what an engine may see and a PRM cannot read, such as pictures."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [part for part in content if not _is_unread(part)]}


def unread_types(messages: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The types of what `readable` leaves out, each once."""
    contents = [content for message in messages if isinstance(content := message.get("content"), list)]
    return tuple(sorted({str(part["type"]) for content in contents for part in content if _is_unread(part)}))


def _is_unread(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type", "text") != "text"
