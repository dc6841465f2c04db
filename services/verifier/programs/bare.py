"""Finds the program in a response without fences, and frees text of what chat formats leave around it.

Pure, and nothing is parsed here; used by `blocks.py`.
"""

import re
from collections.abc import Callable

_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff"
_BESIDE_A_FENCE = re.compile(rf"[{_UNSEEN}]{{1,8}}(?=`{{3}}|~{{3}})|(?<=`{{3}}|~{{3}})[{_UNSEEN}]{{1,8}}")
_WIDE_INDENT = re.compile(r"^[ \t\u00a0\u3000]{1,40}(?=`{3}|~{3})", re.MULTILINE)
_TOKEN = r"<\|[\w -]{1,40}\|>|</s>"
_TRAILER = re.compile(rf"(?:{_TOKEN}|</?[A-Za-z][\w-]{{0,30}}>|[.*\s])*", re.ASCII)
_LAST_TOKENS = re.compile(rf"(?:{_TOKEN}|\s){{1,20}}\Z")
_WRAPPERS = (
    *((f"<{name}>", f"</{name}>") for name in ("answer", "code", "solution", "python", "pre")),
    *((f"[{name}]", f"[/{name}]") for name in ("PYTHON", "CODE", "ANSWER")),
    ("[BEGIN]", "[DONE]"),
)
_QUOTED = re.compile(r"(?P<mark>`{1,2})(?P<code>[^`\n]+)(?P=mark)")
_INTRODUCTION = re.compile(r"[A-Z][^\n]{0,200}:[ \t]*\n\s*\n")


def with_plain_fences(text: str) -> str:
    """The text without characters of no width beside its fences, and with plain blanks before them."""
    text = _BESIDE_A_FENCE.sub("", text)
    return _WIDE_INDENT.sub(lambda blanks: re.sub(r"[^ \t]", " ", blanks.group()), text)


def is_trailer(info: str) -> bool:
    """Whether what follows a fence is nothing to a reader: special tokens of a model, tags, a full stop."""
    return _TRAILER.fullmatch(info) is not None


def program_of(text: str, is_program: Callable[[str], bool]) -> str | None:
    """The program that a text without fences is, or holds between a pair of tags; None when there is none."""
    text = text.rstrip()
    last = _LAST_TOKENS.search(text, max(0, len(text) - 400))
    text = text[: last.start()] if last else text
    inner = [part for start, end in _WRAPPERS if (part := _between(text, start, end)) is not None]
    quoted = _QUOTED.fullmatch(text.strip())
    introduction = _INTRODUCTION.match(text)
    readings = [*inner, *([quoted["code"]] if quoted else []), text]
    readings += [text[introduction.end() :]] if introduction else []
    return next((each for each in readings if is_program(each)), None)


def _between(text: str, start: str, end: str) -> str | None:
    """What the last complete pair holds."""
    last = text.rfind(end)
    first = text.rfind(start, 0, last) if last >= 0 else -1
    return text[first + len(start) : last].strip("\n") if first >= 0 else None
