"""The use case: sample several answers, score them with the PRM, give back the best. Called by `http/chat.py`.

    request ──► engine: `best_of` candidates ──► PRM: a score each ──► best, or a vote over equal answers ──► `n`

Selection: `best` is the highest score; `majority` the most frequent answer; `weighted` the answer with the largest sum
of sigmoid(score) (ImplicitPRM, arXiv 2412.01981, section 4).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from prime.chat import ChatCandidate, ChatSamples, plain_text
from prime.errors import EngineError, InvalidInput, PrimeError
from prime.maths.aggregation import vote
from prime.patience import patiently
from prime.ports import AnswerGrouper, CheckingScorer, Generator
from prime.scoring import Aggregation, Candidate, Prompt, ScoringReply, ScoringRequest, StepSplit, Truncation
from prime.types import AnswerClasses
from services.prm.settings import BestOfNSettings

_PATIENCE_S = 60.0
_CUT = "length"
"""The reason with which an engine ends an answer at its longest."""


class Selection(StrEnum):
    """How a winner is found."""

    BEST = "best"
    MAJORITY = "majority"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfRequest:
    """What is asked: `BestOfRequest(body={"model": "qwen", "messages": [...]}, n=1, best_of=8)`."""

    body: Mapping[str, Any]
    """Goes to the engine as it is."""
    n: int = 1
    best_of: int | None = None
    selection: Selection | None = None
    aggregation: Aggregation | None = None
    beta: float | None = None
    separators: tuple[str, ...] = ()
    min_candidates: int = 1
    """With fewer the request fails, although some were sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfReply:
    """All candidates, and which of them are given back.

    Example: `BestOfReply(samples=..., scores=(0.1, None, 0.4), selected=(2,), selection=Selection.BEST, replies=...,
    classes=None, ...)`: of three candidates the second was empty, and the third is the best.
    """

    samples: ChatSamples
    scores: tuple[float | None, ...]
    """Per candidate; None for one without text, which nothing can be said about."""
    selected: tuple[int, ...]
    """The best `n`, the best first."""
    selection: Selection
    replies: tuple[ScoringReply, ...]
    """Of complete candidates and of those that were cut, where there are any with text."""
    cut: tuple[int, ...]
    """Candidates that the engine cut at their longest: they have no end token, and come after the complete ones."""
    classes: AnswerClasses | None
    """Where there was a vote."""
    fallback: str
    """Why there was none, although one was asked for."""
    unread: tuple[str, ...]
    """Types of content that the engine saw and the PRM cannot read, e.g. `("image_url",)`."""


class BestOfN:
    """Best-of-N over an engine, the PRM and, for votes, whoever knows which answers are equal."""

    def __init__(
        self, generator: Generator, scorer: CheckingScorer, grouper: AnswerGrouper | None, settings: BestOfNSettings
    ) -> None:
        self._generator = generator
        self._scorer = scorer
        self._grouper = grouper
        self._settings = settings

    async def models(self) -> Sequence[str]:
        """The names that a request may carry."""
        return await self._generator.models()

    async def complete(self, request: BestOfRequest) -> BestOfReply:
        """Sample, score, choose.

        Raises:
            InvalidInput: fewer candidates than choices, too many, a vote without a verifier, or options that the PRM
                cannot score with. Nothing was sampled.
            EngineError: the engine gave no candidate, or fewer than `min_candidates`.
        """
        best_of = self._candidates_of(request)
        selection = request.selection or Selection(self._settings.selection)
        grouper = self._grouper
        if selection is not Selection.BEST and grouper is None:
            raise InvalidInput(
                f"selection {selection.value!r} votes over equal answers, and no verifier is configured to tell them: "
                f"set prm.best_of_n.verifier, start `primectl serve-prm` with best_of_n.votes=true, or ask for 'best'"
            )
        await self._scorer.check(_scoring(request, ["?"]))
        samples = await self._generator.sample(request.body, best_of)
        if len(samples.candidates) < request.min_candidates:
            raise EngineError(
                f"the engine gave {len(samples.candidates)} candidates of {best_of}; at least "
                f"{request.min_candidates} are needed to choose from"
            )
        begun = _begun(request.body)
        texts = [begun + text_of(candidate) for candidate in samples.candidates]
        cut = [number for number, each in enumerate(samples.candidates) if each.finish_reason == _CUT]
        scores, replies = await self._score(request, texts, cut)
        classes, fallback = None, ""
        if selection is not Selection.BEST and grouper is not None:
            try:
                classes = await grouper.group_answers(texts)
            except PrimeError as error:
                # The answers are paid for: without a vote there is still the best of them.
                selection, fallback = Selection.BEST, f"the verifier could not say which answers are equal: {error}"
        order = _order(scores, classes, selection, cut)
        return BestOfReply(
            samples=samples,
            scores=tuple(scores),
            selected=tuple(order[: request.n]),
            selection=selection,
            replies=replies,
            cut=tuple(cut),
            classes=classes,
            fallback=fallback,
            unread=_unread(request.body["messages"]),
        )

    def _candidates_of(self, request: BestOfRequest) -> int:
        most = self._settings.max_best_of
        best_of = max(request.n, self._settings.best_of) if request.best_of is None else request.best_of
        if best_of < request.n:
            raise InvalidInput(f"best_of = {best_of} is below n = {request.n}: there must be as many to choose from")
        if best_of > most:
            raise InvalidInput(f"{best_of} candidates are asked for; at most {most} are (prm.best_of_n.max_best_of)")
        if best_of < request.min_candidates:
            raise InvalidInput(f"min_candidates = {request.min_candidates} is above best_of = {best_of}")
        return best_of

    async def _score(
        self, request: BestOfRequest, texts: Sequence[str], cut: Sequence[int]
    ) -> tuple[list[float | None], tuple[ScoringReply, ...]]:
        """Scores of those with text. Nobody sampled an end token where an answer was cut, so none is scored there."""
        scores: list[float | None] = [None] * len(texts)
        with_text = [number for number, text in enumerate(texts) if text.strip()]
        complete = [number for number in with_text if number not in cut]
        kinds = [each for each in (complete, [number for number in with_text if number in cut]) if each]
        if not kinds:
            return scores, ()
        asked = [
            _scoring(request, [texts[number] for number in kind], end_token=None if kind is complete else False)
            for kind in kinds
        ]
        replies = await patiently(lambda: self._scorer.score_all(asked), seconds=_PATIENCE_S)
        for kind, reply in zip(kinds, replies, strict=True):
            for number, candidate in zip(kind, reply.candidates, strict=True):
                scores[number] = candidate.score
        return scores, tuple(replies)


