"""The log-probs that Score leaves for Learn."""

import torch

from prime.types import PrmGroup
from services.prm.recent_logprobs import Pairs, RecentLogprobs


def _group(name: str, *lengths: int) -> PrmGroup:
    return PrmGroup(group_id=name, prompt_ids=(5,), responses=tuple((7,) * length for length in lengths))


def _pairs(group: PrmGroup) -> Pairs:
    return [(torch.zeros(len(response)), torch.ones(len(response))) for response in group.responses]


def test_what_was_used_longest_ago_is_dropped_beyond_the_capacity() -> None:
    recent = RecentLogprobs(capacity_tokens=10)
    groups = [_group("a", 2, 2), _group("b", 4), _group("c", 4)]
    for group in groups[:2]:
        recent.add(group, _pairs(group))
    recent.of(groups[:1])
    recent.add(groups[2], _pairs(groups[2]))
    recent.of(groups[2:])
    assert [group in recent for group in groups] == [True, False, True]


def test_the_groups_that_are_asked_for_are_there_however_large_they_are() -> None:
    recent = RecentLogprobs(capacity_tokens=3)
    groups = [_group("a", 4, 3), _group("b", 5)]
    for group in groups:
        recent.add(group, _pairs(group))
    assert [len(own) for own, _ in recent.of(groups)] == [4, 3, 5]
    assert all(group in recent for group in groups)


def test_scores_that_nothing_is_learnt_from_do_not_pile_up() -> None:
    recent = RecentLogprobs(capacity_tokens=100)
    groups = [_group(str(number), 10) for number in range(50)]
    for group in groups:
        recent.add(group, _pairs(group))
        recent.of([group])
    assert sum(group in recent for group in groups) == 10


def test_nothing_is_left_when_the_weights_have_changed() -> None:
    recent = RecentLogprobs(capacity_tokens=10)
    group = _group("a", 3)
    recent.add(group, _pairs(group))
    recent.clear()
    assert group not in recent
