"""Golds with several parts: lists, sets, tuples, points, assignments, matrices, vectors, and several boxes."""

from collections.abc import Sequence
from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import number, rational, rationals, shuffled, spelled


def _texts(values: Sequence[Fraction]) -> list[str]:
    return [number(value) for value in values]


def _changed(values: Sequence[Fraction], source: Random) -> list[Fraction]:
    place = source.randrange(len(values))
    return [value + (place == here) * 50 for here, value in enumerate(values)]


def _negated(values: Sequence[Fraction], source: Random) -> list[Fraction]:
    place = source.randrange(len(values))
    return [-value if place == here else value for here, value in enumerate(values)]


@form("list")
def numbers_list(source: Random) -> Problem:
    values = rationals(source, source.randint(2, 5))
    texts = _texts(values)
    more = number(max(values) + 1)
    return Problem(
        gold=", ".join(texts),
        is_value=False,
        right={
            "other order": ", ".join(shuffled(texts, source)),
            "otherwise spelled": ", ".join(spelled(value, source) for value in values),
            "and": ", ".join(texts[:-1]) + f" \\text{{ and }} {texts[-1]}",
            "comma and": ", ".join(texts[:-1]) + f", \\text{{ and }} {texts[-1]}",
            "after x=": f"x={', '.join(texts)}",
            "each after x=": ", ".join(f"x={text}" for text in texts),
            "spaced by quad": ",\\quad ".join(texts),
        },
        wrong={
            "an item less": ", ".join(texts[1:]),
            "an item more": ", ".join([*texts, more]),
            "an item twice": ", ".join([*texts, texts[0]]),
            "one for another": ", ".join([texts[0], *texts[:-1]]) if len(texts) > 1 else None,
            "one changed": ", ".join(_texts(_changed(values, source))),
            "one sign": ", ".join(_texts(_negated(values, source))),
            "first alone": texts[0],
            "sum": number(sum(values)),
            "maybe one more": f"{', '.join(texts)}\\text{{ or }} {more}",
            "empty set": "\\emptyset",
        },
    )


@form("set")
def numbers_set(source: Random) -> Problem:
    values = rationals(source, source.randint(1, 5))
    texts = _texts(values)
    more = number(max(values) + 1)
    return Problem(
        gold=f"\\{{{', '.join(texts)}\\}}",
        is_value=False,
        right={
            "other order": f"\\{{{', '.join(shuffled(texts, source))}\\}}",
            "stretched": f"\\left\\{{{', '.join(texts)}\\right\\}}",
            "otherwise spelled": f"\\{{{','.join(spelled(value, source) for value in values)}\\}}",
            "x in": f"x\\in\\{{{', '.join(texts)}\\}}",
            "lbrace": f"\\lbrace {', '.join(texts)} \\rbrace",
        },
        wrong={
            "an item less": f"\\{{{', '.join(texts[1:])}\\}}",
            "an item more": f"\\{{{', '.join([*texts, more])}\\}}",
            "one changed": f"\\{{{', '.join(_texts(_changed(values, source)))}\\}}",
            "one sign": f"\\{{{', '.join(_texts(_negated(values, source)))}\\}}",
            "union with another": f"\\{{{', '.join(texts)}\\}}\\cup\\{{{more}\\}}",
            "empty set": "\\emptyset",
            "set of the set and one": f"\\{{\\{{{', '.join(texts)}\\}},{more}\\}}",
        },
    )


@form("plus or minus")
def both_signs(source: Random) -> Problem:
    value = abs(rational(source))
    text = number(value)
    return Problem(
        gold=source.choice((f"\\pm {text}", f"x=\\pm {text}", f"{text}, -{text}")),
        is_value=False,
        right={
            "two items": f"{text}, -{text}",
            "other order": f"-{text}, {text}",
            "sign": f"\\pm {text}",
            "x each": f"x={text} \\text{{ or }} x=-{text}",
            "minus or plus": f"\\mp {text}",
        },
        wrong={
            "positive alone": text,
            "negative alone": f"-{text}",
            "another": f"\\pm {number(value + 1)}",
            "zero too": f"-{text}, 0, {text}",
            "twice": f"{text}, {text}",
            "inside": f"-{text}<x<{text}",
        },
    )


