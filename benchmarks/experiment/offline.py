"""PRMs trained offline on one backbone: what each loss makes of the same labelled responses of the SFT policy."""

import asyncio
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.experiment.family import Family
from benchmarks.experiment.parts import NearVerifier
from jobs.prm_examples import Example, ask_reference, load_examples
from jobs.train_prm import TrainPrmSettings, run_train_prm
from prime.data.judged_steps import judged_steps
from prime.data.problems import load_problems
from prime.data.prompts import TokenTexts, encode_prompts
from prime.errors import InvalidInput
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_tokenizer, pick_device
from prime.maths.prm_diagnostics import pair_accuracy, step_auc
from prime.maths.selection import best_of, pass_at
from prime.types import GradeItem, Problem, Verdict

LOSSES = {
    "ce": {"beta": 0.05},
    "dpo": {"beta": 0.05},
    # IPVRM's figures.
    "prefix": {"beta": 10.0, "margin": 5.0},
}
_PROMPTS, _SAMPLES = 1024, 4
"""To learn from."""
_HELD_OUT_SAMPLES, _BEST_OF = 8, 4
_ROWS = 256
"""Sampled at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineResult:
    """What one PRM is worth: `OfflineResult(family="chain-16", loss="ce", lr=3e-4, seed=101, ...)`."""

    family: str
    loss: str
    lr: float
    seed: int
    pair_accuracy: float
    best_of_4: float
    """Held-out accuracy of the highest score of 4 samples, over all subsets of 8: the sum of rewards, and with
    `prefix` their mean, which is what that loss trains."""
    one: float
    """Of a sample drawn by chance."""
    any_of_4: float
    """Of the right one, where there is one: the ceiling."""
    auc_own: float
    """Right steps above wrong ones, by the sum of a step's own rewards."""
    auc_value: float
    """By the mean of all rewards up to the step's end."""
    auc_difference: float
    """By how much the step changes that mean."""


def write_candidates(family: Family, material: Path, folder: Path) -> None:
    """`train.jsonl` and `test.jsonl`: prompts with graded responses of the SFT policy."""
    tokenizer = load_tokenizer(material / "sft")
    model = AutoModelForCausalLM.from_pretrained(material / "sft", dtype=torch.float32).to(family.device)
    torch.manual_seed(0)
    for name, source, prompts, samples in (
        ("train", "problems", _PROMPTS, _SAMPLES),
        ("test", "held_out", None, _HELD_OUT_SAMPLES),
    ):
        problems = load_problems(str(material / f"{source}.jsonl"))[:prompts]
        rows = asyncio.run(_graded(family, problems, model, tokenizer, samples))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


async def _graded(
    family: Family, problems: Sequence[Problem], model: Any, tokenizer: Any, samples: int
) -> list[dict[str, Any]]:
    verifier, rows = NearVerifier(), []
    for problem, responses in _sampled(family, problems, model, tokenizer, samples):
        items = [
            GradeItem(
                item_id=str(number),
                data_source=problem.data_source,
                ability=problem.ability,
                response=response,
                ground_truth=problem.ground_truth,
            )
            for number, response in enumerate(responses)
        ]
        verdicts = await verifier.grade(items)
        rows.append(
            {
                "prompt": [asdict(message) for message in problem.messages],
                "responses": responses,
                "correctness": [_is_right(verdict) for verdict in verdicts],
            }
        )
    return rows


def _is_right(verdict: Verdict) -> bool:
    if verdict.score is None:
        raise InvalidInput(f"a response could not be graded: {verdict.reason}")
    return verdict.score > 0.5


