"""Finds the final answer in a response: the last complete box, or what follows the last `####`. Pure; linear time."""

import re

SCANNED_CHARACTERS = 256 * 1024
"""How much of a response is looked at, from its end."""

_BOX = "\\boxed{"
_BRACES = re.compile(r"\\boxed\s*\{|\\[{}\\]|[{}]")
_WIDEST_GAP = 40
_BETWEEN_BOXES = re.compile(r"[\s,;$.]*(?:\\(?:quad|qquad|,|;|text\{\s*(?:and|or)\s*\})|and|or)?[\s,;$.]*")


def extract_answer(response: str) -> str | None:
    """The last complete box, else the line after the last `####`, else None. The thinking part does not count.

    Boxes next to each other, with nothing but punctuation between them, are one list.
    """
    text = response[-SCANNED_CHARACTERS:] if len(response) > SCANNED_CHARACTERS else response
    if "think>" in text:
        _, thought, after = text.rpartition("</think>")
        if not thought and "<think>" in text:
            return None
        text = after
    start = text.rfind(_BOX)
    if start >= 0:
        simple = _simple_box(text, start)
        if simple is not None:
            return simple
    if "\\boxed" in text:
        boxed = _joined_boxes(text)
        if boxed is not None:
            return boxed
    _, marker, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0] if marker else None


def _simple_box(text: str, start: int) -> str | None:
    """The last box when nothing about it is unusual: no braces inside, none after, no box just before."""
    opened = start + len(_BOX)
    closed = text.find("}", opened)
    if closed < 0 or text.find("}", closed + 1) >= 0 or text.find("\\boxed", closed) >= 0:
        return None
    content = text[opened:closed]
    if "\\" in content or "{" in content or "}" in text[max(0, start - _WIDEST_GAP - 1) : start]:
        return None
    return content


def _joined_boxes(text: str) -> str | None:
    boxes = _boxes(text)
    if not boxes:
        return None
    *before, (start, content_start, end) = boxes
    contents = [text[content_start:end]]
    for earlier_start, earlier_content, earlier_end in reversed(before):
        between = text[earlier_end + 1 : start]
        if len(between) > _WIDEST_GAP or not _BETWEEN_BOXES.fullmatch(between):
            break
        contents.append(text[earlier_content:earlier_end])
        start = earlier_start
    return ",".join(reversed(contents))


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """(start, start of content, closing brace) of complete outermost boxes, in one pass however many braces."""
    stack: list[tuple[int, int] | None] = []
    found: list[tuple[int, int, int]] = []
    for match in _BRACES.finditer(text, max(0, text.find("\\boxed"))):
        token = match.group()
        if token == "{":
            stack.append(None)
        elif token.startswith("\\boxed"):
            stack.append((match.start(), match.end()))
        elif token == "}" and stack:
            opened = stack.pop()
            if opened is not None:
                while found and found[-1][0] > opened[0]:
                    found.pop()
                found.append((*opened, match.start()))
    return found
