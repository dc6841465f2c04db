"""Whether a mixture of experts uses its experts alike.

Shapes: N response tokens of B rows, laid end to end; E experts.
"""

import torch
from torch import Tensor


def load_balance(logits_NE: Tensor, lengths_B: Tensor, *, top_k: int) -> Tensor:
    """The sequence-wise balance loss of one layer's router (DeepSeek-V3, arXiv 2412.19437, eq. 17 to 20). [B].

    `sum_e f_e P_e`, where `f_e` is how often expert e is chosen, as a multiple of its fair share, and `P_e` its mean
    probability, both over the row's response tokens. 1 where all experts are used alike, `E / top_k` where all tokens
    go to the same ones. Of rows, and not of a micro-batch as in the Switch Transformer (arXiv 2101.03961, eq. 4): so it
    does not depend on how rows are packed.

    Example: 2 experts, `top_k` 1, a row of two tokens with probabilities (0.8, 0.2) and (0.6, 0.4): f = (2, 0),
    P = (0.7, 0.3), loss 1.4.

    Args:
        logits_NE: what the router says, with gradient.
        lengths_B: response tokens of each row; a row without any has loss 0.
        top_k: experts per token.
    """
    num_experts = logits_NE.shape[1]
    probs_NE = logits_NE.float().softmax(dim=1)
    chosen_NE = torch.zeros_like(probs_NE).scatter(1, probs_NE.detach().topk(top_k, dim=1).indices, 1.0)
    row_N = torch.arange(len(lengths_B), device=logits_NE.device).repeat_interleave(lengths_B)
    per_token_B = 1.0 / lengths_B.clamp(min=1)
    nothing_BE = probs_NE.new_zeros(len(lengths_B), num_experts)
    shares_BE = nothing_BE.index_add(0, row_N, chosen_NE) * per_token_B[:, None] * (num_experts / top_k)
    means_BE = nothing_BE.index_add(0, row_N, probs_NE) * per_token_B[:, None]
    return (shares_BE * means_BE).sum(dim=1)
