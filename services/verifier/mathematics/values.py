"""The rules for one value: bases, units, words, products with an order, constants of integration. Pure."""

import re
from fractions import Fraction

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.approximations import split_approximation
from services.verifier.mathematics.bases import has_base, read_based
from services.verifier.mathematics.forms import read_antiderivative, read_list
from services.verifier.mathematics.names import split_equals
from services.verifier.mathematics.products import have_ordered_factors, read_words
from services.verifier.mathematics.question import How, Result, conjunction
from services.verifier.mathematics.rationals import read_number, read_value
from services.verifier.mathematics.rules import Rules
from services.verifier.mathematics.text import is_words, same_text
from services.verifier.mathematics.units import Unit, factor_between, split_unit

_EMPTY = ("\\emptyset", "\\{\\}", "\\{\\emptyset\\}")
_INFINITIES = {"\\infty": 1, "+\\infty": 1, "-\\infty": -1}
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_END = re.compile(r"[<>]|\\(?:le|ge|in)(?![a-zA-Z])")
_CROSS = re.compile(r"(?P<sign>-?)(?P<first>[^-+\\]*\\?[^-+\\]*)\\cross(?P<second>[^-+]*)")
_DIGITS_APART = re.compile(r"(?<!_)\d \d")


def compare_texts(answer: str, gold: str, rules: Rules) -> bool | None:
    """Equal texts, numbers, empty sets and infinities: what can be seen at once."""
    if same_text(answer, gold):
        return True
    left, right = read_number(answer), read_number(gold)
    if left is not None and right is not None:
        return rules.same_value(left, right)
    if answer in _EMPTY or gold in _EMPTY:
        return answer in _EMPTY and gold in _EMPTY
    if answer in _INFINITIES and gold in _INFINITIES:
        return _INFINITIES[answer] == _INFINITIES[gold]
    return None


def compare_approximations(answer: str, gold: str, rules: Rules) -> Result | None:
    """One value each, with a remark behind it on what it is about; None where there are several items."""
    if "\\approx" not in answer and "\\approx" not in gold:
        return None
    left, right = split_approximation(answer), split_approximation(gold)
    if left is None or right is None:
        return None
    same = rules.items(left.value, right.value)
    if same is False or not left.remark:
        return same
    # What stands behind the sign has to be about right, or the answer says two things.
    return conjunction([same, _is_about(left.remark, split_equals(left.value)[-1], rules)])


def _is_about(remark: str, value: str, rules: Rules) -> Result:
    """Whether a remark is a rough value, part by part; of an inequality, of its end."""
    first, second = read_list(remark), read_list(value)
    if first and second and len(first.items) == len(second.items):
        pairs = zip(first.items, second.items, strict=True)
        return conjunction(_is_about(about, exact, rules) for about, exact in pairs)
    value = _END.split(value)[-1]
    return rules.leaf(split_unit(remark)[0], split_unit(value)[0], How.ABOUT)


def compare_bases(answer: str, gold: str, rules: Rules) -> bool | None:
    """Numbers in a base, one of which is nothing but that."""
    if not (has_base(answer) or has_base(gold)):
        return None
    first, second = read_based(answer), read_based(gold)
    if first is None and second is None:
        return None
    if first and (first == second or (math_options.BASE_OPTIONAL in rules.options and first.digits == gold)):
        return True
    values = [side.value() if side else read_value(text) for side, text in ((first, answer), (second, gold))]
    if None in values:
        # One of them may be more than a number: `x=12_3`, `2\cdot12_3`.
        return None if first is None or second is None else False
    # Ten is the base of a number without one; algebra would ignore any other.
    bases = [side.base if side else "10" for side in (first, second)]
    return values[0] == values[1] and (math_options.CONVERT_BASES in rules.options or bases[0] == bases[1])


def compare_values(answer: str, gold: str, rules: Rules) -> Result:
    """Single values of any kind; the last of the rules."""
    (first, first_unit), (second, second_unit) = split_unit(answer), split_unit(gold)
    if first_unit or second_unit:
        return _compare_with_units(first, first_unit, second, second_unit, rules)
    if _is_no_number_for(answer, gold) or _is_no_number_for(gold, answer):
        return False
    if "\\text" in answer or "\\text" in gold:
        return _folded(answer) == _folded(gold)
    if is_words(gold) and is_words(answer):
        return False  # read as a product, `AB` would equal `BA`
    if "\\cross" in answer or "\\cross" in gold:
        return _turned_cross_product(answer) == gold  # the parser knows no cross product
    if have_ordered_factors(answer, gold):
        words = read_words(gold)
        if words is not None:
            return words == read_words(answer)
    if gold in _INFINITIES or answer in _INFINITIES:
        return False
    return _compare_with_constants(answer, gold, rules)


def _is_no_number_for(text: str, other: str) -> bool:
    """Whether the other side is a number, and this is words or digits apart, which algebra might multiply."""
    if not (_DIGITS_APART.search(text) or _PROSE.search(text)):
        return False
    return read_number(other) is not None


def _compare_with_units(answer: str, left: Unit | None, gold: str, right: Unit | None, rules: Rules) -> Result:
    if (left is None and answer.endswith("%")) or (right is None and gold.endswith("%")):
        return False  # `5` dollars and `5\%`
    if left is None or right is None or left.names == right.names:
        return rules.items(answer, gold)
    factor = factor_between(left, right) if math_options.CONVERT_UNITS in rules.options else None
    if factor is None:
        return False
    number = read_number(answer)
    if number is None:
        return rules.items(f"({answer})\\cdot\\frac{{{factor.numerator}}}{{{factor.denominator}}}", gold)
    value: Fraction = number.value * factor
    return rules.items(f"{value.numerator}/{value.denominator}", gold)


def _compare_with_constants(answer: str, gold: str, rules: Rules) -> Result:
    left, right = read_antiderivative(answer), read_antiderivative(gold)
    if left and right:
        if left.is_certain or right.is_certain:
            return rules.leaf(left.rest, right.rest, How.UP_TO_CONSTANT)
        # Both letters are doubtful, so `n-1+k` is not `n+k`, while `x^2+k` still is `x^2+c`.
        if "c" in (left.name, right.name):
            return rules.leaf(left.rest, right.rest, How.SAME)
    elif (left or right) and math_options.CONSTANT_OPTIONAL in rules.options:
        return rules.leaf(left.rest if left else answer, right.rest if right else gold, How.UP_TO_CONSTANT)
    return rules.leaf(answer, gold, How.SAME)


def _turned_cross_product(text: str) -> str:
    """`-b\\times a` for `a\\times b`."""
    product = _CROSS.fullmatch(text)
    if product is None:
        return ""
    sign = "" if product.group("sign") else "-"
    return f"{sign}{product.group('second')}\\cross{product.group('first')}"


def _folded(text: str) -> str:
    return re.sub(r"\\text|[\s{}]", "", text).lower()
