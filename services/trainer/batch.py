"""From graded groups to what an update needs: rows, outcomes, log-probs of the sampler."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prime.lm.packing import TokenRow
from prime.types import GradedGroup, written_places


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBatch:
    """One entry per row: tokens, advantages per response token, the sampler's log-probs.

    `old_logprobs` are those of the policy before the update, where they were needed earlier already.
    """

    rows: Sequence[TokenRow]
    advantages: Sequence[Tensor]
    sampler_logprobs: Sequence[Tensor]
    old_logprobs: Sequence[Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetrics:
    """Token means over the update, and the gradient norm before clipping."""

    loss: float
    grad_norm: float
    skipped: int
    """Optimiser steps that were left out, because their gradient was not finite."""
    entropy: float
    clipped_share: float
    kl_to_old: float
    sampler_gap: float
    """Mean |trainer - sampler| log-prob: staleness and kernel differences together."""
    mean_importance: float
    sampler_kl: float
    """Divergence of the sampler from the trainer, nats per token."""
    kl_to_reference: float
    """Of the policy from the one that the run started with; 0 where that is not kept."""
    router_balance: float
    """Load-balance loss of a mixture of experts, a mean over layers and responses; 1 at best, 0 where it has no weight.
    """


def token_rows(groups: Sequence[GradedGroup]) -> list[TokenRow]:
    """One row per sample, groups in order."""
    return [
        TokenRow(prompt_ids=graded.group.prompt_ids, response_ids=sample.response_ids, observed=sample.observed)
        for graded in groups
        for sample in graded.group.samples
    ]


def sampler_logprobs(groups: Sequence[GradedGroup]) -> list[Tensor]:
    """The sampler's log-probs, one tensor per row."""
    return [
        torch.tensor([sample.logprobs[place] for place in written_places(len(sample.logprobs), sample.observed)])
        for graded in groups
        for sample in graded.group.samples
    ]


def outcomes_of(groups: Sequence[GradedGroup]) -> list[float]:
    """One outcome per row."""
    return [outcome for graded in groups for outcome in graded.outcomes]
