"""Supervised fine-tuning: the checkpoint that policy, PRM and reference start from. Loss on responses only.

Full-parameter training on the LM core that policy and PRM use: packed, with gradients accumulated over a batch, AdamW
and a cosine schedule after a warm-up. Under torchrun every process runs this, and the model is cut over all of them
(FSDP2). Behind `primectl sft`.
"""

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from prime.adapters.settings import ComputeSettings, Settings
from prime.data.prompts import encode_prompt
from prime.errors import CheckpointError, DataError, InputTooLong, SettingsError
from prime.files import write_file
from prime.lm.checkpoint import Snapshot, load_training_state, load_weights, save_model
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_tokenizer, pick_device, settle_torch
from prime.lm.packing import TokenRow
from prime.lm.training import Optimiser, lr_share
from prime.lm.world import World
from prime.types import Message

_METRICS_FILE = "sft_metrics.jsonl"


class SftSettings(Settings):
    """One SFT run. The optimiser defaults are the paper's."""

    model: Path
    """Hugging Face folder to start from."""
    data: Path
    """JSON lines: `{"prompt": [{"role", "content"}, ...], "response": text}`."""
    evaluation_data: Path | None = None
    """The same, to measure the loss on."""
    output: Path
    """Hugging Face folder to write, with `sft_metrics.jsonl` in it."""
    epochs: float = Field(3.0, gt=0)
    """How often all rows are seen."""
    steps: int = Field(0, ge=0)
    """Optimiser steps. 0: as many as `epochs` take."""
    batch_size: int = Field(96, ge=1)
    """Rows per optimiser step."""
    lr: float = Field(1e-5, gt=0)
    """Highest learning rate."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly. Then it falls along a cosine."""
    final_lr_share: float = Field(0.0, ge=0, le=1)
    """The rate of the last step, as a share of `lr`."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    max_tokens: int = Field(0, ge=0)
    """Tokens of a prompt with its response. 0: as many as the model has positions."""
    long_rows: Literal["refuse", "drop"] = "refuse"
    """What to do with a longer row: `refuse` ends with the row's number; `drop` leaves the row out."""
    evaluate_every: int = Field(0, ge=0)
    """Steps between evaluations. 0: only before the first and after the last step."""
    checkpoint_every: int = Field(0, ge=0)
    """Steps between checkpoints in `<output>.unfinished`, from which `--resume` continues. 0: none."""
    seed: int = 42
    """Order of the rows."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or another torch device name."""
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass. Changes memory and speed, not the result beyond rounding."""
    threads: int = Field(0, ge=0)
    """CPU threads. 0 leaves the choice to torch."""
    compute: ComputeSettings = ComputeSettings()
    """How the model is computed."""

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie until the end."""
        return self.output.with_name(f"{self.output.name}.unfinished")


@dataclass(frozen=True, slots=True, kw_only=True)
class SftStep:
    """One optimiser step: `SftStep(step=3, of=7180, loss=0.61, lr=4e-8, grad_norm=2.1, evaluation_loss=None)`."""

    step: int
    """0: nothing was learnt yet, only measured."""
    of: int
    loss: float | None
    """Mean over the batch's response tokens, before the step; nats."""
    lr: float
    grad_norm: float
    evaluation_loss: float | None
    """After the step, where it was measured."""


def run_sft(
    settings: SftSettings, on_step: Callable[[SftStep], None], *, resume: bool = False, world: World | None = None
) -> Path:
    """Train and write the folder; `on_step` hears of every step. In a world of several ranks all must call.

    Raises:
        SettingsError: something stands at `output` already, or an unfinished run that was not asked for.
        DataError: a row cannot be used; nothing is written.
        CheckpointError: the model folder holds no model, or there is nothing to resume.
    """
    _check_output(settings, resume=resume)
    tokenizer = load_tokenizer(settings.model)
    train = load_rows(settings.data, tokenizer)
    held_out = load_rows(settings.evaluation_data, tokenizer) if settings.evaluation_data is not None else []
    settle_torch(device=settings.device, threads=settings.threads)
    device, world = pick_device(settings.device), world or World()
    compute = Compute.on(device, **settings.compute.model_dump())
    lm = CausalLM(settings.model, device=device, compute=compute, world=world)
    train, held_out = (_fitting(rows, lm.max_positions, settings) for rows in (train, held_out))
    run = _Run(settings, lm, tokenizer, train, held_out)
    if resume:
        run.restore()
    for record in run.steps():
        on_step(record)
    save_model(lm, tokenizer, settings.output)
    if world.is_leader:
        write_file(settings.output / _METRICS_FILE, "".join(f"{json.dumps(each)}\n" for each in run.metrics))
        shutil.rmtree(settings.checkpoints, ignore_errors=True)
    return settings.output


def _check_output(settings: SftSettings, *, resume: bool) -> None:
    if settings.output.exists() and (not settings.output.is_dir() or any(settings.output.iterdir())):
        raise SettingsError(f"setting 'output' = {settings.output} exists and is not empty; choose another folder")
    is_begun = (settings.checkpoints / "latest").is_file()
    if is_begun and not resume:
        raise SettingsError(
            f"{settings.checkpoints} holds an unfinished run; go on with it by --resume, or remove the folder"
        )
    if resume and not is_begun:
        raise CheckpointError(f"--resume: {settings.checkpoints} holds no checkpoint; start without it")


