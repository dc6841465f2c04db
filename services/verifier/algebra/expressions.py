"""When two expressions are the same: by their values, else by their form, else by Math-Verify. For the workers only."""

from typing import Any

from services.verifier.algebra.evaluation import NotEvaluable
from services.verifier.algebra.formal import from_one_start, have_same_form, rational_polynomial
from services.verifier.algebra.sampling import Agreement, compare_functions, differ_roughly
from services.verifier.algebra.unknowns import have_other_unknowns, with_example, with_known_parts

_FLOAT_DIGITS = 6
_VETO_DIGITS = 30


def is_expression(parsed: Any) -> bool:
    """Whether it is an algebraic expression with a finite value somewhere."""
    import sympy
    from sympy.concrete.expr_with_limits import ExprWithLimits

    if not isinstance(parsed, sympy.Expr):
        return False
    if parsed.has(sympy.oo) and parsed.has(ExprWithLimits):
        # A sum may run to infinity; what is summed has to be finite.
        parsed = parsed.replace(lambda node: isinstance(node, ExprWithLimits), lambda node: node.function)
    return not parsed.has(sympy.zoo, sympy.oo, -sympy.oo, sympy.nan)


def same_expression(left: Any, right: Any) -> bool | None:
    """Whether two parsed texts are equal; None where nothing decides it."""
    import sympy

    if left == right:
        return True
    if not (is_expression(left) and is_expression(right)):
        return False
    difference = sympy.Add(left, sympy.Mul(-1, right))
    if isinstance(difference, sympy.Rational):
        return bool(difference == 0)
    polynomial = rational_polynomial(difference)
    if polynomial is not None:
        return bool(polynomial.is_zero)
    found = (
        _compare_repeated(left, right) if _is_repeated(left) or _is_repeated(right) else _compare_values(left, right)
    )
    if found in (Agreement.SAME, Agreement.DIFFERENT):
        return found is Agreement.SAME
    if found is Agreement.OTHER_DOMAIN and _is_repeated(left):
        return False  # Math-Verify would try to work them out
    if have_same_form(left, right) or verify([left], [right]):
        return True
    return False if found is Agreement.OTHER_DOMAIN else None


def _compare_repeated(left: Any, right: Any) -> Agreement:
    """Sums and products: the same when their terms are, else by their values, else worked out."""
    left, right = from_one_start(left, right)
    if left == right or _have_same_terms(left, right):
        return Agreement.SAME
    found = _compare_values(left, right)
    return _compare_values(left.doit(), right.doit()) if found is Agreement.UNKNOWN else found


def _compare_values(left: Any, right: Any, whole: frozenset[Any] = frozenset()) -> Agreement:
    if _differ_roughly(left, right):
        return Agreement.DIFFERENT
    first, second = with_known_parts(left), with_known_parts(right)
    try:
        found = compare_functions(first, second, whole)
        if found is not Agreement.DIFFERENT or not have_other_unknowns(first, second):
            return found
        found = compare_functions(with_example(left), with_example(right), whole)
    except NotEvaluable:
        return Agreement.UNKNOWN
    return Agreement.DIFFERENT if found is Agreement.DIFFERENT else Agreement.UNKNOWN


def _differ_roughly(left: Any, right: Any) -> bool:
    """Whether numerical integration already tells two integrals apart; working them out may take for ever."""
    import sympy

    if not (left.has(sympy.Integral) or right.has(sympy.Integral)):
        return False
    try:
        return differ_roughly(left, right)
    except NotEvaluable:
        return False


def _is_repeated(expression: Any) -> bool:
    import sympy

    return bool(expression.has(sympy.Sum, sympy.Product))


def _have_same_terms(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or not hasattr(left, "limits") or left.limits != right.limits:
        return False
    found = _compare_values(left.function, right.function, frozenset(left.variables))
    return found is Agreement.SAME


def verify(left: list[Any], right: list[Any]) -> bool:
    """What Math-Verify makes of two parsed answers; plain numbers that differ are never equal."""
    import math_verify

    if not math_verify.verify(left, right, float_rounding=_FLOAT_DIGITS, strict=True, timeout_seconds=None):
        return False
    return _numbers_agree(left[0], right[0])


def _numbers_agree(gold: Any, answer: Any) -> bool:
    """A veto over what was found equal: false when both are plain real numbers that differ.

    Math-Verify rounds to a fixed decimal place and so takes any two tiny numbers for equal.
    """
    import sympy

    if not all(isinstance(side, sympy.Expr) and side.is_number for side in (gold, answer)):
        return True
    first, second = sympy.N(gold, _VETO_DIGITS + 10), sympy.N(answer, _VETO_DIGITS + 10)
    if not (first.is_Float or first.is_Integer) or not (second.is_Float or second.is_Integer):
        return True
    difference, size = abs(first - second), max(abs(first), abs(second))
    return bool(difference <= size * sympy.Float(10) ** -_VETO_DIGITS)
