"""Golds that are expressions in letters."""

from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import nonzero, polynomial, power, proper, times, total


@form("polynomial")
def polynomials(source: Random) -> Problem:
    letter = source.choice("xtnk")
    a, b = source.sample(range(1, 10), 2)
    k = source.randint(2, 5)
    coefficients = times((k, k * a), (1, -b))
    gold = polynomial(coefficients, letter)
    x = letter
    changed = [coefficients[0], coefficients[1] + 1, coefficients[2]]
    return Problem(
        gold=gold,
        right={
            "factored": f"{k}({x}+{a})({x}-{b})",
            "factors swapped": f"({x}-{b})\\cdot {k}({x}+{a})",
            "commuted": total(*((f, power(x, p)) for p, f in enumerate(reversed(coefficients)))),
            "nested": f"{x}({polynomial(coefficients[:2], x)}){coefficients[2]}",
            "minus out": f"-({polynomial([-f for f in coefficients], x)})",
            "with dots": f"{k}\\cdot({x}+{a})\\cdot({x}-{b})",
            "over one": f"\\frac{{{2 * k}({x}+{a})({x}-{b})}}{{2}}",
        },
        wrong={
            "coefficient": polynomial(changed, letter),
            "constant": f"{gold}+1",
            "signs of roots": f"{k}({x}-{a})({x}+{b})",
            "factor lost": f"({x}+{a})({x}-{b})",
            "negated": f"-({gold})",
            "other letter": polynomial(coefficients, "q"),
            "derivative": polynomial((2 * coefficients[0], coefficients[1]), letter),
            "equal at its roots": f"{k + 1}({x}+{a})({x}-{b})",
            "equal at five points": f"{gold}+{x}({x}-1)({x}+1)({x}-2)({x}+2)",
            "set to zero": f"{gold}=0",
            "degree": polynomial([*coefficients, 0], letter),
            "a root": str(b),
            "absolute": f"|{gold}|",
            "nearly": f"{gold}+10^{{-9}}",
        },
    )


@form("polynomial in several letters")
def several_letters(source: Random) -> Problem:
    a, b = source.sample(range(1, 9), 2)
    x, y = source.choice((("x", "y"), ("a", "b"), ("m", "n"), ("p", "q")))
    gold = total((1, f"{x}^2"), (a + b, f"{x}{y}"), (a * b, f"{y}^2"))
    return Problem(
        gold=gold,
        right={
            "factored": f"({total((1, x), (a, y))})({total((1, x), (b, y))})",
            "commuted": total((a * b, f"{y}^2"), (1, f"{x}^2"), (a + b, f"{y}{x}")),
            "dots": f"{x}^2+{a + b}{x}\\cdot {y}+{a * b}{y}^2",
            "partly": f"{x}({total((1, x), (a + b, y))})+{a * b}{y}^2",
        },
        wrong={
            "letters swapped": total((1, f"{y}^2"), (a + b, f"{x}{y}"), (a * b, f"{x}^2")) if a * b != 1 else None,
            "sign": total((1, f"{x}^2"), (-a - b, f"{x}{y}"), (a * b, f"{y}^2")),
            "coefficient": total((1, f"{x}^2"), (a + b + 1, f"{x}{y}"), (a * b, f"{y}^2")),
            "a term less": total((1, f"{x}^2"), (a * b, f"{y}^2")),
            "other letter": total((1, f"{x}^2"), (a + b, f"{x}w"), (a * b, "w^2")),
            "one letter": total(((1 + a) * (1 + b), f"{x}^2")),
        },
    )


