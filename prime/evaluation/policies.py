"""Whoever answers: a rollout replica by token ids, or an engine that speaks OpenAI's chat completions.

Both give sample `number` of a problem; a request asks for several in a row, from a seed of its own, so which samples
were made before an interruption changes nothing about the others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from prime.data.episodes import actions_of
from prime.data.prompts import encode_prompt, response_text
from prime.environments.registry import ABILITY, task_of
from prime.errors import EngineError, InvalidInput
from prime.ports import Generator
from prime.seeds import stable_hash
from prime.types import FinishReason, Problem, RolloutGroup, RolloutRequest, Sample, SamplingParams, VersionSpan

GREEDY = -1
"""The number of the sample that is taken greedily, at temperature 0."""
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One sample: `Answer(number=0, text="7 * 8 = 56. \\\\boxed{56}", truncated=False, num_tokens=14)`."""

    number: int
    text: str
    truncated: bool
    """It reached the token limit."""
    num_tokens: int
    spans: tuple[VersionSpan, ...] = ()
    """Which policy versions sampled it, where the policy is being trained."""
    refusal: str = ""
    """Why the policy was not able to answer at all, e.g. a prompt that is too long for it."""


class Policy(Protocol):
    """Answers problems."""

    async def answer(self, problem: Problem, numbers: Sequence[int]) -> list[Answer]:
        """The samples with these numbers, which follow each other; or the greedy one alone.

        Raises:
            InvalidInput: the problem cannot be asked, e.g. because its prompt is too long.
            PrimeError: the policy is away, or broke.
        """


def request_seed(seed: int, problem: Problem, first: int) -> int:
    """Of the request that begins with sample `first`."""
    return stable_hash(seed, "evaluate", problem.problem_id, first)


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop string outside of `<think>...</think>`.

    Example: stop "\\n\\nQ:" cuts "56\\n\\nQ: next" to "56", and leaves "<think>\\n\\nQ: me</think>56" whole.
    """
    hidden = [match.span() for match in _THOUGHT.finditer(text)] if "<think>" in text else []
    found = [
        match.start()
        for stop in stops
        for match in re.finditer(re.escape(stop), text)
        if not any(start <= match.start() < end for start, end in hidden)
    ]
    return text[: min(found)] if found else text


class Samples(Protocol):
    """The part of `ports.Rollout` that is needed here."""

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Groups in the order of the requests."""


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy:
    """A policy behind a rollout replica, or an engine of this process."""

    rollout: Samples
    tokenizer: Any
    sampling: SamplingParams
    seed: int
    min_version: int = 0
    stops: tuple[str, ...] = ()

    async def answer(self, problem: Problem, numbers: Sequence[int]) -> list[Answer]:
        """See `Policy`."""
        [answers] = await self.answer_all([problem], numbers)
        return answers

    async def answer_all(self, problems: Sequence[Problem], numbers: Sequence[int]) -> list[list[Answer]]:
        """The same of several problems, which are sampled together: what is computed does not depend on timing."""
        groups = await self.rollout.generate([self.request(problem, numbers) for problem in problems])
        return [
            [self._answer(problem, number, sample) for number, sample in zip(numbers, group.samples, strict=True)]
            for problem, group in zip(problems, groups, strict=True)
        ]

    def _answer(self, problem: Problem, number: int, sample: Sample) -> Answer:
        if problem.ability == ABILITY:
            text = actions_of(self.tokenizer, sample)
        else:
            text = cut_at_stop(response_text(self.tokenizer, sample.response_ids), self.stops)
        return Answer(
            number=number,
            text=text,
            truncated=sample.finish_reason is FinishReason.LENGTH,
            num_tokens=len(sample.response_ids),
            spans=sample.spans,
        )

    def request(self, problem: Problem, numbers: Sequence[int]) -> RolloutRequest:
        """What the engine is asked."""
        greedy = numbers[0] == GREEDY
        return RolloutRequest(
            group_id=f"evaluate-{problem.problem_id}-{numbers[0]}",
            problem_id=problem.problem_id,
            attempt=0,
            prompt_ids=encode_prompt(self.tokenizer, problem.messages),
            num_samples=len(numbers),
            sampling=_greedy(self.sampling) if greedy else self.sampling,
            seed=request_seed(self.seed, problem, numbers[0]),
            min_version=self.min_version,
            environment=task_of(problem),
        )


@dataclass(frozen=True, kw_only=True)
class EndpointPolicy:
    """A policy behind OpenAI's chat completions."""

    engine: Generator
    model: str
    sampling: SamplingParams
    seed: int
    stops: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request."""

    async def answer(self, problem: Problem, numbers: Sequence[int]) -> list[Answer]:
        """See `Policy`."""
        sampling = _greedy(self.sampling) if numbers[0] == GREEDY else self.sampling
        found = await self.engine.sample(
            {
                **self.options,
                "model": self.model,
                "messages": [{"role": each.role, "content": each.content} for each in problem.messages],
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
                # Some engines take seeds of 32 bits alone.
                "seed": request_seed(self.seed, problem, numbers[0]) % 2**31,
            },
            len(numbers),
        )
        if len(found.candidates) != len(numbers):
            raise EngineError(f"the engine gave {len(found.candidates)} answers, and {len(numbers)} were asked for")
        tokens = found.completion_tokens // len(numbers)
        return [
            Answer(
                number=number,
                text=cut_at_stop(_text_of(candidate.message), self.stops),
                truncated=candidate.finish_reason == "length",
                num_tokens=tokens,
            )
            for number, candidate in zip(numbers, found.candidates, strict=True)
        ]


def _greedy(sampling: SamplingParams) -> SamplingParams:
    return replace(sampling, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0)


def _text_of(message: Mapping[str, Any]) -> str:
    """What was answered, after what was thought where the engine gives that apart."""
    content = message.get("content")
    if content is None:
        return ""
    if not isinstance(content, str):
        raise InvalidInput("the engine answered with something other than text")
    return content
