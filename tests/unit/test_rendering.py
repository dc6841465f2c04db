"""Text to tokens with steps: spans tile the response, whatever it holds; what cannot be read is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prime.data.rendering import EncodedResponse, encode_candidate, encode_scoring_prompt, split_text
from prime.data.tiny import build_byte_tokenizer
from prime.errors import EmptyInput, InvalidInput
from prime.scoring import Candidate, Prompt, StepSpan, StepSplit

BYTES = build_byte_tokenizer()


def _merging_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with merges, as the models in use have: tokens of several characters, characters of several."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    text = [
        "Step 1: 7 * 8 = 56.\n\nStep 2: So it is 56.\n\n\n",
        "the the answer is 12.\n\nThe answer",
        "ä 😀 的 答案\r\n\r\n",
    ]
    rules.train_from_iterator(
        text * 20,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<|end|>", pad_token="<|end|>")


MERGING = _merging_tokenizer()
TOKENIZERS = {"bytes": BYTES, "merging": MERGING}


def _encode(
    text: str, *, tokenizer: Any = BYTES, split: StepSplit | None = None, end_token: bool = True
) -> EncodedResponse:
    return encode_candidate(tokenizer, Candidate(text=text), split=split or StepSplit(), end_token=end_token)


def _tiles(response: EncodedResponse) -> None:
    first, *rest = response.spans
    assert (first.char_start, first.token_start) == (0, 0)
    for before, span in zip(response.spans, rest, strict=False):
        assert (span.char_start, span.token_start) == (before.char_end, before.token_end)
    assert response.spans[-1].char_end == len(response.text)
    assert response.spans[-1].token_end == len(response.token_ids)
    for span in response.spans:
        assert span.token_end > span.token_start


PIECES = st.lists(
    st.sampled_from(
        ["Step 1: ", "\n\n", "\n", "\r\n", " ", "7", "ä", "😀", "👩‍👩‍👧", "的", "<|end|>", "\u200b", "\t", "x" * 5]
    ),
    min_size=1,
    max_size=20,
).map("".join)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(st.one_of(PIECES, st.text(min_size=1, max_size=60)), st.booleans())
@settings(max_examples=300, deadline=None)
def test_spans_tile_the_text_and_its_tokens(tokenizer: Any, text: str, end_token: bool) -> None:
    for split in (StepSplit(), StepSplit(separators=("\n\n", "\n", "😀")), StepSplit(pattern=r"\s+(?=Step)")):
        response = _encode(text, tokenizer=tokenizer, split=split, end_token=end_token)
        assert response.text == text
        _tiles(response)


def test_a_worked_example() -> None:
    response = _encode("7 * 8 = 56\n\nSo it is 56.")
    assert response.spans == (
        StepSpan(char_start=0, char_end=12, token_start=0, token_end=12),
        StepSpan(char_start=12, char_end=24, token_start=12, token_end=25),
    )
    assert response.token_ids[-1] == BYTES.eos_token_id


def test_a_token_that_spans_a_boundary_belongs_to_the_step_in_which_it_starts() -> None:
    rules = Tokenizer(models.WordLevel({"a.": 0, "\n\nB": 1, "c": 2, "[E]": 3}, unk_token="c"))
    rules.pre_tokenizer = pre_tokenizers.Split("\n\nB", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="[E]")
    response = _encode("a.\n\nBc", tokenizer=tokenizer)
    assert response.token_ids == (0, 1, 2, 3)
    assert response.spans == (
        StepSpan(char_start=0, char_end=4, token_start=0, token_end=2),
        StepSpan(char_start=4, char_end=6, token_start=2, token_end=4),
    )


def test_the_end_token_is_scored_with_the_last_step_and_not_written_twice() -> None:
    once, already = _encode("a\n\nb"), _encode("a\n\nb<|end|>")
    assert once.token_ids == already.token_ids
    assert once.spans[-1].token_end == already.spans[-1].token_end == 5
    assert _encode("a\n\nb", end_token=False).token_ids == once.token_ids[:-1]


@pytest.mark.parametrize(
    ("text", "split", "ends"),
    [
        ("a\n\nb", StepSplit(), [3, 4]),
        ("a\n\n\n\nb", StepSplit(), [5, 6]),
        ("a\n\nb\n\n", StepSplit(), [3, 6]),
        ("a\n\nb  \n\n   ", StepSplit(), [3, 11]),
        ("a\nb\n\nc", StepSplit(separators=("\n", "\n\n")), [2, 5, 6]),
        ("one step", StepSplit(), [8]),
        ("\n\na", StepSplit(), [2, 3]),
        ("Step 1: a\nStep 2: b", StepSplit(pattern=r"\n+(?=Step \d+:)"), [10, 19]),
        ("a;b;", StepSplit(separators=(";",)), [2, 4]),
    ],
)
def test_steps_end_after_a_separator_or_match(text: str, split: StepSplit, ends: list[int]) -> None:
    assert split_text(text, split) == ends


def test_listed_steps_are_steps_whatever_they_contain() -> None:
    candidate = Candidate(steps=("a\n\nb", "c"))
    response = encode_candidate(BYTES, candidate, split=StepSplit(), end_token=False)
    assert response.text == "a\n\nb\n\nc"
    assert [span.char_end for span in response.spans] == [6, 7]


def test_sampled_tokens_are_split_by_their_text_or_by_given_ends() -> None:
    ids = tuple(BYTES("ä\n\nb")["input_ids"])
    by_text = encode_candidate(BYTES, Candidate(token_ids=ids), split=StepSplit(), end_token=True)
    assert by_text.token_ids == ids
    assert [span.token_end for span in by_text.spans] == [4, 5]
    given_ends = encode_candidate(BYTES, Candidate(token_ids=ids, step_ends=(1, 3)), split=StepSplit(), end_token=True)
    assert [span.token_end for span in given_ends.spans] == [1, 3, 5]


@pytest.mark.parametrize(
    ("candidate", "kind", "text"),
    [
        (Candidate(text=""), EmptyInput, "empty"),
        (Candidate(token_ids=()), EmptyInput, "empty"),
        (Candidate(steps=()), EmptyInput, "list of steps"),
        (Candidate(steps=("a", " ")), EmptyInput, "list of steps"),
        (Candidate(), InvalidInput, "exactly one"),
        (Candidate(text="a", steps=("a",)), InvalidInput, "exactly one"),
        (Candidate(text="a", step_ends=(1,)), InvalidInput, "token ids"),
        (Candidate(token_ids=(5, 999)), InvalidInput, "token 1 is 999"),
        (Candidate(token_ids=(5, -1)), InvalidInput, "token 1 is -1"),
        (Candidate(token_ids=(5, 6), step_ends=(2, 2)), InvalidInput, "must grow"),
        (Candidate(token_ids=(5, 6), step_ends=(3,)), InvalidInput, "at most 2"),
        (Candidate(token_ids=(5, 6), reference_logprobs=(0.0,)), InvalidInput, "2 tokens but 1"),
    ],
)
def test_a_response_that_cannot_be_read_is_refused(candidate: Candidate, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        encode_candidate(BYTES, candidate, split=StepSplit(), end_token=True)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "no regular expression"),
        ("x*", "empty text"),
        ("a" * 201, "201 characters"),
        (r"(a|ab|b)*[cd]", "took more"),
    ],
)
def test_a_pattern_that_is_broken_or_endless_is_refused(pattern: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        split_text("ab" * 2000, StepSplit(pattern=pattern))


def test_a_prompt_is_rendered_by_the_chat_template_or_taken_as_it_is() -> None:
    asked = encode_scoring_prompt(BYTES, Prompt(text="hi"))
    assert BYTES.decode(asked) == "user: hi\nassistant: "
    same = encode_scoring_prompt(BYTES, Prompt(messages=({"role": "user", "content": "hi"},)))
    rendered = encode_scoring_prompt(BYTES, Prompt(text="user: hi\nassistant: ", rendered=True))
    assert asked == same == rendered == encode_scoring_prompt(BYTES, Prompt(token_ids=asked))
    without = _merging_tokenizer()
    assert encode_scoring_prompt(without, Prompt(text="hi")) == tuple(without("hi")["input_ids"])


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (Prompt(), InvalidInput),
        (Prompt(text="a", token_ids=(5,)), InvalidInput),
        (Prompt(token_ids=()), EmptyInput),
        (Prompt(text="", rendered=True), EmptyInput),
        (Prompt(token_ids=(100000,)), InvalidInput),
        (Prompt(messages=({"content": "no role"},)), InvalidInput),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(prompt: Prompt, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        encode_scoring_prompt(BYTES, prompt)


def test_a_template_that_refuses_is_a_bad_request(tmp_path: Path) -> None:
    strict = build_byte_tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidInput, match="roles must alternate"):
        encode_scoring_prompt(strict, Prompt(text="hi"))
