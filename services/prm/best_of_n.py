"""The use case: sample several answers, score them with the PRM, give back the best. Called by `http/chat.py`.

    request ──► engine: `best_of` candidates ──► PRM: a score each ──► best, or a vote over equal answers ──► `n`

Candidates are sampled whole, as many as asked for or as it takes (`Adaptive`), or searched step by step (`search.py`).

Selection: `best` is the highest score; `majority` the most frequent answer; `weighted` the answer with the largest sum
of sigmoid(score) (ImplicitPRM, arXiv 2412.01981, section 4).
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prime.chat import (
    ChatCandidate,
    ChatSamples,
    Selection,
    Strategy,
    added_usage,
    begun_answer,
    plain_text,
    readable,
    unread_types,
)
from prime.errors import EngineError, InvalidInput, PrimeError
from prime.maths.aggregation import vote
from prime.maths.search import is_settled
from prime.patience import patiently
from prime.ports import AnswerGrouper, CheckingScorer, Generator
from prime.scoring import Aggregation, Candidate, Prompt, ScoringReply, ScoringRequest, StepSplit, Truncation
from prime.types import AnswerClasses
from services.prm.search import Reading, Search, Searched, SearchPlan
from services.prm.settings import BestOfNSettings

_PATIENCE_S = 60.0
_NO_ANSWERS = "no candidate holds an answer that the verifier finds, such as \\boxed{...}, so the best score chose"
_CUT = "length"
"""The reason with which an engine ends an answer at its longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Stop sampling before `best_of`: `Adaptive(first=4, confidence=0.95)`, `Adaptive(score=1.5)`."""

    first: int = 4
    """Candidates before the first look, and between looks."""
    confidence: float = 0.95
    """At which a vote is settled."""
    score: float | None = None
    """A candidate with this much is good enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How answers are found: `SearchOptions(strategy=Strategy.BEAM, width=4)`; `search.py` says what they mean."""

    strategy: Strategy = Strategy.BEST_OF_N
    width: int = 4
    delimiters: tuple[str, ...] = ()
    """Empty: where the PRM's steps end."""
    max_steps: int = 40
    max_sampled_tokens: int | None = None


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
    adaptive: Adaptive | None = None
    search: SearchOptions = SearchOptions()


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
    saved: int
    """Candidates that were not needed."""
    searched: Searched | None
    """Where answers were searched step by step."""


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
        selection = self._selection_of(request)
        await self._scorer.check(_scoring(request, ["?"]))
        found = _Found(request, selection)
        if request.search.strategy is Strategy.BEST_OF_N:
            await self._sample(found, best_of)
        else:
            await self._search(found, best_of)
        if len(found.candidates) < request.min_candidates:
            raise EngineError(
                f"the engine gave {len(found.candidates)} candidates of {best_of}; at least {request.min_candidates} "
                "are needed to choose from"
            )
        return found.reply(best_of)

    async def _sample(self, found: "_Found", best_of: int) -> None:
        """Whole answers: all at once, or where it may stop early as many as it takes."""
        adaptive = found.request.adaptive
        at_once = adaptive.first if adaptive else best_of
        while (missing := best_of - found.asked) > 0:
            count = min(at_once, missing)
            try:
                samples = await self._generator.sample(_with_seed(found.request.body, found.asked), count)
            except PrimeError:
                if not found.candidates:
                    raise
                found.failed += missing  # those that came are paid for
                break
            found.asked += count
            await self._add(found, samples)
            if adaptive and found.is_settled(adaptive, remaining=best_of - found.asked):
                break

    async def _search(self, found: "_Found", best_of: int) -> None:
        """Answers written step by step."""
        request, info = found.request, await self._scorer.info()
        options, config = request.search, info.config
        search = Search(
            self._generator,
            self._scorer,
            request.body,
            SearchPlan(
                strategy=options.strategy,
                answers=best_of,
                width=1 if options.strategy is Strategy.PARTICLE else options.width,
                delimiters=options.delimiters or request.separators or config.separators,
                max_steps=options.max_steps,
                max_sampled_tokens=options.max_sampled_tokens,
            ),
            reading=Reading(
                step_value=config.step_value,
                activation=config.activation,
                aggregation=request.aggregation or config.aggregation,
                beta=request.beta or config.beta,
                kind=info.kind,
            ),
            form=self._settings.continuation,
        )
        found.searched = await search.run()
        found.asked = best_of
        await self._add(found, found.searched.samples)

    async def _add(self, found: "_Found", samples: ChatSamples) -> None:
        """Score more candidates, and vote over all that there are."""
        await self._score(found, found.take(samples))
        if found.selection is not Selection.BEST and self._grouper is not None:
            try:
                found.classes = await self._grouper.group_answers(found.texts)
                found.fallback = "" if max(found.classes.classes, default=-1) >= 0 else _NO_ANSWERS
            except PrimeError as error:
                # The answers are paid for: without a vote there is still the best of them.
                found.fallback = f"the verifier could not say which answers are equal: {error}"
                found.classes = None

    def _selection_of(self, request: BestOfRequest) -> Selection:
        selection = request.selection or Selection(self._settings.selection)
        if selection is not Selection.BEST and self._grouper is None:
            raise InvalidInput(
                f"selection {selection.value!r} votes over equal answers, and no verifier is configured to tell them: "
                f"set prm.best_of_n.verifier, start `primectl serve-prm` with best_of_n.votes=true, or ask for 'best'"
            )
        if request.adaptive and request.search.strategy is not Strategy.BEST_OF_N:
            raise InvalidInput("adaptive: it stops the sampling of whole answers, and a search samples steps")
        if request.adaptive and selection is Selection.BEST and request.adaptive.score is None:
            raise InvalidInput(
                "adaptive: with selection 'best' it needs a `score` at which it stops; votes stop when they are settled"
            )
        return selection

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

    async def _score(self, found: "_Found", numbers: Sequence[int]) -> None:
        """Scores of those with text. Nobody sampled an end token where an answer was cut, so none is scored there."""
        with_text = [number for number in numbers if found.texts[number].strip()]
        complete = [number for number in with_text if number not in found.cut]
        kinds = [each for each in (complete, [number for number in with_text if number in found.cut]) if each]
        if not kinds:
            return
        asked = [
            _scoring(
                found.request,
                [found.texts[number] for number in kind],
                end_token=None if kind is complete else False,
            )
            for kind in kinds
        ]
        replies = await patiently(lambda: self._scorer.score_all(asked), seconds=_PATIENCE_S)
        for kind, reply in zip(kinds, replies, strict=True):
            for number, candidate in zip(kind, reply.candidates, strict=True):
                found.scores[number] = candidate.score
        found.replies += replies


