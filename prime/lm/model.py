"""The causal-LM core that policy, PRM, reference and SFT share: token log-probs of packed rows.

Policy, PRM and reference go through the very same code, so equal weights give equal log-probs to the last bit, and a
PRM that equals its reference gives rewards of exactly 0.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from prime.errors import CheckpointError, EngineError, SettingsError
from prime.lm.attention import PACKED, register_packed_attention
from prime.lm.packing import Pack, TokenRow, build_pack, plan_packs, split_rows
from prime.maths.logprobs import ChosenLogprobs, chosen_logprobs, tiled_logprobs

# A tile of logits stays in a CPU's cache; a GPU wants large matrix products instead.
_TILES = {"cpu": {"token_tile": 1024, "vocab_tile": 2048}, "cuda": {"token_tile": 8192, "vocab_tile": 16384}}


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        SettingsError: the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device {name!r} is not one that torch knows; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device {name!r} is asked for and this machine has no CUDA; use auto or cpu")
    return device


def settle_torch(*, device: str, threads: int) -> None:
    """Process-wide settings of a training process; `threads` 0 leaves the choice to torch."""
    if threads:
        torch.set_num_threads(threads)
    # On a CPU the same batch then gives the same bits; CUDA has kernels without such a variant.
    torch.use_deterministic_algorithms(pick_device(device).type == "cpu")


class CausalLM:
    """A Hugging Face causal LM read as a function from packed tokens to log-probs."""

    def __init__(self, folder: Path, *, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights from a local Hugging Face folder.

        Raises:
            CheckpointError: the folder holds no model.
            EngineError: the model's head is not a plain linear map, so log-probs from hidden states would be wrong.
        """
        register_packed_attention()
        self.device = device
        self.module: Any = load_module(folder, dtype=dtype, attention=PACKED).to(device)
        self.module.eval()  # no dropout: log-probs are functions of the weights alone

    @property
    def head_VD(self) -> Tensor:
        """The output head's weight."""
        weight: Tensor = self.module.get_output_embeddings().weight
        return weight

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the model was made for."""
        return int(getattr(self.module.config, "max_position_embeddings", 0)) or sys.maxsize

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trainable weights, tied ones once."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def logprobs(self, pack: Pack, *, temperature: float = 1.0) -> ChosenLogprobs:
        """Log-prob and entropy at every response token of the pack. [R], in the pack's order."""
        pack = pack.to(self.device)
        return chosen_logprobs(self._predictor_states(pack), self.head_VD, pack.chosen_R, temperature=temperature)

    @torch.no_grad()
    def score_rows(self, rows: Sequence[TokenRow], *, token_budget: int, temperature: float = 1.0) -> list[Tensor]:
        """Log-probs of every row's response tokens, fp32 on the CPU, without gradient, in the order of the rows.

        A prompt that several rows share is computed once per pack.
        """
        by_row: dict[int, Tensor] = {}
        for numbers in plan_packs(rows, token_budget=token_budget, share_prompts=True):
            pack = build_pack(rows, numbers, share_prompts=True).to(self.device)
            hidden_RD = self._predictor_states(pack)
            logprobs_R = tiled_logprobs(
                hidden_RD,
                self.head_VD,
                pack.chosen_R,
                temperature=temperature,
                **_TILES.get(self.device.type, _TILES["cuda"]),
            )
            by_row |= split_rows(logprobs_R.cpu(), pack)
        return [by_row[number] for number in range(len(rows))]

    def _predictor_states(self, pack: Pack) -> Tensor:
        """Hidden states from which the response tokens are predicted: the head runs on these alone. [R, D]."""
        hidden_1ND: Tensor = self.module.base_model(
            input_ids=pack.ids_N[None], position_ids=pack.positions_N[None], use_cache=False, pack=pack
        ).last_hidden_state
        return hidden_1ND[0].index_select(0, pack.predictors_R)

    def named_tensors(self) -> list[tuple[str, Tensor]]:
        """Every weight under its checkpoint name, in one fixed order; a tied head is listed too.

        Engines that keep a packed copy of the head need it named, tied or not.
        """
        state: dict[str, Tensor] = dict(self.module.state_dict())
        state.setdefault("lm_head.weight", self.head_VD.detach())
        return sorted(state.items())

    @torch.no_grad()
    def digest(self) -> str:
        """`sha256:` over names and bytes of all weights: which model this is."""
        total = hashlib.sha256()
        for name, tensor in self.named_tensors():
            total.update(name.encode())
            total.update(tensor_bytes(tensor))
        return f"sha256:{total.hexdigest()}"


def load_module(folder: Path, *, dtype: torch.dtype, attention: str) -> Any:
    """A `transformers` causal LM from a local folder.

    Raises:
        CheckpointError: the folder holds no model.
        EngineError: the head has a bias or the logits are transformed after it.
    """
    require_model_folder(folder)
    # Its bars would run through the logs and progress displays of whoever called us.
    logging.disable_progress_bar()
    try:
        module = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no causal LM that transformers can load: {error}") from error
    if getattr(module.get_output_embeddings(), "bias", None) is not None:
        raise EngineError(f"{folder}: the output head has a bias, which this core does not support")
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(module.config, key, None) not in (None, 1.0):
            raise EngineError(f"{folder}: config.{key} changes the logits after the head, which is not supported")
    return module


def require_model_folder(folder: Path) -> None:
    """Check that a folder looks like a model, before anything slow starts.

    Raises:
        CheckpointError: it does not exist, or has no `config.json`.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a Hugging Face model folder: it has no config.json")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        CheckpointError: the folder has no tokenizer, or one without an end token.
    """
    require_model_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no tokenizer that transformers can load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{folder}: the tokenizer has no end token, so no response could ever stop")
    return tokenizer


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Equal for two tokenizers exactly when the same text gives the same ids and prompts look the same.

    Vocabulary with ids, merges and rules (through the serialised fast tokenizer), special tokens, chat template.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else sorted(tokenizer.get_vocab().items())
    if isinstance(rules, dict):
        rules = {key: rules[key] for key in rules if key not in ("truncation", "padding", "version")}
    facts = [rules, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.chat_template]
    return "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def stop_token_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a response: the tokenizer's end token and those of the model's configuration."""
    configured = AutoConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    extra = configured if isinstance(configured, list) else [configured]
    return tuple(sorted({tokenizer.eos_token_id, *(int(token) for token in extra if token is not None)}))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw bytes of a tensor, little-endian, on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    view: memoryview = flat.numpy().data
    return view
