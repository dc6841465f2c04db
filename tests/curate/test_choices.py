"""Multiple choice becomes open questions: what is asked of the model, and what its rewriting has to stand up to."""

import asyncio

import pytest

from jobs.curate.choices import Choices, letter_of, options_of
from jobs.curate.draft import Draft
from jobs.curate.settings import MathSettings
from prime.adapters.settings import EndpointSettings
from tests.curate.corpora import ScriptedModel, TextVerifier, math_draft

QUESTION = "A box holds 3 red and 5 blue balls. How many balls are there? (A) 3 (B) 5 (C) 8 (D) 15"
GOOD = "REMOVABLE: yes\nQUESTION: A box holds 3 red and 5 blue balls. How many balls are there?\nANSWER: \\boxed{8}"
SETTINGS = MathSettings(rewrite=EndpointSettings(url="http://x/v1", model="llama"), rewrite_attempts=3)


def rewrite(model: ScriptedModel | None, *drafts: Draft) -> list[Draft]:
    return asyncio.run(Choices(SETTINGS, model, TextVerifier()).apply(drafts))


def choice(question: str = QUESTION, answer: str = "C") -> Draft:
    return math_draft(question, answer, solution=f"So $\\boxed{{{answer}}}$.", maths="choice")


@pytest.mark.parametrize(
    ("question", "stem", "options"),
    [
        (QUESTION, "A box holds 3 red and 5 blue balls. How many balls are there?", ["3", "5", "8", "15"]),
        ("What is $1+1$?\nA. $1$\nB. $2$\nC. $3$", "What is $1+1$?", ["$1$", "$2$", "$3$"]),
        ("Pick one: A: x B: y C: z", "Pick one:", ["x", "y", "z"]),
        (
            "What is it?\n$\\textbf{(A)}\\ 1 \\qquad\\textbf{(B)}\\ \\frac{1}{2} \\qquad\\textbf{(C)}\\ 3$",
            "What is it?",
            ["1", "\\frac{1}{2}", "3"],
        ),
        ("Point (A) lies on line (B). Which? (A) 1 (B) 2 (C) 3", "Point (A) lies on line (B). Which?", ["1", "2", "3"]),
        ("No options here.", "No options here.", []),
    ],
)
def test_options_are_read_as_exams_write_them(question: str, stem: str, options: list[str]) -> None:
    found_stem, found = options_of(question)
    assert (found_stem, list(found.values())) == (stem, options)
    assert list(found) == list("ABCDEFGH"[: len(options)])


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C", "C"),
        ("(C)", "C"),
        ("\\text{C}", "C"),
        ("\\textbf{(C)}", "C"),
        ("C.", "C"),
        ("8", ""),
        ("AC", ""),
        ("", ""),
    ],
)
def test_the_letter_of_an_answer(answer: str, letter: str) -> None:
    assert letter_of(answer) == letter


def test_a_good_rewriting_is_taken_with_the_option_as_its_answer() -> None:
    model = ScriptedModel(GOOD)
    (draft,) = rewrite(model, choice())
    assert (draft.dropped, draft.answer) == ("", "8")
    assert draft.question == "A box holds 3 red and 5 blue balls. How many balls are there?"
    assert draft.notes["choices"] == {"attempts": 1, "was": QUESTION, "letter": "C"}
    assert QUESTION in model.asked[0][0]


def test_an_answer_by_value_is_compared_with_the_rewriting_as_a_letter_is() -> None:
    assert rewrite(ScriptedModel(GOOD), choice(answer="8"))[0].answer == "8"
    assert rewrite(ScriptedModel(GOOD), choice(answer="9"))[0].dropped == "rewriting failed its checks"


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("Sure! Here it is.", "not in the form that was asked for"),
        ("REMOVABLE: yes\nQUESTION: How many of 3 and 5?", "not in the form that was asked for"),
        (GOOD.replace("\\boxed{8}", "eight"), "not in the form that was asked for"),
        (GOOD.replace("How many", "Which option says how many"), "still speaks of options"),
        (GOOD.replace("there?", "there? (A) 3 (B) 5 (C) 8"), "still speaks of options"),
        (GOOD.replace("5 blue", "some blue"), "the number 5 is gone"),
        (GOOD.replace("A box", "In the figure, a box"), "is now a figure"),
        (GOOD.replace("\\boxed{8}", "\\boxed{15}"), "its answer is not the right option"),
    ],
)
def test_a_rewriting_that_fails_a_check_is_asked_for_again_and_in_the_end_dropped(reply: str, fault: str) -> None:
    model = ScriptedModel(reply)
    (draft,) = rewrite(model, choice())
    assert (draft.dropped, draft.notes["choices"]) == ("rewriting failed its checks", {"fault": fault})
    assert [attempt for _, attempt in model.asked] == [0, 1, 2]
    (draft,) = rewrite(ScriptedModel(reply, GOOD), choice())
    assert (draft.dropped, draft.notes["choices"]["attempts"]) == ("", 2)


def test_a_question_that_is_asked_again_gets_its_own_rewriting_and_not_that_of_another() -> None:
    """The published loop indexed the list of all questions with places in the list of those to be asked again."""

    class ByQuestion(ScriptedModel):
        async def ask(self, messages: object, *, attempt: int = 0) -> str:
            text = str(messages)
            for number in range(4):
                if f"{100 + number} balls" in text:
                    if attempt < (number + 1) % 3:
                        return "garbage"
                    return f"REMOVABLE: yes\nQUESTION: Count {100 + number} balls.\nANSWER: \\boxed{{{number}}}"
            raise AssertionError(text)

    drafts = [choice(f"Count {100 + number} balls. (A) {number} (B) 98 (C) 99", answer="A") for number in range(4)]
    found = rewrite(ByQuestion(), *drafts)
    assert [draft.question for draft in found] == [f"Count {100 + number} balls." for number in range(4)]
    assert [draft.answer for draft in found] == ["0", "1", "2", "3"]


def test_what_cannot_be_asked_without_its_options_is_dropped_before_or_by_the_model() -> None:
    model = ScriptedModel("REMOVABLE: no")
    following, statement, other = rewrite(
        model,
        choice("Which of the following is 8? (A) 3 (B) 5 (C) 8"),
        choice("Which statement holds? (A) 3 (B) 5 (C) 8"),
        choice(),
    )
    assert (following.dropped, statement.dropped) == ("asks about its options", "asks about its options")
    assert other.dropped == "options cannot be removed"
    assert len(model.asked) == 1


def test_a_question_without_a_solution_is_asked_with_its_answer() -> None:
    model = ScriptedModel(GOOD)
    (draft,) = rewrite(model, math_draft(QUESTION, "C", maths="choice"))
    assert draft.answer == "8"
    assert model.asked[0][0].endswith("The answer is C.")


def test_without_a_model_multiple_choice_is_dropped_and_open_questions_pass() -> None:
    closed, opened = rewrite(None, choice(), math_draft("Find $1+1$.", "2", maths="open"))
    assert closed.dropped == "multiple choice, and nobody to rewrite it"
    assert opened.dropped == ""


def test_a_letter_that_is_no_option_is_not_guessed() -> None:
    model = ScriptedModel(GOOD)
    assert rewrite(model, choice(answer="E"))[0].dropped == "right option is not known"
    assert model.asked == []
