"""The golds of public sets: each accepts itself however it is written, and none of the others."""

from pathlib import Path

import pytest

from benchmarks.attack_verifier import grade_all, judge
from benchmarks.lies.problem import LiePair
from benchmarks.lies.real_golds import REWRITINGS, find_folder, lies, read_golds, right_pairs, wrong_pairs
from prime.adapters.telemetry import Meters
from services.verifier.main import open_verifier
from services.verifier.sandbox.zygotes import Tier
from services.verifier.settings import VerifierSettings

_OTHERS = 100
_SEED = 17
FOLDER = find_folder()

pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason="no folder shared/data/eval beside the repository"),
    # Sixty thousand answers, nine thousand of them for the algebra system.
    pytest.mark.timeout(600),
]


async def wrongly_judged(pairs: list[LiePair]) -> list[str]:
    async with open_verifier(VerifierSettings(workers=2, min_tier=Tier.B, cache_entries=0), Meters()) as parts:
        return judge(pairs, await grade_all(parts.grader, pairs)).false_verdicts


def golds() -> list[str]:
    assert isinstance(FOLDER, Path)
    return read_golds(FOLDER)


async def test_every_gold_accepts_itself_and_its_rewritings() -> None:
    pairs = list(right_pairs(golds()))
    assert len(pairs) > 3000
    assert len(REWRITINGS) >= 6
    assert not await wrongly_judged(pairs)


async def test_every_gold_rejects_hedges_and_other_lies_about_it() -> None:
    assert not await wrongly_judged(list(lies(golds())))


async def test_every_gold_rejects_a_hundred_others() -> None:
    found = golds()
    pairs = list(wrong_pairs(found, _OTHERS, _SEED))
    assert len(pairs) == _OTHERS * len(found)
    assert not await wrongly_judged(pairs)
