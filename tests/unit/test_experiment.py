"""The trial's arithmetic, its arms, and the reward models that stand in for the PRM."""

import math
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.experiment.arms import ARMS, BY_NAME, Arm
from benchmarks.experiment.chains import answered_by_habit, chain
from benchmarks.experiment.families import Machine, family_of
from benchmarks.experiment.figures import (
    Curve,
    cost_to_reach,
    curve_of,
    difference_of,
    interquartile_mean,
    ratio_of,
)
from benchmarks.experiment.one_run import Job, settings_of
from benchmarks.experiment.outcome import Setting, outcome_of, tuned_settings
from benchmarks.experiment.parts import Judge, NearVerifier, Shuffled
from benchmarks.experiment.report import figures_of, read_results, write_report
from benchmarks.experiment.sweep import KEPT
from prime.data.chain import LETTERS, build_tokenizer, sft_texts, with_words
from prime.errors import SettingsError
from prime.types import GradeItem, PrmGroup, PrmInfo, PrmMetrics, TokenRewards, VerdictStatus


def _row(**figures: float) -> dict[str, float | None]:
    names = ("collect/graded", "collect/kept", "batch/response_tokens", "time/step_seconds", "eval/accuracy")
    return {name: figures.get(name.split("/")[1]) for name in names}


def test_a_curve_adds_up_what_a_run_cost_until_each_evaluation() -> None:
    rows = [
        _row(accuracy=0.3),
        _row(graded=4, kept=2, response_tokens=100, step_seconds=1.0),
        _row(graded=2, kept=2, response_tokens=50, step_seconds=2.0, accuracy=0.5),
    ]
    curve = curve_of(rows, samples_per_prompt=4, has_prm=True)
    assert curve.samples.tolist() == [0, 24]
    assert curve.seconds.tolist() == [0, 3]
    # 200 + 50 sampled tokens at 2, 150 learnt ones at 6 and 10.
    assert curve.flops.tolist() == [0, 2 * 250 + 16 * 150]
    assert curve.accuracy.tolist() == [0.3, 0.5]


def test_a_threshold_is_reached_between_two_evaluations_or_never() -> None:
    cost, accuracy = np.array([0.0, 100.0, 200.0]), np.array([0.3, 0.5, 0.4])
    assert cost_to_reach(cost, accuracy, 0.4) == pytest.approx(50.0)
    assert cost_to_reach(cost, accuracy, 0.2) == 0.0
    assert cost_to_reach(cost, accuracy, 0.6) == math.inf


def test_a_curve_is_smoothed_over_the_evaluations_before() -> None:
    accuracy = np.array([0.0, 0.3, 0.6, 0.9])
    curve = Curve(samples=accuracy, flops=accuracy, seconds=accuracy, accuracy=accuracy)
    assert curve.smooth.tolist() == pytest.approx([0.0, 0.15, 0.3, 0.6])
    assert curve.final == pytest.approx(0.6)


def test_the_interquartile_mean_leaves_out_both_ends() -> None:
    assert interquartile_mean(np.array([1.0, 2.0, 3.0, 100.0])) == pytest.approx(2.5)
    # Of five values the middle half is 2.5 long: all of the third, and three quarters of its neighbours.
    assert interquartile_mean(np.array([5.0, 1.0, 2.0, 3.0, 9.0])) == pytest.approx((0.75 * 2 + 3 + 0.75 * 5) / 2.5)


def test_a_ratio_says_how_many_times_fewer() -> None:
    same = ratio_of(np.full(10, 400.0), np.full(10, 100.0))
    assert (same.value, same.low, same.high) == pytest.approx((4.0, 4.0, 4.0))


