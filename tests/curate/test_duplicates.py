"""Which problems are the same, and which only look like it; and what evaluation sets hold."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.curate.contamination import Contamination, read_evaluation_set
from jobs.curate.draft import Draft
from jobs.curate.duplicates import Duplicates, shingles, similarity
from jobs.curate.lengths import Lengths
from jobs.curate.settings import ContaminationSettings, DuplicateSettings
from prime.data.chain import build_tokenizer
from prime.errors import DataError
from tests.curate.corpora import DOUBLE, TextVerifier, code_draft, eurus, math_draft, write_lines

TRAIN = (
    "A train leaves the station at noon and travels 60 km in 2 hours, while a second train leaves the same station one "
    "hour later and travels at twice the speed of the first one. After how many hours do the two trains meet?"
)
LEAGUE = TRAIN.replace("meet", "stand next to each other")


def judge(*drafts: Draft, parts: int = 2) -> list[Draft]:
    """Over two parts, so that a problem's first may lie in another one."""
    stage = Duplicates(DuplicateSettings(), verifier=TextVerifier())
    halves: Sequence[list[Draft]] = [list(drafts[:parts]), list(drafts[parts:])]

    async def work() -> list[Draft]:
        await stage.begin(lambda: iter(halves))
        return [draft for half in halves for draft in await stage.apply(half)]

    return asyncio.run(work())


def reasons(*questions: tuple[str, str]) -> list[str]:
    drafts = [math_draft(question, answer, number=number) for number, (question, answer) in enumerate(questions)]
    return [draft.dropped for draft in judge(*drafts)]


def test_the_first_of_several_equal_texts_stays_whatever_their_layout() -> None:
    assert reasons(
        ("Find $\\frac{1}{2}+1$.", "1.5"),
        ("Find  $ \\dfrac{1}{2} + 1 $ .", "1.5"),
        ("find $\\left\\frac{1}{2}+1$.", "1.5"),
        ("Find $\\frac{1}{3}+1$.", "1.5"),
    ) == ["", "same problem", "same problem", ""]


def test_a_dropped_one_names_the_one_that_stays() -> None:
    _, other = judge(math_draft("Find it.", "1", number=1), math_draft("Find it.", "1", number=2))
    assert other.notes["duplicates"] == "numina: rows.jsonl, row 1"


def test_one_text_with_two_answers_is_dropped_altogether() -> None:
    contradiction = "answers contradict each other"
    assert reasons(("Find it.", "1"), ("Find it.", "2"), ("Find it.", "1"), ("Find that.", "1"))[:2] == [
        contradiction,
        contradiction,
    ]
    assert reasons(("Find it.", "\\frac12"), ("Find it.", "\\dfrac12")) == ["", "same problem"]


def test_nearly_the_same_text_is_dropped_where_numbers_and_answer_are_the_same() -> None:
    near = "nearly the same problem"
    assert reasons((TRAIN, "2"), (LEAGUE, "2")) == ["", near]
    assert reasons((TRAIN, "2"), (LEAGUE.replace("60", "70"), "2")) == ["", ""]
    assert reasons((TRAIN, "2"), (LEAGUE, "3")) == ["", ""]
    assert reasons((TRAIN, "2"), ("Something else happens 60 times in 2 hours.", "2")) == ["", ""]


def test_programs_are_alike_by_their_text_alone() -> None:
    one, other = {"inputs": ["1"], "outputs": ["2"]}, {"inputs": ["3"], "outputs": ["6"]}
    first, near, same = judge(
        code_draft(TRAIN, one, number=1),
        code_draft(TRAIN.replace("60", "70"), other, number=2),
        code_draft(TRAIN, other, number=3),
    )
    assert [first.dropped, near.dropped, same.dropped] == ["", "nearly the same problem", "same problem"]


def test_mathematics_and_programs_are_never_the_same() -> None:
    assert [draft.dropped for draft in judge(math_draft(TRAIN, "2"), code_draft(TRAIN, {"inputs": ["1"]}))] == ["", ""]


