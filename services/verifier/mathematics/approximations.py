"""`\\sqrt{2}\\approx1.41`: an exact value with a remark on what it is about. Pure; used by `policy.py`."""

import re
from dataclasses import dataclass

from services.verifier.mathematics.forms import split_items
from services.verifier.mathematics.names import SYMBOL

_SIGN = re.compile(r"\\approx(?![a-zA-Z])")
_IN_BRACKETS = re.compile(r"\(\\approx ?([^()]*)\)$")
_CONSTANTS = ("e", "i")
_NAME = re.compile(rf"{SYMBOL}'*|[a-zA-Z]{{2,12}}|\\text\{{[^{{}}]*\}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximation:
    """`x=\\ln2\\approx0.69` is `Approximation(value="x=\\ln2", remark="0.69")`; a remark may be empty."""

    value: str
    remark: str


def split_approximation(text: str) -> Approximation | None:
    """The value and the remark of one item; None when the text has several items, or the sign is inside brackets.

    `x\\approx1.73` and `\\approx1.73` have no exact value: what stands behind the sign is the value.
    """
    if "\\approx" not in text:
        return Approximation(value=text, remark="")
    text = _IN_BRACKETS.sub(r"\\approx \1", text)
    if len(split_items(text)) != 1:
        return None
    sign = _SIGN.search(text)
    if sign is None:
        return None
    value, remark = text[: sign.start()].strip(), _SIGN.split(text)[-1].strip()
    if any(side.count(opening) != side.count(closing) for side in (value, remark) for opening, closing in ("()", "{}")):
        return None
    if not value:
        return Approximation(value=remark, remark="")
    if value not in _CONSTANTS and _NAME.fullmatch(value) and re.search(r"\d", remark):
        return Approximation(value=f"{value}={remark}", remark="")
    return Approximation(value=value, remark=remark)
