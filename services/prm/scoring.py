"""The use case: score candidates of a prompt, given as text or token ids. Implements `ports.Scorer`.

    request ──► tokens and step spans (a thread) ──► limits ──► token rewards (batched) ──► steps ──► scores

Called by the HTTP edge, by best-of-N and by `primectl`; whatever a request leaves open is as the PRM's folder says.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, islice
from typing import Any

import torch

from prime.data.rendering import EncodedResponse, Markup, encode_candidates, encode_scoring_prompt, ending_of
from prime.errors import BatchTooLarge, EmptyInput, InputTooLong, InvalidInput, VersionConflict
from prime.maths.aggregation import aggregates
from prime.scoring import (
    Activation,
    Aggregation,
    CandidateScore,
    PrmKind,
    ScorerInfo,
    ScoringReply,
    ScoringRequest,
    ScoringSeconds,
    ScoringUsage,
    StepScore,
    StepSpan,
    StepSplit,
    StepValue,
    Truncation,
)
from prime.types import PrmGroup, ReferenceSource
from services.prm.batching import BatchedRewards, TokenScorer

# Characters and tokens, about; encoding more is left to a thread, so that the service goes on answering.
_LARGE = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How one request is read: the request's wishes over the PRM's own."""

    split: StepSplit
    step_value: StepValue
    activation: Activation
    aggregation: Aggregation
    beta: float
    reference: ReferenceSource
    end_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoded:
    """A request as tokens, cut to what the model reads."""

    prompts: tuple[tuple[int, ...], ...]
    """Per response: as much of the prompt as is read with it."""
    responses: tuple[EncodedResponse, ...]
    truncated: tuple[bool, ...]
    seconds: float


class PrmScorer:
    """Scores text with a PRM whose token rewards come from a `TokenScorer`."""

    def __init__(self, token_scorer: TokenScorer, tokenizer: Any, info: Callable[[], ScorerInfo]) -> None:
        self._token_scorer = token_scorer
        self._tokenizer = tokenizer
        self._info = info
        self._longest_token = max(map(len, tokenizer.get_vocab()))
        """In characters."""

    async def info(self) -> ScorerInfo:
        """Which PRM answers, and its limits."""
        return self._info()

    async def score(self, request: ScoringRequest) -> ScoringReply:
        """A score per candidate, all from one PRM version; raises as `score_all` does."""
        [reply] = await self.score_all([request])
        return reply

    async def check(self, request: ScoringRequest) -> None:
        """Whether a request could be scored, but for the length of its candidates and a busy moment.

        Raises:
            InvalidInput: as `score` would.
        """
        await self._encoded([request], self._info())

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        """A score per candidate of every request, all from one PRM version; what is wrong with one fails all.

        Raises:
            InvalidInput: a request breaks its contract: EmptyInput, InputTooLong and BatchTooLarge among them.
            VersionConflict: `require_version` is not the version that answers.
            Overloaded: too many requests wait already.
        """
        # To encode is work too, so it has a place in the queue.
        with self._token_scorer.place():
            encoded, readings = await self._encoded(requests, self._info())
            groups = [group for each in zip(requests, encoded, readings, strict=True) for group in _groups(*each)]
            batched = await self._token_scorer.score(groups)
        for request in requests:
            _require_version(request, batched.rewards.prm_version)
        rows = iter(zip(batched.rewards.rows, batched.rewards.reference_cached, strict=True))
        return [
            _reply(each, reading, batched, list(islice(rows, len(each.responses))))
            for each, reading in zip(encoded, readings, strict=True)
        ]

    async def _encoded(
        self, requests: Sequence[ScoringRequest], info: ScorerInfo
    ) -> tuple[list[_Encoded], list[_Reading]]:
        """The requests as tokens, and how each is read."""
        _check_size(requests, info)
        readings = [_read(request, info) for request in requests]
        if _is_slow_to_encode(requests):
            return await asyncio.to_thread(self._encode_all, requests, readings, info), readings
        return self._encode_all(requests, readings, info), readings

    def _encode_all(
        self, requests: Sequence[ScoringRequest], readings: Sequence[_Reading], info: ScorerInfo
    ) -> list[_Encoded]:
        return [self._encode(request, reading, info) for request, reading in zip(requests, readings, strict=True)]

    def _encode(self, request: ScoringRequest, reading: _Reading, info: ScorerInfo) -> _Encoded:
        started, max_tokens = time.perf_counter(), info.max_tokens
        if request.truncation is Truncation.ERROR:
            _refuse_hopeless(request, max_tokens, longest_token=self._longest_token)
        markup = Markup(step_mark=info.config.step_mark, closing=info.config.closing)
        prompt_ids = encode_scoring_prompt(self._tokenizer, request.prompt)
        responses = encode_candidates(
            self._tokenizer,
            request.candidates,
            split=reading.split,
            end_token=reading.end_token,
            markup=markup,
        )
        if info.kind is PrmKind.SEQUENCE_HEAD:
            responses = list(map(_as_one_step, responses))
        whole = [len(response.token_ids) for response in responses]
        if request.max_response_tokens is not None:
            ending = ending_of(self._tokenizer, markup)
            responses = [_shortened(response, request.max_response_tokens, ending) for response in responses]
        longest = max(len(response.token_ids) for response in responses)
        if len(prompt_ids) + longest > max_tokens and request.truncation is Truncation.ERROR:
            raise InputTooLong(
                f"the prompt has {len(prompt_ids)} tokens and its longest response {longest}, together more than the "
                f"{max_tokens} that are read; shorten them, or ask for truncation left or right"
            )
        cuts_left = request.truncation is Truncation.LEFT
        fitted = [_fit(prompt_ids, response, max_tokens, cuts_left=cuts_left) for response in responses]
        return _Encoded(
            prompts=tuple(prompt for prompt, _ in fitted),
            responses=tuple(response for _, response in fitted),
            truncated=tuple(
                len(response.token_ids) < length or len(prompt_ids) + len(response.token_ids) > max_tokens
                for response, length in zip(responses, whole, strict=True)
            ),
            seconds=time.perf_counter() - started,
        )


