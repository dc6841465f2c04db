"""How much memory a training step takes, as the kernel counts it in a process of its own."""

import subprocess
import sys

import pytest

# A head much wider than the body, so that logits which were kept would be nearly all of the memory.
_STEP = """
import resource, sys, tempfile
from pathlib import Path
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow
from prime.lm.training import Optimiser

tokens, vocabulary = int(sys.argv[1]), int(sys.argv[2])
config = Qwen2Config(vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                     num_attention_heads=1, num_key_value_heads=1, tie_word_embeddings=True)
with tempfile.TemporaryDirectory() as folder:
    Qwen2ForCausalLM(config).save_pretrained(folder)
    lm = CausalLM(Path(folder), device=torch.device("cpu"))
optimiser = Optimiser(lm, lr=1e-3, grad_clip=1.0)
rows = [TokenRow(prompt_ids=(number + 1,), response_ids=tuple(range(63))) for number in range(tokens // 64)]
for pack in lm.packs(rows, token_budget=tokens):
    lm.logprobs(pack).logprobs_N.sum().backward()
optimiser.step()
lm.score_rows(rows, token_budget=tokens)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def _peak_mib(*, tokens: int, vocabulary: int) -> int:
    command = [sys.executable, "-c", _STEP, str(tokens), str(vocabulary)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=270)
    return int(ended.stdout)


@pytest.mark.timeout(600)
def test_a_training_step_does_not_grow_with_tokens_times_vocabulary() -> None:
    """Four times the tokens are 6,144 more rows of logits: of 40,000 entries each, 940 MiB if they were kept once."""
    few, many = (_peak_mib(tokens=tokens, vocabulary=40_000) for tokens in (2048, 8192))
    assert many - few < 94
