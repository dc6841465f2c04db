"""Supervised fine-tuning: the schedule, that it learns, and what it refuses before anything is written."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.sft import SftSettings, SftStep, _endless_batches, load_rows, run_sft
from prime.data.chain import build_tokenizer, sft_texts, write_fresh_model
from prime.errors import CheckpointError, DataError, InputTooLong, SettingsError
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
    folder = run_sft(
        _settings(model, data, tmp_path / "out", steps=30), lambda step: losses.append((step.step, step.loss or 0.0))
    )
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
    run_sft(
        _settings(model, rows, tmp_path / "out", steps=1, batch_size=1), lambda step: losses.append(step.loss or 0.0)
    )
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
        folder = run_sft(_settings(model, data, tmp_path / name, steps=4, seed=seed), lambda step: None)
        return (folder / "model.safetensors").read_bytes()

    first = weights("a", 1)
    assert weights("b", 1) == first
    assert weights("c", 2) != first


def test_what_stands_at_the_output_is_never_overwritten(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("thesis")
    with pytest.raises(SettingsError, match="exists and is not empty"):
        run_sft(_settings(model, data, tmp_path, steps=1), lambda step: None)
    assert (tmp_path / "mine").read_text() == "thesis"


def test_a_batch_larger_than_the_data_goes_round(model: Path, tmp_path: Path) -> None:
    rows = _write(tmp_path / "one.jsonl", json.dumps(GOOD))
    assert run_sft(_settings(model, rows, tmp_path / "out", steps=2, batch_size=5), lambda step: None).is_dir()


def test_ten_steps_are_those_of_a_plain_transformers_loop(model: Path, data: Path, tmp_path: Path) -> None:
    """Rows one by one, unpacked, by `AutoModelForCausalLM` and `torch.optim.AdamW`; losses and weights to 1e-5."""
    settings = _settings(model, data, tmp_path / "out", steps=10, batch_size=12, lr=1e-3, weight_decay=0.01)
    ours: list[SftStep] = []
    run_sft(settings, ours.append)

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    plain: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adamw = torch.optim.AdamW(plain.parameters(), lr=settings.lr, betas=(0.9, 0.999), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw, lambda done: lr_share(done + 1, steps=10, warmup_share=0.1, final_share=0.0)
    )
    batches = _endless_batches(load_rows(data, tokenizer), 12, settings.seed)
    for step in range(10):
        rows = next(batches)
        count = sum(len(row.response_ids) for row in rows)
        total = 0.0
        for row in rows:
            ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
            labels = ids.clone()
            labels[:, : len(row.prompt_ids)] = -100
            loss = plain(input_ids=ids, labels=labels).loss * (len(row.response_ids) / count)
            loss.backward()
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.grad_clip))
        assert ours[step].loss == pytest.approx(total, abs=1e-5)
        assert ours[step].grad_norm == pytest.approx(norm, rel=1e-4)
        assert ours[step].lr == pytest.approx(schedule.get_last_lr()[0])
        adamw.step()
        schedule.step()
        adamw.zero_grad()
    trained: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    for (name, mine), (_, theirs) in zip(trained.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5), name


def test_steps_are_counted_by_epochs_and_partial_passes_change_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    ours: list[SftStep] = []
    run_sft(_settings(model, data, tmp_path / "a", steps=0, epochs=1.5, batch_size=20), ours.append)
    assert [(step.step, step.of) for step in ours] == [(number, 5) for number in range(1, 6)]  # 1.5 * 64 / 20
    small: list[SftStep] = []
    settings = _settings(model, data, tmp_path / "b", steps=0, epochs=1.5, batch_size=20, token_budget=64)
    run_sft(settings, small.append)
    assert [step.loss for step in small] == pytest.approx([step.loss for step in ours], abs=1e-5)


def test_the_evaluation_loss_is_that_of_the_held_out_rows_and_is_written_beside_the_model(
    model: Path, data: Path, tmp_path: Path
) -> None:
    held_out = _write(tmp_path / "held_out.jsonl", json.dumps(GOOD), json.dumps({**GOOD, "response": "3+5=8"}))
    ours: list[SftStep] = []
    settings = _settings(model, data, tmp_path / "out", steps=5, evaluation_data=held_out, evaluate_every=2)
    folder = run_sft(settings, ours.append)
    measured = {step.step: step.evaluation_loss for step in ours if step.evaluation_loss is not None}
    assert list(measured) == [0, 2, 4, 5]
    assert ours[0].loss is None
    for step, where in ((0, model), (5, folder)):
        plain: Any = AutoModelForCausalLM.from_pretrained(where)
        total, count = 0.0, 0
        for row in load_rows(held_out, AutoTokenizer.from_pretrained(model)):
            ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
            with torch.no_grad():
                logits = plain(input_ids=ids).logits[0].float()
            start = len(row.prompt_ids)
            total += float(torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[0, start:], reduction="sum"))
            count += len(row.response_ids)
        assert measured[step] == pytest.approx(total / count, rel=1e-4)
    lines = [json.loads(line) for line in (folder / "sft_metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert lines[5]["evaluation_loss"] == measured[5]


# ---------------------------------------------------------------- resuming


class _Cut(Exception):
    pass


def _run_until(settings: SftSettings, last: int) -> None:
    def on_step(step: SftStep) -> None:
        if step.step == last:
            raise _Cut

    with pytest.raises(_Cut):
        run_sft(settings, on_step)


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_cut(model: Path, data: Path, tmp_path: Path) -> None:
    whole: list[SftStep] = []
    run_sft(_settings(model, data, tmp_path / "whole", steps=8), whole.append)
    settings = _settings(model, data, tmp_path / "cut", steps=8, checkpoint_every=3)
    _run_until(settings, 5)
    assert not (tmp_path / "cut").exists()
    rest: list[SftStep] = []
    folder = run_sft(settings, rest.append, resume=True)
    assert [step.step for step in rest] == [4, 5, 6, 7, 8]
    assert rest == whole[3:]
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (folder / "sft_metrics.jsonl").read_text() == (tmp_path / "whole" / "sft_metrics.jsonl").read_text()
    assert not settings.checkpoints.exists()


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_by_other_settings(
    model: Path, data: Path, tmp_path: Path
) -> None:
    settings = _settings(model, data, tmp_path / "out", steps=8, checkpoint_every=2)
    _run_until(settings, 5)
    with pytest.raises(SettingsError, match="holds an unfinished run; go on with it by --resume"):
        run_sft(settings, lambda step: None)
    other = _settings(model, data, tmp_path / "out", steps=8, checkpoint_every=2, lr=1e-4)
    with pytest.raises(CheckpointError, match="was made with other settings or data"):
        run_sft(other, lambda step: None, resume=True)
    fewer = _write(tmp_path / "fewer.jsonl", *data.read_text().splitlines()[1:])
    with pytest.raises(CheckpointError, match="was made with other settings or data"):
        run_sft(_settings(model, fewer, tmp_path / "out", steps=8), lambda step: None, resume=True)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        run_sft(_settings(model, data, tmp_path / "new"), lambda step: None, resume=True)


# ---------------------------------------------------------------- rows


def test_rows_that_are_too_long_are_refused_or_dropped(model: Path, tmp_path: Path) -> None:
    long = json.dumps({**GOOD, "response": "3+5=8;" * 20})
    rows = _write(tmp_path / "rows.jsonl", json.dumps(GOOD), long)
    with pytest.raises(InputTooLong, match="row 2 has 127 tokens, over 40"):
        run_sft(_settings(model, rows, tmp_path / "out", max_tokens=40), lambda step: None)
    assert not (tmp_path / "out").exists()
    run_sft(_settings(model, rows, tmp_path / "out", max_tokens=40, long_rows="drop", steps=2), lambda step: None)
    with pytest.raises(InputTooLong, match="no row has at most 4 tokens"):
        run_sft(_settings(model, rows, tmp_path / "none", max_tokens=4, long_rows="drop"), lambda step: None)


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
        run_sft(_settings(model, rows, tmp_path / "out"), lambda step: None)
    assert f"{rows}, row 2: " in str(caught.value)
    assert list(tmp_path.iterdir()) == [rows]


def test_data_that_is_missing_or_empty_is_refused(model: Path, tmp_path: Path) -> None:
    for path, message in ((tmp_path / "no.jsonl", "does not exist"), (_write(tmp_path / "empty.jsonl"), "is empty")):
        with pytest.raises(DataError, match=message):
            run_sft(_settings(model, path, tmp_path / "out"), lambda step: None)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        run_sft(_settings(tmp_path, data, tmp_path / "out"), lambda step: None)
    assert not (tmp_path / "out").exists()
