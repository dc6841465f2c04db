"""Plays episodes: the model takes a turn, the environment answers, until one of them is done.

Stands before an engine and samples like one. Episodes of one call take their turns together, so that what is sampled
does not depend on timing. Requests without an environment go straight through.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from prime.data.episodes import encode_observation
from prime.data.prompts import response_text
from prime.environments.registry import open_environment
from prime.seeds import stable_hash
from prime.types import FinishReason, RolloutGroup, RolloutRequest, Sample, TokenSpan, VersionSpan


class Sampler(Protocol):
    """The part of `loop.Engine` that samples."""

    def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        """Groups in the order in which they finish."""


class Episodes:
    """A `Sampler` that plays what has an environment."""

    def __init__(self, sampler: Sampler, *, tokenizer: Any) -> None:
        """`tokenizer`: the policy's; its chat template says how turns are written."""
        self._sampler = sampler
        self._tokenizer = tokenizer

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        """Groups in the order in which they finish; those that are played come together.

        Raises:
            DataError: an environment cannot read its task.
        """
        played = [request for request in requests if request.environment is not None]
        playing = asyncio.create_task(self._play(played))
        try:
            answered = [request for request in requests if request.environment is None]
            if answered:
                async for group in self._sampler.generate(answered):
                    yield group
            for group in await playing:
                yield group
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)

    async def _play(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        episodes = {
            request.group_id: [_Episode(request, number, self._tokenizer) for number in range(request.num_samples)]
            for request in requests
        }
        # The prompt is the same for all samples of a group, and read once; later turns have nothing in common.
        first = [replace(request, environment=None) for request in requests]
        turns = await self._sample(first)
        for request in requests:
            for episode, sample in zip(episodes[request.group_id], turns[request.group_id].samples, strict=True):
                episode.take(sample)
        while alive := [each for group in episodes.values() for each in group if not each.has_ended]:
            turns = await self._sample([episode.next_request() for episode in alive])
            for episode in alive:
                episode.take(turns[episode.turn_id].samples[0])
        return [
            RolloutGroup(
                group_id=request.group_id,
                problem_id=request.problem_id,
                attempt=request.attempt,
                prompt_ids=request.prompt_ids,
                samples=tuple(episode.sample for episode in episodes[request.group_id]),
            )
            for request in requests
        ]

    async def _sample(self, requests: Sequence[RolloutRequest]) -> dict[str, RolloutGroup]:
        if not requests:
            return {}
        return {group.group_id: group async for group in self._sampler.generate(requests)}


class _Episode:
    """One sample under way: all tokens so far, and which of them were read."""

    def __init__(self, request: RolloutRequest, number: int, tokenizer: Any) -> None:
        assert request.environment is not None
        self._request = request
        self._number = number
        self._tokenizer = tokenizer
        self._max_turns = request.environment.max_turns
        self._environment = open_environment(request.environment)
        self._environment.reset()
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._spans: list[VersionSpan] = []
        self._observed: list[TokenSpan] = []
        self._turn = 0
        self._finish: FinishReason | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its sample is whole."""
        return self._finish is not None

    @property
    def turn_id(self) -> str:
        """What the engine knows the turn at hand by."""
        return f"{self._request.group_id}/{self._number}.{self._turn}"

    @property
    def sample(self) -> Sample:
        """The whole episode as one response."""
        assert self._finish is not None
        return Sample(
            response_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            spans=tuple(self._spans),
            finish_reason=self._finish,
            observed=tuple(self._observed),
        )

    def next_request(self) -> RolloutRequest:
        """One sample of the next turn."""
        left = self._request.sampling.max_tokens - len(self._ids)
        return replace(
            self._request,
            group_id=self.turn_id,
            prompt_ids=(*self._request.prompt_ids, *self._ids),
            num_samples=1,
            sampling=replace(self._request.sampling, max_tokens=left),
            seed=stable_hash(self._request.seed, self._number, self._turn),
            environment=None,
        )

    def take(self, turn: Sample) -> None:
        """The model's turn is over: act, and read what the world answers."""
        self._add(turn.response_ids, turn.logprobs, turn.spans)
        self._turn += 1
        if turn.finish_reason is FinishReason.LENGTH:
            self._finish = FinishReason.LENGTH
            return
        observation = self._environment.step(response_text(self._tokenizer, turn.response_ids))
        if observation.done or self._turn == self._max_turns:
            self._finish = FinishReason.STOP
            return
        read = encode_observation(self._tokenizer, observation.text)
        if len(self._ids) + len(read) >= self._request.sampling.max_tokens:
            self._finish = FinishReason.LENGTH  # no room for another turn
            return
        self._observed.append(TokenSpan(start=len(self._ids), length=len(read)))
        self._add(read, (0.0,) * len(read), (replace(self._spans[-1], length=len(read)),))

    def _add(self, ids: Sequence[int], logprobs: Sequence[float], spans: Sequence[VersionSpan]) -> None:
        self._ids += ids
        self._logprobs += logprobs
        for span in spans:
            if self._spans and self._spans[-1].version == span.version:
                self._spans[-1] = replace(span, length=self._spans[-1].length + span.length)
            else:
                self._spans.append(span)
