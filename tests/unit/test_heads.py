"""PRMs with reward heads give what transformers alone gives, whatever stands beside a candidate."""

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForTokenClassification, LlamaForSequenceClassification
from transformers import LlamaForTokenClassification as TokenClassifier

from prime.data.prm_config import write_prm_config
from prime.errors import CheckpointError, InputTooLong, InvalidInput, SettingsError, TookTooLong
from prime.lm.heads import kind_of
from prime.scoring import (
    Activation,
    Aggregation,
    Candidate,
    PrmConfig,
    PrmKind,
    Prompt,
    ScoringReply,
    ScoringRequest,
    StepSplit,
    Truncation,
)
from prime.types import PrmGroup, ReferenceSource
from primectl.serve_prm import prm_settings
from services.prm.head_model import HeadPrm
from services.prm.main import open_scorer
from services.prm.scoring import PrmScorer
from services.prm.settings import ApiSettings, PrmSettings
from tests.builders import tiny_model
from tests.heads import MARK, chat_tokenizer, plain_probabilities, qwen_prm, sequence_classifier, token_classifier

QUESTION = "What is 7 * 8?"
RENDERED = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
ANSWERS = (
    ("7 * 8 = 56", "So it is 56."),
    ("7 * 8 = 54", "Hence 54,\nor so.", "It is 54."),
    ("56",),
)


def _scorer(folder: Path, **settings: Any) -> PrmScorer:
    given = {"frozen": True, "reference_mode": "none", "device": "cpu"} | settings
    return open_scorer(PrmSettings(**given), model=folder)


async def _score(scorer: PrmScorer, *candidates: Candidate, **options: Any) -> ScoringReply:
    return await scorer.score(ScoringRequest(prompt=Prompt(text=QUESTION), candidates=candidates, **options))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _values(reply: ScoringReply) -> list[list[float]]:
    return [[_sigmoid(step.reward) for step in candidate.steps] for candidate in reply.candidates]


# ---------------------------------------------------------------- Qwen's process reward model


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen_prm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def qwen_scorer(qwen: Path) -> PrmScorer:
    return _scorer(qwen)


def _marked(steps: Sequence[str]) -> str:
    return RENDERED + "".join(step + MARK for step in steps) + "<|im_end|>\n"


async def test_steps_are_probabilities_as_in_qwens_own_code(qwen: Path, qwen_scorer: PrmScorer) -> None:
    tokenizer = chat_tokenizer(MARK)
    expected = [plain_probabilities(qwen, tokenizer, _marked(steps)) for steps in ANSWERS]
    assert max(max(row) for row in expected) - min(min(row) for row in expected) > 0.1
    by_steps = await _score(qwen_scorer, *(Candidate(steps=steps) for steps in ANSWERS))
    by_text = await _score(qwen_scorer, *(Candidate(text="\n\n".join(steps)) for steps in ANSWERS))
    for reply in (by_steps, by_text):
        for found, row in zip(_values(reply), expected, strict=True):
            assert found == pytest.approx(row, abs=1e-5)
        assert [each.score for each in reply.candidates] == pytest.approx([min(row) for row in expected], abs=1e-5)
        products = [each.aggregates["prod"] for each in reply.candidates]
        assert products == pytest.approx([math.prod(row) for row in expected], abs=1e-5)
        assert (reply.reference_id, reply.beta, reply.is_probability) == ("none", 1.0, True)


async def test_neighbours_and_passes_change_nothing(qwen: Path, qwen_scorer: PrmScorer) -> None:
    together = await _score(qwen_scorer, *(Candidate(steps=steps) for steps in ANSWERS))
    narrow = _scorer(qwen, token_budget=16)
    for number, steps in enumerate(ANSWERS):
        alone = await _score(narrow, Candidate(steps=steps))
        assert _values(alone)[0] == pytest.approx(_values(together)[number], abs=1e-5)


async def test_marks_belong_to_their_steps_and_offsets_to_the_clients_text(qwen_scorer: PrmScorer) -> None:
    text = "7 * 8 = 56\n\nSo it is 56."
    reply = await _score(qwen_scorer, Candidate(text=text))
    [candidate] = reply.candidates
    mark = chat_tokenizer(MARK).convert_tokens_to_ids(MARK)
    places = [place for place, token in enumerate(candidate.token_ids) if token == mark]
    assert [step.span.token_end - 1 for step in candidate.steps] == places
    assert [text[step.span.char_start : step.span.char_end] for step in candidate.steps] == [
        "7 * 8 = 56\n\n",
        "So it is 56.",
    ]
    assert [place for place, reward in enumerate(candidate.token_rewards) if reward] == places