@form("rational function")
def rational_function(source: Random) -> Problem:
    a, b, c, d = source.randint(1, 9), nonzero(source), source.randint(1, 5), nonzero(source)
    while a * d == b * c:
        d += 1
        d = d or 1
    top, bottom = total((a, "x"), (b, "")), total((c, "x"), (d, ""))
    rest = b - Fraction(a * d, c)
    return Problem(
        gold=f"\\frac{{{top}}}{{{bottom}}}",
        right={
            "slash": f"({top})/({bottom})",
            "dfrac": f"\\dfrac{{{top}}}{{{bottom}}}",
            "commuted": f"\\frac{{{total((b, ''), (a, 'x'))}}}{{{total((d, ''), (c, 'x'))}}}",
            "scaled": f"\\frac{{{total((2 * a, 'x'), (2 * b, ''))}}}{{{total((2 * c, 'x'), (2 * d, ''))}}}",
            "signs turned": f"\\frac{{{total((-a, 'x'), (-b, ''))}}}{{{total((-c, 'x'), (-d, ''))}}}",
            "split": f"\\frac{{{total((a, 'x'))}}}{{{bottom}}}+\\frac{{{b}}}{{{bottom}}}",
            "divided": f"{total((Fraction(a, c), ''))}+\\frac{{{rest.numerator}}}{{{rest.denominator}({bottom})}}",
            "negative power": f"({top})({bottom})^{{-1}}",
        },
        wrong={
            "turned": f"\\frac{{{bottom}}}{{{top}}}",
            "sign": f"-\\frac{{{top}}}{{{bottom}}}",
            "above": f"\\frac{{{total((a, 'x'), (b + 1, ''))}}}{{{bottom}}}",
            "below": f"\\frac{{{top}}}{{{total((c, 'x'), (-d, ''))}}}",
            "split wrongly": f"\\frac{{{total((a, 'x'))}}}{{{total((c, 'x'))}}}+\\frac{{{b}}}{{{d}}}",
            "constant": f"\\frac{{{top}}}{{{bottom}}}+1",
            "above alone": top,
        },
    )


_TRIG = (
    ("\\sin({m}x)", "2\\sin\\frac{{{m}x}}{{2}}\\cos\\frac{{{m}x}}{{2}}", ("\\cos({m}x)", "{m}\\sin x", "2\\sin({m}x)")),
    ("\\cos(2x)+{m}", "2\\cos^2 x+{m}-1", ("2\\cos^2 x+{m}", "\\cos^2 x+{m}", "2\\sin^2 x+{m}-1")),
    ("{m}\\sin^2 x", "{m}-{m}\\cos^2 x", ("{m}-\\cos^2 x", "{m}\\sin(x^2)", "{m}\\cos^2 x")),
    (
        "\\tan x+{m}",
        "\\frac{{\\sin x}}{{\\cos x}}+{m}",
        ("\\frac{{\\cos x}}{{\\sin x}}+{m}", "\\tan(x+{m})", "\\tan x-{m}"),
    ),
    ("\\sec^2 x+{m}", "\\tan^2 x+1+{m}", ("\\tan^2 x+{m}", "\\csc^2 x+{m}", "\\sec x^2+{m}")),
    ("\\cos(x+y)", "\\cos x\\cos y-\\sin x\\sin y", ("\\cos x\\cos y+\\sin x\\sin y", "\\cos x+\\cos y", "\\cos(x-y)")),
    (
        "\\sin x+\\cos x+{m}",
        "\\sqrt{{2}}\\sin\\left(x+\\frac{{\\pi}}{{4}}\\right)+{m}",
        ("\\sqrt{{2}}\\sin x+{m}", "\\sin(2x)+{m}"),
    ),
    ("\\sin^4 x-\\cos^4 x", "\\sin^2 x-\\cos^2 x", ("\\cos 2x", "1", "\\sin^4 x+\\cos^4 x")),
    (
        "{m}\\cos\\theta",
        "{m}\\sin\\left(\\frac{{\\pi}}{{2}}-\\theta\\right)",
        ("{m}\\sin\\theta", "\\cos {m}\\theta", "{m}\\cos\\phi"),
    ),
    ("\\arctan x+{m}", "{m}+\\tan^{{-1}}x", ("\\frac{{1}}{{\\tan x}}+{m}", "\\arcsin x+{m}", "\\arctan(x+{m})")),
)


@form("trigonometric expression")
def trigonometric(source: Random) -> Problem:
    m = source.randint(2, 9)
    gold, same, lies = source.choice(_TRIG)
    written = gold.format(m=m)
    return Problem(
        gold=written,
        right={"identity": same.format(m=m)},
        wrong={
            **{f"lie {place}": lie.format(m=m) for place, lie in enumerate(lies)},
            "sign": f"-\\left({written}\\right)",
            "doubled": f"2\\left({written}\\right)",
            "nearly": f"{written}+10^{{-8}}",
            "a value": str(m),
        },
    )


