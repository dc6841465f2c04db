"""Is a fast way of computing a model right? Rows packed are held to each alone, by transformers' own forward.

A layer that carries state from token to token (recurrent, convolution) sees a pack as one sequence, and says nothing.
In half precision, rounding hides a little of what such a layer does. So the pack is also computed with other tokens in
half of its rows: the kernels and shapes are the same, and the rest has to stay what it was.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from prime.errors import EngineError
from prime.lm.packing import TokenRow
from prime.maths.agreement import mean_gap

MOST_NOISE = {"float32": 1e-3, "bfloat16": 0.25}
"""Nats on average, by dtype; right kernels of bfloat16 differ by 0.06."""
NOT_COMPUTED = (EngineError, AttributeError, TypeError, ValueError, RuntimeError, KeyError)
"""What a model raises that was not written to be computed in some way."""
LEAST_GAP = 1e-4
"""Nats on average, by which a right pack may move when other rows hold other tokens."""
PROOF_TOKENS = 1024
"""Of a pass that holds all of a proof's rows."""
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


def disturbed(rows: Sequence[TokenRow], vocabulary: int) -> list[tuple[list[TokenRow], list[int]]]:
    """The rows with other tokens in their first half, and in their second; and which ones stay as they are."""
    half = len(rows) // 2
    return [
        ([_other(row, vocabulary) if number in changed else row for number, row in enumerate(rows)], list(kept))
        for changed, kept in ((range(half), range(half, len(rows))), (range(half, len(rows)), range(half)))
    ]


def _other(row: TokenRow, vocabulary: int) -> TokenRow:
    """A row of the same shape. A prompt that is kept stays shared with the rows that have it."""
    return replace(row, response_ids=tuple((token + vocabulary // 2) % vocabulary for token in row.response_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Log-probs of a way of computing, [T] per row."""

    expected: Sequence[Tensor]
    """By transformers' own forward."""
    alone: Sequence[Tensor]
    """In the way that is judged, each in a pass of its own."""
    packed: Sequence[Tensor]
    """The same, all rows in one pass."""
    beside_others: Sequence[tuple[Tensor, Tensor]]
    """Of rows in such a pass: as they were, and beside rows with other tokens."""


def fault_of_packing(
    score: Callable[[Sequence[TokenRow]], list[Tensor]],
    rows: Sequence[TokenRow],
    expected: Sequence[Tensor],
    *,
    vocabulary: int,
    noise: Literal["float32", "bfloat16"],
    has_experts: bool,
    parts: str,
) -> str:
    """What is wrong with computing these rows in one pass, in words; empty if nothing.

    Args:
        score: computes rows, all in one pass.
        rows: as of `proof_rows`.
        expected: what transformers' own forward gives for them.
        vocabulary: entries of the model's embedding.
        noise: the dtype whose rounding is to be expected.
        has_experts: whether the model is a mixture of experts.
        parts: the model's layers, for the message.
    """
    try:
        packed = score(rows)
    except NOT_COMPUTED as error:
        return f"{type(error).__name__}: {error}"
    beside_others = []
    for others, kept in disturbed(rows, vocabulary):
        after = score(others)
        beside_others += [(packed[number], after[number]) for number in kept]
    found = Found(
        expected=expected,
        # A row alone in its pack differs by the noise of other kernels, and by nothing else.
        alone=[score([row])[0] for row in rows],
        packed=packed,
        beside_others=beside_others,
    )
    most = MOST_NOISE[noise]
    # Other tokens go to other experts, whose products then have other shapes, and round otherwise.
    least = most if has_experts and noise != "float32" else LEAST_GAP
    return fault_of(found, most_noise=most, least_gap=least, parts=parts)


def fault_of(found: Found, *, most_noise: float, least_gap: float, parts: str) -> str:
    """What is wrong with the log-probs of a way of computing, in words; empty if nothing.

    Args:
        found: what it gave.
        most_noise: between right computations, in nats on average.
        least_gap: that other tokens in other rows may make, in nats on average.
        parts: the model's layers, for the message.
    """
    noise = _largest_gap(found.alone, found.expected)
    if noise > most_noise:
        return f"a row by itself is {noise:.2g} nats off on average: not computed so: {parts}"
    seen = max(_gap(before_T, after_T) for before_T, after_T in found.beside_others)
    if seen > least_gap:
        return f"a row is {seen:.2g} nats off on average beside rows with other tokens: they see each other in {parts}"
    gap = _largest_gap(found.packed, found.alone)
    if gap > most_noise:
        return f"a row that is packed with others is {gap:.2g} nats off on average: they see each other in {parts}"
    return ""


def _largest_gap(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return max(_gap(one_T, two_T) for one_T, two_T in zip(some, others, strict=True))


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
