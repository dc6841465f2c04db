"""Answers questions of algebra inside a mathematics worker: loaded by the zygote, run in its confined children.

A question is one line of JSON (`question.to_json`): in `{"question": [...]}`, out `{"equal": true}`. A worker keeps no
clock: whoever asks kills it at the deadline. The other end is `process.py`.
"""

import importlib.util
import json
import logging
import os
import sys
from typing import NoReturn

from services.verifier.algebra import symbolic
from services.verifier.sandbox.isolation.kernel import JailError

# Loads everything that is needed before the doors close, and teaches the parser's tables the usual forms: the first
# text of a kind takes it ten times as long as the next.
_FIRST_QUESTIONS = (
    ("same", "\\frac{1}{2}+x", "x+\\frac{2}{4}"),
    ("same", "\\frac{\\sqrt{6}+\\sqrt{2}}{4}", "\\frac{\\sqrt{2}(1+\\sqrt{3})}{4}"),
    ("same", "e^{i\\pi}+\\ln|x|-\\log_2{3}", "\\sin^2{x}+\\cos(2x)\\tan{x}"),
    ("same", "C_1e^{2x}+C_2e^{-x}", "Ae^{2x}+Be^{-x}"),
    ("same", "\\sqrt[3]{x^2+1}", "(x^2+1)^{\\frac{1}{3}}"),
    ("same", "\\frac{n(n+1)}{2}+\\binom{n}{2}", "n^2+n!"),
    ("same", "\\arctan(\\frac{x}{a_1})+\\lfloor x\\rfloor", "|x-1|\\cdot\\alpha\\beta"),
    ("same", "(x-1)(x+2)", "x^2+x-2"),
    ("same", "x^2+2x+1", "(x+1)^2"),
    ("same", "\\frac{2x^3}{3}+5", "\\frac{2x^3+15}{3}"),
    ("same", "\\sqrt[3]{x}-2^{n+1}", "x^{1/3}-2\\cdot2^n"),
    ("same", "y-\\frac{x}{2}", "-\\frac{1}{2}x+y"),
    ("same", "3+4i", "4i+3"),
    ("same", "2\\begin{pmatrix}1&x\\\\2&3\\end{pmatrix}", "\\begin{pmatrix}2&2x\\\\4&6\\end{pmatrix}"),
    ("same", "\\sum_{k=1}^{n}k", "\\int_0^1xdx"),
    ("same", "\\frac{\\pi}{3}", "1.047198"),
    ("up_to_constant", "\\frac{x^2}{2}", "\\frac{(x+1)^2}{2}"),
    ("up_to_factor", "2x+3y=6", "4x+6y=12"),
    ("up_to_factor", "x^2+y^2=25", "\\sin(x+y)=\\sin{x}\\cos{y}+\\cos{x}\\sin{y}"),
    ("up_to_constant", "\\ln(x-7)", "\\ln(-7+x)"),
    ("same", "\\sum_{n=0}^{\\infty}\\frac{x^n}{n!}", "\\sum_{k=0}^{\\infty}\\frac{x^k}{k!}"),
    ("same", "\\int_0^1f(x)dx", "\\int_0^1f(1-x)dx"),
    ("up_to_factor", "f(x+y)=f(x)+f(y)", "f(y+x)=f(y)+f(x)"),
    ("as_written", "\\{1,2\\}\\cup\\{3\\}", "\\{1,2,3\\}"),
    ("as_written", "x^2<4", "x<2"),
)


def load() -> None:
    """Load Math-Verify and warm it up, once, in the zygote.

    Raises:
        JailError: gmpy2 can be imported here.
    """
    if importlib.util.find_spec("gmpy2") is not None:
        # Its functions hold the interpreter for minutes, out of reach of every limit but a kill.
        raise JailError("gmpy2 can be imported here; uninstall it (pip uninstall gmpy2) where the verifier runs")
    logging.disable(logging.CRITICAL)
    for how, gold, answer in _FIRST_QUESTIONS:
        symbolic.settle([how, gold, answer, 6])


def serve() -> NoReturn:
    """Answer questions until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # What a library prints must not be taken for an answer.
    os.dup2(2, 1)
    answers.write(b'{"ready": true}\n')
    for line in os.fdopen(0, "rb"):
        answers.write(json.dumps(_answer(line)).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)


def _answer(line: bytes) -> dict[str, object]:
    try:
        equal = symbolic.settle(json.loads(line)["question"])
        return {"undecided": "not_comparable"} if equal is None else {"equal": equal}
    except MemoryError:
        return {"undecided": "memory"}
    except RecursionError:
        return {"undecided": "too_complex"}
    except Exception:  # noqa: BLE001 - sympy raises whatever it likes; nobody knows, then, and the worker lives on
        return {"undecided": "not_comparable"}