_EXPONENTIALS = (
    ("2^{{n+{m}}}", "{p}\\cdot 2^n", ("2^{{n-{m}}}", "2^{{{m}n}}", "(n+{m})^2", "{m}\\cdot 2^n")),
    ("4^n+{m}", "2^{{2n}}+{m}", ("2^n+{m}", "4n+{m}", "n^4+{m}", "8^n+{m}")),
    ("e^{{{m}x}}", "(e^x)^{{{m}}}", ("e^{{x+{m}}}", "{m}e^x", "e^{{x^{m}}}", "{m}^x")),
    (
        "\\frac{{{m}^n-1}}{{3}}",
        "\\frac{{1-{m}^n}}{{-3}}",
        ("\\frac{{{m}^n+1}}{{3}}", "\\frac{{{m}^{{n+1}}-1}}{{3}}", "{m}^n-1"),
    ),
    ("\\ln(2x)+{m}", "\\ln 2+\\ln x+{m}", ("2\\ln x+{m}", "\\ln(x+2)+{m}", "\\ln 2\\cdot\\ln x+{m}", "\\log(2x)+{m}")),
    ("x^{{{m}}}y", "yx^{{{m}}}", ("xy^{{{m}}}", "(xy)^{{{m}}}", "x^{{{m}}}+y", "{m}xy")),
    ("\\sqrt{{x^2+{m}}}", "(x^2+{m})^{{1/2}}", ("x+\\sqrt{{{m}}}", "\\sqrt{{x^2-{m}}}", "\\sqrt{{x+{m}}}", "x^2+{m}")),
    ("|x-{m}|", "|{m}-x|", ("x-{m}", "|x+{m}|", "{m}-x", "|x|-{m}")),
    (
        "\\frac{{{m}}}{{\\sqrt{{x}}+1}}",
        "\\frac{{{m}(\\sqrt{{x}}-1)}}{{x-1}}",
        ("\\frac{{{m}}}{{\\sqrt{{x+1}}}}", "\\frac{{{m}}}{{\\sqrt{{x}}-1}}", "\\frac{{{m}}}{{x+1}}"),
    ),
    (
        "\\frac{{a+b}}{{{m}ab}}",
        "\\frac{{1}}{{{m}}}\\left(\\frac{{1}}{{a}}+\\frac{{1}}{{b}}\\right)",
        ("\\frac{{a-b}}{{{m}ab}}", "\\frac{{ab}}{{{m}(a+b)}}", "\\frac{{1}}{{{m}(a+b)}}"),
    ),
    (
        "\\frac{{{m}\\pi r^2 h}}{{3}}",
        "\\frac{{{m}}}{{3}}\\pi hr^2",
        ("\\frac{{{m}\\pi r h^2}}{{3}}", "{m}\\pi r^2h", "\\frac{{{m}r^2h}}{{3}}"),
    ),
    (
        "\\frac{{{m}GM}}{{R^2}}",
        "{m}GMR^{{-2}}",
        ("\\frac{{{m}GM}}{{R}}", "\\frac{{{m}Gm}}{{R^2}}", "\\frac{{{m}GM}}{{r^2}}"),
    ),
    (
        "\\lfloor x\\rfloor+{m}",
        "\\left\\lfloor x+{m}\\right\\rfloor",
        ("\\lceil x\\rceil+{m}", "x+{m}", "\\lfloor {m}x\\rfloor", "\\lfloor x\\rfloor-{m}"),
    ),
    ("\\max(x,y)+{m}", "{m}+\\max(y,x)", ("\\min(x,y)+{m}", "x+{m}", "\\max(x,z)+{m}", "\\max(x,y)-{m}")),
)


@form("exponential, root or formula")
def exponential(source: Random) -> Problem:
    m = source.randint(4, 9)
    gold, same, lies = source.choice(_EXPONENTIALS)
    values = {"m": m, "p": 2**m}
    written = gold.format(**values)
    return Problem(
        gold=written,
        right={"rewritten": same.format(**values), "in brackets": f"\\left({written}\\right)"},
        wrong={
            **{f"lie {place}": lie.format(**values) for place, lie in enumerate(lies)},
            "sign": f"-\\left({written}\\right)",
            "doubled": f"2\\left({written}\\right)",
            "one more": f"{written}+1",
            "a value": str(m),
        },
    )


