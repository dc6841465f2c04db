"""What an implicit PRM learns, what its scores are worth, and how they become credit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from prime.data.chain import judge_steps, prompt_of
from prime.maths import advantages
from prime.maths.prm_diagnostics import (
    calibration_error,
    end_token_share,
    pair_accuracy,
    pair_agreement,
    shuffled_within_rows,
    step_auc,
)
from prime.maths.prm_losses import (
    cross_entropy,
    difficulty_shifts,
    label_weights,
    prefix_values,
    prefix_weights,
    response_logits,
)
from prime.maths.rewards import bounded_rewards, min_form, rewards_at_ends, value_differences_at_ends

LENGTHS = torch.tensor([2, 1, 3])


def _mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


# ---------------------------------------------------------------- what is learnt


def test_the_value_of_a_prefix_is_the_mean_of_its_own_row() -> None:
    ratios_N = torch.tensor([1.0, 3.0, -2.0, 6.0, 0.0, 0.0])
    torch.testing.assert_close(
        prefix_values(ratios_N, LENGTHS, beta=0.5), torch.tensor([0.5, 1.0, -1.0, 3.0, 1.5, 1.0])
    )
    torch.testing.assert_close(response_logits(ratios_N, LENGTHS, beta=0.5), torch.tensor([2.0, -1.0, 3.0]))


def test_values_of_prefixes_do_not_lose_digits_in_a_long_batch() -> None:
    """Rows lie end to end: a sum over all of them in float32 would leave a late row with noise."""
    ratios_N = torch.cat([torch.full((200_000,), 7.3), torch.tensor([1e-3])])
    values_N = prefix_values(ratios_N, torch.tensor([200_000, 1]), beta=1.0)
    assert float(values_N[-1]) == pytest.approx(1e-3, rel=1e-5)


@pytest.mark.parametrize(
    ("emphasis", "expected"),
    [("even", [1 / 3] * 3), ("late", [1 / 6, 2 / 6, 3 / 6]), ("early", [3 / 6, 2 / 6, 1 / 6])],
)
def test_the_prefixes_of_each_response_count_one_together(emphasis: str, expected: list[float]) -> None:
    weights_N = prefix_weights(LENGTHS, emphasis=emphasis)
    torch.testing.assert_close(weights_N[3:], torch.tensor(expected))
    assert float(weights_N.sum()) == pytest.approx(3.0)


def test_cross_entropy_without_extras_is_torchs_own() -> None:
    logits_B, outcomes_B = torch.randn(9), torch.rand(9)
    torch.testing.assert_close(
        cross_entropy(logits_B, outcomes_B), binary_cross_entropy_with_logits(logits_B, outcomes_B, reduction="sum")
    )


def test_a_margin_moves_the_point_of_indifference_to_either_side() -> None:
    """At the margin each label has the loss that it has at 0 without one."""
    at_margin = cross_entropy(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 0.0]), margin=2.0)
    assert float(at_margin) == pytest.approx(2 * math.log(2))


def test_balanced_labels_count_alike_within_a_group() -> None:
    outcomes_B, group_B = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0]), torch.tensor([5, 5, 5, 5, 2, 2])
    weights_B = label_weights(outcomes_B, group_B)
    torch.testing.assert_close(weights_B, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0, 1.0, 1.0]))


def test_the_difficulty_of_a_prompt_by_hand() -> None:
    """IPVRM: three of four right shift the boundary by 1.10; none right of four count as half a response."""
    outcomes_B, group_B = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([0] * 4 + [1] * 4)
    shifts_B = difficulty_shifts(outcomes_B, group_B)
    torch.testing.assert_close(shifts_B[:4], torch.full((4,), math.log(3.0)))
    torch.testing.assert_close(shifts_B[4:], torch.full((4,), math.log(1 / 7)))


def test_a_shift_takes_what_the_prompt_explains_out_of_the_gradient() -> None:
    """With a PRM that knows nothing, the shifted gradients of a group add up to zero; the plain ones do not."""
    outcomes_B, group_B = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.zeros(4)
    for shifts_B, expected in ((difficulty_shifts(outcomes_B, group_B), 0.0), (None, -1.0)):
        logits_B = torch.zeros(4, requires_grad=True)
        cross_entropy(logits_B, outcomes_B, shifts=shifts_B).backward()  # type: ignore[no-untyped-call]
        assert logits_B.grad is not None
        assert float(logits_B.grad.sum()) == pytest.approx(expected, abs=1e-6)


# ---------------------------------------------------------------- what scores are worth


def test_pairs_are_counted_by_how_far_their_outcomes_differ() -> None:
    scores_B, outcomes_B = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.5, 0.0])
    assert pair_agreement(scores_B, outcomes_B, torch.zeros(3)) == (1.75, 2.0)
    assert pair_accuracy(scores_B, outcomes_B, torch.zeros(3)) == pytest.approx(0.875)


def test_calibration_by_hand() -> None:
    assert calibration_error(torch.zeros(2), torch.ones(2)) == pytest.approx(0.5)
    assert calibration_error(torch.zeros(2), torch.tensor([1.0, 0.0])) == pytest.approx(0.0)
    assert calibration_error(torch.tensor([1e9, -1e9]), torch.tensor([1.0, 0.0])) == pytest.approx(0.0)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
@settings(deadline=None, max_examples=60)
def test_step_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores_S = torch.tensor([float(score) for score, _ in rows])
    is_right_S = torch.tensor([right for _, right in rows])
    pairs = [(a, b) for a, right in rows if right for b, other in rows if not other]
    expected = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs) if pairs else 0.5
    assert step_auc(scores_S, is_right_S) == pytest.approx(expected)


def test_the_share_of_the_end_token_by_hand() -> None:
    rewards_BT = torch.tensor([[1.0, -1.0, 2.0], [0.0, 4.0, 99.0]])
    assert end_token_share(rewards_BT, _mask([3, 2])) == pytest.approx(6 / 8)
    assert end_token_share(torch.zeros(1, 2), _mask([2])) == 0.0


def test_shuffling_keeps_each_responses_rewards_and_moves_them() -> None:
    mask_BT = _mask([40, 7])
    rewards_BT = torch.randn(mask_BT.shape) * mask_BT
    shuffled_BT = shuffled_within_rows(rewards_BT, mask_BT, torch.Generator().manual_seed(1))
    for row, length in enumerate((40, 7)):
        assert shuffled_BT[row, :length].sort().values.equal(rewards_BT[row, :length].sort().values)
        assert shuffled_BT[row, length:].eq(0).all()
    assert not shuffled_BT[0].equal(rewards_BT[0])


# ---------------------------------------------------------------- from rewards to credit


def test_differences_of_prefix_values_add_up_to_the_mean_reward() -> None:
    rewards_BT, mask_BT = torch.tensor([[1.0, 3.0, -4.0], [2.0, 0.0, 0.0]]), _mask([3, 1])
    ends_BT = torch.tensor([[False, True, False], [False, False, False]])
    expected_BT = torch.tensor([[0.0, 2.0, -2.0], [2.0, 0.0, 0.0]])
    torch.testing.assert_close(value_differences_at_ends(rewards_BT, ends_BT, mask_BT), expected_BT)
    every_BT = value_differences_at_ends(rewards_BT, mask_BT, mask_BT)
    torch.testing.assert_close(every_BT, torch.tensor([[1.0, 1.0, -2.0], [2.0, 0.0, 0.0]]))
    torch.testing.assert_close(every_BT.sum(dim=1), torch.tensor([0.0, 2.0]))


def test_own_rewards_at_every_token_are_the_rewards() -> None:
    rewards_BT, mask_BT = torch.randn(2, 3), _mask([3, 2])
    torch.testing.assert_close(rewards_at_ends(rewards_BT, mask_BT, mask_BT), rewards_BT * mask_BT)


def test_bounds_cut_or_bend() -> None:
    rewards_BT = torch.tensor([[0.1, -5.0]])
    torch.testing.assert_close(bounded_rewards(rewards_BT, limit=2.0, kind="clip"), torch.tensor([[0.1, -2.0]]))
    bent_BT = bounded_rewards(rewards_BT, limit=2.0, kind="tanh")
    assert float(bent_BT[0, 0]) == pytest.approx(0.1, abs=1e-3)
    assert -2.0 < float(bent_BT[0, 1]) < -1.9


def test_the_min_form_leaves_about_the_worst_step() -> None:
    rewards_BT, at_BT = torch.tensor([[1.0, 9.0, -1.0], [0.5, 0.0, 0.0]]), _mask([3, 1])
    at_BT[0, 1] = False
    formed_BT = min_form(rewards_BT, at_BT, temperature=0.1)
    torch.testing.assert_close(formed_BT, torch.tensor([[0.0, 0.0, -1.0], [0.5, 0.0, 0.0]]), atol=1e-6, rtol=0.0)


def test_masked_step_advantages_compare_with_samples_that_are_so_long() -> None:
    rewards_BT, mask_BT = torch.tensor([[1.0, 1.0], [3.0, 7.0]]), _mask([2, 1])
    process_BT, _ = advantages.spro(rewards_BT, torch.tensor([1.0, 0.0]), mask_BT, torch.zeros(2))
    torch.testing.assert_close(process_BT, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def test_sources_that_are_combined_apart_weigh_what_their_coefficients_say() -> None:
    mask_BT, outcome_B = _mask([3, 2]), torch.tensor([0.5, -0.5])
    process_BT = torch.randn(2, 3) * mask_BT
    small_BT, large_BT = (
        advantages.combine_apart(scale * process_BT, outcome_B, mask_BT, process_coef=0.5, outcome_coef=1.0)
        for scale in (1.0, 100.0)
    )
    torch.testing.assert_close(small_BT, large_BT, atol=1e-4, rtol=1e-4)


def test_dr_grpo_is_rloo_but_for_a_constant() -> None:
    """Dr. GRPO (arXiv 2503.20783) subtracts the mean over all K samples: (K - 1) / K of what RLOO has."""
    outcomes_B, group_B = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1, 1, 1])
    centred_B = outcomes_B - torch.tensor([1 / 3] * 3 + [2 / 3] * 3)
    torch.testing.assert_close(advantages.outcome_advantages(outcomes_B, group_B) * 2 / 3, centred_B)


def test_shared_prefixes_are_counted_within_the_group_and_up_to_the_token() -> None:
    ids_BT = torch.tensor([[7, 8, 5], [7, 9, 5], [7, 8, 0], [7, 8, 5]])
    counts_BT = advantages.shared_prefix_counts(ids_BT, _mask([3, 3, 2, 3]), torch.tensor([0, 0, 0, 1]))
    assert counts_BT.tolist() == [[3, 2, 1], [3, 1, 1], [3, 2, 1], [1, 1, 1]]


# ---------------------------------------------------------------- the yardstick


def test_steps_of_a_chain_are_judged_up_to_the_first_error() -> None:
    prompt = prompt_of([3, 5, 8])
    assert judge_steps(prompt, "3+5=8;8+8=6#6") == [(0, 6, True), (6, 11, True)]
    assert judge_steps(prompt, "3+5=8;8+8=7#7") == [(0, 6, True), (6, 11, False)]
    assert judge_steps(prompt, "3+5=9;9+8=7#7") == [(0, 5, False)]
    assert judge_steps(prompt, "3+5") == [(0, 3, False)]
    assert judge_steps(prompt, "") == []
