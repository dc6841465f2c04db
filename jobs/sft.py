"""Supervised fine-tuning: the checkpoint that policy, PRM and reference start from. Loss on responses only."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from prime.adapters.settings import ComputeSettings, Settings
from prime.data.prompts import encode_prompt
from prime.errors import DataError, SettingsError
from prime.lm.checkpoint import save_model
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_tokenizer, pick_device, settle_torch
from prime.lm.packing import TokenRow
from prime.lm.training import Optimiser, lr_share
from prime.types import Message


class SftSettings(Settings):
    """One SFT run; the optimiser defaults are the paper's."""

    model: Path
    """Hugging Face folder to start from."""
    data: Path
    """JSONL: {"prompt": [{"role", "content"}, ...], "response": text}."""
    output: Path
    """Hugging Face folder to write."""
    steps: int = Field(ge=1)
    batch_size: int = Field(96, ge=1)
    lr: float = Field(1e-5, gt=0)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    final_lr_share: float = Field(0.0, ge=0, le=1)
    grad_clip: float = Field(1.0, gt=0)
    seed: int = 42
    device: str = "auto"
    token_budget: int = Field(16384, ge=1)
    threads: int = Field(0, ge=0)
    compute: ComputeSettings = ComputeSettings()


def run_sft(settings: SftSettings, on_step: Callable[[int, float], None]) -> Path:
    """Train and write the folder; `on_step(step, mean loss in nats per token)` after every step.

    Raises:
        SettingsError: something stands at `output` already.
        DataError: a row cannot be used; nothing is written.
        CheckpointError: the model folder holds no model.
    """
    if settings.output.exists() and (not settings.output.is_dir() or any(settings.output.iterdir())):
        raise SettingsError(f"setting 'output' = {settings.output} exists and is not empty; choose another folder")
    tokenizer = load_tokenizer(settings.model)
    rows = load_rows(settings.data, tokenizer)
    settle_torch(device=settings.device, threads=settings.threads)
    device = pick_device(settings.device)
    lm = CausalLM(settings.model, device=device, compute=Compute.on(device, **settings.compute.model_dump()))
    optimiser = Optimiser(lm, lr=settings.lr, grad_clip=settings.grad_clip)
    batches = _endless_batches(rows, settings.batch_size, settings.seed)
    for step in range(1, settings.steps + 1):
        loss = _accumulate(lm, next(batches), settings.token_budget)
        share = lr_share(
            step, steps=settings.steps, warmup_share=settings.warmup_share, final_share=settings.final_lr_share
        )
        optimiser.step(lr=settings.lr * share)
        on_step(step, loss)
    save_model(lm, tokenizer, settings.output)
    return settings.output


def load_rows(path: Path, tokenizer: Any) -> list[TokenRow]:
    """Prompt and response ids of every line; the end token closes each response.

    Raises:
        DataError: the file is missing or empty, or a line is not a prompt with a response.
    """
    if not path.is_file():
        raise DataError(f"SFT data {path} does not exist")
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            rows.append(_parse(line, f"{path}, row {number}", tokenizer))
    if not rows:
        raise DataError(f"SFT data {path} is empty")
    return rows


def _parse(line: bytes, where: str, tokenizer: Any) -> TokenRow:
    try:
        tree = json.loads(line)
        messages = [Message(role=turn["role"], content=turn["content"]) for turn in tree["prompt"]]
        response = tree["response"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: needs 'prompt' (a list of messages) and 'response' (text): {error}") from None
    texts = [response, *(text for message in messages for text in (message.role, message.content))]
    if not messages or not all(isinstance(text, str) for text in texts) or not response.strip():
        raise DataError(f"{where}: 'prompt' and 'response' must be text and not empty")
    prompt_ids = encode_prompt(tokenizer, messages)
    if not prompt_ids:
        raise DataError(f"{where}: the prompt encodes to no token")
    response_ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    return TokenRow(prompt_ids=prompt_ids, response_ids=(*response_ids, tokenizer.eos_token_id))


def _endless_batches(rows: Sequence[TokenRow], batch_size: int, seed: int) -> Any:
    random_source = random.Random(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch_size:
            epoch = list(range(len(rows)))
            random_source.shuffle(epoch)
            waiting += epoch
        yield [rows[number] for number in waiting[:batch_size]]
        waiting = waiting[batch_size:]


def _accumulate(lm: CausalLM, rows: Sequence[TokenRow], token_budget: int) -> float:
    """Gradients of the mean negative log-likelihood per response token; returns it."""
    num_tokens = sum(len(row.response_ids) for row in rows)
    total = 0.0
    for pack in lm.packs(rows, token_budget=token_budget):
        loss = -lm.logprobs(pack).logprobs_N.sum() / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total
