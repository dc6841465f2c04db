"""Compares sympy expressions by their form, up to order, multiplying out and factors. For the workers only.

Functions count as atoms, so an identity between them is not used: `\\sin^2x+\\cos^2x` is not 1 here. That is what tells
one identity from another.
"""

from typing import Any

_MOST_OPERATIONS = 400
_LARGEST_POWER = 12


def with_standard_indices(expression: Any) -> Any:
    """The expression with the bound variables of sums, products and integrals called alike.

    A symbol whose subscript is the bound variable goes along: `\\sum_i a_i` is `\\sum_k a_k`.
    """
    import sympy

    bound = (sympy.Sum, sympy.Product, sympy.Integral)
    if not isinstance(expression, sympy.Basic) or not expression.has(*bound):
        return expression

    def renamed(node: Any) -> Any:
        names = {}
        for number, (variable, *_) in enumerate(node.limits):
            standard = sympy.Symbol(f"bound_{number}", real=True)
            names[variable] = standard
            for symbol in node.function.free_symbols:
                stem, _, subscript = symbol.name.partition("_")
                if subscript.strip("{}") == variable.name:
                    names[symbol] = sympy.Symbol(f"{stem}_bound_{number}", real=True)
        return node.func(node.function.xreplace(names), *(limit.xreplace(names) for limit in node.limits))

    return expression.replace(lambda node: isinstance(node, bound), renamed)


def from_one_start(first: Any, second: Any) -> tuple[Any, Any]:
    """Two sums with the index of the second shifted so that both start at the same number, where that can be done."""
    import sympy

    for kind in (sympy.Sum, sympy.Product):
        if isinstance(first, kind) and isinstance(second, kind) and len(first.limits) == len(second.limits) == 1:
            (_, low, _), (index, other_low, high) = first.limits[0], second.limits[0]
            shift = other_low - low
            if shift.is_Integer and shift != 0:
                body = second.function.xreplace({index: index + shift})
                return first, kind(body, (index, low, high - shift))
    return first, second


def in_order(expression: Any) -> Any:
    """The expression with its terms and factors in one order; the parser keeps them as they were written."""
    return expression.replace(lambda node: bool(node.args), lambda node: node.func(*node.args))


def have_same_form(first: Any, second: Any) -> bool:
    """Whether the difference disappears by multiplying out alone."""
    import sympy

    if first == second:
        return True
    if not _are_small(first, second):
        return False
    return bool(sympy.expand(first - second) == 0)


def ratio_of_forms(first: Any, second: Any) -> Any | None:
    """The number that one is times the other, by multiplying out and cancelling alone; None: there is none."""
    import sympy

    if not _are_small(first, second):
        return None
    above, below = sympy.expand(first), sympy.expand(second)
    if above == 0 or below == 0:
        return None
    ratio = sympy.cancel(sympy.together(above / below))
    return ratio if ratio.is_number and ratio.is_finite and ratio != 0 else None


def without_denominators(expression: Any) -> Any:
    """The numerator over a common denominator: `xy-1` for `y-\\frac1x`."""
    import sympy

    return sympy.fraction(sympy.together(expression))[0] if _are_small(expression) else expression


def is_nothing(expression: Any) -> bool:
    """Whether it is zero by multiplying out alone."""
    import sympy

    return bool(_are_small(expression) and sympy.expand(expression) == 0)


def rational_polynomial(expression: Any) -> Any | None:
    """The polynomial with rational coefficients that it is, multiplied out; None where it is none, or a large one."""
    import sympy

    symbols = sorted(expression.free_symbols, key=str)
    if not symbols or not _are_small(expression) or not expression.is_polynomial(*symbols):
        return None
    if any(not power.exp.is_Integer or power.exp > _LARGEST_POWER for power in expression.atoms(sympy.Pow)):
        return None
    polynomial = sympy.Poly(expression, *symbols)
    return polynomial if polynomial.domain.is_ZZ or polynomial.domain.is_QQ else None


def _are_small(*expressions: Any) -> bool:
    return all(expression.count_ops() <= _MOST_OPERATIONS for expression in expressions)
