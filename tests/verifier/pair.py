"""One judged pair of answers, and how a whole row of the policy is written down. Used by the `math_pairs_*` files."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`Pair(row="fractions", response="\\boxed{0.5}", answer="0.5", gold="\\frac12", equal=True)`."""

    row: str
    """The row of the policy table."""
    answer: str
    gold: str
    equal: bool
    options: frozenset[str] = frozenset()
    is_response: bool = False
    """The answer is a whole response, to be taken as it stands."""
    symmetric: bool = True
    """The verdict is the same with answer and gold exchanged."""

    @property
    def response(self) -> str:
        """What the policy under training would have written."""
        return self.answer if self.is_response else f"So the answer is $\\boxed{{{self.answer}}}$."


def pairs(
    row: str,
    *,
    right: Iterable[tuple[str, str]] = (),
    wrong: Iterable[tuple[str, str]] = (),
    options: Iterable[str] = (),
    is_response: bool = False,
    symmetric: bool = True,
) -> list[Pair]:
    return [
        Pair(
            row=row,
            answer=answer,
            gold=gold,
            equal=equal,
            options=frozenset(options),
            is_response=is_response,
            symmetric=symmetric,
        )
        for equal, listed in ((True, right), (False, wrong))
        for answer, gold in listed
    ]
