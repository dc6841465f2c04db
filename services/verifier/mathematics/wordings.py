"""Answers that can be given in words or in signs: `all real numbers` is `\\mathbb{R}`. Pure; used by `text.py`."""

import re

_THINGS = r"(?:solution|root|value|function|integer|number|pair|triple|point|polynomial|sequence)s?"
_NOTHING = (
    r"(?:there (?:is|are|exists?) )?no (?:(?:real|such|possible|valid|integer|positive|natural) )*"
    + _THINGS
    + "(?: exists?)?"
)
_SETS = [
    (re.compile(pattern), symbols)
    for pattern, symbols in (
        (rf"{_NOTHING}|(?:the )?(?:empty|null) set|none|(?:[a-z] ?)?\\in ?\\emptyset", r"\emptyset"),
        (
            r"(?:the |(?:for )?(?:all|any|every) )?(?:set of )?(?:all )?(?:real numbers?|reals?)(?: [a-z])?"
            r"|[a-z] (?:is|can be) any real number",
            r"\mathbb{R}",
        ),
        (r"(?:for )?(?:all|any|every) (?:real )?(?:values? of )?[a-z]", r"\mathbb{R}"),
        (r"(?:all |the |every )positive (?:real numbers?|reals)", r"(0,\infty)"),
        (r"(?:all |the |every )negative (?:real numbers?|reals)", r"(-\infty,0)"),
        (r"(?:all |the |every )(?:non-?negative) (?:real numbers?|reals)", r"[0,\infty)"),
        (r"(?:all |the )?(?:set of )?(?:all )?integers", r"\mathbb{Z}"),
        (r"(?:all |the )?(?:set of )?(?:all )?rational numbers", r"\mathbb{Q}"),
        (r"(?:plus |positive )?infinity", r"\infty"),
        (r"(?:minus |negative |-)infinity", r"-\infty"),
        (r"(?:the limit )?(?:dne|doesn't exist|do(?:es)? not exist)", "does not exist"),
        (r"infinitely many solutions?|infinite solutions?", "infinitely many"),
    )
]
_EXCEPT = re.compile(
    r"(?:all )?(?:real numbers?|reals)(?: [a-z])?,? (?:except|other than|but|besides)(?: for)? (?P<points>.+)"
)
_TYPOGRAPHY = re.compile(r"\\text|[{}]")
_LONGEST = 80


def in_symbols(text: str) -> str:
    """The signs for a normalised text in words; any other text as it is."""
    if len(text) > _LONGEST or not any(word in text.lower() for word in _KEYWORDS):
        return text
    words = " ".join(_TYPOGRAPHY.sub(" ", text).lower().split()).strip(" .,")
    for pattern, symbols in _SETS:
        if pattern.fullmatch(words):
            return symbols
    outside = _EXCEPT.fullmatch(words)
    if outside:
        points = re.sub(r"[a-z] ?= ?", "", outside.group("points")).replace(" and ", ",").replace(" ", "")
        return rf"\mathbb{{R}}\setminus\{{{points}\}}"
    return text


_KEYWORDS = (
    "no ",
    "none",
    "empty",
    "real",
    "set",
    "infinit",
    "exist",
    "dne",
    "integers",
    "rational",
    "all ",
    "any ",
    "every ",
)
