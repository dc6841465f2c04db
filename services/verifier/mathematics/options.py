"""The closed list of what one request may ask of the comparison of mathematics. Read by `compare.py`; pure."""

from collections.abc import Iterable

from prime.errors import InvalidInput

TWO_DECIMALS = "two_decimals"
"""A value rounded to two decimals is enough: `3.14` for `\\pi`. Without it, six decimals and four digits that count."""
CONVERT_UNITS = "convert_units"
"""Units convert by the table of `units.py`: `5` km for `5000` m. Without it, two different units are a mismatch."""
CONVERT_BASES = "convert_bases"
"""`1010_2` is right for `10`. Without it, the base is part of the answer."""
COLUMN_VECTOR_IS_TUPLE = "column_vector_is_tuple"
"""A column matrix or an angle-bracket vector may stand for a tuple."""
PERCENT_BY_VALUE = "percent_by_value"
"""For `50\\%` only `50\\%` and `0.5` count, for `50` never `50\\%`. Without it the sign may be left out or added."""
CONSTANT_OPTIONAL = "constant_optional"
"""The constant of integration may be left out, or added."""
GOLD_RESTATES_QUESTION = "gold_restates_question"
"""The question states the gold in another form, so only the form of the gold counts: interval for interval."""

BRACKETS_COUNT = "brackets_count"
"""`(1,2,3)` is wrong for `1,2,3`. Without it three items or more may have round brackets, in the order of the gold."""
BASE_OPTIONAL = "base_optional"
"""The question names the base, so `2516_8` is right for `2516`. Without it, a number without a base is in base ten."""

MATH_OPTIONS = frozenset(
    {
        BASE_OPTIONAL,
        BRACKETS_COUNT,
        TWO_DECIMALS,
        CONVERT_UNITS,
        CONVERT_BASES,
        COLUMN_VECTOR_IS_TUPLE,
        PERCENT_BY_VALUE,
        CONSTANT_OPTIONAL,
        GOLD_RESTATES_QUESTION,
    }
)


def check_options(options: Iterable[str]) -> None:
    """Refuse a name that is not in the list.

    Raises:
        InvalidInput: names the unknown options and lists the known ones.
    """
    unknown = sorted(set(options) - MATH_OPTIONS)
    if unknown:
        raise InvalidInput(
            f"unknown mathematics options {', '.join(map(repr, unknown))}; known are {', '.join(sorted(MATH_OPTIONS))}"
        )
