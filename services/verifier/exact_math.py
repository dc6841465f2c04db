"""Compares mathematical answers without any algebra system: extraction, normal form, lists, exact numbers.

Everything that costs next to nothing is settled here. What is left goes to the workers of `mathematics.py`, and only
when `guards.py` says that it is small. Pure functions; called by `grade.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prime.errors import InvalidInput
from services.verifier.guards import LONGEST, is_too_complex
from services.verifier.rationals import read_number, same_number

SCANNED_CHARACTERS = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Settled: `Decided(equal=False, reason="mismatch")`; `equal=None` is undecided."""

    equal: bool | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbolic:
    """Not settled here: each of `parts` must be the same expression as `gold`."""

    gold: str
    parts: tuple[str, ...]


_EXACT = Decided(equal=True, reason="exact")
_MISMATCH = Decided(equal=False, reason="mismatch")
_NO_ANSWER = Decided(equal=False, reason="no_answer")
_TOO_COMPLEX = Decided(equal=None, reason="too_complex")


def compare_answer(response: str, ground_truth: str) -> Decided | Symbolic:
    """Compare the final answer of a response with the ground truth.

    Raises:
        InvalidInput: the ground truth holds nothing to compare with.
    """
    gold = normalise(_unwrap_gold(ground_truth))
    if not gold:
        raise InvalidInput(f"ground truth {ground_truth[:40]!r} of a mathematics problem is empty; drop the problem")
    found = extract_answer(response)
    answer = normalise(found) if found is not None else ""
    if not answer:
        return _NO_ANSWER
    if _same_text(answer, gold):
        return _EXACT
    if _both_integers(answer, gold):
        return _EXACT if _stripped_integer(answer) == _stripped_integer(gold) else _MISMATCH
    if is_too_complex(answer) or is_too_complex(gold):
        return _TOO_COMPLEX
    return _compare(answer, gold)


# ---------------------------------------------------------------- extraction

_BRACES = re.compile(r"\\boxed\s*\{|\\[{}\\]|[{}]")
_WIDEST_GAP = 40
_BETWEEN_BOXES = re.compile(r"[\s,;$.]*(?:\\(?:quad|qquad|,|;|text\{\s*(?:and|or)\s*\})|and|or)?[\s,;$.]*")


def extract_answer(response: str) -> str | None:
    """The last complete box, else the line after the last `####`, else None. The thinking part does not count.

    Boxes next to each other, with nothing but punctuation between them, are one list.
    """
    text = response[-SCANNED_CHARACTERS:]
    _, thought, after = text.rpartition("</think>")
    if not thought and "<think>" in text:
        return None
    boxes = _boxes(after) if "\\boxed" in after else []
    if boxes:
        *before, (start, content_start, end) = boxes
        contents = [after[content_start:end]]
        for earlier_start, earlier_content, earlier_end in reversed(before):
            between = after[earlier_end + 1 : start]
            if len(between) > _WIDEST_GAP or not _BETWEEN_BOXES.fullmatch(between):
                break
            contents.insert(0, after[earlier_content:earlier_end])
            start = earlier_start
        return ",".join(contents)
    _, marker, tail = after.rpartition("####")
    return tail.strip().partition("\n")[0] if marker else None


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


def _unwrap_gold(ground_truth: str) -> str:
    # Data sets store the bare answer, a box, or a worked solution that ends in a box or a marker.
    if "\\boxed" in ground_truth or "####" in ground_truth:
        return extract_answer(ground_truth) or ""
    return ground_truth


# ---------------------------------------------------------------- normal form

