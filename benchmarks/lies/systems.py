"""Golds with several statements: systems, chains of inequalities, pieces, quotient and remainder, several functions."""

from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import nonzero, number, rationals, total


@form("chain of letters")
def chain(source: Random) -> Problem:
    a, b, c = source.choice((("a", "b", "c"), ("x", "y", "z"), ("p", "q", "r"), ("M", "N", "P")))
    return Problem(
        gold=f"{a}<{b}<{c}",
        is_value=False,
        right={"backwards": f"{c}>{b}>{a}", "spaced": f"{a} < {b} < {c}"},
        wrong={
            "order": f"{b}<{a}<{c}",
            "turned": f"{a}>{b}>{c}",
            "closed": f"{a}\\le {b}<{c}",
            "two of them": f"{a}<{b}",
            "equal": f"{a}={b}={c}",
            "last two": f"{a}<{c}<{b}",
            "tautology": f"{a}<{a}+1<{a}+2",
            "letters alone": f"{a},{b},{c}",
        },
    )


@form("two constants")
def two_constants(source: Random) -> Problem:
    k, m, n = source.sample(range(2, 9), 3)
    gold, same, lies = source.choice(
        (
            (
                f"y=C_1e^{{{k}x}}+C_2e^{{-{m}x}}",
                f"y=Ae^{{{k}x}}+Be^{{-{m}x}}",
                (
                    f"y=C_1e^{{{k}x}}+C_2e^{{{m}x}}",
                    f"y=C_1e^{{{n}x}}+C_2e^{{-{m}x}}",
                    f"y=C_1e^{{{k}x}}",
                    f"y=e^{{{k}x}}+e^{{-{m}x}}",
                ),
            ),
            (
                f"y=C_1\\cos {k}x+C_2\\sin {k}x",
                f"y=A\\cos({k}x)+B\\sin({k}x)",
                (f"y=C_1\\cos {m}x+C_2\\sin {m}x", f"y=C_1\\cos {k}x", f"y=C_1e^{{{k}x}}+C_2e^{{-{k}x}}"),
            ),
        )
    )
    return Problem(
        gold=gold,
        right={"renamed": same, "spaced": gold.replace("+", " + ").replace("=", " = ")},
        wrong={f"lie {place}": lie for place, lie in enumerate(lies)} | {"zero": "y=0", "itself": "y=y"},
    )


@form("several functions")
def functions(source: Random) -> Problem:
    a, b = source.sample(range(2, 9), 2)
    return Problem(
        gold=f"f(x)={a}x, f(x)={total((1, 'x'), (b, ''))}",
        is_value=False,
        right={
            "other order": f"f(x)=x+{b}, f(x)={a}x",
            "or": f"f(x)={a}x \\text{{ or }} f(x)=x+{b}",
            "renamed": f"f(t)={a}t, f(t)=t+{b}",
        },
        wrong={
            "one": f"f(x)={a}x",
            "the other": f"f(x)=x+{b}",
            "coefficients mixed": f"f(x)={b}x, f(x)=x+{a}",
            "one more": f"f(x)={a}x, f(x)=x+{b}, f(x)=0",
            "sum": f"f(x)={a + 1}x+{b}",
            "one sign": f"f(x)=-{a}x, f(x)=x+{b}",
        },
    )


@form("partial derivative")
def partial(source: Random) -> Problem:
    a, n = source.randint(2, 9), source.randint(2, 5)
    name, other = source.choice((("x", "y"), ("y", "x")))
    body = f"{a}x^{n}y"
    return Problem(
        gold=f"\\frac{{\\partial z}}{{\\partial {name}}}={body}",
        right={
            "commuted": f"\\frac{{\\partial z}}{{\\partial {name}}}={a}yx^{n}",
            "spaced": f"\\frac{{\\partial z}}{{\\partial {name}}} = {body}",
        },
        wrong={
            "other variable": f"\\frac{{\\partial z}}{{\\partial {other}}}={body}",
            "exponent": f"\\frac{{\\partial z}}{{\\partial {name}}}={a}x^{n + 1}y",
            "factor": f"\\frac{{\\partial z}}{{\\partial {name}}}={a + 1}x^{n}y",
            "sign": f"\\frac{{\\partial z}}{{\\partial {name}}}=-{body}",
            "itself": f"\\frac{{\\partial z}}{{\\partial {name}}}=\\frac{{\\partial z}}{{\\partial {name}}}",
        },
    )