_COUNTS = (
    (
        "\\binom{{n}}{{2}}+{m}",
        "\\frac{{n(n-1)}}{{2}}+{m}",
        ("\\frac{{n(n+1)}}{{2}}+{m}", "\\binom{{n}}{{3}}+{m}", "\\frac{{n^2}}{{2}}+{m}"),
    ),
    ("{m}n!", "{m}n(n-1)!", ("{m}n", "{m}(n-1)!", "({m}n)!", "{m}(n+1)!")),
    (
        "\\binom{{n}}{{{m}}}",
        "\\binom{{n}}{{n-{m}}}",
        ("\\binom{{n+1}}{{{m}}}", "\\frac{{n}}{{{m}}}", "\\binom{{{m}}}{{n}}"),
    ),
    (
        "\\binom{{2n}}{{n}}+{m}",
        "\\frac{{(2n)!}}{{(n!)^2}}+{m}",
        ("\\frac{{(2n)!}}{{n!}}+{m}", "\\binom{{n}}{{2}}+{m}", "2+{m}"),
    ),
    ("(n+{m})!", "(n+{m})(n+{m}-1)!", ("n!+{m}!", "(n-{m})!", "n+{m}")),
)


@form("factorial or binomial")
def count(source: Random) -> Problem:
    m = source.randint(3, 9)
    gold, same, lies = source.choice(_COUNTS)
    return Problem(
        gold=gold.format(m=m),
        right={"rewritten": same.format(m=m)},
        wrong={f"lie {place}": lie.format(m=m) for place, lie in enumerate(lies)} | {"a number": str(m)},
    )