class _Run:
    """Model, optimiser and how far they are."""

    def __init__(
        self, settings: SftSettings, lm: CausalLM, tokenizer: Any, train: list[TokenRow], held_out: list[TokenRow]
    ) -> None:
        self._settings, self._lm, self._tokenizer = settings, lm, tokenizer
        self._train, self._held_out = train, held_out
        self._of = settings.steps or math.ceil(settings.epochs * len(train) / settings.batch_size)
        self._optimiser = Optimiser(
            lm, lr=settings.lr, grad_clip=settings.grad_clip, weight_decay=settings.weight_decay
        )
        self._done = 0
        self.metrics: list[dict[str, Any]] = []

    def steps(self) -> Iterator[SftStep]:
        """Every step that is left."""
        settings = self._settings
        if not self._done and self._held_out:
            yield self._record(loss=None, lr=0.0, grad_norm=0.0)
        batches = islice(_endless_batches(self._train, settings.batch_size, settings.seed), self._done, self._of)
        for batch in batches:
            loss = _accumulate(self._lm, batch, settings.token_budget)
            self._done += 1
            lr = settings.lr * lr_share(
                self._done, steps=self._of, warmup_share=settings.warmup_share, final_share=settings.final_lr_share
            )
            norm = self._optimiser.step(lr=lr)
            yield self._record(loss=loss, lr=lr, grad_norm=norm)
            if settings.checkpoint_every and self._done % settings.checkpoint_every == 0 and self._done < self._of:
                self._save()

    def restore(self) -> None:
        """Go back to the last checkpoint.

        Raises:
            CheckpointError: it is torn, or of other settings or data.
        """
        folder = self._settings.checkpoints / (self._settings.checkpoints / "latest").read_text().strip()
        load_weights(self._lm, folder / "model")
        facts = load_training_state(self._lm, self._optimiser, folder / "state")
        if facts["identity"] != self._identity():
            raise CheckpointError(
                f"--resume: {folder} was made with other settings or data; give those that it was begun with"
            )
        self._done, self.metrics = facts["step"], facts["metrics"]

    def _save(self) -> None:
        name = f"step_{self._done}"
        folder = self._settings.checkpoints / name
        facts = {"step": self._done, "identity": self._identity(), "metrics": self.metrics}
        snapshot = Snapshot(
            self._lm,
            self._optimiser,
            self._tokenizer,
            model_folder=folder / "model",
            state_folder=folder / "state",
            facts=facts,
        )
        snapshot.wait()
        if not self._lm.world.is_leader:
            return
        write_file(self._settings.checkpoints / "latest", name)
        for older in self._settings.checkpoints.glob("step_*"):
            if older.name != name:
                shutil.rmtree(older, ignore_errors=True)

    def _record(self, *, loss: float | None, lr: float, grad_norm: float) -> SftStep:
        every = self._settings.evaluate_every
        is_time = self._done in (0, self._of) or (every > 0 and self._done % every == 0)
        record = SftStep(
            step=self._done,
            of=self._of,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            evaluation_loss=self._evaluation_loss() if self._held_out and is_time else None,
        )
        self.metrics.append({key: value for key, value in asdict(record).items() if value is not None})
        return record

    def _evaluation_loss(self) -> float:
        """Mean negative log-likelihood per response token."""
        found = self._lm.score_rows(self._held_out, token_budget=self._settings.token_budget)
        return -sum(float(logprobs_T.sum()) for logprobs_T in found) / sum(each.numel() for each in found)

    def _identity(self) -> str:
        """Of all that makes the steps what they are; where it runs, and how often it is measured, does not."""
        changing = {"output", "device", "threads", "evaluate_every", "checkpoint_every", "data", "evaluation_data"}
        text = self._settings.model_dump_json(exclude=changing)
        rows = hashlib.sha256(repr([(row.prompt_ids, row.response_ids) for row in self._train]).encode())
        return hashlib.sha256(f"{text} {rows.hexdigest()}".encode()).hexdigest()


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


def _fitting(rows: Sequence[TokenRow], positions: int, settings: SftSettings) -> list[TokenRow]:
    """The rows that are short enough.

    Raises:
        InputTooLong: one is not, and may not be dropped; or none is left.
    """
    most = min(settings.max_tokens or positions, positions)
    lengths = [len(row.prompt_ids) + len(row.response_ids) for row in rows]
    longest = max(lengths, default=0)
    if longest > most and settings.long_rows == "refuse":
        raise InputTooLong(
            f"row {lengths.index(longest) + 1} has {longest} tokens, over {most} (setting 'max_tokens', and the "
            f"positions of the model); set long_rows = 'drop' to train without such rows"
        )
    kept = [row for row, length in zip(rows, lengths, strict=True) if length <= most]
    if rows and not kept:
        raise InputTooLong(f"no row has at most {most} tokens (setting 'max_tokens', and the positions of the model)")
    return kept


def _endless_batches(rows: Sequence[TokenRow], batch_size: int, seed: int) -> Iterator[list[TokenRow]]:
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
    """Gradients of the mean negative log-likelihood per response token; returns it. Each rank does its share."""
    num_tokens = sum(len(row.response_ids) for row in rows)
    total = 0.0
    for pack in lm.packs(rows, token_budget=token_budget):
        loss = -lm.logprobs(pack).logprobs_N.sum() / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return float(lm.world.sum(torch.tensor(total, dtype=torch.float64)))
