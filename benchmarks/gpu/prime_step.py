"""One PRIME step of given groups, from the same parts as the services and with their defaults, in one process.

The services read their settings with pydantic and log with structlog, and a bare machine has neither. So this puts
`prime.lm` and `prime.maths` together as `services/trainer/policy.py`, `services/trainer/batch.py` and
`services/prm/reward_model.py` do. A test holds it to them: same defaults, same log-probs afterwards, to the bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.job import Stopwatch
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, Loader
from prime.lm.packing import TokenRow, pad_rows
from prime.lm.training import Optimiser
from prime.maths import advantages
from prime.maths.losses import clipped_policy_loss, importance_weights, token_shares
from prime.maths.prm_losses import cross_entropy
from prime.maths.rewards import normalise_rewards, token_rewards
from prime.types import GradedGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Of `TrainerSettings` and `PrmSettings`, as far as a step uses them."""

    samples_per_prompt: int = 4
    low: float = 0.2
    high: float = 0.8
    temperature: float = 1.0
    token_budget: int = 16384
    lr: float = 5e-7
    grad_clip: float = 1.0
    clip: float = 0.2
    importance_cap: float = 2.0
    gamma: float = 1.0
    process_coef: float = 1.0
    outcome_coef: float = 1.0
    prm_lr: float = 1e-6
    prm_grad_clip: float = 10.0
    beta: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """Means over tokens, norms before clipping."""

    largest_reward: float
    prm_loss: float
    prm_grad_norm: float
    policy_loss: float
    policy_grad_norm: float
    sampler_gap: float
    """Mean |trainer - sampler| log-prob before the update."""
    mean_importance: float


