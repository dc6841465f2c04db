"""The implicit PRM: a trainable causal LM against a reference. The one file of this service that holds weights.

Token reward: `beta * (log pi_prm - log pi_ref)` (PRIME eq. 3). Learning: the sum of a response's token rewards is
the logit of its outcome (CE), or orders it within its group (DPO), or the mean of the rewards of every prefix is the
logit of the outcome (`prefix`, IPVRM).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import torch
from torch import Tensor

from prime.data.prm_config import read_prm_config
from prime.errors import CheckpointError, InvalidInput, SettingsError, TokenizerMismatch
from prime.lm.adapters import is_adapter_folder
from prime.lm.checkpoint import Snapshot, load_training_state, load_weights
from prime.lm.compute import Compute
from prime.lm.memory import give_back_freed
from prime.lm.model import CausalLM, load_tokenizer, pick_device, tokenizer_fingerprint
from prime.lm.packing import TokenRow
from prime.lm.training import Optimiser
from prime.lm.world import World, on_every_rank
from prime.maths.prm_diagnostics import calibration_error, pair_accuracy
from prime.maths.prm_losses import (
    cross_entropy,
    difficulty_shifts,
    label_weights,
    pairwise_dpo,
    prefix_cross_entropy,
    prefix_values,
    response_logits,
)
from prime.maths.rewards import token_rewards
from prime.scoring import PrmKind
from prime.types import PrmGroup, PrmMetrics, ReferenceSource
from services.prm.recent_logprobs import RecentLogprobs
from services.prm.reference_cache import ReferenceCache
from services.prm.reward import IsWanted, ScoredRows
from services.prm.settings import PrmSettings

_log = structlog.get_logger()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
REFERENCE_SOURCES = {
    "freeze": ReferenceSource.MODEL,
    "policy": ReferenceSource.SUPPLIED,
    "none": ReferenceSource.NONE,
}
MODEL_FOLDER, STATE_FOLDER = "prm", "prm_state"
# Several batches of the paper's size; about 50 bytes a token.
_RECENT_TOKENS = 4_000_000


class ImplicitPrm:
    """Weights, reference and optimiser, on every rank. Not safe for concurrent use: `reward.py` lets one call in at a
    time."""

    kind = PrmKind.IMPLICIT

    def __init__(self, settings: PrmSettings, *, start: Path, world: World | None = None) -> None:
        """Load the PRM from `settings.model` or `start`, and its reference.

        Raises:
            CheckpointError: a folder holds no model.
            TokenizerMismatch: PRM and reference do not share a tokenizer.
            SettingsError: weights in bfloat16 are to be trained.
        """
        if not settings.frozen:
            _refuse_what_is_only_served(settings, settings.model or start)
        self._settings = settings
        self.world = world or World()
        self._start = settings.model or start
        self.tokenizer = load_tokenizer(self._start)
        self.fingerprint = tokenizer_fingerprint(self.tokenizer)
        self.config = read_prm_config(self._start)
        if self.config.step_mark or self.config.closing:
            raise CheckpointError(
                f"{self._start}: step_mark and closing in prm_config.json are of heads, and it is a causal LM"
            )
        if settings.beta is not None:
            self.config = replace(self.config, beta=settings.beta)
        self.beta = self.config.beta
        self._device = pick_device(settings.device)
        compute = Compute.on(self._device, **settings.compute.model_dump())
        if settings.frozen:
            compute = Compute(dtype=compute.dtype if self.world.size > 1 else "float32")
        self._lm = self._load(self._start, compute)
        if self._lm.slow_because and self.world.is_leader:
            _log.warning("rows are computed one by one", because=self._lm.slow_because)
        self._optimiser = None if settings.frozen else self._fresh_optimiser()
        self._reference: CausalLM | None = None
        self.reference_id: str = settings.reference_mode
        if settings.reference_mode == "freeze":
            folder = settings.reference or self._start
            if tokenizer_fingerprint(load_tokenizer(folder)) != self.fingerprint:
                raise TokenizerMismatch(f"PRM {self._start} and reference {folder} do not share one tokenizer")
            # Computed like the PRM, so that equal weights give equal bits; but it has no gradients to save room for.
            self._reference = self._load(folder, Compute(dtype=compute.dtype, offload=compute.offload))
            self.reference_id = self._reference.digest()
        self._frozen: CausalLM | None = None
        if settings.watch_frozen and not settings.frozen:
            self._frozen = self._load(self._start, Compute(dtype=compute.dtype, offload=compute.offload))
        self._cache = ReferenceCache(capacity_bytes=settings.reference_cache_mib * 2**20)
        # Of one that is served the version tells how much it has learnt; of one that learns, how much in this run.
        self.version = int(self.config.trained_with.get("updates", 0)) if settings.frozen else 0
        self._recent = RecentLogprobs(capacity_tokens=_RECENT_TOKENS)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the PRM reads."""
        return self._lm.max_positions

    @property
    def scores_side_by_side(self) -> bool:
        """Whether two passes may be under way: not where ranks meet in each pass, nor where one changes the module."""
        return self.world.size == 1 and not self._lm.is_sharded and not self._lm.changes_as_it_reads

    @on_every_rank
    def score(
        self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
    ) -> ScoredRows:
        """Token rewards of every sample, rows of all groups in order.

        With `reuse`, the reference is not asked again for what it said of a row in an earlier call. That may differ in
        the last bits from what it would say in this batch, so training, which repeats to the bit, does without.

        Raises:
            InvalidInput: a group names a reference that is not there.
            TookTooLong: `is_wanted` said between two passes that nobody waits any more.
        """
        if reuse:
            references, cached = self._references(groups, self._cache, is_wanted)
            own = self._score_rows(_rows(groups), is_wanted)
        else:
            own, references = self._logprobs(groups, is_wanted)
            cached = [False] * len(own)
        pairs = zip(own, references, strict=True)
        return ScoredRows(
            rewards=[token_rewards(mine, theirs, beta=self.beta).tolist() for mine, theirs in pairs],
            reference_cached=cached,
        )

    @on_every_rank
    def learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Take `mini_batches` optimiser steps towards the outcomes.

        Loss and pair accuracy are those of the PRM as it came in, over the whole batch.

        Raises:
            InvalidInput: not one outcome in [0, 1] per sample.
        """
        if self._optimiser is None:
            raise InvalidInput("this PRM is frozen (prm.frozen): it scores, and learns nothing")
        rows = _rows(groups)
        outcomes_B = torch.tensor(outcomes, dtype=torch.float32)
        if len(outcomes) != len(rows) or not bool(((outcomes_B >= 0) & (outcomes_B <= 1)).all()):
            raise InvalidInput(f"{len(rows)} samples need one outcome in [0, 1] each; got {len(outcomes)}")
        group_B = _group_numbers(groups)
        own, references = self._logprobs(groups)
        ratios = _ratios(own, references)
        logits_B = self._logits(ratios)
        with torch.no_grad():
            loss = self._batch_loss(ratios, outcomes_B, group_B)
        norms: list[float] = []
        for part_B in _whole_group_parts(group_B, self._settings.mini_batches):
            part = part_B.tolist()
            part_rows = [rows[number] for number in part]
            # Before the first step the weights are those that gave `ratios`.
            mine = self._score_rows(part_rows) if norms else [own[number] for number in part]
            before = _ratios(mine, [references[number] for number in part])
            norms.append(self._step(self._optimiser, part_rows, before, outcomes_B[part_B], group_B[part_B]))
        self.version += 1
        give_back_freed()
        expected_B = logits_B + difficulty_shifts(outcomes_B, group_B) if self._settings.shift else logits_B
        return PrmMetrics(
            prm_version=self.version,
            loss=float(loss),
            grad_norm=sum(norms) / len(norms),
            pair_accuracy=pair_accuracy(logits_B, outcomes_B, group_B),
            mean_logit=float(logits_B.mean()),
            calibration_error=calibration_error(expected_B, outcomes_B),
            frozen_pair_accuracy=self._frozen_pair_accuracy(rows, references, outcomes_B, group_B),
        )

    @on_every_rank
    def begin_save(self, folder: Path) -> Snapshot:
        """Copy what will lie under `folder`, to be written while other calls go on.

        Raises:
            InvalidInput: the PRM is frozen.
        """
        if self._optimiser is None:
            raise InvalidInput("this PRM is frozen (prm.frozen): it never differs from the folder that it came from")
        trained_with = {"loss": self._settings.loss, "reference": self.reference_id, "updates": self.version}
        config = replace(self.config, trained_with=trained_with)
        return Snapshot(
            self._lm,
            self._optimiser,
            self.tokenizer,
            model_folder=folder / MODEL_FOLDER,
            state_folder=folder / STATE_FOLDER,
            facts={"version": self.version},
            prm_config=config,
        )

    @on_every_rank
    def restore(self, folder: Path | None) -> None:
        """Go back to what `save` wrote under `folder`; None: to the start.

        Raises:
            CheckpointError: it is not there.
            InvalidInput: the PRM is frozen.
        """
        if self._optimiser is None:
            raise InvalidInput("this PRM is frozen (prm.frozen): there is nothing to go back to")
        self._recent.clear()
        load_weights(self._lm, self._start if folder is None else folder / MODEL_FOLDER)
        self._optimiser = self._fresh_optimiser()
        self.version = 0
        if folder is not None:
            self.version = int(load_training_state(self._lm, self._optimiser, folder / STATE_FOLDER)["version"])

    def _fresh_optimiser(self) -> Optimiser:
        return Optimiser(self._lm, lr=self._settings.lr, grad_clip=self._settings.grad_clip)

    def _step(
        self,
        optimiser: Optimiser,
        rows: Sequence[TokenRow],
        ratios: Sequence[Tensor],
        outcomes_B: Tensor,
        group_B: Tensor,
    ) -> float:
        """One optimiser step whose gradient does not depend on how rows fall into packs.

        The loss is a function of the tokens' log-ratios, and may couple rows (DPO). So its gradient towards them is
        taken first, over the whole mini-batch, and then carried through each pack.
        """
        self._recent.clear()
        optimiser.clear()
        leaves = [ratio_T.detach().requires_grad_() for ratio_T in ratios]
        towards = torch.autograd.grad(self._batch_loss(leaves, outcomes_B, group_B), leaves)
        for pack in self._lm.packs(rows, token_budget=self._settings.token_budget):
            logprobs_N = self._lm.logprobs(pack).logprobs_N
            parts = [towards[number] for number in pack.rows]
            towards_N = torch.cat(parts) if parts else torch.zeros(0)
            (logprobs_N @ towards_N.to(logprobs_N.device)).backward()  # type: ignore[no-untyped-call]
        return optimiser.step()

    def _logprobs(
        self, groups: Sequence[PrmGroup], is_wanted: IsWanted | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Log-probs of the PRM and of the reference, a tensor per row.

        Kept by group until the weights change: Learn comes soon after Score, which may have come in parts.
        """
        missing = [group for group in groups if group not in self._recent]
        own = iter(self._score_rows(_rows(missing), is_wanted))
        references = iter(self._references(missing, None, is_wanted)[0])
        for group in missing:
            self._recent.add(group, [(next(own), next(references)) for _ in group.responses])
        pairs = self._recent.of(groups)
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _score_rows(self, rows: Sequence[TokenRow], is_wanted: IsWanted | None = None) -> list[Tensor]:
        return self._lm.score_rows(rows, token_budget=self._settings.token_budget, is_wanted=is_wanted or _always)

    def _logits(self, ratios: Sequence[Tensor]) -> Tensor:
        """What each response's outcome is judged by: its sum, or with the prefix loss the mean up to its end. [B]."""
        ratios_N, lengths_B = _end_to_end(ratios)
        logits_B = response_logits(ratios_N, lengths_B, beta=self.beta)
        return logits_B / lengths_B if self._settings.loss == "prefix" else logits_B

    def _batch_loss(self, ratios: Sequence[Tensor], outcomes_B: Tensor, group_B: Tensor) -> Tensor:
        """Mean loss per response, or per pair of them. Scalar."""
        settings = self._settings
        ratios_N, lengths_B = _end_to_end(ratios)
        if settings.loss == "dpo":
            return pairwise_dpo(response_logits(ratios_N, lengths_B, beta=self.beta), outcomes_B, group_B)
        weights_B = label_weights(outcomes_B, group_B) if settings.balance else torch.ones_like(outcomes_B)
        shifts_B = difficulty_shifts(outcomes_B, group_B) if settings.shift else torch.zeros_like(outcomes_B)
        if settings.loss == "ce":
            logits_B = response_logits(ratios_N, lengths_B, beta=self.beta)
            total = cross_entropy(logits_B, outcomes_B, margin=settings.margin, shifts=shifts_B, weights=weights_B)
        else:
            total = prefix_cross_entropy(
                prefix_values(ratios_N, lengths_B, beta=self.beta),
                outcomes_B,
                lengths_B,
                emphasis=settings.prefix_emphasis,
                margin=settings.margin,
                shifts_B=shifts_B,
                weights_B=weights_B,
            )
        return total / len(outcomes_B)

    def _frozen_pair_accuracy(
        self, rows: Sequence[TokenRow], references: Sequence[Tensor], outcomes_B: Tensor, group_B: Tensor
    ) -> float | None:
        """What the PRM would have, had it learnt nothing since the run began; None where no such copy is kept."""
        if self._frozen is None:
            return None
        own = self._frozen.score_rows(rows, token_budget=self._settings.token_budget)
        return pair_accuracy(self._logits(_ratios(own, references)), outcomes_B, group_B)

    def _references(
        self, groups: Sequence[PrmGroup], cache: ReferenceCache | None, is_wanted: IsWanted | None = None
    ) -> tuple[list[Tensor], list[bool]]:
        """Reference log-probs of every row from wherever its group takes them, and whether they were in the cache."""
        known = [logprobs_T for group in groups for logprobs_T in self._known_references(group, cache)]
        open_rows = [row for row, logprobs_T in zip(_rows(groups), known, strict=True) if logprobs_T is None]
        answers = iter(self._ask_reference(open_rows, cache, is_wanted))
        cached = [
            self._source(group) is ReferenceSource.MODEL and logprobs_T is not None
            for group, logprobs_T in zip(_group_of_each_row(groups), known, strict=True)
        ]
        return [next(answers) if logprobs_T is None else logprobs_T for logprobs_T in known], cached

    def _known_references(self, group: PrmGroup, cache: ReferenceCache | None) -> list[Tensor | None]:
        """Those that the reference model need not be asked for; None where it must be."""
        match self._source(group):
            case ReferenceSource.NONE:
                return [torch.zeros(len(row.written)) for row in _rows([group])]
            case ReferenceSource.SUPPLIED:
                return [torch.tensor(row) for row in group.reference_logprobs]
            case ReferenceSource.MODEL:
                return [cache.get(row) if cache is not None else None for row in _rows([group])]

    def _source(self, group: PrmGroup) -> ReferenceSource:
        source = group.reference or REFERENCE_SOURCES[self._settings.reference_mode]
        if source is ReferenceSource.MODEL and self._reference is None:
            raise InvalidInput(
                "no reference model is loaded (setting prm.reference_mode); supply log-probs, or ask for none"
            )
        if source is ReferenceSource.SUPPLIED and not group.reference_logprobs:
            raise InvalidInput(
                f"group {group.group_id!r} must bring its reference log-probs and has none; prm.reference_mode is "
                f"{self._settings.reference_mode!r}"
            )
        return source

    def _ask_reference(
        self, rows: Sequence[TokenRow], cache: ReferenceCache | None, is_wanted: IsWanted | None
    ) -> list[Tensor]:
        if not rows or self._reference is None:
            return []
        answers = self._reference.score_rows(
            rows, token_budget=self._settings.token_budget, is_wanted=is_wanted or _always
        )
        if cache is not None:
            for row, logprobs_T in zip(rows, answers, strict=True):
                cache.put(row, logprobs_T)
        return answers

    def _load(self, folder: Path, compute: Compute) -> CausalLM:
        dtype = DTYPES[self._settings.dtype]
        return CausalLM(folder, device=self._device, dtype=dtype, compute=compute, world=self.world)


