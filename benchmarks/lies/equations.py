"""Golds that are equations between letters, functions, derivatives and antiderivatives."""

from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import nonzero, number, polynomial, power, proper, times, total


@form("line")
def line(source: Random) -> Problem:
    a, b, c = nonzero(source), nonzero(source), nonzero(source, 30)
    a = a + 1 if abs(a) == abs(b) else a
    a = a or 2
    k = source.choice((-3, -2, 2, 5))
    left = total((a, "x"), (b, "y"))
    return Problem(
        gold=f"{left}={c}",
        variables=("x", "y"),
        right={
            "commuted": f"{total((b, 'y'), (a, 'x'))}={c}",
            "scaled": f"{total((k * a, 'x'), (k * b, 'y'))}={k * c}",
            "sides swapped": f"{c}={left}",
            "to zero": f"{total((a, 'x'), (b, 'y'), (-c, ''))}=0",
            "zero first": f"0={total((-a, 'x'), (-b, 'y'), (c, ''))}",
            "solved for y": f"y={total((Fraction(-a, b), 'x'), (Fraction(c, b), ''))}",
            "solved for x": f"x={total((Fraction(-b, a), 'y'), (Fraction(c, a), ''))}",
            "moved": f"{total((a, 'x'))}={total((c, ''), (-b, 'y'))}",
            "spaced": f"{total((a, 'x'))} {'+' if b > 0 else '-'} {total((abs(b), 'y'))} = {c}",
        },
        wrong={
            "constant": f"{left}={c + 1}",
            "sign": f"{total((a, 'x'), (-b, 'y'))}={c}",
            "constant's sign": f"{left}={-c}",
            "letters swapped": f"{total((b, 'x'), (a, 'y'))}={c}",
            "one side scaled": f"{total((k * a, 'x'), (k * b, 'y'))}={c}",
            "left side only": left,
            "an inequality": f"{left}<{c}",
            "through the origin": f"{left}=0",
            "two lines": f"({total((a, 'x'), (b, 'y'), (-c, ''))})(x+y)=0",
            "squared letter": f"{total((a, 'x^2'), (b, 'y'))}={c}",
            "other letters": f"{total((a, 'u'), (b, 'v'))}={c}",
            "a point": "(0,0)",
            "x alone": f"x={number(Fraction(c, a))}",
        },
    )


@form("slope and intercept")
def slope(source: Random) -> Problem:
    m, b = nonzero(source) * (proper(source, 5) if source.random() < 0.4 else 1), nonzero(source, 20)
    return Problem(
        gold=f"y={total((m, 'x'), (b, ''))}",
        variables=("x", "y"),
        right={
            "commuted": f"y={total((b, ''), (m, 'x'))}",
            "to zero": f"{total((m, 'x'), (-1, 'y'), (b, ''))}=0",
            "scaled": f"{total((3, 'y'))}={total((3 * m, 'x'), (3 * b, ''))}",
            "point and slope": f"{total((1, 'y'), (-b - m, ''))}={number(m)}(x-1)" if m != 1 and m != -1 else None,
            "swapped": f"{total((m, 'x'), (b, ''))}=y",
        },
        wrong={
            "slope": f"y={total((m + 1, 'x'), (b, ''))}",
            "slope's sign": f"y={total((-m, 'x'), (b, ''))}",
            "intercept": f"y={total((m, 'x'), (b + 1, ''))}",
            "intercept's sign": f"y={total((m, 'x'), (-b, ''))}",
            "letters swapped": f"x={total((m, 'y'), (b, ''))}" if m * m != 1 else None,
            "an inequality": f"y>{total((m, 'x'), (b, ''))}",
            "slope alone": number(m) if m != b else None,
            "a parabola": f"y={total((m, 'x^2'), (b, ''))}",
        },
    )


