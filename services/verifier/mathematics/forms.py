"""Reads the structure of a normalised answer: lists, matrices, assignments, bases, residues, choices. Pure.

Every reader returns a record, or None when the text does not have that form. Compared by `policy.py`.
"""

import re
from dataclasses import dataclass

from services.verifier.mathematics.brackets import closes_at_end, split_outside
from services.verifier.mathematics.names import SYMBOL

# ---------------------------------------------------------------- choices

_CHOICE = re.compile(r"(?:\\text\{)?(?:(?:[Oo]ption|[Cc]hoice) ?)?\(?([A-J])\)?\}?[.:]?")
_CHOICE_AND_TEXT = re.compile(
    r"(?:\\text\{)?(?:\(([A-J])\)(?P<colon>[.:]?)|([A-J])(?P<mark>[).:]))\}?(?P<rest>.*)", re.DOTALL
)
_SECOND_CHOICE = re.compile(r"\b[A-J][).:]|\b(?:or|and)\b|(?:^|[,/;&])\W*[A-J]\b")


def read_choice(text: str, *, is_gold: bool = False) -> str | None:
    """The letter of `C`, `(C)`, `\\text{(C)}` or of a letter with its own option behind it; not of two letters.

    In a gold a colon labels a value, as in `J: 4`; where the gold is a choice, an answer may write `C: 12`.
    """
    plain = _CHOICE.fullmatch(text)
    if plain:
        return plain.group(1)
    followed = _CHOICE_AND_TEXT.fullmatch(text)
    if followed is None or _SECOND_CHOICE.search(followed.group("rest")):
        return None
    if is_gold and ":" in (followed.group("mark"), followed.group("colon")):
        return None
    return followed.group(1) or followed.group(3)


# ---------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Several parts: `(1,2]` is `Listing(brackets="(]", items=("1", "2"))`."""

    brackets: str
    """`()`, `[]`, `(]`, `[)` or `<>`: ordered, and the brackets count. Empty: a set, or items side by side."""
    items: tuple[str, ...]


_CASES = re.compile(
    r"\\begin\{(?P<name>cases|aligned|gathered|array)\}(?:\{[lcr]+\})?(?P<rows>.*)\\end\{(?P=name)\}", re.DOTALL
)
_PLUS_OR_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")


def read_list(text: str) -> Listing | None:
    """What has several parts, or is a set in braces; `\\pm5` counts as two."""
    if text.startswith("\\{") and text.endswith("\\}") and "\\}" not in text[2:-2]:
        return Listing(brackets="", items=expand_signs([item for item in split_items(text[2:-2]) if item]))
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        return Listing(brackets="<>", items=tuple(split_items(text[7:-7].strip())))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        items = split_items(text[1:-1])
        if len(items) > 1 and closes_at_end(text):
            return Listing(brackets=text[0] + text[-1], items=tuple(items))
    cases = _CASES.fullmatch(text)
    if cases:
        rows = [row.replace("&", "").strip(" ,") for row in cases.group("rows").split("\\\\") if row.strip()]
        return Listing(brackets="", items=tuple(rows)) if all("=" in row for row in rows) else None
    signed = expand_signs(split_items(text))
    return Listing(brackets="", items=signed) if len(signed) > 1 else None


def is_several(text: str) -> bool:
    """Whether the text has several parts: side by side, as a set, a tuple or a union."""
    listing = read_list(text)
    return "\\cup" in text or (listing is not None and len(listing.items) > 1)


def split_items(text: str) -> list[str]:
    """Items between commas, semicolons, `or` and `and` that lie outside all brackets."""
    if "or" in text or "and" in text:
        text = re.sub(r",?\b(?:or|and)\b", ",", text)
    return [item.strip() for item in split_outside(text, ",;")]


def expand_signs(items: list[str]) -> tuple[str, ...]:
    """The items with `\\pm5` as two of them."""
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
_ARRAY = re.compile(
    r"[(\[]\\begin\{(?P<name>array|matrix)\}(?:\{[^{}]*\})?(?P<cells>.*)\\end\{(?P=name)\}[)\]]", re.DOTALL
)


def read_matrix(text: str) -> tuple[tuple[str, ...], ...] | None:
    """The rows of a matrix in whatever brackets; not a determinant, and nothing around it."""
    match = _MATRIX.fullmatch(text) or _ARRAY.fullmatch(text)
    if match is None or "\\begin" in match.group("cells"):
        return None
    rows = [row for row in match.group("cells").split("\\\\") if row.strip()]
    return tuple(tuple(cell.strip() for cell in row.split("&")) for row in rows)


# ---------------------------------------------------------------- residues

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
