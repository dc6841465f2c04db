"""Says from its text alone whether a mathematical answer is too costly to evaluate. Pure; used by `compare.py`.

Sizes and depths are counted here; how large the value could get is bounded by `magnitude.py`, without computing it.
"""

import re

LONGEST = 2048
"""Characters of an answer that is looked at closely."""
DEEPEST = 40
"""Brackets, roots or fractions within each other; the parser's time grows with them."""
LONGEST_DIGIT_RUN = 1000
MOST_ELEMENTS = 512
MOST_SYMBOLS = 10
LARGEST_MATRIX = 12

# What the parser or the algebra system takes too long for, though each of it is small; how often it may occur.
_MOST = [
    (re.compile(r"[-+]{20}"), 0),  # signs in a row
    (re.compile(r"\|"), 16),
    (re.compile(r"[-+]"), 250),
    (re.compile(r"_"), 80),
    (re.compile(r"\\(?:cup|cap)(?![a-zA-Z])"), 16),
    (re.compile(r"\d[eE]"), 20),
    (re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{100}"), 0),  # a product of that many letters
]
_LARGEST_DETERMINANT = 5
_MOST_ARGUMENTS = 10
_DETERMINANT = re.compile(r"vmatrix|\\det(?![a-zA-Z])")
_EXTREME = re.compile(r"\\(?:max|min|gcd)(?![a-zA-Z])")

_LONG_NUMBER = re.compile(rf"\d{{{LONGEST_DIGIT_RUN + 1}}}")
_MATRIX = re.compile(r"\\begin\s*\{[a-zA-Z]*(?:matrix|array)\}(.*?)\\end\s*\{", re.DOTALL)
_NOT_SYMBOLS = re.compile(r"\\text\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}|(?P<command>\\[a-zA-Z]+)")
_SYMBOL = re.compile(r"[a-zA-Z](?:_(?:\w|\{\w+\}))?")
_SYMBOL_COMMANDS = re.compile(
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau"
    r"|upsilon|(?:var)?phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega)"
)


def is_too_large(text: str) -> bool:
    """Whether it is too long, too deep, or has too many parts, digits or symbols to be looked at closely."""
    if len(text) > LONGEST or text.count(",") + text.count(";") >= MOST_ELEMENTS:
        return True
    if _LONG_NUMBER.search(text) or _depth(text) > DEEPEST:
        return True
    if any(len(pattern.findall(text)) > most for pattern, most in _MOST):
        return True
    if _EXTREME.search(text) and text.count(",") > _MOST_ARGUMENTS:
        return True
    return _has_large_matrix(text) or len(symbols(text)) > MOST_SYMBOLS


def symbols(text: str) -> set[str]:
    """The names of its variables, roughly: letters outside commands and words, and Greek letters."""
    greek: set[str] = set()

    def drop(match: re.Match[str]) -> str:
        command = match.group("command")
        if command and _SYMBOL_COMMANDS.fullmatch(command):
            greek.add(command)
        return " "

    return set(_SYMBOL.findall(_NOT_SYMBOLS.sub(drop, text))) | greek


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    # Roots and fractions within each other cost the algebra system far more than brackets do.
    return max(deepest, text.count("\\sqrt"), text.count("\\frac"))


def _has_large_matrix(text: str) -> bool:
    largest = _LARGEST_DETERMINANT if _DETERMINANT.search(text) else LARGEST_MATRIX
    for match in _MATRIX.finditer(text):
        rows = match.group(1).split("\\\\")
        if len(rows) > largest + 1 or any(row.count("&") >= largest for row in rows):
            return True
    return False
