"""The use case: answers written step by step, where the PRM's score of every beginning says which go on.

    beginnings ──► engine: one step more, several times ──► PRM: the new steps ──► those that go on ──► ... ──► answers

    strategy    a round                                                            source
    beam        of all continuations the best `answers / width` go on, each        Snell et al., arXiv 2408.03314
                `width` times
    dvts        `answers / width` trees of their own, in each the best of          Beeching et al. 2024, "Scaling
                `width` continuations goes on                                      test-time compute with open models"
    particle    `answers` particles go on once each, and are drawn anew with       Puri et al., arXiv 2502.01618
                weights softmax(score)

A beginning's steps are scored once: a round asks the PRM for the new step alone, with what came before as its prompt,
which all continuations of a beginning share. With a step head the marks are part of what came before, as they will be
of the whole answer; a sequence head knows nothing of beginnings, and is refused. Called by `best_of_n.py`, which at
the end scores the answers as whole ones, and chooses.
"""

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import structlog
import torch

from prime.chat import ChatCandidate, ChatSamples, Strategy, added_usage, begun_answer, plain_text, readable
from prime.errors import InvalidInput, PrimeError
from prime.maths.aggregation import aggregates
from prime.maths.search import highest, resample
from prime.patience import patiently
from prime.ports import Generator, Scorer
from prime.scoring import (
    Activation,
    Aggregation,
    Candidate,
    CandidateScore,
    PrmKind,
    Prompt,
    ScoringRequest,
    StepValue,
    Truncation,
)
from services.prm.settings import ContinuationForm

_CONTINUING: Mapping[ContinuationForm, Mapping[str, Any]] = {
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
    "sglang": {"continue_final_message": True},
    "plain": {},
}
_STOPPING: Mapping[ContinuationForm, Mapping[str, Any]] = {
    "vllm": {"include_stop_str_in_output": True},
    "sglang": {"no_stop_trim": True},
    "plain": {},
}
_PATIENCE_S = 60.0
_CALLS_AT_ONCE = 16
_TURNS = frozenset(("messages", "continue_final_message", "add_generation_prompt"))
"""Of a request, what each call to the engine has its own of."""
_REFUSED = ("stop", "tools", "logprobs", "top_logprobs")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What a search may do: `SearchPlan(strategy=Strategy.BEAM, answers=8, width=4, delimiters=("\\n\\n",))`."""

    strategy: Strategy
    answers: int
    """How many are sampled beside each other."""
    width: int
    """Continuations of a beginning; particles have one each."""
    delimiters: tuple[str, ...]
    """Texts that end a step."""
    max_steps: int = 40
    max_sampled_tokens: int | None = None
    """Over all continuations; None: as many as it takes."""

    @property
    def beginnings(self) -> int:
        """That go on from a round."""
        return self.answers if self.strategy is Strategy.PARTICLE else self.answers // self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """Answers, and what the search for them took."""

    samples: ChatSamples
    rounds: int
    engine_calls: int
    sampled_tokens: int
    """Of all continuations, in tokens of the PRM."""
    scored_tokens: int
    """Of prompts, beginnings and steps that the PRM read, in all rounds."""


class _State(Enum):
    OPEN = auto()
    COMPLETE = auto()
    CUT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """A beginning of an answer, or a whole one."""

    text: str
    state: _State = _State.OPEN
    scored: int = 0
    """Characters of the text that are scored."""
    token_ids: tuple[int, ...] = ()
    """Of these."""
    rewards: tuple[float, ...] = ()
    """Of its steps."""
    tree: int = 0
    joint: str = ""
    """A delimiter that we wrote at the text's end, because the engine does not tell what stopped it."""

    @property
    def answer(self) -> str:
        """The text without what we wrote."""
        return self.text.removesuffix(self.joint) if self.joint else self.text