@form("circle")
def circle(source: Random) -> Problem:
    h, k = (value if value else 2 for value in (nonzero(source), nonzero(source)))
    h += h > 0 if abs(h) == abs(k) else 0
    radius = source.randint(2, 9)
    shift = {letter: f"({total((1, letter), (-by, ''))})^2" for letter, by in (("x", h), ("y", k))}
    rest = h * h + k * k - radius * radius
    gold = f"{shift['x']}+{shift['y']}={radius**2}"
    expanded = f"{total((1, 'x^2'), (1, 'y^2'), (-2 * h, 'x'), (-2 * k, 'y'), (rest, ''))}=0"
    return Problem(
        gold=gold if source.random() < 0.6 else expanded,
        variables=("x", "y"),
        right={
            "centred": gold,
            "expanded": expanded,
            "commuted": f"{shift['y']}+{shift['x']}={radius**2}",
            "scaled": f"2{shift['x']}+2{shift['y']}={2 * radius**2}",
            "divided": f"\\frac{{{shift['x']}}}{{{radius**2}}}+\\frac{{{shift['y']}}}{{{radius**2}}}=1",
            "radius as a square": f"{shift['x']}+{shift['y']}={radius}^2",
        },
        wrong={
            "centre's sign": f"({total((1, 'x'), (h, ''))})^2+{shift['y']}={radius**2}",
            "radius": f"{shift['x']}+{shift['y']}={(radius + 1) ** 2}",
            "radius not squared": f"{shift['x']}+{shift['y']}={radius}",
            "centre swapped": f"({total((1, 'x'), (-k, ''))})^2+({total((1, 'y'), (-h, ''))})^2={radius**2}"
            if h != k
            else None,
            "a hyperbola": f"{shift['x']}-{shift['y']}={radius**2}",
            "a disc": f"{shift['x']}+{shift['y']}\\le {radius**2}",
            "left side only": f"{shift['x']}+{shift['y']}",
            "an ellipse": f"2{shift['x']}+{shift['y']}={radius**2}",
            "sign of the constant": f"{shift['x']}+{shift['y']}=-{radius**2}",
        },
    )


@form("conic")
def conic(source: Random) -> Problem:
    a, b = source.sample(range(2, 10), 2)
    sign = source.choice("+-")
    gold = f"\\frac{{x^2}}{{{a * a}}}{sign}\\frac{{y^2}}{{{b * b}}}=1"
    turned = "-" if sign == "+" else "+"
    return Problem(
        gold=gold,
        variables=("x", "y"),
        right={
            "no fractions": f"{b * b}x^2{sign}{a * a}y^2={a * a * b * b}",
            "to zero": f"{b * b}x^2{sign}{a * a}y^2-{a * a * b * b}=0",
            "squares of quotients": f"\\left(\\frac{{x}}{{{a}}}\\right)^2{sign}\\left(\\frac{{y}}{{{b}}}\\right)^2=1",
            "dfrac": gold.replace("\\frac", "\\dfrac"),
            "slashes": f"x^2/{a * a}{sign}y^2/{b * b}=1",
        },
        wrong={
            "axes swapped": f"\\frac{{x^2}}{{{b * b}}}{sign}\\frac{{y^2}}{{{a * a}}}=1",
            "sign": f"\\frac{{x^2}}{{{a * a}}}{turned}\\frac{{y^2}}{{{b * b}}}=1",
            "not squared": f"\\frac{{x^2}}{{{a}}}{sign}\\frac{{y^2}}{{{b}}}=1",
            "other constant": f"\\frac{{x^2}}{{{a * a}}}{sign}\\frac{{y^2}}{{{b * b}}}=2",
            "linear": f"\\frac{{x}}{{{a}}}{sign}\\frac{{y}}{{{b}}}=1",
            "zero": f"\\frac{{x^2}}{{{a * a}}}{sign}\\frac{{y^2}}{{{b * b}}}=0",
            "an inequality": f"\\frac{{x^2}}{{{a * a}}}{sign}\\frac{{y^2}}{{{b * b}}}<1",
            "one axis": f"\\frac{{x^2}}{{{a * a}}}{sign}\\frac{{y^2}}{{{b * b + 1}}}=1",
        },
    )


