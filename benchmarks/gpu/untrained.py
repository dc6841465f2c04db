"""Models with random weights that are made where they are used: 7 billion of them pass neither disk nor network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from benchmarks.prm_pair import Shape
from prime.data.tiny import build_byte_tokenizer
from prime.lm.model import Loader

CONTEXT = 4096


def write_folder(folder: Path, shape: Shape) -> Path:
    """A Qwen2 model folder with configuration and tokenizer, and no weights."""
    tokenizer = build_byte_tokenizer()
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=CONTEXT,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["Qwen2ForCausalLM"],
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loader(device: torch.device, *, seed: int, rounded: bool = False) -> Loader:
    """Makes the module of such a folder on the device; the same seed makes the same weights there.

    `rounded`: every weight is one that bfloat16 can hold, whatever dtype is asked for.
    """

    def load(folder: Path, *, dtype: torch.dtype, attention: str | None, empty: bool) -> Any:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        torch.manual_seed(seed)
        with torch.device("meta" if empty else device):
            module = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32 if rounded else dtype, attn_implementation=attention
            )
        if rounded:
            _round(list(module.parameters()))
        return module.to(dtype)

    return load


@torch.no_grad()
def _round(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.copy_(parameter.bfloat16())


def draw_ids(count: int, length: int, *, shape: Shape, seed: int) -> list[tuple[int, ...]]:
    """`count` different texts of random tokens, special ones left out."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, shape.vocabulary, (count, length), generator=draw)
    return [tuple(row) for row in ids.tolist()]
