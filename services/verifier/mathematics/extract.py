"""Finds the final answer in a response. Pure; linear time.

The last complete `\\boxed{}` (or `\\fbox{}`), with the boxes that belong to it; where there is none, the last
`<answer>...</answer>` or the line after the last `####`, whichever comes later. The thinking part does not count.
"""

import re

SCANNED_CHARACTERS = 256 * 1024
"""How much of a response is looked at, from its end."""

_BOX = "\\boxed{"
_TOKENS = re.compile(
    r"\\(?:boxed|fbox|framebox)\s*(?:(?P<open>\{)|(?P<bare>[-+]?\d+(?:\.\d+)?(?![\w{])|[A-Za-z](?![\w{])))|\\[{}\\]|[{}]"
)
_ANY_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
_WIDEST_GAP = 80
_NAME = r"[a-zA-Z](?:_\{?\w{1,4}\}?)?"
# Between boxes that belong together there is no sentence: only signs, names, conditions and words that join.
_JOINING = frozenset(
    [
        "and",
        "or",
        "also",
        "maybe",
        "perhaps",
        "possibly",
        "either",
        "both",
        "as",
        "well",
        "then",
        "even",
        "else",
        "it",
        "is",
        "if",
        "when",
        "for",
        "otherwise",
        "alternatively",
        "respectively",
        "plus",
        "item",
        "br",
        "tag",
        "quad",
        "qquad",
        "enspace",
        "hspace",
        "thinspace",
        "space",
        "newline",
        "text",
        "textit",
        "textrm",
        "textbf",
        "mathrm",
        "mbox",
        "hbox",
        "operatorname",
        "lor",
        "land",
        "vee",
        "wedge",
        "cup",
        "to",
        "iff",
        "ne",
        "neq",
        "ldots",
        "dots",
        "cdots",
        "cm",
        "pt",
        "begin",
        "end",
        "align",
        "aligned",
        "gather",
        "enumerate",
        "itemize",
        "equation",
        "split",
        "in",
        "boxed",
        "left",
        "right",
        "large",
        "displaystyle",
        "ou",
        "et",
        "und",
        "oder",
        "或",
        "和",
    ]
)
_WORDS = re.compile(r"[^\W\d_]+")
_SETTLED = re.compile(r"\b(?:no|not|so|thus|hence|therefore|but|wait|answer|final|finally)\b", re.IGNORECASE)
_NAME_BEFORE = re.compile(rf"(?<![\\\w])({_NAME})\s*=\s*$")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


def extract_answer(response: str) -> str | None:
    """The final answer; boxes that belong together are one list. None: there is none."""
    contents = extract_boxes(response)
    return ",".join(contents) if contents else None


def extract_boxes(response: str) -> tuple[str, ...]:
    """The contents of the last box and of those that belong to it, in order; several only where they differ.

    Boxes belong together when no sentence is between them: only signs, names, conditions, and words that join.
    Empty where there is no answer.
    """
    text = response[-SCANNED_CHARACTERS:] if len(response) > SCANNED_CHARACTERS else response
    if "think>" in text:
        _, thought, after = text.rpartition("</think>")
        if not thought and "<think>" in text:
            return ()
        text = after
    start = text.rfind(_BOX)
    if start >= 0:
        simple = _simple_box(text, start)
        if simple is not None:
            return (simple,)
    if _ANY_BOX.search(text):
        boxed = _joined_boxes(text)
        if boxed:
            return boxed
    return _marked(text)


def _marked(text: str) -> tuple[str, ...]:
    """What stands in the last `<answer>` or behind the last `####`."""
    hashes = text.rfind("####")
    closed = text.lower().rfind("</answer>")
    if closed > hashes:
        tags = list(_TAGGED.finditer(text))
        together = tags[-1:]
        for tag in reversed(tags[:-1]):
            if not _joins(text[tag.end() : together[0].start()]):
                break
            together.insert(0, tag)
        return tuple(dict.fromkeys(tag.group(1).strip() for tag in together))
    return (text[hashes + 4 :].strip().partition("\n")[0],) if hashes >= 0 else ()


def _simple_box(text: str, start: int) -> str | None:
    """The last box when nothing about it is unusual: no braces inside, none after, no box just before."""
    opened = start + len(_BOX)
    closed = text.find("}", opened)
    if closed < 0 or text.find("}", closed + 1) >= 0 or text.find("\\boxed", closed) >= 0:
        return None
    content = text[opened:closed]
    if "\\" in content or "{" in content or "}" in text[max(0, start - _WIDEST_GAP - 1) : start]:
        return None
    if "\\boxed" in text[max(0, start - _WIDEST_GAP - 16) : start] or "\\fbox" in text[closed:]:
        return None
    return content


def _joined_boxes(text: str) -> tuple[str, ...]:
    boxes = _boxes(text)
    if not boxes:
        return ()
    together = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box[3] : together[0][0]]
        if not _joins(between):
            break
        together.insert(0, box)
    contents = [text[start:end] for _, start, end, _ in together]
    if len(contents) > 1:
        names = [_NAME_BEFORE.search(text[max(0, start - _WIDEST_GAP) : start]) for start, *_ in together]
        if all(names):
            contents = [f"{name.group(1)}={content}" for name, content in zip(names, contents, strict=True) if name]
    return tuple(dict.fromkeys(contents))


def _joins(between: str) -> bool:
    """Whether what stands between two boxes makes them parts of one answer."""
    if len(between) > _WIDEST_GAP or _SETTLED.search(between):
        return False
    return all(len(word) == 1 or word.lower() in _JOINING for word in _WORDS.findall(between))


def _boxes(text: str) -> list[tuple[int, int, int, int]]:
    """(start, start of content, end of content, end) of complete outermost boxes, in one pass however many braces."""
    stack: list[tuple[int, int] | None] = []
    found: list[tuple[int, int, int, int]] = []
    first = _ANY_BOX.search(text)
    for match in _TOKENS.finditer(text, first.start() if first else 0):
        token = match.group()
        if match.group("bare"):
            if not any(stack):
                found.append((match.start(), match.start("bare"), match.end(), match.end()))
        elif match.group("open"):
            stack.append((match.start(), match.end()))
        elif token == "{":
            stack.append(None)
        elif token == "}" and stack:
            opened = stack.pop()
            if opened is not None:
                while found and found[-1][0] > opened[0]:
                    found.pop()
                found.append((*opened, match.start(), match.end()))
    return found