@dataclass(slots=True, kw_only=True)
class _Costs:
    usages: list[Mapping[str, Any] | None] = field(default_factory=list)
    calls: int = 0
    failed: int = 0
    sampled_tokens: int = 0
    scored_tokens: int = 0
    first: ChatSamples | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How step rewards become the score of a beginning: as the PRM's folder says, and the request over it."""

    step_value: StepValue
    activation: Activation
    aggregation: Aggregation
    beta: float
    kind: PrmKind = PrmKind.IMPLICIT

    def rewards(self, grown: CandidateScore) -> tuple[float, ...]:
        """Of what a beginning grew by. A log-ratio is one of all its tokens; log-odds are of each step by itself."""
        if self.kind is PrmKind.STEP_HEAD:
            return tuple(step.reward for step in grown.steps)
        return (grown.response_reward,)

    def score(self, rewards: Sequence[float]) -> float:
        """Of a beginning with these steps."""
        if not rewards:
            return 0.0
        values_S = torch.tensor(rewards, dtype=torch.float64)
        if self.step_value is StepValue.CUMULATIVE:
            values_S = values_S.cumsum(0)
        is_probability = self.activation is Activation.SIGMOID
        values_1S = (values_S.sigmoid() if is_probability else values_S)[None]
        found = aggregates(values_1S, torch.ones_like(values_1S, dtype=torch.bool), probabilities=is_probability)
        return float(found[self.aggregation])


