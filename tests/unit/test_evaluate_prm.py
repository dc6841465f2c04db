"""The evaluations give the numbers that one works out by hand."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.best_of_n_table import score_prompts, tabulate
from jobs.candidates import CandidateRow, read_candidates
from jobs.process_bench import Located, locate, measure, predict, read_problems, tune
from jobs.score import score_rows
from prime.errors import DataError
from prime.maths.selection import best_of, pass_at
from prime.scoring import (
    Activation,
    Aggregation,
    CandidateScore,
    PrmConfig,
    ScorerInfo,
    ScoringReply,
    ScoringRequest,
    ScoringSeconds,
    ScoringUsage,
    StepScore,
    StepSpan,
    StepValue,
    Truncation,
)
from prime.types import AnswerClasses, ReferenceSource


class NumbersScorer:
    """A step's reward is the number that it ends with; without a reference everything is worth 0."""

    async def score(self, request: ScoringRequest) -> ScoringReply:
        bare = request.reference is ReferenceSource.NONE
        candidates = [self._score(each.steps or (each.text or "").split("\n\n"), bare) for each in request.candidates]
        return ScoringReply(
            candidates=tuple(candidates),
            aggregation=Aggregation.SUM,
            step_value=StepValue.DELTA,
            activation=Activation.NONE,
            beta=0.05,
            reference=ReferenceSource.MODEL,
            reference_id="r",
            prm_version=0,
            usage=ScoringUsage(prompt_tokens=1, response_tokens=2, reference_cached_tokens=0),
            seconds=ScoringSeconds(tokenize=0, queue=0, inference=0),
        )

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        return [await self.score(request) for request in requests]

    def _score(self, steps: Sequence[str], bare: bool) -> CandidateScore:
        rewards = [0.0 if bare else float(step.split()[-1]) for step in steps]
        totals = list(itertools.accumulate(rewards))
        span = StepSpan(char_start=0, char_end=0, token_start=0, token_end=1)
        return CandidateScore(
            score=totals[-1],
            response_reward=totals[-1],
            aggregates={},
            steps=tuple(
                StepScore(span=span, reward=reward, cumulative=total)
                for reward, total in zip(rewards, totals, strict=True)
            ),
            token_ids=(),
            token_rewards=(),
            truncated=False,
        )

    async def info(self) -> ScorerInfo:
        return ScorerInfo(
            model_id="numbers", prm_version=0, reference_id="r", reference=ReferenceSource.MODEL,
            tokenizer_fingerprint="", dtype="float32", config=PrmConfig(), generation_prompt="",
            generation_prompt_ids=(), end_text="", max_tokens=1, max_candidates=1, max_waiting=1, token_budget=1,
        )  # fmt: skip


class ByFirstWord:
    """Answers are equal when their first words are; `none` gives no answer."""

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        words = [response.split()[0] for response in responses]
        known = sorted({word for word in words if word != "none"})
        return AnswerClasses(answers=tuple(words), classes=tuple(known.index(w) if w in known else -1 for w in words))


def _file(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _rows(path: Path) -> list[CandidateRow]:
    rows = list(read_candidates(path))
    assert all(isinstance(row, CandidateRow) for row in rows)
    return [row for row in rows if isinstance(row, CandidateRow)]


# ---------------------------------------------------------------- best of N


def test_the_worked_example_of_best_of() -> None:
    assert best_of(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0, 1, 1]), 2) == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7), st.data())
def test_expectations_equal_the_mean_over_all_subsets(candidates: list[tuple[int, bool]], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(candidates)))
    scores_M = torch.tensor([float(score) for score, _ in candidates])
    correct_M = torch.tensor([right for _, right in candidates])
    subsets = list(itertools.combinations(range(len(candidates)), size))
    winners = [max(subset, key=lambda number: (candidates[number][0], -number)) for subset in subsets]
    expected = sum(candidates[winner][1] for winner in winners) / len(subsets)
    assert best_of(scores_M, correct_M, size) == pytest.approx(expected)
    passed = sum(any(candidates[number][1] for number in subset) for subset in subsets) / len(subsets)
    assert pass_at(correct_M, size) == pytest.approx(passed)


