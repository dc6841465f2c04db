"""Tiny PRMs with reward heads, as their publishers save them, and what transformers alone makes of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Qwen2Config,
    Qwen2Model,
    set_seed,
)
from transformers.utils import logging

from prime.data.tiny import build_byte_tokenizer

MARK = "<extra_0>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def chat_tokenizer(*marks: str) -> Any:
    """Bytes, Qwen's turns and marks."""
    tokenizer = build_byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *marks]})
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", CHATML
    return tokenizer


def qwen_prm(folder: Path, *, seed: int = 0) -> Path:
    """As Qwen2.5-Math-PRM is published: `model.*`, `score.0.*`, `score.2.*`, and code of its own, which may not run."""
    logging.disable_progress_bar()
    set_seed(seed)
    tokenizer = chat_tokenizer(MARK)
    config = Qwen2Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **_SHAPE)
    model, head = Qwen2Model(config), _two_layers(config.hidden_size)
    config.save_pretrained(folder)
    path = folder / "config.json"
    facts = json.loads(path.read_text()) | {
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"},
    }
    path.write_text(json.dumps(facts))
    (folder / "modeling_qwen2_rm.py").write_text("raise RuntimeError('the code of a model folder was run')\n")
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    weights |= {f"score.{name}": tensor for name, tensor in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return folder


def _two_layers(width: int) -> nn.Sequential:
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return head


def token_classifier(folder: Path, *, seed: int = 0) -> Path:
    """As TRL's PRMTrainer saves it."""
    return _classifier(folder, LlamaForTokenClassification, build_byte_tokenizer(), seed=seed, num_labels=2)


def sequence_classifier(folder: Path, *, labels: int = 1, seed: int = 0) -> Path:
    """As a reward model of preferences is saved."""
    return _classifier(folder, LlamaForSequenceClassification, chat_tokenizer(), seed=seed, num_labels=labels)


def _classifier(folder: Path, kind: Any, tokenizer: Any, *, seed: int, num_labels: int) -> Path:
    logging.disable_progress_bar()
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=num_labels,
        **_SHAPE,
    )
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def plain_qwen(folder: Path, ids: Sequence[int]) -> Tensor:
    """Logits of every token, `[N, 2]`, by transformers' decoder and the head as Qwen's own code applies it."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    config = Qwen2Config.from_pretrained(folder)
    model = Qwen2Model(config).eval()
    model.load_state_dict({name.removeprefix("model."): w for name, w in weights.items() if name.startswith("model.")})
    head = _two_layers(config.hidden_size)
    head.load_state_dict({name.removeprefix("score."): w for name, w in weights.items() if name.startswith("score.")})
    logits: Tensor = head(model(input_ids=torch.tensor([list(ids)])).last_hidden_state)[0]
    return logits


def plain_probabilities(folder: Path, tokenizer: Any, text: str) -> list[float]:
    """Of each step of a rendered conversation, as the model card of Qwen2.5-Math-PRM computes them."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    mark = tokenizer.convert_tokens_to_ids(MARK)
    probabilities = plain_qwen(folder, ids).softmax(-1)[:, 1]
    return [float(probabilities[place]) for place, token in enumerate(ids) if token == mark]