class Search:
    """One search: `await Search(generator, scorer, body, plan, reading=...).run()`."""

    def __init__(
        self,
        generator: Generator,
        scorer: Scorer,
        body: Mapping[str, Any],
        plan: SearchPlan,
        *,
        reading: Reading,
        form: ContinuationForm,
    ) -> None:
        """`body`: a chat completion that goes to the engine.

        Raises:
            InvalidInput: the request asks for what a search cannot do.
        """
        refused = [name for name in _REFUSED if body.get(name)]
        if refused:
            raise InvalidInput(
                f"{refused[0]!r} cannot be had with strategy {plan.strategy.value!r}: the answer is sampled in steps, "
                "each up to a delimiter"
            )
        if reading.kind is PrmKind.SEQUENCE_HEAD:
            raise InvalidInput(
                f"strategy {plan.strategy.value!r} goes by the scores of beginnings, and this PRM is a "
                f"{reading.kind.value}, which is read at an answer's end; ask for 'best_of_n', or use a PRM with steps"
            )
        if not all(plan.delimiters):
            raise InvalidInput("a step delimiter must not be empty")
        if plan.strategy is not Strategy.PARTICLE and plan.answers % plan.width:
            raise InvalidInput(f"best_of = {plan.answers} is not a multiple of width = {plan.width}")
        self._generator, self._scorer, self._plan, self._reading = generator, scorer, plan, reading
        self._form: ContinuationForm = form
        self._shows_delimiters = form != "plain"
        self._begun = begun_answer(body)
        self._messages = body["messages"][:-1] if self._begun else body["messages"]
        self._body = {name: value for name, value in body.items() if name not in _TURNS}
        self._limit = body.get("max_completion_tokens") or body.get("max_tokens")
        seed = body.get("seed")
        self._seeds = random.Random(seed if isinstance(seed, int) else secrets.randbits(63))
        self._places = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._costs = _Costs()

    async def run(self) -> Searched:
        """Search until no beginning is open, or the steps or tokens of the plan are used up.

        Raises:
            PrimeError: as engine or PRM, where not a single answer came of it.
        """
        plan = self._plan
        found: list[_Branch] = []
        going = [_Branch(text=self._begun)]
        counts = [plan.answers]
        rounds = 0
        while going and rounds < plan.max_steps and not self._is_spent():
            rounds += 1
            try:
                grown = await self._grow(going, counts)
            except PrimeError as error:
                if not found and rounds == 1:
                    raise
                _log.warning("a search ended early", round=rounds, error=str(error))
                break
            if plan.strategy is Strategy.PARTICLE:
                going, counts, found = self._particles(grown, found)
            else:
                found += [branch for branch in grown if branch.state is not _State.OPEN]
                going = [branch for branch in self._survivors(grown) if branch.state is _State.OPEN]
                counts = [plan.width] * len(going)
        # What is still open at the end is an answer that was cut.
        copies = counts if plan.strategy is Strategy.PARTICLE else [1] * len(going)
        unfinished = [branch for branch, count in zip(going, copies, strict=True) for _ in range(count)]
        found += [replace(branch, state=_State.CUT) for branch in unfinished if branch.rewards]
        return self._searched(found, rounds)

    def _is_spent(self) -> bool:
        most = self._plan.max_sampled_tokens
        return most is not None and self._costs.sampled_tokens >= most

    # ------------------------------------------------------------ which go on

    def _survivors(self, grown: Sequence[_Branch]) -> list[_Branch]:
        if self._plan.strategy is Strategy.BEAM:
            return self._best(_without_twins(grown), self._plan.beginnings)
        trees = sorted({branch.tree for branch in grown})
        return [self._best([each for each in grown if each.tree == tree], 1)[0] for tree in trees]

    def _best(self, branches: Sequence[_Branch], count: int) -> list[_Branch]:
        return [branches[number] for number in highest(self._scores(branches), count)]

    def _particles(
        self, grown: Sequence[_Branch], ended: Sequence[_Branch]
    ) -> tuple[list[_Branch], list[int], list[_Branch]]:
        """Those that go on, how often each, and those that have ended; all are drawn anew, the ended ones too."""
        particles = [*grown, *ended]
        drawn = [particles[number] for number in resample(self._scores(particles), self._seeds.random())]
        going = [branch for branch in drawn if branch.state is _State.OPEN]
        different = list(dict.fromkeys(going))
        counts = [going.count(branch) for branch in different]
        return different, counts, [branch for branch in drawn if branch.state is not _State.OPEN]

    def _scores(self, branches: Sequence[_Branch]) -> torch.Tensor:
        return torch.tensor([self._reading.score(branch.rewards) for branch in branches], dtype=torch.float64)

    # ------------------------------------------------------------ one step more

    async def _grow(self, going: Sequence[_Branch], counts: Sequence[int]) -> list[_Branch]:
        """`counts[i]` continuations of the i-th beginning, scored."""
        calls = [self._continue(branch, count) for branch, count in zip(going, counts, strict=True)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        unexpected = [error for error in errors if not isinstance(error, PrimeError)]
        if unexpected or len(errors) == len(answers):
            raise (unexpected or errors)[0]
        self._costs.failed += len(errors)
        families = [
            (branch, children)
            for branch, children in zip(going, answers, strict=True)
            if not isinstance(children, BaseException)
        ]
        return await self._score(families)

    async def _continue(self, branch: _Branch, count: int) -> list[_Branch]:
        messages = [*self._messages, *([{"role": "assistant", "content": branch.text}] if branch.text else [])]
        body = {
            **self._body,
            **_STOPPING[self._form],
            **(_CONTINUING[self._form] if branch.text else {}),
            "messages": messages,
            "stop": list(self._plan.delimiters),
            "seed": self._seeds.getrandbits(31),
        }
        if self._limit:
            body["max_tokens"] = max(1, int(self._limit) - len(branch.token_ids))
            body.pop("max_completion_tokens", None)
        async with self._places:
            try:
                samples = await self._generator.sample(body, count)
            except InvalidInput as error:
                # Fields that the engine does not know may be ours, and not the client's.
                raise InvalidInput(
                    f"{error}. To continue an answer, the search sends the fields of {self._form!r}; if the engine "
                    "does not know them, set `best_of_n.continuation` of the service to vllm, sglang or plain"
                ) from None
        self._costs.calls += 1
        self._costs.failed += samples.failed
        self._costs.usages.append(samples.usage)
        self._costs.first = self._costs.first or samples
        trees = range(len(samples.candidates))
        return [
            replace(child, tree=branch.tree if branch.rewards else number // self._plan.width)
            for number, child in zip(trees, self._children(branch, samples), strict=True)
        ]

    def _children(self, branch: _Branch, samples: ChatSamples) -> list[_Branch]:
        pieces = [(plain_text(each.message.get("content")), each.finish_reason) for each in samples.candidates]
        # An engine that leaves a delimiter in its text once does so always.
        self._shows_delimiters |= any(text.endswith(self._plan.delimiters) for text, _ in pieces)
        return [self._child(branch, text, reason) for text, reason in pieces]

    def _child(self, branch: _Branch, text: str, reason: str | None) -> _Branch:
        if not text:
            return replace(branch, text=branch.answer, state=_State.COMPLETE, joint="")
        grown = replace(branch, text=branch.text + text, joint="")
        if reason == "length":
            return replace(grown, state=_State.CUT)
        if text.endswith(self._plan.delimiters):
            return grown
        if self._shows_delimiters:
            return replace(grown, state=_State.COMPLETE)
        # It may have ended, or stopped at a delimiter; if it has ended, the next step is empty.
        joint = self._plan.delimiters[0]
        return replace(grown, text=grown.text + joint, joint=joint)

    # ------------------------------------------------------------ what a step is worth

    async def _score(self, families: Sequence[tuple[_Branch, list[_Branch]]]) -> list[_Branch]:
        asked: list[tuple[_Branch, list[_Branch], ScoringRequest]] = []
        for branch, children in families:
            for has_end in (False, True):
                kind = [
                    child
                    for child in children
                    if (child.state is _State.COMPLETE) is has_end and child.text[branch.scored :]
                ]
                if kind:
                    asked.append((branch, kind, self._request(branch, kind, end_token=None if has_end else False)))
        grown = [child for branch, each in families for child in each if not child.text[branch.scored :]]
        if not asked:
            return grown
        requests = [request for _, _, request in asked]
        replies = await patiently(lambda: self._scorer.score_all(requests), seconds=_PATIENCE_S)
        for (branch, kind, _), reply in zip(asked, replies, strict=True):
            self._costs.scored_tokens += reply.usage.prompt_tokens + reply.usage.response_tokens
            self._costs.sampled_tokens += reply.usage.response_tokens
            grown += [
                replace(
                    child,
                    scored=len(child.text),
                    token_ids=branch.token_ids + scored.token_ids,
                    rewards=(*branch.rewards, *self._reading.rewards(scored)),
                )
                for child, scored in zip(kind, reply.candidates, strict=True)
            ]
        return grown

    def _request(self, branch: _Branch, children: Sequence[_Branch], *, end_token: bool | None) -> ScoringRequest:
        return ScoringRequest(
            prompt=Prompt(messages=tuple(map(readable, self._messages)), begun_ids=branch.token_ids),
            candidates=tuple(Candidate(text=child.text[branch.scored :]) for child in children),
            beta=self._reading.beta,
            end_token=end_token,
            truncation=Truncation.LEFT,
        )

    # ------------------------------------------------------------ the answers

    def _searched(self, found: Sequence[_Branch], rounds: int) -> Searched:
        costs = self._costs
        candidates = tuple(
            ChatCandidate(
                message={"role": "assistant", "content": branch.answer[len(self._begun) :]},
                finish_reason="length" if branch.state is _State.CUT else "stop",
            )
            for branch in found
        )
        first = costs.first
        return Searched(
            samples=ChatSamples(
                candidates=candidates,
                model=first.model if first else "",
                usage=added_usage(costs.usages),
                more=first.more if first else {},
                failed=costs.failed,
            ),
            rounds=rounds,
            engine_calls=costs.calls,
            sampled_tokens=costs.sampled_tokens,
            scored_tokens=costs.scored_tokens,
        )


def _without_twins(branches: Sequence[_Branch]) -> list[_Branch]:
    """Of equal texts the first: a beam of copies would be a search of one."""
    return list({branch.text: branch for branch in reversed(branches)}.values())[::-1]
