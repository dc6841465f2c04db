"""Reward heads: a decoder with a small head over its last hidden states, read as a function from tokens to log-odds.

    folder (`architectures`)        kind            head                        source
    ...ForProcessRewardModel        step head       Linear, ReLU, Linear to 2   Qwen2.5-Math-PRM, arXiv 2501.07301
    ...ForTokenClassification       step head       Linear to 2                 TRL's PRMTrainer
    ...ForSequenceClassification    sequence head   Linear to 1 or 2            reward models of preferences
    ...ForRewardModel               sequence head   Linear, ReLU, Linear to 1   Qwen2.5-Math-RM

The decoder is transformers' own and the head is read from the safetensors, so no code of the folder is ever run. With
two labels the log-odds of label 1 are the difference of the logits; with one they are the logit itself.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from prime.data.prm_config import read_prm_config
from prime.data.rendering import closing_of
from prime.errors import CheckpointError, TookTooLong
from prime.lm.adapters import adapter_shapes, base_of, is_adapter_folder, merge_adapters, task_of
from prime.lm.attention import PACKED, register_packed_attention
from prime.lm.model import experts_per_token, follows_length, positions_of, require_model_folder
from prime.lm.packing import Pack, TokenRow, build_pack, plan_packs, split_rows
from prime.lm.proof import PROOF_TOKENS, describe_layers, fault_of_packing, proof_rows
from prime.scoring import Activation, Aggregation, PrmConfig, PrmKind

_KINDS = {
    "ForProcessRewardModel": PrmKind.STEP_HEAD,
    "ForTokenClassification": PrmKind.STEP_HEAD,
    "ForSequenceClassification": PrmKind.SEQUENCE_HEAD,
    "ForRewardModel": PrmKind.SEQUENCE_HEAD,
}
_KINDS_OF_TASKS = {"TOKEN_CLS": PrmKind.STEP_HEAD, "SEQ_CLS": PrmKind.SEQUENCE_HEAD}
_HEAD_NAMES = ("score.", "classifier.")
_TRAINED_HEADS = (".model.score.weight", ".model.classifier.weight")
_LAYERED = frozenset(("0.weight", "0.bias", "2.weight", "2.bias"))
_PLAIN = (frozenset(("weight",)), frozenset(("weight", "bias")))
_MOST_LABELS = 2
_QWEN_MARK, _TRL_MARK = "<extra_0>", "\n"
_MOST_LEAK = 1e-4
"""By which later tokens may move a decoder's log-odds, relative to their size."""


def kind_of(folder: Path) -> PrmKind:
    """What kind of PRM a model folder holds, by the `architectures` in its `config.json`; of adapters by their task.

    Raises:
        CheckpointError: the folder holds no model.
    """
    if is_adapter_folder(folder):
        return _KINDS_OF_TASKS.get(task_of(folder)) or kind_of(base_of(folder))
    require_model_folder(folder)
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
        ending = "For" + str(architectures[0]).rpartition("For")[2]
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is no model's configuration: {error}") from None
    return _KINDS.get(ending, PrmKind.IMPLICIT)


def read_head_config(folder: Path, kind: PrmKind, tokenizer: Any) -> PrmConfig:
    """How a head is to be read: as the folder's `prm_config.json` says, else as those who publish its kind do.

    Raises:
        CheckpointError: the file names what a head has not, or no mark where one is needed.
    """
    if kind is PrmKind.STEP_HEAD:
        # Qwen's paper takes the product or the least; TRL writes its separator, a line break, where labels are learnt.
        default = PrmConfig(
            beta=1.0,
            aggregation=Aggregation.MIN,
            activation=Activation.SIGMOID,
            end_token=False,
            step_mark=_QWEN_MARK if _QWEN_MARK in tokenizer.get_vocab() else _TRL_MARK,
        )
    else:
        default = PrmConfig(beta=1.0, aggregation=Aggregation.LAST, closing=closing_of(tokenizer))
    config = read_prm_config(folder, default)
    if config.beta != 1.0:
        raise CheckpointError(f"{folder}: beta in prm_config.json scales log-ratios, and a {kind.value} has none")
    if bool(config.step_mark) is not (kind is PrmKind.STEP_HEAD):
        need = "needs a step_mark, where it is read" if kind is PrmKind.STEP_HEAD else "is read once: no step_mark"
        raise CheckpointError(f"{folder}: prm_config.json: a {kind.value} {need}")
    return config


