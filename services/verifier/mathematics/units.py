"""Units of measurement: takes one off the end of a value, says whether two are the same, converts. Pure.

A fixed table; a unit that is not in it is a name that equals only itself, such as `apples`. Used by `policy.py`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """`km/h` is `Unit(names=(("hour", -1), ("kilometre", 1)), dimension=(("length", 1), ("time", -1)), scale=5/18)`."""

    names: tuple[tuple[str, int], ...]
    dimension: tuple[tuple[str, int], ...]
    scale: Fraction
    """How many of the dimension's base unit."""


# name: dimension, size in the base unit, further spellings. The plural with -s is understood.
_TABLE: dict[str, tuple[str, str, str]] = {
    "millimetre": ("length", "1/1000", "mm millimeter"),
    "centimetre": ("length", "1/100", "cm centimeter"),
    "decimetre": ("length", "1/10", "dm decimeter"),
    "metre": ("length", "1", "m meter"),
    "kilometre": ("length", "1000", "km kilometer"),
    "inch": ("length", "254/10000", "in inches"),
    "foot": ("length", "3048/10000", "ft feet"),
    "yard": ("length", "9144/10000", "yd"),
    "mile": ("length", "1609344/1000", "mi"),
    "milligram": ("mass", "1/1000", "mg"),
    "gram": ("mass", "1", "g gramme"),
    "kilogram": ("mass", "1000", "kg kilo"),
    "tonne": ("mass", "1000000", "ton"),
    "pound": ("mass", "45359237/100000", "lb lbs"),
    "ounce": ("mass", "45359237/1600000", "oz"),
    "millisecond": ("time", "1/1000", "ms"),
    "second": ("time", "1", "s sec"),
    "minute": ("time", "60", "min"),
    "hour": ("time", "3600", "h hr"),
    "day": ("time", "86400", ""),
    "week": ("time", "604800", ""),
    "month": ("months", "1", ""),
    "year": ("months", "12", "yr"),
    "millilitre": ("volume", "1/1000", "ml mL milliliter"),
    "litre": ("volume", "1", "l L liter"),
    "hectare": ("area", "10000", "ha"),
    "acre": ("area", "40468564224/10000000", ""),
    "degree": ("angle", "1", "deg \u00b0"),
    "radian": ("angle_in_radians", "1", "rad"),
    "celsius": ("celsius", "1", "\u00b0C"),
    "fahrenheit": ("fahrenheit", "1", "\u00b0F"),
    "kelvin": ("kelvin", "1", "K"),
    "cent": ("money", "1", "\u00a2"),
    "dollar": ("money", "100", "usd USD buck"),
    "euro": ("euros", "1", "EUR"),
    "newton": ("force", "1", "N"),
    "joule": ("energy", "1", "J"),
    "kilojoule": ("energy", "1000", "kJ"),
    "watt": ("power", "1", "W"),
    "kilowatt": ("power", "1000", "kW"),
    "volt": ("voltage", "1", "V"),
    "ampere": ("current", "1", "A amp"),
    "ohm": ("resistance", "1", ""),
    "pascal": ("pressure", "1", "Pa"),
    "hertz": ("frequency", "1", "Hz"),
    "mole": ("amount", "1", "mol"),
    "unit": ("unit", "1", ""),
}
_BASES = {"volume": (("length", 3), Fraction(1, 1000)), "area": (("length", 2), Fraction(1))}
_WHOLE = {
    "mph": "mile/hour",
    "kph": "km/h",
    "kmh": "km/h",
    "kmph": "km/h",
    "cc": "cm^3",
    "sqft": "ft^2",
    "cu ft": "ft^3",
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
# Words that change what was said, or how much.
_NOT_UNITS = re.compile(
    "or|and|not?|if|for|when|where|mod|base|least|most|more|less|than|over|under|about|approximately|roughly|between|"
    "either|neither|maybe|plus|minus|times|to|from|except|only|other|is|are|answer|hundred|thousand|million|billion|"
    "trillion|dozen|percent|half|quarter|third|double|twice|th|st|nd|rd|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|"
    "theta|alpha|beta|gamma|infinity|infty|undefined|none|all|any|reals?|integers?|but|never"
)
_WORDS = re.compile(r"[A-Za-z\u00b0\u00a2]+")
_FACTOR = re.compile(r"(?P<name>[A-Za-z\u00b0\u00a2]+)\s*(?:\^?\s*\{?(?P<power>-?\d)\}?)?")


def _spellings() -> dict[str, str]:
    spelt: dict[str, str] = {}
    for name, (_, _, others) in _TABLE.items():
        for spelling in (name, *others.split()):
            spelt[spelling] = name
            if len(spelling) > 2:
                spelt[spelling + "s"] = name
    return spelt


_SPELLINGS = _spellings()


@lru_cache(maxsize=1024)
def read_unit(text: str) -> Unit | None:
    """The unit that a text such as `cm^2`, `square inches`, `km/h`, `miles per hour` or `apples` names, or None."""
    text = text.strip(" .")
    text = _WHOLE.get(text.lower(), text)
    if not text or len(text) > 60:
        return None
    names: dict[str, int] = {}
    dimension: dict[str, int] = {}
    scale = Fraction(1)
    for index, side in enumerate(re.split(r"/|\bper\b", text)):
        factors = _factors(side)
        if not factors:
            return None
        for name, power in factors:
            power = -power if index else power
            names[name] = names.get(name, 0) + power
            kind, size, _ = _TABLE.get(name, (name, "1", ""))
            scale *= Fraction(size) ** power
            (base, exponent), factor = _BASES.get(kind, ((kind, 1), Fraction(1)))
            dimension[base] = dimension.get(base, 0) + exponent * power
            scale *= factor**power
    return Unit(names=tuple(sorted(names.items())), dimension=tuple(sorted(dimension.items())), scale=scale)


def _factors(side: str) -> list[tuple[str, int]]:
    """(name, power) of each factor of a product of units; empty when this is none."""
    found: list[tuple[str, int]] = []
    pending = 1
    words = _FACTOR.findall(side.replace("\\cdot", " ").replace("-", " "))
    if re.sub(r"[\s^{}\d\-]|\\cdot|[A-Za-z\u00b0\u00a2]", "", side):
        return []
    for word, power in words:
        lower = word.lower()
        if _NOT_UNITS.fullmatch(lower):
            return []
        if lower in _POWERS:
            if lower.endswith("d") and found:
                found[-1] = (found[-1][0], _POWERS[lower])
            else:
                pending = _POWERS[lower]
            continue
        name = _SPELLINGS.get(word) or _SPELLINGS.get(lower) or lower.removesuffix("s")
        found.append((name, int(power or 1) * pending))
        pending = 1
    return found if len(found) <= 4 else []


def is_known(unit: Unit) -> bool:
    """Whether every name in it is in the table."""
    return all(name in _TABLE for name, _ in unit.names)


def factor_between(answer: Unit, gold: Unit) -> Fraction | None:
    """By what to multiply a value in the unit of the answer to have it in the unit of the gold; None: impossible."""
    return answer.scale / gold.scale if answer.dimension == gold.dimension else None


_IN_TEXT = re.compile(
    r"(?P<value>.*[\w)}\]!%\u00b0])\s*(?P<unit>\\text\{[^{}]*\}(?:\^(?:-?\d|\{-?\d\}))?"
    r"(?:(?:/|\\cdot)?\s*\\text\{[^{}]*\}(?:\^(?:-?\d|\{-?\d\}))?)*)",
    re.DOTALL,
)
_BEFORE = re.compile(r"(?P<sign>[-+]?)\s*\\text\{(?P<unit>dollars|euros|pounds)\}\s*(?P<value>.+)", re.DOTALL)
_BARE = re.compile(
    r"(?P<value>.*[\d)}])(?P<space> ?)(?P<unit>(?:[A-Za-z]{2,}|(?<=/)[A-Za-z]|(?<= )[A-Za-z](?=[\^/]))(?:\^\{?\d\}?)?"
    r"(?:[ /](?:[A-Za-z]+(?:\^\{?\d\}?)?))*)",
    re.DOTALL,
)
_IN_BRACKETS = re.compile(
    r"(?P<value>.*[\d}%])\s*\((?:\\text\{)?(?P<unit>[A-Za-z][A-Za-z /^\d]*)\}?(?:\^\d)?\)", re.DOTALL
)
_NUMERIC = re.compile(r"[-+\d.,/(){} ]*(?:\\frac\{\d+\}\{\d+\})?")
_CLEAN = re.compile(r"\\text\{([^{}]*)\}")


def split_unit(text: str) -> tuple[str, Unit | None]:
    """The value and its unit: `12\\text{ cm}^2` is 12 and square centimetres. Without a unit, the text and None."""
    before = _BEFORE.fullmatch(text)
    if before:
        # Money: `\text{pounds}` before a number is never a weight.
        name = before.group("unit")
        return before.group("sign") + before.group("value"), read_unit("sterling" if name == "pounds" else name)
    inside = _IN_TEXT.fullmatch(text)
    if inside:
        value = inside.group("value")
        written = _CLEAN.sub(r" \1 ", inside.group("unit"))
        written = written.replace("(", " ").replace(")", " ") if written.count("(") == written.count(")") else written
        if value.endswith("\u00b0"):
            value, written = value[:-1], "\u00b0" + written.strip()
        unit = read_unit(" ".join(written.split()).replace(" ^", "^"))
        return (value, unit) if unit else (text, None)
    bracketed = _IN_BRACKETS.fullmatch(text)
    if bracketed and _NUMERIC.fullmatch(bracketed.group("value")):
        unit = read_unit(bracketed.group("unit"))
        if unit and (is_known(unit) or len(bracketed.group("unit")) > 2):
            return bracketed.group("value"), unit
    if text.endswith("\u00b0") and "\\" not in text.replace("\\frac", ""):
        return text[:-1], read_unit("\u00b0")
    return _split_bare(text)


def _split_bare(text: str) -> tuple[str, Unit | None]:
    # Letters outside \text might be variables, so only a plain number may carry them.
    bare = _BARE.fullmatch(text)
    if bare is None or not _NUMERIC.fullmatch(bare.group("value").removesuffix("\\text{dollars}")):
        return text, None
    unit = read_unit(bare.group("unit"))
    if unit is None:
        return text, None
    longest = max(len(word) for word in _WORDS.findall(bare.group("unit")))
    if is_known(unit) or (bare.group("space") and longest >= 4):
        return bare.group("value"), unit
    return text, None
