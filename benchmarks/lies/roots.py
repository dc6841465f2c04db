"""Golds with roots and multiples of pi in several parts: lists, intervals, points, nested radicals."""

from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import SQUAREFREE, nonzero, number, proper, root, rounded, total


@form("sum of a number and both roots")
def conjugates(source: Random) -> Problem:
    a, b, inside = nonzero(source), source.randint(1, 5), source.choice(SQUAREFREE)
    below = source.choice((1, 1, 2, 3))
    radical = total((b, f"\\sqrt{{{inside}}}"))

    def over(text: str) -> str:
        return text if below == 1 else f"\\frac{{{text}}}{{{below}}}"

    plus, minus, both = (over(f"{a}{sign}{radical}") for sign in ("+", "-", "\\pm "))
    deep, deeper = (f"\\sqrt{{{b * b * inside + more}}}" for more in (0, 1))
    return Problem(
        gold=source.choice((both, f"{plus}, {minus}", f"x={both}")),
        is_value=False,
        right={
            "both": f"{plus}, {minus}",
            "other order": f"{minus}, {plus}",
            "sign": both,
            "after x=": f"x={both}",
            "each after x=": f"x={minus} \\text{{ or }} x={plus}",
            "under the root": f"{over(f'{a}+{deep}')}, {over(f'{a}-{deep}')}",
            "in a set": f"\\{{{plus}, {minus}\\}}",
        },
        wrong={
            "one": plus,
            "the other": minus,
            "first sign": f"{over(f'{-a}+{radical}')}, {over(f'{-a}-{radical}')}",
            "one twice": f"{plus}, {plus}",
            "inside": f"{over(f'{a}+{deeper}')}, {over(f'{a}-{deeper}')}",
            "only roots": f"{over(radical)}, -{over(radical)}",
            "one more": f"{plus}, {minus}, {a}",
            "between": f"{minus}<x<{plus}",
        },
    )


@form("nested radical")
def nested(source: Random) -> Problem:
    p, q = source.sample((2, 3, 5, 6, 7, 10, 11, 13), 2)
    p, q = max(p, q), min(p, q)
    sign = source.choice("+-")
    other = "-" if sign == "+" else "+"
    folded = f"\\sqrt{{{p + q}{sign}2\\sqrt{{{p * q}}}}}"
    open_ = f"\\sqrt{{{p}}}{sign}\\sqrt{{{q}}}"
    exact = root(p) + (root(q) if sign == "+" else -root(q))
    gold, same = (folded, open_) if source.random() < 0.5 else (open_, folded)
    return Problem(
        gold=gold,
        right={
            "denested": same,
            "commuted": f"\\sqrt{{{q}}}+\\sqrt{{{p}}}" if sign == "+" else f"-\\sqrt{{{q}}}+\\sqrt{{{p}}}",
            "rationalised": f"\\frac{{{p - q}}}{{\\sqrt{{{p}}}{other}\\sqrt{{{q}}}}}",
            "power": f"({p + q}{sign}2\\sqrt{{{p * q}}})^{{1/2}}",
        },
        wrong={
            "sign": f"\\sqrt{{{p}}}{other}\\sqrt{{{q}}}",
            "joined": f"\\sqrt{{{p + q if sign == '+' else p - q}}}",
            "not under the root": f"{p + q}{sign}2\\sqrt{{{p * q}}}",
            "factor": f"\\sqrt{{{p + q}{sign}\\sqrt{{{p * q}}}}}",
            "negated": f"-({open_})",
            "two decimals": rounded(exact, 2),
            "nearly": f"{open_}+10^{{-7}}",
        },
    )