_CHARACTERS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": "\\times ",
        "\u00b7": "\\cdot ",
        "\u00f7": "\\div ",
        "\u03c0": "\\pi ",
        "\u221e": "\\infty ",
        "\u00b0": "",
        "\u00a0": " ",
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u202a\u202b\u202c", ""),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    }
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|displaystyle|limits)(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"(?<=\d)(?:\{,\}|\\,|\\!|\{\\,\})(?=\d{3}(?!\d))", ""),
        (r"\\[!,;: ]", " "),
        (r"\\(?:q?quad)(?![a-zA-Z])", " "),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\}|\\degree)", ""),
        (r"\\(?:mbox|textrm|textbf|textit|textnormal|mathrm|mathbf|operatorname)(?=\s*\{)", r"\\text"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\(?:thickapprox|simeq)(?![a-zA-Z])", r"\\approx"),
        (r"\s*\\approx.*$", ""),
        (r"\\lor(?![a-zA-Z])|\\text\{\s*or\s*\}", " or "),
        (r"\\text\{\s*and\s*\}", " and "),
        (r"\s+", " "),
        (r" ?([^\w\s]) ?", r"\1"),
    )
]
_WHOLE_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_UNIT = re.compile(r"(?P<value>.*[\w)}!%])\s*\\text\{(?P<unit>[^{}]*)\}(?P<power>\^(?:\d|\{\d\}))?")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WRAPPERS = (("\\(", "\\)"), ("\\[", "\\]"))


def normalise(text: str) -> str:
    """One spelling for what is only typography; nothing that could change a value."""
    text = text[: 8 * SCANNED_CHARACTERS].translate(_CHARACTERS).strip()
    for opening, closing in _WRAPPERS:
        if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    text = text.replace("\\$", "").replace("$", "").strip().rstrip(" .")
    if len(text) <= LONGEST:
        for pattern, replacement in _REWRITES:
            text = pattern.sub(replacement, text)
    whole = _WHOLE_TEXT.fullmatch(text)
    text = (whole.group(1) if whole else text).strip(" ,;")
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def _same_text(answer: str, gold: str) -> bool:
    if answer == gold:
        return True
    # Words may differ in case; one letter is a variable or a choice, where case counts.
    return _is_words(answer) and _is_words(gold) and " ".join(answer.split()).lower() == " ".join(gold.split()).lower()


def _is_words(text: str) -> bool:
    return len(text) > 1 and all(part.isalpha() for part in text.replace("-", " ").split())


def _both_integers(answer: str, gold: str) -> bool:
    return all(re.fullmatch(r"[-+]?[0-9]+", text) for text in (answer, gold))


def _stripped_integer(text: str) -> str:
    digits = text.lstrip("+-").lstrip("0") or "0"
    return "-" + digits if text.startswith("-") and digits != "0" else digits


# ---------------------------------------------------------------- comparison

_NAMED = re.compile(r"(?:\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\([a-zA-Z]\))?)=(?!=)")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|neq|lt|gt|in|cup|cap|subset)(?![a-zA-Z])")
_CHOICE = re.compile(r"(?:\\text\{)?\(?([A-J])\)?\}?")
_CHOICE_AND_TEXT = re.compile(r"(?:\\text\{)?\(([A-J])\)\}?(?P<rest>.*)", re.DOTALL)
_BASE = re.compile(r"\d_\{?\d")


def _compare(answer: str, gold: str) -> Decided | Symbolic:
    letter = _CHOICE.fullmatch(gold)
    if letter:
        return _EXACT if _chosen(answer) == letter.group(1) else _MISMATCH
    if _is_words(gold) and _is_words(answer):
        return _MISMATCH  # read as a product, `AB` would equal `BA`
    if bool(_BASE.search(gold)) != bool(_BASE.search(answer)):
        return _MISMATCH  # the base is part of the value, and the algebra system ignores it
    (answer, answer_unit), (gold, gold_unit) = _without_unit(answer), _without_unit(gold)
    if answer_unit and gold_unit and answer_unit != gold_unit:
        return _MISMATCH
    structured = _compare_lists(answer, gold)
    if structured is not None:
        return structured
    return _compare_single(answer, gold)


def _chosen(answer: str) -> str | None:
    plain = _CHOICE.fullmatch(answer)
    if plain:
        return plain.group(1)
    followed = _CHOICE_AND_TEXT.fullmatch(answer)
    # The letter with its own option behind it, but not a second letter.
    return followed.group(1) if followed and not re.search(r"\([A-J]\)|\bor\b", followed.group("rest")) else None


def _without_unit(text: str) -> tuple[str, str]:
    match = _UNIT.fullmatch(text)
    if match is None:
        return text, ""
    unit = match.group("unit").strip().lower() + (match.group("power") or "").strip("^{}")
    return match.group("value"), unit


