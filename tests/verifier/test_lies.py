"""Answers that are right or wrong by construction, for every form of answer, through the whole grader."""

from collections import Counter

from benchmarks.attack_verifier import grade_all, judge
from benchmarks.lies.generate import FORMS, generate
from prime.adapters.telemetry import Meters
from services.verifier.main import open_verifier
from services.verifier.sandbox.zygotes import Tier
from services.verifier.settings import VerifierSettings

_PAIRS = 1500
_SEED = 20240229


async def test_no_lie_is_accepted_and_no_rewriting_is_rejected() -> None:
    pairs = list(generate(_PAIRS, _SEED))
    async with open_verifier(VerifierSettings(workers=2, min_tier=Tier.B, cache_entries=0), Meters()) as parts:
        report = judge(pairs, await grade_all(parts.grader, pairs))
    assert not report.false_verdicts, "\n".join(report.false_verdicts)


def test_the_same_seed_makes_the_same_pairs_and_another_seed_makes_others() -> None:
    pairs = list(generate(200, 1))
    assert pairs == list(generate(200, 1))
    assert pairs != list(generate(200, 2))


def test_every_form_has_lies_and_rewritings_of_several_kinds() -> None:
    kinds = Counter(
        (pair.form, pair.expected)
        for pair in {(pair.form, pair.expected, pair.kind): pair for pair in generate(20_000, 3)}.values()
    )
    assert all(kinds[form, True] >= 2 for form in FORMS)
    assert all(kinds[form, False] >= 5 for form in FORMS)
