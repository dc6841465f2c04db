"""The rules for sets of numbers and inequalities, however they are written. Pure; used by `policy.py`."""

import re

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.listings import compare_sets
from services.verifier.mathematics.names import read_assignment
from services.verifier.mathematics.question import How, Leaf, Result, conjunction, matching
from services.verifier.mathematics.rationals import read_number
from services.verifier.mathematics.regions import Piece, Region, read_combination, read_region
from services.verifier.mathematics.rules import Rules, settled

_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|notin|cup|cap|subset|subseteq|setminus|backslash|mathbb|R)(?![a-zA-Z])")
_ORDER = re.compile(r"<|>|\\(?:le|ge)(?![a-zA-Z])")
_CONNECTIVES = re.compile(r"\b(?:or|and)\b")
_DIRECTED = re.compile(r"\\(?:ne|in|notin|subseteq|subset|supseteq|supset)(?![a-zA-Z])")
_OR = re.compile(r"\bor\b")
_INFINITIES = frozenset(["\\infty", "+\\infty", "-\\infty"])


def compare_relations(answer: str, gold: str, rules: Rules) -> Result | None:
    """Regions by their ends, unions by their operands, inequalities up to a positive factor."""
    if not (_is_relation(answer) or _is_relation(gold)):
        return None
    left, right = read_region(answer), read_region(gold)
    if right is not None and "\\ne" in gold and not right.has_constant_ends:
        left = right = None  # `a\\ne b` compares two letters
    if left is not None and right is not None:
        return _compare_regions(left, right, rules)
    if (right is not None and "\\ne" in gold) or _are_joined_differently(answer, gold):
        return False
    combined = _compare_combinations(answer, gold, rules)
    if combined is not None:
        return combined
    are_several = "," in answer or " or " in answer
    if right is not None and _RELATION.search(gold) and right.has_constant_ends:
        # The gold is solved; the answer is not, so it may be no more than the question.
        return None if are_several else False
    if read_number(answer) is not None or read_number(gold) is not None:
        return False
    if are_several or "," in gold or " or " in gold:
        return None
    return _compare_inequalities(answer, gold, rules)


def _is_relation(text: str) -> bool:
    """Whether the text is an inequality or a set, and not only what it names has such a sign: `P(A\\cup B)=1`."""
    if not _RELATION.search(text):
        return False
    named = read_assignment(text)
    return named is None or (_RELATION.search(named.value) is not None and ":" not in text)


def _are_joined_differently(answer: str, gold: str) -> bool:
    """`x>1 and x<2` against `x>1 or x<2`; a comma between conditions on several letters means `and`."""
    if not _ORDER.search(answer):
        return False
    if len({*_CONNECTIVES.findall(answer), *_CONNECTIVES.findall(gold)}) > 1:
        return True
    return _ORDER.search(gold) is not None and bool(_OR.search(answer)) != bool(_OR.search(gold))


def _compare_inequalities(answer: str, gold: str, rules: Rules) -> Result:
    first, second = _as_equation(answer), _as_equation(gold)
    if (first is None) != (second is None):
        return False  # an inequality and something else
    directed = _compare_directed(answer, gold, rules)
    if directed is not None:
        return directed
    if first is None or second is None:
        return Leaf(gold=gold, answer=answer, how=How.AS_WRITTEN)
    if math_options.GOLD_RESTATES_QUESTION in rules.options or first[1] != second[1]:
        return False
    return rules.leaf(first[0], second[0], How.UP_TO_POSITIVE_FACTOR)


def _compare_directed(answer: str, gold: str, rules: Rules) -> Result | None:
    """`A\\in B`, `A\\subset B`, `a\\ne b`: the same sign between the same sides, in their order but for the last."""
    signs = [_DIRECTED.search(text) for text in (answer, gold)]
    if not any(signs):
        return None
    if not all(signs) or len({sign.group() for sign in signs if sign}) > 1:
        return False
    sides = [[side.strip() for side in _DIRECTED.split(text)] for text in (answer, gold)]
    if [len(side) for side in sides] != [2, 2] or not all(map(all, sides)):
        return False
    if any(sign.group() == "\\ne" for sign in signs if sign):
        return rules.leaf("=".join(sides[0]), "=".join(sides[1]), How.UP_TO_FACTOR)
    return rules.pairwise(zip(*sides, strict=True))


def _as_equation(text: str) -> tuple[str, str] | None:
    """The greater side of one inequality, an equals sign and the smaller one; and whether it is strict."""
    signs, parts = _ORDER.findall(text), _ORDER.split(text)
    if len(signs) != 1 or not all(parts):
        return None
    small, great = parts if signs[0] in ("<", "\\le") else reversed(parts)
    return f"{great}={small}", "strict" if signs[0] in "<>" else "weak"


def _compare_combinations(answer: str, gold: str, rules: Rules) -> Result | None:
    left, right = read_combination(answer), read_combination(gold)
    if right is None:
        return None
    if left and left.operator == right.operator and len(left.operands) == len(right.operands):
        same = compare_sets(left.operands, right.operands, rules)
        if same is not False:
            return same
    return False if right.has_names else None


def _compare_regions(answer: Region, gold: Region, rules: Rules) -> Result:
    if answer.name and gold.name and answer.name != gold.name:
        return False
    if math_options.GOLD_RESTATES_QUESTION in rules.options and answer.as_inequality != gold.as_inequality:
        return False
    if len(answer.pieces) != len(gold.pieces):
        return False
    return settled(matching([[_compare_pieces(a, g, rules) for g in gold.pieces] for a in answer.pieces]))


def _compare_pieces(answer: Piece, gold: Piece, rules: Rules) -> Result:
    if (answer.low_closed, answer.high_closed) != (gold.low_closed, gold.high_closed):
        return False
    ends = ((answer.low, gold.low), (answer.high, gold.high))
    return conjunction(_compare_ends(first, second, rules) for first, second in ends)


def _compare_ends(answer: str, gold: str, rules: Rules) -> Result:
    if (answer in _INFINITIES) != (gold in _INFINITIES):
        return False
    return rules.items(answer, gold)
