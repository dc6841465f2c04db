"""The rules for equations and for names with a value: when `x=5` is 5, and when two equations are one. Pure."""

from dataclasses import replace

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.names import (
    Assignment,
    Kind,
    has_equals,
    has_symbols,
    read_assignment,
    rename,
    split_equals,
)
from services.verifier.mathematics.question import How, Leaf, Result, conjunction
from services.verifier.mathematics.rationals import read_number
from services.verifier.mathematics.rules import Rules, TooManyToMatch

# Links of a chain that are compared one by one while the service waits.
_MOST_LINKS = 16


def compare_with_name_left_out(answer: str, gold: str, rules: Rules) -> Result | None:
    """`A=(1,2)` and `(1,2)`: one side names the value and the other does not."""
    left, right = read_assignment(answer), read_assignment(gold)
    named, bare = (left, gold) if left else (right, answer)
    if named is None or (left and right) or named.kind is not Kind.NAME:
        return None
    if named.is_label:
        return rules.items(named.value, gold) if left else rules.items(answer, named.value)
    if has_equals(named.value) or _names_something(bare):
        return None
    return rules.items(named.value, gold) if left else rules.items(answer, named.value)


def compare_equations(answer: str, gold: str, rules: Rules) -> Result | None:
    """Equations up to a factor, functions up to the names of their arguments, values by their names."""
    if not (_names_something(answer) or _names_something(gold)):
        return None
    left, right = read_assignment(answer), read_assignment(gold)
    if not _names_something(gold):
        if left and left.value == left.name:
            return False  # `q=q` says nothing
        return _compare_chain(left.value if left else answer, gold, rules)
    if not _names_something(answer):
        value = _value_named_by(gold, right)
        return False if value is None else rules.items(answer, value)
    if left and right:
        return _compare_two_assignments(left, right, answer, gold, rules)
    if not has_symbols(gold):
        return _compare_chain(answer, split_equals(gold)[-1], rules)
    if right and right.kind is not Kind.EXPRESSION and not has_symbols(right.value):
        return False  # the gold is a solution, the answer an equation still to be solved
    return _compare_as_equations(answer, gold, rules)


def _names_something(text: str) -> bool:
    return has_equals(text) or (("(" in text or ":" in text) and read_assignment(text) is not None)


def _compare_chain(answer: str, gold: str, rules: Rules) -> Result:
    # A chain such as `\frac{1}{2}=0.5` must be right in every link, or `3=5` would pass for 5.
    parts = split_equals(answer)
    if len(parts) > _MOST_LINKS:
        raise TooManyToMatch
    if len({number.value for part in parts if (number := read_number(part)) is not None}) > 1:
        return False
    return conjunction(rules.items(part, gold) if part else False for part in parts)


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


def _compare_two_assignments(left: Assignment, right: Assignment, answer: str, gold: str, rules: Rules) -> Result:
    if left.kind is Kind.FUNCTION and right.kind is Kind.FUNCTION:
        if left.name != right.name or len(left.arguments) != len(right.arguments):
            return False
        return _up_to_names(_compare_chain(_with_arguments(left, right.arguments), right.last_value, rules))
    is_function = Kind.FUNCTION in (left.kind, right.kind)
    if left.name == right.name or (is_function and _may_be_y(left, right)):
        if left.kind is Kind.EXPRESSION and has_symbols(right.last_value):
            return _compare_as_equations(answer, gold, rules)
        value = _compare_chain(left.value, right.last_value, rules)
        return _up_to_names(value) if is_function or left.name == "y" else value
    if ":" in left.name and ":" in right.name:
        return _compare_named_ratios(left, right, rules)
    are_expressions = left.kind is Kind.EXPRESSION and right.kind is Kind.EXPRESSION
    if are_expressions or (has_symbols(left.value) and has_symbols(right.value)):
        return _compare_as_equations(answer, gold, rules)
    return False


def _compare_named_ratios(left: Assignment, right: Assignment, rules: Rules) -> Result:
    """`a:b=2:3` and `b:a=3:2`: each name has its own part."""
    names, wanted = left.name.split(":"), right.name.split(":")
    parts = left.value.split(":")
    if sorted(names) != sorted(wanted) or len(names) != len(parts) or len(set(names)) != len(names):
        return False
    by_name = dict(zip(names, parts, strict=True))
    return rules.items(":".join(by_name[name] for name in wanted), right.value)


def _compare_as_equations(answer: str, gold: str, rules: Rules) -> Result:
    if math_options.GOLD_RESTATES_QUESTION in rules.options:
        return False
    first, second = split_equals(answer), split_equals(gold)
    if len(first) != 2 or len(second) != 2 or not all(first) or not all(second):
        return False
    return rules.leaf(answer, gold, How.UP_TO_FACTOR)


def _may_be_y(left: Assignment, right: Assignment) -> bool:
    """Whether one is a function and the other calls its value `y`, with as many dashes."""
    function, other = (left, right) if left.kind is Kind.FUNCTION else (right, left)
    return other.kind is Kind.NAME and other.name == "y" + "'" * function.name.count("'")


def _up_to_names(result: Result) -> Result:
    """The values of functions, which may have arbitrary constants in them."""
    return replace(result, how=How.UP_TO_NAMES) if isinstance(result, Leaf) and result.how is How.SAME else result


def _with_arguments(assignment: Assignment, names: tuple[str, ...]) -> str:
    """The value with its bound variables called `names`; a free variable of that name gives way."""
    renaming = dict(zip(assignment.arguments, names, strict=True))
    renaming |= {new: old for old, new in renaming.items() if new not in renaming}
    return rename(assignment.value, renaming)
