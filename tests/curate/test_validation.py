"""What validators' attempts amount to, the rule by which problems are kept, and who notices unsolvable ones."""

import asyncio
import random
from typing import Any

import pytest

from jobs.curate.settings import KeepSettings, ValidationSettings
from jobs.curate.unsolvable import (
    CONTRADICTION,
    MISSING,
    make_unsolvable,
    probe,
    with_a_contradiction,
    without_a_number,
)
from jobs.curate.validation import Opinion, Validation, is_unsolvable, why_not
from jobs.curate.validator_prompts import kind_of, validator_messages
from prime.adapters.settings import EndpointSettings
from tests.curate.corpora import ScriptedModel, TextVerifier, code_draft, math_draft

NO = "\\text{no solution}"


def boxes(*answers: str) -> ScriptedModel:
    return ScriptedModel(
        *(f"Step by step. $\\boxed{{{answer}}}$" if answer else "I am not sure." for answer in answers)
    )


def validate(qwq: ScriptedModel, qwen: ScriptedModel, truth: str = "4", **keep: Any) -> Any:
    settings = ValidationSettings(
        validators=tuple(EndpointSettings(url="http://x/v1", model=name) for name in ("qwq", "qwen")),
        keep=KeepSettings(**keep),
    )
    stage = Validation(settings, {"qwq": qwq, "qwen": qwen}, TextVerifier())
    (draft,) = asyncio.run(stage.apply([math_draft("Find $2+2$.", truth)]))
    return draft


def test_a_record_says_what_every_attempt_came_to() -> None:
    draft = validate(boxes("4", "4", "4", "5", NO), boxes("4", "4", "", "4", "4"))
    first, second = draft.notes["validation"]["validators"]
    assert first == {
        "model": "qwq",
        "matches": ("matched", "matched", "matched", "not matched", "unsolvable"),
        "answer": "4",
        "solvable": 0.8,
        "matching": 0.6,
        "agreeing": 0.6,
    }
    assert second["matches"] == ("matched", "matched", "attempt unreadable", "matched", "matched")
    assert (second["solvable"], second["matching"]) == (0.8, 0.8)
    assert draft.notes["validation"]["same_answer"] is True
    assert draft.dropped == ""


def test_five_attempts_are_asked_of_each_with_numbers_that_differ() -> None:
    qwq, qwen = boxes("4"), boxes("4")
    validate(qwq, qwen)
    assert (
        sorted(attempt for _, attempt in qwq.asked) == sorted(attempt for _, attempt in qwen.asked) == [0, 1, 2, 3, 4]
    )


@pytest.mark.parametrize(
    ("qwq", "qwen", "dropped"),
    [
        (("4",), ("4",), ""),
        (("5",), ("5",), "answer differs from the source"),
        ((NO,), ("4",), "too few attempts find an answer"),
        ((NO, "4", NO, "4", NO), ("4",), "too few attempts find an answer"),
        ((NO, "4", "4", "4", NO), ("4",), ""),
        (("4", "4", "1", "2", "3"), ("4",), "attempts disagree"),
        (("",), ("",), "too few attempts find an answer"),
        (("4",), ("5",), "answer differs from the source"),
    ],
)
def test_which_problems_are_kept(qwq: tuple[str, ...], qwen: tuple[str, ...], dropped: str) -> None:
    assert validate(boxes(*qwq), boxes(*qwen)).dropped == dropped


def test_one_validator_may_be_enough_where_the_settings_say_so() -> None:
    assert validate(boxes("4"), boxes(NO), validators="any", same_answer=False).dropped == ""
    assert validate(boxes("4"), boxes("5"), validators="any").dropped == "validators disagree"
    assert validate(boxes(NO), boxes(NO), validators="any").dropped == "too few attempts find an answer"


def test_one_validator_has_to_meet_the_whole_rule_and_not_each_a_part_of_it() -> None:
    sure_and_wrong, right_and_unsure = boxes("5"), boxes("4", "4", "4", "4", NO)
    draft = validate(sure_and_wrong, right_and_unsure, validators="any", solvable=0.9, same_answer=False)
    assert draft.dropped == "answer differs from the source"


