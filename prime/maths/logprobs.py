"""Log-probs of chosen tokens from hidden states, in tiles: a [tokens, vocabulary] tensor never exists.

Shapes: N tokens, D hidden size, V vocabulary. Tokens and vocabulary are both cut, so that a tile of logits is used
while it is in the cache. The normaliser is a running log-sum-exp over the vocabulary (Milakov and Gimelshein, arXiv
1805.02867). For a gradient each tile's logits are computed again, and their gradient is used up before the next tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ChosenLogprobs(NamedTuple):
    """Per token: log-prob of the chosen token, and the entropy of the distribution in nats."""

    logprobs_N: Tensor
    entropy_N: Tensor
    routers: tuple[Tensor, ...] = ()
    """What the routers of a mixture of experts said, layer by layer, where that was asked for; [N, experts] each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """How much of tokens and vocabulary is held at a time: peak memory is a few times `tokens * vocab` floats."""

    tokens: int = 1024
    vocab: int = 2048


def chosen_logprobs(
    hidden_ND: Tensor,
    head_VD: Tensor,
    chosen_N: Tensor,
    *,
    temperature: float = 1.0,
    tiles: Tiles = Tiles(),
) -> ChosenLogprobs:
    """`log softmax(hidden @ head^T / temperature)` at the chosen tokens, in fp32, with a gradient to both factors."""
    return ChosenLogprobs(*_ChosenLogprobs.apply(hidden_ND, head_VD, chosen_N, temperature, tiles))  # type: ignore[no-untyped-call]


def logprobs_of_logits(logits_NV: Tensor, chosen_N: Tensor, *, temperature: float = 1.0) -> ChosenLogprobs:
    """As `chosen_logprobs`, from logits that something else computed."""
    all_NV = (logits_NV.float() / temperature).log_softmax(dim=1)
    entropy_N = -(all_NV.exp() * all_NV).sum(dim=1)
    # A sum over one entry, for a view would not do: sharded modules hang hooks on what they return.
    return ChosenLogprobs(all_NV.gather(1, chosen_N[:, None]).sum(dim=1), entropy_N)


@torch.no_grad()
def scored_logprobs(
    hidden_ND: Tensor,
    head_VD: Tensor,
    chosen_N: Tensor,
    *,
    temperature: float = 1.0,
    tiles: Tiles = Tiles(),
) -> Tensor:
    """The log-probs of `chosen_logprobs`, bit for bit, without gradient and entropy. [N]."""
    logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32)
    for piece in _pieces(len(hidden_ND), tiles.tokens):
        logit_N, normaliser_N, _ = _read(hidden_ND[piece], head_VD, chosen_N[piece], temperature, tiles.vocab)
        logprobs_N[piece] = logit_N - normaliser_N
    return logprobs_N


