"""Reads what a function is called with: a list, one JSON value per line, or values with names.

    [[1, 2], 3]                         a list of arguments
    "[1, 2]\\n3"                         one JSON value per line
    {"nums": [1, 2], "k": 3}            by name
    "nums = [1, 2], k = 3"              by name, as LeetCode's pages write it
    "N = 2\\narr[] = {1, 2}"             by name, as geeksforgeeks' pages write it

Pure; called by `code_tests.py`.
"""

import json
import re
from typing import Any

from prime.errors import InvalidInput
from services.verifier.programs.checkers import DEEPEST, LONGEST_INTEGER, depth_exceeds, read_integer

_NAME = re.compile(r"[\s,;]*([A-Za-z_]\w*)[ \t]*(?:\[[ \t]*\w*[ \t]*\][ \t]*)*[=:](?!=)[ \t]*\n?[ \t]*")
_PLAIN = re.compile(r"[^,;\n]*")
_WORD = re.compile(r"[A-Za-z]+")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_BRACKETS = {"{": "}", "[": "]", "(": ")"}
_LISTS = str.maketrans("{}()", "[][]")
_WORDS = {"True": True, "False": False, "None": None}
_LONG_INTEGER = re.compile(r"integer -?\d+")

Arguments = list[Any] | dict[str, Any]
"""In order, or by name."""


def read_arguments(given: Any, index: int) -> Arguments:
    """What test `index` calls its function with.

    Raises:
        InvalidInput: it is none of the forms above; names the test.
    """
    if isinstance(given, str):
        given = _of_text(given, index)
    if not isinstance(given, list | dict) or depth_exceeds(given, DEEPEST):
        kind = "null" if given is None else type(given).__name__
        raise InvalidInput(f"ground truth: input {index} is {kind}, not a (flat enough) list of arguments")
    if isinstance(given, dict) and not all(name.isidentifier() for name in given):
        raise InvalidInput(f"ground truth: input {index} has an argument whose name is none")
    if _holds_long_integer(given):
        raise InvalidInput(f"ground truth: input {index} holds an integer too long to hand over as a number")
    return given


def _of_text(text: str, index: int) -> Arguments:
    try:
        return [json.loads(line, parse_int=read_integer) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        named = _named(text)
        if named:
            return named
        raise InvalidInput(
            f"ground truth: input {index} is not one JSON value per line, nor `name = value`: {error}"
        ) from None


def _named(text: str) -> dict[str, Any] | None:
    """`name = value` one after the other; None where it cannot be read to its end."""
    found: dict[str, Any] = {}
    place, end = 0, len(text.rstrip(" \t\n,;"))
    while place < end:
        name = _NAME.match(text, place)
        if name is None or name.group(1) in found:
            return None
        piece = _piece(text, name.end())
        try:
            found[name.group(1)] = _value(piece.strip())
        except (ValueError, RecursionError):
            return None
        place = name.end() + len(piece)
    return found


def _piece(text: str, start: int) -> str:
    """The text of one value."""
    if text[start : start + 1] in _BRACKETS:
        depth, place = 0, start
        while place < len(text):
            quoted = _QUOTED.match(text, place)
            if quoted:
                place = quoted.end()
                continue
            depth += (text[place] in _BRACKETS) - (text[place] in _BRACKETS.values())
            place += 1
            if depth == 0:
                break
        return text[start:place]
    found = _QUOTED.match(text, start) or _PLAIN.match(text, start)
    return found.group() if found else ""


def _value(text: str) -> Any:
    """Raises ValueError."""
    if text in _WORDS:
        return _WORDS[text]
    if _WORD.fullmatch(text) and text not in ("true", "false", "null"):
        return text
    try:
        return json.loads(text, parse_int=read_integer)
    except ValueError:
        return json.loads(_as_json(text), parse_int=read_integer)


def _as_json(text: str) -> str:
    """Other languages' brackets and quotes made JSON's."""
    parts, place = [], 0
    for quoted in _QUOTED.finditer(text):
        parts.append(text[place : quoted.start()].translate(_LISTS))
        inner = quoted.group()
        parts.append(inner if inner[0] == '"' else json.dumps(inner[1:-1]))
        place = quoted.end()
    return "".join((*parts, text[place:].translate(_LISTS)))


def _holds_long_integer(value: Any) -> bool:
    """Whether `read_integer` has put a text in the place of one; good for comparing, not for calling."""
    if isinstance(value, str):
        return len(value) > LONGEST_INTEGER and bool(_LONG_INTEGER.fullmatch(value))
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and any(map(_holds_long_integer, value))
