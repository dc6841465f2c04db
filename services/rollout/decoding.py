"""A batched decode loop over a `transformers` model: prompts read once each, then one token per row and step.

Requests join a batch between two steps and leave it when they are finished, as in Orca (Yu et al., OSDI 2022): a step
costs little more with many rows than with few. Every row draws from a random stream of its own, seeded by (request
seed, sample number), so what it samples does not depend on its neighbours beyond rounding.

Shapes: P prompts, R rows alive, T steps, L positions, V vocabulary.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor, nn

from prime.types import (
    FinishReason,
    RolloutGroup,
    RolloutRequest,
    Sample,
    SamplingParams,
    VersionSpan,
    first_spans,
)
from services.rollout.stops import StopStrings

# Finished rows are dropped from the batch once they are this share of it: each drop copies the cache.
_DROP_SHARE = 0.25
# Entries of the vocabulary that are summed at once.
_BLOCK = 256


class Reader(Protocol):
    """Runs the model over what the rows of a batch have not read yet, and keeps what it needs to go on (`readers.py`).

    Rows are in the order of the cohorts, and in each cohort in its own.
    """

    def read_prompts(self, cohort: "Cohort") -> Tensor:
        """Of requests that join: logits of every row's first token. [R, V]."""

    def read_last_tokens(self, cohorts: Sequence["Cohort"]) -> list[Tensor]:
        """Logits of the next token of all rows, a tensor [R, V] per cohort."""

    def keep(self, alive_R: Tensor) -> None:
        """Go on with these rows alone; maybe none."""


class Batch:
    """All requests in flight: `join`, then `step` while it `is_alive`."""

    def __init__(self, reader: Reader, stop_V: Tensor, stops: StopStrings | None = None) -> None:
        """`stop_V`: which tokens end a response; on the model's device. `stops`: for requests with stop strings."""
        self._reader = reader
        self._stop_V = stop_V
        self._stops = stops
        self._cohorts: list[Cohort] = []
        self._joining: deque[Cohort] = deque()
        """Filled while another thread may decode."""

    @property
    def is_alive(self) -> bool:
        """Whether any row goes on."""
        return bool(self._cohorts or self._joining)

    def join(self, requests: Sequence[RolloutRequest]) -> "Cohort":
        """Take requests in; nothing is computed yet. May be called while another thread decodes."""
        cohort = Cohort(requests, self._stop_V, self._stops)
        self._joining.append(cohort)
        return cohort

    @torch.inference_mode()
    def leave(self, cohort: "Cohort") -> None:
        """Nobody waits for these requests any more."""
        self._joining = deque(each for each in self._joining if each is not cohort)
        if cohort in self._cohorts:
            cohort.abandon()
            self._drop_finished_rows()

    @torch.inference_mode()
    def step(self, version: int) -> bool:
        """Sample one token per row; whether that finished any group, which then lies in `Cohort.finished`."""
        logits = self._reader.read_last_tokens(self._cohorts) if self._cohorts else []
        while self._joining:
            cohort = self._joining[0]  # it stays there until it is among the others, so the batch is alive all the time
            logits.append(self._reader.read_prompts(cohort))
            self._cohorts.append(cohort)
            self._joining.popleft()
        finished = [
            cohort.take(logits_RV.float(), version) for cohort, logits_RV in zip(self._cohorts, logits, strict=True)
        ]
        self._drop_finished_rows()
        return any(finished)

    def _drop_finished_rows(self) -> None:
        num_done = sum(cohort.num_done for cohort in self._cohorts)
        num_rows = sum(cohort.num_rows for cohort in self._cohorts)
        has_ended = any(cohort.num_done == cohort.num_rows for cohort in self._cohorts)
        if not has_ended and num_done < _DROP_SHARE * num_rows:
            return
        alive_R = torch.cat([cohort.drop_finished_rows() for cohort in self._cohorts]).nonzero().flatten()
        self._cohorts = [cohort for cohort in self._cohorts if cohort.num_rows]
        self._reader.keep(alive_R)