class _ChosenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, chosen_N: Tensor, temperature: float, tiles: Tiles
    ) -> tuple[Tensor, Tensor]:
        logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32)
        normaliser_N, entropy_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
        for piece in _pieces(len(hidden_ND), tiles.tokens):
            logit_N, normaliser_N[piece], mean_logit_N = _read(
                hidden_ND[piece], head_VD, chosen_N[piece], temperature, tiles.vocab, with_mean=True
            )
            logprobs_N[piece] = logit_N - normaliser_N[piece]
            entropy_N[piece] = normaliser_N[piece] - mean_logit_N
        ctx.save_for_backward(hidden_ND, head_VD, chosen_N, normaliser_N, entropy_N)
        ctx.temperature, ctx.tiles = temperature, tiles
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, towards_N: Tensor | None, towards_entropy_N: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_ND, head_VD, chosen_N, normaliser_N, entropy_N = ctx.saved_tensors
        if towards_N is None:
            towards_N = torch.zeros_like(normaliser_N)
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        # Sums over tiles are fp32, as the sums inside a matrix product are.
        to_hidden_ND = torch.zeros_like(hidden_ND, dtype=torch.float32) if wants_hidden else None
        to_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if wants_head else None
        scale_N = towards_N / ctx.temperature
        for piece in _pieces(len(hidden_ND), ctx.tiles.tokens):
            hidden_nD = hidden_ND[piece]
            for vocab, logits_NV in _logits(hidden_nD, head_VD, ctx.temperature, ctx.tiles.vocab):
                # d log p(chosen) / d logits = (one at the chosen token) - softmax.
                logprobs_NV = logits_NV.sub_(normaliser_N[piece, None])
                if towards_entropy_N is None:
                    towards_NV = logprobs_NV.exp_().mul_(-scale_N[piece, None])
                else:
                    # d entropy / d logits = -softmax * (log softmax + entropy).
                    bonus_N1 = towards_entropy_N[piece, None] / ctx.temperature
                    inner_NV = scale_N[piece, None] + bonus_N1 * (logprobs_NV + entropy_N[piece, None])
                    towards_NV = logprobs_NV.exp() * -inner_NV
                inside_N, place_N = _places(chosen_N[piece], vocab)
                towards_NV.scatter_add_(1, place_N[:, None], torch.where(inside_N, scale_N[piece], 0.0)[:, None])
                towards_NV = towards_NV.to(hidden_ND.dtype)
                if to_hidden_ND is not None:
                    to_hidden_ND[piece] += towards_NV @ head_VD[vocab]
                if to_head_VD is not None:
                    to_head_VD[vocab] += towards_NV.T @ hidden_nD
        return (
            None if to_hidden_ND is None else to_hidden_ND.to(hidden_ND.dtype),
            None if to_head_VD is None else to_head_VD.to(head_VD.dtype),
            None,
            None,
            None,
        )


def _read(
    hidden_ND: Tensor,
    head_VD: Tensor,
    chosen_N: Tensor,
    temperature: float,
    vocab_tile: int,
    *,
    with_mean: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The chosen token's logit, log-sum-exp of all logits, and with `with_mean` their mean by the softmax. [N] each."""
    largest_N = torch.full_like(chosen_N, float("-inf"), dtype=torch.float32)
    total_N, logit_N, weighted_N = (torch.zeros_like(largest_N) for _ in range(3))
    for vocab, logits_NV in _logits(hidden_ND, head_VD, temperature, vocab_tile):
        inside_N, place_N = _places(chosen_N, vocab)
        logit_N = torch.where(inside_N, logits_NV.gather(1, place_N[:, None]).squeeze(1), logit_N)
        before_N, largest_N = largest_N, torch.maximum(largest_N, logits_NV.amax(dim=1))
        shrink_N = (before_N - largest_N).exp()
        exps_NV = (logits_NV - largest_N[:, None]).exp_() if with_mean else logits_NV.sub_(largest_N[:, None]).exp_()
        total_N = total_N * shrink_N + exps_NV.sum(dim=1)
        if with_mean:
            weighted_N = weighted_N * shrink_N + exps_NV.mul_(logits_NV).sum(dim=1)
    return logit_N, largest_N + total_N.log(), weighted_N / total_N


def _logits(hidden_ND: Tensor, head_VD: Tensor, temperature: float, vocab_tile: int) -> Iterator[tuple[slice, Tensor]]:
    """fp32 logits of one tile of the vocabulary after the other. The caller may change them."""
    room_NV = hidden_ND.new_empty(len(hidden_ND), min(vocab_tile, len(head_VD)))
    for vocab in _pieces(len(head_VD), vocab_tile):
        part_VD = head_VD[vocab]
        # Only the last part may be narrower; the buffer is reused, for its memory is mapped already.
        out_NV = room_NV if len(part_VD) == room_NV.shape[1] else hidden_ND.new_empty(len(hidden_ND), len(part_VD))
        logits_NV = torch.mm(hidden_ND, part_VD.T, out=out_NV).float()
        yield vocab, logits_NV if temperature == 1.0 else logits_NV.div_(temperature)


def _places(chosen_N: Tensor, vocab: slice) -> tuple[Tensor, Tensor]:
    """Which chosen tokens lie in this part of the vocabulary, and where in it; 0 where they do not."""
    inside_N = (chosen_N >= vocab.start) & (chosen_N < vocab.stop)
    return inside_N, torch.where(inside_N, chosen_N - vocab.start, 0)


def _pieces(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
