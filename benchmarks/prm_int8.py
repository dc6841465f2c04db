"""Would int8 weights be a gain on a CPU? Log-probs through our packed passes, against float32 and bfloat16.

    pip install torchao==0.18.0
    python -m benchmarks.prm_int8 MODEL FILE     (FILE: any text, whose pieces are scored)

The last line is a JSON object. torchao is no dependency: docs/prm-api.md has what came of it.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

from prime.lm.model import CausalLM, load_module, load_tokenizer
from prime.lm.packing import TokenRow

_ROUNDS, _PIECES, _PIECE_CHARACTERS = 2, 4, 700
_VARIANTS: dict[str, tuple[torch.dtype, Any]] = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "int8 weights, float32": (torch.float32, Int8WeightOnlyConfig()),
    "int8 weights, bfloat16": (torch.bfloat16, Int8WeightOnlyConfig()),
    "int8 weights and activations": (torch.float32, Int8DynamicActivationInt8WeightConfig()),
}


def main() -> None:
    folder, text = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
    rows = _rows(folder, text)
    models = {name: _load(folder, *variant) for name, variant in _VARIANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    found: dict[str, Tensor] = {}
    for _ in range(_ROUNDS):
        for name, model in models.items():
            started = time.process_time()
            found[name] = torch.cat(model.score_rows(rows, token_budget=16384))
            seconds[name].append(time.process_time() - started)
    report = {}
    for name, model in models.items():
        error = (found[name] - found["float32"]).abs()
        report[name] = {
            "speed": round(min(seconds["float32"]) / min(seconds[name]), 2),
            "weights_mib": round(_bytes(model.module) / 2**20),
            "mean_error_nats": round(float(error.mean()), 4),
            "largest_error_nats": round(float(error.max()), 4),
            "not_packed_because": model.slow_because,
        }
        print(name, report[name], flush=True)
    print(json.dumps(report))


def _rows(folder: Path, text: str) -> Sequence[TokenRow]:
    tokenizer = load_tokenizer(folder)
    prompt_ids = tuple(tokenizer("Write documentation for a scoring service.")["input_ids"])
    starts = range(0, _PIECES * _PIECE_CHARACTERS, _PIECE_CHARACTERS)
    pieces = [text[start : start + _PIECE_CHARACTERS] for start in starts]
    return [
        TokenRow(prompt_ids=prompt_ids, response_ids=tuple(tokenizer(piece, add_special_tokens=False)["input_ids"]))
        for piece in pieces
    ]


def _load(folder: Path, dtype: torch.dtype, config: Any) -> CausalLM:
    def load(folder: Path, *, dtype: torch.dtype, attention: str | None, empty: bool) -> Any:
        module = load_module(folder, dtype=dtype, attention=attention, empty=empty)
        if config is not None:
            quantize_(module, config, filter_fn=_is_layer)
        return module

    return CausalLM(folder, device=torch.device("cpu"), dtype=dtype, load=load)


def _is_layer(module: nn.Module, name: str) -> bool:
    """All linear layers but the head."""
    return isinstance(module, nn.Linear) and "lm_head" not in name


def _bytes(module: nn.Module) -> int:
    """Of all weights; of a quantised one, of its values and scales."""
    parts = [
        [getattr(weight, name) for name in weight.tensor_data_names]
        if hasattr(weight, "tensor_data_names")
        else [weight]
        for weight in module.parameters()
    ]
    return sum(part.numel() * part.element_size() for tensors in parts for part in tensors)


if __name__ == "__main__":
    main()