@form("law with constants")
def law(source: Random) -> Problem:
    power, below = source.randint(2, 6), source.choice((2, 4, 5, 7, 8))
    thousandths = Fraction(below, 1000)
    letter = source.choice(("M", "N", "T", "Q"))
    mark = source.choice(("L_{\\odot}", "K", "M_{0}^{2}", "g_0"))
    gold = f"\\frac{{d{letter}}}{{dt}}=\\frac{{10^{{{power}}}{mark}}}{{0.00{below}c^{{2}}}}{letter}^{{3}}"
    assert thousandths == Fraction(f"0.00{below}")

    def over(top: int, bottom: int, degree: int = 3, name: str = letter, c: str = "c^{2}") -> str:
        return f"\\frac{{d{name}}}{{dt}}=\\frac{{10^{{{top}}}{mark}}}{{{bottom}{c}}}{name}^{{{degree}}}"

    return Problem(
        gold=gold,
        right={
            "no decimals": over(power + 3, below),
            "spaced": gold.replace("=", " = "),
            "letter inside": gold.replace(f"}}{letter}^{{3}}", "}").replace(mark, f"{mark}{letter}^{{3}}"),
        },
        wrong={
            "power of ten": over(power + 2, below),
            "denominator": over(power + 3, below + 1),
            "degree": over(power + 3, below, degree=4),
            "other letter": over(power + 3, below, name="W"),
            "constant's power": over(power + 3, below, c="c"),
            "constant lost": over(power + 3, below, c=""),
            "sign": over(power + 3, below).replace("=", "=-"),
            "right side doubled": over(power + 3, below).replace("=", "=2"),
        },
    )


@form("system of equations as an answer")
def system(source: Random) -> Problem:
    a, b = rationals(source, 2)
    x, y = source.choice((("x", "y"), ("a", "b"), ("m", "n")))
    return Problem(
        gold=f"{x}={number(a)}, {y}={number(b)}",
        is_value=False,
        right={
            "semicolon": f"{x}={number(a)}; {y}={number(b)}",
            "cases": f"\\begin{{cases}}{x}={number(a)}\\\\{y}={number(b)}\\end{{cases}}",
            "other order": f"{y}={number(b)}, {x}={number(a)}",
            "text and": f"{x}={number(a)}\\quad\\text{{and}}\\quad {y}={number(b)}",
            "sides swapped": f"{number(a)}={x}, {number(b)}={y}",
        },
        wrong={
            "swapped": f"{x}={number(b)}, {y}={number(a)}",
            "cases swapped": f"\\begin{{cases}}{x}={number(b)}\\\\{y}={number(a)}\\end{{cases}}",
            "or": f"{x}={number(a)}, {y}={number(b + 1)}",
            "second alone": f"{y}={number(b)}",
            "sum": f"{x}+{y}={number(a + b)}",
            "excluded": f"{x}\\ne {number(a)}, {y}\\ne {number(b)}",
        },
    )


@form("conditions on two letters")
def conditions(source: Random) -> Problem:
    a, b = nonzero(source), nonzero(source)
    return Problem(
        gold=f"x>{a}, y<{b}",
        is_value=False,
        right={"other order": f"y<{b}, x>{a}", "and": f"x>{a} \\text{{ and }} y<{b}", "turned": f"{a}<x, {b}>y"},
        wrong={
            "one": f"x>{a}",
            "directions": f"x<{a}, y>{b}",
            "closed": f"x\\ge {a}, y<{b}",
            "letters": f"y>{a}, x<{b}",
            "bound": f"x>{a + 1}, y<{b}",
            "or": f"x>{a} \\text{{ or }} y<{b}",
            "equations": f"x={a}, y={b}",
        },
    )