def _sampled(
    family: Family, problems: Sequence[Problem], model: Any, tokenizer: Any, samples: int
) -> Iterator[tuple[Problem, list[str]]]:
    """By transformers' own `generate`, prompts of one length at a time, so that none is padded."""
    by_length = defaultdict(list)
    for problem, ids in encode_prompts(tokenizer, problems, source="", max_tokens=family.max_context, drop_long=False):
        by_length[len(ids)].append((problem, ids))
    for same in by_length.values():
        for start in range(0, len(same), _ROWS // samples):
            part = same[start : start + _ROWS // samples]
            ids_BP = torch.tensor([ids for _, ids in part], device=family.device)
            drawn_BT = model.generate(
                ids_BP,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                num_return_sequences=samples,
                max_new_tokens=family.trainer["sampling"]["max_tokens"],
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(drawn_BT[:, ids_BP.shape[1] :], skip_special_tokens=True)
            for number, (problem, _) in enumerate(part):
                own = texts[number * samples : (number + 1) * samples]
                # A policy may end at once, and an empty response has nothing to score.
                yield problem, [text for text in own if text.strip()]


def train_and_measure(
    family: Family, *, loss: str, lr: float, seed: int, sft: Path, candidates: Path, scratch: Path
) -> OfflineResult:
    """One PRM from the SFT policy, and its figures on the held-out responses; `scratch` is removed at the end."""
    settings = TrainPrmSettings(
        model=sft,
        data=(candidates / "train.jsonl",),
        output=scratch,
        loss=loss,
        **LOSSES[loss],
        lr=lr,
        seed=seed,
        epochs=2,
        batch_size=64,
        separator=family.trainer["advantage"]["step_delimiter"],
        token_budget=family.trainer["optimiser"].get("token_budget", 16384),
        device=family.device,
        threads=1,
    )
    try:
        run_train_prm(settings, lambda step, of, loss: None)
        examples, rewards = _rewards(settings, candidates / "test.jsonl")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    scores_B = torch.stack([row_T.mean() if loss == "prefix" else row_T.sum() for row_T in rewards])
    right_B = torch.tensor([example.outcome or 0.0 for example in examples])
    group_B = torch.tensor([example.group for example in examples])
    prompts = [group_B == group for group in torch.unique(group_B)]
    return OfflineResult(
        family=family.name,
        loss=loss,
        lr=lr,
        seed=seed,
        pair_accuracy=pair_accuracy(scores_B, right_B, group_B),
        best_of_4=_mean([best_of(scores_B[own], right_B[own], _BEST_OF) for own in prompts]),
        one=float(right_B.mean()),
        any_of_4=_mean([pass_at(right_B[own], _BEST_OF) for own in prompts]),
        **_aucs(examples, rewards, TokenTexts(load_tokenizer(sft))),
    )


def _rewards(settings: TrainPrmSettings, file: Path) -> tuple[list[Example], list[Tensor]]:
    """Of every token of the file's responses, by the PRM just trained against the model that it started from."""
    device, compute = pick_device(settings.device), Compute()
    prm, reference = (CausalLM(each, device=device, compute=compute) for each in (settings.output, settings.model))
    tokenizer = load_tokenizer(settings.model)
    examples, _ = load_examples(
        [file],
        tokenizer,
        separator=settings.separator,
        end_token=settings.end_token,
        max_tokens=prm.max_positions,
        drop_long=False,
    )
    examples = ask_reference(reference, examples, token_budget=settings.token_budget)
    own = prm.score_rows([example.row for example in examples], token_budget=settings.token_budget)
    rewards = [
        settings.beta * (mine_T - example.known_reference) for mine_T, example in zip(own, examples, strict=True)
    ]
    return examples, rewards


def _aucs(examples: Sequence[Example], rewards: Sequence[Tensor], text_of: TokenTexts) -> dict[str, float]:
    """Of the steps of tasks that know which are right; 0.5 for others."""
    own, value, difference, is_right = [], [], [], []
    for example, rewards_T in zip(examples, rewards, strict=True):
        summed_T = rewards_T.cumsum(dim=0)
        mean_T = summed_T / torch.arange(1, len(rewards_T) + 1)
        for step in judged_steps(example.row.prompt_ids, text_of, example.row.response_ids):
            before = step.start - 1
            own.append(float(summed_T[step.end - 1] - (summed_T[before] if step.start else 0.0)))
            value.append(float(mean_T[step.end - 1]))
            difference.append(float(mean_T[step.end - 1] - (mean_T[before] if step.start else 0.0)))
            is_right.append(step.is_right)
    right_S = torch.tensor(is_right, dtype=torch.bool)
    return {
        f"auc_{name}": step_auc(torch.tensor(values), right_S)
        for name, values in (("own", own), ("value", value), ("difference", difference))
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
