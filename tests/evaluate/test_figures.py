"""Intervals, tests and selections give what they promise: by hand, and over a thousand simulated evaluations."""

import random
from collections.abc import Sequence

import numpy
import pytest
import torch

from prime.evaluation.intervals import mean_difference, paired_difference, share_interval
from prime.evaluation.outcomes import GradedProblem, Outcome
from prime.evaluation.policies import GREEDY, cut_at_stop
from prime.evaluation.summary import averages, summarise
from prime.maths.selection import best_of, pass_at, voted

_EVALUATIONS = 1000


@pytest.mark.parametrize(
    ("problems", "samples", "a", "b"), [(100, 4, 1.0, 1.0), (30, 16, 0.5, 1.5), (500, 1, 1.0, 1.0), (40, 8, 0.3, 3.0)]
)
def test_intervals_cover_and_paired_tests_reject_as_often_as_they_say(
    problems: int, samples: int, a: float, b: float
) -> None:
    draw, truth = numpy.random.default_rng(7), a / (a + b)
    covered = rejected = 0
    for _ in range(_EVALUATIONS):
        ability = draw.beta(a, b, problems)
        first, second = (list(map(float, draw.binomial(samples, ability) / samples)) for _ in range(2))
        estimate = share_interval(first)
        covered += estimate.low <= truth <= estimate.high
        rejected += paired_difference(first, second).p < 0.05
    assert 930 <= covered <= 970
    assert 35 <= rejected <= 65


def test_a_set_on_which_all_is_wrong_or_all_is_right_has_no_empty_interval() -> None:
    nothing, everything = share_interval([0.0] * 8), share_interval([1.0] * 8)
    assert (nothing.low, round(nothing.high, 2)) == (0.0, 0.41)
    assert (round(everything.low, 2), everything.high) == (0.59, 1.0)
    assert (share_interval([0.5]).low, share_interval([0.5]).high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no problems"):
        share_interval([])


def test_a_difference_by_hand() -> None:
    # Differences 1, 0, 0, 1: mean 1/2, variance 1/3, error sqrt(1/12), t = 1.732 with 3 degrees of freedom.
    found = paired_difference([0, 0, 1, 0], [1, 0, 1, 1])
    assert found.mean == 0.5
    assert found.error == pytest.approx((1 / 12) ** 0.5)
    assert found.p == pytest.approx(0.1817, abs=1e-4)
    same = paired_difference([0.25] * 50, [0.25] * 50)
    assert same.p == 1.0
    assert same.low < 0 < same.high
    both = mean_difference([found, found])
    assert both.mean == 0.5
    assert both.error == pytest.approx(found.error / 2**0.5)


def test_stop_texts_do_not_end_an_answer_inside_of_thoughts() -> None:
    assert cut_at_stop("56\n\nQ: next", ["\n\nQ:"]) == "56"
    assert cut_at_stop("<think>\n\nQ: me</think>56\n\nQ: next", ["\n\nQ:"]) == "<think>\n\nQ: me</think>56"
    assert cut_at_stop("<think>\n\nQ: cut off", ["\n\nQ:"]) == "<think>\n\nQ: cut off"
    assert cut_at_stop("a; b. c", [".", ";"]) == "a"
    assert cut_at_stop("nothing", []) == "nothing"


def graded(
    outcomes: Sequence[str],
    *,
    name: str = "p",
    classes: Sequence[int] = (),
    scores: Sequence[float] = (),
    numbers: Sequence[int] | None = None,
) -> GradedProblem:
    return GradedProblem(
        problem_id=name,
        numbers=tuple(numbers if numbers is not None else range(len(outcomes))),
        outcomes=tuple(map(Outcome, outcomes)),
        classes=tuple(classes),
        reasons=("",) * len(outcomes),
        num_tokens=(10,) * len(outcomes),
        truncated=tuple(each == "truncated" for each in outcomes),
        scores=tuple(scores),
    )


def test_undecided_samples_are_in_no_accuracy_and_their_weight_is_shown() -> None:
    found = summarise(
        [
            graded(["right", "wrong", "undecided", "undecided"], name="a", classes=(0, 1, 2, 3)),
            graded(["no_answer", "truncated", "wrong", "right"], name="b", classes=(-1, -1, 0, 1)),
            graded(["undecided"] * 4, name="c", classes=(0, 0, 0, 0)),
        ]
    )
    assert found.problems == 2
    assert found.average is not None
    assert found.average.mean == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert list(found.range_if_decided) == pytest.approx([(1 / 4 + 1 / 4 + 0) / 3, (3 / 4 + 1 / 4 + 1) / 3])
    assert list(found.pass_at) == [1, 2]  # what every problem has decided samples for
    assert found.counts == {"right": 2, "wrong": 2, "no_answer": 1, "truncated": 1, "undecided": 6}
    with pytest.raises(ValueError, match="none of the samples"):
        summarise([graded(["undecided"])])


def test_the_greedy_sample_is_a_figure_of_its_own() -> None:
    found = summarise(
        [
            graded(["right", "wrong", "wrong"], name="a", numbers=(GREEDY, 0, 1), scores=(9.0, 0.1, 0.2)),
            graded(["wrong", "right", "wrong"], name="b", numbers=(GREEDY, 0, 1), scores=(9.0, 0.3, 0.2)),
        ]
    )
    assert found.greedy is not None
    assert found.average is not None
    assert (found.greedy.mean, found.average.mean, found.samples) == (0.5, 0.25, 2)
    assert found.best_of[2].mean == 0.5
    assert found.best_of_gain is not None
    assert found.best_of_gain.mean == 0.25  # nothing for a, 0.5 to 1 for b
    assert averages([graded(["right"], name="a", numbers=(GREEDY,))]) == {"a": 1.0}


def test_what_is_chosen_by_score_and_by_vote() -> None:
    correct_M = torch.tensor([0.0, 1.0, 1.0])
    assert best_of(torch.tensor([3.0, 2.0, 1.0]), correct_M, 2) == pytest.approx(1 / 3)
    assert pass_at(torch.tensor([1.0, 0.0, 0.0, 0.0]), 2) == pytest.approx(0.5)
    assert voted((0, 1, 1), correct_M, 3) == 1.0
    assert voted((0, 1, 2), correct_M, 3) == 0.0, "a tie goes to the first"
    assert voted((0, 1, 2), correct_M, 3, scores_M=torch.tensor([-3.0, 2.0, 0.0])) == 1.0


def test_votes_among_fewer_are_means_over_subsets_that_a_seed_repeats() -> None:
    source = random.Random(1)
    classes = [source.randrange(3) for _ in range(9)]
    correct_M = torch.tensor([float(each == 0) for each in classes])
    assert voted(classes, correct_M, 4) == voted(classes, correct_M, 4)
    assert voted(classes, correct_M, 1) == pytest.approx(float(correct_M.mean()))
