"""From step values to scores, and votes: hand-worked, and what must hold whatever the numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prime.maths.aggregation import aggregates, vote


def _aggregates(rows: list[list[float]], *, probabilities: bool = False) -> dict[str, list[float]]:
    longest = max(map(len, rows))
    values_NS = torch.tensor([row + [99.0] * (longest - len(row)) for row in rows])
    mask_NS = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
    found = aggregates(values_NS, mask_NS, probabilities=probabilities)
    return {name: column_N.tolist() for name, column_N in found.items()}


def test_a_worked_example_and_what_is_padded_does_not_count() -> None:
    found = _aggregates([[0.5, -1.0, 0.25], [2.0]])
    expected = {"sum": [-0.25, 2.0], "mean": [-0.25 / 3, 2.0], "min": [-1.0, 2.0], "last": [0.25, 2.0]}
    assert set(found) == set(expected)
    for name, column in expected.items():
        assert found[name] == pytest.approx(column)


def test_a_product_is_there_for_probabilities_alone() -> None:
    assert _aggregates([[0.5, 0.5, 1.0], [0.25]], probabilities=True)["prod"] == [0.25, 0.25]


def test_one_step_is_its_own_aggregate_in_every_way() -> None:
    assert [column[0] for column in _aggregates([[0.75]], probabilities=True).values()] == [0.75] * 5


def test_the_worked_vote() -> None:
    scores_N, classes_N = torch.tensor([0.1, 2.0, 0.3]), torch.tensor([0, 1, 0])
    assert vote(scores_N, classes_N, weighted=False) == [2, 0, 1]
    assert vote(scores_N, classes_N, weighted=True) == [2, 0, 1]


def test_a_sure_answer_outweighs_two_doubtful_ones_only_when_scores_count() -> None:
    scores_N, classes_N = torch.tensor([-3.0, 4.0, -3.0]), torch.tensor([0, 1, 0])
    assert vote(scores_N, classes_N, weighted=False)[0] == 0
    assert vote(scores_N, classes_N, weighted=True)[0] == 1


def test_a_tie_of_votes_goes_to_the_class_with_the_best_candidate() -> None:
    scores_N, classes_N = torch.tensor([0.1, 0.9, 0.5, 0.4]), torch.tensor([0, 1, 0, 1])
    assert vote(scores_N, classes_N, weighted=False) == [1, 3, 2, 0]


def test_without_an_answer_there_is_no_vote() -> None:
    scores_N, classes_N = torch.tensor([9.0, 9.0, -9.0]), torch.tensor([-1, -1, 0])
    assert vote(scores_N, classes_N, weighted=True) == [2, 0, 1]
    assert vote(scores_N, torch.tensor([-1, -1, -1]), weighted=True) == [0, 1, 2]


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(-1, 3)), min_size=1, max_size=12), st.booleans())
def test_votes_rank_everybody_once_and_do_not_depend_on_order(
    candidates: list[tuple[float, int]], weighted: bool
) -> None:
    scores_N = torch.tensor([score for score, _ in candidates], dtype=torch.float64)
    classes_N = torch.tensor([number for _, number in candidates])
    order = vote(scores_N, classes_N, weighted=weighted)
    assert sorted(order) == list(range(len(candidates)))
    backwards = vote(scores_N.flip(0), classes_N.flip(0), weighted=weighted)
    winner, other = order[0], len(candidates) - 1 - backwards[0]
    assert scores_N[winner] == scores_N[other]