def _refuse_what_is_only_served(settings: PrmSettings, folder: Path) -> None:
    if settings.dtype != "float32":
        raise SettingsError(f"prm.dtype = {settings.dtype!r} is for serving: set prm.frozen, or keep float32")
    if settings.reference_mode == "none":
        raise SettingsError("prm.reference_mode = 'none' is for serving: a PRM is learnt against a reference")
    if is_adapter_folder(folder):
        raise SettingsError(f"{folder} holds LoRA adapters, which are served and not trained on: set prm.frozen")


def _always() -> bool:
    return True


def _ratios(own: Sequence[Tensor], references: Sequence[Tensor]) -> list[Tensor]:
    return [mine_T.float() - theirs_T.float() for mine_T, theirs_T in zip(own, references, strict=True)]


def _end_to_end(ratios: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """([N], [B]): all rows' tokens, and how many each row has."""
    return torch.cat(list(ratios)), torch.tensor([len(ratio_T) for ratio_T in ratios])


def _rows(groups: Sequence[PrmGroup]) -> list[TokenRow]:
    return [
        TokenRow(prompt_ids=group.prompt_ids, response_ids=response, observed=observed)
        for group in groups
        for response, observed in zip(group.responses, group.observed_rows, strict=True)
    ]


def _group_of_each_row(groups: Sequence[PrmGroup]) -> list[PrmGroup]:
    return [group for group in groups for _ in group.responses]


def _group_numbers(groups: Sequence[PrmGroup]) -> Tensor:
    return torch.tensor([number for number, group in enumerate(groups) for _ in group.responses])


def _whole_group_parts(group_B: Tensor, count: int) -> list[Tensor]:
    """Row numbers of up to `count` parts of about equally many groups, none split."""
    groups = torch.unique(group_B)
    return [torch.isin(group_B, part).nonzero().squeeze(1) for part in torch.chunk(groups, count)]
