"""Log-probs of chosen tokens from hidden states, in chunks: a [tokens, vocabulary] tensor is never kept.

Shapes: N tokens, D hidden size, V vocabulary. In backward each chunk's logits are computed again.
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
        return ChosenLogprobs(hidden_ND.new_zeros(0, dtype=torch.float32), hidden_ND.new_zeros(0, dtype=torch.float32))
    return ChosenLogprobs(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))


def _one_chunk(hidden_ND: Tensor, head_VD: Tensor, chosen_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits_NV = (hidden_ND @ head_VD.T).float() / temperature
    normaliser_N = logits_NV.logsumexp(dim=1)
    logprobs_N = logits_NV.gather(1, chosen_N[:, None]).squeeze(1) - normaliser_N
    with torch.no_grad():
        probs_NV = (logits_NV - normaliser_N[:, None]).exp()
        entropy_N = normaliser_N - (probs_NV * logits_NV).sum(dim=1)
    return logprobs_N, entropy_N
