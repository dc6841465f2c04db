"""Where an answer begins in one text is told by the PRM's own chat template, and by nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from prime.errors import EmptyInput, InvalidInput
from prime.scoring import Candidate, PrmConfig, Prompt, ScorerInfo
from prime.types import ReferenceSource
from services.prm.http.transcripts import is_rendered, split_ids, split_messages, split_text

INFO = ScorerInfo(
    model_id="m",
    prm_version=0,
    reference_id="r",
    reference=ReferenceSource.MODEL,
    tokenizer_fingerprint="",
    dtype="float32",
    config=PrmConfig(),
    generation_prompt="<a>",
    generation_prompt_ids=(7, 8),
    end_text="<e>",
    max_tokens=1,
    max_candidates=1,
    max_waiting=1,
    token_budget=1,
)


@pytest.mark.parametrize(
    ("text", "prompt", "answer"),
    [
        ("<u>q<a>yes", "<u>q<a>", "yes"),
        ("<u>q<a>one<e><u>more<a>two<e>\n", "<u>q<a>one<e><u>more<a>", "two<e>"),
        ("<a>yes  \n", "<a>", "yes  \n"),
    ],
)
def test_the_last_answer_of_a_text_is_the_candidate(text: str, prompt: str, answer: str) -> None:
    assert split_text(text, INFO) == (Prompt(text=prompt, rendered=True), Candidate(text=answer))


def test_the_last_answer_of_token_ids_is_the_candidate() -> None:
    found = split_ids([1, 7, 8, 2, 7, 8, 3, 4], INFO)
    assert found == (Prompt(token_ids=(1, 7, 8, 2, 7, 8)), Candidate(token_ids=(3, 4)))


def test_without_an_opening_nothing_is_guessed() -> None:
    bare = replace(INFO, generation_prompt="", generation_prompt_ids=())
    with pytest.raises(InvalidInput, match="where the answer begins is not known"):
        split_text("no answer", INFO)
    with pytest.raises(InvalidInput, match="where the answer begins is not known"):
        split_ids([7, 1, 8], INFO)
    with pytest.raises(InvalidInput, match="no chat template that opens an answer"):
        split_text("<a>yes", bare)
    with pytest.raises(InvalidInput, match="no chat template that opens an answer"):
        split_ids([7, 8, 1], bare)
    assert not is_rendered("<a>", bare)
    assert is_rendered("q<a>", INFO)


def test_a_conversation_must_end_with_an_answer_in_text() -> None:
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    assert split_messages([question, answer], INFO) == (Prompt(messages=(question,)), Candidate(text="a"))
    unanswered: list[list[dict[str, Any]]] = [[], [question], [question, {"role": "assistant", "content": None}]]
    for wrong in unanswered:
        with pytest.raises(InvalidInput, match="assistant's answer"):
            split_messages(wrong, INFO)
    with pytest.raises(EmptyInput, match="no question"):
        split_messages([answer], INFO)


@pytest.mark.parametrize("text", ["3+5+8=3+5=8;8+8=6#6", "3+5+8=3+5=8;8+8=6#6<e>"])
def test_where_the_template_writes_nothing_a_pattern_tells_the_prompt(text: str) -> None:
    config = PrmConfig(prompt_pattern=r"\d(\+\d)+=")
    info = replace(INFO, generation_prompt="", generation_prompt_ids=(), config=config)
    assert split_text(text, info) == (Prompt(text="3+5+8=", rendered=True), Candidate(text=text[6:]))
    with pytest.raises(InvalidInput, match="does not begin with a prompt"):
        split_text("no chain", info)