def _scoring(request: BestOfRequest, texts: Sequence[str], *, end_token: bool | None = None) -> ScoringRequest:
    messages = request.body["messages"]
    return ScoringRequest(
        prompt=Prompt(
            messages=tuple(map(_readable, messages[:-1] if _begun(request.body) else messages)),
            tools=tuple(request.body.get("tools") or ()),
        ),
        candidates=tuple(Candidate(text=text) for text in texts),
        split=StepSplit(separators=request.separators) if request.separators else None,
        aggregation=request.aggregation,
        beta=request.beta,
        end_token=end_token,
        # The answers are paid for: neither a prompt too long for the PRM nor a busy moment may lose them.
        truncation=Truncation.LEFT,
    )


def _readable(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message without what the engine may see and the PRM cannot read, such as pictures."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [part for part in content if not _is_unread(part)]}


def _is_unread(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type", "text") != "text"


def _unread(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The types of those parts, each once."""
    contents = [content for message in messages if isinstance(content := message.get("content"), list)]
    return tuple(sorted({str(part["type"]) for content in contents for part in content if _is_unread(part)}))


def _begun(body: Mapping[str, Any]) -> str:
    """What the client wrote of the answer itself, which the engine goes on with: the PRM reads it with what follows."""
    last = body["messages"][-1]
    if body.get("continue_final_message") and last.get("role") == "assistant":
        return plain_text(last.get("content"))
    return ""


def text_of(candidate: ChatCandidate) -> str:
    """What the PRM reads of a candidate: its content, and the names and arguments of its tool calls as JSON.

    A call's id is random, and equal calls are to have equal scores.
    """
    content = plain_text(candidate.message.get("content"))
    calls = [call.get("function", call) for call in candidate.message.get("tool_calls") or ()]
    named = [{"name": call.get("name"), "arguments": call.get("arguments")} for call in calls]
    return "\n".join(part for part in (content, json.dumps(named) if named else "") if part)


def _order(
    scores: Sequence[float | None], classes: AnswerClasses | None, selection: Selection, cut: Sequence[int]
) -> list[int]:
    """Candidates, the best first: complete ones, then those that were cut, then those without a score."""
    known = [number for number, score in enumerate(scores) if score is not None]
    unknown = [number for number, score in enumerate(scores) if score is None]

    def falling(numbers: Sequence[int]) -> list[int]:
        return sorted(numbers, key=lambda number: (-(scores[number] or 0.0), number))

    complete = [number for number in known if number not in cut]
    after = falling([number for number in known if number in cut]) + unknown
    if classes is None:
        return falling(complete) + after
    scores_N = torch.tensor([scores[number] for number in complete], dtype=torch.float64)
    classes_N = torch.tensor([classes.classes[number] for number in complete], dtype=torch.long)
    order = vote(scores_N, classes_N, weighted=selection is Selection.WEIGHTED)
    return [complete[place] for place in order] + after
