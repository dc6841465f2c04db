"""Golds that are words, letters of choices, labels, names of values and statements about figures."""

from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import number, rationals, spelled


@form("choice")
def choice(source: Random) -> Problem:
    letters = "ABCDE"
    letter, other, third = source.sample(letters, 3)
    return Problem(
        gold=source.choice(
            (letter, f"({letter})", f"\\text{{({letter})}}", f"\\textbf{{({letter})}}\\ {source.randint(2, 99)}")
        ),
        is_value=False,
        is_textual=True,
        right={
            "plain": letter,
            "brackets": f"({letter})",
            "text": f"\\text{{{letter}}}",
            "bold": f"\\textbf{{({letter})}}",
            "roman": f"\\mathrm{{{letter}}}",
            "with its value": f"{letter}) 12",
            "with a point": f"{letter}.",
        },
        wrong={
            "other": other,
            "other in brackets": f"({other})",
            "two": f"{letter}, {other}",
            "or": f"{other}\\text{{ or }}{letter}",
            "and": f"{letter}\\text{{ and }}{third}",
            "joined": f"{letter}{other}",
            "slash": f"{letter}/{other}",
            "not": f"\\text{{not }}{letter}",
            "small": letter.lower(),
            "all": letters,
            "number": "12",
            "other with the letter": f"\\textbf{{({other})}}\\ ({letter})",
        },
    )


_WORDS = (
    ("yes", "no"),
    ("no", "yes"),
    ("true", "false"),
    ("false", "true"),
    ("even", "odd"),
    ("odd", "even"),
    ("east", "west"),
    ("Tuesday", "Thursday"),
    ("Saturday", "Sunday"),
    ("increasing", "decreasing"),
    ("parabola", "hyperbola"),
    ("ellipse", "circle"),
    ("Evelyn", "Briana"),
    ("Mrs. Hilt", "Mr. Hilt"),
    ("St. Louis", "St. Paul"),
    ("Dr. Smith", "Dr. Jones"),
    ("isosceles triangle", "equilateral triangle"),
    ("convergent", "divergent"),
    ("Alice", "Bob"),
    ("rational", "irrational"),
    ("possible", "impossible"),
    ("neither", "both"),
)


