"""Makes expressions evaluable: works out what is left to do, and puts symbols for unknown values. For the workers only.

`f(x)+1` becomes `u+1`: whatever the function is, it has one value there. A derivative of a bare symbol is such a value
too; worked out it would be zero. An integral or a sum over an unknown function is one unknown value as a whole.
"""

import random
from typing import Any

_DEGREE = 5


def with_known_parts(expression: Any) -> Any:
    """The expression with integrals, limits and derivatives worked out, and a symbol for each unknown value."""
    import sympy
    from sympy.core.function import AppliedUndef

    if not isinstance(expression, sympy.Basic):
        return expression
    held = (sympy.Integral, sympy.Limit, sympy.Derivative)
    unknown = [each for each in expression.atoms(sympy.Derivative) if each.expr.is_Symbol]
    unknown += [each for each in expression.atoms(*held, sympy.Sum, sympy.Product) if each.has(AppliedUndef)]
    expression = _named(expression, unknown, "unknown")
    expression = _named(expression, expression.atoms(AppliedUndef), "value")
    return expression.doit() if expression.has(*held) else expression


def have_other_unknowns(first: Any, second: Any) -> bool:
    """Whether integrals or sums that could not be worked out differ; they may still be equal."""
    ours, theirs = (
        {each for each in side.free_symbols if each.name.startswith("unknown_")} for side in (first, second)
    )
    return ours != theirs


def with_example(expression: Any) -> Any:
    """The expression with a polynomial for each unknown function: what differs for one function is not the same."""
    import sympy
    from sympy.core.function import AppliedUndef

    def example(value: Any) -> Any:
        source = random.Random(str(value.func))
        return sympy.Add(
            *(
                sympy.Rational(source.randint(1, 50), 7) * argument**power
                for argument in value.args
                for power in range(_DEGREE)
            )
        )

    known = expression.replace(lambda node: isinstance(node, AppliedUndef), example)
    return known.replace(lambda node: isinstance(node, sympy.Integral), _integrated).doit()


def _integrated(integral: Any) -> Any:
    """A definite integral of a polynomial, which is much faster than the general way."""
    import sympy

    body, *limits = integral.args
    if len(limits) != 1 or len(limits[0]) != 3:
        return integral
    variable, low, high = limits[0]
    try:
        whole = sympy.Poly(sympy.expand(body), variable).integrate()
    except sympy.PolynomialError:
        return integral
    return whole.eval(high) - whole.eval(low)


def _named(expression: Any, values: Any, kind: str) -> Any:
    import sympy

    return expression.xreplace({each: sympy.Symbol(f"{kind}_{each}", real=True) for each in values})
