"""The rules for mathematics, each in both directions, and how they differ from the published ones."""

import asyncio

import pytest

from jobs.curate.draft import Draft
from jobs.curate.maths import MathRules, final_answer, multiple_choice, why_out
from jobs.curate.settings import MathSettings
from tests.curate.corpora import code_draft, math_draft

OURS, PUBLISHED = MathSettings(), MathSettings(published_rules=True)


def judge(*drafts: Draft, settings: MathSettings = OURS) -> list[Draft]:
    return asyncio.run(MathRules(settings).apply(drafts))


@pytest.mark.parametrize(
    ("question", "ours", "published"),
    [
        ("In the figure, find $x$.", "figure", "figure"),
        ("Find $x$ in Figure 3.", "figure", "figure"),
        ("Find the area shown. [asy] draw((0,0)--(1,1)); [/asy]", "figure", ""),
        ("![](img.png) Find $x$.", "figure", ""),
        ("Find $x$ in the diagram below.", "figure", ""),
        ("Round to three significant figures.", "", "figure"),
        ("Figure out the sum of 1 and 2.", "", "figure"),
        ("A disfigured coin is tossed. How often?", "", "figure"),
        ("Find $1 + 1$.", "", ""),
        ("Prove that $1 < 2$.", "proof", "proof"),
        ("Show that $1 < 2$.", "proof", "proof"),
        ("Show the value of $1 + 1$.", "", ""),
        ("After she improved her time by 3 s, how long did it take?", "", "proof"),
        ("It was proved that $x > 1$. Find the least integer $x$.", "", "proof"),
        ("$1 + 1 = \\underline{\\quad}$", "fill-in", "fill-in"),
        ("1 + 1 = ____", "fill-in", ""),
        ("Let $a_1 = 2$. Find $a_1 + a_2$.", "", ""),
    ],
)
def test_which_questions_are_out(question: str, ours: str, published: str) -> None:
    assert why_out(question, published=False) == ours
    assert why_out(question, published=True) == published


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Pick. A. 1 B. 2 C. 3", True),
        ("Pick. A: 1 B: 2 C: 3 D: 4", True),
        ("Pick. (A) 1 (B) 2 (C) 3", True),
        ("$\\textbf{(A)}\\ 1 \\qquad\\textbf{(B)}\\ 2 \\qquad\\textbf{(C)}\\ 3$", True),
        ("Points A. and B. are given.", False),
        ("Points A, B and C are given.", False),
        ("The plan BETA. ALPHA: GAMMA.", False),
    ],
)
def test_multiple_choice_needs_three_options(question: str, expected: bool) -> None:
    assert multiple_choice(question) is expected


@pytest.mark.parametrize(
    ("solution", "ours", "published"),
    [
        ("So $\\boxed{42}$.", "42", "42"),
        ("First $\\boxed{1}$, but in the end it is rather $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}", "\\frac{1}{2}"),
        ("The answer is $\\boxed{x^n}$.", "x^n", ""),
        ("So $\\boxed{\\text{Monday}}$.", "\\text{Monday}", ""),
        ("We get #### 7", "7", "7"),
        ("It is 42.", "", ""),
        ("So $\\boxed{}$.", "", ""),
        ("So $\\boxed{42$.", "", ""),
        (f"So $\\boxed{{{'9' * 300}}}$.", "", ""),
    ],
)
def test_answers_that_hold_no_digit_are_kept_unlike_in_the_published_rules(
    solution: str, ours: str, published: str
) -> None:
    assert final_answer(solution, OURS) == ours
    assert final_answer(solution, PUBLISHED) == published


def test_the_stage_extracts_notes_and_drops_in_the_published_order() -> None:
    drafts = judge(
        math_draft("Find $1+1$.", solution="It is $\\boxed{2}$."),
        math_draft("Find $1+1$.", answer="2"),
        math_draft("Find $1+1$.", solution="It is two."),
        math_draft("Prove it. See the figure.", solution="$\\boxed{2}$"),
        math_draft("Pick \\underline{one}. (A) 1 (B) 2 (C) 3", solution="$\\boxed{B}$"),
        math_draft("Pick. (A) 1 (B) 2 (C) 3", solution="It is B."),
        code_draft("Prove that you can double, see the figure.", {"inputs": ["1"], "outputs": ["2"]}),
    )
    assert [draft.dropped for draft in drafts] == ["", "", "no answer", "figure", "", "no answer", ""]
    assert [draft.answer for draft in drafts[:2]] == ["2", "2"]
    assert [draft.notes.get("maths") for draft in drafts] == ["open", "open", None, None, "choice", None, None]
    assert drafts[4].answer == "B"