async def test_a_text_with_marks_is_cut_at_them_alone(qwen: Path, qwen_scorer: PrmScorer) -> None:
    tokenizer = chat_tokenizer(MARK)
    text = f"First:\n\n7 * 8{MARK} = 56 {MARK}"
    expected = plain_probabilities(qwen, tokenizer, RENDERED + text)
    for closed in (text, text.removesuffix(MARK), f"{text}<|im_end|>\n", f"{text}<|im_end|><|pad|>"):
        reply = await _score(qwen_scorer, Candidate(text=closed))
        assert _values(reply)[0] == pytest.approx(expected, abs=1e-5)
        assert reply.candidates[0].steps[-1].span.char_end == len(closed)


async def test_token_ids_are_read_at_their_marks(qwen: Path, qwen_scorer: PrmScorer) -> None:
    tokenizer = chat_tokenizer(MARK)
    ids = tuple(tokenizer(f"a{MARK}b{MARK}<|im_end|>", add_special_tokens=False)["input_ids"])
    expected = plain_probabilities(qwen, tokenizer, f"{RENDERED}a{MARK}b{MARK}<|im_end|>")
    by_marks = await _score(qwen_scorer, Candidate(token_ids=ids), Candidate(token_ids=ids, step_ends=(2, 5)))
    for found in _values(by_marks):
        assert found == pytest.approx(expected, abs=1e-5)
    merged = await _score(qwen_scorer, Candidate(token_ids=ids, step_ends=(5,)))
    assert _values(merged)[0] == pytest.approx(expected[-1:], abs=1e-5)
    for wrong in (Candidate(token_ids=ids[:1]), Candidate(token_ids=ids, step_ends=(1, 5))):
        with pytest.raises(InvalidInput, match="step 0 of a response in token ids holds no step mark"):
            await _score(qwen_scorer, wrong)


async def test_truncation_keeps_whole_steps_or_drops_the_prompts_beginning(qwen: Path) -> None:
    tokenizer = chat_tokenizer(MARK)
    steps = ANSWERS[1]
    whole = tokenizer("".join(step + MARK for step in steps), add_special_tokens=False)["input_ids"]
    prompt = tokenizer(RENDERED, add_special_tokens=False)["input_ids"]
    most = len(prompt) + len(whole) - 2
    scorer = _scorer(qwen, api=ApiSettings(max_tokens=most))
    with pytest.raises(InputTooLong):
        await _score(scorer, Candidate(steps=steps))
    right = await _score(scorer, Candidate(steps=steps), truncation=Truncation.RIGHT)
    expected = plain_probabilities(qwen, tokenizer, _marked(steps))
    assert right.candidates[0].truncated
    assert _values(right)[0] == pytest.approx(expected[:2], abs=1e-5)
    left = await _score(scorer, Candidate(steps=steps), Candidate(steps=("56",)), truncation=Truncation.LEFT)
    cut = plain_probabilities(qwen, tokenizer, tokenizer.decode(prompt[2:]) + "".join(step + MARK for step in steps))
    assert _values(left)[0] == pytest.approx(cut, abs=1e-5)
    assert _values(left)[1] == pytest.approx(plain_probabilities(qwen, tokenizer, _marked(["56"])), abs=1e-5)
    narrow = _scorer(qwen, api=ApiSettings(max_tokens=len(prompt) + 5))
    with pytest.raises(InputTooLong, match="there is room for 5"):
        await _score(narrow, Candidate(steps=steps), truncation=Truncation.RIGHT)


async def test_of_a_long_response_whole_steps_are_read(qwen: Path, qwen_scorer: PrmScorer) -> None:
    tokenizer = chat_tokenizer(MARK)
    steps = ANSWERS[1]
    two = len(tokenizer("".join(step + MARK for step in steps[:2]), add_special_tokens=False)["input_ids"])
    reply = await _score(qwen_scorer, Candidate(steps=steps), Candidate(steps=("56",)), max_response_tokens=two + 1)
    assert [each.truncated for each in reply.candidates] == [True, False]
    assert len(reply.candidates[0].token_ids) == two
    assert _values(reply)[0] == pytest.approx(plain_probabilities(qwen, tokenizer, _marked(steps))[:2], abs=1e-5)
    with pytest.raises(InputTooLong, match=r"ends at its token 11, and there is room for 4; .* let more tokens"):
        await _score(qwen_scorer, Candidate(steps=steps), max_response_tokens=4)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"reference": ReferenceSource.SUPPLIED}, "no log-ratios"), ({"beta": 0.5}, "no scale to choose")],
)
async def test_what_a_head_has_not_is_refused(qwen_scorer: PrmScorer, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=f"step_head.*{text}"):
        await _score(qwen_scorer, Candidate(text="a"), **options)
    assert (await _score(qwen_scorer, Candidate(text="a"), beta=1.0, reference=ReferenceSource.NONE)).beta == 1.0


