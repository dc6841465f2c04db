"""The rules for several parts: matrices, tuples, sets and lists side by side. Pure; used by `policy.py`."""

from collections.abc import Sequence

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.forms import Listing, read_list, read_matrix
from services.verifier.mathematics.names import Kind, has_equals, read_assignment
from services.verifier.mathematics.question import How, Result, matching
from services.verifier.mathematics.rules import Rules, TooManyToMatch, settled

# Pairs of items of two sets that are compared one by one while the service waits.
_MOST_CELLS = 1024
_LEAST_IN_BRACKETS = 3


def compare_matrices(answer: str, gold: str, rules: Rules) -> Result | None:
    """Cell by cell."""
    left, right = read_matrix(answer), read_matrix(gold)
    if (left is None and right is None) or has_equals(answer) or has_equals(gold):
        return None
    if math_options.COLUMN_VECTOR_IS_TUPLE in rules.options:
        left, right = left or _column(read_list(answer)), right or _column(read_list(gold))
    if left is None or right is None:
        # A matrix with something around it, or something that is no matrix at all.
        if "\\begin" not in answer or "\\begin" not in gold or "\\text" in answer or read_list(answer):
            return False
        return rules.leaf(answer, gold, How.SAME)
    if [len(row) for row in left] != [len(row) for row in right]:
        return False
    return rules.pairwise(zip(sum(left, ()), sum(right, ()), strict=True))


def compare_lists(answer: str, gold: str, rules: Rules) -> Result | None:
    """Tuples in their order, sets in any."""
    left, right = read_list(answer), read_list(gold)
    if left is None and right is None:
        return None
    left, right = left or _only(answer, right), right or _only(gold, left)
    if left is None or right is None:
        return _compare_named_tuple(answer, gold, rules)
    if math_options.COLUMN_VECTOR_IS_TUPLE in rules.options:
        left, right = _as_tuple(left), _as_tuple(right)
    if left.brackets != right.brackets:
        left, right = _without_names(left, right), _without_names(right, left)
    if len(left.items) != len(right.items):
        return False
    pairs = zip(left.items, right.items, strict=True)
    if left.brackets != right.brackets:
        return rules.pairwise(pairs) if _may_have_brackets(left, right, rules) else False
    return rules.pairwise(pairs) if left.brackets else compare_sets(left.items, right.items, rules)


def compare_sets(answer: Sequence[str], gold: Sequence[str], rules: Rules) -> Result:
    """Whether each item has one of its own on the other side; named values belong to their names.

    Raises:
        TooManyToMatch: there are too many of them.
    """
    first, second = _named_values(answer), _named_values(gold)
    if first is not None and second is not None:
        # Each name its own value: `x=1,y=2` is not `x=2,y=1`.
        if first.keys() != second.keys():
            return False
        return rules.pairwise((first[name], second[name]) for name in first)
    if (first is None) != (second is None) and len(answer) == len(gold):
        # Values without their names have to come in the order of the names.
        return rules.pairwise(zip(answer, gold, strict=True))
    if len(answer) * len(gold) > _MOST_CELLS:
        raise TooManyToMatch
    rows: list[list[Result]] = []
    for item in answer:
        row = [rules.items(item, other) for other in gold]
        if all(result is False for result in row):
            return False
        rows.append(row)
    return settled(matching(rows))


def _may_have_brackets(answer: Listing, gold: Listing, rules: Rules) -> bool:
    """`(1,2,3)` may stand for `1,2,3`, in that order; two items in brackets may be an interval."""
    if math_options.BRACKETS_COUNT in rules.options or gold.brackets:
        return False
    return answer.brackets == "()" and len(gold.items) >= _LEAST_IN_BRACKETS


def _compare_named_tuple(answer: str, gold: str, rules: Rules) -> Result:
    """`(x,y)=(1,2)` is the tuple."""
    sides = [_value_of_tuple(text) for text in (answer, gold)]
    if sides == [answer, gold]:
        return False
    return rules.items(sides[0], sides[1])


def _value_of_tuple(text: str) -> str:
    assignment = read_assignment(text)
    return assignment.value if assignment and not has_equals(assignment.value) else text


def _only(text: str, other: Listing | None) -> Listing | None:
    """One value beside a set of one: `5` and `\\{5\\}`."""
    return Listing(brackets="", items=(text,)) if other and not other.brackets and len(other.items) == 1 else None


def _column(listing: Listing | None) -> tuple[tuple[str, ...], ...] | None:
    if listing is None or listing.brackets not in ("()", "<>"):
        return None
    return tuple((item,) for item in listing.items)


def _as_tuple(listing: Listing) -> Listing:
    return Listing(brackets="()", items=listing.items) if listing.brackets == "<>" else listing


def _without_names(listing: Listing, other: Listing) -> Listing:
    """`x=1,y=2` beside a tuple is the tuple `(1,2)`, when the names are in the order of the alphabet."""
    named = _named_values(listing.items)
    if listing.brackets or other.brackets != "()" or named is None or list(named) != sorted(named):
        return listing
    return Listing(brackets="()", items=tuple(named.values()))


def _named_values(items: Sequence[str]) -> dict[str, str] | None:
    """Values by name when every item is an assignment and no name occurs twice; for several items only."""
    found = [named for item in items if (named := read_assignment(item)) and named.kind is not Kind.FUNCTION]
    values = {named.name: named.value for named in found}
    return values if len(values) == len(found) == len(items) > 1 else None
