"""The policy of mathematics, row by row, in both directions, on pairs without doubt."""

from collections.abc import Sequence

import pytest

from prime.errors import InvalidInput
from services.verifier.mathematics.compare import compare_answer
from tests.verifier.math_judge import judge
from tests.verifier.math_pairs import PAIRS, ROWS
from tests.verifier.pair import Pair

LEAST_RIGHT = 0.98


def wrongly_judged(pairs: list[Pair]) -> list[tuple[Pair, bool | None]]:
    verdicts = [(pair, judge(pair.response, pair.gold, pair.options)) for pair in pairs]
    return [(pair, verdict) for pair, verdict in verdicts if verdict is not pair.equal]


def told(wrong: Sequence[tuple[Pair, bool | None]]) -> str:
    return "\n".join(f"{pair.answer!r} against {pair.gold!r}: {verdict}, not {pair.equal}" for pair, verdict in wrong)


@pytest.mark.parametrize("row", ROWS)
def test_every_pair_of_a_row_is_judged_as_the_policy_says(row: str) -> None:
    wrong = wrongly_judged([pair for pair in PAIRS if pair.row == row])
    assert not wrong, told(wrong)


def test_of_all_pairs_nearly_all_are_judged_rightly_and_none_is_accepted_falsely() -> None:
    wrong = wrongly_judged(PAIRS)
    falsely_accepted = [(pair, verdict) for pair, verdict in wrong if verdict is True]
    assert not falsely_accepted, told(falsely_accepted)
    assert len(PAIRS) - len(wrong) >= LEAST_RIGHT * len(PAIRS), told(wrong)


def test_the_pairs_are_many_differ_and_show_both_directions_of_every_row() -> None:
    assert len(PAIRS) >= 320
    assert len({(pair.answer, pair.gold, pair.options) for pair in PAIRS}) == len(PAIRS)
    for row in ROWS:
        assert {pair.equal for pair in PAIRS if pair.row == row} == {True, False}, row


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown mathematics options 'loosely'"):
        compare_answer("\\boxed{5}", "5", frozenset({"loosely"}))
