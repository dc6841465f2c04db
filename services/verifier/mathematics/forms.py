"""Reads the structure of a normalised answer: lists, matrices, assignments, bases, residues, choices. Pure.

Every reader returns a record, or None when the text does not have that form. Compared by `policy.py`.
"""

import re
from dataclasses import dataclass

from services.verifier.mathematics.text import closes_at_end

# ---------------------------------------------------------------- choices

_CHOICE = re.compile(r"(?:\\text\{)?\(?([A-J])\)?\}?[.:]?")
_CHOICE_AND_TEXT = re.compile(r"(?:\\text\{)?(?:\(([A-J])\)[.:]?|([A-J])[).:])\}?(?P<rest>.*)", re.DOTALL)
_SECOND_CHOICE = re.compile(r"\b[A-J][).:]|\b(?:or|and)\b|(?:^|[,/;&])\W*[A-J]\b")


def read_choice(text: str) -> str | None:
    """The letter of `C`, `(C)`, `\\text{(C)}` or of a letter with its own option behind it; not of two letters."""
    plain = _CHOICE.fullmatch(text)
    if plain:
        return plain.group(1)
    followed = _CHOICE_AND_TEXT.fullmatch(text)
    if followed is None or _SECOND_CHOICE.search(followed.group("rest")):
        return None
    return followed.group(1) or followed.group(2)


# ---------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Several parts: `(1,2]` is `Listing(brackets="(]", items=("1", "2"))`."""

    brackets: str
    """`()`, `[]`, `(]`, `[)` or `<>`: ordered, and the brackets count. Empty: a set, or items side by side."""
    items: tuple[str, ...]


_PLUS_OR_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")


def read_list(text: str) -> Listing | None:
    """What has several parts, or is a set in braces; `\\pm5` counts as two."""
    if text.startswith("\\{") and text.endswith("\\}") and "\\}" not in text[2:-2]:
        return Listing(brackets="", items=_with_signs([item for item in split_items(text[2:-2]) if item]))
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        return Listing(brackets="<>", items=tuple(split_items(text[7:-7].strip())))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        items = split_items(text[1:-1])
        if len(items) > 1 and closes_at_end(text):
            return Listing(brackets=text[0] + text[-1], items=tuple(items))
    signed = _with_signs(split_items(text))
    return Listing(brackets="", items=signed) if len(signed) > 1 else None


def split_items(text: str) -> list[str]:
    """Items between commas, semicolons, `or` and `and` that lie outside all brackets."""
    if "or" in text or "and" in text:
        text = re.sub(r",?\b(?:or|and)\b", ",", text)
    items, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth == 0:
            items.append(text[start:index].strip())
            start = index + 1
    return [*items, text[start:].strip()]


def _with_signs(items: list[str]) -> tuple[str, ...]:
    signed: list[str] = []
    for item in items:
        if _PLUS_OR_MINUS.search(item):
            signed += [_PLUS_OR_MINUS.sub(_upper, item), _PLUS_OR_MINUS.sub(_lower, item)]
        else:
            signed.append(item)
    return tuple(re.sub(r"(^|[=(,])\+", r"\1", item) for item in signed)


def _upper(match: re.Match[str]) -> str:
    return "+" if match.group(1) == "pm" else "-"


def _lower(match: re.Match[str]) -> str:
    return "-" if match.group(1) == "pm" else "+"


# ---------------------------------------------------------------- matrices

_MATRIX = re.compile(r"\\begin\{([pbB]?matrix)\}(?P<cells>.*)\\end\{\1\}", re.DOTALL)
_ARRAY = re.compile(r"[(\[]\\begin\{array\}(?:\{[^{}]*\})?(?P<cells>.*)\\end\{array\}[)\]]", re.DOTALL)


def read_matrix(text: str) -> tuple[tuple[str, ...], ...] | None:
    """The rows of a matrix in whatever brackets; not a determinant, and nothing around it."""
    match = _MATRIX.fullmatch(text) or _ARRAY.fullmatch(text)
    if match is None or "\\begin" in match.group("cells"):
        return None
    rows = [row for row in match.group("cells").split("\\\\") if row.strip()]
    return tuple(tuple(cell.strip() for cell in row.split("&")) for row in rows)


# ---------------------------------------------------------------- assignments