async def test_a_table_over_two_prompts(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "candidates.jsonl",
        [
            {"prompt": "q", "candidates": ["a 1\n\nx 3", "b 2\n\nx 0", "b 1\n\nx 0", "c -1"], "correct": [1, 0, 0, 0]},
            {"prompt": "q", "candidates": ["a 1", "a 1", "b 5", "none 9"], "correct": [1, 1, 0, 0]},
        ],
    )
    prompts = await score_prompts(
        _rows(path), NumbersScorer(), verifier=None, grouper=ByFirstWord(), on_progress=lambda done: None
    )
    table = tabulate(prompts)
    assert (table["prompts"], table["n"]) == (2, [1, 2, 4])
    assert table["pass_at_n"][0]["mean"] == pytest.approx((0.25 + 0.5) / 2)
    assert table["pass_at_n"][2] == {"mean": 1.0, "stderr": 0.0}
    # Of four: the first prompt's votes are 1, 2, 1 (wrong); the second's 2, 1 (right).
    assert table["majority"][2]["mean"] == 0.5
    assert len(table["readings"]) == 2 * 2 * 4
    by_sum = table["readings"]["reference/delta/sum"]["best_of_n"]
    # The first prompt's sums are 4, 2, 1, -1; the second's 1, 1, 5, 9.
    assert by_sum[2]["mean"] == 0.5
    assert by_sum[0]["mean"] == table["pass_at_n"][0]["mean"]
    by_min = table["readings"]["reference/delta/min"]["best_of_n"]
    # The first prompt's minima are 1, 0, 0, -1.
    assert by_min[2]["mean"] == 0.5
    assert table["readings"]["bare/delta/sum"]["best_of_n"][2]["mean"] == 1.0, "all scores 0: the first wins"
    assert set(table["readings"]["reference/delta/sum"]) == {"best_of_n", "weighted"}


async def test_without_labels_and_without_a_verifier_nothing_is_evaluated(tmp_path: Path) -> None:
    path = _file(tmp_path / "c.jsonl", [{"prompt": "q", "candidates": ["a 1"]}])
    with pytest.raises(DataError, match="which candidates are right"):
        await score_prompts(_rows(path), NumbersScorer(), verifier=None, grouper=None, on_progress=lambda done: None)
    with pytest.raises(DataError, match="no prompt"):
        tabulate([])


# ---------------------------------------------------------------- ProcessBench


def test_the_first_step_below_the_threshold_is_the_prediction() -> None:
    assert predict((0.51, 0.47, 0.6), 0.5) == 1
    assert predict((0.51, 0.5), 0.5) == -1


def test_f1_by_hand() -> None:
    located = [
        Located(values=(0.9, 0.4, 0.3), label=1),
        Located(values=(0.9, 0.8), label=1),
        Located(values=(0.9, 0.7), label=-1),
        Located(values=(0.3, 0.7), label=-1),
    ]
    score = measure(located, 0.5)
    assert (score.erroneous, score.correct, score.f1) == (0.5, 0.5, 0.5)
    best = tune(located)
    assert measure(located, best).f1 >= 0.5
    assert measure(located, 0.0).f1 == 0.0


def test_a_perfect_locator_is_found_by_tuning() -> None:
    located = [Located(values=(0.7, 0.2), label=1), Located(values=(0.6, 0.65), label=-1)]
    threshold = tune(located)
    assert 0.2 < threshold <= 0.6
    assert measure(located, threshold).f1 == 1.0


async def test_values_are_the_sigmoid_of_what_has_added_up(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "p.jsonl",
        [{"id": "1", "problem": "q", "steps": ["a 1", "b -3"], "label": 1, "final_answer_correct": False}],
    )
    located = await locate(read_problems(path), NumbersScorer(), lambda done: None)
    assert located[0].values == pytest.approx((1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"steps": ["a"], "label": 0}, "'problem'"),
        ({"problem": "q", "steps": [], "label": -1}, "'steps'"),
        ({"problem": "q", "steps": ["a", ""], "label": -1}, "'steps'"),
        ({"problem": "q", "steps": ["a"], "label": 1}, "'label'"),
        ({"problem": "q", "steps": ["a"], "label": True}, "'label'"),
        ({"problem": "q", "steps": ["a"]}, "'label'"),
    ],
)
def test_a_bad_problem_is_named(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=f"row 1.*{text}"):
        read_problems(_file(tmp_path / "p.jsonl", [row]))


# ---------------------------------------------------------------- scoring a file


async def test_a_file_is_scored_in_order_and_a_bad_row_costs_itself_alone(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "c.jsonl",
        [
            {"prompt": "q", "responses": ["a 1", "b 2"], "correct": [0, 1], "id": "first"},
            {"prompt": "q"},
            {"prompt": "q", "responses": ["a 3\n\nb 1"]},
        ],
    )
    out = tmp_path / "out.jsonl"
    with out.open("w") as lines:
        report = await score_rows(
            read_candidates(path),
            NumbersScorer(),
            lines,
            aggregation=None,
            truncation=Truncation.ERROR,
            on_progress=lambda report: None,
        )
    first, second, third = map(json.loads, out.read_text().splitlines())
    assert (first["id"], first["scores"], first["best"]) == ("first", [1.0, 2.0], 1)
    assert "no column with responses" in second["error"]
    assert (third["row"], third["steps"]) == (3, [[3.0, 1.0]])
    assert (report.rows, report.candidates, len(report.faults), report.best_is_right) == (3, 3, 1, [True])
