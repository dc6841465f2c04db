"""Which beginnings go on, and when a vote is settled: hand-worked examples and invariants."""

import math

import pytest
import torch

from prime.maths.search import highest, is_settled, resample


def test_the_highest_come_first_and_of_equals_the_earlier() -> None:
    assert highest(torch.tensor([0.1, 0.7, 0.7]), 2) == [1, 2]
    assert highest(torch.tensor([0.1]), 5) == [0]


def test_particles_are_drawn_by_their_weights() -> None:
    scores_N = torch.tensor([math.log(3.0), 0.0])
    assert resample(scores_N, 0.0) == [0, 0]
    assert resample(scores_N, 0.9) == [0, 1]
    # Far apart: the better one alone, and no number overflows.
    assert resample(torch.tensor([1e4, 0.0, -1e4]), 0.5) == [0, 0, 0]


@pytest.mark.parametrize("draw", [0.001, 0.3, 0.999])
def test_equal_particles_all_go_on_and_counts_are_within_one_of_the_weights(draw: float) -> None:
    assert resample(torch.zeros(5), draw) == [0, 1, 2, 3, 4]
    torch.manual_seed(0)
    scores_N = torch.randn(40, dtype=torch.float64)
    drawn = resample(scores_N, draw)
    expected_N = 40 * torch.softmax(scores_N, 0)
    for number, expected in enumerate(expected_N.tolist()):
        assert math.floor(expected) <= drawn.count(number) <= math.ceil(expected)


def test_a_vote_is_settled_by_a_lead_that_nobody_can_catch_or_by_confidence() -> None:
    assert is_settled([5.0, 1.0], remaining=3, confidence=1.0)
    assert not is_settled([5.0, 1.0], remaining=4, confidence=1.0)
    # 1 - 0.5^5 = 0.969
    assert is_settled([4.0], remaining=4, confidence=0.96)
    assert not is_settled([4.0], remaining=4, confidence=0.97)
    # Beta(4, 2) is above 1/2 with a probability of 26 / 32.
    assert is_settled([3.0, 1.0], remaining=10, confidence=0.81)
    assert not is_settled([3.0, 1.0], remaining=10, confidence=0.82)
    assert not is_settled([], remaining=4, confidence=0.6)
    assert is_settled([], remaining=0, confidence=1.0)
