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

from prime.chat import ChatCandidate, ChatSamples
from prime.errors import EngineError, InvalidInput
from prime.maths.aggregation import vote
from prime.patience import patiently
from prime.ports import AnswerGrouper, Generator, Scorer
from prime.scoring import Aggregation, Candidate, Prompt, ScoringReply, ScoringRequest, StepSplit, Truncation
from prime.types import AnswerClasses
from services.prm.settings import BestOfNSettings

_PATIENCE_S = 60.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfReply:
    """All candidates, and which of them are given back.

    Example: `BestOfReply(samples=..., scores=(0.1, None, 0.4), selected=(2,), selection=Selection.BEST, reply=...,
    classes=None)`: of three candidates the second was empty, and the third is the best.
    """

    samples: ChatSamples
    scores: tuple[float | None, ...]
    """Per candidate; None for one without text, which nothing can be said about."""
    selected: tuple[int, ...]
    """The best `n`, the best first."""
    selection: Selection
    reply: ScoringReply | None
    """None when no candidate had any text."""
    classes: AnswerClasses | None
    """Where there was a vote."""


class BestOfN:
    """Best-of-N over an engine, the PRM and, for votes, whoever knows which answers are equal."""

    def __init__(
        self, generator: Generator, scorer: Scorer, grouper: AnswerGrouper | None, settings: BestOfNSettings
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
            InvalidInput: fewer candidates than choices, too many, or a vote without a verifier. Nothing was sampled.
            EngineError: the engine gave no candidate.
        """
        best_of = self._candidates_of(request)
        selection = request.selection or Selection(self._settings.selection)
        grouper = self._grouper
        if selection is not Selection.BEST and grouper is None:
            raise InvalidInput(
                f"selection {selection.value!r} votes over equal answers, and no verifier is configured to tell them: "
                f"set prm.best_of_n.verifier, or ask for selection 'best'"
            )
        samples = await self._generator.sample(request.body, best_of)
        if not samples.candidates:
            raise EngineError("the engine answered without a candidate")
        texts = [text_of(candidate) for candidate in samples.candidates]
        scores, reply = await self._score(request, texts)
        classes = None
        if selection is not Selection.BEST and grouper is not None:
            classes = await grouper.group_answers(texts)
        order = _order(scores, classes, selection)
        return BestOfReply(
            samples=samples,
            scores=tuple(scores),
            selected=tuple(order[: request.n]),
            selection=selection,
            reply=reply,
            classes=classes,
        )

    def _candidates_of(self, request: BestOfRequest) -> int:
        most = self._settings.max_best_of
        best_of = max(request.n, self._settings.best_of) if request.best_of is None else request.best_of
        if best_of < request.n:
            raise InvalidInput(f"best_of = {best_of} is below n = {request.n}: there must be as many to choose from")
        if best_of > most:
            raise InvalidInput(f"{best_of} candidates are asked for; at most {most} are (prm.best_of_n.max_best_of)")
        return best_of

    async def _score(
        self, request: BestOfRequest, texts: Sequence[str]
    ) -> tuple[list[float | None], ScoringReply | None]:
        scored = [number for number, text in enumerate(texts) if text.strip()]
        scores: list[float | None] = [None] * len(texts)
        if not scored:
            return scores, None
        asked = ScoringRequest(
            prompt=Prompt(
                messages=tuple(map(_readable, request.body["messages"])),
                tools=tuple(request.body.get("tools") or ()),
            ),
            candidates=tuple(Candidate(text=texts[number]) for number in scored),
            split=StepSplit(separators=request.separators) if request.separators else None,
            aggregation=request.aggregation,
            beta=request.beta,
            # The answers are paid for: neither a prompt too long for the PRM nor a busy moment may lose them.
            truncation=Truncation.LEFT,
        )
        reply = await patiently(lambda: self._scorer.score(asked), seconds=_PATIENCE_S)
        for number, candidate in zip(scored, reply.candidates, strict=True):
            scores[number] = candidate.score
        return scores, reply


def text_of(candidate: ChatCandidate) -> str:
    """What the PRM reads of a candidate: its content, and its tool calls as JSON."""
    content = _plain(candidate.message.get("content"))
    calls = candidate.message.get("tool_calls")
    return "\n".join(part for part in (content, json.dumps(calls) if calls else "") if part)


def _readable(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as a text model's template takes it: of a content in parts, the text."""
    return {**message, "content": _plain(message.get("content"))}


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part)
    return content if isinstance(content, str) else ""


def _order(scores: Sequence[float | None], classes: AnswerClasses | None, selection: Selection) -> list[int]:
    """Candidates, the best first; those without a score come last, in the order in which they were sampled."""
    known = [number for number, score in enumerate(scores) if score is not None]
    unknown = [number for number, score in enumerate(scores) if score is None]
    if classes is None:
        return sorted(known, key=lambda number: (-(scores[number] or 0.0), number)) + unknown
    scores_N = torch.tensor([scores[number] for number in known], dtype=torch.float64)
    classes_N = torch.tensor([classes.classes[number] for number in known], dtype=torch.long)
    order = vote(scores_N, classes_N, weighted=selection is Selection.WEIGHTED)
    return [known[place] for place in order] + unknown
