"""Walks over text with brackets: where they close, and how to split outside of them. Pure."""

_OPENING, _CLOSING = "([{", ")]}"


def closes_at_end(text: str) -> bool:
    """Whether the bracket that opens the text is closed by its last character."""
    depth = 0
    for index, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth == 0:
                return index == len(text) - 1
    return False


def split_outside(text: str, separators: str) -> list[str]:
    """The parts between separators, single characters, that are outside all brackets; not stripped."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif depth == 0 and character in separators:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def is_balanced(text: str) -> bool:
    """Whether every bracket is closed, in order, whatever its kind."""
    depth = 0
    for character in text:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth < 0:
                return False
    return depth == 0