class Cohort:
    """Requests that joined a batch together: all their rows are equally far."""

    def __init__(self, requests: Sequence[RolloutRequest], stop_V: Tensor, stops: StopStrings | None = None) -> None:
        self.requests = requests
        self._stops = stops
        self._has_stops = any(request.sampling.stop for request in requests)
        self.finished: list[RolloutGroup] = []
        """Groups that nobody took yet; whoever asked takes them out."""
        device = stop_V.device
        rows = [number for number, request in enumerate(requests) for _ in range(request.num_samples)]
        self.prompt_R = torch.tensor(rows, device=device)
        """Which prompt each row continues."""
        self._open = {number: request.num_samples for number, request in enumerate(requests)}
        self._stop_V = stop_V
        self._more_stops_RS = _ragged([requests[number].sampling.stop_token_ids for number in rows], device)
        longest = max(request.sampling.max_tokens for request in requests)
        self._limit_R = torch.tensor([requests[number].sampling.max_tokens for number in rows], device=device)
        self._uniforms_RT = torch.from_numpy(_uniforms(requests, longest)).to(device)
        self._choose = _Chooser([requests[number].sampling for number in rows], device)
        # What was sampled, by the row's first place, which it keeps when others are dropped.
        self._ids_RT = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        self._logprobs_RT = torch.zeros(len(rows), longest, device=device)
        self._places_R = torch.arange(len(rows), device=device)
        # By the row's first place: where it ended, and whether at a token or string that ends a response.
        self._lengths = [0] * len(rows)
        self._was_stopped = [False] * len(rows)
        self._is_done_R = torch.zeros(len(rows), dtype=torch.bool, device=device)
        lengths_P = torch.tensor([len(request.prompt_ids) for request in requests], device=device)
        self._lengths_R1 = lengths_P[self.prompt_R][:, None]
        self._steps = 0
        self._versions: list[VersionSpan] = []
        """Which version sampled how many steps, in order."""

    @property
    def num_rows(self) -> int:
        """Rows that are computed, finished ones that were not dropped yet among them."""
        return len(self._places_R)

    @property
    def num_done(self) -> int:
        """Of them, the finished ones."""
        return int(self._is_done_R.sum())

    @property
    def last_tokens_R1(self) -> Tensor:
        """What every row sampled last."""
        return self._ids_RT[self._places_R, self._steps - 1][:, None]

    @property
    def positions_R1(self) -> Tensor:
        """Where in its sequence that token stands."""
        return self._lengths_R1 + (self._steps - 1)

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Ids, padded on the left, and positions, negative in the padding. [P, L] each."""
        device = self._places_R.device
        prompts = [request.prompt_ids for request in self.requests]
        longest = max(map(len, prompts))
        ids_PL = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompts], device=device)
        lengths_P1 = torch.tensor([[len(ids)] for ids in prompts], device=device)
        return ids_PL, torch.arange(longest, device=device) - (longest - lengths_P1)

    def take(self, logits_RV: Tensor, version: int) -> bool:
        """Sample every row's next token; whether that finished a group."""
        chosen_R, logprobs_R = self._choose(logits_RV, self._uniforms_RT[self._places_R, self._steps])
        self._ids_RT[self._places_R, self._steps] = chosen_R
        self._logprobs_RT[self._places_R, self._steps] = logprobs_R
        self._steps += 1
        if self._versions and self._versions[-1].version == version:
            self._versions[-1] = VersionSpan(version=version, length=self._versions[-1].length + 1)
        else:
            self._versions.append(VersionSpan(version=version, length=1))
        stops_R = self._stop_V[chosen_R] | (self._more_stops_RS == chosen_R[:, None]).any(dim=1)
        if self._has_stops:
            stops_R |= self._completes_string()
        ends_R = (stops_R | (self._limit_R == self._steps)) & ~self._is_done_R
        if not bool(ends_R.any()):
            return False
        self._is_done_R |= ends_R
        for place, was_stopped in zip(self._places_R[ends_R].tolist(), stops_R[ends_R].tolist(), strict=True):
            self._lengths[place], self._was_stopped[place] = self._steps, was_stopped
        ended = self.prompt_R[ends_R].tolist()
        for number in ended:
            self._open[number] -= 1
        complete = sorted({number for number in ended if not self._open[number]})
        self.finished += [self._group(number) for number in complete]
        return bool(complete)

    def _completes_string(self) -> Tensor:
        """Whether a row's newest token completes one of its stop strings. [R]."""
        assert self._stops is not None, "whoever takes requests with stop strings has a tokenizer"
        found = []
        for number, place, is_done in zip(
            self.prompt_R.tolist(), self._places_R.tolist(), self._is_done_R.tolist(), strict=True
        ):
            stops = self.requests[number].sampling.stop
            ids = self._ids_RT[place, : self._steps].tolist() if stops and not is_done else []
            found.append(bool(ids) and self._stops.is_complete(ids, stops))
        return torch.tensor(found, device=self._is_done_R.device)

    def abandon(self) -> None:
        """All rows are finished."""
        self._is_done_R.fill_(True)

    def drop_finished_rows(self) -> Tensor:
        """Compute them no more; returns which rows were alive. [R]."""
        alive_R = ~self._is_done_R
        self._places_R, self._limit_R = self._places_R[alive_R], self._limit_R[alive_R]
        self.prompt_R, self._lengths_R1 = self.prompt_R[alive_R], self._lengths_R1[alive_R]
        self._is_done_R, self._more_stops_RS = self._is_done_R[alive_R], self._more_stops_RS[alive_R]
        self._choose.pick(alive_R)
        return alive_R

    def _group(self, number: int) -> RolloutGroup:
        request = self.requests[number]
        first = sum(each.num_samples for each in self.requests[:number])
        return RolloutGroup(
            group_id=request.group_id,
            problem_id=request.problem_id,
            attempt=request.attempt,
            prompt_ids=request.prompt_ids,
            samples=tuple(self._sample(place) for place in range(first, first + request.num_samples)),
        )

    def _sample(self, place: int) -> Sample:
        length = self._lengths[place]
        return Sample(
            response_ids=tuple(self._ids_RT[place, :length].tolist()),
            logprobs=tuple(self._logprobs_RT[place, :length].tolist()),
            spans=first_spans(self._versions, length),
            finish_reason=FinishReason.STOP if self._was_stopped[place] else FinishReason.LENGTH,
        )


