"""From graded problems to the figures of a set, each with its 95 % interval over problems.

All figures are of the samples that were decided. How much the undecided ones could change is said beside them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prime.evaluation.intervals import Difference, Estimate, paired_difference, share_interval
from prime.evaluation.outcomes import GradedProblem, Outcome
from prime.evaluation.policies import GREEDY
from prime.maths.selection import best_of, pass_at, voted

_EVERY_SIZE = 16
"""Up to so many samples every N is in the table; beyond, powers of two and the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """What one set came to.

    Example: `SetSummary(problems=500, samples=8, counts={"right": 1210, "wrong": 2490, ...}, mean_tokens=388.2,
    truncated_share=0.04, average=Estimate(mean=0.31, ...), range_if_decided=(0.309, 0.312), greedy=None, pass_at={1:
    ..., 8: ...}, majority={...}, best_of={}, best_of_gain=None, weighted={})`.
    """

    problems: int
    """With at least one sample that was decided."""
    samples: int
    """Per problem, the greedy one not counted."""
    counts: Mapping[str, int]
    """Samples by outcome, the greedy ones not counted."""
    mean_tokens: float
    truncated_share: float
    average: Estimate | None
    """avg@k: the share of right samples, averaged over problems. None: there is none but a greedy sample."""
    range_if_decided: tuple[float, float]
    """Of the average, were all undecided samples wrong, or right."""
    greedy: Estimate | None
    """Accuracy of the greedy sample, where there is one."""
    pass_at: Mapping[int, Estimate]
    """By N: one of N samples is right (arXiv 2107.03374)."""
    majority: Mapping[int, Estimate]
    """By N: the answer that most of N samples give is right."""
    best_of: Mapping[int, Estimate]
    """By N: the sample of N with the PRM's highest score is right."""
    best_of_gain: Difference | None
    """Best of all samples less a single sample, over the same problems: what the PRM adds. None: nothing is scored."""
    weighted: Mapping[int, Estimate]
    """By N: the answer with the largest sum of sigmoid(score) is right."""

    @property
    def curves(self) -> dict[str, Mapping[int, Estimate]]:
        """What depends on N, by title; those that were measured."""
        found = {
            "pass@N": self.pass_at,
            "majority": self.majority,
            "best of N": self.best_of,
            "weighted best of N": self.weighted,
        }
        return {title: curve for title, curve in found.items() if curve}