class HeadLM:
    """A decoder with a reward head, read as a function from packed tokens to log-odds."""

    def __init__(self, folder: Path, *, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights from a local Hugging Face folder.

        Raises:
            CheckpointError: the folder holds no decoder with a head that is known here.
        """
        register_packed_attention()
        self.device = device
        module, head = (_load_adapted if is_adapter_folder(folder) else _load_whole)(folder, dtype)
        self.module, self._head = module.to(device).eval(), head.to(device).eval()
        self._is_alone = True
        self._own_attention = self.module.config._attn_implementation
        self._refuse_encoders(folder)
        self.slow_because = self._choose_layout()
        """Why rows are computed one by one, prompts once per sample; empty: they are packed."""

    @property
    def changes_as_it_reads(self) -> bool:
        """Whether a pass changes the module."""
        return follows_length(self.module.config)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the model was made for."""
        return positions_of(self.module.config)

    @property
    def pad_token_id(self) -> int | None:
        """Tokens with this id do not end a conversation."""
        pad: int | None = self.module.config.get_text_config().pad_token_id
        return pad

    @torch.no_grad()
    def score_rows(
        self, rows: Sequence[TokenRow], *, token_budget: int, is_wanted: Callable[[], bool] = lambda: True
    ) -> list[Tensor]:
        """Log-odds read at every response token, fp32 on the CPU, in the order of the rows.

        A prompt that several rows share is computed once per pack.

        Raises:
            TookTooLong: nobody wants them any more, which `is_wanted` says between two packs.
        """
        found: dict[int, Tensor] = {}
        plans = (
            [(number,) for number in range(len(rows))]
            if self._is_alone
            else plan_packs(rows, token_budget=token_budget)
        )
        for numbers in plans:
            if not is_wanted():
                raise TookTooLong("nobody waits for these rewards any more")
            pack = build_pack(rows, numbers)
            found.update(split_rows(self._log_odds(pack.to(self.device)).cpu(), pack))
        return [found[number] for number in range(len(rows))]

    def _log_odds(self, pack: Pack) -> Tensor:
        """[R], in the pack's order."""
        how = {} if self._is_alone else {"position_ids": pack.positions_N[None], "pack": pack}
        states_1ND: Tensor = self.module(input_ids=pack.ids_N[None], use_cache=False, **how).last_hidden_state
        logits_RL: Tensor = self._head(states_1ND[0].index_select(0, pack.written_R)).float()
        return logits_RL[:, 1] - logits_RL[:, 0] if logits_RL.shape[1] == _MOST_LABELS else logits_RL[:, 0]

    def _refuse_encoders(self, folder: Path) -> None:
        """A model that looks ahead reads a step otherwise than its first tokens, and its prompts cannot be shared."""
        row = proof_rows(self._vocabulary)[0]
        short = TokenRow(prompt_ids=row.prompt_ids, response_ids=row.response_ids[:-1])
        whole_T, before_T = self.score_rows([row, short], token_budget=1)
        gap = float((whole_T[: len(before_T)] - before_T).abs().max())
        if gap > _MOST_LEAK * max(1.0, float(before_T.abs().max())) and self.module.dtype == torch.float32:
            raise CheckpointError(
                f"{folder} is no decoder: what its head says of a token changes with later tokens (by {gap:.2g}). Only "
                "heads over decoders are served"
            )

    def _choose_layout(self) -> str:
        rows = proof_rows(self._vocabulary)
        expected = self.score_rows(rows, token_budget=1)
        scale = max(1.0, *(float(values_T.abs().max()) for values_T in expected))

        def score(rows: Sequence[TokenRow]) -> list[Tensor]:
            return [values_T / scale for values_T in self.score_rows(rows, token_budget=PROOF_TOKENS)]

        self._is_alone = False
        self.module.set_attn_implementation(PACKED)
        why = fault_of_packing(
            score,
            rows,
            [values_T / scale for values_T in expected],
            vocabulary=self._vocabulary,
            noise="float32" if self.module.dtype == torch.float32 else "bfloat16",
            has_experts=bool(experts_per_token(self.module.config)),
            parts=describe_layers(self.module),
        )
        if why:
            self._is_alone = True
            self.module.set_attn_implementation(self._own_attention)
        return why

    @property
    def _vocabulary(self) -> int:
        return int(self.module.get_input_embeddings().weight.shape[0])


def _load_whole(folder: Path, dtype: torch.dtype) -> tuple[Any, nn.Module]:
    return _load(AutoModel, folder, dtype), _load_head(folder, dtype)


def _load_adapted(folder: Path, dtype: torch.dtype) -> tuple[Any, nn.Module]:
    """Decoder and head of adapters: peft saves a head that was trained beside them."""
    trained = adapter_shapes(folder)
    labels = [shape[0] for name, shape in trained.items() if name.endswith(_TRAINED_HEADS)]
    if len(labels) != 1 or labels[0] > _MOST_LABELS:
        raise CheckpointError(
            f"{folder}: the adapters bring no head of 1 or 2 labels (`score` or `classifier`, which peft saves where "
            "modules_to_save names it)"
        )
    is_read_once = kind_of(folder) is PrmKind.SEQUENCE_HEAD
    auto = AutoModelForSequenceClassification if is_read_once else AutoModelForTokenClassification
    module = merge_adapters(_load(auto, base_of(folder), dtype, num_labels=labels[0]), folder)
    head: nn.Module = module.score if hasattr(module, "score") else module.classifier
    return module.base_model, head


def _load(auto: Any, folder: Path, dtype: torch.dtype, **more: Any) -> Any:
    require_model_folder(folder)
    logging.disable_progress_bar()
    loudness = logging.get_verbosity()
    # It would warn of the head, which it does not load.
    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        attention = "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None
        module, loaded = auto.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no decoder that transformers can load: {error}") from error
    finally:
        logging.set_verbosity(loudness)
    # Encoders have a pooler, which is not used here, and adapters bring their own head.
    missing = sorted(name for name in loaded["missing_keys"] if not name.startswith(("pooler.", *_HEAD_NAMES)))
    if missing:
        raise CheckpointError(f"{folder} lacks weights of the decoder in its config.json, {missing[0]} among them")
    return module


def _load_head(folder: Path, dtype: torch.dtype) -> nn.Module:
    weights = {name: tensor.to(dtype) for name, tensor in _head_weights(folder).items()}
    names = frozenset(weights)
    if names == _LAYERED:
        head: nn.Module = nn.Sequential(_linear(weights, "0."), nn.ReLU(), _linear(weights, "2."))
        labels = len(weights["2.weight"])
    elif names in _PLAIN:
        head, labels = _linear(weights, ""), len(weights["weight"])
    else:
        raise CheckpointError(
            f"{folder}: its head has the weights {sorted(names)}; known are one linear layer (`score` or "
            "`classifier`), and linear, ReLU, linear (`score.0`, `score.2`), as safetensors"
        )
    if labels > _MOST_LABELS:
        raise CheckpointError(f"{folder}: its head has {labels} labels; a reward has 1, or 2 (wrong, right)")
    return head


def _linear(weights: Mapping[str, Tensor], prefix: str) -> nn.Linear:
    weight, bias = weights[f"{prefix}weight"], weights.get(f"{prefix}bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _head_weights(folder: Path) -> dict[str, Tensor]:
    """By their names after `score.` or `classifier.`."""
    found = {}
    for file in _safetensors_of(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  it is no mapping
                prefix = next((each for each in _HEAD_NAMES if name.startswith(each)), None)
                if prefix is not None:
                    found[name.removeprefix(prefix)] = tensors.get_tensor(name)
    return found


def _safetensors_of(folder: Path) -> Iterator[Path]:
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        yield folder / SAFE_WEIGHTS_NAME
        return
    names: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    for name in sorted({file for weight, file in names.items() if weight.startswith(_HEAD_NAMES)}):
        yield folder / name