def test_a_head_is_neither_trained_nor_saved(qwen: Path, tmp_path: Path) -> None:
    settings = PrmSettings(frozen=True, reference_mode="none", device="cpu")
    prm = HeadPrm(settings, start=qwen)
    group = PrmGroup(group_id="", prompt_ids=(5,), responses=((6,),))
    with pytest.raises(InvalidInput, match="learns nothing here"):
        prm.learn([group], [1.0])
    with pytest.raises(InvalidInput, match="learns nothing here"):
        prm.begin_save(tmp_path / "step_1")
    with pytest.raises(InvalidInput, match="learns nothing here"):
        prm.restore(None)
    with pytest.raises(InvalidInput, match="no log-ratios"):
        prm.score([PrmGroup(group_id="", prompt_ids=(5,), responses=((6,),), reference=ReferenceSource.MODEL)])


def test_what_nobody_waits_for_is_computed_no_further_than_the_pass_that_is_under_way(qwen: Path) -> None:
    prm = HeadPrm(PrmSettings(frozen=True, reference_mode="none", device="cpu", token_budget=1), start=qwen)
    passes = 0

    def is_wanted() -> bool:
        nonlocal passes
        passes += 1
        return passes <= 2

    group = PrmGroup(group_id="", prompt_ids=(5,), responses=((6,), (7,), (8,), (9,)))
    with pytest.raises(TookTooLong):
        prm.score([group], is_wanted=is_wanted)
    assert passes == 3