class _Chooser:
    """A token per row by inverting the cumulative distribution at the row's next uniform number."""

    def __init__(self, parameters: Sequence[SamplingParams], device: torch.device) -> None:
        self._temperature_R1 = torch.tensor([[each.temperature] for each in parameters], device=device)
        self._top_p_R1 = torch.tensor([[each.top_p] for each in parameters], device=device)
        self._top_k_R1 = torch.tensor([[each.top_k] for each in parameters], device=device)
        self._min_p_R1 = torch.tensor([[each.min_p] for each in parameters], device=device)
        self._settle()

    def __call__(self, logits_RV: Tensor, uniforms_R: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and log-probs under the distribution that is drawn from. [R] each."""
        if self._is_tempered:
            logits_RV = logits_RV / self._temperature_R1.where(self._temperature_R1 > 0, 1.0)
        if self._is_greedy:
            logits_RV = torch.where(self._temperature_R1 > 0, logits_RV, _keep_best(logits_RV))
        if self._has_min_p:
            logits_RV = _keep_likely(logits_RV, self._min_p_R1)
        if self._has_top_k:
            logits_RV = _keep_top(logits_RV, self._top_k_R1)
        if self._is_cut:
            logits_RV = _keep_nucleus(logits_RV.log_softmax(dim=1), self._top_p_R1)
        largest_R1 = logits_RV.amax(dim=1, keepdim=True)
        weights_RV = (logits_RV - largest_R1).exp_()
        chosen_R1, total_R1 = _invert(weights_RV, uniforms_R[:, None])
        logprobs_R1 = logits_RV.gather(1, chosen_R1) - largest_R1 - total_R1.log().float()
        return chosen_R1.squeeze(1), logprobs_R1.squeeze(1)

    def pick(self, rows_R: Tensor) -> None:
        """Keep these rows."""
        self._temperature_R1, self._top_p_R1 = self._temperature_R1[rows_R], self._top_p_R1[rows_R]
        self._top_k_R1, self._min_p_R1 = self._top_k_R1[rows_R], self._min_p_R1[rows_R]
        self._settle()

    def _settle(self) -> None:
        self._is_tempered = bool((self._temperature_R1 != 1.0).any())
        self._is_greedy = bool((self._temperature_R1 == 0.0).any())
        self._is_cut = bool((self._top_p_R1 < 1.0).any())
        self._has_top_k = bool((self._top_k_R1 > 0).any())
        self._has_min_p = bool((self._min_p_R1 > 0.0).any())


def _invert(weights_RV: Tensor, uniforms_R1: Tensor) -> tuple[Tensor, Tensor]:
    """The entry at which the running sum of a row passes `uniform` times its total; and the total. [R, 1] each.

    In doubles, but only over the sums of blocks, and inside the one block that holds the entry: a running sum over a
    whole vocabulary would cost more than the model's head. What is drawn for a row depends on that row alone.
    """
    room = -weights_RV.shape[1] % _BLOCK
    blocks_RBC = nn.functional.pad(weights_RV, (0, room)) if room else weights_RV
    blocks_RBC = blocks_RBC.view(len(weights_RV), -1, _BLOCK)
    cumulative_RB = blocks_RBC.sum(dim=2, dtype=torch.float64).cumsum(dim=1)
    total_R1 = cumulative_RB[:, -1:]
    wanted_R1 = torch.minimum(uniforms_R1 * total_R1, _just_below(total_R1))
    block_R1 = torch.searchsorted(cumulative_RB, wanted_R1, right=True)
    before_R1 = nn.functional.pad(cumulative_RB, (1, 0)).gather(1, block_R1)
    inside_RC = blocks_RBC.gather(1, block_R1[:, :, None].expand(-1, 1, _BLOCK)).squeeze(1)
    inside_RC = inside_RC.double().cumsum(dim=1).add_(before_R1)
    # A block's sum and its running sum may differ in the last bit; the last entry that has any weight is meant then.
    wanted_R1 = torch.minimum(wanted_R1, _just_below(inside_RC[:, -1:]))
    return block_R1 * _BLOCK + torch.searchsorted(inside_RC, wanted_R1, right=True), total_R1


def _just_below(values: Tensor) -> Tensor:
    """The largest numbers that are smaller."""
    return torch.nextafter(values, torch.zeros_like(values))


def _uniforms(requests: Sequence[RolloutRequest], longest: int) -> Any:
    """The random streams, a row per sample: as many numbers as it may have tokens."""
    rows = []
    for request in requests:
        for sample in range(request.num_samples):
            bits = numpy.random.Philox(key=[request.seed, sample])
            drawn = numpy.random.Generator(bits).random(request.sampling.max_tokens)
            rows.append(numpy.pad(drawn, (0, longest - len(drawn))))
    return numpy.stack(rows)


def _keep_best(logits_RV: Tensor) -> Tensor:
    """All of the mass on the most probable token, the first of several."""
    best_R1 = logits_RV.argmax(dim=1, keepdim=True)
    return torch.full_like(logits_RV, float("-inf")).scatter_(1, best_R1, 0.0)


def _keep_likely(logits_RV: Tensor, min_p_R1: Tensor) -> Tensor:
    """Logits of tokens with at least `min_p` times the largest probability, the others at minus infinity."""
    least_R1 = logits_RV.amax(dim=1, keepdim=True) + min_p_R1.log()
    return logits_RV.masked_fill(logits_RV < least_R1, float("-inf"))


def _keep_top(logits_RV: Tensor, top_k_R1: Tensor) -> Tensor:
    """Logits of the `top_k` most probable tokens, and of those as probable as the last of them; 0: of all."""
    size = logits_RV.shape[1]
    counts_R1 = top_k_R1.where(top_k_R1 > 0, size).clamp(max=size)
    best_RK = logits_RV.topk(int(counts_R1.where(counts_R1 < size, 1).max()), dim=1).values
    last_R1 = best_RK.gather(1, counts_R1.clamp(max=best_RK.shape[1]) - 1)
    return logits_RV.masked_fill((logits_RV < last_R1) & (counts_R1 < size), float("-inf"))


def _ragged(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """[R, S], short ones filled up with -1."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[-1] * (longest - len(row))] for row in rows], device=device).view(len(rows), longest)


def _keep_nucleus(logprobs_RV: Tensor, top_p_R1: Tensor) -> Tensor:
    """Log-probs renormalised over the smallest set of tokens that holds `top_p` of the mass."""
    ordered_RV, order_RV = logprobs_RV.sort(dim=1, descending=True)
    before_RV = ordered_RV.exp().cumsum(dim=1) - ordered_RV.exp()
    kept_RV = ordered_RV.masked_fill(before_RV >= top_p_R1, float("-inf")).log_softmax(dim=1)
    return torch.empty_like(kept_RV).scatter_(1, order_RV, kept_RV)
