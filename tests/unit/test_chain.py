"""The demo task and the two small models that ship."""

import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from prime.data.chain import (
    build_tokenizer,
    draw_chains,
    problem_of,
    prompt_of,
    sft_texts,
    solve,
    write_fresh_model,
)
from prime.data.prompts import encode_prompt
from prime.data.tiny import build_byte_tokenizer, write_tiny_model
from prime.lm.model import tokenizer_fingerprint

CHAINS = st.lists(st.integers(0, 9), min_size=1, max_size=8)
TOKENIZER: Any = build_tokenizer()
BYTES: Any = build_byte_tokenizer()


# ---------------------------------------------------------------- the task


def test_a_chain_by_hand() -> None:
    assert prompt_of([3, 5, 8]) == "3+5+8="
    assert solve([3, 5, 8], random.Random(0), wrong_share=0.0) == "3+5=8;8+8=6#6"
    assert problem_of([3, 5, 8]).ground_truth == "6"
    assert problem_of([3, 5, 8]).problem_id == "chain-358"


@given(CHAINS)
@settings(deadline=None, max_examples=50)
def test_a_careful_answer_ends_with_the_ground_truth(digits: list[int]) -> None:
    answer = solve(digits, random.Random(0), wrong_share=0.0)
    assert answer.rpartition("#")[2] == problem_of(digits).ground_truth


@given(CHAINS)
@settings(deadline=None, max_examples=50)
def test_an_answer_wrong_in_every_step_follows_from_its_own_digits(digits: list[int]) -> None:
    steps, _, answer = solve(digits, random.Random(1), wrong_share=1.0).rpartition("#")
    total = digits[0]
    for digit, step in zip(digits[1:], steps.split(";") if steps else [], strict=True):
        asked, _, result = step.partition("=")
        assert asked == f"{total}+{digit}"
        assert int(result) != (total + digit) % 10
        total = int(result)
    assert answer == str(total)


def test_about_the_wished_share_of_steps_is_wrong() -> None:
    # 20 000 steps at 22 %: the standard deviation of the share is 0.0029, the bound is 5 of them away. Over seeds
    # that is one false alarm in about 2 million; with the seed fixed the test always says the same.
    wrong = steps = 0
    for _, answer in islice(sft_texts(length=6, seed=5, wrong_share=0.22), 4000):
        for step in answer.partition("#")[0].split(";"):
            asked, _, result = step.partition("=")
            left, _, right = asked.partition("+")
            wrong += int(result) != (int(left) + int(right)) % 10
            steps += 1
    assert steps == 20_000
    assert abs(wrong / steps - 0.22) < 0.0147


def test_sft_texts_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> list[tuple[str, str]]:
        return list(islice(sft_texts(length=4, seed=seed, wrong_share=0.5), 20))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_chains_are_distinct_and_spare_what_is_excluded() -> None:
    held_out = draw_chains(60, length=2, seed=1)
    excluded = frozenset(map(prompt_of, held_out))
    rest = draw_chains(40, length=2, seed=2, exclude=excluded)
    assert len(excluded) == 60
    # 60 and 40 of the 100 chains of two digits: together all of them, each once.
    assert {prompt_of(digits) for digits in rest} | excluded == {f"{a}+{b}=" for a in range(10) for b in range(10)}
    assert draw_chains(60, length=2, seed=1) == held_out


# ---------------------------------------------------------------- tokenizers


@given(st.text(alphabet="0123456789+=;#", max_size=40))
@settings(deadline=None, max_examples=50)
def test_every_character_of_the_task_is_one_token(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text
    assert not set(ids) & {TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}


def test_the_prompt_of_a_chain_is_its_text_alone() -> None:
    assert TOKENIZER.decode(encode_prompt(TOKENIZER, problem_of([3, 5, 8]).messages)) == "3+5+8="


def test_the_end_token_and_padding_are_not_characters() -> None:
    assert len(TOKENIZER) == 16
    assert TOKENIZER.eos_token_id != TOKENIZER.pad_token_id
    assert TOKENIZER.decode([TOKENIZER.eos_token_id], skip_special_tokens=True) == ""


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_text_goes_through_the_byte_tokenizer_unchanged(text: str) -> None:
    ids = BYTES(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert BYTES.decode(ids) == text


# ---------------------------------------------------------------- model folders


@pytest.mark.parametrize("kind", ["chain", "tiny", "tied"])
def test_a_model_folder_loads_with_transformers_alone(tmp_path: Path, kind: str) -> None:
    if kind == "chain":
        write_fresh_model(tmp_path, seed=0, hidden=16, layers=1, heads=2)
    else:
        write_tiny_model(tmp_path, seed=0, hidden=16, layers=1, tied=kind == "tied")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokenizer("3+5=8", return_tensors="pt")["input_ids"]
    logits = model(input_ids=ids).logits
    assert logits.shape[:2] == (1, 5)
    built = build_tokenizer() if kind == "chain" else build_byte_tokenizer()
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(built)
    assert logits.shape[2] == len(tokenizer)
    assert bool(torch.isfinite(logits).all())
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode(ids[0]) == "3+5=8"
    assert tokenizer.chat_template


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        write_fresh_model(tmp_path / name, seed=seed, hidden=16, layers=1, heads=2)
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert weights("a", 1) == weights("b", 1)
    assert weights("a", 1) != weights("c", 2)
