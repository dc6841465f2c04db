"""Offline training of an implicit PRM: response-level labels (ImplicitPRM, arXiv 2412.01981), step-level continuation
(EurusPRM's second stage). The result is a folder that the scoring service serves as it is. Behind `primectl train-prm`.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.prm_examples import Example, ask_reference, load_examples
from prime.adapters.settings import ComputeSettings, Settings
from prime.errors import SettingsError, TokenizerMismatch
from prime.lm.checkpoint import save_model
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_tokenizer, pick_device, settle_torch, tokenizer_fingerprint
from prime.lm.training import Optimiser, lr_share
from prime.maths.prm_diagnostics import pair_accuracy
from prime.maths.prm_losses import cross_entropy, pairwise_dpo, prefix_cross_entropy, prefix_values
from prime.scoring import Aggregation, PrmConfig, StepValue


class TrainPrmSettings(Settings):
    """One PRM training. The defaults are ImplicitPRM's."""

    model: Path
    """Hugging Face folder to start from."""
    reference: Path | None = None
    """Hugging Face folder of the frozen reference. Empty: the model itself. To continue the training of a PRM, name
    what it was trained against."""
    data: tuple[Path, ...] = Field(min_length=1)
    """JSONL or parquet files, in one of the forms of `docs/prm-api.md`."""
    output: Path
    """Hugging Face folder to write."""
    loss: Literal["ce", "dpo", "prefix"] = "ce"
    """Loss on response-level labels. `ce`: cross-entropy. `dpo`: pairs every better response of a prompt with every
    worse one. `prefix`: the mean reward of every prefix predicts the outcome (IPVRM: `beta = 10`, `margin = 5`)."""
    margin: float = Field(0.0, ge=0)
    """How far beyond 0 the log-odds of an outcome should be, on either side. With `ce` and `prefix`."""
    prefix_emphasis: Literal["even", "early", "late"] = "even"
    """Which prefixes count more with `loss = "prefix"`."""
    step_value: StepValue = StepValue.CUMULATIVE
    """What a step label means. `cumulative`: everything is right up to here, which is how ProcessBench reads it.
    `delta`: this step is right."""
    beta: float = Field(0.05, gt=0)
    """Scale of the log-ratio."""
    epochs: int = Field(1, ge=1)
    """How often all rows are seen."""
    batch_size: int = Field(64, ge=1)
    """Responses per optimiser step. With `dpo`, whole prompts until there are this many responses."""
    lr: float = Field(5e-7, gt=0)
    """Highest learning rate."""
    warmup_share: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly. Then it falls along a cosine."""
    final_lr_share: float = Field(0.1, ge=0, le=1)
    """The rate of the last step, as a share of `lr`."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    holdout_share: float = Field(0.0, ge=0, lt=1)
    """Share of the prompts that is not trained on. Loss and pair accuracy on it are measured before and after."""
    separator: str = Field("\n\n", min_length=1)
    """Text between steps."""
    end_token: bool = True
    """Whether the end token closes a response and has a reward."""
    aggregation: Aggregation = Aggregation.SUM
    """What the folder's `prm_config.json` names as the score."""
    max_tokens: int = Field(0, ge=0)
    """Tokens of a prompt with one response. 0: as many as the model has positions."""
    long_rows: Literal["refuse", "drop"] = "refuse"
    """What to do with a longer response: `refuse` ends with the row's name; `drop` leaves it out and counts it."""
    seed: int = 42
    """Order of the rows, and which are held out."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or another torch device name."""
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass. Changes memory and speed, not the result beyond rounding."""
    threads: int = Field(0, ge=0)
    """CPU threads. 0 leaves the choice to torch."""
    compute: ComputeSettings = ComputeSettings()
    """How the model is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A measurement over the held-out prompts: mean loss, share of pairs in the right order."""

    loss: float
    pair_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it."""

    output: Path
    steps: int
    examples: int
    dropped: int
    before: Figures | None
    """None without held-out prompts."""
    after: Figures | None