def test_intervals_hold_the_value_and_shrink_with_seeds() -> None:
    draws = np.random.default_rng(3)
    widths = []
    for seeds in (8, 64):
        baseline, arm = np.exp(draws.normal(6.0, 0.3, seeds)), np.exp(draws.normal(5.5, 0.3, seeds))
        found = ratio_of(baseline, arm)
        assert found.low < found.value < found.high
        widths.append(math.log(found.high / found.low))
    assert widths[1] < widths[0] / 2
    gain = difference_of(np.array([0.5, 0.6]), np.array([0.7, 0.8]))
    assert gain.value == pytest.approx(0.2)
    assert gain.low <= gain.value <= gain.high


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_every_arm_is_a_valid_setting(arm: Arm) -> None:
    job = Job(
        family="chain-4", arm=arm.name, seed=1, lr=1e-4, prm_lr=1e-3 if arm.has_prm else 0.0, steps=3, evaluate_every=3
    )
    trainer, prm = settings_of(job, chain(4), arm, Path("material"))
    assert trainer.advantage.asks_a_prm == (arm.has_prm or arm.rewards == "judged")
    assert trainer.optimiser.lr == 1e-4
    assert prm.lr == job.prm_lr
    assert trainer.advantage.step_delimiter == ";"
    assert trainer.max_lag == 0


