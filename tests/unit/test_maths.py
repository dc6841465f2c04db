"""The algorithm's invariants and hand-worked examples. "Defect N" points at the reference code's known defects."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prime.maths import advantages
from prime.maths.filtering import in_band
from prime.maths.logprobs import Tiles, chosen_logprobs
from prime.maths.losses import (
    cispo_policy_loss,
    clipped_policy_loss,
    importance_weights,
    token_shares,
)
from prime.maths.prm_diagnostics import pair_accuracy
from prime.maths.prm_losses import cross_entropy, pairwise_dpo
from prime.maths.rewards import normalise_rewards, overlong_penalties, reverse_cumsum, rewards_at_ends, token_rewards


def _mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def _batch(seed: int, *, groups: int = 3, samples: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = groups * samples
    lengths = torch.randint(1, 9, (rows,), generator=generator).tolist()
    mask_BT = _mask(lengths)
    rewards_BT = torch.randn(mask_BT.shape, generator=generator) * mask_BT
    outcomes_B = torch.randint(0, 2, (rows,), generator=generator).float()
    return rewards_BT, outcomes_B, mask_BT, torch.arange(groups).repeat_interleave(samples)


def _rloo(batch: tuple[Tensor, Tensor, Tensor, Tensor], *, process: float = 1.0, outcome: float = 1.0) -> Tensor:
    rewards_BT, outcomes_B, mask_BT, group_B = batch
    process_BT, outcome_B = advantages.rloo(rewards_BT, outcomes_B, mask_BT, group_B, gamma=1.0)
    raw_BT = advantages.combine(process_BT, outcome_B, mask_BT, process_coef=process, outcome_coef=outcome)
    return advantages.whiten(raw_BT, mask_BT)


# ---------------------------------------------------------------- rewards


def test_the_worked_example_of_the_overlong_penalty_holds() -> None:
    penalties_B = overlong_penalties(torch.tensor([1, 80, 90, 100, 120]), longest=100, window=20)
    assert penalties_B.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_a_prm_equal_to_its_reference_gives_rewards_of_exactly_zero() -> None:
    logprobs_T = torch.randn(5)
    assert token_rewards(logprobs_T, logprobs_T.clone(), beta=0.05).eq(0).all()


def test_token_rewards_sum_to_the_response_reward_with_the_end_token_included() -> None:
    """The last response token has a reward."""
    rewards_T = token_rewards(torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.5, -1.0, -1.5]), beta=0.1)
    torch.testing.assert_close(rewards_T, torch.tensor([0.05, -0.1, 0.1]))
    assert float(rewards_T.sum()) == pytest.approx(0.1 * (-3.5 + 4.0))


def test_whole_granularity_is_the_sum_of_the_token_rewards_on_the_last_token() -> None:
    """The response has one reward, and it is the sum."""
    rewards_BT, _, mask_BT, _ = _batch(0)
    whole_BT = rewards_at_ends(rewards_BT, torch.zeros_like(mask_BT), mask_BT)
    torch.testing.assert_close(whole_BT.sum(dim=1), rewards_BT.sum(dim=1))
    assert (whole_BT != 0).sum(dim=1).le(1).all()


def test_step_granularity_puts_each_steps_sum_on_its_last_token() -> None:
    rewards_BT = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 0.0, 0.0]])
    ends_BT = torch.tensor([[False, True, False, False], [True, False, False, False]])
    expected_BT = torch.tensor([[0.0, 3.0, 0.0, 7.0], [5.0, 6.0, 0.0, 0.0]])
    torch.testing.assert_close(rewards_at_ends(rewards_BT, ends_BT, _mask([4, 2])), expected_BT)


def test_batch_norm_bounds_every_return_by_one_and_leaves_zeros_alone() -> None:
    rewards_BT, _, mask_BT, _ = _batch(1)
    normed_BT = normalise_rewards(100 * rewards_BT, mask_BT)
    assert float(reverse_cumsum(normed_BT).abs().max()) == pytest.approx(1.0, abs=1e-4)
    assert normalise_rewards(torch.zeros(2, 3), _mask([3, 1])).eq(0).all()


@given(st.integers(1, 40), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=40)
def test_discounted_reverse_sums_equal_the_plain_recursion(length: int, gamma: float) -> None:
    values_BT = torch.randn(2, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    expected = torch.zeros(2, dtype=torch.float64)
    out_BT = reverse_cumsum(values_BT, gamma=gamma)
    for position in reversed(range(length)):
        expected = values_BT[:, position] + gamma * expected
        torch.testing.assert_close(out_BT[:, position], expected)


# ---------------------------------------------------------------- advantages


def test_leave_one_out_by_hand() -> None:
    values_B, group_B = torch.tensor([1.0, 0.0, 0.0, 2.0, 4.0]), torch.tensor([7, 7, 7, 3, 3])
    torch.testing.assert_close(
        advantages.leave_one_out_mean(values_B, group_B), torch.tensor([0.0, 0.5, 0.5, 4.0, 2.0])
    )


def test_process_advantages_by_hand_with_a_length_averaged_baseline() -> None:
    """Rewards (1, 2) and (3): baselines are 3 and 1.5, centred (-2, -1) and (1.5)."""
    rewards_BT, mask_BT = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), _mask([2, 1])
    out_BT = advantages.process_advantages(rewards_BT, mask_BT, torch.tensor([0, 0]), gamma=0.5)
    torch.testing.assert_close(out_BT, torch.tensor([[-2.5, -1.0], [1.5, 0.0]]))


def test_one_sample_per_prompt_is_refused() -> None:
    """K = 1 divides by zero."""
    with pytest.raises(ValueError, match="at least 2 samples"):
        advantages.leave_one_out_mean(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))


def test_without_process_rewards_advantages_equal_plain_outcome_rloo() -> None:
    rewards_BT, outcomes_B, mask_BT, group_B = _batch(2)
    ours_BT = _rloo((torch.zeros_like(rewards_BT), outcomes_B, mask_BT, group_B))
    plain_B = advantages.outcome_advantages(outcomes_B, group_B)
    plain_BT = torch.where(mask_BT, plain_B[:, None], 0.0)
    torch.testing.assert_close(ours_BT, advantages.whiten(plain_BT, mask_BT))


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_row_order_changes_no_advantage(seed: int) -> None:
    """Defects 1 and 2: groups go by number, never by position."""
    rewards_BT, outcomes_B, mask_BT, group_B = _batch(seed)
    order_B = torch.randperm(len(outcomes_B), generator=torch.Generator().manual_seed(seed))
    shuffled_BT = _rloo((rewards_BT[order_B], outcomes_B[order_B], mask_BT[order_B], group_B[order_B]))
    torch.testing.assert_close(shuffled_BT, _rloo((rewards_BT, outcomes_B, mask_BT, group_B))[order_B])


def test_only_the_ratio_of_the_coefficients_matters() -> None:
    batch = _batch(4)
    torch.testing.assert_close(_rloo(batch, process=5.0, outcome=5.0), _rloo(batch))
    assert not torch.allclose(_rloo(batch, process=5.0, outcome=1.0), _rloo(batch))


def test_whitening_uses_the_tokens_of_the_whole_batch_and_nothing_else() -> None:
    values_BT, mask_BT = torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0]]), _mask([2, 1])
    mask_BT = torch.nn.functional.pad(mask_BT, (0, 1))
    white_BT = advantages.whiten(values_BT, mask_BT)
    torch.testing.assert_close(white_BT[mask_BT].mean(), torch.tensor(0.0))
    torch.testing.assert_close(white_BT[mask_BT].var(correction=0), torch.tensor(1.0))
    assert white_BT[~mask_BT].eq(0).all()


def test_equal_advantages_whiten_to_zero_and_not_to_nan() -> None:
    assert advantages.whiten(torch.full((2, 3), 0.7), _mask([3, 3])).abs().max() < 1e-3


def test_padding_contributes_nothing() -> None:
    rewards_BT, outcomes_B, mask_BT, group_B = _batch(5)
    noisy_BT = torch.where(mask_BT, rewards_BT, 1e6)
    torch.testing.assert_close(
        _rloo((noisy_BT, outcomes_B, mask_BT, group_B)), _rloo((rewards_BT, outcomes_B, mask_BT, group_B))
    )


def test_grpo_standardises_within_the_group_and_is_silent_where_all_agree() -> None:
    outcomes_B, group_B, mask_BT = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1]), _mask([1] * 4)
    process_BT, outcome_B = advantages.grpo(torch.zeros(4, 1), outcomes_B, mask_BT, group_B, gamma=1.0)
    assert process_BT.eq(0).all()
    torch.testing.assert_close(outcome_B, torch.tensor([1.0, -1.0, 0.0, 0.0]))


def test_reinforce_has_no_baseline() -> None:
    sources = advantages.reinforce(torch.tensor([[1.0, 2.0]]), torch.tensor([1.0]), _mask([2]), gamma=1.0)
    out_BT = advantages.combine(*sources, _mask([2]), process_coef=1.0, outcome_coef=1.0)
    torch.testing.assert_close(out_BT, torch.tensor([[4.0, 3.0]]))


# ---------------------------------------------------------------- losses


def test_cross_entropy_is_ln_two_at_logit_zero_for_any_label() -> None:
    loss = cross_entropy(torch.zeros(4), torch.tensor([0.0, 1.0, 0.3, 0.75])) / 4
    assert float(loss) == pytest.approx(math.log(2))


@pytest.mark.parametrize(("logit", "label"), [(100.0, 0.0), (-100.0, 1.0)])
def test_cross_entropy_still_pulls_where_the_prm_is_most_wrong(logit: float, label: float) -> None:
    """Sigmoid first, then BCE, has no gradient here."""
    logit_1 = torch.tensor([logit], requires_grad=True)
    cross_entropy(logit_1, torch.tensor([label])).backward()  # type: ignore[no-untyped-call]
    assert logit_1.grad is not None
    assert float(logit_1.grad.abs()) == pytest.approx(1.0, abs=1e-3)


def test_dpo_pairs_only_within_groups_and_only_different_outcomes() -> None:
    logits_B, outcomes_B = torch.tensor([2.0, 0.0, -1.0, 5.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    loss = pairwise_dpo(logits_B, outcomes_B, torch.tensor([0, 0, 1, 1]))
    assert float(loss) == pytest.approx(-math.log(1 / (1 + math.exp(-2.0))))


def test_pair_accuracy_weighs_gaps_and_counts_ties_half() -> None:
    scores_B, outcomes_B = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.5, 0.0])
    # Pairs: (1, 0.5) right with gap 0.5; (1, 0) right with gap 1; (0.5, 0) tied with gap 0.5.
    assert pair_accuracy(scores_B, outcomes_B, torch.zeros(3)) == pytest.approx((0.5 + 1.0 + 0.25) / 2.0)
    assert pair_accuracy(scores_B, torch.ones(3), torch.zeros(3)) == 0.5
    assert pair_accuracy(scores_B + torch.tensor([0.0, 0.0, 4e-6]), outcomes_B, torch.zeros(3)) == pytest.approx(0.875)
    assert pair_accuracy(torch.tensor([4e-6, 0.0, -4e-6]), outcomes_B, torch.zeros(3)) == pytest.approx(0.5)


SYMMETRIC = (0.2, 0.2)


def _even(tokens: int) -> torch.Tensor:
    """What each of so many tokens counts in a plain mean."""
    return torch.tensor(1 / tokens)


def test_identical_policies_give_the_policy_gradient() -> None:
    logprobs_N = torch.randn(5, requires_grad=True)
    advantages_N = torch.randn(5)
    clipped_policy_loss(
        logprobs_N, logprobs_N.detach(), advantages_N, bounds=SYMMETRIC, shares_N=_even(5)
    ).loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logprobs_N.grad, -advantages_N / 5)


def test_the_clip_stops_a_ratio_that_went_far_enough() -> None:
    logprobs_N = torch.tensor([0.5, 0.5], requires_grad=True)
    result = clipped_policy_loss(
        logprobs_N, torch.zeros(2), torch.tensor([1.0, -1.0]), bounds=SYMMETRIC, shares_N=_even(2)
    )
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs_N.grad is not None
    assert logprobs_N.grad[0] == 0  # better than before already
    assert logprobs_N.grad[1] > 0  # worse than before: still pulled back
    assert int(result.clipped) == 1


def test_a_higher_upper_clip_lets_gains_go_further_and_losses_no_further() -> None:
    """Ratios 1.25, 1.35 and 0.75 against bounds 0.8 and 1.28."""
    logprobs_N = torch.tensor([1.25, 1.35, 0.75]).log().requires_grad_()
    advantages_N = torch.tensor([1.0, 1.0, -1.0])
    result = clipped_policy_loss(logprobs_N, torch.zeros(3), advantages_N, bounds=(0.2, 0.28), shares_N=_even(3))
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs_N.grad is not None
    torch.testing.assert_close(logprobs_N.grad, torch.tensor([-1.25 / 3, 0.0, 0.0]))
    assert int(result.clipped) == 2


@given(st.integers(1, 7))
@settings(deadline=None, max_examples=7)
def test_any_split_into_micro_batches_adds_up_to_the_same_gradient(size: int) -> None:
    """The denominator is the global token count."""
    generator = torch.Generator().manual_seed(0)
    old_N, advantages_N, start_N = (torch.randn(7, generator=generator) for _ in range(3))
    whole_N, parts_N = start_N.clone().requires_grad_(), start_N.clone().requires_grad_()
    clipped_policy_loss(whole_N, old_N, advantages_N, bounds=SYMMETRIC, shares_N=_even(7)).loss.backward()  # type: ignore[no-untyped-call]
    for start in range(0, 7, size):
        piece = slice(start, start + size)
        clipped_policy_loss(
            parts_N[piece], old_N[piece], advantages_N[piece], bounds=SYMMETRIC, shares_N=_even(7)
        ).loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(parts_N.grad, whole_N.grad)


def test_what_a_token_counts_by_hand() -> None:
    lengths_B = torch.tensor([1, 3])
    asked = {"num_tokens": 4, "num_rows": 2, "longest": 4}
    for mean, expected in (
        ("token", [1 / 4] * 4),
        ("sequence", [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        ("constant", [1 / 8] * 4),
    ):
        torch.testing.assert_close(token_shares(lengths_B, mean=mean, **asked), torch.tensor(expected))


def test_a_dual_clip_bounds_what_a_bad_token_can_lose() -> None:
    """Ratio 5 with advantage -1: the loss is 5 and its gradient 5; with a dual clip of 3 they are 3 and 0."""
    for dual_clip, loss, gradient in ((None, 5.0, 5.0), (3.0, 3.0, 0.0)):
        logprobs_N = torch.tensor([5.0]).log().requires_grad_()
        minus_N = torch.tensor([-1.0])
        result = clipped_policy_loss(
            logprobs_N, torch.zeros(1), minus_N, bounds=SYMMETRIC, dual_clip=dual_clip, shares_N=_even(1)
        )
        result.loss.backward()  # type: ignore[no-untyped-call]
        assert logprobs_N.grad is not None
        assert float(result.loss.detach()) == pytest.approx(loss)
        assert float(logprobs_N.grad) == pytest.approx(gradient)


def test_a_response_has_one_ratio_the_geometric_mean_of_its_tokens() -> None:
    """GSPO: rows of log-ratios (0.4, 0) and (-1,): ratios e^0.2 and e^-1, each token's gradient its row's ratio."""
    log_ratio_N = torch.tensor([0.4, 0.0, -1.0], requires_grad=True)
    advantages_N, lengths_B = torch.tensor([-1.0, 2.0, 3.0]), torch.tensor([2, 1])
    result = clipped_policy_loss(
        log_ratio_N, torch.zeros(3), advantages_N, bounds=(0.9, 0.9), lengths_B=lengths_B, shares_N=_even(1)
    )
    result.loss.backward()  # type: ignore[no-untyped-call]
    first, second = math.exp(0.2), math.exp(-1.0)
    assert float(result.loss.detach()) == pytest.approx(first * 1 - first * 2 - second * 3)
    assert log_ratio_N.grad is not None
    torch.testing.assert_close(log_ratio_N.grad, torch.tensor([first, -2 * first, -3 * second]))
    # Beyond its bounds a row's good tokens stop pulling further out.
    tight = clipped_policy_loss(
        log_ratio_N, torch.zeros(3), advantages_N, bounds=(0.1, 0.1), lengths_B=lengths_B, shares_N=_even(1)
    )
    assert int(tight.clipped) == 1


def test_cispo_clips_the_weight_and_keeps_every_gradient() -> None:
    """Ratios 3, 0.1 and 1 with bounds 0.2 and 0.28: weights 1.28, 0.8 and 1."""
    logprobs_N = torch.tensor([3.0, 0.1, 1.0]).log().requires_grad_()
    advantages_N = torch.tensor([1.0, 1.0, -2.0])
    result = cispo_policy_loss(logprobs_N, torch.zeros(3), advantages_N, bounds=(0.2, 0.28), shares_N=_even(1))
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs_N.grad is not None
    torch.testing.assert_close(logprobs_N.grad, torch.tensor([-1.28, -0.8, 2.0]))
    assert int(result.clipped) == 2


def test_kinds_of_importance_weights_by_hand() -> None:
    trainer_N, sampler_N = torch.tensor([0.1, 1.0, -2.0]), torch.zeros(3)
    lengths_B = torch.tensor([2, 1])
    weights = {
        kind: importance_weights(trainer_N, sampler_N, cap=2.0, kind=kind, lengths_B=lengths_B)
        for kind in ("truncated", "masked", "sequence")
    }
    small, smaller = math.exp(0.1), math.exp(-2.0)
    torch.testing.assert_close(weights["truncated"], torch.tensor([small, 2.0, smaller]))
    torch.testing.assert_close(weights["masked"], torch.tensor([small, 0.0, 0.0]))
    torch.testing.assert_close(weights["sequence"], torch.tensor([2.0, 2.0, smaller]))


def test_importance_weights_are_capped_and_carry_no_gradient() -> None:
    trainer_N = torch.tensor([0.0, 1.0, 100.0], requires_grad=True)
    weights_N = importance_weights(trainer_N, torch.tensor([math.log(2.0), 0.0, 0.0]), cap=2.0)
    torch.testing.assert_close(weights_N, torch.tensor([0.5, 2.0, 2.0]))
    assert not weights_N.requires_grad


def test_extreme_log_ratios_stay_finite() -> None:
    result = clipped_policy_loss(
        torch.tensor([500.0, -500.0]), torch.zeros(2), torch.tensor([-1.0, 1.0]), bounds=SYMMETRIC, shares_N=_even(2)
    )
    assert torch.isfinite(result.loss)


# ---------------------------------------------------------------- filter and log-probs


@pytest.mark.parametrize(("passed", "kept"), [(0, False), (1, True), (2, True), (3, True), (4, False)])
def test_the_band_keeps_one_to_three_of_four(passed: int, kept: bool) -> None:
    assert in_band([1.0] * passed + [0.0] * (4 - passed), low=0.2, high=0.8) is kept


def test_the_bounds_of_the_band_are_inside_despite_rounding() -> None:
    assert in_band([1.0, 0.0, 0.0, 0.0, 0.0], low=0.2, high=0.8)
    assert in_band([0.1 + 0.7] * 3, low=0.2, high=0.8)


@pytest.mark.parametrize("tokens", [1, 3, 100])
@pytest.mark.parametrize("vocab", [1, 4, 11, 100])
def test_tiled_logprobs_equal_the_plain_softmax_forward_and_backward(tokens: int, vocab: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_ND, head_VD = torch.randn(7, 4, generator=generator), torch.randn(11, 4, generator=generator)
    chosen_N = torch.randint(0, 11, (7,), generator=generator)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden_ND, head_VD)]
    plain = [tensor.clone().requires_grad_() for tensor in (hidden_ND, head_VD)]
    result = chosen_logprobs(ours[0], ours[1], chosen_N, temperature=0.7, tiles=Tiles(tokens=tokens, vocab=vocab))
    logits_NV = (plain[0] @ plain[1].T / 0.7).log_softmax(dim=1)
    expected_N = logits_NV.gather(1, chosen_N[:, None]).squeeze(1)
    torch.testing.assert_close(result.logprobs_N, expected_N)
    expected_entropy_N = -(logits_NV.exp() * logits_NV).sum(dim=1)
    torch.testing.assert_close(result.entropy_N, expected_entropy_N)
    weights_N = torch.randn(7, generator=generator)
    more_N = torch.randn(7, generator=generator)
    (weights_N @ result.logprobs_N + more_N @ result.entropy_N).backward()  # type: ignore[no-untyped-call]
    (weights_N @ expected_N + more_N @ expected_entropy_N).backward()  # type: ignore[no-untyped-call]
    for own, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(own.grad, other.grad)