def test_the_one_that_stays_gets_the_programs_of_the_others_as_codeforces_has_a_row_per_submission() -> None:
    suite = {"inputs": ["1"], "outputs": ["2"]}
    drafts = [code_draft("Double.", suite, [f"{DOUBLE}  # {number}"], number=number) for number in range(8)]
    first, *others = judge(*drafts, parts=3)
    assert first.solutions == tuple(f"```python\n{DOUBLE}  # {number}\n```" for number in range(5))
    assert {other.dropped for other in others} == {"same problem"}


def test_similarity_is_jaccard() -> None:
    one, other = shingles("a b c d", 2), shingles("a b c e", 2)  # ab bc cd, ab bc ce
    assert similarity(one, other) == pytest.approx(2 / 4)
    assert similarity(one, one) == 1.0
    assert shingles("x", 3).size == 1


# ---------------------------------------------------------------- evaluation sets


EVALUATION = (
    "Let $a$ be the largest prime that divides the product of all positive integers below one hundred and seven."
)


def contaminated(
    question: str, *, overlap: float = 0.5, texts: Sequence[str] = (EVALUATION, "Compute $2+3$.")
) -> Draft:
    stage = Contamination(ContaminationSettings(overlap=overlap), {"aime": list(texts)})
    (draft,) = asyncio.run(stage.apply([math_draft(question)]))
    return draft


def test_a_problem_of_an_evaluation_set_is_kept_out_also_inside_another_text() -> None:
    draft = contaminated(f"Consider the following. {EVALUATION.lower()} Find $a + 1$.")
    assert draft.dropped == "in an evaluation set"
    assert draft.notes["contamination"]["problem"] == "aime 1"


def test_half_a_problem_counts_by_the_share_that_is_asked_for() -> None:
    half = " ".join(EVALUATION.split()[:13])
    share = contaminated(half, overlap=0.3).notes["contamination"]["share"]
    assert 0.3 < share < 0.7
    assert contaminated(half, overlap=share + 0.01).dropped == ""


def test_other_problems_and_short_ones_within_longer_ones_pass() -> None:
    assert contaminated("Let $b$ be the smallest even number that divides nothing at all.").dropped == ""
    assert contaminated("Compute $2+3$.").dropped == "in an evaluation set"
    assert contaminated("Compute $2+3$ and then add four.").dropped == ""


def test_what_stands_in_many_evaluation_problems_tells_nothing() -> None:
    ending = "find the remainder when the result is divided by one thousand"
    texts = [f"A number {random.Random(seed).random()} is given, {ending}" for seed in range(40)]
    assert contaminated(f"For a very different number, {ending}", texts=texts).dropped == ""
    assert contaminated(texts[3], texts=texts).dropped == "in an evaluation set"


def test_evaluation_sets_are_read_by_any_of_their_columns_and_a_hole_in_one_is_an_error(tmp_path: Path) -> None:
    rows = [
        {"problem": "First."},
        {"question": "Second."},
        eurus("Third.\n\nGive the final answer in LaTeX, as \\boxed{your answer}.", "1"),
    ]
    path = write_lines(tmp_path / "set.jsonl", rows)
    assert read_evaluation_set("mine", str(path)) == ["First.", "Second.", "Third."]
    with pytest.raises(DataError, match="row 2: an evaluation problem needs its text"):
        read_evaluation_set("mine", str(write_lines(path, [rows[0], {"text": "no"}])))
    with pytest.raises(DataError, match="is empty"):
        read_evaluation_set("mine", str(write_lines(path, [])))
    with pytest.raises(DataError, match="does not exist"):
        read_evaluation_set("mine", str(tmp_path / "no.jsonl"))


# ---------------------------------------------------------------- lengths


def test_prompts_are_measured_as_they_are_asked() -> None:
    def lengths(most: int, *, with_actions: bool) -> list[str]:
        stage = Lengths(build_tokenizer(), "x", max_prompt_tokens=most, with_actions=with_actions)
        return [draft.dropped for draft in asyncio.run(stage.apply([math_draft("1+1="), math_draft("1+" * 50)]))]

    assert lengths(120, with_actions=False) == ["", "prompt is too long"]
    assert lengths(10_000, with_actions=True) == ["", ""]
    assert lengths(120, with_actions=True) == ["prompt is too long"] * 2
