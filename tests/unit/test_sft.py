"""Supervised fine-tuning: the schedule, that it learns, and what it refuses before anything is written."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.sft import SftSettings, load_rows, run_sft
from prime.data.chain import build_tokenizer, sft_texts, write_fresh_model
from prime.errors import CheckpointError, DataError, SettingsError
from prime.lm.training import lr_share

GOOD = {"prompt": [{"role": "user", "content": "3+5+8="}], "response": "3+5=8;8+8=6#6"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft") / "fresh"
    write_fresh_model(folder, seed=0, hidden=32, layers=1, heads=2)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = islice(sft_texts(length=3, seed=0, wrong_share=0.0), 64)
    rows = [{"prompt": [{"role": "user", "content": prompt}], "response": response} for prompt, response in texts]
    return _write(tmp_path_factory.mktemp("data") / "sft.jsonl", *map(json.dumps, rows))


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _settings(model: Path, data: Path, output: Path, **changes: Any) -> SftSettings:
    return SftSettings(
        **{
            "model": model,
            "data": data,
            "output": output,
            "steps": 12,
            "batch_size": 16,
            "lr": 1e-2,
            "device": "cpu",
            **changes,
        }
    )


def _schedule(**changes: Any) -> list[float]:
    settings = _settings(Path("m"), Path("d"), Path("o"), **changes)
    shares = {"warmup_share": settings.warmup_share, "final_share": settings.final_lr_share}
    return [lr_share(step, steps=settings.steps, **shares) for step in range(1, settings.steps + 1)]


# ---------------------------------------------------------------- the schedule


def test_the_learning_rate_warms_up_peaks_and_falls_to_its_end() -> None:
    shares = _schedule(steps=100, warmup_share=0.1, final_lr_share=0.05)
    assert shares[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert max(shares) == shares[9] == 1.0
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert 0.05 < shares[-1] < 0.06


def test_half_way_down_the_learning_rate_is_half_way_between_peak_and_end() -> None:
    assert _schedule(steps=20, warmup_share=0.0, final_lr_share=0.2)[10] == pytest.approx(0.6)


def test_without_a_warm_up_the_first_step_is_the_peak_and_the_last_still_learns() -> None:
    shares = _schedule(steps=10, warmup_share=0.0)
    assert shares[0] == 1.0
    assert shares[-1] > 0.0
    assert _schedule(steps=1, warmup_share=0.1) == [1.0]


# ---------------------------------------------------------------- training


def test_the_loss_falls_and_the_folder_loads_with_transformers_alone(model: Path, data: Path, tmp_path: Path) -> None:
    losses: list[tuple[int, float]] = []
    folder = run_sft(_settings(model, data, tmp_path / "out", steps=30), lambda step, loss: losses.append((step, loss)))
    assert folder == tmp_path / "out"
    assert [step for step, _ in losses] == list(range(1, 31))
    assert losses[-1][1] < 0.7 * losses[0][1]

    trained: Any = AutoModelForCausalLM.from_pretrained(folder)
    before: Any = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("3+5+8=3+5=8", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert not torch.allclose(trained(input_ids=ids).logits, before(input_ids=ids).logits)


def test_the_first_loss_is_the_mean_over_response_tokens_alone(model: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    rows = _write(tmp_path / "one.jsonl", json.dumps(GOOD))
    run_sft(_settings(model, rows, tmp_path / "out", steps=1, batch_size=1), lambda _, loss: losses.append(loss))
    tokenizer: Any = build_tokenizer()
    prompt, response = tokenizer("3+5+8=")["input_ids"], tokenizer("3+5=8;8+8=6#6")["input_ids"]
    ids = torch.tensor([[*prompt, *response, tokenizer.eos_token_id]])
    plain: Any = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        logits = plain(input_ids=ids).logits[0].float()
    start = len(prompt)
    expected = torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[0, start:])
    assert losses == [pytest.approx(float(expected), rel=1e-4)]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(model: Path, data: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        folder = run_sft(_settings(model, data, tmp_path / name, steps=4, seed=seed), lambda step, loss: None)
        return (folder / "model.safetensors").read_bytes()

    first = weights("a", 1)
    assert weights("b", 1) == first
    assert weights("c", 2) != first


def test_what_stands_at_the_output_is_never_overwritten(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("thesis")
    with pytest.raises(SettingsError, match="exists and is not empty"):
        run_sft(_settings(model, data, tmp_path, steps=1), lambda step, loss: None)
    assert (tmp_path / "mine").read_text() == "thesis"


def test_a_batch_larger_than_the_data_goes_round(model: Path, tmp_path: Path) -> None:
    rows = _write(tmp_path / "one.jsonl", json.dumps(GOOD))
    assert run_sft(_settings(model, rows, tmp_path / "out", steps=2, batch_size=5), lambda step, loss: None).is_dir()


# ---------------------------------------------------------------- rows


def test_an_end_token_closes_every_response(tmp_path: Path) -> None:
    tokenizer: Any = build_tokenizer()
    (row,) = load_rows(_write(tmp_path / "one.jsonl", json.dumps(GOOD)), tokenizer)
    assert tokenizer.decode(list(row.prompt_ids)) == "3+5+8="
    assert tokenizer.decode(list(row.response_ids[:-1])) == "3+5=8;8+8=6#6"
    assert row.response_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    "line",
    [
        "{torn",
        "",
        "[]",
        "4",
        json.dumps({"prompt": GOOD["prompt"]}),
        json.dumps({"response": "4"}),
        json.dumps({**GOOD, "prompt": []}),
        json.dumps({**GOOD, "prompt": "2+2="}),
        json.dumps({**GOOD, "prompt": [{"role": "user"}]}),
        json.dumps({**GOOD, "response": " "}),
        json.dumps({**GOOD, "response": None}),
        json.dumps({**GOOD, "response": 4}),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(model: Path, tmp_path: Path, line: str) -> None:
    rows = _write(tmp_path / "rows.jsonl", json.dumps(GOOD), line)
    with pytest.raises(DataError) as caught:
        run_sft(_settings(model, rows, tmp_path / "out"), lambda step, loss: None)
    assert f"{rows}, row 2: " in str(caught.value)
    assert list(tmp_path.iterdir()) == [rows]


def test_data_that_is_missing_or_empty_is_refused(model: Path, tmp_path: Path) -> None:
    for path, message in ((tmp_path / "no.jsonl", "does not exist"), (_write(tmp_path / "empty.jsonl"), "is empty")):
        with pytest.raises(DataError, match=message):
            run_sft(_settings(model, path, tmp_path / "out"), lambda step, loss: None)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        run_sft(_settings(tmp_path, data, tmp_path / "out"), lambda step, loss: None)
    assert not (tmp_path / "out").exists()
