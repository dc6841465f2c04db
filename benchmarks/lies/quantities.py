"""Golds with a unit, a currency, an angle, a ratio or a time of day."""

from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import SQUAREFREE, decimal, number, proper

_UNITS = (
    ("cm", "centimeters", "m"),
    ("m", "meters", "cm"),
    ("km", "kilometers", "m"),
    ("kg", "kilograms", "g"),
    ("g", "grams", "kg"),
    ("ft", "feet", "inches"),
    ("inches", "inches", "feet"),
    ("hours", "hours", "minutes"),
    ("minutes", "minutes", "hours"),
    ("miles", "miles", "km"),
    ("mph", "miles per hour", "km/h"),
)


@form("number with a unit")
def unit(source: Random) -> Problem:
    short, long, other = source.choice(_UNITS)
    value = proper(source, 5) if source.random() < 0.3 else Fraction(source.randint(2, 900))
    text = number(value)
    return Problem(
        gold=source.choice((f"{text}\\text{{ {short}}}", f"{text} \\text{{ {long}}}", f"{text}\\ \\mathrm{{{short}}}")),
        right={
            "bare": text,
            "short": f"{text}\\text{{ {short}}}",
            "long": f"{text}\\text{{ {long}}}",
            "roman": f"{text}\\,\\mathrm{{{short}}}",
            "no space": f"{text}\\text{{{short}}}",
            "decimal": f"{decimal(value)}\\text{{ {short}}}" if decimal(value) else None,
            "after x=": f"x={text}\\text{{ {short}}}",
        },
        wrong={
            "other unit": f"{text}\\text{{ {other}}}",
            "value": f"{number(value + 1)}\\text{{ {short}}}",
            "bare value": number(value + 1),
            "sign": f"-{text}\\text{{ {short}}}",
            "squared": f"{text}\\text{{ {short}}}^2" if short in ("cm", "m", "km", "ft") else None,
            "unit alone": f"\\text{{{long}}}",
            "times ten": f"{number(value * 10)}\\text{{ {short}}}",
            "times a thousand": number(value * 1000),
            "percent": f"{text}\\%",
            "range": f"{text}\\text{{ to }}{number(value + 1)}\\text{{ {short}}}",
        },
    )


@form("area or volume")
def area(source: Random) -> Problem:
    short, long = source.choice((("cm", "centimeters"), ("m", "meters"), ("ft", "feet")))
    value = source.choice(
        (str(source.randint(2, 500)), f"{source.randint(2, 50)}\\pi", f"{source.randint(2, 9)}\\sqrt{{3}}")
    )
    return Problem(
        gold=f"{value}\\text{{ {short}}}^2",
        right={
            "bare": value,
            "in words": f"{value}\\text{{ square {long}}}",
            "inside": f"{value}\\text{{ {short}}}^{{2}}",
            "roman": f"{value}\\ \\mathrm{{{short}}}^2",
            "all inside": f"{value}\\text{{ {short}^2}}",
        },
        wrong={
            "length": f"{value}\\text{{ {short}}}",
            "volume": f"{value}\\text{{ {short}}}^3",
            "doubled": f"2\\cdot {value}\\text{{ {short}}}^2",
            "one more": f"{value}+1",
            "square words for length": f"{value}\\text{{ {long}}}",
        },
    )


@form("counted things")
def counted(source: Random) -> Problem:
    n = source.randint(2, 900)
    thing, other = source.sample(("trees", "apples", "students", "coins", "marbles", "days", "books", "ways"), 2)
    return Problem(
        gold=source.choice((f"{n} ({thing})", f"{n}\\text{{ {thing}}}", f"{n} {thing}", f"{n} \\text{{ ({thing})}}")),
        right={"bare": str(n), "with the thing": f"{n}\\text{{ {thing}}}", "plain": f"{n} {thing}", "x": f"x={n}"},
        wrong={
            "number": str(n + 1),
            "number with the thing": f"{n + 1}\\text{{ {thing}}}",
            "other thing": f"{n}\\text{{ {other}}}",
            "thing alone": f"\\text{{{thing}}}",
            "about": f"\\text{{about }}{n + 3}",
            "dozen": f"{n}\\text{{ dozen}}",
            "two numbers": f"{n}, {n + 1}",
        },
    )


@form("money")
def money(source: Random) -> Problem:
    units, cents = source.randint(1, 999), source.choice((0, 5, 25, 50, 75, source.randint(1, 99)))
    text = f"{units}.{cents:02d}" if cents else str(units)
    turned = f"{units}.{cents % 10}{cents // 10}"
    return Problem(
        gold=source.choice((f"\\${text}", f"\\text{{\\$}}{text}", f"{text}\\text{{ dollars}}")),
        right={
            "bare": text,
            "sign": f"\\${text}",
            "unescaped": f"${text}",
            "words": f"{text}\\text{{ dollars}}",
            "with cents": f"\\${text}.00" if not cents else None,
            "spaced": f"\\$ {text}",
        },
        wrong={
            "a cent more": f"\\${units}.{cents + 1:02d}" if cents < 99 else None,
            "euros": f"{text}\\text{{ euros}}",
            "cents dropped": f"\\${units}" if cents else None,
            "digits swapped": f"\\${turned}" if cents % 11 and cents else None,
            "times a hundred": f"\\${units}{cents:02d}",
            "percent": f"{text}\\%",
            "sign": f"-\\${text}",
            "range": f"\\${text}-\\${units + 1}",
        },
    )