@form("parabola or hyperbola")
def parabola(source: Random) -> Problem:
    p, k = source.randint(2, 12), nonzero(source, 9)
    gold, same, lies = source.choice(
        (
            (f"y^2={4 * p}x", f"x=\\frac{{y^2}}{{{4 * p}}}", (f"x^2={4 * p}y", f"y^2={p}x", f"y^2=-{4 * p}x")),
            (f"xy={k}", f"{2 * k}=2yx", (f"xy={-k}", f"x+y={k}", f"\\frac{{x}}{{y}}={k}")),
            (
                f"x^2={4 * p}y",
                f"{total((1, 'x^2'), (-4 * p, 'y'))}=0",
                (f"y^2={4 * p}x", f"x={4 * p}y", f"x^2={4 * p}"),
            ),
            (f"x^2-y^2={p}", f"(x-y)(x+y)={p}", (f"y^2-x^2={p}", f"x^2+y^2={p}", f"(x-y)^2={p}")),
        )
    )
    return Problem(
        gold=gold,
        variables=("x", "y"),
        right={"rewritten": same, "sides swapped": "=".join(reversed(gold.split("=")))},
        wrong={f"lie {place}": lie for place, lie in enumerate(lies)},
    )


@form("plane")
def plane(source: Random) -> Problem:
    a, b, c, d = (nonzero(source) for _ in range(4))
    k = source.choice((-2, -1, 2, 3))
    left = total((a, "x"), (b, "y"), (c, "z"))
    return Problem(
        gold=source.choice((f"{left}={d}", f"{total((a, 'x'), (b, 'y'), (c, 'z'), (-d, ''))}=0")),
        variables=("x", "y", "z"),
        right={
            "scaled": f"{total((k * a, 'x'), (k * b, 'y'), (k * c, 'z'))}={k * d}",
            "commuted": f"{total((c, 'z'), (a, 'x'), (b, 'y'))}={d}",
            "to zero": f"{total((a, 'x'), (b, 'y'), (c, 'z'), (-d, ''))}=0",
            "solved for z": f"z={total((Fraction(-a, c), 'x'), (Fraction(-b, c), 'y'), (Fraction(d, c), ''))}",
            "from a point": f"{a}(x-{1})+{b}(y-{1})+{c}(z-{1})={d - a - b - c}".replace("+-", "-"),
        },
        wrong={
            "constant's sign": f"{left}={-d}",
            "constant": f"{left}={d + 1}",
            "one sign": f"{total((a, 'x'), (-b, 'y'), (c, 'z'))}={d}",
            "a letter lost": f"{total((a, 'x'), (b, 'y'))}={d}",
            "through the origin": f"{left}=0",
            "coefficient": f"{total((a, 'x'), (b, 'y'), (c + 1 or 2, 'z'))}={d}",
            "normal alone": f"({a},{b},{c})",
            "left side only": left,
            "a half space": f"{left}\\le {d}",
        },
    )


@form("sphere or implicit equation")
def implicit(source: Random) -> Problem:
    r, n = source.randint(2, 9), source.randint(2, 5)
    gold, same, lies, letters = source.choice(
        (
            (f"x^2+y^2+z^2={r * r}", f"z^2={r * r}-x^2-y^2", (f"x^2+y^2={r * r}", f"x^2+y^2+z^2={r}"), "xyz"),
            (f"x^3+y^3={n}xy", f"x^3-{n}xy+y^3=0", (f"x^3+y^3={n + 1}xy", f"x^3-y^3={n}xy"), "xy"),
            (f"e^{{xy}}={n}+y", f"y=e^{{xy}}-{n}", (f"e^{{xy}}={n}-y", f"e^{{x+y}}={n}+y"), "xy"),
            (
                f"r={2 * n}\\cos\\theta",
                f"{2 * n}\\cos\\theta=r",
                (f"r={2 * n}\\sin\\theta", f"r={n}\\cos\\theta"),
                ("r", "\\theta"),
            ),
            (f"PV={n}RT", f"\\frac{{PV}}{{{n}}}=RT", (f"P={n}RTV", f"PV={n + 1}RT"), "PVRT"),
        )
    )
    return Problem(
        gold=gold,
        variables=tuple(letters),
        right={"rewritten": same, "sides swapped": "=".join(reversed(gold.split("=")))},
        wrong={f"lie {place}": lie for place, lie in enumerate(lies)},
    )


