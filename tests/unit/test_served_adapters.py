"""LoRA adapters as PRMs: as served, they are what transformers and peft give together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from prime.data.prm_config import write_prm_config
from prime.data.tiny import write_tiny_model
from prime.errors import CheckpointError, SettingsError
from prime.lm.heads import kind_of
from prime.lm.model import load_tokenizer
from prime.scoring import Candidate, PrmConfig, PrmKind, Prompt, ScoringReply, ScoringRequest
from primectl.serve_prm import prm_settings
from services.prm.main import open_scorer
from services.prm.settings import PrmSettings
from tests.builders import perturb, tiny_model, with_tokenizer

QUESTION, ANSWERS = "What is 7 * 8?", ("It is 56.", "54")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("base")), seed=1)


def _adapters(base: Path, folder: Path, auto: Any, task: str, **more: Any) -> Path:
    """Adapters with random weights, as peft saves them."""
    torch.manual_seed(5)
    module = auto.from_pretrained(base, **more)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type=task, init_lora_weights=False
    )
    get_peft_model(module, config).save_pretrained(str(folder))
    return folder


async def _score(folder: Path, **settings: Any) -> ScoringReply:
    given = {"frozen": True, "reference_mode": "none", "device": "cpu"} | settings
    scorer = open_scorer(PrmSettings(**given), model=folder)
    candidates = tuple(Candidate(steps=(answer,)) for answer in ANSWERS)
    return await scorer.score(ScoringRequest(prompt=Prompt(text=QUESTION, rendered=True), candidates=candidates))


@torch.no_grad()
def _plain(base: Path, adapters: Path, auto: Any, ids: tuple[int, ...], **more: Any) -> torch.Tensor:
    module = PeftModel.from_pretrained(auto.from_pretrained(base, **more), adapters).eval()
    logits: torch.Tensor = module(input_ids=torch.tensor([ids])).logits[0]
    return logits


async def test_adapters_of_a_causal_lm_are_an_implicit_prm(base: Path, tmp_path: Path) -> None:
    folder = _adapters(base, tmp_path / "lora", AutoModelForCausalLM, "CAUSAL_LM")
    write_prm_config(PrmConfig(beta=0.5), with_tokenizer(folder))
    assert kind_of(folder) is PrmKind.IMPLICIT
    against_base = await _score(folder, reference=base, reference_mode="freeze")
    alone = await _score(folder)
    prompt = _ids(base, QUESTION)
    for number in range(len(ANSWERS)):
        ids = alone.candidates[number].token_ids
        logprobs = _plain(base, folder, AutoModelForCausalLM, prompt + ids).log_softmax(-1)[len(prompt) - 1 : -1]
        with torch.no_grad():
            before = AutoModelForCausalLM.from_pretrained(base)(input_ids=torch.tensor([prompt + ids])).logits[0]
        before = before.log_softmax(-1)[len(prompt) - 1 : -1]
        chosen = torch.arange(len(ids)), torch.tensor(ids)
        own = 0.5 * logprobs[chosen]
        assert list(alone.candidates[number].token_rewards) == pytest.approx(own.tolist(), abs=1e-5)
        ratios = own - 0.5 * before[chosen]
        assert list(against_base.candidates[number].token_rewards) == pytest.approx(ratios.tolist(), abs=1e-5)
        assert float(ratios.abs().max()) > 1e-3


def _ids(base: Path, text: str) -> tuple[int, ...]:
    return tuple(load_tokenizer(base)(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("auto", "task", "labels", "kind"),
    [
        (AutoModelForTokenClassification, "TOKEN_CLS", 2, PrmKind.STEP_HEAD),
        (AutoModelForSequenceClassification, "SEQ_CLS", 1, PrmKind.SEQUENCE_HEAD),
    ],
)
async def test_adapters_bring_their_head(
    base: Path, tmp_path: Path, auto: Any, task: str, labels: int, kind: PrmKind
) -> None:
    folder = _adapters(base, tmp_path / "lora", auto, task, num_labels=labels)
    assert kind_of(folder) is kind
    reply = await _score(folder)
    prompt = _ids(base, QUESTION)
    for candidate in reply.candidates:
        logits = _plain(base, folder, auto, prompt + candidate.token_ids, num_labels=labels)
        expected = logits[-1, 1] - logits[-1, 0] if labels == 2 else logits[0]
        assert candidate.response_reward == pytest.approx(float(expected), abs=1e-5)


def test_adapters_are_not_trained_on(base: Path, tmp_path: Path) -> None:
    folder = _adapters(base, tmp_path / "lora", AutoModelForCausalLM, "CAUSAL_LM")
    with pytest.raises(SettingsError, match="served and not trained on"):
        open_scorer(PrmSettings(device="cpu"), model=folder)


def test_a_base_that_is_not_here_is_named(base: Path, tmp_path: Path) -> None:
    folder = _adapters(base, tmp_path / "lora", AutoModelForCausalLM, "CAUSAL_LM")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "Qwen/Qwen2.5-7B"}))
    with pytest.raises(CheckpointError, match=r"adapters of the model 'Qwen/Qwen2\.5-7B', which is not a model folder"):
        prm_settings(folder, "none", [])
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="no configuration of adapters"):
        prm_settings(folder, "none", [])


async def test_adapters_of_another_model_are_refused(base: Path, tmp_path: Path) -> None:
    folder = _adapters(base, tmp_path / "lora", AutoModelForCausalLM, "CAUSAL_LM")
    path = folder / "adapter_config.json"
    other = tmp_path / "other"
    write_tiny_model(other, hidden=48)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(other)}))
    with pytest.raises(CheckpointError, match="do not fit their model"):
        await _score(folder)
    headless = _adapters(base, tmp_path / "headless", AutoModelForCausalLM, "CAUSAL_LM")
    path = headless / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task_type": "SEQ_CLS"}))
    with pytest.raises(CheckpointError, match="bring no head"):
        await _score(headless)
