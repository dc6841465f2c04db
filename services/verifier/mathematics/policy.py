"""The policy: when two normalised answers are the same, form by form. Pure; used by `compare.py`.

Each method answers True, False, or the question that is left for algebra. The forms are tried from the most to the
least specific; what no rule knows is compared as an expression.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.approximations import split_approximation
from services.verifier.mathematics.bases import has_base, in_base_ten, read_based, with_plain_bases
from services.verifier.mathematics.forms import (
    Listing,
    read_antiderivative,
    read_list,
    read_matrix,
    read_residue,
    split_items,
)
from services.verifier.mathematics.geometry import read_statement, same_triangle, with_ordered_points
from services.verifier.mathematics.names import (
    Assignment,
    Kind,
    has_equals,
    has_symbols,
    read_assignment,
    rename,
    split_equals,
)
from services.verifier.mathematics.opaque import with_symbols
from services.verifier.mathematics.products import have_ordered_factors, read_words
from services.verifier.mathematics.question import DECIMALS, How, Leaf, Result, conjunction, matching
from services.verifier.mathematics.rationals import Number, read_number, same_number
from services.verifier.mathematics.ratios import Ratio, read_clock, read_ratio
from services.verifier.mathematics.regions import Piece, Region, read_combination, read_region
from services.verifier.mathematics.text import is_words, same_text
from services.verifier.mathematics.units import Unit, factor_between, split_unit

_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|subset|subseteq|setminus|backslash|mathbb|R)(?![a-zA-Z])")
_ORDER = re.compile(r"<|>|\\(?:le|ge)(?![a-zA-Z])")
_EMPTY = ("\\emptyset", "\\{\\}", "\\{\\emptyset\\}")
_INFINITIES = {"\\infty": 1, "+\\infty": 1, "-\\infty": -1}
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
        answer, gold = with_plain_bases(answer), with_plain_bases(gold)
        first, second = read_residue(answer), read_residue(gold)
        if first or second:
            return first == second
        if _HELD.search(answer) and not _HELD.search(gold) and _is_left_to_do(answer):
            return False  # the question again
        return self._compare_items(answer, gold)

    def _compare_bases(self, answer: str, gold: str) -> bool | None:
        if not (has_base(answer) or has_base(gold)):
            return None
        first, second = read_based(answer), read_based(gold)
        if first and second and first == second:
            return True
        if first is None and second is None:
            return None
        if first and second is None and math_options.BASE_OPTIONAL in self._options and first.digits == gold:
            return True
        values = [side.value() if side else _exact(text) for side, text in ((first, answer), (second, gold))]
        if None in values:
            # One of them may be more than a number: `x=12_3`, `2\\cdot12_3`.
            return None if first is None or second is None else False
        # Ten is the base of a number without one; algebra would ignore any other.
        bases = [side.base if side else "10" for side in (first, second)]
        converts = math_options.CONVERT_BASES in self._options
        return values[0] == values[1] and (converts or bases[0] == bases[1])

    def _compare_items(self, answer: str, gold: str) -> Result:
        answer, gold = (with_ordered_points(_IN_SET.sub("", text)) for text in (answer, gold))
        if same_text(answer, gold):
            return True
        if "\\approx" in answer or "\\approx" in gold:
            about = self._compare_approximations(answer, gold)
            if about is not None:
                return about
        based = self._compare_bases(answer, gold)
        if based is not None:
            return based
        left, right = read_number(answer), read_number(gold)
        if left is not None and right is not None:
            return self.same_value(left, right)
        if answer in _EMPTY or gold in _EMPTY:
            return answer in _EMPTY and gold in _EMPTY
        if answer in _INFINITIES and gold in _INFINITIES:
            return _INFINITIES[answer] == _INFINITIES[gold]
        told = self._compare_tellings(answer, gold)
        if told is not None:
            return told
        if _is_relation(answer) or _is_relation(gold):
            related = self._compare_relations(answer, gold)
            if related is not None:
                return related
        matrices = self._compare_matrices(answer, gold)
        if matrices is not None:
            return matrices
        listed = self._compare_lists(answer, gold)
        if listed is not None:
            return listed
        if _names_something(answer) or _names_something(gold):
            return self._compare_equations(answer, gold)
        ratios = self._compare_ratios(answer, gold)
        if ratios is not None:
            return ratios
        return self._compare_values(answer, gold)

    def _compare_approximations(self, answer: str, gold: str) -> Result | None:
        """One value each, with a remark behind it on what it is about; None where there are several items."""
        left, right = split_approximation(answer), split_approximation(gold)
        if left is None or right is None:
            return None
        same = self._compare_items(left.value, right.value)
        if same is False or not left.remark:
            return same
        about, value = split_unit(left.remark)[0], split_unit(left.value)[0]
        value = split_equals(value)[-1]
        # What stands behind the sign has to be about right, or the answer says two things.
        return conjunction([same, self._leaf(about, value, How.ABOUT)])

    # ------------------------------------------------------------ times, statements, ratios

    def _compare_tellings(self, answer: str, gold: str) -> bool | None:
        """Times of the day and statements about points."""
        if ":" in gold or "m" in gold or gold == "noon":
            time = read_clock(gold)
            if time is not None:
                other = read_clock(answer)
                if other is not None:
                    return time.same_time(other)
                return None if time.may_be_ratio else False
        triangles = same_triangle(answer, gold) if "\\triangle" in gold else None
        if triangles is not None:
            return triangles
        if "\\" not in gold and "|" not in gold:
            return None
        statement = read_statement(gold)
        return None if statement is None else statement == read_statement(answer)

    def _compare_ratios(self, answer: str, gold: str) -> Result | None:
        left, right = read_ratio(answer), read_ratio(gold)
        if left is None and right is None:
            return None
        if left is None or right is None:
            ratio, other = (left, gold) if left else (right, answer)
            assert ratio is not None
            if len(ratio.parts) != 2:
                return False
            value = _as_fraction(ratio)
            return self._compare_values(value, other) if left else self._compare_values(other, value)
        if len(left.parts) != len(right.parts):
            return False
        pivot = next((index for index, part in enumerate(right.parts) if _is_nonzero(part)), 0)
        if (number := read_number(left.parts[pivot])) is not None and number.value == 0:
            return False
        return conjunction(
            self._compare_items(_quotient(part, left.parts[pivot]), _quotient(other, right.parts[pivot]))
            for index, (part, other) in enumerate(zip(left.parts, right.parts, strict=True))
            if index != pivot
        )

    # ------------------------------------------------------------ regions and inequalities

    def _compare_relations(self, answer: str, gold: str) -> Result | None:
        left, right = read_region(answer), read_region(gold)
        if left is not None and right is not None:
            return self._compare_regions(left, right)
        if right is not None and "\\ne" in gold:
            return False
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
        first, second = _as_equation(answer), _as_equation(gold)
        if (first is None) != (second is None):
            return False  # an inequality and something else
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
            if "\\begin" not in answer or "\\begin" not in gold or "\\text" in answer or read_list(answer):
                return False
            return self._leaf(answer, gold)
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
                return self._compare_with_other_brackets(left, right)
        if len(left.items) != len(right.items):
            return False
        if left.brackets:
            pairs = zip(left.items, right.items, strict=True)
            return conjunction(self._compare_items(first, second) for first, second in pairs)
        return self._compare_sets(left.items, right.items)

    def _compare_with_other_brackets(self, answer: Listing, gold: Listing) -> Result:
        """`(1,2,3)` for `1,2,3`, in that order; two items in brackets may be an interval."""
        if math_options.BRACKETS_COUNT in self._options or gold.brackets or answer.brackets != "()":
            return False
        if len(answer.items) != len(gold.items) or len(gold.items) < 3:
            return False
        pairs = zip(answer.items, gold.items, strict=True)
        return conjunction(self._compare_items(first, second) for first, second in pairs)

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
        if (first is None) != (second is None) and len(answer) == len(gold):
            # Values without their names have to come in the order of the names.
            return conjunction(self._compare_items(item, other) for item, other in zip(answer, gold, strict=True))
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
        if not _names_something(gold):
            if left and left.value == left.name:
                return False
            return self._compare_chain(left.value if left else answer, gold)
        if not _names_something(answer):
            value = _value_named_by(gold, right)
            return False if value is None else self._compare_items(answer, value)
        if left and right:
            return self._compare_two_assignments(left, right, answer, gold)
        if not has_symbols(gold):
            return self._compare_chain(answer, split_equals(gold)[-1])
        if right and right.kind is not Kind.EXPRESSION and not has_symbols(right.value):
            return False  # the gold is a solution, the answer an equation still to be solved
        return self._compare_as_equations(answer, gold)

    def _compare_chain(self, answer: str, gold: str) -> Result:
        # `q=q` says nothing, and a chain such as `\\frac{1}{2}=0.5` must be right in every link, or `3=5` would pass for 5.
        parts = split_equals(answer)
        if len(parts) > _MOST_LINKS:
            raise TooManyToMatch
        known = {number.value for part in parts if (number := read_number(part)) is not None}
        if len(known) > 1:
            return False
        return conjunction(self._compare_items(part, gold) if part else False for part in parts)

    def _compare_two_assignments(self, left: Assignment, right: Assignment, answer: str, gold: str) -> Result:
        if left.kind is Kind.FUNCTION and right.kind is Kind.FUNCTION:
            if left.name != right.name or len(left.arguments) != len(right.arguments):
                return False
            value = self._compare_chain(_with_arguments(left, right.arguments), right.last_value)
            return _up_to_names(value)
        is_function = Kind.FUNCTION in (left.kind, right.kind)
        if left.name == right.name or (is_function and _may_be_y(left, right)):
            if left.kind is Kind.EXPRESSION and has_symbols(right.last_value):
                return self._compare_as_equations(answer, gold)
            value = self._compare_chain(left.value, right.last_value)
            return _up_to_names(value) if is_function or left.name == "y" else value
        are_expressions = left.kind is Kind.EXPRESSION and right.kind is Kind.EXPRESSION
        if are_expressions or (not is_function and has_symbols(left.value) and has_symbols(right.value)):
            return self._compare_as_equations(answer, gold)
        return False

    def _compare_as_equations(self, answer: str, gold: str) -> Result:
        if math_options.GOLD_RESTATES_QUESTION in self._options:
            return False
        first, second = split_equals(answer), split_equals(gold)
        if len(first) != 2 or len(second) != 2 or not all(first) or not all(second):
            return False
        return self._leaf(answer, gold, How.UP_TO_FACTOR)

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
        if "\\cross" in answer or "\\cross" in gold:
            return False  # the parser knows no cross product
        if have_ordered_factors(answer, gold):
            words = read_words(gold)
            return words is not None and words == read_words(answer)
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
        if has_base(answer) or has_base(gold):
            left, right = in_base_ten(answer), in_base_ten(gold)
            if left is None or right is None:
                return False
            if left.bases != right.bases and math_options.CONVERT_BASES not in self._options:
                return False
            answer, gold = left.text, right.text
        answer, gold = (with_symbols(_in_radians(_without_percent(text))) for text in (answer, gold))
        return Leaf(answer=answer, gold=gold, how=how, decimals=self._decimals)


def _is_left_to_do(answer: str) -> bool:
    """Whether an item ends in an integral, a sum or a limit; `\\int_0^1 x dx=1/2` ends in its value."""
    return any(_HELD.search(split_equals(item)[-1]) for item in split_items(answer))


def _settled(result: Result | None) -> Result:
    if result is None:
        raise TooManyToMatch
    return result


def _exact(text: str) -> Fraction | None:
    number = read_number(text)
    return None if number is None else number.value


def _as_equation(text: str) -> tuple[str, str] | None:
    """The greater side of one inequality, an equals sign and the smaller one; and whether it is strict."""
    signs, parts = _ORDER.findall(text), _ORDER.split(text)
    if len(signs) != 1 or not all(parts):
        return None
    small, great = parts if signs[0] in ("<", "\\le") else reversed(parts)
    return f"{great}={small}", "strict" if signs[0] in "<>" else "weak"


def _is_relation(text: str) -> bool:
    """Whether the text is an inequality or a set, and not only what it names has such a sign: `P(A\\cup B)=1`."""
    if not _RELATION.search(text):
        return False
    named = read_assignment(text)
    return named is None or _RELATION.search(named.value) is not None and ":" not in text


def _names_something(text: str) -> bool:
    return has_equals(text) or (("(" in text or ":" in text) and read_assignment(text) is not None)


def _value_named_by(gold: str, named: Assignment | None) -> str | None:
    """The value that a gold gives a name to, or that the sides of a worked answer have; None: it is an equation."""
    if named is None:
        sides = split_equals(gold)
        known = {number.value for side in sides if (number := read_number(side)) is not None}
        return None if has_symbols(gold) or len(known) > 1 else sides[-1]
    *links, value = split_equals(named.value)
    if has_symbols(value) and (links or named.kind is Kind.EXPRESSION):
        return None
    return value


def _may_be_y(left: Assignment, right: Assignment) -> bool:
    """Whether one is a function and the other calls its value `y`, with as many dashes."""
    function, other = (left, right) if left.kind is Kind.FUNCTION else (right, left)
    return other.kind is Kind.NAME and other.name == "y" + "'" * function.name.count("'")


def _as_fraction(ratio: Ratio) -> str:
    return _quotient(*ratio.parts)


def _quotient(above: str, below: str) -> str:
    first, second = read_number(above), read_number(below)
    if first is not None and second is not None and second.value:
        value = first.value / second.value
        return f"{value.numerator}/{value.denominator}"
    return rf"\frac{{{above}}}{{{below}}}"


def _is_nonzero(text: str) -> bool:
    number = read_number(text)
    return number is not None and number.value != 0


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
    return assignment.value if assignment and not has_equals(assignment.value) else text


def _named_values(items: Sequence[str]) -> dict[str, str] | None:
    """Values by name when every item is an assignment and no name occurs twice; for several items only."""
    found = [
        assignment for item in items if (assignment := read_assignment(item)) and assignment.kind is not Kind.FUNCTION
    ]
    values = {assignment.name: assignment.value for assignment in found}
    return values if len(values) == len(found) == len(items) > 1 else None


def _up_to_names(result: Result) -> Result:
    """The values of functions, which may have arbitrary constants in them."""
    return replace(result, how=How.UP_TO_NAMES) if isinstance(result, Leaf) and result.how is How.SAME else result


def _with_arguments(assignment: Assignment, names: tuple[str, ...]) -> str:
    """The value with its bound variables called `names`; a free variable of that name gives way."""
    renaming = dict(zip(assignment.arguments, names, strict=True))
    renaming |= {new: old for old, new in renaming.items() if new not in renaming}
    return rename(assignment.value, renaming)


def _without_percent(text: str) -> str:
    number = read_number(text) if text.endswith("%") else None
    return text if number is None else f"\\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"


def _in_radians(text: str) -> str:
    return _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text) if "\u00b0" in text else text


def _folded(text: str) -> str:
    return re.sub(r"\\text|[\s{}]", "", text).lower()