class Trio:
    """Policy, PRM and reference, which begin as one model."""

    def __init__(
        self, folder: Path, *, device: torch.device, defaults: Defaults, load: Callable[[], Loader | None]
    ) -> None:
        """`load` makes a loader for each of the three."""
        self._defaults = defaults
        compute = Compute.on(device)
        self.policy, self._prm, self._reference = (
            CausalLM(folder, device=device, compute=compute, load=load()) for _ in range(3)
        )
        self._optimiser = Optimiser(self.policy, lr=defaults.lr, grad_clip=defaults.grad_clip)
        self._prm_optimiser = Optimiser(self._prm, lr=defaults.prm_lr, grad_clip=defaults.prm_grad_clip)

    def step(self, groups: Sequence[GradedGroup], watch: Stopwatch) -> StepFigures:
        """Score, teach the PRM, update the policy: the parts `score`, `learn` and `update` of the watch.

        Raises:
            EngineError: a gradient is not finite.
        """
        rows = rows_of(groups)
        outcomes_B = torch.tensor([outcome for each in groups for outcome in each.outcomes])
        group_B = torch.tensor([number for number, each in enumerate(groups) for _ in each.group.samples])
        sampler = [torch.tensor(sample.logprobs) for each in groups for sample in each.group.samples]
        pairs = watch.time("score", lambda: self._scores(rows))
        prm_loss, prm_norm = watch.time("learn", lambda: self._learn(rows, pairs, outcomes_B))
        rewards = [token_rewards(own, theirs, beta=self._defaults.beta) for own, theirs in pairs]
        found = self._advantages(rewards, outcomes_B, group_B)
        (loss, gap, importance), norm = watch.time("update", lambda: self._update(rows, found, sampler))
        return StepFigures(
            largest_reward=max(float(reward_T.abs().max()) for reward_T in rewards),
            prm_loss=prm_loss,
            prm_grad_norm=prm_norm,
            policy_loss=loss,
            policy_grad_norm=norm,
            sampler_gap=gap,
            mean_importance=importance,
        )

    def logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Of the policy, at the sampling temperature."""
        budget = self._defaults.token_budget
        return self.policy.score_rows(rows, token_budget=budget, temperature=self._defaults.temperature)

    def prm_logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Of the PRM."""
        return self._prm.score_rows(rows, token_budget=self._defaults.token_budget)

    def _advantages(self, rewards: Sequence[Tensor], outcomes_B: Tensor, group_B: Tensor) -> list[Tensor]:
        """RLOO on token rewards and outcomes, whitened over the batch."""
        rewards_BT, mask_BT = pad_rows([reward_T.tolist() for reward_T in rewards])
        defaults, normed_BT = self._defaults, normalise_rewards(rewards_BT, mask_BT)
        process_BT, outcome_B = advantages.rloo(normed_BT, outcomes_B, mask_BT, group_B, gamma=defaults.gamma)
        coefs = {"process_coef": defaults.process_coef, "outcome_coef": defaults.outcome_coef}
        raw_BT = advantages.combine(process_BT, outcome_B, mask_BT, **coefs)
        whitened_BT = advantages.whiten(raw_BT, mask_BT)
        return [whitened_BT[number, : len(reward_T)] for number, reward_T in enumerate(rewards)]

    def _scores(self, rows: Sequence[TokenRow]) -> list[tuple[Tensor, Tensor]]:
        budget = self._defaults.token_budget
        return list(zip(self.prm_logprobs(rows), self._reference.score_rows(rows, token_budget=budget), strict=True))

    def _learn(
        self, rows: Sequence[TokenRow], pairs: Sequence[tuple[Tensor, Tensor]], outcomes_B: Tensor
    ) -> tuple[float, float]:
        """Loss of the PRM as it was, and gradient norm."""
        beta = self._defaults.beta
        logits_B = torch.stack([beta * (own - theirs).sum() for own, theirs in pairs]).requires_grad_()
        loss = cross_entropy(logits_B, outcomes_B) / len(outcomes_B)
        (towards_B,) = torch.autograd.grad(loss, logits_B)
        for pack in self._prm.packs(rows, token_budget=self._defaults.token_budget):
            logprobs_N = self._prm.logprobs(pack).logprobs_N
            towards_N = towards_B[list(pack.rows)].repeat_interleave(torch.tensor(pack.response_lengths).long())
            (beta * logprobs_N @ towards_N.to(logprobs_N.device)).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), self._prm_optimiser.step()

    def _update(
        self, rows: Sequence[TokenRow], found: Sequence[Tensor], sampler: Sequence[Tensor]
    ) -> tuple[list[float], float]:
        """Loss, mean gap to the sampler and mean importance weight; and the gradient norm."""
        defaults, device = self._defaults, self.policy.device
        num_tokens = sum(len(row.response_ids) for row in rows)
        sums = torch.zeros(3, dtype=torch.float64)
        for pack in self.policy.packs(rows, token_budget=defaults.token_budget):
            logprobs_N = self.policy.logprobs(pack, temperature=defaults.temperature).logprobs_N
            old_N = logprobs_N.detach()
            sampler_N, advantages_N = (
                torch.cat([by_row[index] for index in pack.rows]).to(device) for by_row in (sampler, found)
            )
            weights_N = importance_weights(old_N, sampler_N, cap=defaults.importance_cap)
            lengths_B = torch.tensor(pack.response_lengths, device=device, dtype=torch.long)
            shares_N = token_shares(lengths_B, mean="token", num_tokens=num_tokens, num_rows=len(rows), longest=0)
            loss = clipped_policy_loss(
                logprobs_N, old_N, advantages_N, shares_N=shares_N * weights_N, bounds=(defaults.clip, defaults.clip)
            ).loss
            loss.backward()  # type: ignore[no-untyped-call]
            gap, weight = (old_N - sampler_N).abs().sum() / num_tokens, weights_N.sum() / num_tokens
            sums += torch.stack([loss.detach(), gap, weight]).cpu()
        return sums.tolist(), self._optimiser.step()


def rows_of(groups: Sequence[GradedGroup]) -> list[TokenRow]:
    """A row per sample, groups in order."""
    return [
        TokenRow(prompt_ids=each.group.prompt_ids, response_ids=sample.response_ids)
        for each in groups
        for sample in each.group.samples
    ]
