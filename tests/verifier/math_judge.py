"""Compares answers the whole way, in this process: what a worker would settle is settled here."""

import json

from services.verifier.algebra.symbolic import settle
from services.verifier.mathematics.compare import Symbolic, compare_answer
from services.verifier.mathematics.question import to_json


def judge(response: str, gold: str, options: frozenset[str] = frozenset()) -> bool | None:
    """True, False, or None for undecided; over the same JSON as between the service and a worker."""
    found = compare_answer(response, gold, options)
    if isinstance(found, Symbolic):
        return settle(json.loads(json.dumps(to_json(found.question))))
    return found.equal


def judge_answer(answer: str, gold: str, options: frozenset[str] = frozenset()) -> bool | None:
    """The same for an answer that is put in a box."""
    return judge(f"So the answer is $\\boxed{{{answer}}}$.", gold, options)