def test_thresholds_are_shares_of_all_attempts_and_reaching_one_is_enough() -> None:
    opinion = Opinion(model="m", matches=(), answer="4", solvable=0.6, matching=0.6, agreeing=0.6)
    assert why_not([opinion], True, KeepSettings()) == ""
    for name in ("solvable", "agreeing", "matching"):
        assert why_not([opinion], True, KeepSettings(**{name: 0.61})) != ""


def test_a_box_without_a_solution_is_an_answer_and_not_an_unreadable_attempt() -> None:
    """The published grading looks for a digit in it."""
    for answer in (NO, "no solution", "\\text{No solution.}", "\\text{ no solution }"):
        assert is_unsolvable(answer)
    for answer in ("4", "", "\\text{no}", "\\varnothing"):
        assert not is_unsolvable(answer)


def test_code_is_not_validated_and_without_validators_nothing_is() -> None:
    program = code_draft("Double.", {"inputs": ["1"], "outputs": ["2"]})
    settings = ValidationSettings()
    (draft,) = asyncio.run(Validation(settings, {}, TextVerifier()).apply([math_draft("Q", "1")]))
    assert (draft.dropped, draft.notes) == ("", {})
    model = boxes("4")
    (draft,) = asyncio.run(Validation(settings, {"m": model}, TextVerifier()).apply([program]))
    assert (draft.dropped, model.asked) == ("", [])


def test_every_source_has_its_prompt_and_all_have_the_same_duties() -> None:
    kinds = {
        "numina_cn_k12": "exam",
        "numina_synthetic_amc": "exam",
        "numina_amc_aime": "exam",
        "numina_synthetic_math": "exam",
        "numina_aops_forum": "forum",
        "numina_olympiads": "olympiad",
        "mine": "exam",
    }
    assert {source: kind_of(source) for source in kinds} == kinds
    for source in kinds:
        system, user = validator_messages("Find it.", source)
        assert user == {"role": "user", "content": "Find it."}
        for duty in ("step by step", "LaTeX", "\\boxed{answer}", "no solution", "whole way", "stands in your way"):
            assert duty in system["content"], (source, duty)


# ---------------------------------------------------------------- unsolvable problems


def test_a_missing_condition_is_a_number_outside_of_formulas() -> None:
    draw = random.Random(0)
    question = "A train goes 60 km in 2 hours. How fast is it?"
    found = {without_a_number(question, draw) for _ in range(20)}
    assert found == {question.replace("60", "some number of"), question.replace("2", "some number of")}
    assert without_a_number("Find $x^2+1$ for $x_1=y^{3}$.", draw) == ""


def test_a_contradiction_gives_another_answer_as_known() -> None:
    draw = random.Random(0)
    for _ in range(20):
        text = with_a_contradiction("Find it.", "4", draw)
        assert text.startswith("Find it. It is also known that the requested value is equal to $")
        assert "$4$" not in text
    assert with_a_contradiction("Find it.", "x", draw) == ""


def test_unsolvable_problems_are_the_same_for_the_same_seed() -> None:
    drafts = [math_draft("A train goes 60 km in 2 hours.", "30")]
    assert make_unsolvable(drafts, seed=1) == make_unsolvable(drafts, seed=1)
    assert [way for way, _ in make_unsolvable(drafts, seed=1)] == [MISSING, CONTRADICTION]


def test_precision_and_recall_of_who_notices() -> None:
    class Sees(ScriptedModel):
        """Notices contradictions, no missing condition, and takes one solvable problem of two for unsolvable."""

        async def ask(self, messages: Any, *, attempt: int = 0) -> str:
            text = messages[-1]["content"]
            if "also known" in text or text == "It is 7 times 2.":
                return f"$\\boxed{{{NO}}}$"
            return "$\\boxed{14}$"

    settings = ValidationSettings(validators=(EndpointSettings(url="http://x/v1", model="qwq"),))
    validation = Validation(settings, {"qwq": Sees()}, TextVerifier())
    solvable = [math_draft("It is 7 times 2.", "14", number=1), math_draft("It was 7 times 2.", "14", number=2)]
    (found,) = asyncio.run(probe(validation, solvable, seed=0))
    assert (found.precision, found.recall) == (2 / 3, 0.5)
    assert found.recall_by_way == {"missing": 0.0, "contradiction": 1.0}
