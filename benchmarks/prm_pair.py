"""What the PRM benchmarks score: untrained pairs in the shape of Qwen2.5, and candidates of random tokens."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed
from transformers.utils import logging

from prime.data.tiny import build_byte_tokenizer
from prime.types import PrmGroup

VOCABULARY = 151_936


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Qwen2 model: `Shape(hidden=896, layers=24, heads=14, groups=2, inner=4864)` is Qwen2.5-0.5B."""

    hidden: int
    layers: int
    heads: int
    groups: int
    inner: int
    tied: bool = True
    vocabulary: int = VOCABULARY

    @property
    def body_parameters(self) -> int:
        """Weights of all layers, which every token goes through; the head's are `hidden * vocabulary`."""
        head_dim = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.groups * head_dim
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def embedding_parameters(self) -> int:
        """Of the embedding, and of a head where it is not the embedding."""
        return (1 if self.tied else 2) * self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All of them but norms and biases."""
        return self.body_parameters + self.embedding_parameters


def shape_of_half_billion(*, layers: int) -> Shape:
    """Qwen2.5-0.5B, cut to so many of its 24 layers."""
    return Shape(hidden=896, layers=layers, heads=14, groups=2, inner=4864)


def shape_of_seven_billion() -> Shape:
    """Qwen2.5-7B."""
    return Shape(hidden=3584, layers=28, heads=28, groups=4, inner=18944, tied=False)


def write_model(folder: Path, shape: Shape, *, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    """A randomly initialised model. The tokenizer is there because a service wants one; ids are drawn past it."""
    set_seed(seed)
    logging.disable_progress_bar()
    tokenizer = build_byte_tokenizer()
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=dtype,
    )
    Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def draw_group(*, candidates: int, prompt: int, response: int, seed: int) -> PrmGroup:
    """One prompt with so many candidates, all of full length: no padding that the plain way would pay for."""
    draw = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(length))

    return PrmGroup(
        group_id=str(seed), prompt_ids=ids(prompt), responses=tuple(ids(response) for _ in range(candidates))
    )
