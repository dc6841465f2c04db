"""One spelling for mathematical text: what is only typography goes, nothing that could change a value. Pure."""

import re
import unicodedata
from fractions import Fraction

from services.verifier.mathematics.guards import LONGEST
from services.verifier.mathematics.spellings import CHARACTERS, COMMANDS, SIGNS, SPACES
from services.verifier.mathematics.wordings import in_symbols

_LONGEST_NORMALISED = 2 * 1024 * 1024
_MOST_BRACES = 20

# No rewrite touches a text of these characters and plain fractions, and only those of spaces one with spaces.
_UNTOUCHED = re.compile(r"[A-Za-z0-9.+\-/()\[\],|^]*(?:\\frac\{\d+\}\{\d+\}[A-Za-z0-9.+\-/()\[\],|^]*)*", re.ASCII)
_SPACED = re.compile(_UNTOUCHED.pattern.replace("A-Z", " A-Z"), re.ASCII)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+|.)", re.DOTALL)
# Commands that no rule about commands knows.
_KEPT_COMMANDS = frozenset(
    "\\" + name
    for name in ("frac", "sqrt", "pi", "infty", "cdot", "cup", "in", "le", "ge", "pm", "sin", "cos", "ln", *"{}%,!\\")
)
_PLAIN_IN_FONT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([A-Za-z0-9(). ]*)\}")
_WRAPPERS = (("\\(", "\\)"), ("\\[", "\\]"))
_WHOLE_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
# One number with separators, whatever unit or name is around it; in brackets the comma separates items.
_GROUPED = re.compile(
    r"(?P<before>[-+=a-z]*|\\text\{[a-z]+\})(?P<number>\d{1,3}(?:,\d{3})+)(?P<after>(?:[^,\d][^,]*)?)", re.ASCII
)
_SPACED_GROUPS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?", re.ASCII)
_DOTS = re.compile("\\.{3,}|\u2026")
_MONEY = re.compile(r"\\(?:text|mathrm)\s*\{\s*\\?\$\s*\}")
_THIN_GROUPS = re.compile(r"[-+]?\d{1,3}(?:,(?:\\[,;: ]|~)\s*\d{3}){2,}", re.ASCII)
_GROUPED_LIST = re.compile(r"[(\[]?\d{1,3}(?:,\d{3})+(?:(?:,\s+|\s+and\s+|;\s*)\d{1,3}(?:,\d{3})*)+[)\]]?", re.ASCII)
_GROUPED_IN_BRACES = re.compile(r"(?<!\\)\{(\d{1,3}(?:,\d{3})+)\}", re.ASCII)
_LARGE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?:\\text\{\s*)?(?P<word>million|billion|trillion)\s*\}?", re.ASCII)
_POWERS = {"million": 6, "billion": 9, "trillion": 12}
_BOLD_SET = re.compile(r"(?P<member>[a-z] ?\\in ?)?\\(?:mathbf|Bbb|mathrm|bf) ?\{?(?P<set>[RNZ])\}?")
_RATIO_OF_GROUPS = re.compile(r"\d{1,3}(?:,\d{3})*(?: ?: ?\d{1,3}(?:,\d{3})*)+", re.ASCII)
_APOSTROPHES = re.compile(r"\d{1,3}(?:'\d{3})+", re.ASCII)
_THIN_ENDS = re.compile(r"^(?:\\[,;:! ]|\s)+|(?:\\[,;:! ]|\s)+$")
_TAGS = re.compile(r"</?(?:b|u|i|em|strong|mark)>")
_MARKDOWN = re.compile(r"(\*{1,3}|__|_|`+)(?P<inner>[^*_`]+)\1")


def normalise(text: str) -> str:
    """The normal form. Texts with the same one are the same answer."""
    if "frac" in text:
        text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    if text.startswith("\\") and not _BOLD_SET.fullmatch(text) and (plain := _PLAIN_IN_FONT.fullmatch(text)):
        text = plain.group(1)
    if "..." in text or "\u2026" in text:
        text = _DOTS.sub(r"\\dots ", text)
    if _UNTOUCHED.fullmatch(text):
        text = _ungrouped(text.rstrip(".,"))
        return in_symbols(text) if text.isalpha() else text
    if _SPACED.fullmatch(text) and "percent" not in text:
        text = _as_a_whole(text.strip().rstrip(" ."))
        return in_symbols(_ungrouped(_respaced(text).strip(" ,;")))
    return in_symbols(_ungrouped(_without_typography(text[:_LONGEST_NORMALISED])))


def _without_typography(text: str) -> str:
    text = _as_a_whole(_unwrapped(_TAGS.sub("", _plain_characters(text)).strip()))
    if len(text) <= LONGEST:
        text = _without_braces(_rewritten(text))
    whole = _WHOLE_TEXT.fullmatch(text)
    return (whole.group(1) if whole else text).strip(" ,;")