def run_train_prm(settings: TrainPrmSettings, on_step: Callable[[int, int, float], None]) -> Trained:
    """Train and write the folder; `on_step(step, of, loss before it)` after every optimiser step.

    Raises:
        SettingsError: something stands at `output` already.
        DataError: a row cannot be used; nothing is written.
        CheckpointError: a folder holds no model.
        TokenizerMismatch: model and reference do not share a tokenizer.
    """
    if settings.output.exists() and (not settings.output.is_dir() or any(settings.output.iterdir())):
        raise SettingsError(f"setting 'output' = {settings.output} exists and is not empty; choose another folder")
    tokenizer = load_tokenizer(settings.model)
    reference_folder = settings.reference or settings.model
    if tokenizer_fingerprint(load_tokenizer(reference_folder)) != tokenizer_fingerprint(tokenizer):
        raise TokenizerMismatch(f"model {settings.model} and reference {reference_folder} do not share one tokenizer")
    settle_torch(device=settings.device, threads=settings.threads)
    device = pick_device(settings.device)
    compute = Compute.on(device, **settings.compute.model_dump())
    lm = CausalLM(settings.model, device=device, compute=compute)
    max_tokens = min(settings.max_tokens or lm.max_positions, lm.max_positions)
    examples, dropped = load_examples(
        settings.data,
        tokenizer,
        separator=settings.separator,
        end_token=settings.end_token,
        max_tokens=max_tokens,
        drop_long=settings.long_rows == "drop",
    )
    reference = CausalLM(reference_folder, device=device, compute=Compute(dtype=compute.dtype))
    examples, reference_id = ask_reference(reference, examples, token_budget=settings.token_budget), reference.digest()
    del reference  # its memory is the gradients' now
    train, held_out = _split(examples, settings)
    learner = _Learner(lm, settings)
    before = learner.measure(held_out)
    batches = list(_batches(train, settings))
    for step, batch in enumerate(batches, start=1):
        share = lr_share(
            step, steps=len(batches), warmup_share=settings.warmup_share, final_share=settings.final_lr_share
        )
        on_step(step, len(batches), learner.step(batch, lr=settings.lr * share))
    trained_with = {
        "loss": settings.loss,
        "reference": reference_id,
        "responses": len(train),
        "steps": len(batches),
        "with_step_labels": any(example.labels for example in train),
    }
    config = PrmConfig(
        beta=settings.beta,
        aggregation=settings.aggregation,
        separators=(settings.separator,),
        end_token=settings.end_token,
        trained_with=trained_with,
    )
    save_model(lm, tokenizer, settings.output, prm_config=config)
    return Trained(
        output=settings.output,
        steps=len(batches),
        examples=len(train),
        dropped=dropped,
        before=before,
        after=learner.measure(held_out),
    )


# ---------------------------------------------------------------- the loss


def batch_loss(
    ratios: Sequence[Tensor], batch: Sequence[Example], settings: TrainPrmSettings, *, of: int | None = None
) -> Tensor:
    """Mean loss per response, of the log-ratios `log pi_prm - log pi_ref` per token ([T] each). Scalar.

    `of`: how many responses the whole batch has, when these are a part of it.

    With an outcome the logit is `beta` times the response's sum (CE or, within a prompt, DPO), or for every prefix
    `beta` times its mean. With step labels it is
    `beta` times the sum up to the step's end (or of the step alone), and a response counts as the mean of its steps.
    """
    whole = [number for number, example in enumerate(batch) if example.outcome is not None]
    loss, of = torch.zeros(()), of or len(batch)
    if whole:
        logits_B = torch.stack([settings.beta * ratios[number].sum() for number in whole])
        outcomes_B = torch.tensor([batch[number].outcome or 0.0 for number in whole])
        match settings.loss:
            case "dpo":
                group_B = torch.tensor([batch[number].group for number in whole])
                loss = loss + pairwise_dpo(logits_B, outcomes_B, group_B) * (len(whole) / of)
            case "ce":
                loss = loss + cross_entropy(logits_B, outcomes_B, margin=settings.margin) / of
            case "prefix":
                lengths_B = torch.tensor([len(ratios[number]) for number in whole])
                values_N = prefix_values(torch.cat([ratios[number] for number in whole]), lengths_B, beta=settings.beta)
                total = prefix_cross_entropy(
                    values_N, outcomes_B, lengths_B, emphasis=settings.prefix_emphasis, margin=settings.margin
                )
                loss = loss + total / of
    for ratio_T, example in zip(ratios, batch, strict=True):
        if example.labels:
            logits_S = settings.beta * step_sums(ratio_T, example.ends, settings.step_value)
            loss = loss + cross_entropy(logits_S, torch.tensor(example.labels)) / len(example.labels) / of
    return loss


