"""From graded groups and token rewards to what an update needs: rows, advantages, log-probs of the sampler."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prime.data.prompts import step_ends
from prime.lm.packing import TokenRow, pad_rows
from prime.maths import advantages
from prime.maths.rewards import normalise_rewards, overlong_penalties, rewards_at_ends
from prime.types import GradedGroup, TokenRewards, written_places
from services.trainer.settings import AdvantageSettings


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


def compute_advantages(
    groups: Sequence[GradedGroup],
    rewards: TokenRewards | None,
    settings: AdvantageSettings,
    *,
    tokenizer: Any,
    longest: int,
) -> tuple[list[Tensor], Mapping[str, float]]:
    """Whitened advantages per response token, one tensor per row, and figures about the rewards.

    `rewards=None` (no PRM) is the same as token rewards of 0. `longest`: tokens that a response may have.
    """
    rows = token_rows(groups)
    zeros = [(0.0,) * len(row.written) for row in rows]
    rewards_BT, mask_BT = pad_rows(rewards.rows if rewards is not None else zeros)
    figures = {
        "reward/largest_token": float(rewards_BT.abs().max()),
        "reward/mean_response": float(rewards_BT.sum(dim=1).mean()),
    }
    if settings.granularity != "token":
        rewards_BT = rewards_at_ends(rewards_BT, _marked_ends(rows, mask_BT, settings, tokenizer), mask_BT)
    if settings.reward_norm == "batch":
        rewards_BT = normalise_rewards(rewards_BT, mask_BT)
    outcomes_B = torch.tensor(outcomes_of(groups))
    if settings.overlong_window:
        penalties_B = overlong_penalties(mask_BT.sum(dim=1), longest=longest, window=settings.overlong_window)
        outcomes_B = outcomes_B + penalties_B
        figures["reward/overlong"] = float(penalties_B.mean())
    group_B = torch.tensor([number for number, graded in enumerate(groups) for _ in graded.group.samples])
    scales = {
        "gamma": settings.gamma,
        "process_coef": settings.process_coef,
        "outcome_coef": settings.outcome_coef,
    }
    match settings.estimator:
        case "rloo":
            raw_BT = advantages.rloo(rewards_BT, outcomes_B, mask_BT, group_B, **scales)
        case "grpo":
            raw_BT = advantages.grpo(rewards_BT, outcomes_B, mask_BT, group_B, **scales)
        case "reinforce":
            raw_BT = advantages.reinforce(rewards_BT, outcomes_B, mask_BT, **scales)
    figures["advantage/std_before_whitening"] = float(raw_BT[mask_BT].std(correction=0))
    whitened_BT = advantages.whiten(raw_BT, mask_BT)
    return [whitened_BT[number, : len(row.written)] for number, row in enumerate(rows)], figures


def _marked_ends(rows: Sequence[TokenRow], mask_BT: Tensor, settings: AdvantageSettings, tokenizer: Any) -> Tensor:
    ends_BT = torch.zeros_like(mask_BT)
    pieces: dict[int, str] = {}
    for number, row in enumerate(rows):
        if settings.granularity == "step":
            ends_BT[number, step_ends(row.written_ids, pieces, tokenizer, settings.step_delimiter)] = True
        elif settings.granularity == "turn":
            ends_BT[number, _turn_ends(row)] = True
    return ends_BT


def _turn_ends(row: TokenRow) -> list[int]:
    """Among the written tokens, those after which something was read."""
    jumps = itertools.pairwise(row.written)
    return [number for number, (place, following) in enumerate(jumps) if following > place + 1]