@form("word")
def word(source: Random) -> Problem:
    right, wrong = source.choice(_WORDS)
    return Problem(
        gold=source.choice(
            (right, f"\\text{{{right}}}", f"\\text{{{right.capitalize()}}}" if right.islower() else right)
        ),
        is_value=False,
        is_textual=True,
        right={
            "text": f"\\text{{{right}}}",
            "plain": right,
            "bold": f"\\textbf{{{right}}}",
            "roman": f"\\mathrm{{{right}}}" if " " not in right else None,
            "spaces": f"\\text{{ {right} }}",
            "capital": f"\\text{{{right.capitalize()}}}" if right.islower() else None,
        },
        wrong={
            "other": f"\\text{{{wrong}}}",
            "not": f"\\text{{not {right}}}",
            "or": f"\\text{{{right} or {wrong}}}",
            "and": f"\\text{{{right} and {wrong}}}",
            "both": f"{right}, {wrong}",
            "number": "1",
            "part": right[: len(right) // 2],
            "backwards": right[::-1],
            "question": f"\\text{{{right}?}} \\text{{ or {wrong}?}}",
        },
    )


@form("label with a colon")
def label(source: Random) -> Problem:
    one, two = source.sample("ABCDEFGHIJ", 2)
    a, b = rationals(source, 2)
    both = source.random() < 0.6
    body, lie = (
        (number(a), number(b))
        if both or source.random() < 0.6
        else source.choice((("x>3", "x>5"), ("y=2x", "y=3x"), ("(1,2)", "(2,1)")))
    )
    if both:
        unit = source.choice(("", "", "\\text{ cm}", "\\mathrm{hr}"))
        pair = f"{one}: {body}{unit}, {two}: {lie}{unit}"
        return Problem(
            gold=pair,
            is_value=False,
            right={
                "tight": pair.replace(": ", ":"),
                "no units": f"{one}: {body}, {two}: {lie}",
                "thin": pair.replace(", ", ",\\ "),
            },
            wrong={
                "swapped": f"{one}: {lie}, {two}: {body}",
                "first": f"{one}: {body}",
                "second": f"{two}: {lie}",
                "first letter": one,
                "one changed": f"{one}: {body}, {two}: {number(b + 1)}",
                "both changed": f"{one}: 111, {two}: 222",
                "labels alone": f"{one}, {two}",
                "first changed alone": f"{one}: 111",
            },
        )
    return Problem(
        gold=f"{one}: {body}",
        is_value=False,
        right={"tight": f"{one}:{body}", "same": f"{one}: {body}"},
        wrong={
            "other value": f"{one}: {lie}",
            "other label": f"{two}: {body}",
            "label alone": one,
            "label in brackets": f"({one})",
            "two": f"{one}: {body}, {two}: {lie}",
        },
    )


_NAMES = (
    ("f({n})", "f({m})", "g({n})"),
    ("g(f({n}))", "f(g({n}))", "g(f({m}))"),
    ("f'({n})", "f({n})", "f'({m})"),
    ("f^{{-1}}({n})", "f({n})", "f^{{-1}}({m})"),
    ("P(A|B)", "P(B|A)", "P(A)"),
    ("P(A\\cap B)", "P(A\\cup B)", "P(A)"),
    ("P(X={n})", "P(X={m})", "P(X\\le {n})"),
    ("E(X)", "E(Y)", "D(X)"),
    ("\\sin A", "\\cos A", "\\sin B"),
    ("\\cos\\angle BAC", "\\cos\\angle ABC", "\\sin\\angle BAC"),
    ("\\tan\\theta", "\\cot\\theta", "\\tan\\alpha"),
    ("\\overline{{AB}}", "\\overline{{AC}}", "\\overline{{CD}}"),
    ("AB", "AC", "CD"),
    ("|AB|", "|AC|", "|CD|"),
    ("|\\vec{{a}}|", "|\\vec{{b}}|", "|\\vec{{a}}+\\vec{{b}}|"),
    ("\\vec{{a}}\\cdot\\vec{{b}}", "\\vec{{a}}\\cdot\\vec{{c}}", "|\\vec{{a}}|"),
    ("S_{{\\triangle ABC}}", "S_{{\\triangle ABD}}", "S_{{\\triangle DEF}}"),
    ("S_{{{n}}}", "S_{{{m}}}", "T_{{{n}}}"),
    ("a_{{{n}}}", "a_{{{m}}}", "b_{{{n}}}"),
    ("x_1+x_2", "x_1x_2", "x_1-x_2"),
    ("a+b", "a-b", "ab"),
    ("m+n", "m-n", "mn"),
    ("xy", "x+y", "xz"),
    ("\\frac{{a}}{{b}}", "\\frac{{b}}{{a}}", "ab"),
    ("V_{{\\max}}", "V_{{\\min}}", "W_{{\\max}}"),
    ("\\det A", "\\det B", "\\operatorname{{tr}}A"),
    ("[ABC]", "[ABD]", "[BCD]"),
    ("|z|", "|w|", "z"),
    ("\\text{{Area}}", "\\text{{Perimeter}}", "\\text{{Volume}}"),
    ("n(A\\cup B)", "n(A\\cap B)", "n(A)"),
    ("\\operatorname{{Var}}(X)", "\\operatorname{{Var}}(Y)", "E(X)"),
    ("AB+CD", "AB-CD", "AB"),
    ("a^2+b^2+c^2", "a^2+b^2", "abc"),
    ("x_{{\\text{{min}}}}", "x_{{\\text{{max}}}}", "y_{{\\text{{min}}}}"),
)


@form("named value")
def named(source: Random) -> Problem:
    n, m = source.sample(range(40, 60), 2)
    name, *others = (each.format(n=n, m=m) for each in source.choice(_NAMES))
    value = rationals(source, 1)[0]
    if name.startswith(("P(", "|", "\\overline", "AB", "S_{\\tri", "[", "V_")):
        value = abs(value)
    text = number(value)
    return Problem(
        gold=f"{name}={text}",
        right={
            "bare": text,
            "otherwise spelled": spelled(value, source),
            "same name": f"{name}={spelled(value, source)}",
            "spaced": f"{name} = {text}",
        },
        wrong={
            **{f"name {place}": f"{other}={text}" for place, other in enumerate(others)},
            "value": number(value + 1),
            "sign": number(-value),
            "name and value": f"{name}={number(value + 1)}",
            "inverse": number(1 / value) if value * value != 1 else None,
            "argument": str(n) if str(n) in name and value != n else None,
            "itself": f"{name}={name}",
            "an inequality": f"{name}>{text}",
        },
    )


@form("named angle")
def named_angle(source: Random) -> Problem:
    n = source.randint(2, 179)
    points = "".join(source.sample("ABCDEF", 3))
    other = points[1] + points[0] + points[2]
    sign = source.choice(("\\angle ", "m\\angle "))
    return Problem(
        gold=f"{sign}{points}={n}^\\circ",
        right={
            "bare": f"{n}^\\circ",
            "number": str(n),
            "same": f"{sign}{points} = {n}^{{\\circ}}",
            "words": f"{n}\\text{{ degrees}}",
        },
        wrong={
            "other angle": f"{sign}{other}={n}^\\circ",
            "value": f"{n + 1}^\\circ",
            "rest": f"{180 - n}^\\circ" if n != 90 else None,
            "name and value": f"{sign}{points}={n + 1}^\\circ",
            "name alone": f"{sign}{points}",
        },
    )


@form("named ratio")
def named_ratio(source: Random) -> Problem:
    a, b = source.choice(((2, 3), (3, 5), (7, 32), (1, 4), (5, 2)))
    one, two = source.choice(
        (("S_{1}", "S_{2}"), ("AB", "BC"), ("a", "b"), ("S_{\\triangle ABC}", "S_{\\triangle DEF}"))
    )
    return Problem(
        gold=f"{one}:{two}={a}:{b}",
        right={"bare": f"{a}:{b}", "scaled": f"{2 * a}:{2 * b}", "same": f"{one}:{two} = {a}:{b}"},
        wrong={
            "turned": f"{b}:{a}",
            "names turned": f"{two}:{one}={a}:{b}",
            "value": f"{a}:{b + 1}",
            "name and value": f"{one}:{two}={a + 1}:{b}",
            "first": str(a),
        },
    )


@form("name of an angle or a vector")
def figure_name(source: Random) -> Problem:
    a, b, c = source.sample("ABCDEFPQR", 3)
    if source.random() < 0.5:
        return Problem(
            gold=f"\\angle {a}{b}{c}",
            right={"braces": f"\\angle{{{a}{b}{c}}}", "backwards": f"\\angle {c}{b}{a}"},
            wrong={
                "vertex": f"\\angle {a}{c}{b}",
                "other vertex": f"\\angle {b}{a}{c}",
                "other point": f"\\angle {a}{b}Z",
                "triangle": f"\\triangle {a}{b}{c}",
                "a point": b,
            },
        )
    mark = source.choice(("\\overrightarrow", "\\vec"))
    return Problem(
        gold=f"{mark}{{{a}{b}}}",
        right={"spaced": f"{mark} {{{a}{b}}}"},
        wrong={
            "turned": f"{mark}{{{b}{a}}}",
            "other": f"{mark}{{{a}{c}}}",
            "negated": f"-{mark}{{{a}{b}}}",
            "doubled": f"2{mark}{{{a}{b}}}",
        },
    )


@form("statement about figures")
def statement(source: Random) -> Problem:
    points = source.sample("ABCDEFPQR", 6)
    one, two = "".join(points[:3]), "".join(points[3:])
    if source.random() < 0.6:
        relation, other = source.choice((("\\sim", "\\cong"), ("\\cong", "\\sim")))
        return Problem(
            gold=f"\\triangle {one}{relation}\\triangle {two}",
            right={
                "spaced": f"\\triangle {one} {relation} \\triangle {two}",
                "braces": f"\\triangle{{{one}}}{relation}\\triangle{{{two}}}",
            },
            wrong={
                "order of the second": f"\\triangle {one}{relation}\\triangle {two[1] + two[0] + two[2]}",
                "order of the first": f"\\triangle {one[0] + one[2] + one[1]}{relation}\\triangle {two}",
                "relation": f"\\triangle {one}{other}\\triangle {two}",
                "other point": f"\\triangle {one}{relation}\\triangle {two[:2]}Z",
                "first alone": f"\\triangle {one}",
                "a number": "1",
            },
        )
    relation, other = source.choice((("\\perp", "\\parallel"), ("\\parallel", "\\perp")))
    left, right = one[:2], two[:2]
    return Problem(
        gold=f"{left}{relation} {right}",
        right={"spaced": f"{left} {relation} {right}", "same": f"{left}{relation} {right}"},
        wrong={
            "relation": f"{left}{other} {right}",
            "other lines": f"{left[0]}{right[0]}{relation} {left[1]}{right[1]}",
            "other point": f"{left}{relation} {right[0]}Z",
            "a number": "90",
            "equal": f"{left}={right}",
        },
    )


@form("plain text")
def plain_text(source: Random) -> Problem:
    n = source.choice((source.randint(2, 9), source.randint(10, 9999)))
    other = n + source.randint(1, 9)
    before = f"We add them up: 3 + {other} makes something else.\n"
    return Problem(
        gold=source.choice((str(n), f"Some steps.\n#### {n}", f"\\boxed{{{n}}}")),
        is_value=False,
        whole_right={
            "####": f"{before}#### {n}",
            "answer tag": f"{before}<answer>{n}</answer>",
            "answer tag with a box": f"{before}<answer>\\boxed{{{n}}}</answer>",
            "boxed without braces": f"{before}$\\boxed {n % 10}$" if n < 10 else None,
            "fbox": f"{before}The answer is $\\fbox{{{n}}}$.",
            "after thinking": f"<think>perhaps \\boxed{{{other}}}</think>\nThe answer is \\boxed{{{n}}}.",
            "bold box": f"{before}**The answer is $\\boxed{{{n}}}$**",
        },
        whole_wrong={
            "####": f"{before}#### {other}",
            "answer tag": f"{before}The number {n} is not it. <answer>{other}</answer>",
            "fbox": f"{before}The answer is $\\fbox{{{other}}}$.",
            "only in thought": f"<think>it is \\boxed{{{n}}}</think>\nThe answer is \\boxed{{{other}}}.",
            "nothing": before,
            "empty box": f"{before}\\boxed{{}}",
            "empty": "",
            "box of spaces": "\\boxed{\\quad}",
            "thought without end": f"<think>it is \\boxed{{{n}}}",
            "cut off": f"{before}so it is \\boxed{{{other}",
            "right in the text, wrong in the box": f"The answer is {n}, I say {n}. \\boxed{{{other}}}",
            "#### hedge": f"{before}#### {n} or {other}",
        },
    )
