"""The policy: when two normalised answers are the same, form by form. Pure; used by `compare.py`.

Each method answers True, False, or the question that is left for algebra. The forms are tried from the most to the
least specific; what no rule knows is compared as an expression.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.forms import (
    EQUALS,
    Assignment,
    Listing,
    read_antiderivative,
    read_assignment,
    read_based,
    read_list,
    read_matrix,
    read_residue,
    rename,
    split_items,
)
from services.verifier.mathematics.question import DECIMALS, How, Leaf, Result, conjunction, matching
from services.verifier.mathematics.rationals import Number, read_number, same_number
from services.verifier.mathematics.regions import Piece, Region, read_combination, read_region
from services.verifier.mathematics.text import is_words, same_text
from services.verifier.mathematics.units import Unit, factor_between, split_unit

_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|subset|subseteq|setminus|backslash|mathbb|R)(?![a-zA-Z])")
_ORDER = re.compile(r"<|>|\\(?:le|ge)(?![a-zA-Z])")
_EMPTY = ("\\emptyset", "\\{\\}", "\\{\\emptyset\\}")
_INFINITIES = {"\\infty": 1, "+\\infty": 1, "-\\infty": -1}
_NAMES_TOGETHER = re.compile(r"[a-zA-Z](?:[+\-][a-zA-Z])+")
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_HELD = re.compile(r"\\(?:sum|prod|o?i{1,3}nt|lim)(?![a-zA-Z])|\\frac\{d\}\{d[a-z]\}")
_IN_SET = re.compile(r"^[a-z]\\in(?=\\\{)")
_CONNECTIVES = re.compile(r"\b(?:or|and)\b")
_MARKED = re.compile(r"[\w)}](?:'+|\^(?:T|\\(?:prime|top|dagger|cdot))(?![a-zA-Z]))")
_DEGREES = re.compile("(\\d+(?:\\.\\d+)?|[a-zA-Z]|\\\\[a-z]+|\\))\u00b0")
_DIGITS_APART = re.compile(r"(?<!_)\d \d")


# Links of a chain, and pairs of items of two sets, that are compared one by one while the service waits.
_MOST_LINKS, _MOST_CELLS = 16, 1024


class TooManyToMatch(Exception):
    """Two lists are too long to find out which item belongs to which, or a chain too long to follow."""


class Policy:
    """The rules under the options of one request."""

    def __init__(self, options: frozenset[str]) -> None:
        self._options = options
        self._decimals = 2 if math_options.TWO_DECIMALS in options else DECIMALS
        self._percent_sign_optional = math_options.PERCENT_BY_VALUE not in options

    def same_value(self, answer: Number, gold: Number) -> bool:
        """Whether two numbers count as the same."""
        return same_number(answer, gold, decimals=self._decimals, percent_sign_optional=self._percent_sign_optional)

    def compare(self, answer: str, gold: str) -> Result:
        """Compare two whole answers.

        Raises:
            TooManyToMatch: two long lists with too much left open.
        """
        based = self._compare_bases(answer, gold)
        if based is not None:
            return based
        first, second = read_residue(answer), read_residue(gold)
        if first or second:
            return first == second
        if _HELD.search(answer) and not _HELD.search(gold) and _is_left_to_do(answer):
            return False  # the question again
        return self._compare_items(answer, gold)

    def _compare_bases(self, answer: str, gold: str) -> bool | None:
        first, second = read_based(answer), read_based(gold)
        if first is None and second is None:
            return None
        values = [side.value() if side else _whole(text) for side, text in ((first, answer), (second, gold))]
        if None in values:
            return False
        # Ten is the base of a number without one; algebra would ignore any other.
        bases = [side.base if side else 10 for side in (first, second)]
        converts = math_options.CONVERT_BASES in self._options
        return values[0] == values[1] and (converts or bases[0] == bases[1])

    def _compare_items(self, answer: str, gold: str) -> Result:
        answer, gold = _IN_SET.sub("", answer), _IN_SET.sub("", gold)
        if same_text(answer, gold):
            return True
        left, right = read_number(answer), read_number(gold)
        if left is not None and right is not None:
            return self.same_value(left, right)
        if answer in _EMPTY or gold in _EMPTY:
            return answer in _EMPTY and gold in _EMPTY
        if answer in _INFINITIES and gold in _INFINITIES:
            return _INFINITIES[answer] == _INFINITIES[gold]
        if _RELATION.search(answer) or _RELATION.search(gold):
            related = self._compare_relations(answer, gold)
            if related is not None:
                return related
        matrices = self._compare_matrices(answer, gold)
        if matrices is not None:
            return matrices
        listed = self._compare_lists(answer, gold)
        if listed is not None:
            return listed
        if EQUALS.search(answer) or EQUALS.search(gold):
            return self._compare_equations(answer, gold)
        return self._compare_values(answer, gold)

    # ------------------------------------------------------------ regions and inequalities

    def _compare_relations(self, answer: str, gold: str) -> Result | None:
        left, right = read_region(answer), read_region(gold)
        if left is not None and right is not None:
            return self._compare_regions(left, right)
        if _ORDER.search(answer) and len({*_CONNECTIVES.findall(answer), *_CONNECTIVES.findall(gold)}) > 1:
            return False  # `x>1 and x<2` against `x>1 or x<2`
        combined = self._compare_combinations(answer, gold)
        if combined is not None:
            return combined
        if right is not None and _RELATION.search(gold) and right.has_constant_ends:
            # The gold is solved; the answer is not, so it may be no more than the question.
            return False if "," not in answer and " or " not in answer else None
        if read_number(answer) is not None or read_number(gold) is not None:
            return False
        if "," in answer + gold or " or " in answer + gold:
            return None
        first, second = _as_difference(answer), _as_difference(gold)
        if first is None or second is None:
            return Leaf(gold=gold, answer=answer, how=How.AS_WRITTEN)
        if math_options.GOLD_RESTATES_QUESTION in self._options:
            return False
        if first[1] != second[1]:
            return False
        return self._leaf(first[0], second[0], How.UP_TO_POSITIVE_FACTOR)

    def _compare_combinations(self, answer: str, gold: str) -> Result | None:
        left, right = read_combination(answer), read_combination(gold)
        if right is None:
            return None
        if left and left.operator == right.operator and len(left.operands) == len(right.operands):
            same = self._compare_sets(left.operands, right.operands)
            if same is not False:
                return same
        return False if right.has_names else None

    def _compare_regions(self, answer: Region, gold: Region) -> Result:
        if answer.name and gold.name and answer.name != gold.name:
            return False
        if math_options.GOLD_RESTATES_QUESTION in self._options and answer.as_inequality != gold.as_inequality:
            return False
        if len(answer.pieces) != len(gold.pieces):
            return False
        return _settled(matching([[self._compare_pieces(a, g) for g in gold.pieces] for a in answer.pieces]))

    def _compare_pieces(self, answer: Piece, gold: Piece) -> Result:
        if (answer.low_closed, answer.high_closed) != (gold.low_closed, gold.high_closed):
            return False
        ends = ((answer.low, gold.low), (answer.high, gold.high))
        return conjunction(self._compare_ends(first, second) for first, second in ends)

    def _compare_ends(self, answer: str, gold: str) -> Result:
        if (answer in _INFINITIES) != (gold in _INFINITIES):
            return False
        return self._compare_items(answer, gold)

    # ------------------------------------------------------------ matrices and lists

    def _compare_matrices(self, answer: str, gold: str) -> Result | None:
        left, right = read_matrix(answer), read_matrix(gold)
        if left is None and right is None:
            return None
        if math_options.COLUMN_VECTOR_IS_TUPLE in self._options:
            left, right = left or _column(read_list(answer)), right or _column(read_list(gold))
        if left is None or right is None:
            # A matrix with something around it, or something that is no matrix at all.
            return False if "\\begin" not in answer or "\\begin" not in gold else self._leaf(answer, gold)
        if [len(row) for row in left] != [len(row) for row in right]:
            return False
        pairs = zip(sum(left, ()), sum(right, ()), strict=True)
        return conjunction(self._compare_items(first, second) for first, second in pairs)

    def _compare_lists(self, answer: str, gold: str) -> Result | None:
        left, right = read_list(answer), read_list(gold)
        if left is None and right is None:
            return None
        left, right = left or _only(answer, right), right or _only(gold, left)
        if left is None or right is None:
            return self._compare_named_tuple(answer, gold)
        if math_options.COLUMN_VECTOR_IS_TUPLE in self._options:
            left, right = _as_tuple(left), _as_tuple(right)
        if left.brackets != right.brackets:
            left, right = _without_names(left, right), _without_names(right, left)
            if left.brackets != right.brackets:
                return False
        if len(left.items) != len(right.items):
            return False
        if left.brackets:
            pairs = zip(left.items, right.items, strict=True)
            return conjunction(self._compare_items(first, second) for first, second in pairs)
        return self._compare_sets(left.items, right.items)

    def _compare_named_tuple(self, answer: str, gold: str) -> Result:
        """`(x,y)=(1,2)` is the tuple."""
        sides = [_value_of_tuple(text) for text in (answer, gold)]
        if sides == [answer, gold]:
            return False
        return self._compare_items(sides[0], sides[1])

    def _compare_sets(self, answer: Sequence[str], gold: Sequence[str]) -> Result:
        first, second = _named_values(answer), _named_values(gold)
        if first is not None and second is not None:
            # Each name its own value: `x=1,y=2` is not `x=2,y=1`.
            if first.keys() != second.keys():
                return False
            return conjunction(self._compare_items(first[name], second[name]) for name in first)
        if len(answer) * len(gold) > _MOST_CELLS:
            raise TooManyToMatch
        rows: list[list[Result]] = []
        for item in answer:
            row = [self._compare_items(item, other) for other in gold]
            if all(result is False for result in row):
                return False
            rows.append(row)
        return _settled(matching(rows))

    # ------------------------------------------------------------ equations

    def _compare_equations(self, answer: str, gold: str) -> Result:
        left, right = read_assignment(answer), read_assignment(gold)
        if not EQUALS.search(gold):
            return self._compare_chain(left.value if left else answer, gold)
        if not EQUALS.search(answer):
            return self._compare_items(answer, right.value) if right and not EQUALS.search(right.value) else False
        if left and right:
            return self._compare_two_assignments(left, right, answer, gold)
        if right and not _has_symbols(right.value):
            return False  # the gold is a solution, the answer an equation still to be solved
        return self._compare_as_equations(answer, gold)

    def _compare_chain(self, answer: str, gold: str) -> Result:
        # A chain such as `\frac{1}{2}=0.5` must be right in every link, or `3=5` would pass for 5.
        parts = EQUALS.split(answer)
        if len(parts) > _MOST_LINKS:
            raise TooManyToMatch
        if len(parts) == 2 and _NAMES_TOGETHER.fullmatch(parts[0]) and not _has_symbols(gold):
            parts = parts[1:]  # `m+n=5`, where the sum was asked for
        return conjunction(self._compare_items(part, gold) if part else False for part in parts)

    def _compare_two_assignments(self, left: Assignment, right: Assignment, answer: str, gold: str) -> Result:
        if left.arguments and right.arguments:
            if left.name != right.name or len(left.arguments) != len(right.arguments):
                return False
            return _up_to_names(self._compare_items(_with_arguments(left, right.arguments), right.value))
        is_function = left.arguments or right.arguments
        if left.name == right.name or (is_function and "y" in (left.name, right.name)):
            if EQUALS.search(right.value):
                return self._compare_as_equations(answer, gold)
            value = self._compare_chain(left.value, right.value)
            return _up_to_names(value) if is_function or left.name == "y" else value
        if not is_function and _has_symbols(left.value) and _has_symbols(right.value):
            return self._compare_as_equations(answer, gold)
        return False

    def _compare_as_equations(self, answer: str, gold: str) -> Result:
        if math_options.GOLD_RESTATES_QUESTION in self._options:
            return False
        first, second = EQUALS.split(answer), EQUALS.split(gold)
        if len(first) != 2 or len(second) != 2 or not all(first) or not all(second):
            return False
        return self._leaf(f"{first[0]}-({first[1]})", f"{second[0]}-({second[1]})", How.UP_TO_FACTOR)

    # ------------------------------------------------------------ values

    def _compare_values(self, answer: str, gold: str) -> Result:
        (first, first_unit), (second, second_unit) = split_unit(answer), split_unit(gold)
        if first_unit or second_unit:
            return self._compare_with_units(first, first_unit, second, second_unit)
        number, other = read_number(gold), answer
        if number is None:
            number, other = read_number(answer), gold
        # Digits apart are no number; read as a product, or run together, they might become one. Words are none either.
        if number is not None and (_DIGITS_APART.search(other) or _PROSE.search(other)):
            return False
        if "\\text" in answer or "\\text" in gold:
            return _folded(answer) == _folded(gold)
        if is_words(gold) and is_words(answer):
            return False  # read as a product, `AB` would equal `BA`
        if gold in _INFINITIES or answer in _INFINITIES:
            return False
        return self._compare_with_constants(answer, gold)

    def _compare_with_units(self, answer: str, left: Unit | None, gold: str, right: Unit | None) -> Result:
        if (left is None and answer.endswith("%")) or (right is None and gold.endswith("%")):
            return False  # `5` dollars and `5\\%`
        if left is None or right is None or left.names == right.names:
            return self._compare_items(answer, gold)
        factor = factor_between(left, right) if math_options.CONVERT_UNITS in self._options else None
        if factor is None:
            return False
        number = read_number(answer)
        if number is None:
            return self._compare_items(f"({answer})\\cdot\\frac{{{factor.numerator}}}{{{factor.denominator}}}", gold)
        value: Fraction = number.value * factor
        return self._compare_items(f"{value.numerator}/{value.denominator}", gold)

    def _compare_with_constants(self, answer: str, gold: str) -> Result:
        left, right = read_antiderivative(answer), read_antiderivative(gold)
        if left and right:
            if left.is_certain or right.is_certain:
                return self._leaf(left.rest, right.rest, How.UP_TO_CONSTANT)
            # Both letters are doubtful, so `n-1+k` is not `n+k`, while `x^2+k` still is `x^2+c`.
            return self._leaf(left.rest, right.rest) if "c" in (left.name, right.name) else self._leaf(answer, gold)
        if (left or right) and math_options.CONSTANT_OPTIONAL in self._options:
            return self._leaf(left.rest if left else answer, right.rest if right else gold, How.UP_TO_CONSTANT)
        return self._leaf(answer, gold)

    def _leaf(self, answer: str, gold: str, how: How = How.SAME) -> Result:
        if sorted(_MARKED.findall(answer)) != sorted(_MARKED.findall(gold)):
            return False  # derivatives and transposes, whose marks the parser drops
        return Leaf(answer=_in_radians(answer), gold=_in_radians(gold), how=how, decimals=self._decimals)


def _is_left_to_do(answer: str) -> bool:
    """Whether an item ends in an integral, a sum or a limit; `\\int_0^1 x dx=1/2` ends in its value."""
    return any(_HELD.search(EQUALS.split(item)[-1]) for item in split_items(answer))


def _settled(result: Result | None) -> Result:
    if result is None:
        raise TooManyToMatch
    return result


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[-+]?[0-9]{1,1000}", text) else None


def _as_difference(text: str) -> tuple[str, str] | None:
    """The greater minus the smaller side of one inequality, and whether it is strict."""
    signs, parts = _ORDER.findall(text), _ORDER.split(text)
    if len(signs) != 1 or not all(parts):
        return None
    small, great = parts if signs[0] in ("<", "\\le") else reversed(parts)
    return f"{great}-({small})", "strict" if signs[0] in "<>" else "weak"


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


def _value_of_tuple(text: str) -> str:
    assignment = read_assignment(text)
    return assignment.value if assignment and not EQUALS.search(assignment.value) else text


def _named_values(items: Sequence[str]) -> dict[str, str] | None:
    """Values by name when every item is an assignment and no name occurs twice; for several items only."""
    found = [assignment for item in items if (assignment := read_assignment(item)) and not assignment.arguments]
    values = {assignment.name: assignment.value for assignment in found}
    return values if len(values) == len(items) > 1 else None


def _up_to_names(result: Result) -> Result:
    """The values of functions, which may have arbitrary constants in them."""
    return replace(result, how=How.UP_TO_NAMES) if isinstance(result, Leaf) and result.how is How.SAME else result


def _has_symbols(text: str) -> bool:
    return bool(re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+|(?<![a-zA-Z])e(?![a-zA-Z])", " ", text)))


def _with_arguments(assignment: Assignment, names: tuple[str, ...]) -> str:
    """The value with its bound variables called `names`; a free variable of that name gives way."""
    renaming = dict(zip(assignment.arguments, names, strict=True))
    renaming |= {new: old for old, new in renaming.items() if new not in renaming}
    return rename(assignment.value, renaming)


def _in_radians(text: str) -> str:
    return _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text) if "\u00b0" in text else text


def _folded(text: str) -> str:
    return re.sub(r"\\text|[\s{}]", "", text).lower()