@form("function")
def function(source: Random) -> Problem:
    a, b, c = nonzero(source), nonzero(source), nonzero(source)
    name, letter = source.choice("fgh"), source.choice("xtn")
    renamed = source.choice([each for each in "xyzs" if each != letter])
    other = source.choice([each for each in "fgh" if each != name])
    body = polynomial((a, b, c), letter)
    return Problem(
        gold=f"{name}({letter})={body}",
        right={
            "renamed": f"{name}({renamed})={polynomial((a, b, c), renamed)}",
            "bare": body,
            "commuted": f"{name}({letter})={total((c, ''), (b, letter), (a, power(letter, 2)))}",
            "partly factored": f"{name}({letter})={letter}({polynomial((a, b), letter)}){c:+d}",
        },
        wrong={
            "coefficient": f"{name}({letter})={polynomial((a, b + 1, c), letter)}",
            "constant": f"{name}({letter})={polynomial((a, b, c + 1), letter)}",
            "sign": f"{name}({letter})=-({body})",
            "other name": f"{other}({letter})={body}",
            "itself": f"{name}({letter})={name}({letter})",
            "doubled": f"{name}({letter})=2({body})",
            "value at one": f"{name}(1)={a + b + c}",
            "derivative": f"{name}({letter})={polynomial((2 * a, b), letter)}",
            "same at four points": f"{name}({letter})={body}+{letter}({letter}-1)({letter}+1)({letter}-2)",
            "other letter within": f"{name}({letter})={polynomial((a, b, c), renamed)}",
        },
    )


@form("inverse function")
def inverse(source: Random) -> Problem:
    a, b = source.randint(2, 9), source.randint(1, 30)
    body, same, lies = source.choice(
        (
            (
                f"\\frac{{x-{b}}}{{{a}}}",
                f"\\frac{{x}}{{{a}}}-\\frac{{{b}}}{{{a}}}",
                (f"{a}x+{b}", f"\\frac{{x+{b}}}{{{a}}}"),
            ),
            (f"\\sqrt{{x-{b}}}", f"(x-{b})^{{1/2}}", (f"\\sqrt{{x+{b}}}", f"x^2+{b}")),
            (f"\\ln(x-{b})", f"\\ln(-{b}+x)", (f"\\ln(x+{b})", f"e^x+{b}")),
            (f"\\log_{{{a}}}(x-{b})", f"\\frac{{\\ln(x-{b})}}{{\\ln {a}}}", (f"{a}^x+{b}", f"\\log_{{{a}}}(x+{b})")),
            (f"\\sqrt[3]{{x-{b}}}", f"\\sqrt[3]{{-{b}+x}}", (f"\\sqrt[3]{{x+{b}}}", f"\\sqrt{{x-{b}}}")),
            (f"-\\frac{{{a}x}}{{{b}}}" if b % a else f"-\\frac{{{a}x}}{{{b + 1}}}", "", ("\\frac{1}{x}",)),
            (
                f"\\frac{{{a}x+1}}{{x-{b}}}",
                f"\\frac{{1+{a}x}}{{-{b}+x}}",
                (f"\\frac{{{a}x-1}}{{x-{b}}}", f"\\frac{{x-{b}}}{{{a}x+1}}"),
            ),
        )
    )
    return Problem(
        gold=f"f^{{-1}}(x)={body}",
        right={
            "spaced": f"f^{{-1}}(x) = {body}",
            "rewritten": f"f^{{-1}}(x)={same}" if same else None,
            "y": f"y={body}",
            "bare": body,
            "renamed": f"f^{{-1}}(t)={body.replace('x', 't')}",
        },
        wrong={
            **{f"lie {place}": f"f^{{-1}}(x)={lie}" for place, lie in enumerate(lies)},
            "the function": f"f(x)={body}",
            "sign": f"f^{{-1}}(x)=-({body})",
            "one more": f"f^{{-1}}(x)={body}+1",
            "itself": "f^{-1}(x)=f^{-1}(x)",
            "doubled": f"f^{{-1}}(x)=2\\left({body}\\right)",
        },
    )


