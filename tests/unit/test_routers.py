"""The balance of a mixture of experts: the formula, and the update that has it among its terms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from prime.errors import SettingsError
from prime.lm.packing import TokenRow
from prime.maths.routers import load_balance
from services.trainer.batch import PolicyBatch
from services.trainer.policy import Policy
from services.trainer.settings import TrainerSettings
from tests.builders import tiny_model, with_tokenizer
from tests.families import FAMILIES

ROWS = [
    TokenRow(prompt_ids=(5, 6, 7), response_ids=(8, 9, 10, 11, 2)),
    TokenRow(prompt_ids=(5, 6, 7), response_ids=(12, 2)),
    TokenRow(prompt_ids=(13,), response_ids=(14, 15, 16)),
]


def test_the_worked_example_holds() -> None:
    logits_NE = torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log()
    assert float(load_balance(logits_NE, torch.tensor([2]), top_k=1)) == pytest.approx(1.4)


def test_experts_used_alike_give_one_and_one_expert_for_all_gives_the_most() -> None:
    alike = 20 * torch.eye(4).repeat(3, 1)
    same = 20 * torch.eye(4)[:1].repeat(12, 1)
    balance_B = load_balance(torch.cat([alike, same]), torch.tensor([12, 12]), top_k=1)
    assert balance_B.tolist() == pytest.approx([1.0, 4.0], abs=1e-6)


def test_a_row_does_not_see_its_neighbours_and_an_empty_one_counts_nothing() -> None:
    torch.manual_seed(0)
    logits_NE = torch.randn(9, 5)
    lengths_B = torch.tensor([4, 0, 5])
    together = load_balance(logits_NE, lengths_B, top_k=2)
    alone = [load_balance(part, torch.tensor([len(part)]), top_k=2) for part in torch.split(logits_NE, [4, 5])]
    assert together.tolist() == pytest.approx([float(alone[0]), 0.0, float(alone[1])])


def _mixture(title: str, folder: Path) -> Path:
    (family,) = [each for each in FAMILIES if each.title == title]
    return with_tokenizer(family.write(folder))


def _settings(router_coef: float, token_budget: int = 100) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {
            "problems": "p.jsonl",
            "steps": 1,
            "loss": {"router_coef": router_coef},
            "optimiser": {"lr": 1e-2, "device": "cpu", "token_budget": token_budget},
        }
    )


def _batch(policy: Policy) -> PolicyBatch:
    before = policy.logprobs(ROWS)
    return PolicyBatch(rows=ROWS, advantages=[torch.zeros_like(each) for each in before], sampler_logprobs=before)


@torch.no_grad()
def _plain_balance(folder: Path) -> float:
    """By transformers alone, row by row."""
    module: Any = AutoModelForCausalLM.from_pretrained(folder)
    top_k = module.config.num_experts_per_tok
    found = []
    for row in ROWS:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        lengths_B = torch.tensor([len(row.response_ids)])
        for logits in module(input_ids=ids, output_router_logits=True).router_logits:
            logits_NE = logits.view(ids.shape[1], -1)[len(row.prompt_ids) - 1 : -1]
            found.append(float(load_balance(logits_NE, lengths_B, top_k=top_k)))
    return sum(found) / len(found)


@pytest.mark.parametrize("title", ["Qwen3-MoE", "Mixtral", "OLMoE"])
def test_the_update_pulls_towards_balance_however_rows_are_packed(title: str, tmp_path: Path) -> None:
    folder = _mixture(title, tmp_path)
    plain, after = _plain_balance(folder), []
    assert plain > 1.01
    for token_budget in (1, 100):
        policy = Policy(folder, _settings(1.0, token_budget))
        metrics = policy.update(_batch(policy), seed=0)
        assert metrics.router_balance == pytest.approx(plain, abs=1e-5)
        assert metrics.loss == pytest.approx(plain, abs=1e-5)
        for _ in range(3):
            metrics = policy.update(_batch(policy), seed=0)
        assert metrics.router_balance < plain - 0.01
        after.append(metrics.router_balance)
    assert after[0] == pytest.approx(after[1], abs=1e-4)


def test_without_weight_or_without_routers_there_is_none(tmp_path: Path) -> None:
    policy = Policy(_mixture("Mixtral", tmp_path / "moe"), _settings(0.0))
    assert policy.update(_batch(policy), seed=0).router_balance == 0.0
    dense = Policy(tiny_model(tmp_path / "dense"), _settings(0.1))
    with pytest.raises(SettingsError, match="router_coef"):
        dense.update(_batch(dense), seed=0)
