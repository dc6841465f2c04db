"""Step 7 of the loop: from outcomes and token rewards to the advantage of every token.

token rewards ──► bounds ──► what a step is worth ──► scale ──► both sources against their baselines ──► trust, sum
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prime.data.judged_steps import judged_steps
from prime.data.prompts import TokenTexts, step_ends
from prime.lm.packing import TokenRow, pad_rows
from prime.maths import advantages
from prime.maths.prm_diagnostics import end_token_share, pair_agreement, shuffled_within_rows, step_auc
from prime.maths.rewards import (
    bounded_rewards,
    last_tokens,
    min_form,
    normalise_rewards,
    overlong_penalties,
    rewards_at_ends,
    root_mean_square_return,
    value_differences_at_ends,
)
from prime.types import GradedGroup, TokenRewards
from services.trainer.batch import outcomes_of, token_rows
from services.trainer.settings import AdvantageSettings
from services.trainer.track_record import TrackRecord

_CHANCE = 0.5


class CreditAssigner:
    """Holds what the token rewards have shown so far (`record`), which a checkpoint keeps."""

    def __init__(
        self, settings: AdvantageSettings, *, tokenizer: Any, longest: int, record: TrackRecord | None = None
    ) -> None:
        """`longest`: tokens that a response may have."""
        self.record = record or TrackRecord()
        self._settings = settings
        self._tokenizer = tokenizer
        self._text_of = TokenTexts(tokenizer)
        self._longest = longest

    def assign(
        self, groups: Sequence[GradedGroup], rewards: TokenRewards | None
    ) -> tuple[list[Tensor], Mapping[str, float]]:
        """Advantages per response token, one tensor per row, and figures about the rewards.

        `rewards=None` (no PRM) is the same as token rewards of 0.
        """
        settings, rows = self._settings, token_rows(groups)
        zeros = [(0.0,) * len(row.written) for row in rows]
        rewards_BT, mask_BT = pad_rows(rewards.rows if rewards is not None else zeros)
        outcomes_B = torch.tensor(outcomes_of(groups))
        is_right_B = outcomes_B > _CHANCE
        group_B = torch.tensor([number for number, graded in enumerate(groups) for _ in graded.group.samples])
        figures = {"reward/largest_token": float(rewards_BT.abs().max())}
        figures["reward/mean_response"] = float(rewards_BT.sum(dim=1).mean())
        trust = 1.0
        if rewards is not None:
            figures |= self._diagnose(groups, rewards_BT, mask_BT)
            trust = self._trust(rewards_BT, outcomes_B, mask_BT, group_B)
            figures["reward/trust"] = trust
        worth_BT = self._scaled(self._worth(rows, rewards_BT, mask_BT), mask_BT)
        if settings.overlong_window:
            lengths_B = mask_BT.sum(dim=1)
            penalties_B = overlong_penalties(lengths_B, longest=self._longest, window=settings.overlong_window)
            outcomes_B = outcomes_B + penalties_B
            figures["reward/overlong"] = float(penalties_B.mean())
        process_BT, outcome_B = self._sources(worth_BT, outcomes_B, mask_BT, group_B)
        if settings.process_on != "all":
            process_BT = process_BT.where((is_right_B == (settings.process_on == "right"))[:, None], torch.zeros(()))
        combine = advantages.combine_apart if settings.combine == "apart" else advantages.combine
        coefs = {"process_coef": trust * settings.process_coef, "outcome_coef": settings.outcome_coef}
        raw_BT = combine(process_BT, outcome_B, mask_BT, **coefs)
        figures["advantage/std_before_whitening"] = float(raw_BT[mask_BT].std(correction=0))
        final_BT = advantages.whiten(raw_BT, mask_BT) if settings.whiten else raw_BT
        if settings.shared_prefix_correction:
            ids_BT = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.written_ids) for row in rows], batch_first=True)
            final_BT = final_BT / advantages.shared_prefix_counts(ids_BT, mask_BT, group_B)
        return [final_BT[number, : len(row.written)] for number, row in enumerate(rows)], figures

    def _worth(self, rows: Sequence[TokenRow], rewards_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What each step is worth, on its last token."""
        settings = self._settings
        if settings.bound != "none":
            rewards_BT = bounded_rewards(rewards_BT, limit=settings.bound_at, kind=settings.bound)
        ends_BT = mask_BT if settings.granularity == "token" else self._marked_ends(rows, mask_BT)
        if settings.step_worth == "difference":
            rewards_BT = value_differences_at_ends(rewards_BT, ends_BT, mask_BT)
        elif settings.granularity != "token":
            rewards_BT = rewards_at_ends(rewards_BT, ends_BT, mask_BT)
        if settings.credit == "min":
            ends_BT = ends_BT | last_tokens(mask_BT)
            rewards_BT = min_form(rewards_BT, ends_BT, temperature=settings.min_temperature)
        return rewards_BT

    def _scaled(self, rewards_BT: Tensor, mask_BT: Tensor) -> Tensor:
        settings = self._settings
        if settings.reward_norm == "batch":
            return normalise_rewards(rewards_BT, mask_BT)
        if settings.reward_norm == "running":
            size = root_mean_square_return(rewards_BT, mask_BT)
            self.record = self.record.with_scale(size, memory=settings.trust.memory)
            return rewards_BT / self.record.scale if self.record.scale else rewards_BT
        return rewards_BT

    def _trust(self, rewards_BT: Tensor, outcomes_B: Tensor, mask_BT: Tensor, group_B: Tensor) -> float:
        """How much the process advantage counts: what the rewards have shown on groups that the PRM had not learnt."""
        settings = self._settings
        scores_B = rewards_BT.sum(dim=1)
        if settings.step_worth == "difference":
            scores_B = scores_B / mask_BT.sum(dim=1)
        agreeing, pairs = pair_agreement(scores_B, outcomes_B, group_B)
        self.record = self.record.with_pairs(agreeing, pairs, memory=settings.trust.memory)
        if not settings.trust.enabled:
            return 1.0
        shown = (self.record.pair_accuracy - _CHANCE) / (settings.trust.full_at - _CHANCE)
        return min(max(shown, settings.trust.floor), settings.trust.ceiling)

    def _sources(
        self, rewards_BT: Tensor, outcomes_B: Tensor, mask_BT: Tensor, group_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Process and outcome advantages, not yet added."""
        gamma = self._settings.gamma
        match self._settings.estimator:
            case "rloo":
                return advantages.rloo(rewards_BT, outcomes_B, mask_BT, group_B, gamma=gamma)
            case "grpo":
                return advantages.grpo(rewards_BT, outcomes_B, mask_BT, group_B, gamma=gamma)
            case "spro":
                return advantages.spro(rewards_BT, outcomes_B, mask_BT, group_B)
            case "reinforce":
                return advantages.reinforce(rewards_BT, outcomes_B, mask_BT, gamma=gamma)

    def _marked_ends(self, rows: Sequence[TokenRow], mask_BT: Tensor) -> Tensor:
        settings = self._settings
        ends_BT = torch.zeros_like(mask_BT)
        for number, row in enumerate(rows):
            if settings.granularity == "step":
                ends = step_ends(row.written_ids, self._text_of, settings.step_delimiter)
                ends_BT[number, ends] = True
            elif settings.granularity == "turn":
                ends_BT[number, _turn_ends(row)] = True
        return ends_BT

    def _diagnose(self, groups: Sequence[GradedGroup], rewards_BT: Tensor, mask_BT: Tensor) -> dict[str, float]:
        """Figures of the rewards as the PRM gave them."""
        figures = {"reward/end_token_share": end_token_share(rewards_BT, mask_BT)}
        places, is_right = self._known_steps(groups)
        if is_right:
            shuffled_BT = shuffled_within_rows(rewards_BT, mask_BT, torch.Generator().manual_seed(0))
            right_S, places_S3 = torch.tensor(is_right), torch.tensor(places)
            auc, of_shuffled = (
                step_auc(_sums_at(each_BT, places_S3), right_S) for each_BT in (rewards_BT, shuffled_BT)
            )
            figures |= {"reward/step_auc": auc, "reward/step_auc_over_shuffled": auc - of_shuffled}
        return figures

    def _known_steps(self, groups: Sequence[GradedGroup]) -> tuple[list[tuple[int, int, int]], list[bool]]:
        """Of tasks that know it: row, first and end token of each step up to the first error, and which are right."""
        places: list[tuple[int, int, int]] = []
        is_right: list[bool] = []
        row = 0
        for graded in groups:
            for sample in graded.group.samples:
                if self._tokenizer is not None and not sample.observed:
                    for step in judged_steps(graded.group.prompt_ids, self._text_of, sample.response_ids):
                        places.append((row, step.start, step.end))
                        is_right.append(step.is_right)
                row += 1
        return places, is_right


def _sums_at(rewards_BT: Tensor, places_S3: Tensor) -> Tensor:
    """Sum of each place: row, first and end token. [S]."""
    before_BT = torch.nn.functional.pad(rewards_BT.cumsum(dim=1), (1, 0))
    row_S, start_S, end_S = places_S3.unbind(dim=1)
    return before_BT[row_S, end_S] - before_BT[row_S, start_S]


def _turn_ends(row: TokenRow) -> list[int]:
    """Among the written tokens, those after which something was read."""
    jumps = itertools.pairwise(row.written)
    return [number for number, (place, following) in enumerate(jumps) if following > place + 1]