def _compare_single(answer: str, gold: str) -> Decided | Symbolic:
    if _RELATION.search(gold) or _RELATION.search(answer):
        return Symbolic(gold=gold, parts=(answer,))
    if "=" in gold and "=" in answer and not (_NAMED.match(gold) and _NAMED.match(answer)):
        return Symbolic(gold=gold, parts=(answer,))
    gold = _NAMED.sub("", gold, count=1)
    parts = _NAMED.sub("", answer, count=1).split("=")
    if not all(parts) or ("\\pm" in answer and "\\pm" not in gold):
        return _MISMATCH
    # A chain such as `\frac{1}{2}=0.5` must be right in every link, or `3=5` would pass for 5.
    results = [_compare_scalars(part, gold) for part in parts]
    if all(result is True for result in results):
        return _EXACT
    if any(result is False for result in results):
        return _MISMATCH
    return Symbolic(gold=gold, parts=tuple(part for part, result in zip(parts, results, strict=True) if result is None))


def _compare_scalars(answer: str, gold: str) -> bool | None:
    """Equal, different, or None when this needs algebra."""
    if _same_text(answer, gold):
        return True
    left, right = read_number(answer), read_number(gold)
    if left is not None and right is not None:
        return same_number(left, right)
    # Digits apart are no number; read as a product, or run together, they might become one.
    number, other = (right, answer) if left is None else (left, gold)
    return False if number is not None and re.search(r"\d \d", other) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _List:
    brackets: str
    """`()`, `[]`, `(]` or `[)`: ordered, and the brackets count. Empty: a set, or items side by side."""
    items: tuple[str, ...]


def _as_list(text: str) -> _List | None:
    if text.startswith("\\{") and text.endswith("\\}"):
        return _List(brackets="", items=tuple(item for item in _split(text[2:-2]) if item))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        items = _split(text[1:-1])
        if len(items) > 1 and _closes_at_end(text):
            return _List(brackets=text[0] + text[-1], items=tuple(items))
    items = _split(text)
    return _List(brackets="", items=tuple(items)) if len(items) > 1 else None


def _closes_at_end(text: str) -> bool:
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Items between commas, semicolons, `or` and `and` that lie outside all brackets."""
    text = re.sub(r"\b(?:or|and)\b", ",", text)
    items, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth == 0:
            items.append(text[start:index])
            start = index + 1
    items.append(text[start:])
    return [item.strip() for item in items] if len(items) > 1 else items


def _compare_lists(answer: str, gold: str) -> Decided | Symbolic | None:
    """Decides what has several parts; None when neither side has."""
    left, right = _as_list(answer), _as_list(gold)
    if left is None and right is None:
        return None
    if left is None or right is None:
        plain = gold if right is None else answer
        related = _RELATION.search(gold) or _RELATION.search(answer)
        return Symbolic(gold=gold, parts=(answer,)) if related and read_number(plain) is None else _MISMATCH
    if left.brackets != right.brackets or len(left.items) != len(right.items):
        return _MISMATCH
    results = _pair(left.items, right.items) if left.brackets else _match(left.items, right.items)
    if all(result is True for result in results):
        return _EXACT
    if any(result is False for result in results):
        return _MISMATCH
    return Symbolic(gold=gold, parts=(answer,))


def _pair(left: Sequence[str], right: Sequence[str]) -> list[bool | None]:
    return [_compare_items(first, second) for first, second in zip(left, right, strict=True)]


def _match(left: Sequence[str], right: Sequence[str]) -> list[bool | None]:
    """Like `_pair`, in whatever order fits: an item that equals nothing is False."""
    open_items, results = list(right), list[bool | None]()
    for item in left:
        verdicts = [_compare_items(item, candidate) for candidate in open_items]
        if True in verdicts:
            open_items.pop(verdicts.index(True))
            results.append(True)
        else:
            results.append(None if None in verdicts else False)
    return results


def _compare_items(answer: str, gold: str) -> bool | None:
    decided = _compare_single(answer, gold)
    return decided.equal if isinstance(decided, Decided) else None
