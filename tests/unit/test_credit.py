"""From token rewards to credit: trust that follows what the PRM has shown, and a record that a checkpoint keeps."""

from typing import Any

import pytest
import torch

from prime.data.chain import build_tokenizer
from prime.types import FinishReason, GradedGroup, RolloutGroup, Sample, TokenRewards, VersionSpan
from services.trainer.credit import CreditAssigner
from services.trainer.settings import AdvantageSettings, TrainerSettings
from services.trainer.track_record import TrackRecord

TOKENIZER = build_tokenizer()
PROMPT = "3+5+8="
RIGHT, WRONG = "3+5=8;8+8=6#6", "3+5=9;9+8=7#7"


def _ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def _sample(text: str) -> Sample:
    ids = _ids(text)
    spans = (VersionSpan(version=0, length=len(ids)),)
    return Sample(response_ids=ids, logprobs=(-0.1,) * len(ids), spans=spans, finish_reason=FinishReason.STOP)


GROUPS = [
    GradedGroup(
        group=RolloutGroup(
            group_id=str(number),
            problem_id=str(number),
            attempt=0,
            prompt_ids=_ids(PROMPT),
            samples=(_sample(RIGHT), _sample(WRONG)),
        ),
        outcomes=(1.0, 0.0),
    )
    for number in range(2)
]


def _rewards(right: float, wrong: float) -> TokenRewards:
    """The step with the error, tokens 0 to 5 of the wrong response, has `wrong`; every other token `right`."""
    good = (right,) * len(_ids(RIGHT))
    bad = (wrong,) * 6 + (right,) * (len(_ids(WRONG)) - 6)
    return TokenRewards(rows=(good, bad) * 2, prm_version=0, beta=0.05, reference_id="r")


def _assigner(record: TrackRecord | None = None, **settings: Any) -> CreditAssigner:
    return CreditAssigner(AdvantageSettings(**settings), tokenizer=TOKENIZER, longest=100, record=record)


def test_a_prm_at_chance_has_no_weight_and_one_that_is_right_has_all() -> None:
    plain, _ = _assigner(process_coef=0.0).assign(GROUPS, None)
    untrusted, figures = _assigner(trust={"enabled": True}).assign(GROUPS, _rewards(0.1, 0.1))
    assert figures["reward/trust"] == 0.0
    torch.testing.assert_close(torch.cat(untrusted), torch.cat(plain))
    ours, figures = _assigner(trust={"enabled": True}).assign(GROUPS, _rewards(0.1, -0.1))
    whole, _ = _assigner().assign(GROUPS, _rewards(0.1, -0.1))
    assert figures["reward/trust"] == 1.0
    torch.testing.assert_close(torch.cat(ours), torch.cat(whole))


def test_trust_keeps_within_floor_and_ceiling() -> None:
    bounds = {"enabled": True, "floor": 0.2, "ceiling": 0.6}
    assert _assigner(trust=bounds).assign(GROUPS, _rewards(-0.1, 0.1))[1]["reward/trust"] == 0.2
    assert _assigner(trust=bounds).assign(GROUPS, _rewards(0.1, -0.1))[1]["reward/trust"] == 0.6


def test_trust_remembers_and_forgets() -> None:
    """Two pairs in order, then two out of order with memory 0.5: (0.5 * 2 + 0) of (0.5 * 2 + 2)."""
    assigner = _assigner(trust={"enabled": True, "memory": 0.5, "full_at": 1.0})
    assigner.assign(GROUPS, _rewards(0.1, -0.1))
    assigner.assign(GROUPS, _rewards(-0.1, 0.1))
    assert assigner.record.pair_accuracy == pytest.approx(1 / 3)


def test_credit_goes_on_from_its_record() -> None:
    settings: dict[str, Any] = {"reward_norm": "running", "trust": {"enabled": True, "full_at": 1.0}}
    whole = _assigner(**settings)
    whole.assign(GROUPS, _rewards(0.3, -0.2))
    resumed = _assigner(whole.record, **settings)
    ours, figures = whole.assign(GROUPS, _rewards(0.1, 0.1))
    theirs, again = resumed.assign(GROUPS, _rewards(0.1, 0.1))
    assert torch.equal(torch.cat(ours), torch.cat(theirs))
    assert figures == again


def test_a_running_scale_is_set_by_the_first_rewards_and_not_by_none() -> None:
    assigner = _assigner(reward_norm="running")
    assigner.assign(GROUPS, _rewards(0.0, 0.0))
    assert assigner.record.scale == 0.0
    assigner.assign(GROUPS, _rewards(0.1, 0.1))
    first = assigner.record.scale
    assigner.assign(GROUPS, _rewards(0.2, 0.2))
    assert assigner.record.scale == pytest.approx(0.8 * first + 0.2 * 2 * first)


def test_rewards_that_find_the_error_are_told_from_rewards_that_do_not() -> None:
    """Six tokens blamed of the first wrong step against all right ones."""
    _, found = _assigner().assign(GROUPS, _rewards(0.1, -0.1))
    _, blind = _assigner().assign(GROUPS, _rewards(0.1, 0.1))
    assert found["reward/step_auc"] == 1.0
    assert found["reward/step_auc_over_shuffled"] >= 0.0
    assert blind["reward/step_auc_over_shuffled"] == 0.0


def test_process_advantages_can_be_kept_to_wrong_responses() -> None:
    wrong, _ = _assigner(process_on="wrong", outcome_coef=0.0, whiten=False).assign(GROUPS, _rewards(0.1, -0.1))
    assert wrong[0].eq(0).all()
    assert wrong[1].ne(0).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"bound": "tanh", "bound_at": 0.05},
        {"step_worth": "difference"},
        {"credit": "min", "granularity": "step", "step_delimiter": ";"},
        {"combine": "apart", "whiten": False},
        {"shared_prefix_correction": True},
        {"estimator": "spro", "reward_norm": "none"},
        {"reward_norm": "running"},
        {"process_on": "right"},
    ],
)
def test_each_part_changes_the_advantages_and_keeps_them_finite(changes: dict[str, Any]) -> None:
    rewards = _rewards(0.1, -0.3)
    plain, changed = _assigner().assign(GROUPS, rewards)[0], _assigner(**changes).assign(GROUPS, rewards)[0]
    assert torch.isfinite(torch.cat(changed)).all()
    assert not torch.allclose(torch.cat(changed), torch.cat(plain))


def test_settings_that_contradict_each_other_are_refused() -> None:
    base: dict[str, Any] = {"problems": "p.jsonl", "steps": 3}
    with pytest.raises(ValueError, match="take 'after'"):
        TrainerSettings(**base, prm_update="before", advantage={"trust": {"enabled": True}})
    with pytest.raises(ValueError, match="prm_warmup_steps needs a PRM"):
        TrainerSettings(**base, prm_warmup_steps=2, advantage={"source": "policy"})
    with pytest.raises(ValueError, match="is above ceiling"):
        AdvantageSettings(trust={"floor": 0.9, "ceiling": 0.5})