def _unwrapped(text: str) -> str:
    """The text without signs of a formula, braces and emphasis around it."""
    for opening, closing in _WRAPPERS:
        if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    if "$" in text:
        text = _MONEY.sub(r"\\$", text)
        text = text.replace("\\$", "\\text{dollars}").replace("$", "").strip()
    text = _THIN_ENDS.sub("", text.removeprefix("\\displaystyle"))
    return _without_emphasis(_without_braces(text))


def without_separators(text: str) -> str:
    """Numbers without the commas that set their thousands apart."""
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


def _as_a_whole(text: str) -> str:
    """What can only be told from the whole text: numbers with separators, bold letters for sets, words for powers."""
    if _THIN_GROUPS.fullmatch(text) or _APOSTROPHES.fullmatch(text):
        return re.sub(r"[^-+\d]", "", text)
    bold = _BOLD_SET.fullmatch(text)
    if bold:
        return f"{bold.group('member') or ''}\\mathbb{{{bold.group('set')}}}".replace(" ", "")
    if _GROUPED_LIST.fullmatch(text) or _RATIO_OF_GROUPS.fullmatch(text):
        return without_separators(text)
    large = _LARGE.fullmatch(text)
    if large:
        return str(Fraction(large.group("number")) * 10 ** _POWERS[large.group("word")])
    return _GROUPED_IN_BRACES.sub(lambda match: "{" + match.group(1).replace(",", "") + "}", text)


def _ungrouped(text: str) -> str:
    if "," in text and _GROUPED.fullmatch(text):
        return text.replace(",", "")
    return text.replace(" ", "") if " " in text and _SPACED_GROUPS.fullmatch(text) else text


def _plain_characters(text: str) -> str:
    if text.isascii():
        return text
    # The sign reaches over the whole number behind it, which the command does not.
    text = re.sub("\u221a ?(\\d+)", r"\\sqrt{\1}", text).translate(CHARACTERS)
    # Digits of other scripts and of other shapes have a value of their own; superscripts do not count as digits here.
    return "".join(
        character if character < "\u0080" else str(unicodedata.decimal(character, character)) for character in text
    )


def _rewritten(text: str) -> str:
    if "\u00b0" in text or ("\\" in text and not _KEPT_COMMANDS.issuperset(_COMMAND.findall(text))):
        for pattern, replacement in COMMANDS:
            text = pattern.sub(replacement, text)
        # What was coloured or underlined is in braces now, in which a comma would separate items.
        text = _without_braces(text)
    for needle, pattern, replacement in SIGNS:
        if needle in text:
            text = pattern.sub(replacement, text)
    return _respaced(text)


def _without_emphasis(text: str) -> str:
    """The text without the marks of Markdown around all of it."""
    emphasised = _MARKDOWN.fullmatch(text) if text[:1] in ("*", "_", "`") else None
    return emphasised.group("inner").strip() if emphasised else text


def _without_braces(text: str) -> str:
    """The text without a full stop behind it and without braces around all of it."""
    text = text.strip().rstrip(" .")
    for _ in range(_MOST_BRACES):
        if not (text.startswith("{") and text.endswith("}") and _braces_close_at_end(text)):
            break
        text = text[1:-1].strip().rstrip(" .")
    return text


def _braces_close_at_end(text: str) -> bool:
    depth = 0
    for match in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end() == len(text)
    return False


def _respaced(text: str) -> str:
    for pattern, replacement in SPACES:
        text = pattern.sub(replacement, text)
    return text


def same_text(answer: str, gold: str) -> bool:
    """Whether two normal forms are the same answer."""
    if answer == gold:
        return True
    # Words may differ in case; one letter is a variable or a choice, where case counts.
    return is_words(answer) and is_words(gold) and " ".join(answer.split()).lower() == " ".join(gold.split()).lower()


def is_words(text: str) -> bool:
    """Whether this is a word or several, with hyphens, apostrophes and full stops, and nothing else."""
    return len(text) > 1 and text[0].isalpha() and all(part.isalpha() for part in re.split(r"[-' ]|\. ?", text))


_COMMANDS = re.compile(r"\\[a-zA-Z]+")
_TWO_WORDS = re.compile(r"[a-zA-Z]?[a-z]{3,} [a-zA-Z][a-z]+|[a-zA-Z][a-z]+ [a-zA-Z]?[a-z]{3,}")
_MOST_WORDS_BESIDE_A_NUMBER = 4


def is_prose(text: str) -> bool:
    """Whether the text is a sentence: several words and no digit, or far more words than a unit has."""
    if "\\begin" in text:
        return False
    plain = _COMMANDS.sub("", text)
    if re.search(r"\d", text):
        return len(re.findall(r"[a-zA-Z]{3,}", plain)) > _MOST_WORDS_BESIDE_A_NUMBER and " " in plain
    return _TWO_WORDS.search(plain) is not None