def _refuse_hopeless(request: ScoringRequest, max_tokens: int, *, longest_token: int) -> None:
    """Refuse what is too long whatever its tokens are: to encode megabytes costs seconds.

    A text has at least a token for every `longest_token` characters; templates may cut blanks at its ends.
    """
    prompt = request.prompt
    texts = [prompt.text, *(message.get("content") for message in prompt.messages)]
    least = sum(_least_tokens(text, longest_token) for text in texts) + len(prompt.token_ids or ())
    least += len(prompt.begun_ids)
    candidates = [
        sum(_least_tokens(text, longest_token) for text in (each.text, *(each.steps or ()))) + len(each.token_ids or ())
        for each in request.candidates
    ]
    if request.max_response_tokens is not None:
        candidates = [min(each, request.max_response_tokens) for each in candidates]
    if least + max(candidates) > max_tokens:
        raise InputTooLong(
            f"the prompt has {least} tokens or more and its longest response {max(candidates)} or more, together more "
            f"than the {max_tokens} that are read; shorten them"
        )


def _least_tokens(text: Any, longest_token: int) -> int:
    return -(-len(text.strip()) // longest_token) if isinstance(text, str) else 0


def _fit(
    prompt_ids: tuple[int, ...], response: EncodedResponse, max_tokens: int, *, cuts_left: bool
) -> tuple[tuple[int, ...], EncodedResponse]:
    """Prompt and response, cut to what is read; each response by itself, whatever its neighbours are."""
    over = len(prompt_ids) + len(response.token_ids) - max_tokens
    if over > 0 and cuts_left:
        # At least one token of the prompt is left, for it predicts the response's first.
        prompt_ids = prompt_ids[min(over, len(prompt_ids) - 1) :]
    room = max_tokens - len(prompt_ids)
    if room < 1:
        raise InputTooLong(
            f"the prompt alone has {len(prompt_ids)} tokens of the {max_tokens} that are read; shorten it, or ask "
            f"for truncation left"
        )
    return prompt_ids, _cut(response, room)


def _check_size(requests: Sequence[ScoringRequest], info: ScorerInfo) -> None:
    if not requests or not all(request.candidates for request in requests):
        raise EmptyInput("there is no candidate to score")
    count = sum(len(request.candidates) for request in requests)
    if count > info.max_candidates:
        raise BatchTooLarge(f"{count} candidates in one request; at most {info.max_candidates} are taken: split it")
    for request in requests:
        _require_version(request, info.prm_version)


def _is_slow_to_encode(requests: Sequence[ScoringRequest]) -> bool:
    """Large, or with a stranger's pattern, which may take its time."""
    size = 0
    for request in requests:
        prompt = request.prompt
        texts = [prompt.text or "", *(str(message) for message in prompt.messages), *map(str, prompt.tools)]
        for candidate in request.candidates:
            texts += [candidate.text or "", *(candidate.steps or ())]
        ids = [prompt.token_ids or (), *(candidate.token_ids or () for candidate in request.candidates)]
        size += sum(map(len, texts)) + sum(map(len, ids))
        if size > _LARGE or (request.split is not None and request.split.pattern):
            return True
    return False


def _require_version(request: ScoringRequest, version: int) -> None:
    if request.require_version not in (None, version):
        raise VersionConflict(f"version {request.require_version} of the PRM is required; it is at {version}")


def _refuse_what_heads_lack(request: ScoringRequest, info: ScorerInfo) -> None:
    if request.reference not in (None, ReferenceSource.NONE):
        raise InvalidInput(
            f"reference {request.reference.value!r}: this PRM is a {info.kind.value}, whose rewards are no log-ratios "
            "to a reference; leave the field out"
        )
    if request.beta not in (None, info.config.beta):
        raise InvalidInput(
            f"beta {request.beta}: this PRM is a {info.kind.value}, whose rewards are log-odds and have no scale to "
            "choose; leave the field out"
        )


def _as_one_step(response: EncodedResponse) -> EncodedResponse:
    """A head that is read once knows nothing of steps."""
    first, last = response.spans[0], response.spans[-1]
    return replace(response, spans=(replace(first, char_end=last.char_end, token_end=last.token_end),))


def _read(request: ScoringRequest, info: ScorerInfo) -> _Reading:
    config = info.config
    if info.kind is not PrmKind.IMPLICIT:
        _refuse_what_heads_lack(request, info)
    reading = _Reading(
        split=request.split or StepSplit(separators=config.separators),
        step_value=request.step_value or config.step_value,
        activation=request.activation or config.activation,
        aggregation=request.aggregation or config.aggregation,
        beta=request.beta or config.beta,
        reference=request.reference or info.reference,
        end_token=config.end_token if request.end_token is None else request.end_token,
    )
    if reading.beta <= 0:
        raise InvalidInput(f"beta must be above 0; it is {reading.beta}")
    if reading.aggregation is Aggregation.PROD and reading.activation is Activation.NONE:
        raise InvalidInput(
            "aggregation 'prod' multiplies probabilities, and rewards are log-ratios of either sign; ask for "
            "activation 'sigmoid' with it, or for another aggregation"
        )
    return reading


def _groups(request: ScoringRequest, encoded: _Encoded, reading: _Reading) -> Iterator[PrmGroup]:
    """The responses in their order; neighbours with the same prompt are one group."""
    supplied: tuple[tuple[float, ...], ...] = ()
    if reading.reference is ReferenceSource.SUPPLIED:
        known = [candidate.reference_logprobs for candidate in request.candidates]
        missing = next((number for number, each in enumerate(known) if each is None), None)
        if missing is not None:
            raise InvalidInput(f"reference 'supplied' needs the log-probs of every response; {missing} has none")
        supplied = tuple(
            tuple(each or ())[: len(response.token_ids)]
            for each, response in zip(known, encoded.responses, strict=True)
        )
    start = 0
    for prompt_ids, same in groupby(encoded.prompts):
        end = start + len(list(same))
        yield PrmGroup(
            group_id="",
            prompt_ids=prompt_ids,
            responses=tuple(response.token_ids for response in encoded.responses[start:end]),
            reference_logprobs=supplied[start:end],
            reference=reading.reference,
        )
        start = end


def _shortened(response: EncodedResponse, limit: int, ending: tuple[int, ...]) -> EncodedResponse:
    """At most `limit` tokens of a response, not counting those that end it."""
    ended = len(ending) if response.token_ids[-len(ending) :] == ending else 0
    return response if len(response.token_ids) - ended <= limit else _cut(response, limit)


def _cut(response: EncodedResponse, room: int) -> EncodedResponse:
    """The first tokens of a response; its spans still tile them, and the text as far as it was read."""
    if len(response.token_ids) <= room:
        return response
    if response.marks:
        return _cut_to_marks(response, room)
    spans: list[StepSpan] = []
    for span in response.spans:
        if span.token_start < room:
            spans.append(replace(span, token_end=min(span.token_end, room)))
    return replace(response, token_ids=response.token_ids[:room], spans=tuple(spans))


def _cut_to_marks(response: EncodedResponse, room: int) -> EncodedResponse:
    """Whole steps alone: one without its mark has no reward."""
    marks = tuple(mark for mark in response.marks if mark < room)
    if not marks:
        raise InputTooLong(
            f"the first step of a response ends at its token {response.marks[0] + 1}, and there is room for {room}; "
            "shorten it, let more tokens be read, or ask for truncation left"
        )
    spans = response.spans[: len(marks)]
    end = min(spans[-1].token_end, room)
    return replace(
        response,
        token_ids=response.token_ids[:end],
        spans=(*spans[:-1], replace(spans[-1], token_end=end)),
        marks=marks,
    )


def _at_marks(rewards: Sequence[float], response: EncodedResponse) -> list[float]:
    """With step marks, 0 at every other token: a text may hold the mark's tokens within a step."""
    if not response.marks:
        return list(rewards)
    read = set(response.marks)
    return [reward if place in read else 0.0 for place, reward in enumerate(rewards)]


def _reply(
    encoded: _Encoded, reading: _Reading, batched: BatchedRewards, rows: Sequence[tuple[Sequence[float], bool]]
) -> ScoringReply:
    rewards = batched.rewards
    scale = reading.beta / rewards.beta
    found = [
        [scale * each for each in _at_marks(row, response)]
        for (row, _), response in zip(rows, encoded.responses, strict=True)
    ]
    return ScoringReply(
        candidates=_score_candidates(encoded, found, reading),
        aggregation=reading.aggregation,
        step_value=reading.step_value,
        activation=reading.activation,
        beta=reading.beta,
        reference=reading.reference,
        reference_id=_reference_id(reading.reference, rewards.reference_id),
        prm_version=rewards.prm_version,
        usage=_usage(encoded, [cached for _, cached in rows]),
        seconds=ScoringSeconds(
            tokenize=encoded.seconds, queue=batched.queue_seconds, inference=batched.inference_seconds
        ),
    )


def _score_candidates(
    encoded: _Encoded, rewards: Sequence[Sequence[float]], reading: _Reading
) -> tuple[CandidateScore, ...]:
    steps = [_step_scores(response, row) for response, row in zip(encoded.responses, rewards, strict=True)]
    cumulative = reading.step_value is StepValue.CUMULATIVE
    values = [[step.cumulative if cumulative else step.reward for step in each] for each in steps]
    longest = max(map(len, values))
    values_NS = torch.tensor([row + [0.0] * (longest - len(row)) for row in values], dtype=torch.float64)
    mask_NS = torch.arange(longest) < torch.tensor([[len(row)] for row in values])
    is_probability = reading.activation is Activation.SIGMOID
    found = aggregates(values_NS.sigmoid() if is_probability else values_NS, mask_NS, probabilities=is_probability)
    by_candidate = zip(*(column_N.tolist() for column_N in found.values()), strict=True)
    named = [dict(zip(found, row, strict=True)) for row in by_candidate]
    return tuple(
        CandidateScore(
            score=named[number][reading.aggregation],
            response_reward=steps[number][-1].cumulative,
            aggregates=named[number],
            steps=steps[number],
            token_ids=response.token_ids,
            token_rewards=tuple(rewards[number]),
            truncated=encoded.truncated[number],
        )
        for number, response in enumerate(encoded.responses)
    )


def _step_scores(response: EncodedResponse, rewards: Sequence[float]) -> tuple[StepScore, ...]:
    # In float64: a step's reward is the difference of two prefix sums, so that steps add up to the response.
    prefix = list(accumulate(rewards, initial=0.0))
    return tuple(
        StepScore(
            span=span,
            reward=prefix[span.token_end] - prefix[span.token_start],
            cumulative=prefix[span.token_end],
        )
        for span in response.spans
    )


def _usage(encoded: _Encoded, reference_cached: Sequence[bool]) -> ScoringUsage:
    lengths = [len(response.token_ids) for response in encoded.responses]
    return ScoringUsage(
        prompt_tokens=max(map(len, encoded.prompts)),
        response_tokens=sum(lengths),
        reference_cached_tokens=sum(length for length, cached in zip(lengths, reference_cached, strict=True) if cached),
    )


def _reference_id(source: ReferenceSource, model_id: str) -> str:
    return model_id if source is ReferenceSource.MODEL else source.value
