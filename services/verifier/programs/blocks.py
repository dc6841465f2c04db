"""Finds the program in a response: the fences of Markdown as a reader takes them. Pure; called by `grader.py`.

The rule is in `docs/grading.md`. Nothing is compiled here, so no answer can hurt the service.
"""

import bisect
import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.verifier.programs.bare import is_trailer, program_of, with_plain_fences

_FENCE = re.compile(
    r"^(?:(?P<indent>(?:[ \t]*>)*[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)|(?P<before>[^`~\n]{1,300}))"
    r"(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)$",
    re.MULTILINE,
)
_LATE_FENCE = re.compile(r"(?<=[^`~\s])[ \t]{0,8}(?P<mark>`{3,}|~{3,})(?P<info>[^`\n]*)$", re.MULTILINE)
_THOUGHT = re.compile(r"(?P<before>^[ \t]*)?<(?P<closes>/?)think(?:ing)?>(?P<after>[ \t]*$)?", re.MULTILINE)
_DEEPEST_CLOSING = 3
"""Columns that a closing fence may lie deeper than its opening one; deeper ones belong to what is quoted."""

_START = r"^\{?[ ]*\.?(?:lang(?:uage)?[-=:][\"']?)?"
_PYTHON = re.compile(_START + r"(?:i?python|py|pypy)(?:[ -]?3(?:\.\d+)*)?(?:_(?:code|solution))?(?![\w+#.-])")
_CPP = re.compile(_START + r"(?:c\+\+|cpp|cxx|cc|g\+\+|gnu\+\+)[ -]?(?P<standard>\d\d|2[ab]|1[yz])?(?![\w+#-])")
_FILE = re.compile(r"^[\w./-]+\.(?P<kind>py|cpp|cc|cxx)(?!\w)")
_ONE_WORD = re.compile(r"[\w+#.-]+")
_STANDARDS = {"20": "20", "2a": "20", "23": "23", "2b": "23"}
_MARKDOWN = ("markdown", "md")
_VAGUE = frozenset(("text", "plaintext", "plain", "txt", "code", "solution", "answer", "program", "none", "sage"))
"""Labels that name no language."""