@form("tuple")
def numbers_tuple(source: Random) -> Problem:
    values = rationals(source, source.randint(2, 4))
    texts = _texts(values)
    turned = shuffled(texts, source)
    names = source.choice((("x", "y", "z", "w"), ("a", "b", "c", "d"), ("p", "q", "r", "s")))[: len(texts)]
    return Problem(
        gold=f"({', '.join(texts)})",
        right={
            "stretched": f"\\left({', '.join(texts)}\\right)",
            "otherwise spelled": f"({','.join(spelled(value, source) for value in values)})",
            "named": f"({','.join(names)})=({', '.join(texts)})",
            "thin spaces": "(" + ",\\,".join(texts) + ")",
            "big": f"\\big({', '.join(texts)}\\big)",
        },
        wrong={
            "other order": f"({', '.join(turned)})",
            "one changed": f"({', '.join(_texts(_changed(values, source)))})",
            "one sign": f"({', '.join(_texts(_negated(values, source)))})",
            "one less": f"({', '.join(texts[:-1])})",
            "one more": f"({', '.join([*texts, '0'])})",
            "first alone": texts[0],
            "sum": number(sum(values)),
            "two of them": f"({', '.join(texts)}), ({', '.join(turned)})",
            "unknown": f"({', '.join([*texts[:-1], 'x'])})",
        },
    )


@form("named point")
def point(source: Random) -> Problem:
    a, b = rationals(source, 2)
    name = source.choice("PQA")
    return Problem(
        gold=f"{name}({number(a)},{number(b)})",
        right={
            "spaced": f"{name}({number(a)}, {number(b)})",
            "equals": f"{name}=({number(a)},{number(b)})",
            "bare": f"({number(a)},{number(b)})",
        },
        wrong={
            "swapped": f"{name}({number(b)},{number(a)})",
            "one sign": f"{name}({number(-a)},{number(b)})",
            "one changed": f"({number(a)},{number(b + 1)})",
            "one coordinate": number(a),
        },
    )


@form("list of points")
def points(source: Random) -> Problem:
    a, b, c, d = rationals(source, 4)

    def write(*pairs: tuple[Fraction, Fraction]) -> str:
        return ", ".join(f"({number(x)},{number(y)})" for x, y in pairs)

    return Problem(
        gold=write((a, b), (c, d)),
        is_value=False,
        right={
            "other order": write((c, d), (a, b)),
            "and": f"{write((a, b))} \\text{{ and }} {write((c, d))}",
            "in a set": f"\\{{{write((c, d), (a, b))}\\}}",
        },
        wrong={
            "mated otherwise": write((a, d), (c, b)),
            "coordinates swapped": write((b, a), (d, c)),
            "one swapped": write((a, b), (d, c)),
            "one point": write((a, b)),
            "a third": write((a, b), (c, d), (a, d)),
            "one tuple": f"({number(a)},{number(b)},{number(c)},{number(d)})",
            "one sign": write((a, b), (c, -d)),
            "one twice": write((a, b), (a, b)),
        },
    )


@form("assignments")
def assignments(source: Random) -> Problem:
    names = source.choice((("x", "y"), ("a", "b"), ("k", "n"), ("x", "y", "z"), ("m", "n"), ("p", "q")))
    values = rationals(source, len(names))
    pairs = [f"{name}={number(value)}" for name, value in zip(names, values, strict=True)]

    def named(values: Sequence[Fraction]) -> str:
        return ", ".join(f"{name}={number(value)}" for name, value in zip(names, values, strict=True))

    return Problem(
        gold=", ".join(pairs),
        is_value=False,
        right={
            "other order": ", ".join(shuffled(pairs, source)),
            "and": ", ".join(pairs[:-1]) + f" \\text{{ and }} {pairs[-1]}",
            "no spaces": ",".join(pairs),
            "otherwise spelled": ",".join(
                f"{name}={spelled(value, source)}" for name, value in zip(names, values, strict=True)
            ),
            "tuple of names": f"({','.join(names)})=({','.join(_texts(values))})",
            "quad": ",\\quad ".join(pairs),
        },
        wrong={
            "values swapped": named([*values[1:], values[0]]),
            "one less": ", ".join(pairs[1:]),
            "one changed": named(_changed(values, source)),
            "one sign": named(_negated(values, source)),
            "one more": ", ".join([*pairs, "t=1"]),
            "first value": number(values[0]),
            "other names": ", ".join(f"{name}={number(value)}" for name, value in zip("uvw", values, strict=False)),
            "tautologies": ", ".join(f"{name}={name}" for name in names),
            "chained": "=".join([*names, number(values[0])]),
        },
    )