@form("derivative")
def derivative(source: Random) -> Problem:
    a, b = source.randint(2, 9), nonzero(source)
    name = source.choice(("\\frac{dy}{dx}", "y'", "f'(x)", "\\frac{df}{dx}"))
    body, same, lies = source.choice(
        (
            (
                total((a, "x"), (b, "")),
                total((b, ""), (a, "x")),
                (total((a, "x"), (-b, "")), total((a + 1, "x"), (b, ""))),
            ),
            (f"{a}x\\cos(x^2)", f"{a}\\cos(x^2)x", (f"{a}x\\sin(x^2)", f"-{a}x\\cos(x^2)")),
            (
                f"\\frac{{{a}}}{{x-{abs(b)}}}",
                f"\\frac{{-{a}}}{{{abs(b)}-x}}",
                (f"\\frac{{{a}}}{{x+{abs(b)}}}", f"{a}\\ln(x-{abs(b)})"),
            ),
            (f"{a}e^{{{a}x}}", f"e^{{{a}x}}\\cdot {a}", (f"e^{{{a}x}}", f"{a}e^{{x}}")),
            (
                f"\\frac{{{a}}}{{2\\sqrt{{x}}}}",
                f"\\frac{{{a}}}{{2}}x^{{-1/2}}",
                (f"\\frac{{{a}}}{{\\sqrt{{x}}}}", f"{a}\\sqrt{{x}}"),
            ),
        )
    )
    return Problem(
        gold=f"{name}={body}",
        right={"rewritten": f"{name}={same}", "spaced": f"{name} = {body}", "same": f"{name}={body}"},
        wrong={
            **{f"lie {place}": f"{name}={lie}" for place, lie in enumerate(lies)},
            "itself": f"{name}={name}",
            "one more": f"{name}={body}+1",
            "zero": f"{name}=0",
        },
    )


