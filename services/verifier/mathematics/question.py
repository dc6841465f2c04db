"""What comparison finds: a decision, or a question of algebra that the workers have to settle. Records only.

A question is a tree. `Leaf` compares two expressions; `All` needs every part; `Matching` needs each row to find a
column of its own. A branch that exact comparison has settled is already gone from the tree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

DECIMALS = 6
"""Decimals that a rounded value must have, unless the request says otherwise."""
_LARGEST_MATCHING = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Settled: `Decided(equal=False, reason="mismatch")`; `equal=None` is undecided."""

    equal: bool | None
    reason: str


class How(StrEnum):
    """What it means for the two sides of a leaf to be equal."""

    SAME = "same"
    UP_TO_NAMES = "up_to_names"
    """The same with arbitrary constants renamed: `Ce^{2x}` and `Ke^{2x}` as solutions of one equation."""
    UP_TO_CONSTANT = "up_to_constant"
    """The difference is a constant: two antiderivatives."""
    UP_TO_FACTOR = "up_to_factor"
    """Two equations: left minus right side of one is a constant times that of the other."""
    UP_TO_POSITIVE_FACTOR = "up_to_positive_factor"
    """Two inequalities, written as `greater=smaller`: the same with a positive constant."""
    ABOUT = "about"
    """The answer is a rough value of the gold: `1.41` for `\\sqrt{2}`."""
    AS_WRITTEN = "as_written"
    """Whatever Math-Verify makes of it: sets, relations and other forms without a rule of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """Two texts: `Leaf(gold="x^2+2x+1", answer="(x+1)^2")`."""

    gold: str
    answer: str
    how: How = How.SAME
    decimals: int = DECIMALS


@dataclass(frozen=True, slots=True, kw_only=True)
class All:
    """Every one must hold."""

    of: "tuple[Question, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """A square: every row (an item of the answer) needs a column (an item of the gold) of its own that holds."""

    rows: "tuple[tuple[Result, ...], ...]"


Question = Leaf | All | Matching
Result = bool | Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbolic:
    """Not settled here; `MathPool.settle` takes it. The texts are for messages and logs."""

    gold: str
    answer: str
    question: Question


def conjunction(results: Iterable[Result]) -> Result:
    """False when one is false, true when all are, else the question that is left."""
    left: list[Question] = []
    for result in results:
        if result is False:
            return False
        if result is not True:
            left.append(result)
    if not left:
        return True
    return left[0] if len(left) == 1 else All(of=tuple(left))


def matching(rows: Sequence[Sequence[Result]]) -> Result | None:
    """Whether each row finds a column of its own; None when too much of it is open."""
    open_rows, columns = list(rows), list(range(len(rows)))
    # Equality is transitive, so an item that is surely equal to another may take it at once.
    for row in list(open_rows):
        sure = next((column for column in columns if row[column] is True), None)
        if sure is not None:
            open_rows.remove(row)
            columns.remove(sure)
    if not open_rows:
        return True
    if any(all(row[column] is False for column in columns) for row in open_rows):
        return False
    if any(all(row[column] is False for row in open_rows) for column in columns):
        return False
    if len(open_rows) == 1:
        return open_rows[0][columns[0]]
    if len(open_rows) > _LARGEST_MATCHING:
        return None
    return Matching(rows=tuple(tuple(row[column] for column in columns) for row in open_rows))


def to_json(result: Result) -> object:
    """The plain value that crosses to a worker: `["same", gold, answer, 6]`, `["all", ...]`, `["matching", rows]`."""
    if isinstance(result, bool):
        return result
    if isinstance(result, Leaf):
        return [result.how.value, result.gold, result.answer, result.decimals]
    if isinstance(result, All):
        return ["all", [to_json(part) for part in result.of]]
    return ["matching", [[to_json(cell) for cell in row] for row in result.rows]]
