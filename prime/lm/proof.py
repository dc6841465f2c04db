"""Is a fast way of computing a model right? Two rows packed are held to each alone, by transformers' own forward.

A layer that carries state from token to token (recurrent, convolution) sees a pack as one sequence, and says nothing.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prime.errors import EngineError
from prime.lm.packing import TokenRow
from prime.maths.agreement import mean_gap

MOST_NOISE = {"float32": 1e-3, "bfloat16": 0.25}
"""Nats on average, by dtype; right kernels of bfloat16 differ by 0.06."""
NOT_COMPUTED = (EngineError, AttributeError, TypeError, ValueError, RuntimeError, KeyError)
"""What a model raises that was not written to be computed in some way."""
_LEAST_GAP = 1e-4
_LENGTHS = ((5, (7,)), (3, (5, 3)), (2, (6,)))
"""Of prompts and their responses."""
_STRIDE = 7919


def proof_rows(vocabulary: int) -> list[TokenRow]:
    """Two rows with one prompt, and two more, of tokens from all over the vocabulary.

    The first entries are left out: of special tokens that a model has hardly seen, log-probs are mostly rounding.
    """
    first = 3 if vocabulary < _STRIDE else 128
    ids = (first + number * _STRIDE % (vocabulary - first) for number in itertools.count(1))
    rows = []
    for prompt_length, lengths in _LENGTHS:
        prompt_ids = tuple(itertools.islice(ids, prompt_length))
        rows += [TokenRow(prompt_ids=prompt_ids, response_ids=tuple(itertools.islice(ids, each))) for each in lengths]
    return rows


def fault_of(
    expected: Sequence[Tensor], alone: Sequence[Tensor], packed: Sequence[Tensor], *, most_noise: float, parts: str
) -> str:
    """What is wrong with the log-probs of a way of computing, in words; empty if nothing.

    Args:
        expected: per row, by transformers' own forward. [T] each.
        alone: per row, in the way that is judged, each in a pass of its own.
        packed: the same, all rows in one pass.
        most_noise: between right computations, in nats on average.
        parts: the model's layers, for the message.
    """
    noise = max(_gap(one, two) for one, two in zip(alone, expected, strict=True))
    if noise > most_noise:
        return f"a row by itself is {noise:.2g} nats off on average: not computed so: {parts}"
    gap = max(_gap(one, two) for one, two in zip(packed, alone, strict=True))
    if gap > max(_LEAST_GAP, noise):
        return f"a row that is packed with others is {gap:.2g} nats off on average: they see each other in {parts}"
    return ""


def describe_layers(module: Any) -> str:
    """The kinds of layers of a model, as its configuration or its classes name them: `18 linear_attention`."""
    config = module.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    if not kinds:
        kinds = [type(part).__name__ for part in module.modules() if _is_mixer(type(part).__name__)]
    return ", ".join(f"{count} {kind}" for kind, count in Counter(kinds).items()) or type(module).__name__


def _is_mixer(name: str) -> bool:
    return name.endswith(("Attention", "Mixer", "ShortConv", "DeltaNet"))


def _gap(one_T: Tensor, two_T: Tensor) -> float:
    return mean_gap(one_T.tolist(), two_T.tolist())
