"""The plain way to score with an implicit PRM, as the published evaluation scripts do it: two forward passes over a
padded batch, all logits, a log-softmax over them, the chosen entries."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from prime.types import PrmGroup


class PlainScorer:
    """PRM and reference as `transformers` loads them, scored one after the other."""

    def __init__(self, prm: Path, reference: Path) -> None:
        logging.disable_progress_bar()
        self._prm = AutoModelForCausalLM.from_pretrained(prm).eval()
        self._reference = AutoModelForCausalLM.from_pretrained(reference).eval()

    def score(self, group: PrmGroup, *, beta: float) -> list[list[float]]:
        """Token rewards of every candidate."""
        own, theirs = padded_logprobs(self._prm, group), padded_logprobs(self._reference, group)
        return [(beta * (mine - other)).tolist() for mine, other in zip(own, theirs, strict=True)]


@torch.no_grad()
def padded_logprobs(model: Any, group: PrmGroup) -> list[Tensor]:
    """Of the response tokens of every candidate, in the model's dtype and on its device. [T] each."""
    rows = [[*group.prompt_ids, *response] for response in group.responses]
    longest = max(map(len, rows))
    ids_BL = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    seen_BL = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    logits_BLV = model(input_ids=ids_BL, attention_mask=seen_BL).logits
    logprobs_BLV = logits_BLV[:, :-1].log_softmax(dim=-1)
    chosen_BL = logprobs_BLV.gather(2, ids_BL[:, 1:, None]).squeeze(2)
    start = len(group.prompt_ids) - 1
    return [
        chosen_L[start : start + len(response)] for chosen_L, response in zip(chosen_BL, group.responses, strict=True)
    ]