@form("antiderivative")
def antiderivative(source: Random) -> Problem:
    a, b = source.randint(2, 9), source.randint(2, 30)
    body, same, lies = source.choice(
        (
            (f"\\ln(x-{b})", f"\\ln(-{b}+x)", (f"\\ln(x+{b})", f"\\frac{{1}}{{x-{b}}}")),
            (
                f"\\frac{{1}}{{{a}}}\\ln|{a}x-{b}|",
                f"\\frac{{\\ln|{b}-{a}x|}}{{{a}}}",
                (f"\\ln|{a}x-{b}|+x", f"{a}\\ln|{a}x-{b}|"),
            ),
            (
                f"\\frac{{x^{{{a + 1}}}}}{{{a + 1}}}",
                f"\\frac{{1}}{{{a + 1}}}x^{{{a + 1}}}",
                (f"x^{{{a + 1}}}", f"{a}x^{{{a - 1}}}"),
            ),
            (
                f"-\\frac{{1}}{{{a}}}\\cos {a}x",
                f"-\\frac{{\\cos({a}x)}}{{{a}}}",
                (f"\\frac{{1}}{{{a}}}\\cos {a}x", f"-\\cos {a}x"),
            ),
            (
                f"\\frac{{2}}{{{a + 1}}}\\sqrt{{\\sin {a}t}}",
                f"\\frac{{2\\sqrt{{\\sin({a}t)}}}}{{{a + 1}}}",
                (f"\\frac{{2}}{{{a}}}\\sqrt{{\\sin {a}t}}", f"\\frac{{2}}{{{a + 1}}}\\sqrt{{\\cos {a}t}}"),
            ),
            (f"(x-{b})^{{3/2}}", f"(x-{b})\\sqrt{{x-{b}}}", (f"(x-{b})^{{1/2}}", f"(x+{b})^{{3/2}}")),
            (
                f"\\arcsin\\frac{{x}}{{{a}}}",
                f"\\arcsin\\left(\\frac{{x}}{{{a}}}\\right)",
                (f"\\arccos\\frac{{x}}{{{a}}}", f"\\arcsin {a}x"),
            ),
            (
                f"{a}\\arctan\\frac{{x}}{{{b}}}",
                f"{a}\\tan^{{-1}}\\left(\\frac{{x}}{{{b}}}\\right)",
                (f"\\arctan\\frac{{{a}x}}{{{b}}}", f"{a}\\tan\\frac{{x}}{{{b}}}"),
            ),
            (f"e^{{{a}x}}(x-{b})", f"xe^{{{a}x}}-{b}e^{{{a}x}}", (f"e^{{{a}x}}(x+{b})", f"e^{{x}}(x-{b})")),
        )
    )
    return Problem(
        gold=f"{body}+C",
        right={
            "rewritten": f"{same}+C",
            "constant in front": f"C+{body}" if not body.startswith("-") else None,
            "constant renamed": f"{body}+K",
            "constant spaced": f"{body} + C",
            "constant shifted": f"{body}+{b}+C",
        },
        wrong={
            **{f"lie {place}": f"{lie}+C" for place, lie in enumerate(lies)},
            "no constant": body,
            "a number for the constant": f"{body}+1",
            "doubled": f"2\\left({body}\\right)+C",
            "sign": f"-\\left({body}\\right)+C",
            "constant as a factor": f"C\\left({body}\\right)",
            "constant alone": "C",
        },
    )


@form("solution of a differential equation")
def differential(source: Random) -> Problem:
    k, m = source.sample(range(2, 9), 2)
    return Problem(
        gold=f"y=Ce^{{{k}x}}",
        right={"renamed": f"y=Ke^{{{k}x}}", "commuted": f"y=e^{{{k}x}}C", "spaced": f"y = C e^{{{k} x}}"},
        wrong={
            "exponent": f"y=Ce^{{{m}x}}",
            "sign": f"y=Ce^{{-{k}x}}",
            "no constant": f"y=e^{{{k}x}}",
            "added constant": f"y=e^{{{k}x}}+C",
            "zero": "y=0",
        },
    )


_IDENTITY_GOLDS = (
    ("\\sin(2x)=2\\sin x\\cos x", "2\\cos x\\sin x=\\sin(2x)", ("\\sin x=\\cos x", "\\sin(2x)=2\\sin x", "x=0")),
    ("\\sin^2 x=1-\\cos^2 x", "1-\\cos^2 x=\\sin^2 x", ("\\sin x=1", "\\sin x=1-\\cos x", "\\cos x=0")),
    ("(a+b)^2=a^2+2ab+b^2", "(a+b)^2=b^2+2ab+a^2", ("a=b", "(a+b)^2=a^2+b^2", "ab=0", "a+b=1")),
    ("a^2-b^2=(a-b)(a+b)", "a^2-b^2=(a+b)(a-b)", ("a=b", "a^2-b^2=(a-b)^2", "a=0")),
    ("\\cos(2x)=2\\cos^2 x-1", "\\cos(2x)=-1+2\\cos^2 x", ("\\cos x=1", "\\cos(2x)=2\\cos x-1", "x=\\pi")),
    ("\\sin^2 x+\\cos^2 x=1", "\\cos^2 x+\\sin^2 x=1", ("\\sin x+\\cos x=1", "\\tan x=1", "\\sin x=\\cos x")),
    ("e^{x+y}=e^xe^y", "e^{x+y}=e^ye^x", ("e^{x+y}=e^x+e^y", "x=y", "e^x=1")),
    (
        "\\sin(x+y)=\\sin x\\cos y+\\cos x\\sin y",
        "\\sin(x+y)=\\cos x\\sin y+\\sin x\\cos y",
        ("x=y", "\\sin(x+y)=\\sin x+\\sin y"),
    ),
    ("x^3-y^3=(x-y)(x^2+xy+y^2)", "x^3-y^3=(x-y)(y^2+xy+x^2)", ("x=y", "x^3-y^3=(x-y)^3")),
)