@form("factorial or binomial of numbers")
def number_count(source: Random) -> Problem:
    n = source.randint(6, 20)
    k = source.randint(2, n // 2 - 1)
    gold, same, lies = source.choice(
        (
            (
                f"\\binom{{{n}}}{{{k}}}",
                f"\\binom{{{n}}}{{{n - k}}}",
                (
                    f"\\binom{{{n}}}{{{k + 1}}}" if 2 * k + 1 != n else f"\\binom{{{n}}}{{1}}",
                    f"\\frac{{{n}}}{{{k}}}",
                    f"{n}^{k}",
                ),
            ),
            (f"{n}!", f"{n}\\cdot {n - 1}!", (f"{n - 1}!", f"{n}", f"{n}!+1", f"-{n}!")),
            (
                f"2^{{{n * 10}}}-1",
                f"-1+4^{{{n * 5}}}",
                (f"2^{{{n * 10}}}", f"2^{{{n * 10}}}+1", f"2^{{{n * 10 + 1}}}-1"),
            ),
            (
                f"\\frac{{{n}!}}{{{k}!}}",
                f"\\frac{{1}}{{{k}!}}\\cdot {n}!",
                (f"\\frac{{{k}!}}{{{n}!}}", f"({n - k})!", f"\\binom{{{n}}}{{{k}}}"),
            ),
        )
    )
    return Problem(
        gold=gold,
        right={"rewritten": same},
        wrong={f"lie {place}": lie for place, lie in enumerate(lies)},
    )


_SUMS = (
    (
        "\\sum_{{{i}=1}}^{{n}}{i}^{m}",
        ("\\sum_{{{i}=0}}^{{n}}({i}+1)^{m}", "\\sum_{{{i}=1}}^{{n}}{i}^{k}", "\\sum_{{{i}=1}}^{{n+1}}{i}^{m}", "n^{m}"),
    ),
    (
        "\\sum_{{{i}=0}}^{{\\infty}}(-1)^{i} x^{{{m}{i}}}",
        (
            "\\sum_{{{i}=0}}^{{\\infty}}x^{{{m}{i}}}",
            "\\sum_{{{i}=1}}^{{\\infty}}(-1)^{i} x^{{{m}{i}}}",
            "\\sum_{{{i}=0}}^{{\\infty}}(-1)^{i} x^{{{k}{i}}}",
        ),
    ),
    (
        "\\sum_{{{i}=0}}^{{\\infty}}\\frac{{{m}^{i}x^{i}}}{{{i}!}}",
        (
            "\\sum_{{{i}=0}}^{{\\infty}}\\frac{{{m}^{i}x^{i}}}{{{i}}}",
            "\\sum_{{{i}=0}}^{{\\infty}}\\frac{{x^{i}}}{{{i}!}}",
            "\\sum_{{{i}=1}}^{{\\infty}}\\frac{{{m}^{i}x^{i}}}{{{i}!}}",
        ),
    ),
    (
        "\\sum_{{{i}=1}}^{{\\infty}}\\frac{{x^{i}}}{{{i}+{m}}}",
        (
            "\\sum_{{{i}=1}}^{{\\infty}}\\frac{{x^{i}}}{{{i}+{k}}}",
            "\\sum_{{{i}=0}}^{{\\infty}}\\frac{{x^{i}}}{{{i}+{m}}}",
            "\\sum_{{{i}=1}}^{{\\infty}}\\frac{{x^{i}}}{{{i}-{m}}}",
        ),
    ),
    (
        "\\prod_{{{i}=1}}^{{n}}({m}{i}+3)",
        ("\\prod_{{{i}=1}}^{{n}}({m}{i}-3)", "\\prod_{{{i}=2}}^{{n}}({m}{i}+3)", "\\sum_{{{i}=1}}^{{n}}({m}{i}+3)"),
    ),
    (
        "\\sum_{{{i}=0}}^{{\\infty}}({i}+1){m}^{i} x^{i}",
        (
            "\\sum_{{{i}=0}}^{{\\infty}}{i}\\cdot {m}^{i} x^{i}",
            "\\sum_{{{i}=0}}^{{\\infty}}({i}+1){k}^{i} x^{i}",
            "\\sum_{{{i}=0}}^{{\\infty}}{m}^{i} x^{i}",
        ),
    ),
)


@form("sum left as such")
def sums(source: Random) -> Problem:
    gold, lies = source.choice(_SUMS)
    m = source.randint(2, 5)
    index, renamed = source.sample(("i", "j", "k", "m"), 2)
    values = {"m": m, "k": m + 1}
    return Problem(
        gold=gold.format(i=index, **values),
        right={
            "renamed": gold.format(i=renamed, **values),
            "spaced": gold.format(i=index, **values).replace("}", "} "),
        },
        wrong={
            **{f"lie {place}": lie.format(i=renamed, **values) for place, lie in enumerate(lies)},
            "index left free": gold.format(i=renamed, **values).replace(f"_{{{renamed}=", "_{r="),
            "doubled": f"2{gold.format(i=index, **values)}",
            "zero": "0",
        },
    )


@form("integral left as such")
def integral(source: Random) -> Problem:
    a = source.randint(2, 9)
    one, two = source.sample(("x", "t", "u", "s"), 2)
    body, lies = source.choice(
        (
            ("f({v})", ("g({v})", "f({v}+1)", "2f({v})")),
            ("e^{{{v}^2}}", ("e^{{-{v}^2}}", "e^{{{v}}}", "2e^{{{v}^2}}")),
            ("\\sin({v}^2)", ("\\cos({v}^2)", "\\sin^2({v})", "\\sin({v})")),
        )
    )

    def write(what: str, letter: str, top: int = a) -> str:
        return f"\\int_0^{{{top}}} {what.format(v=letter)}\\,d{letter}"

    return Problem(
        gold=write(body, one),
        right={"renamed": write(body, two), "spaced": write(body, one).replace("\\,", "\\, ")},
        wrong={
            **{f"lie {place}": write(lie, two) for place, lie in enumerate(lies)},
            "bound": write(body, two, a + 1),
            "sign": f"-{write(body, one)}",
            "body alone": body.format(v=one),
        },
    )


_PRODUCTS = (
    ("{A}^{{-1}}{B}", "{A}^{{-1}}\\cdot {B}", ("{B}{A}^{{-1}}", "{A}{B}^{{-1}}", "{A}^{{-1}}{C}", "{B}^{{-1}}{A}")),
    ("{A}{B}^{{-1}}", "{A} {B}^{{-1}}", ("{B}^{{-1}}{A}", "{A}^{{-1}}{B}", "{B}{A}^{{-1}}")),
    ("{A}{C}{A}^{{-1}}", "{A} {C} {A}^{{-1}}", ("{A}^{{-1}}{C}{A}", "{C}", "{C}{A}{A}^{{-1}}", "{A}{A}^{{-1}}{C}")),
    ("{B}^T{A}^T", "{B}^{{T}}{A}^{{T}}", ("{A}^T{B}^T", "{A}{B}", "{B}{A}", "{B}^T{A}")),
    ("{A}^{{-1}}{B}+{C}", "{C}+{A}^{{-1}}{B}", ("{B}{A}^{{-1}}+{C}", "{A}^{{-1}}{B}-{C}", "{A}^{{-1}}{C}+{B}")),
    ("{B}^{{-1}}{A}^{{-1}}", "{B}^{{-1}} {A}^{{-1}}", ("{A}^{{-1}}{B}^{{-1}}", "{B}{A}", "{A}^{{-1}}{B}")),
)


@form("product of matrices")
def matrix_product(source: Random) -> Problem:
    a, b, c = source.choice((("A", "B", "C"), ("P", "Q", "D"), ("X", "Y", "Z"), ("M", "N", "L")))
    letters = {"A": a, "B": b, "C": c}
    gold, same, lies = source.choice(_PRODUCTS)
    written = gold.format(**letters)
    return Problem(
        gold=source.choice((written, f"S={written}")),
        right={"rewritten": same.format(**letters), "named": f"S={written}"},
        wrong={f"lie {place}": lie.format(**letters) for place, lie in enumerate(lies)} | {"one": "I", "zero": "0"},
    )


@form("product of vectors")
def vector_product(source: Random) -> Problem:
    one, two = source.sample("abuvw", 2)
    mark = source.choice(("\\vec", "\\mathbf", "\\overrightarrow"))
    a, b = f"{mark}{{{one}}}", f"{mark}{{{two}}}"
    if source.random() < 0.3:
        return Problem(
            gold=f"{a}\\cdot {b}",
            right={"commuted": f"{b}\\cdot {a}"},
            wrong={"cross": f"{a}\\times {b}", "sum": f"{a}+{b}", "other": f"{a}\\cdot {a}"},
        )
    return Problem(
        gold=f"{a}\\times {b}",
        right={"spaced": f"{a} \\times  {b}"},
        wrong={"turned": f"{b}\\times {a}", "negated": f"-{a}\\times {b}", "dot": f"{a}\\cdot {b}", "sum": f"{a}+{b}"},
    )


@form("expression with a fraction")
def with_fraction(source: Random) -> Problem:
    q, k = proper(source, 9), source.randint(2, 6)
    top, bottom = q.numerator, q.denominator
    x = source.choice("xyrt")
    factor = "" if top == 1 else str(top)
    return Problem(
        gold=f"\\frac{{{factor}{x}^{k}}}{{{bottom}}}",
        right={
            "factor": f"\\frac{{{top}}}{{{bottom}}}{x}^{k}",
            "slash": f"{factor}{x}^{k}/{bottom}",
            "bracketed slash": f"({top}/{bottom}){x}^{k}",
            "tfrac": f"\\tfrac{{{top}}}{{{bottom}}}\\,{x}^{{{k}}}",
            "behind": f"{x}^{k}\\cdot\\frac{{{top}}}{{{bottom}}}",
            "not reduced": f"\\frac{{{2 * top}{x}^{k}}}{{{2 * bottom}}}",
        },
        wrong={
            "power": f"\\frac{{{factor}{x}^{k + 1}}}{{{bottom}}}",
            "below": f"\\frac{{{factor}{x}^{k}}}{{{bottom + 1}}}",
            "turned": f"\\frac{{{bottom}{x}^{k}}}{{{top}}}",
            "letter below": f"\\frac{{{top}}}{{{bottom}{x}^{k}}}",
            "no power": f"\\frac{{{factor}{x}}}{{{bottom}}}",
            "number": f"\\frac{{{top}}}{{{bottom}}}",
            "power on all": f"\\left(\\frac{{{top}{x}}}{{{bottom}}}\\right)^{k}",
        },
    )
