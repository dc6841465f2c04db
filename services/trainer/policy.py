"""The trainable policy: log-probs, the update, its weights for the rollout replicas, its checkpoints.

The one file of this service that holds weights.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor

from prime.errors import SettingsError
from prime.lm.checkpoint import Snapshot, copy_weights, load_training_state, load_weights, save_model
from prime.lm.compute import Compute
from prime.lm.memory import give_back_freed
from prime.lm.model import CausalLM, load_tokenizer, pick_device, tokenizer_fingerprint
from prime.lm.packing import Pack, TokenRow
from prime.lm.plain import plain_logprobs
from prime.lm.training import Optimiser
from prime.lm.world import World, on_every_rank
from prime.maths.losses import (
    PolicyLoss,
    cispo_policy_loss,
    clipped_policy_loss,
    divergence,
    importance_weights,
    token_shares,
)
from prime.maths.routers import load_balance
from prime.types import TensorAlias
from services.trainer.batch import PolicyBatch, UpdateMetrics
from services.trainer.outgoing import as_pushed
from services.trainer.settings import TrainerSettings

_log = structlog.get_logger()
MODEL_FOLDER, STATE_FOLDER, REFERENCE_FOLDER = "policy", "policy_state", "policy_reference"


class Policy:
    """Weights and optimiser of the policy. Blocking; the loop, on rank 0, calls it in a thread."""

    def __init__(self, folder: Path, settings: TrainerSettings, world: World | None = None) -> None:
        """Load the checkpoint; in a world of several ranks, on all of them at once.

        Raises:
            CheckpointError: the folder holds no model.
        """
        self._folder = folder
        self._settings = settings.optimiser
        self._temperature = settings.sampling.temperature
        # In strict mode sampler and trainer hold the same weights; only their kernels may differ.
        self._loss = settings.loss
        self._longest = settings.sampling.max_tokens
        self._balances = self._loss.router_coef > 0
        self._is_weighted = {"auto": settings.max_lag > 0, "always": True, "never": False}[self._loss.importance]
        self.tokenizer: Any = load_tokenizer(folder)
        self.fingerprint = tokenizer_fingerprint(self.tokenizer)
        self.world = world or World()
        device = pick_device(self._settings.device)
        compute = Compute.on(device, **settings.compute.model_dump())
        self._lm = CausalLM(folder, device=device, compute=compute, world=self.world)
        if self._lm.slow_because and self.world.is_leader:
            _log.warning("rows are computed one by one", because=self._lm.slow_because)
        self._reference: CausalLM | None = None
        self._copy: CausalLM | None = None
        frozen = Compute(dtype=compute.dtype, offload=compute.offload)
        if self._loss.kl_coef > 0 or settings.advantage.asks_the_policy:
            self._reference = CausalLM(folder, device=device, compute=frozen, world=self.world)
        if settings.reference_every:
            self._copy = CausalLM(folder, device=device, compute=frozen, world=self.world)
        self._optimiser = Optimiser(
            self._lm,
            lr=self._settings.lr,
            grad_clip=self._settings.grad_clip,
            betas=self._settings.betas,
            weight_decay=self._settings.weight_decay,
            max_skipped=self._settings.max_skipped,
        )

    @property
    def device(self) -> torch.device:
        """Where it is, on this rank."""
        return self._lm.device

    @on_every_rank
    def logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens at the sampling temperature, without gradient."""
        return self._lm.score_rows(rows, token_budget=self._settings.token_budget, temperature=self._temperature)

    @on_every_rank
    def log_ratios(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens less those of the model that the run started with.

        Raises:
            SettingsError: that model is not kept.
        """
        if self._reference is None:
            raise SettingsError(
                "the policy's log-ratios need the model of the start: trainer.advantage.source = 'policy'"
            )
        budget = self._settings.token_budget
        now = self._lm.score_rows(rows, token_budget=budget, temperature=self._temperature)
        before = self._reference.score_rows(rows, token_budget=budget, temperature=self._temperature)
        return [now_T - before_T for now_T, before_T in zip(now, before, strict=True)]

    @on_every_rank
    def copy_as_reference(self) -> None:
        """Keep the weights at hand as what `reference_logprobs` computes from."""
        if self._copy is not None:
            copy_weights(self._lm, self._copy)

    @on_every_rank
    def reference_logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens by the copy that was kept last.

        Raises:
            SettingsError: none is kept.
        """
        if self._copy is None:
            raise SettingsError("no copy of the policy is kept: trainer.reference_every")
        return self._copy.score_rows(rows, token_budget=self._settings.token_budget, temperature=self._temperature)

    @on_every_rank
    def update(self, batch: PolicyBatch, *, seed: int, lr: float | None = None) -> UpdateMetrics:
        """Take `mini_batches` optimiser steps on the batch, at the rate `lr`; `seed` deals the rows out to them.

        With one step the policy is its own old policy, so no separate pass for old log-probs is made.
        """
        old = batch.old_logprobs
        if old is None and self._settings.mini_batches > 1:
            old = self.logprobs(batch.rows)
        reference = None
        if self._reference is not None and self._loss.kl_coef > 0:
            budget = self._settings.token_budget
            reference = self._reference.score_rows(batch.rows, token_budget=budget, temperature=self._temperature)
        dealt = torch.randperm(len(batch.rows), generator=torch.Generator().manual_seed(seed)).tolist()
        sums = torch.zeros(9, dtype=torch.float64)
        norms = []
        for part in _parts(dealt, self._settings.mini_batches):
            part_sums, norm = self._one_step(batch, sorted(part), old, reference, lr)
            sums += part_sums
            norms.append(norm)
        num_tokens = sum(len(row.written) for row in batch.rows)
        _, entropy, clipped, kl, gap, importance, sampler_kl, reference_kl, _ = (sums / num_tokens).tolist()
        finite = [norm for norm in norms if math.isfinite(norm)]
        give_back_freed()
        if len(finite) < len(norms):
            _log.warning("a gradient was not finite; its step was left out", skipped=len(norms) - len(finite))
        return UpdateMetrics(
            loss=float(sums[0]) / len(norms),
            grad_norm=sum(finite) / max(len(finite), 1),
            skipped=len(norms) - len(finite),
            entropy=entropy,
            clipped_share=clipped,
            kl_to_old=kl,
            sampler_gap=gap,
            mean_importance=importance,
            sampler_kl=sampler_kl,
            kl_to_reference=reference_kl,
            router_balance=float(sums[8]) / len(batch.rows),
        )

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained, and the weights stay what they are."""
        return self._lm.compute.lora_rank > 0

    @on_every_rank
    def weights(
        self, dtype: str, *, on_cpu: bool = True, merged: bool = True
    ) -> tuple[list[tuple[str, Tensor]], list[TensorAlias]]:
        """Copies of all weights in the dtype of the replicas, and which of them have two names.

        Adapters are added in, in float32, unless they are to stay apart (not `merged`).
        Rank 0 has them, on the CPU or where the policy is; the others only help to put them together.
        """
        aliases = [TensorAlias(name=name, of=of) for name, of in self._lm.tied_names.items()]
        skipped = self._lm.tied_names.keys()
        named = ((name, tensor) for name, tensor in self._lm.named_tensors(merged=merged) if name not in skipped)
        if not self.world.is_leader:
            for _ in named:
                pass
            return [], aliases
        return as_pushed(named, dtype, "cpu" if on_cpu else self._lm.device), aliases

    @on_every_rank
    def probe_logprobs(self, ids: tuple[int, ...]) -> tuple[float, ...]:
        """Log-prob of each token after the first, at temperature 1."""
        probe = TokenRow(prompt_ids=ids[:1], response_ids=ids[1:])
        (logprobs_T,) = self._lm.score_rows([probe], token_budget=self._settings.token_budget)
        return tuple(logprobs_T.tolist())

    def plain_logprobs(self, ids: tuple[int, ...], named: Mapping[str, Tensor]) -> tuple[float, ...]:
        """As `probe_logprobs`, by transformers alone with these copies of the weights; on rank 0 alone."""
        return plain_logprobs(self._folder, named, ids)

    @on_every_rank
    def begin_save(self, folder: Path) -> Snapshot:
        """Copy what will lie under `folder`, to be written while training goes on; a copy kept as reference at once."""
        if self._copy is not None:
            save_model(self._copy, self.tokenizer, folder / REFERENCE_FOLDER)
        return Snapshot(
            self._lm,
            self._optimiser,
            self.tokenizer,
            model_folder=folder / MODEL_FOLDER,
            state_folder=folder / STATE_FOLDER,
            facts={},
        )

    @on_every_rank
    def restore(self, folder: Path) -> None:
        """Go back to what was saved under `folder`, by any number of ranks."""
        load_weights(self._lm, folder / MODEL_FOLDER)
        load_training_state(self._lm, self._optimiser, folder / STATE_FOLDER)
        if self._copy is not None:
            load_weights(self._copy, folder / REFERENCE_FOLDER)

    def _one_step(
        self,
        batch: PolicyBatch,
        numbers: Sequence[int],
        old: Sequence[Tensor] | None,
        reference: Sequence[Tensor] | None,
        lr: float | None,
    ) -> tuple[Tensor, float]:
        """One optimiser step on the rows with these numbers; sums over their tokens, and the gradient norm."""
        rows = [batch.rows[number] for number in numbers]
        num_tokens = sum(len(row.written) for row in rows)
        sums = torch.zeros(9, dtype=torch.float64)
        self._optimiser.clear()
        for pack in self._lm.packs(rows, token_budget=self._settings.token_budget):
            chosen = self._lm.logprobs(pack, temperature=self._temperature, routers=self._balances)
            logprobs_N = chosen.logprobs_N
            old_N = logprobs_N.detach() if old is None else self._gather(old, numbers, pack)
            sampler_N = self._gather(batch.sampler_logprobs, numbers, pack)
            lengths_B = torch.tensor(pack.response_lengths, device=old_N.device, dtype=torch.long)
            shares_N = token_shares(
                lengths_B, mean=self._loss.mean, num_tokens=num_tokens, num_rows=len(rows), longest=self._longest
            )
            weights_N = self._importance(old_N, sampler_N, lengths_B)
            advantages_N = self._gather(batch.advantages, numbers, pack)
            result = self._policy_loss(logprobs_N, old_N, advantages_N, shares_N * weights_N, lengths_B)
            loss, reference_kl_N = result.loss, torch.zeros_like(old_N)
            if reference is not None:
                reference_kl_N = divergence(logprobs_N, self._gather(reference, numbers, pack))
                loss = loss + self._loss.kl_coef * (reference_kl_N * shares_N).sum()
            if self._loss.entropy_coef:
                loss = loss - self._loss.entropy_coef * (chosen.entropy_N * shares_N).sum()
            balance_B = torch.zeros(len(lengths_B), device=old_N.device)
            if self._balances:
                balance_B = _balance(chosen.routers, lengths_B, top_k=self._lm.experts_per_token)
                loss = loss + self._loss.router_coef * balance_B.sum() / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            sums += torch.stack(
                [
                    loss.detach(),
                    chosen.entropy_N.detach().sum(),
                    result.clipped,
                    result.kl,
                    (old_N - sampler_N).abs().sum(),
                    weights_N.sum(),
                    divergence(sampler_N, old_N).sum(),
                    reference_kl_N.detach().sum(),
                    balance_B.detach().sum(),
                ]
            ).cpu()
        return self.world.sum(sums), self._optimiser.step(lr=lr)

    def _importance(self, old_N: Tensor, sampler_N: Tensor, lengths_B: Tensor) -> Tensor:
        if not self._is_weighted:
            return torch.ones_like(old_N)
        cap, kind = self._loss.importance_cap, self._loss.importance_kind
        return importance_weights(old_N, sampler_N, cap=cap, kind=kind, lengths_B=lengths_B)

    def _policy_loss(
        self, logprobs_N: Tensor, old_N: Tensor, advantages_N: Tensor, shares_N: Tensor, lengths_B: Tensor
    ) -> PolicyLoss:
        loss = self._loss
        bounds = (loss.clip, loss.clip_high or loss.clip)
        if loss.kind == "cispo":
            return cispo_policy_loss(logprobs_N, old_N, advantages_N, shares_N=shares_N, bounds=bounds)
        return clipped_policy_loss(
            logprobs_N,
            old_N,
            advantages_N,
            shares_N=shares_N,
            bounds=bounds,
            dual_clip=loss.dual_clip or None,
            lengths_B=lengths_B if loss.kind == "gspo" else None,
        )

    def _gather(self, by_row: Sequence[Tensor], numbers: Sequence[int], pack: Pack) -> Tensor:
        """Per-row tensors laid end to end in the pack's order, on the model's device."""
        parts = [by_row[numbers[index]] for index in pack.rows]
        return torch.cat(parts).to(self._lm.device) if parts else torch.zeros(0, device=self._lm.device)


def _balance(routers: Sequence[Tensor], lengths_B: Tensor, *, top_k: int) -> Tensor:
    """The mean over layers of each row's balance loss. [B]."""
    return torch.stack([load_balance(logits_NE, lengths_B, top_k=top_k) for logits_NE in routers]).mean(dim=0)


def _parts(numbers: Sequence[int], count: int) -> list[Sequence[int]]:
    """`count` parts of nearly equal size, none empty."""
    count = min(count, len(numbers))
    bounds = [len(numbers) * part // count for part in range(count + 1)]
    return [numbers[start:end] for start, end in itertools.pairwise(bounds)]