def summarise(problems: Sequence[GradedProblem]) -> SetSummary:
    """The figures of one set.

    Raises:
        ValueError: there is no problem, or nothing at all was decided.
    """
    sampled, greedy = [_without_greedy(each) for each in problems], [_greedy(each) for each in problems]
    known = [found for found in map(_decided, sampled) if len(found.correct_M)]
    firsts = [float(found.correct_M[0]) for found in map(_decided, greedy) if len(found.correct_M)]
    if not known and not firsts:
        raise ValueError(f"none of the samples of {len(problems)} problems was decided")
    counts = Counter(outcome.value for each in sampled for outcome in each.outcomes)
    size = min((len(found.correct_M) for found in known), default=0)
    sizes = [n for n in range(1, size + 1) if size <= _EVERY_SIZE or n == size or n & (n - 1) == 0]
    voting = [found for found in known if found.classes_M is not None]
    scored = [found for found in known if found.scores_M is not None]
    total = sum(counts.values())
    return SetSummary(
        problems=max(len(known), len(firsts)),
        samples=max((len(each.outcomes) for each in sampled), default=0),
        counts={outcome.value: counts[outcome.value] for outcome in Outcome},
        mean_tokens=_share(sum(sum(each.num_tokens) for each in problems), sum(len(each.numbers) for each in problems)),
        truncated_share=_share(sum(sum(each.truncated) for each in sampled), total),
        average=share_interval([float(found.correct_M.mean()) for found in known]) if known else None,
        range_if_decided=(
            _share(sum(_right(each) for each in sampled), len(sampled)),
            _share(sum(_right(each, undecided=True) for each in sampled), len(sampled)),
        ),
        greedy=share_interval(firsts) if firsts else None,
        pass_at=_by_size(sizes, known, lambda found, n: pass_at(found.correct_M, n)),
        majority=_by_size(
            sizes if len(voting) == len(known) else [],
            voting,
            lambda found, n: voted(found.classes_M or (), found.correct_M, n),
        ),
        best_of=_by_size(
            sizes if len(scored) == len(known) else [],
            scored,
            lambda found, n: best_of(_scores(found), found.correct_M, n),
        ),
        best_of_gain=_best_of_gain(scored, size) if size and len(scored) == len(known) else None,
        weighted=_by_size(
            sizes if len(scored) == len(voting) == len(known) else [],
            scored,
            lambda found, n: voted(found.classes_M or (), found.correct_M, n, scores_M=_scores(found)),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """The decided samples of a problem."""

    correct_M: Tensor
    classes_M: tuple[int, ...] | None
    scores_M: Tensor | None


def averages(problems: Sequence[GradedProblem]) -> dict[str, float]:
    """Share of right samples by problem, for those with a decided one: what two evaluations are compared by."""
    found = {}
    for each in problems:
        decided = _decided(_without_greedy(each))
        if not len(decided.correct_M):
            decided = _decided(_greedy(each))
        if len(decided.correct_M):
            found[each.problem_id] = float(decided.correct_M.mean())
    return found


def _decided(problem: GradedProblem) -> _Decided:
    places = [place for place, outcome in enumerate(problem.outcomes) if outcome is not Outcome.UNDECIDED]
    return _Decided(
        correct_M=torch.tensor([problem.outcomes[place] is Outcome.RIGHT for place in places], dtype=torch.float64),
        classes_M=tuple(problem.classes[place] for place in places) if problem.classes else None,
        scores_M=torch.tensor([problem.scores[place] for place in places]) if problem.scores else None,
    )


def _without_greedy(problem: GradedProblem) -> GradedProblem:
    return _picked(problem, [place for place, number in enumerate(problem.numbers) if number != GREEDY])


def _greedy(problem: GradedProblem) -> GradedProblem:
    return _picked(problem, [place for place, number in enumerate(problem.numbers) if number == GREEDY])


def _picked(problem: GradedProblem, places: Sequence[int]) -> GradedProblem:
    return GradedProblem(
        problem_id=problem.problem_id,
        numbers=tuple(problem.numbers[place] for place in places),
        outcomes=tuple(problem.outcomes[place] for place in places),
        classes=tuple(problem.classes[place] for place in places) if problem.classes else (),
        reasons=tuple(problem.reasons[place] for place in places),
        num_tokens=tuple(problem.num_tokens[place] for place in places),
        truncated=tuple(problem.truncated[place] for place in places),
        scores=tuple(problem.scores[place] for place in places) if problem.scores else (),
        scored_by=problem.scored_by,
    )


def _right(problem: GradedProblem, *, undecided: bool = False) -> float:
    """Share of a problem's samples that are right, undecided ones among them or not."""
    right = sum(
        outcome is Outcome.RIGHT or (undecided and outcome is Outcome.UNDECIDED) for outcome in problem.outcomes
    )
    return _share(right, len(problem.outcomes))


def _scores(found: _Decided) -> Tensor:
    assert found.scores_M is not None
    return found.scores_M


def _by_size(
    sizes: Sequence[int], problems: Sequence[_Decided], value: Callable[[_Decided, int], float]
) -> dict[int, Estimate]:
    return {size: share_interval([value(found, size) for found in problems]) for size in sizes}


def _best_of_gain(problems: Sequence[_Decided], size: int) -> Difference:
    return paired_difference(
        [float(found.correct_M.mean()) for found in problems],
        [best_of(_scores(found), found.correct_M, size) for found in problems],
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