def _rows(rows: Sequence[Sequence[str]], kind: str = "pmatrix") -> str:
    body = " \\\\ ".join(" & ".join(row) for row in rows)
    return f"\\begin{{{kind}}}{body}\\end{{{kind}}}"


@form("matrix")
def matrix(source: Random) -> Problem:
    height, width = source.choice(((2, 2), (2, 3), (3, 2), (3, 3)))
    values = rationals(source, height * width)
    texts = _texts(values)

    def shape(items: Sequence[str]) -> list[Sequence[str]]:
        return [items[row * width : (row + 1) * width] for row in range(height)]

    rows = shape(texts)
    columns = "c" * width
    body = " \\\\ ".join(" & ".join(row) for row in rows)
    return Problem(
        gold=_rows(rows),
        right={
            "brackets": _rows(rows, "bmatrix"),
            "otherwise spelled": _rows(shape([spelled(value, source) for value in values])),
            "array": f"\\left[\\begin{{array}}{{{columns}}}{body}\\end{{array}}\\right]",
            "plain matrix in brackets": f"\\left({_rows(rows, 'matrix')}\\right)",
            "named": f"A={_rows(rows)}",
            "tight": _rows(rows).replace(" & ", "&").replace(" \\\\ ", "\\\\"),
        },
        wrong={
            "transposed": _rows([list(column) for column in zip(*rows, strict=True)]),
            "rows swapped": _rows([*rows[1:], rows[0]]),
            "one changed": _rows(shape(_texts(_changed(values, source)))),
            "one sign": _rows(shape(_texts(_negated(values, source)))),
            "determinant": _rows(rows, "vmatrix"),
            "doubled": f"2{_rows(rows)}",
            "a row less": _rows(rows[:-1]),
            "an entry": texts[0],
            "negated": f"-{_rows(rows)}",
            "zero": _rows(shape(["0"] * len(texts))),
            "a list": ", ".join(texts),
        },
    )


@form("column vector")
def vector(source: Random) -> Problem:
    values = rationals(source, source.randint(2, 3))
    texts = _texts(values)
    column = [[text] for text in texts]
    return Problem(
        gold=_rows(column),
        right={
            "brackets": _rows(column, "bmatrix"),
            "otherwise spelled": _rows([[spelled(value, source)] for value in values]),
            "named": f"\\mathbf{{v}}={_rows(column)}",
        },
        wrong={
            "row": _rows([texts]),
            "other order": _rows([*column[1:], column[0]]),
            "doubled": f"2{_rows(column)}",
            "one sign": _rows([[text] for text in _texts(_negated(values, source))]),
            "one less": _rows(column[:-1]),
            "unit": texts[0],
        },
    )


@form("angle bracket vector")
def angled(source: Random) -> Problem:
    values = rationals(source, source.randint(2, 3))
    texts = _texts(values)
    return Problem(
        gold=f"\\langle {', '.join(texts)} \\rangle",
        right={
            "tight": f"\\langle {','.join(texts)}\\rangle",
            "stretched": f"\\left\\langle {', '.join(texts)} \\right\\rangle",
        },
        wrong={
            "other order": f"\\langle {', '.join(shuffled(texts, source))} \\rangle",
            "one sign": f"\\langle {', '.join(_texts(_negated(values, source)))} \\rangle",
            "one less": f"\\langle {', '.join(texts[:-1])} \\rangle",
            "doubled": f"2\\langle {', '.join(texts)} \\rangle",
        },
    )


_MATHS = (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("", ""))
_ALTERNATIVES = (" or ", "\nor\n", ", or ", "\n\nor\n\n", " or maybe ", " or possibly ")
_CONJUNCTIONS = (" and ", ", ", "\nand\n", ", and ", "\n", "; ", "\n\n", " and also ")
_INNER_ALTERNATIVES = ("\\quad\\text{or}\\quad", "\\text{ or }", "\\quad \\text{ or } \\quad", "\\lor ")
_INNER_CONJUNCTIONS = ("\\quad\\text{and}\\quad", "\\text{ and }", ",\\quad ", "\\qquad ", ",\\ ", "\\text{, }")


def _boxes(items: Sequence[str], outside: str, source: Random, inner: bool) -> str:
    start, end = source.choice(_MATHS[:4] if inner else _MATHS)
    boxes = [f"\\boxed{{{item}}}" for item in items]
    if inner:
        return f"So we find {start}{outside.join(boxes)}{end}"
    return "So we find " + outside.join(f"{start}{box}{end}" for box in boxes) + "."


