"""What PRM and reference said of the groups that were scored last: Learn comes soon after Score."""

from collections.abc import Sequence

from torch import Tensor

from prime.types import PrmGroup

Pairs = list[tuple[Tensor, Tensor]]
"""Per response: log-probs of the PRM and of the reference, fp32 [T] each."""


class RecentLogprobs:
    """Pairs by group. To be cleared when the PRM's weights change. Not safe for concurrent use."""

    def __init__(self, *, capacity_tokens: int) -> None:
        """`capacity_tokens`: of responses, beyond which the groups that were used longest ago are dropped."""
        self._capacity = capacity_tokens
        self._pairs: dict[PrmGroup, Pairs] = {}
        self._num_tokens = 0

    def __contains__(self, group: PrmGroup) -> bool:
        return group in self._pairs

    def add(self, group: PrmGroup, pairs: Pairs) -> None:
        """Keep the pairs of a group that is not there yet."""
        self._pairs[group] = pairs
        self._num_tokens += _num_tokens(group)

    def of(self, groups: Sequence[PrmGroup]) -> Pairs:
        """The pairs of all responses of these groups, in order; others may be dropped then."""
        found = [pair for group in groups for pair in self._pairs[group]]
        asked = dict.fromkeys(groups)
        for group in asked:
            self._pairs[group] = self._pairs.pop(group)
        for group in [each for each in self._pairs if each not in asked]:
            if self._num_tokens <= self._capacity:
                break
            del self._pairs[group]
            self._num_tokens -= _num_tokens(group)
        return found

    def clear(self) -> None:
        """Forget all: the weights have changed."""
        self._pairs.clear()
        self._num_tokens = 0


def _num_tokens(group: PrmGroup) -> int:
    return sum(map(len, group.responses))