class _Found:
    """The candidates of one request as they come, and what is known of them."""

    def __init__(self, request: BestOfRequest, selection: Selection) -> None:
        self.request = request
        self.selection = selection
        self.begun = begun_answer(request.body)
        self.asked = self.failed = 0
        self.samples: list[ChatSamples] = []
        self.candidates: list[ChatCandidate] = []
        self.texts: list[str] = []
        self.cut: list[int] = []
        self.scores: list[float | None] = []
        self.replies: list[ScoringReply] = []
        self.classes: AnswerClasses | None = None
        self.fallback = ""
        self.searched: Searched | None = None

    def take(self, samples: ChatSamples) -> range:
        """Add candidates without scores; their numbers."""
        numbers = range(len(self.candidates), len(self.candidates) + len(samples.candidates))
        self.samples.append(samples)
        self.candidates += samples.candidates
        self.texts += [self.begun + text_of(candidate) for candidate in samples.candidates]
        self.cut += [number for number in numbers if self.candidates[number].finish_reason == _CUT]
        self.scores += [None] * len(numbers)
        self.failed += samples.failed
        return numbers

    @property
    def log_odds(self) -> list[float | None]:
        """Scores whose sigmoid is a candidate's weight in a vote: of scores that are probabilities, their logit."""
        if not any(reply.is_probability for reply in self.replies):
            return self.scores
        return [None if score is None else _logit(score) for score in self.scores]

    def is_settled(self, adaptive: "Adaptive", *, remaining: int) -> bool:
        """Whether `remaining` candidates more would hardly change what is chosen."""
        complete = [(n, score) for n, score in enumerate(self.scores) if score is not None and n not in self.cut]
        if adaptive.score is not None and any(score >= adaptive.score for _, score in complete):
            return True
        if self.classes is None:
            return False
        votes: dict[int, float] = defaultdict(float)
        log_odds = self.log_odds
        for number, _ in complete:
            if self.classes.classes[number] >= 0:
                weight = _sigmoid(log_odds[number] or 0.0) if self.selection is Selection.WEIGHTED else 1.0
                votes[self.classes.classes[number]] += weight
        return is_settled(list(votes.values()), remaining, adaptive.confidence)

    def reply(self, best_of: int) -> BestOfReply:
        """The best of them."""
        samples = ChatSamples(
            candidates=tuple(self.candidates),
            model=self.samples[0].model if self.samples else "",
            usage=added_usage(each.usage for each in self.samples),
            more=self.samples[0].more if self.samples else {},
            failed=self.failed,
        )
        if self.fallback:
            self.selection = Selection.BEST
        order = _order(self.log_odds, None if self.fallback else self.classes, self.selection, self.cut)
        return BestOfReply(
            samples=samples,
            scores=tuple(self.scores),
            selected=tuple(order[: self.request.n]),
            selection=self.selection,
            replies=tuple(self.replies),
            cut=tuple(self.cut),
            classes=self.classes,
            fallback=self.fallback,
            unread=unread_types(self.request.body["messages"]),
            saved=best_of - self.asked,
            searched=self.searched,
        )


def _sigmoid(score: float) -> float:
    return float(torch.sigmoid(torch.tensor(score, dtype=torch.float64)))


def _logit(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))


def _with_seed(body: Mapping[str, Any], asked: int) -> Mapping[str, Any]:
    """Later candidates with other seeds, or they would be the first ones again."""
    seed = body.get("seed")
    return {**body, "seed": seed + asked} if isinstance(seed, int) and asked else body


def _scoring(request: BestOfRequest, texts: Sequence[str], *, end_token: bool | None = None) -> ScoringRequest:
    messages = request.body["messages"]
    return ScoringRequest(
        prompt=Prompt(
            messages=tuple(map(readable, messages[:-1] if begun_answer(request.body) else messages)),
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
