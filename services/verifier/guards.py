"""Says from its text alone whether a mathematical answer is too costly to evaluate. Pure; used by `exact_math.py`."""

import re

from services.verifier.rationals import LARGEST_FACTORIAL

LONGEST = 2048
"""Characters of an answer that is looked at closely."""
_DEEPEST = 64
_LONGEST_DIGIT_RUN = 1000
_LARGEST_EXPONENT = 1000
_MOST_ELEMENTS = 512

_EXPONENT = re.compile(r"\^|\*\*")
_TALL = re.compile(r"[\^!]|\*\*|\\[dt]?binom")


def is_too_complex(text: str) -> bool:
    """Whether evaluating the text could cost more than it is worth: sizes, depths, towers of powers and factorials."""
    if len(text) > LONGEST or text.count(",") >= _MOST_ELEMENTS:
        return True
    if re.search(rf"\d{{{_LONGEST_DIGIT_RUN + 1}}}", text) or _depth(text) > _DEEPEST:
        return True
    return _has_tall_power(text) or _has_large_factorial(text) or _has_large_binomial(text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    return max(deepest, text.count("\\sqrt"), text.count("\\frac"))


def _group_at(text: str, start: int) -> str:
    """The braced or parenthesised group, command or token that starts at `start`."""
    while start < len(text) and text[start] == " ":
        start += 1
    if start >= len(text):
        return ""
    if text[start] not in "({":
        match = re.match(r"[-+]?(?:\d+|\\?[a-zA-Z]+|.)", text[start:])
        return match.group() if match else ""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in "({") - (text[index] in ")}")
        if depth == 0:
            return text[start : index + 1]
    return text[start:]


def _has_tall_power(text: str) -> bool:
    for match in _EXPONENT.finditer(text):
        exponent = _group_at(text, match.end())
        if any(int(digits) > _LARGEST_EXPONENT for digits in re.findall(r"\d+", exponent)):
            return True
        # In an exponent: a power of numbers only (a tower), two powers on top of each other, or a factorial.
        if _TALL.search(exponent) and (
            not re.search(r"[a-zA-Z]", exponent) or exponent.count("^") > 1 or "!" in exponent or "binom" in exponent
        ):
            return True
    # a^b^c without braces.
    return bool(re.search(r"(?:\^|\*\*)\s*\w+\s*(?:\^|\*\*)", text))


def _has_large_factorial(text: str) -> bool:
    for match in re.finditer("!", text):
        before = text[: match.start()].rstrip()
        digits = re.search(r"\d+$", before)
        if digits:
            if int(digits.group()) > LARGEST_FACTORIAL:
                return True
        elif before.endswith((")", "}", "!")):
            group = before[max(0, len(before) - 40) :]
            if before.endswith("!") or "^" in group or re.search(r"\d{4,}", group):
                return True
    return False


def _has_large_binomial(text: str) -> bool:
    if "^" not in text and not re.search(r"\d{4,}", text):
        return False
    return bool(re.search(r"\\[dt]?binom|\\choose|\\sum|\\prod", text)) and bool(
        re.search(r"\d{5,}|\d\^|\}\^\{?\d{3,}", text)
    )
