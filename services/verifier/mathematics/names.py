"""What an answer names before it gives a value: `x=`, `f(x)=`, `f(3)=`, `\\angle A=`, `P(A|B)=`, `a+b=`, `J:`. Pure.

Where a gold names its value, the bare value is right, and an answer may name what the gold leaves bare. So it matters
what is a name: `a+b=5` says what `a+b` is, and `3x+4y=12` is the equation of a line, which 12 does not answer.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from services.verifier.mathematics.brackets import closes_at_end, split_outside

_FUNCTIONS = "lim|sum|prod|i{1,3}nt|max|min|sup|inf|det|gcd|lcm|log|ln|binom|sin|cos|tan|cot|sec|csc|deg|dim|Pr|arg|exp"
SYMBOL = (
    rf"(?:\\(?!(?:frac|sqrt|infty|pi|pm|text|begin|emptyset|angle|vec|bar|hat|cdot|times|div|in|arc[a-z]+|{_FUNCTIONS})"
    r"(?![a-zA-Z]))[a-zA-Z]+|[a-zA-Z])(?:_(?:\w|\{[\w,+\-\\ ]+\}|\{\\text\{\w+\}\}))?"
)
_ACCENTED = (
    r"\\(?:overline|vec|hat|bar|tilde|widehat|dot|ddot|overleftrightarrow|text|mathbb|mathcal|line)"
    r"\{[^{}]*\}(?:_(?:\w|\{[^{}]*\}))?"
)
_POINTS = r"m?\\(?:angle|triangle) ?(?:[A-Z]+|\d|\\[a-z]+)"
_TERM = rf"(?:\|[^|=]+\||\\Delta ?[a-zA-Z](?:_\w)?|{_ACCENTED}|{_POINTS}|{SYMBOL}'*|\[[A-Z]{{3,6}}\])"
_PLAIN = re.compile(rf"{SYMBOL}'*|[a-zA-Z]{{2,12}}|{_ACCENTED}|{_POINTS}|\[[A-Z]{{3,6}}\]|\({SYMBOL}(?:,{SYMBOL})+\)")
_WRAPPED = re.compile(r"\|(?P<inside>[^|]+)\||\\\|(?P<norm>[^|]+)\\\|")
_COMPOSED = r"\\nabla [a-zA-Z]|\([a-z](?:\\circ ?[a-z])+\)|\\frac\{\\partial ?[a-z]\}\{\\partial ?[a-z]\}"
_HEAD = re.compile(
    rf"(?P<head>(?:{_COMPOSED}|{SYMBOL}|{_ACCENTED}|[a-zA-Z]{{2,6}})'*(?:\^(?:-1|\{{-1\}}|\{{\(\d\)\}}))?)"
    r"(?P<rest>[(\[].*[)\]])(?:_\{?\\?\w+\}?)?",
    re.DOTALL,
)
_LETTERS = re.compile(r"\(([a-z](?:,[a-z])*)\)")
_DERIVATIVE = re.compile(
    r"\\frac\{(?:d|\\partial )(?:\^(?P<order>\d))? ?(?P<of>[a-zA-Z])\}"
    r"\{(?:d|\\partial )(?P<by>[a-zA-Z])(?:\^\d)?\}(?P<at>\|_\{?[^{}]+\}?)?"
)
_OPERATOR = re.compile(rf"\\(?:{_FUNCTIONS})(?![a-zA-Z])(?P<argument>.+)", re.DOTALL)
_ARITHMETIC = re.compile(r"[-+\d^{}()/: ]*")
_COEFFICIENT = re.compile(r"(?<![\^_{\d])\d+(?= ?[a-zA-Z])")
_GREEK = re.compile(r"\\(?:alpha|beta|gamma|delta|theta|lambda|mu|omega|phi|varphi|rho|sigma|tau)(?![a-zA-Z])")
_COORDINATES = frozenset("xyz")
_BARE_COORDINATES = re.compile(r"[xyz](?:[-+:/]?[xyz])+|\\frac\{[xyz]\}\{[xyz]\}")
_SEVERAL = re.compile(r"\b(?:or|and)\b")
_POINT = re.compile(r"(?P<name>[A-Z](?:_\{?\w\}?|'+)?)(?P<value>\((?:[^()]|\([^()]*\))*\))", re.DOTALL)
_BACKWARDS = re.compile(rf"(?P<value>[^=]+)=(?P<name>{SYMBOL})")
_LABEL = re.compile(
    r"(?P<name>[A-Z][a-z]{0,15}|\([A-Z]\)|\\text\{[^{}:]+\}):(?P<value>[^:=]+|.*\\text\{.*)"
    r"|(?P<curve>[A-Zl]):(?P<equation>[^:]*[a-z][^:]*=[^:]+)|\\text\{[^{}]*(?: is|:) ?\}(?P<told>.+)",
    re.DOTALL,
)
_TYPOGRAPHY = re.compile(r"\\(?:overline|text|line|mathbb|overleftrightarrow)|[{} ]|^m(?=\\angle)")


class Kind(StrEnum):
    """What a name stands for."""

    NAME = "name"
    """One quantity: `x`, `\\overline{AB}`, `f(3)`, `P(A|B)`, `\\frac{dy}{dx}`."""
    FUNCTION = "function"
    """`f(x)`: its arguments are bound."""
    EXPRESSION = "expression"
    """`a+b`, `\\sin A`, `\\lim_{x\\to0}f(x)`: a name where the value is a constant, else a side of an equation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """`f(x)=x^2` is `Assignment(kind=FUNCTION, name="f", arguments=("x",), value="x^2")`."""

    kind: Kind
    name: str
    arguments: tuple[str, ...]
    value: str
    is_label: bool = False
    """It stands before a whole equation, or it is a few words."""

    @property
    def last_value(self) -> str:
        """What a chain such as `x=\\frac{10}{4}=2.5` ends in."""
        return split_equals(self.value)[-1]


