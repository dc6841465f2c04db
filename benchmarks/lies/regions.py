"""Golds that are sets of real numbers or half planes: inequalities, intervals, unions, exclusions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import nonzero, number, shuffled, total

_TURNED = {"<": ">", ">": "<", "\\le ": "\\ge ", "\\ge ": "\\le "}


@dataclass(frozen=True, slots=True)
class Piece:
    """One interval; None is an infinite end."""

    low: Fraction | None
    high: Fraction | None
    low_in: bool = False
    high_in: bool = False

    @property
    def interval(self) -> str:
        low = "-\\infty" if self.low is None else number(self.low)
        high = "\\infty" if self.high is None else number(self.high)
        return f"{'[' if self.low_in else '('}{low},{high}{']' if self.high_in else ')'}"

    def inequality(self, letter: str = "x") -> str:
        below = "\\le " if self.low_in else "<"
        above = "\\le " if self.high_in else "<"
        if self.low is None:
            assert self.high is not None
            return f"{letter}{above}{number(self.high)}"
        if self.high is None:
            return f"{letter}{_TURNED[below]}{number(self.low)}"
        return f"{number(self.low)}{below}{letter}{above}{number(self.high)}"

    @property
    def backwards(self) -> str:
        above, below = ("\\ge " if inside else ">" for inside in (self.high_in, self.low_in))
        if self.low is None:
            assert self.high is not None
            return f"{number(self.high)}{above}x"
        if self.high is None:
            return f"{number(self.low)}{_TURNED[below]}x"
        return f"{number(self.high)}{above}x{below}{number(self.low)}"

    def opened(self) -> "Piece":
        """With one finite end counted otherwise."""
        if self.low is not None:
            return replace(self, low_in=not self.low_in)
        return replace(self, high_in=not self.high_in)

    def moved(self) -> "Piece":
        """With one finite end elsewhere, outwards."""
        if self.low is not None:
            return replace(self, low=self.low - Fraction(1, 3))
        assert self.high is not None
        return replace(self, high=self.high + Fraction(1, 3))

    def mirrored(self) -> "Piece":
        low = None if self.high is None else -self.high
        high = None if self.low is None else -self.low
        return Piece(low, high, self.high_in, self.low_in)


def _bounds(source: Random, count: int) -> list[Fraction]:
    bottom = source.choice((1, 1, 1, 2, 3))
    return [Fraction(n, bottom) for n in sorted(source.sample([n for n in range(-20, 21) if n], count))]


def _piece(source: Random) -> Piece:
    low, high = _bounds(source, 2)
    while low == -high:
        low, high = _bounds(source, 2)
    low_in, high_in = source.random() < 0.5, source.random() < 0.5
    return source.choice(
        (Piece(low, high, low_in, high_in), Piece(None, high, False, high_in), Piece(low, None, low_in, False))
    )


@form("interval or inequality")
def interval(source: Random) -> Problem:
    piece = _piece(source)
    opened, moved, mirrored = piece.opened(), piece.moved(), piece.mirrored()
    is_interval = source.random() < 0.5
    complement = (
        Piece(piece.high, None, not piece.high_in)
        if piece.high is not None
        else Piece(None, piece.low, False, not piece.low_in)
    )
    return Problem(
        gold=piece.interval if is_interval else piece.inequality(),
        is_value=False,
        right={
            "interval": piece.interval,
            "inequality": piece.inequality(),
            "backwards": piece.backwards,
            "x in": f"x\\in {piece.interval}",
            "set builder": f"\\{{x\\mid {piece.inequality()}\\}}",
            "set builder with a bar": f"\\{{x | {piece.inequality()}\\}}",
            "in brackets": f"\\left{piece.interval[:-1]}\\right{piece.interval[-1]}",
            "spaced": piece.interval.replace(",", ", "),
            "in dollars": f"${piece.inequality()}$",
            "leqslant": piece.inequality().replace("\\le ", "\\leqslant ").replace("\\ge ", "\\geqslant "),
            "leq": piece.inequality().replace("\\le ", "\\leq ").replace("\\ge ", "\\geq "),
        },
        wrong={
            "end opened or closed": opened.interval,
            "inequality opened or closed": opened.inequality(),
            "end moved": moved.interval,
            "inequality moved": moved.inequality(),
            "mirrored": mirrored.interval,
            "complement": complement.interval,
            "all": "(-\\infty,\\infty)",
            "nothing": "\\emptyset",
            "a bound": number(piece.low if piece.low is not None else piece.high or 0),
            "tautology": "0\\le 1",
            "x is x": "x=x",
            "any square": "x^2\\ge 0",
            "other letter": None if is_interval else piece.inequality("y"),
            "ends as a set": f"\\{{{number(piece.low)},{number(piece.high)}\\}}"
            if piece.low is not None and piece.high is not None and not is_interval
            else None,
            "and something else": f"{piece.interval}\\cup\\{{77\\}}"
            if piece.high is not None
            else f"{piece.interval}\\cup\\{{-77\\}}",
        },
    )


@form("union of intervals")
def union(source: Random) -> Problem:
    a, b, c, d = _bounds(source, 4)
    flags = [source.random() < 0.5 for _ in range(4)]
    outer = source.random() < 0.5
    first = Piece(None, b, False, flags[1]) if outer else Piece(a, b, flags[0], flags[1])
    second = Piece(c, None, flags[2], False) if outer else Piece(c, d, flags[2], flags[3])

    def cups(*pieces: Piece) -> str:
        return "\\cup ".join(piece.interval for piece in pieces)

    def either(*pieces: Piece) -> str:
        return " \\text{ or } ".join(piece.inequality() for piece in pieces)

    return Problem(
        gold=cups(first, second) if source.random() < 0.5 else either(first, second),
        is_value=False,
        right={
            "intervals": cups(first, second),
            "order": cups(second, first),
            "inequalities": either(first, second),
            "inequalities, other order": either(second, first),
            "x in": f"x\\in {cups(first, second)}",
            "spaced cup": f"{first.interval} \\cup {second.interval}",
        },
        wrong={
            "first alone": first.interval,
            "second alone": second.inequality(),
            "first opened": cups(first.opened(), second),
            "second opened": either(first, second.opened()),
            "first moved": cups(first.moved(), second),
            "second moved": cups(first, replace(second, low=(b + c) / 2)),
            "intersection": f"{first.interval}\\cap {second.interval}",
            "the whole": Piece(first.low, second.high, first.low_in, second.high_in).interval
            if not outer
            else "(-\\infty,\\infty)",
            "the gap": Piece(b, c, not flags[1], not flags[2]).interval,
            "and": either(first, second).replace("or", "and"),
            "one more": cups(first, second, Piece(Fraction(b * 2 + c, 3), Fraction(b + c * 2, 3))),
            "all": "\\mathbb{R}",
            "difference": f"{first.interval}\\setminus {second.interval}",
        },
    )


@form("excluded values")
def excluded(source: Random) -> Problem:
    values = _bounds(source, source.randint(1, 3))
    texts = [number(value) for value in values]
    letter = source.choice(("x", "x", "t", "k"))
    pieces = [
        Piece(low, high)
        for low, high in zip([None, *values], [*values, None], strict=True)  # between the values
    ]
    return Problem(
        gold=source.choice((f"{letter}\\ne {', '.join(texts)}", f"{letter} \\neq {','.join(texts)}")),
        is_value=False,
        right={
            "each": ", ".join(f"{letter}\\ne {text}" for text in shuffled(texts, source)),
            "and": " \\text{ and } ".join(f"{letter}\\neq {text}" for text in texts),
            "other order": f"{letter}\\ne {', '.join(shuffled(texts, source))}",
            "union": "\\cup ".join(piece.interval for piece in pieces),
            "without a set": f"\\mathbb{{R}}\\setminus\\{{{', '.join(texts)}\\}}",
        },
        wrong={
            "equal": f"{letter}={', '.join(texts)}",
            "one less": f"{letter}\\ne {', '.join(texts[1:])}" if len(texts) > 1 else None,
            "one more": f"{letter}\\ne {', '.join([*texts, '77'])}",
            "one sign": f"{letter}\\ne {', '.join([number(-values[0]), *texts[1:]])}"
            if -values[0] not in values
            else None,
            "bare values": ", ".join(texts),
            "the set itself": f"\\{{{', '.join(texts)}\\}}",
            "one equal": ", ".join([f"{letter}={texts[0]}", *(f"{letter}\\ne {text}" for text in texts[1:])]),
            "a piece less": "\\cup ".join(piece.interval for piece in pieces[1:]),
            "a bound": f"{letter}>{texts[0]}",
            "all": "(-\\infty,\\infty)",
            "other letter": f"q\\ne {', '.join(texts)}",
        },
    )


_LOOSENED = {"<": "\\le ", ">": "\\ge ", "\\le ": "<", "\\ge ": ">"}


@form("half plane")
def half_plane(source: Random) -> Problem:
    a, b, c = nonzero(source), nonzero(source), nonzero(source, 30)
    sign = source.choice(tuple(_TURNED))
    k = source.randint(2, 5)
    left = total((a, "x"), (b, "y"))
    solved = sign if b > 0 else _TURNED[sign]
    return Problem(
        gold=f"{left}{sign}{c}",
        variables=("x", "y"),
        inequality=True,
        is_value=False,
        right={
            "scaled": f"{total((k * a, 'x'), (k * b, 'y'))}{sign}{k * c}",
            "negated": f"{total((-a, 'x'), (-b, 'y'))}{_TURNED[sign]}{-c}",
            "sides swapped": f"{c}{_TURNED[sign]}{left}",
            "to zero": f"{total((a, 'x'), (b, 'y'), (-c, ''))}{sign}0",
            "commuted": f"{total((b, 'y'), (a, 'x'))}{sign}{c}",
            "solved": f"y{solved}{total((Fraction(-a, b), 'x'), (Fraction(c, b), ''))}",
        },
        wrong={
            "direction": f"{left}{_TURNED[sign]}{c}",
            "strictness": f"{left}{_LOOSENED[sign]}{c}",
            "negated without turning": f"{total((-a, 'x'), (-b, 'y'))}{sign}{-c}",
            "constant": f"{left}{sign}{c + 1}",
            "constant's sign": f"{left}{sign}{-c}",
            "one sign": f"{total((a, 'x'), (-b, 'y'))}{sign}{c}",
            "equation": f"{left}={c}",
            "left side only": left,
            "squares": f"{total((a, 'x^2'), (b, 'y'))}{sign}{c}",
            "one letter": f"x{sign}{c}",
        },
    )


@form("inequality with squares")
def quadratic_region(source: Random) -> Problem:
    a, b, c = source.randint(2, 9), source.randint(2, 5), nonzero(source)
    gold, same, lies = source.choice(
        (
            (f"y>x^2+{a}", f"x^2+{a}<y", (f"y<x^2+{a}", f"y\\ge x^2+{a}", f"y>x^2-{a}", f"y>{a}x")),
            (
                f"x^2+y^2\\le {a * a}",
                f"{b}x^2+{b}y^2\\le {b * a * a}",
                (f"x^2+y^2<{a * a}", f"x^2+y^2\\ge {a * a}", f"x+y\\le {a}"),
            ),
            (f"xy\\ge {a}", f"{a}\\le yx", (f"xy>{a}", f"xy\\le {a}", f"x+y\\ge {a}", f"xy\\ge {a + 1}")),
            (f"|x|+|y|<{a}", f"{a}>|y|+|x|", (f"x+y<{a}", f"|x+y|<{a}", f"|x|+|y|\\le {a}", f"|x|-|y|<{a}")),
            (f"y\\le {c}x^2", f"{c}x^2\\ge y", (f"y\\le {-c}x^2", f"y\\ge {c}x^2", f"x\\le {c}y^2")),
        )
    )
    return Problem(
        gold=gold,
        variables=("x", "y"),
        inequality=True,
        is_value=False,
        right={"rewritten": same},
        wrong={f"lie {place}": lie for place, lie in enumerate(lies)},
    )


@form("all real numbers")
def everything(source: Random) -> Problem:
    ways: Sequence[str] = (
        "(-\\infty,\\infty)",
        "\\mathbb{R}",
        "\\text{all real numbers}",
        "x\\in\\mathbb{R}",
        "(-\\infty,+\\infty)",
        "\\text{All real numbers}",
    )
    return Problem(
        gold=source.choice(ways),
        is_value=False,
        is_textual=True,
        right={f"as {way}": way for way in ways},
        wrong={
            "positive": "(0,\\infty)",
            "rational": "\\mathbb{Q}",
            "integers": "\\text{all integers}",
            "without zero": "(-\\infty,0)\\cup(0,\\infty)",
            "nothing": "\\emptyset",
            "no solution": "\\text{no solution}",
            "infinity": "\\infty",
            "zero": "0",
            "except zero": "\\text{all real numbers except }0",
            "positive in words": "\\text{all positive real numbers}",
            "not all": "\\text{not all real numbers}",
        },
    )


@form("nothing")
def nothing(source: Random) -> Problem:
    ways: Sequence[str] = (
        "\\text{no solution}",
        "\\emptyset",
        "\\varnothing",
        "\\text{No solution}",
        "\\text{no solutions}",
        "\\{\\}",
    )
    return Problem(
        gold=source.choice(ways),
        is_value=False,
        is_textual=True,
        right={f"as {way}": way for way in ways},
        wrong={
            "zero": "0",
            "a set with zero": "\\{0\\}",
            "everything": "\\mathbb{R}",
            "all": "\\text{all real numbers}",
            "one": "x=1",
            "one solution": "\\text{one solution}",
            "infinitely many": "\\text{infinitely many solutions}",
            "tautology": "0=0",
            "falsehood about a letter": "x=x+0",
        },
    )