@form("identity")
def identity(source: Random) -> Problem:
    gold, same, lies = source.choice(_IDENTITY_GOLDS)
    return Problem(
        gold=gold,
        right={
            "rewritten": same,
            "sides swapped": "=".join(reversed(gold.split("="))),
            "spaced": gold.replace("=", " = "),
        },
        wrong={**{f"lie {place}": lie for place, lie in enumerate(lies)}, "a number": "5", "false": "1=2"},
    )


_FUNCTIONAL = (
    ("f(x+y)=f(x)+f(y)", "f(y+x)=f(y)+f(x)", ("f(x+y)=f(x)f(y)", "f(xy)=f(x)+f(y)", "f(x)=x", "f(x+y)=f(x)-f(y)")),
    ("f(xy)=f(x)f(y)", "f(yx)=f(y)f(x)", ("f(x+y)=f(x)f(y)", "f(xy)=f(x)+f(y)", "f(xy)=xf(y)")),
    ("f(x+1)=f(x)+2", "f(x+1)=2+f(x)", ("f(x+1)=f(x)+3", "f(x+1)=f(x)-2", "f(x+2)=f(x)+2")),
    ("f(-x)=-f(x)", "-f(x)=f(-x)", ("f(-x)=f(x)", "f(x)=f(x)", "f(-x)=-f(-x)")),
    ("a_{n+1}=2a_n+1", "a_{n+1}=1+2a_n", ("a_{n+1}=2a_n-1", "a_n=2a_{n+1}+1", "a_{n+1}=a_n+1")),
)


@form("functional equation")
def functional(source: Random) -> Problem:
    gold, same, lies = source.choice(_FUNCTIONAL)
    return Problem(
        gold=gold,
        right={"rewritten": same, "spaced": gold.replace("=", " = ")},
        wrong={f"lie {place}": lie for place, lie in enumerate(lies)},
    )


@form("factored equation")
def factored(source: Random) -> Problem:
    a, b = source.sample(range(1, 12), 2)
    coefficients = times((1, -a), (1, b))
    middle, rest = Fraction(b - a, 2), -a * b - Fraction((b - a) ** 2, 4)
    return Problem(
        gold=f"y={polynomial(coefficients)}",
        variables=("x", "y"),
        right={
            "factored": f"y=(x-{a})(x+{b})",
            "factors swapped": f"y=(x+{b})(x-{a})",
            "to zero": f"{polynomial(coefficients)}-y=0",
            "vertex": f"y=\\left({total((1, 'x'), (middle, ''))}\\right)^2{_plus(rest)}",
        },
        wrong={
            "signs": f"y=(x+{a})(x-{b})",
            "roots": f"x={a}, x=-{b}",
            "doubled": f"y=2(x-{a})(x+{b})",
            "lost y": f"{polynomial(coefficients)}=0",
            "one more": f"y=(x-{a})(x+{b})+1",
        },
    )


def _plus(value: Fraction) -> str:
    text = number(value)
    return text if text.startswith("-") else f"+{text}"