@form("cube root")
def cube_root(source: Random) -> Problem:
    factor, inside = source.randint(2, 6), source.choice((2, 3, 5, 6, 7, 10, 11))
    return Problem(
        gold=f"{factor}\\sqrt[3]{{{inside}}}",
        right={
            "under the root": f"\\sqrt[3]{{{factor**3 * inside}}}",
            "power": f"{factor}\\cdot {inside}^{{1/3}}",
            "power with frac": f"{factor}\\cdot {inside}^{{\\frac{{1}}{{3}}}}",
        },
        wrong={
            "square root": f"{factor}\\sqrt{{{inside}}}",
            "factor": f"{factor + 1}\\sqrt[3]{{{inside}}}",
            "three in front": f"3\\sqrt{{{inside}}}",
            "factor under the root": f"\\sqrt[3]{{{factor * inside}}}",
            "sign": f"-{factor}\\sqrt[3]{{{inside}}}",
            "fourth root": f"{factor}\\sqrt[4]{{{inside}}}",
        },
    )


@form("interval with roots")
def root_interval(source: Random) -> Problem:
    inside, other = source.sample(SQUAREFREE[:10], 2)
    shape = source.choice(("\\sqrt{{{}}}", "\\frac{{\\pi}}{{{}}}", "{}\\pi", "\\frac{{\\sqrt{{{}}}}}{{2}}"))
    end, wrong_end = shape.format(inside), shape.format(other)
    closed = source.random() < 0.5
    left, right, sign = ("[", "]", "\\le ") if closed else ("(", ")", "<")
    return Problem(
        gold=f"{left}-{end},{end}{right}",
        is_value=False,
        right={
            "spaced": f"{left}-{end}, {end}{right}",
            "inequality": f"-{end}{sign}x{sign}{end}",
            "absolute value": f"|x|{sign}{end}",
            "x in": f"x\\in {left}-{end},{end}{right}",
            "stretched": f"\\left{left}-{end},{end}\\right{right}",
        },
        wrong={
            "opened or closed": f"(-{end},{end})" if closed else f"[-{end},{end}]",
            "half open": f"[-{end},{end})",
            "other end": f"{left}-{end},{wrong_end}{right}",
            "half": f"{left}0,{end}{right}",
            "without bound": f"{left}-{end},\\infty)",
            "absolute value turned": f"|x|>{end}",
            "end alone": end,
        },
    )


@form("polar point or point with roots")
def polar(source: Random) -> Problem:
    a, part = source.randint(2, 12), proper(source, 8)
    angle = f"\\frac{{{part.numerator if part.numerator > 1 else ''}\\pi}}{{{part.denominator}}}"
    surd = f"{a}\\sqrt{{{source.choice(SQUAREFREE)}}}"
    first = source.choice((str(a), surd))
    return Problem(
        gold=f"\\left({first},{angle}\\right)",
        right={
            "plain brackets": f"({first}, {angle})",
            "slash": f"({first},{part.numerator}\\pi/{part.denominator})",
            "factor": f"({first},{number(part)}\\pi)",
            "named": f"(r,\\theta)=\\left({first},{angle}\\right)",
        },
        wrong={
            "swapped": f"({angle},{first})",
            "degrees": f"({first},{number(part * 180)})",
            "sign": f"({first},-{angle})",
            "first changed": f"({first}+1,{angle})",
            "angle changed": f"({first},{number(part + 1)}\\pi)",
            "angle alone": angle,
            "no pi": f"({first},{number(part)})",
        },
    )


@form("absolute value inequality")
def absolute(source: Random) -> Problem:
    centre, width = Fraction(nonzero(source)), Fraction(source.randint(1, 9))
    inside = total((1, "x"), (-centre, ""))
    sign = source.choice(("<", "\\le "))
    low, high = number(centre - width), number(centre + width)
    left, right = ("(", ")") if sign == "<" else ("[", "]")
    return Problem(
        gold=f"{left}{low},{high}{right}",
        is_value=False,
        right={"chain": f"{low}{sign}x{sign}{high}"},
        # Unsolved, the inequality may be the question again, so it is left out where it is true.
        wrong={
            "direction": f"|{inside}|>{number(width)}",
            "centre's sign": f"|{total((1, 'x'), (centre, ''))}|{sign}{number(width)}",
            "width": f"|{inside}|{sign}{number(width + 1)}",
            "no absolute value": f"{inside}{sign}{number(width)}",
            "equation": f"|{inside}|={number(width)}",
        },
    )
