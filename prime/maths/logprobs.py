"""Log-probs of chosen tokens from hidden states, in chunks: a [tokens, vocabulary] tensor is never kept.

Shapes: N tokens, D hidden size, V vocabulary. With a gradient each chunk's logits are computed again in backward;
without one, nobody asks for the entropy, and the vocabulary is cut as well, so that a tile is read while it is hot.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class ChosenLogprobs(NamedTuple):
    """Per token: log-prob of the chosen token, and the entropy of the distribution (no gradient)."""

    logprobs_N: Tensor
    entropy_N: Tensor


def chosen_logprobs(
    hidden_ND: Tensor, head_VD: Tensor, chosen_N: Tensor, *, temperature: float = 1.0, chunk: int = 1024
) -> ChosenLogprobs:
    """`log softmax(hidden @ head^T / temperature)` at the chosen tokens, in fp32.

    Peak memory is `chunk * V` floats whatever N is.
    """
    parts = []
    for start in range(0, hidden_ND.shape[0], chunk):
        piece = slice(start, start + chunk)
        arguments = (hidden_ND[piece], head_VD, chosen_N[piece], temperature)
        if torch.is_grad_enabled() and (hidden_ND.requires_grad or head_VD.requires_grad):
            parts.append(checkpoint(_one_chunk, *arguments, use_reentrant=False))
        else:
            parts.append(_one_chunk(*arguments))
    if not parts:
        # Still a function of both, so that a pass without tokens has gradients, of 0.
        nothing_N = (hidden_ND @ head_VD.T).float().sum(dim=1)
        return ChosenLogprobs(nothing_N, nothing_N.detach())
    return ChosenLogprobs(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))


@torch.no_grad()
def tiled_logprobs(
    hidden_ND: Tensor,
    head_VD: Tensor,
    chosen_N: Tensor,
    *,
    temperature: float = 1.0,
    token_tile: int = 1024,
    vocab_tile: int = 2048,
) -> Tensor:
    """`log softmax(hidden @ head^T / temperature)` at the chosen tokens, in fp32, without gradient. [N].

    The normaliser is a running log-sum-exp over tiles of the vocabulary (Milakov and Gimelshein, arXiv 1805.02867).
    Peak memory is `token_tile * vocab_tile` floats whatever N and V are.
    """
    if not len(hidden_ND):
        return hidden_ND.new_zeros(0, dtype=torch.float32)
    pieces = [slice(start, start + token_tile) for start in range(0, len(hidden_ND), token_tile)]
    rows = (_one_tile_row(hidden_ND[piece], chosen_N[piece], head_VD, temperature, vocab_tile) for piece in pieces)
    return torch.cat(list(rows))


def _one_tile_row(hidden_ND: Tensor, chosen_N: Tensor, head_VD: Tensor, temperature: float, vocab_tile: int) -> Tensor:
    largest_N = torch.full_like(chosen_N, float("-inf"), dtype=torch.float32)
    total_N, logit_N = torch.zeros_like(largest_N), torch.zeros_like(largest_N)
    tile_NV = hidden_ND.new_empty(len(hidden_ND), min(vocab_tile, len(head_VD)))
    for start in range(0, len(head_VD), vocab_tile):
        part_VD = head_VD[start : start + vocab_tile]
        # Only the last part may be narrower; the buffer is reused, for its memory is mapped already.
        room_NV = tile_NV if len(part_VD) == tile_NV.shape[1] else hidden_ND.new_empty(len(hidden_ND), len(part_VD))
        logits_NV = torch.mm(hidden_ND, part_VD.T, out=room_NV).float()
        if temperature != 1.0:
            logits_NV.div_(temperature)
        place_N = chosen_N - start
        inside_N = (place_N >= 0) & (place_N < len(part_VD))
        picked_N = logits_NV.gather(1, place_N.clamp(0, len(part_VD) - 1)[:, None]).squeeze(1)
        logit_N = torch.where(inside_N, picked_N, logit_N)
        before_N, largest_N = largest_N, torch.maximum(largest_N, logits_NV.amax(dim=1))
        total_N = total_N * (before_N - largest_N).exp() + logits_NV.sub_(largest_N[:, None]).exp_().sum(dim=1)
    return logit_N - largest_N - total_N.log()


def _one_chunk(hidden_ND: Tensor, head_VD: Tensor, chosen_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits_NV = (hidden_ND @ head_VD.T).float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    normaliser_N = logits_NV.logsumexp(dim=1)
    logprobs_N = logits_NV.gather(1, chosen_N[:, None]).squeeze(1) - normaliser_N
    with torch.no_grad():
        probs_NV = (logits_NV - normaliser_N[:, None]).exp()
        entropy_N = normaliser_N - (probs_NV * logits_NV).sum(dim=1)
    return logprobs_N, entropy_N