def step_sums(values_T: Tensor, ends: Sequence[int], step_value: StepValue) -> Tensor:
    """Sums up to the end of every step, or over each step alone. [S].

    Example: values (1, 2, 3, 4) with ends (2, 4): cumulative (3, 10), delta (3, 7).
    """
    cumulative_S = values_T.cumsum(dim=0)[torch.tensor(ends) - 1]
    if step_value is StepValue.CUMULATIVE:
        return cumulative_S
    return torch.diff(cumulative_S, prepend=cumulative_S.new_zeros(1))


class _Learner:
    """The model with its optimiser."""

    def __init__(self, lm: CausalLM, settings: TrainPrmSettings) -> None:
        self._lm = lm
        self._settings = settings
        self._optimiser = Optimiser(lm, lr=settings.lr, grad_clip=settings.grad_clip, betas=(0.9, 0.95))

    def step(self, batch: Sequence[Example], *, lr: float) -> float:
        """One optimiser step; returns the loss before it.

        How responses fall into packs changes nothing (ADR 9). CE is a sum over responses, so each pack has its part of
        it, in one pass. DPO couples responses: its gradient towards every token's log-ratio is taken first, over the
        whole batch, and then carried through each pack.
        """
        loss = self._coupled(batch) if self._settings.loss == "dpo" else self._separate(batch)
        self._optimiser.step(lr=lr)
        return loss

    def _separate(self, batch: Sequence[Example]) -> float:
        total = 0.0
        for pack in self._lm.packs([each.row for each in batch], token_budget=self._settings.token_budget):
            examples = [batch[number] for number in pack.rows]
            own = torch.split(self._lm.logprobs(pack).logprobs_N, list(pack.response_lengths))
            ratios = [mine_T.cpu() - each.known_reference for mine_T, each in zip(own, examples, strict=True)]
            loss = batch_loss(ratios, examples, self._settings, of=len(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _coupled(self, batch: Sequence[Example]) -> float:
        ratios = [ratio_T.requires_grad_() for ratio_T in self._ratios(batch)]
        loss = batch_loss(ratios, batch, self._settings)
        towards = torch.autograd.grad(loss, ratios)
        rows = [example.row for example in batch]
        for pack in self._lm.packs(rows, token_budget=self._settings.token_budget):
            towards_N = torch.cat([towards[number] for number in pack.rows]).to(self._lm.device)
            (self._lm.logprobs(pack).logprobs_N @ towards_N).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def measure(self, examples: Sequence[Example]) -> Figures | None:
        """Loss and pair accuracy; None without examples."""
        if not examples:
            return None
        ratios = self._ratios(examples)
        sums_B = torch.stack([ratio_T.sum() for ratio_T in ratios])
        known = [number for number, example in enumerate(examples) if example.outcome is not None]
        accuracy = pair_accuracy(
            sums_B[known],
            torch.tensor([examples[number].outcome or 0.0 for number in known]),
            torch.tensor([examples[number].group for number in known]),
        )
        return Figures(loss=float(batch_loss(ratios, examples, self._settings)), pair_accuracy=accuracy)

    def _ratios(self, examples: Sequence[Example]) -> list[Tensor]:
        rows = [example.row for example in examples]
        own = self._lm.score_rows(rows, token_budget=self._settings.token_budget)
        return [mine_T - example.known_reference for mine_T, example in zip(own, examples, strict=True)]


# ---------------------------------------------------------------- batches


def _split(examples: Sequence[Example], settings: TrainPrmSettings) -> tuple[list[Example], list[Example]]:
    """Whole prompts are held out, drawn by the seed."""
    groups = sorted({example.group for example in examples})
    count = round(settings.holdout_share * len(groups))
    held_out = set(random.Random(settings.seed).sample(groups, count))
    train = [example for example in examples if example.group not in held_out]
    if not train:
        raise SettingsError(
            f"holdout_share = {settings.holdout_share} leaves none of {len(groups)} prompts to train on"
        )
    return train, [example for example in examples if example.group in held_out]


def _batches(examples: Sequence[Example], settings: TrainPrmSettings) -> Iterator[list[Example]]:
    """Every epoch all examples once, in an order of its own; DPO needs the responses of a prompt together."""
    draw = random.Random(settings.seed)
    units = [[example] for example in examples]
    if settings.loss == "dpo":
        by_group: dict[int, list[Example]] = {}
        for example in examples:
            by_group.setdefault(example.group, []).append(example)
        units = list(by_group.values())
    for _ in range(settings.epochs):
        draw.shuffle(units)
        batch: list[Example] = []
        for unit in units:
            batch += unit
            if len(batch) >= settings.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