def test_passes_side_by_side_give_what_they_give_alone(qwen: Path) -> None:
    prm = HeadPrm(PrmSettings(frozen=True, reference_mode="none", device="cpu"), start=qwen)
    assert prm.scores_side_by_side
    mark = chat_tokenizer(MARK).convert_tokens_to_ids(MARK)
    groups = [
        PrmGroup(group_id="", prompt_ids=(5, 6, number), responses=((7, mark), (*range(9, 9 + 2 * number), mark)))
        for number in range(1, 25)
    ]
    alone = [prm.score([group]).rewards for group in groups]
    with ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(lambda group: prm.score([group]).rewards, groups))
    for ours, theirs in zip(beside, alone, strict=True):
        for row, expected in zip(ours, theirs, strict=True):
            assert row == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"frozen": False}, "set prm.frozen"),
        ({"reference_mode": "freeze"}, "set prm.reference_mode to 'none'"),
        ({"beta": 0.05}, "leave prm.beta empty"),
    ],
)
def test_settings_that_a_head_has_not_are_refused(qwen: Path, given: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        _scorer(qwen, **given)


def test_serve_prm_wants_no_word_on_a_heads_reference(qwen: Path, tmp_path: Path) -> None:
    assert prm_settings(qwen, None, []).reference_mode == "none"
    with pytest.raises(SettingsError, match="leave it out"):
        prm_settings(qwen, str(qwen), [])
    with pytest.raises(SettingsError, match="--reference is missing"):
        prm_settings(tiny_model(tmp_path / "causal"), None, [])


# ---------------------------------------------------------------- token and sequence classifiers


@torch.no_grad()
def _plain_trl(folder: Path, prompt: str, steps: Sequence[str]) -> list[float]:
    """As TRL's PRMTrainer encodes and labels them: step and separator apart, the label at the separator."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids, places = list(tokenizer(prompt, add_special_tokens=False)["input_ids"]), []
    for step in steps:
        ids += [*tokenizer(step, add_special_tokens=False)["input_ids"], *tokenizer("\n")["input_ids"]]
        places.append(len(ids) - 1)
    model = TokenClassifier.from_pretrained(folder).eval()
    probabilities = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)[:, 1]
    return [float(probabilities[place]) for place in places]


async def test_a_token_classifier_is_read_at_trls_separator(tmp_path: Path) -> None:
    folder = token_classifier(tmp_path / "trl")
    scorer = _scorer(folder)
    expected = [_plain_trl(folder, QUESTION, steps) for steps in ANSWERS]
    request = ScoringRequest(
        prompt=Prompt(text=QUESTION, rendered=True),
        # Steps may hold line breaks of their own, which are no marks.
        candidates=tuple(Candidate(steps=steps) for steps in ANSWERS),
    )
    for found, row in zip(_values(await scorer.score(request)), expected, strict=True):
        assert found == pytest.approx(row, abs=1e-5)


@torch.no_grad()
def _plain_sequence(folder: Path, answer: str) -> list[float]:
    tokenizer = chat_tokenizer()
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    logits: list[float] = model(input_ids=torch.tensor([ids])).logits[0].tolist()
    return logits


@pytest.mark.parametrize("labels", [1, 2])
async def test_a_sequence_classifier_reads_the_whole_conversation(tmp_path: Path, labels: int) -> None:
    folder = sequence_classifier(tmp_path / "rm", labels=labels)
    scorer = _scorer(folder)
    texts = ["7 * 8 = 56\n\nSo it is 56.", "54", "It is\n\n\n57."]
    expected = [_plain_sequence(folder, text) for text in texts]
    rewards = [row[0] if labels == 1 else row[1] - row[0] for row in expected]
    reply = await _score(scorer, *(Candidate(text=text) for text in texts))
    assert [each.score for each in reply.candidates] == pytest.approx(rewards, abs=1e-5)
    assert [len(each.steps) for each in reply.candidates] == [1, 1, 1]
    assert not reply.is_probability
    sampled = await _score(scorer, Candidate(text=f"{texts[0]}<|im_end|>"))
    assert sampled.candidates[0].score == pytest.approx(rewards[0], abs=1e-5)
    # What closes an answer is not counted: this many tokens are all of it.
    length = len(texts[0])
    whole, cut = [await _score(scorer, Candidate(text=texts[0]), max_response_tokens=most) for most in (length, 9)]
    assert whole.candidates[0].score == pytest.approx(rewards[0], abs=1e-5)
    assert (whole.candidates[0].truncated, cut.candidates[0].truncated) == (False, True)
    assert len(cut.candidates[0].token_ids) == 9
    info = await scorer.info()
    assert (info.kind, info.config.closing) == (PrmKind.SEQUENCE_HEAD, "<|im_end|>\n")


async def test_a_folders_own_reading_counts(tmp_path: Path) -> None:
    folder = token_classifier(tmp_path / "trl")
    reading = PrmConfig(
        beta=1.0, step_mark=" ки", activation=Activation.NONE, aggregation=Aggregation.LAST, separators=(";",)
    )
    write_prm_config(reading, folder)
    reply = await _score(_scorer(folder), Candidate(text="a;b"), split=StepSplit(separators=(";",)))
    [candidate] = reply.candidates
    assert candidate.score == candidate.steps[-1].reward
    assert len(candidate.token_ids) == 2 * (1 + len(" ки".encode())) + 1


# ---------------------------------------------------------------- folders


def test_the_kind_is_what_config_json_says(qwen: Path, tmp_path: Path) -> None:
    assert kind_of(qwen) is PrmKind.STEP_HEAD
    assert kind_of(token_classifier(tmp_path / "trl")) is PrmKind.STEP_HEAD
    assert kind_of(sequence_classifier(tmp_path / "rm")) is PrmKind.SEQUENCE_HEAD
    assert kind_of(tiny_model(tmp_path / "causal")) is PrmKind.IMPLICIT
    (tmp_path / "rm" / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no model's configuration"):
        kind_of(tmp_path / "rm")


def _rename(folder: Path, old: str, new: str) -> None:
    file = folder / "model.safetensors"
    weights = {name.replace(old, new): tensor for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [("score.", "value.", "its head has the weights"), ("model.layers.0.", "model.other.0.", "lacks weights")],
)
def test_a_folder_without_its_weights_is_refused(tmp_path: Path, old: str, new: str, text: str) -> None:
    folder = token_classifier(tmp_path / "trl")
    _rename(folder, old, new)
    with pytest.raises(CheckpointError, match=text):
        _scorer(folder)


def test_a_classifier_of_three_labels_is_no_reward(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="3 labels"):
        _scorer(sequence_classifier(tmp_path / "rm", labels=3))


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,
    )
    BertForTokenClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is no decoder"):
        _scorer(tmp_path)


@pytest.mark.parametrize(("more", "text"), [({"beta": 0.05}, "beta in prm_config"), ({"step_mark": ""}, "step_mark")])
def test_a_reading_that_does_not_fit_the_head_is_refused(tmp_path: Path, more: dict[str, Any], text: str) -> None:
    folder = token_classifier(tmp_path / "trl")
    (folder / "prm_config.json").write_text(json.dumps(more))
    with pytest.raises(CheckpointError, match=text):
        _scorer(folder)


def test_a_causal_lm_has_no_marks(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "causal")
    (folder / "prm_config.json").write_text(json.dumps({"step_mark": MARK}))
    with pytest.raises(CheckpointError, match="of heads"):
        _scorer(folder)