@form("angle in degrees")
def degrees(source: Random) -> Problem:
    n = source.randint(2, 179)
    return Problem(
        gold=source.choice((f"{n}^\\circ", f"{n}^{{\\circ}}")),
        right={
            "braces": f"{n}^{{\\circ}}",
            "bare": str(n),
            "words": f"{n}\\text{{ degrees}}",
            "unicode": f"{n}\u00b0",
            "spaced": f"{n} ^ \\circ",
        },
        wrong={
            "one more": f"{n + 1}^\\circ",
            "rest": f"{180 - n}^\\circ" if n != 90 else None,
            "radians": f"{n}\\text{{ radians}}",
            "doubled": str(2 * n),
            "sign": f"-{n}^\\circ",
            "percent": f"{n}\\%",
            "pi": f"{n}\\pi",
        },
    )


@form("ratio of two")
def ratio(source: Random) -> Problem:
    value = proper(source, 9)  # with two digits behind the colon it could be a time of day
    a, b = value.numerator, value.denominator
    k = source.randint(2, 5)
    return Problem(
        gold=f"{a}:{b}",
        right={
            "spaced": f"{a} : {b}",
            "colon": f"{a}\\colon {b}",
            "scaled": f"{k * a}:{k * b}",
            "thin": f"{a}\\,:\\,{b}",
        },
        wrong={
            "turned": f"{b}:{a}",
            "first": f"{a + 1}:{b}",
            "second": f"{a}:{b + 1}",
            "three": f"{a}:{b}:1",
            "sign": f"-{a}:{b}",
            "first alone": str(a),
            "of the whole": f"{a}:{a + b}",
            "joined": f"{a}{b}",
        },
    )


@form("ratio of three or more")
def long_ratio(source: Random) -> Problem:
    count, bottom = source.choice((3, 3, 4)), source.choice((1, 1, 2))
    parts = source.sample(range(1, 14), count)
    k = source.randint(2, 5)
    texts = [str(part) for part in parts]
    if source.random() < 0.3:
        texts[-1] = f"\\sqrt{{{source.choice(SQUAREFREE)}}}"
    scaled = [str(k * int(text)) if text.isdigit() else f"{k}{text}" for text in texts]
    halves = [number(Fraction(int(text), 2)) if text.isdigit() else f"\\frac{{{text}}}{{2}}" for text in texts]
    turned = [texts[1], texts[0], *texts[2:]]
    gold = ":".join(texts if bottom == 1 else scaled)
    return Problem(
        gold=gold,
        right={
            "scaled": ":".join(scaled),
            "not scaled": ":".join(texts),
            "spaced": " : ".join(texts),
            "halved": ":".join(halves),
            "colon": "\\colon ".join(texts),
        },
        wrong={
            "first two swapped": ":".join(turned),
            "last two swapped": ":".join([*texts[:-2], texts[-1], texts[-2]]),
            "backwards": ":".join(reversed(texts)),
            "one less": ":".join(texts[:-1]),
            "one more": ":".join([*texts, "1"]),
            "first scaled alone": ":".join([scaled[0], *texts[1:]]),
            "quotient": texts[0] + ":" + "\\cdot ".join(texts[1:]),
            "sign": ":".join(["-" + texts[0], *texts[1:]]),
            "first alone": texts[0],
            "last changed": ":".join([*texts[:-1], "99"]),
        },
    )


@form("time of day")
def clock(source: Random) -> Problem:
    hour, minute = 2 * source.randint(1, 5), 2 * source.randint(5, 29)
    half = source.choice(("a.m.", "p.m.", "AM", "PM", ""))
    spelled = {"a.m.": "AM", "p.m.": "PM", "AM": "a.m.", "PM": "p.m.", "": ""}[half]
    other = {"a.m.": "p.m.", "p.m.": "a.m.", "AM": "PM", "PM": "AM", "": ""}[half]

    def at(hour: int, minute: int, half: str = half) -> str:
        return f"{hour}:{minute:02d}" + (f"\\text{{ {half}}}" if half else "")

    return Problem(
        gold=source.choice((at(hour, minute), f"{hour}:{minute:02d} {half}".strip())),
        is_textual=True,
        right={
            "same": at(hour, minute),
            "no half": at(hour, minute, ""),
            "other spelling": at(hour, minute, spelled),
            "plain": f"{hour}:{minute:02d} {half}".strip(),
            "plain, other spelling": f"{hour}:{minute:02d} {spelled}".strip(),
        },
        wrong={
            "halved": at(hour // 2, minute // 2),
            "doubled": at(2 * hour, 2 * minute) if minute < 30 else None,
            "other half": at(hour, minute, other) if half else None,
            "a minute later": at(hour, minute + 1),
            "an hour later": at(hour + 1, minute),
            "a number": f"{hour}{minute:02d}",
            "quotient": f"\\frac{{{hour}}}{{{minute}}}",
            "hour alone": str(hour),
            "point": f"{hour}.{minute:02d}",
            "turned": at(minute % 12 or 12, hour) if minute % 12 != hour or hour != minute else None,
        },
    )