def _run(arm: str, seed: int, *, lr: float, prm_lr: float, accuracies: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of a run of two steps per evaluation, 16 groups sampled and kept in each."""
    rows = []
    for step in range(2 * len(accuracies) - 1):
        row: dict[str, Any] = dict.fromkeys(KEPT)
        row |= {"family": "chain-16", "arm": arm, "seed": seed, "lr": lr, "prm_lr": prm_lr, "steps": 6, "step": step}
        if step:
            row |= {"collect/graded": 16, "collect/kept": 16, "batch/response_tokens": 100, "time/step_seconds": 1.0}
        if step % 2 == 0:
            row["eval/accuracy"] = accuracies[step // 2]
        if arm == "prime" and step:
            row["reward/step_auc"] = 0.75
        rows.append(row)
    return rows


SLOW, FAST = (0.0, 0.3, 0.6, 0.9), (0.0, 0.6, 1.2, 1.8)
"""The slow one is at 0.6 by its last three when it ends, the fast one after two thirds."""


def _results() -> list[dict[str, Any]]:
    rows = []
    for seed in (1, 2):
        rows += _run("rloo", seed, lr=1e-3, prm_lr=0.0, accuracies=SLOW)
        rows += _run("rloo", seed, lr=1e-2, prm_lr=0.0, accuracies=(0.0, 0.1, 0.1, 0.1))
        rows += _run("prime", seed, lr=1e-3, prm_lr=1e-4, accuracies=FAST)
    for seed in range(101, 104):
        rows += _run("rloo", seed, lr=1e-3, prm_lr=0.0, accuracies=SLOW)
        rows += _run("prime", seed, lr=1e-3, prm_lr=1e-4, accuracies=FAST)
        rows += _run("placebo", seed, lr=1e-3, prm_lr=1e-4, accuracies=SLOW)
    return rows


def test_the_outcome_follows_the_protocol() -> None:
    found = outcome_of("chain-16", _results())
    # Nobody gets to 0.8, so the baseline's final accuracy on tuning seeds is the threshold.
    assert found.threshold == pytest.approx(0.6)
    assert found.thresholds == pytest.approx((0.6, 0.8, 0.9))
    assert found.seeds == 3
    # The placebo was never tuned, so it has no setting to report.
    assert list(found.arms) == ["rloo", "prime"]
    assert found.arms["rloo"].setting.lr == 1e-3
    prime = found.arms["prime"]
    # The mean of the last three evaluations is 0.6 after four steps of 64 samples, and 0.6 after six of the baseline's.
    assert prime.samples.value == pytest.approx(6 / 4)
    assert prime.reached[found.threshold] == 3
    assert prime.gain.value == pytest.approx(1.0)
    # A step of the baseline costs 800 operations per parameter, and one with a PRM 1,800.
    assert prime.flops.value == pytest.approx(6 / 4 * 800 / 1800)
    assert prime.diagnostics == {"reward/step_auc": 0.75}


def test_the_report_is_the_same_to_the_byte_and_needs_no_more_than_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    pq.write_table(pa.Table.from_pylist(_results()), tmp_path / "results" / "chain-16.parquet")
    outcomes = read_results(tmp_path / "results")
    written = []
    for name in ("once", "again"):
        write_report(outcomes, tmp_path / name)
        written.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"tables.md", "chain-16.curves.svg", "chain-16.ratios.svg", "steps.svg"}
    figures = figures_of(outcomes)
    assert figures["best_arm"] == "prime"
    assert figures["step_ratio"] == 1.5
    assert figures["placebo_ratio"] is None


def test_offline_prms_are_reported_at_the_rate_that_tuning_seeds_chose(tmp_path: Path) -> None:
    def row(seed: int, lr: float, best: float) -> dict[str, Any]:
        others = dict.fromkeys(("pair_accuracy", "one", "any_of_4", "auc_own", "auc_value", "auc_difference"), 0.5)
        return {"family": "chain-16", "loss": "ce", "lr": lr, "seed": seed, "best_of_4": best, **others}

    rows = [row(1, 1e-4, 0.6), row(1, 1e-3, 0.5), row(101, 1e-4, 0.7), row(102, 1e-4, 0.8), row(101, 1e-3, 0.9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chain-16.parquet")
    write_report([outcome_of("chain-16", _results())], tmp_path, offline=[tmp_path / "chain-16.parquet"])
    written = (tmp_path / "tables.md").read_text()
    assert "| `ce` | 0.0001 | 2 | 0.500 | 0.500 | 0.750 | 0.500 | 0.500 | 0.500 | 0.500 |" in written


def test_an_arms_rates_are_those_of_its_best_tuning_runs() -> None:
    rows = _results()
    # Better, but of a seed that is reported.
    rows += _run("rloo", 104, lr=1e-2, prm_lr=0.0, accuracies=FAST)
    assert tuned_settings(rows) == {"rloo": Setting("rloo", 1e-3, 0.0), "prime": Setting("prime", 1e-3, 1e-4)}


def test_reporting_runs_of_what_was_not_tuned_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    pq.write_table(
        pa.Table.from_pylist(_run("rloo", 1, lr=1e-3, prm_lr=0.0, accuracies=SLOW)), tmp_path / "runs" / "a.parquet"
    )
    command = [sys.executable, "-m", "benchmarks.experiment", "run", "--tuned", "--steps", "6", "--seeds", "101"]
    ran = subprocess.run(
        [*command, "--family", "chain-16", "--arms", "rloo", "prime", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "no runs of chain-16 with a tuning seed for prime" in ran.stderr


def test_results_without_the_baseline_are_refused() -> None:
    with pytest.raises(ValueError, match="rloo"):
        outcome_of("chain-16", _run("prime", 1, lr=1e-3, prm_lr=1e-4, accuracies=FAST))


def test_a_step_of_an_episode_is_a_turn() -> None:
    family = family_of("sokoban", Machine())
    job = Job(family="sokoban", arm="prime-step", seed=1, lr=1e-4, prm_lr=1e-3, steps=3, evaluate_every=3)
    trainer, _ = settings_of(job, family, BY_NAME["prime-step"], Path("material"))
    assert trainer.advantage.granularity == "turn"
    assert BY_NAME["prime-step"].advantage["granularity"] == "step"


def test_families_are_found_by_name_and_others_are_refused() -> None:
    machine = Machine()
    assert family_of("chain-8", machine).name == "chain-8"
    assert family_of("control-16", machine).max_context == family_of("chain-16", machine).max_context
    for wrong, said in (("chain-0", "chain-N"), ("chain", "chain-N"), ("sudoku", "no family"), ("school", "--model")):
        with pytest.raises(SettingsError, match=said):
            family_of(wrong, machine)


def test_arms_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(ARMS)


class FixedRewards:
    """A reward model that always says the same."""

    def __init__(self, rows: tuple[tuple[float, ...], ...]) -> None:
        self._rows = rows

    async def score(self, groups: Any) -> TokenRewards:
        return TokenRewards(rows=self._rows, prm_version=3, beta=0.05, reference_id="fixed")

    async def learn(self, step: int, groups: Any, outcomes: Any) -> PrmMetrics:
        raise NotImplementedError

    async def save(self, step: int) -> str:
        return "saved"

    async def restore(self, step: int) -> int:
        return 3

    async def info(self) -> PrmInfo:
        raise NotImplementedError


async def test_the_placebo_keeps_a_response_and_its_sum_and_moves_its_rewards() -> None:
    rows = (tuple(map(float, range(1, 30))), (7.0, 8.0, 9.0))
    group = PrmGroup(group_id="0.0-a", prompt_ids=(2,), responses=(tuple(range(29)), (1, 2, 3)))
    shuffled = Shuffled(FixedRewards(rows), seed=1)
    once, twice = await shuffled.score([group]), await shuffled.score([group])
    assert once.rows == twice.rows
    assert once.rows[0] != rows[0]
    assert [sorted(row) for row in once.rows] == [sorted(row) for row in rows]
    assert once.prm_version == 3


async def test_the_oracle_says_what_each_step_changes_in_the_chance_of_a_right_answer() -> None:
    """Two of three judged steps are right, so the chance is 4/9 before both, 2/3 before the second, then 1."""
    tokenizer = build_tokenizer()
    prompt, right, wrong = (
        tuple(tokenizer(text)["input_ids"]) for text in ("3+5+8=", "3+5=8;8+8=6#6", "3+5=9;9+8=7#7")
    )
    group = PrmGroup(group_id="0.0-a", prompt_ids=prompt, responses=(right, wrong))
    rewards = await Judge(tokenizer, "fingerprint").score([group])
    assert rewards.rows[0] == pytest.approx((2 / 9,) * 6 + (1 / 3,) * 5 + (0.0,) * 2)
    assert rewards.rows[1] == pytest.approx((0.0,) * 4 + (-4 / 9,) + (0.0,) * 8)


async def test_letters_between_steps_have_no_reward_of_the_oracle() -> None:
    tokenizer = build_tokenizer(letters=LETTERS)
    prompt, right, wrong = (
        tuple(tokenizer(text)["input_ids"]) for text in ("3+5+8=", "3+5=8;ab8+8=6#6", "3+5=8;ab8+8=7#7")
    )
    rewards = await Judge(tokenizer, "f").score([PrmGroup(group_id="0", prompt_ids=prompt, responses=(right, wrong))])
    # Three of four judged steps are right.
    assert rewards.rows[0] == pytest.approx((3 / 16,) * 6 + (0.0,) * 2 + (1 / 4,) * 5 + (0.0,) * 2)
    assert rewards.rows[1] == pytest.approx((3 / 16,) * 6 + (0.0,) * 6 + (-3 / 4,) + (0.0,) * 2)


def test_words_follow_every_step_but_the_last() -> None:
    prompt, answer = next(with_words(iter([("3+5+8=", "3+5=8;8+8=6#6")]), length=3, seed=0))
    assert prompt == "3+5+8="
    assert re.fullmatch(r"3\+5=8;[a-h]{3}8\+8=6#6", answer)


def test_a_policy_of_habits_is_wrong_in_some_situations_only_and_always_in_the_same_way() -> None:
    drawn = list(islice(answered_by_habit(sft_texts(length=9, seed=1, wrong_share=0.0), steps=8), 4000))
    results: dict[tuple[int, int, int], Counter[int]] = defaultdict(Counter)
    right = 0
    for prompt, answer in drawn:
        digits = [int(digit) for digit in prompt[:-1].split("+")]
        steps, _, last = answer.partition("#")
        right += int(last) == sum(digits) % 10
        for before, step in zip(digits[:-1], steps.split(";"), strict=True):
            total, digit, result = (int(step[place]) for place in (0, 2, 4))
            results[before, total, digit][result] += 1
    assert right / len(drawn) == pytest.approx(0.3, abs=0.05)
    seen = {situation: found for situation, found in results.items() if found.total() >= 20}
    assert all(len(found) <= 2 for found in seen.values())
    bad = [found for (_, total, digit), found in seen.items() if set(found) != {(total + digit) % 10}]
    assert len(bad) / len(seen) == pytest.approx(0.28, abs=0.06)


async def test_the_trial_is_graded_by_the_verifiers_own_grader() -> None:
    items = [
        GradeItem(item_id="a", data_source="chain", ability="math", response="3+5=8#8", ground_truth="8"),
        GradeItem(item_id="b", data_source="school", ability="math", response="\\boxed{7}", ground_truth="8"),
        GradeItem(item_id="c", data_source="", ability="code", response="print(1)", ground_truth="{}"),
    ]
    statuses = [verdict.status for verdict in await NearVerifier().grade(items)]
    assert statuses[:2] == [VerdictStatus.PASSED, VerdictStatus.FAILED]
    assert statuses[2] not in (VerdictStatus.PASSED, VerdictStatus.FAILED)