SYMBOL = r"(?:\\(?!frac|sqrt|infty|pi|pm|text|begin|emptyset)[a-zA-Z]+|[a-zA-Z])(?:_(?:\w|\{\w+\}))?"
_ASSIGNMENT = re.compile(
    rf"(?P<name>{SYMBOL}'*|[a-zA-Z]{{2,12}}|\\text\{{[^{{}}]*\}}|m?\\angle ?[A-Z]+|\|[A-Z]{{1,3}}\|"
    r"|\([a-zA-Z](?:,[a-zA-Z])+\))"
    r"(?P<arguments>\([a-zA-Z](?:,[a-zA-Z])*\))?=(?P<value>.+)",
    re.DOTALL,
)
_BACKWARDS = re.compile(rf"(?P<value>[^=]+)=(?P<name>{SYMBOL})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """`f(x)=x^2` is `Assignment(name="f", arguments=("x",), value="x^2")`."""

    name: str
    arguments: tuple[str, ...]
    value: str


EQUALS = re.compile(r"=(?![^{}]*\})")
"""An equals sign between the sides of an equation; not one below a sum, or in a word."""


def read_assignment(text: str) -> Assignment | None:
    """A name, an equals sign and what it stands for; `5=x` is read as `x=5`."""
    match = _ASSIGNMENT.fullmatch(text)
    if match:
        arguments = match.group("arguments")
        names = tuple(arguments[1:-1].split(",")) if arguments else ()
        return Assignment(name=match.group("name"), arguments=names, value=match.group("value"))
    backwards = _BACKWARDS.fullmatch(text)
    return Assignment(name=backwards.group("name"), arguments=(), value=backwards.group("value")) if backwards else None


def rename(text: str, names: dict[str, str]) -> str:
    """The text with variables renamed, all at once; commands and words stay as they are."""

    def renamed(match: re.Match[str]) -> str:
        return names.get(match.group(), match.group())

    return re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z]", renamed, text)


# ---------------------------------------------------------------- number bases and residues

_BASED = re.compile(
    r"\(?(?P<digits>[0-9A-Z]*[0-9][0-9A-Z]*|[A-F]{2,}(?=\)?_\{?16))\)?"
    r"(?:_\{?(?:\\text\{)?(?P<base>\d{1,2}|[a-z]+)\}*|\s*\\?(?:text\{)?\s*\(?base ?(?P<spelt>\d{1,2}|[a-z]+)\)?\}?)"
)
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASE_NAMES |= {"eleven": 11, "twelve": 12, "sixteen": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Based:
    """`1010_2` is `Based(digits="1010", base=2)`."""

    digits: str
    base: int

    def value(self) -> int | None:
        """The number; None when a digit is too large for the base."""
        try:
            return int(self.digits, self.base)
        except ValueError:
            return None


def read_based(text: str) -> Based | None:
    """A whole number with its base."""
    if "_" not in text and "base" not in text:
        return None
    match = _BASED.fullmatch(text)
    if match is None or len(match.group("digits")) > 1000:
        return None
    written = match.group("base") or match.group("spelt")
    base = int(written) if written.isdigit() else _BASE_NAMES.get(written, 0)
    return Based(digits=match.group("digits").lstrip("0") or "0", base=base) if 2 <= base <= 36 else None


_RESIDUE = re.compile(
    rf"(?:(?:{SYMBOL})(?:\\equiv|=))?(?P<residue>[^\\]+?) ?\(?"
    r"(?:\\(?:pmod|mod|bmod)|\\?(?:text\{)? ?mod\}?) ?\{?\(?(?P<modulus>\d{1,300})[)}]*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Residue:
    """`x\\equiv1,3\\pmod8` is `Residue(residues=frozenset({1, 3}), modulus=8)`."""

    residues: frozenset[int]
    modulus: int


def read_residue(text: str) -> Residue | None:
    """One or more residues of one modulus."""
    if "mod" not in text:
        return None
    match = _RESIDUE.fullmatch(text)
    if match is None:
        return None
    modulus = int(match.group("modulus"))
    items = split_items(match.group("residue").strip(" ,"))
    if modulus == 0 or not all(re.fullmatch(r"-?\d{1,300}", item) for item in items):
        return None
    return Residue(residues=frozenset(int(item) % modulus for item in items), modulus=modulus)


# ---------------------------------------------------------------- constants of integration

_CONSTANT = r"[A-Zck](?:_\w)?"
_ENDS_WITH_CONSTANT = re.compile(rf"(?P<rest>.+)[+\-](?P<name>{_CONSTANT})", re.DOTALL)
_STARTS_WITH_CONSTANT = re.compile(rf"(?P<name>{_CONSTANT})(?P<rest>[+\-].+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Antiderivative:
    """`x^2+C` is `Antiderivative(rest="x^2", name="C")`."""

    rest: str
    name: str

    @property
    def is_certain(self) -> bool:
        """Whether the name says what it is: in `n+k` and `x^2+c` the letter may come from the problem."""
        return self.name.startswith("C")


def read_antiderivative(text: str) -> Antiderivative | None:
    """A free letter on its own at one end, that occurs nowhere else, and what it is added to."""
    match = _ENDS_WITH_CONSTANT.fullmatch(text) or _STARTS_WITH_CONSTANT.fullmatch(text)
    if match is None:
        return None
    rest, name = match.group("rest"), match.group("name")
    letters = _letters(rest)
    if not letters or name in letters:
        return None
    # `Ax+By+C` and `ax^2+bx+c` are families of coefficients, not antiderivatives.
    siblings = "AB" if name[0].isupper() else "ab"
    if any(letter in siblings for letter in letters):
        return None
    return Antiderivative(rest=rest, name=name)


def _letters(text: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z](?:_\w)?", re.sub(r"\\[a-zA-Z]+", " ", text)))