def split_equals(text: str) -> list[str]:
    """The sides of an equation or a chain; an equals sign below a sum or in `P(X=2)` separates nothing."""
    return split_outside(text, "=") if "=" in text else [text]


def has_equals(text: str) -> bool:
    """Whether there is an equals sign between two sides."""
    return "=" in text and len(split_outside(text, "=")) > 1


def read_assignment(text: str) -> Assignment | None:
    """A name, an equals sign or a colon, and what it stands for; `5=x` is read as `x=5`."""
    if ":" in text or "\\text" in text:
        label = _LABEL.fullmatch(text)
        if label and (label.group("told") or label.group("curve")):
            value = label.group("told") or label.group("equation")
            return Assignment(
                kind=Kind.NAME, name=label.group("curve") or "it", arguments=(), value=value, is_label=True
            )
        if label and not re.fullmatch(r"[A-Z][a-z]*|[A-Z]_\w", label.group("value")):
            return Assignment(
                kind=Kind.NAME,
                name=_canonical(label.group("name")).strip("()"),
                arguments=(),
                value=label.group("value"),
            )
    if "=" not in text:
        return _read_point(text)
    first, *rest = split_equals(text)
    if not rest or not all(rest) or _SEVERAL.search(first):
        return None
    value = "=".join(rest)
    named = _read_name(first)
    if named is not None:
        kind, name, arguments = named
        return Assignment(kind=kind, name=name, arguments=arguments, value=value)
    backwards = _BACKWARDS.fullmatch(text)
    if backwards is None:
        last = _read_name(rest[0]) if len(rest) == 1 else None
        if last is None or last[0] is not Kind.NAME or has_symbols(first):
            return None
        return Assignment(kind=Kind.NAME, name=last[1], arguments=(), value=first)
    return Assignment(kind=Kind.NAME, name=backwards.group("name"), arguments=(), value=backwards.group("value"))


def _read_point(text: str) -> Assignment | None:
    """`P(1,2)`: a capital letter with coordinates."""
    point = _POINT.fullmatch(text)
    if point is None:
        return None
    coordinates = split_outside(point.group("value")[1:-1], ",")
    if len(coordinates) < 2 or not all(re.search(r"\d", coordinate) for coordinate in coordinates):
        return None
    return Assignment(kind=Kind.NAME, name=point.group("name"), arguments=(), value=point.group("value"))


def _read_name(text: str) -> tuple[Kind, str, tuple[str, ...]] | None:
    text = text.strip()
    if not text:
        return None
    if _PLAIN.fullmatch(text):
        # Two or three small letters are a product before they are a word.
        kind = Kind.EXPRESSION if re.fullmatch("[a-z]{2,3}", text) else Kind.NAME
        return kind, _canonical(text), ()
    derivative = _DERIVATIVE.fullmatch(text)
    if derivative:
        by = "" if derivative.group("by") in "xt" else derivative.group("by")
        if derivative.group("at"):
            return Kind.NAME, _canonical(text), ()
        return Kind.NAME, derivative.group("of") + "'" * int(derivative.group("order") or 1) + by, ()
    applied = _HEAD.fullmatch(text)
    if applied and closes_at_end(applied.group("rest")):
        letters = _LETTERS.fullmatch(applied.group("rest"))
        if letters:
            return Kind.FUNCTION, _canonical(applied.group("head")), tuple(letters.group(1).split(","))
        return Kind.NAME, _canonical(text), ()
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped and not re.fullmatch(r"[-+\d.]*", wrapped.group("inside") or wrapped.group("norm")):
        inside = wrapped.group("inside") or wrapped.group("norm")
        return Kind.NAME, _canonical(inside if re.fullmatch("[A-Z]{2}", inside) else text), ()
    return (Kind.EXPRESSION, _canonical(text), ()) if _names_its_value(text) else None


def _names_its_value(text: str) -> bool:
    operator = _OPERATOR.fullmatch(text)
    if operator:
        # Without a variable it has a value, which can be worked out.
        return has_symbols(operator.group("argument"))
    plain = re.sub(r"\\(?:cdot|frac|times|cup|cap|setminus|sqrt|sin|cos|tan|cot)(?![a-zA-Z])", " ", text)
    rest, terms = re.sub(_TERM, "", plain), re.findall(_TERM, plain)
    if not terms or not _ARITHMETIC.fullmatch(rest) or _COEFFICIENT.search(plain):
        return False  # with a coefficient it is more likely a line
    bare = {term for term in terms if len(term) == 1}
    if bare & _COORDINATES:
        # With a coefficient or a power it is more likely a line or a curve than the name of a number.
        return _BARE_COORDINATES.fullmatch(text) is not None
    return True


def has_symbols(text: str) -> bool:
    """Whether a letter occurs in it, Greek ones included, other than pi, Euler's number and those of commands."""
    if _GREEK.search(text):
        return True
    return bool(re.search(r"[a-zA-Z]", re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|(?<![a-zA-Z])e(?![a-zA-Z])", " ", text)))


def _canonical(name: str) -> str:
    return _TYPOGRAPHY.sub("", name)


def rename(text: str, names: dict[str, str]) -> str:
    """The text with variables renamed, all at once; commands and words stay as they are."""

    def renamed(match: re.Match[str]) -> str:
        return names.get(match.group(), match.group())

    return re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z]", renamed, text)