_PYTHON_LINE = re.compile(
    r"[ \t]*(?:(?:def|class|for|while|if|with|async|try)\b.*:|import [\w.]+|from [\w.]+ import |@\w|assert \S"
    r"|[rR]?(?:'''|\"\"\")|[(\[*][\w., \t*()\[\]]*=(?!=)|[A-Za-z_][\w.]*\((?:.*[,(\[{])?[ \t]*$"
    r"|[A-Za-z_][\w.]*(?:\[.*\])?(?:[ \t]*,[ \t]*\*?[A-Za-z_][\w.]*)*[ \t]*(?::[^=\n]+)?"
    r"(?:[-+*/%&|^]|//|\*\*|<<|>>)?=(?!=)"
    r"|[A-Za-z_][\w.]*\(.*\)[ \t]*(?:[;#.].*)?$)"
)
_LONGEST_LINE = 500
"""Characters looked at; the pattern takes quadratic time."""
_CPP_LINE = re.compile(r"[ \t]*(?:#[ \t]*include\b|using namespace\b|(?:int|void|auto|signed)[ \t]+main[ \t]*\()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A program in a response: `Found(language="cpp", source="int main() {}\\n", standard="20")`."""

    language: str
    source: str
    standard: str = ""
    """Of C++, where the label names one that is newer than 17."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    info: str
    text: str
    start: int
    end: int
    is_closed: bool
    is_mention: bool


def find_program(response: str, languages: Collection[str] = ("python",), names: Collection[str] = ()) -> Found | None:
    """The program of a response in one of `languages`; None when there is none.

    The last complete block with a label of the language; where no block has one, the last without a label that looks
    like a program; where there is no fence at all, the whole text if it looks like one. Nothing when a later program
    was begun and cut, and nothing of the thinking part. Of complete blocks one that defines one of `names` goes before
    those that define none of them, which are examples of its use.
    """
    text = _after_thinking(with_plain_fences(response.replace("\r\n", "\n").replace("\r", "\n")))
    blocks = _blocks(text)
    if not blocks:
        source = program_of(text, lambda part: bool(_language_of_text(part, languages)))
        return None if source is None else Found(language=_language_of_text(source, languages), source=source)
    blocks = [inner for block in blocks for inner in _unwrapped(block)]
    labelled = [(block, _label(block.info)) for block in blocks if block.text.strip()]
    named = [(block, *label) for block, label in labelled if label and label[0] in languages]
    if named:
        defining = [each for each in named if _defines(each[0].text, names)]
        block, language, standard = (defining or named)[-1]
        return Found(language=language, source=block.text, standard=standard) if named[-1][0].is_closed else None
    return _unlabelled([block for block in blocks if block.text.strip()], languages)


def _defines(text: str, names: Collection[str]) -> bool:
    return any(
        re.search(rf"^[ \t]*(?:(?:async[ \t]+)?def[ \t]+|class[ \t]+){re.escape(name)}\b", text, re.MULTILINE)
        or re.search(rf"^{re.escape(name)}[ \t]*(?::[^=\n]+)?=(?!=)", text, re.MULTILINE)
        for name in names
    )


def _unlabelled(blocks: Sequence[_Block], languages: Collection[str]) -> Found | None:
    likely = [block for block in blocks if _language_of_text(block.text, languages)]
    complete = [block for block in blocks if block.is_closed and not block.info]
    vague = [block for block in likely if block.info in _VAGUE]
    chosen = [block for block in likely if not block.info] or vague or complete
    if not chosen or not chosen[-1].is_closed:
        return None
    language = _language_of_text(chosen[-1].text, languages) or next(iter(languages))
    return Found(language=language, source=chosen[-1].text)


# ---------------------------------------------------------------- thinking


def _after_thinking(text: str) -> str:
    """What follows the thinking part. A tag inside code is part of the code, unless it has the line for itself."""
    if "think" not in text:
        return text
    code = [block for block in _blocks(text) if block.is_closed]
    starts = [block.start for block in code]
    start, thinking_from, seen = 0, None, False
    answers: list[str] = []
    for tag in _THOUGHT.finditer(text):
        number = bisect.bisect_right(starts, tag.start()) - 1
        is_alone = tag["before"] is not None and tag["after"] is not None
        if not is_alone and number >= 0 and tag.start() < code[number].end:
            continue
        if not tag["closes"]:
            if thinking_from is None:
                answers.append(text[start : tag.start()])
            thinking_from = tag.start() if thinking_from is None else thinking_from
        elif thinking_from is not None or not seen:  # the opening tag may have been part of the prompt
            start, thinking_from = tag.end(), None
        seen = True
    if thinking_from is None:
        answers.append(text[start:])
    # A thought may follow the answer.
    return next((answer for answer in reversed(answers) if answer.strip()), "")


# ---------------------------------------------------------------- blocks


def _blocks(text: str) -> list[_Block]:
    found: list[_Block] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if fence["mark"][0] == "`" and "`" in fence["info"]:
            continue  # code within a line
        if fence["before"] is not None and (opened is not None or not _is_named(fence)):
            continue
        if opened is None:
            opened = fence
        elif _closes(fence, opened):
            found.append(_block(text, opened, fence.start(), fence.end(), is_closed=True))
            opened = None
        elif _opens_anew(fence, opened):
            found.append(_cut(text, opened, fence.start()))
            opened = fence
    if opened is not None:
        found.append(_cut(text, opened, len(text)))
    return [block for block in found if not block.is_mention]


def _is_named(fence: re.Match[str]) -> bool:
    """Whether a fence behind other text names a language, and nothing else: so it opens a block."""
    info = fence["info"].strip()
    return bool(_ONE_WORD.fullmatch(info) and _label(info))


def _cut(text: str, opened: re.Match[str], end: int) -> _Block:
    """A block without a closing fence of its own line; one at the end of a line of code will do."""
    closing = _LATE_FENCE.search(text, opened.end(), end)
    if closing and closing["mark"][0] == opened["mark"][0] and is_trailer(closing["info"]):
        return _block(text, opened, closing.start("mark"), closing.end(), is_closed=True)
    return _block(text, opened, end, end, is_closed=False)


def _may_end(fence: re.Match[str], opened: re.Match[str]) -> bool:
    same_kind = fence["mark"][0] == opened["mark"][0] and len(fence["mark"]) >= len(opened["mark"])
    return same_kind and _width(fence["indent"]) <= _width(opened["indent"] or "") + _DEEPEST_CLOSING


def _closes(fence: re.Match[str], opened: re.Match[str]) -> bool:
    return _may_end(fence, opened) and is_trailer(fence["info"])


def _opens_anew(fence: re.Match[str], opened: re.Match[str]) -> bool:
    # A label inside a block: the block before was never closed.
    info = fence["info"].strip()
    return _may_end(fence, opened) and bool(_ONE_WORD.fullmatch(info) or _label(info))


def _block(text: str, opened: re.Match[str], stop: int, end: int, *, is_closed: bool) -> _Block:
    content = text[opened.end() + 1 : stop]
    for _ in range((opened["indent"] or "").count(">")):
        content = re.sub(r"^[ \t]*>[ ]?", "", content, flags=re.MULTILINE)
    content = _outdented(content)
    # Prose may end with such a fence, to speak of it.
    is_mention = opened["before"] is not None and not is_closed and not _language_of_text(content, ("python", "cpp"))
    return _Block(
        info=opened["info"].strip().lower(),
        text=content,
        start=opened.start(),
        end=end,
        is_closed=is_closed,
        is_mention=is_mention,
    )


def _width(indent: str) -> int:
    return len(indent.expandtabs(4))


def _outdented(content: str) -> str:
    """The code without the indentation that it has as a whole, or that its first line has."""
    first = re.match(r"(?:[ \t]*\n)*([ \t]+)\S", content)
    if first is None:
        return content
    common = textwrap.dedent(content)
    if common.lstrip("\n")[:1] not in (" ", "\t"):
        return common
    return re.sub(rf"^[ \t]{{1,{len(first.group(1))}}}", "", content, flags=re.MULTILINE)


def _unwrapped(block: _Block) -> list[_Block]:
    """A block of Markdown stands for the blocks in it."""
    if block.info in _MARKDOWN and block.is_closed:
        return _blocks(block.text) or [block]
    return [block]


# ---------------------------------------------------------------- languages


def _label(info: str) -> tuple[str, str] | None:
    """Language and C++ standard that a fence's label names; None for another language, or none."""
    info = info.lower()
    file = _FILE.match(info)
    if file:
        return ("python" if file["kind"] == "py" else "cpp"), ""
    if _PYTHON.match(info):
        return "python", ""
    cpp = _CPP.match(info)
    return ("cpp", _STANDARDS.get(cpp["standard"] or "", "")) if cpp else None


def _language_of_text(text: str, languages: Collection[str]) -> str:
    """The language that a text without a label seems to be a program in; empty when it seems to be none."""
    lines = [line for line in text.splitlines() if line.strip()]
    if "cpp" in languages and any(_CPP_LINE.match(line) for line in lines):
        return "cpp"
    code = [line for line in lines if not line.lstrip().startswith("#")]
    if "python" in languages and code and _PYTHON_LINE.match(code[0][:_LONGEST_LINE]):
        return "python"
    return ""
