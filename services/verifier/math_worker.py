"""The child that compares mathematical expressions. Started as a script by `mathematics.py`, never imported.

It loads Math-Verify, locks itself up, and then answers one JSON line per question: `{"gold": ..., "parts": [...]}` in,
`{"equal": true}` out. Every part must equal the gold. It keeps no clock: whoever asks kills it at the deadline.
"""

import functools
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.verifier import jail
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import jail

    del sys.path[0]

# Two numbers count as one when they agree to this many digits; Math-Verify alone rounds to a fixed decimal place and
# so takes any two tiny numbers for equal.
_DIGITS = 30
_DECIMAL_DIGITS = 6


@functools.lru_cache(maxsize=512)
def _parse(text: str) -> tuple[Any, ...]:
    from math_verify import LatexExtractionConfig, parse

    # LaTeX only: the other extractor hands the text to Python's eval.
    return tuple(
        parse(
            f"\\boxed{{{text}}}",
            extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
    )


def _same(gold: str, answer: str) -> bool:
    from math_verify import verify

    left, right = _parse(gold), _parse(answer)
    if not left or not right:
        return False
    if not verify(list(left), list(right), float_rounding=_DECIMAL_DIGITS, strict=True, timeout_seconds=None):
        return False
    return _numbers_agree(left[0], right[0])


def _numbers_agree(gold: Any, answer: Any) -> bool:
    """A veto over what was found equal: false when both are plain real numbers that differ."""
    import sympy

    if not all(isinstance(side, sympy.Expr) and side.is_number for side in (gold, answer)):
        return True
    first, second = sympy.N(gold, _DIGITS + 10), sympy.N(answer, _DIGITS + 10)
    if not (first.is_Float or first.is_Integer) or not (second.is_Float or second.is_Integer):
        return True
    difference, size = abs(first - second), max(abs(first), abs(second))
    decimal = gold.has(sympy.Float) or answer.has(sympy.Float)
    return bool(difference <= size * sympy.Float(10) ** -(_DECIMAL_DIGITS - 1 if decimal else _DIGITS))


def _answer(line: bytes) -> dict[str, object]:
    question = json.loads(line)
    try:
        return {"equal": all(_same(question["gold"], part) for part in question["parts"])}
    except MemoryError:
        return {"undecided": "memory"}
    except RecursionError:
        return {"undecided": "too_complex"}


def _main(arguments: list[str]) -> None:
    identity, cpu_seconds, memory_mib = (int(text) for text in arguments)
    logging.disable(logging.CRITICAL)
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _same("\\frac{1}{2}+x", "x+\\frac{2}{4}")  # loads everything that is needed, before the doors close
    libraries = tuple(folder for folder in sys.path if folder.endswith("-packages"))
    try:
        layers = jail.enter(
            identity=identity, cpu_seconds=cpu_seconds, memory_mib=memory_mib, threads=1, readable=libraries
        )
    except jail.JailError as error:
        answers.write(json.dumps({"refused": str(error)}).encode() + b"\n")
        os._exit(3)
    answers.write(json.dumps({"layers": layers}).encode() + b"\n")
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(line)).encode() + b"\n")


_main(sys.argv[1:])
