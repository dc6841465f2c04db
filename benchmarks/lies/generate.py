"""Makes pairs of gold and response from a seed."""

from collections.abc import Iterator
from random import Random

from benchmarks.lies import (
    equations,
    expressions,
    numbers,
    quantities,
    regions,
    roots,
    several,
    systems,
    unusual_numbers,
    words,
)
from benchmarks.lies.generic import any_lies, dress, respond
from benchmarks.lies.problem import FORMS, LiePair, Problem, listed

__all__ = ["FORMS", "generate"]

_MAKERS = (equations, expressions, numbers, quantities, regions, roots, several, systems, unusual_numbers, words)
"""Imported so that their forms are registered."""
_RIGHT_SHARE = 0.4
_GENERIC_SHARE = 0.25


def generate(count: int, seed: int, only: str | None = None) -> Iterator[LiePair]:
    """So many pairs, the forms in turn; the same ones for the same seed.

    Raises:
        KeyError: no form has the name `only`.
    """
    source = Random(seed)
    names = [only] if only else list(FORMS)
    for place in range(count):
        name = names[place % len(names)]
        yield _pair(name, FORMS[name](source), source)


def _pair(name: str, problem: Problem, source: Random) -> LiePair:
    expected = source.random() < _RIGHT_SHARE
    boxed = dict(listed(problem.right if expected else problem.wrong))
    whole = dict(listed(problem.whole_right if expected else problem.whole_wrong))
    if not expected and (source.random() < _GENERIC_SHARE or not (boxed or whole)):
        boxed, whole = any_lies(problem, source), {}
    elif expected and problem.right:
        boxed.setdefault("as it is", problem.gold)
    kind = source.choice([*boxed, *whole])
    if kind in boxed:
        answer, clothes = dress(boxed[kind], source, problem.is_textual)
        response = respond(answer, source)
        kind = f"{kind} [{clothes}]" if clothes else kind
    else:
        response = whole[kind]
    return LiePair(form=name, kind=kind, gold=problem.gold, response=response, expected=expected)