@form("several boxes")
def boxes(source: Random) -> Problem:
    values = rationals(source, source.randint(2, 3))
    kind = source.choice(("numbers", "points", "names"))
    texts = _texts(values)
    if kind == "points":
        texts = [f"({text},{number(place + 30)})" for place, text in enumerate(texts)]
    if kind == "names":
        texts = [f"{name}={text}" for name, text in zip("abc", texts, strict=False)]
    single, other = (texts[0], texts[1])
    gold_is_list = source.random() < 0.5
    inner = source.random() < 0.4
    join_and = source.choice(_INNER_CONJUNCTIONS if inner else _CONJUNCTIONS)
    join_or = source.choice(_INNER_ALTERNATIVES if inner else _ALTERNATIVES)
    if gold_is_list:
        return Problem(
            gold=", ".join(texts),
            is_value=False,
            whole_right={
                f"joined by {join_and!r}": _boxes(texts, join_and, source, inner),
                "other order": _boxes(shuffled(texts, source), join_and, source, inner),
                "said again as a list": f"{_boxes(texts, join_and, source, inner)}\n\nThat is all there is to say, "
                f"and the final answer to the whole question is \\boxed{{{', '.join(texts)}}}",
            },
            whole_wrong={
                "one box less": _boxes(texts[1:], join_and, source, inner),
                "one box more": _boxes([*texts, "77"], join_and, source, inner),
                "one box twice instead": _boxes([texts[0]] * len(texts), join_and, source, inner),
                "one box changed": _boxes([*texts[:-1], "77"], join_and, source, inner),
            },
        )
    return Problem(
        gold=single,
        is_value=False,
        whole_right={
            f"the same box twice, {join_and!r}": _boxes([single, single], join_and, source, inner),
            "the same box three times": _boxes([single] * 3, join_and, source, inner),
            "another far before": f"At first one might think of \\boxed{{{other}}}. But this does not use the second "
            f"condition at all, so we have to start again, and then we find \\boxed{{{single}}}",
        },
        whole_wrong={
            f"hedge by {join_or!r}": _boxes([other, single], join_or, source, inner),
            f"hedge by {join_or!r}, right one first": _boxes([single, other], join_or, source, inner),
            f"both by {join_and!r}": _boxes([other, single], join_and, source, inner),
            "right one first": _boxes([single, other], join_and, source, inner),
            "another box twice": _boxes([other, other], join_and, source, inner),
            "the right one far before": f"At first one might think of \\boxed{{{single}}}. But this does not use the "
            f"second condition at all, so we have to start again, and then we find \\boxed{{{other}}}",
        },
    )


@form("approximations beside exact values")
def approximations(source: Random) -> Problem:
    a, b = source.sample((2, 3, 5, 6, 7, 10, 11), 2)
    exact = [f"\\sqrt{{{n}}}" for n in (a, b)]
    about = [f"\\sqrt{{{n}}}\\approx {n**0.5:.2f}" for n in (a, b)]
    named = source.random() < 0.4
    both = [f"x={each}" for each in about] if named else about
    plain = [f"x={each}" for each in exact] if named else exact
    joint = source.choice((", ", " \\text{ or } ", " \\text{ and } ", ",\\ "))
    gold = source.choice((joint.join(both), ", ".join(plain)))
    return Problem(
        gold=gold,
        is_value=False,
        right={
            "exact": ", ".join(plain),
            "with approximations": ", ".join(both),
            "one approximation": f"{both[0]}, {plain[1]}",
            "last approximation": f"{plain[0]}, {both[1]}",
            "other order": ", ".join(reversed(both)),
            "more digits": ", ".join(f"\\sqrt{{{n}}}\\approx {n**0.5:.4f}" for n in (a, b)),
        },
        wrong={
            "first alone": plain[0],
            "first alone, about": both[0],
            "second alone": plain[1],
            "second changed": f"{both[0]}, \\sqrt{{{a * b + 1}}}\\approx {b**0.5:.2f}",
            "one more": f"{', '.join(both)}, \\sqrt{{{a * b + 1}}}\\approx 5.1",
            "approximations alone": f"{a**0.5:.2f}, {b**0.5:.2f}",
            "a wrong value before": f"{a + b}\\approx \\sqrt{{{a}}}, {a + b}\\approx\\sqrt{{{b}}}",
        },
    )
