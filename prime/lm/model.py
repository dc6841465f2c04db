"""The causal-LM core that policy, PRM, reference and SFT share: token log-probs of packed rows.

Policy, PRM and reference go through the very same code, so equal weights give equal log-probs to the last bit, and a
PRM that equals its reference gives rewards of exactly 0.
"""

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, logging

from prime.errors import CheckpointError, SettingsError, TookTooLong
from prime.lm.adapters import (
    adapters_of,
    add_adapters,
    base_of,
    is_adapter_folder,
    merge_adapters,
    merged_tensors,
    stored_tensors,
    whole_adapters,
)
from prime.lm.attention import PACKED, register_packed_attention
from prime.lm.compute import Compute, set_up
from prime.lm.packing import Pack, TokenRow, build_pack, deal_packs, idle_pack, plan_packs, split_rows
from prime.lm.proof import PROOF_TOKENS, describe_layers, fault_of_packing, proof_rows
from prime.lm.world import World
from prime.maths.logprobs import ChosenLogprobs, Tiles, chosen_logprobs, logprobs_of_logits, scored_logprobs

# A tile of logits stays in a CPU's cache; a GPU wants large matrix products instead.
TILES = {"cpu": Tiles(), "cuda": Tiles(tokens=8192, vocab=16384)}


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
    # A checkpoint of one process is what was asked for, not an accident.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
    # On a CPU the same batch then gives the same bits; CUDA has kernels without such a variant.
    torch.use_deterministic_algorithms(pick_device(device).type == "cpu")
    # Nothing here reads memory before it is written, and filling each new tensor takes a tenth of an update.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class Loader(Protocol):
    """Makes the module of a model folder; `load_module` is the usual one."""

    def __call__(self, folder: Path, *, dtype: torch.dtype, attention: str | None, empty: bool) -> Any:
        """As `load_module` does it, and raising what it raises."""


class CausalLM:
    """A Hugging Face causal LM read as a function from packed tokens to log-probs."""

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compute: Compute = Compute(),  # noqa: B008  frozen
        world: World | None = None,
        load: Loader | None = None,
    ) -> None:
        """Load weights from a local Hugging Face folder; in a world of several ranks, at the same time on all of them.

        `dtype` is that of the weights, `compute.dtype` that of the products. `load`: what makes the module, if not
        `load_module`.

        Raises:
            CheckpointError: the folder holds no model.
        """
        register_packed_attention()
        self.device = device
        self.world = world or World()
        self.compute = compute
        load = load or load_module
        self.module: Any = load(folder, dtype=dtype, attention=None, empty=not self.world.is_leader)
        if compute.lora_rank:
            add_adapters(self.module, compute.lora_rank)
        self.module.eval()  # no dropout: log-probs are functions of the weights alone
        self._packed = _Passes(self.module)
        set_up(self._packed, self.module, compute, self.world, device)
        self._fresh_adapters = {name: tensor.clone() for name, tensor in adapters_of(self.module).items()}
        self.slow_because = self._choose_layout()
        """Why rows are computed one by one, prompts once per sample; empty: they are packed."""

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are cut over ranks (a world of one included), and are gathered to be used."""
        return self.compute.needs_sharding(self.world)

    @property
    def changes_as_it_reads(self) -> bool:
        """Whether a pass changes the module."""
        return follows_length(self.module.config)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the model was made for."""
        return positions_of(self.module.config)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trainable weights, tied ones once."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def logprobs(self, pack: Pack, *, temperature: float = 1.0, routers: bool = False) -> ChosenLogprobs:
        """Log-prob and entropy at every response token of the pack. [R], in the pack's order.

        `routers`: also what the routers said where these tokens were predicted.

        Raises:
            SettingsError: the model has no routers, or transformers does not tell what they say.
        """
        logprobs: ChosenLogprobs = self._packed(pack.to(self.device), temperature=temperature, routers=routers)
        return logprobs

    @property
    def experts_per_token(self) -> int:
        """Of a mixture of experts; 0 of any other model."""
        return experts_per_token(self.module.config)

    def packs(self, rows: Sequence[TokenRow], *, token_budget: int) -> Iterator[Pack]:
        """This rank's share of the rows as micro-batches for passes with a gradient.

        Every rank has equally many, for they gather each other's weights; where there is nothing left to do, the pack
        has no rows, and its pass adds a gradient of 0.
        """
        for numbers in deal_packs(rows, self._plan(rows, token_budget), ranks=self.world.size)[self.world.rank]:
            yield build_pack(rows, numbers) if numbers else idle_pack()

    @torch.no_grad()
    def score_rows(
        self,
        rows: Sequence[TokenRow],
        *,
        token_budget: int,
        temperature: float = 1.0,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> list[Tensor]:
        """Log-probs of every row's response tokens, fp32 on the CPU, without gradient, in the order of the rows.

        A prompt that several rows share is computed once per pack. In a world of several ranks all must call, and each
        gets all rows.

        Raises:
            TookTooLong: nobody wants them any more, which `is_wanted` says between two packs.
        """
        if not rows:
            return []
        lengths = [len(row.written) for row in rows]
        found_X = torch.zeros(sum(lengths))
        by_row = torch.split(found_X, lengths)
        for numbers in deal_packs(rows, self._plan(rows, token_budget), ranks=self.world.size)[self.world.rank]:
            if not is_wanted():
                raise TookTooLong("nobody waits for these log-probs any more")
            pack = build_pack(rows, numbers) if numbers else idle_pack()
            logprobs_R = self._packed(pack.to(self.device), temperature=temperature, scored=True)
            for number, logprobs_T in split_rows(logprobs_R.cpu(), pack).items():
                by_row[number].copy_(logprobs_T)
        self._let_go()
        # Every row was computed by one rank and is 0 on the others.
        return list(torch.split(self.world.sum(found_X), lengths))

    def _plan(self, rows: Sequence[TokenRow], token_budget: int) -> list[tuple[int, ...]]:
        if self._packed.is_alone:
            return sorted(((number,) for number in range(len(rows))), key=lambda plan: (-len(rows[plan[0]]), plan))
        return plan_packs(rows, token_budget=token_budget)

    def _choose_layout(self) -> str:
        """Packed rows where they give what transformers gives for each alone; says why where they do not."""
        vocabulary = self.module.get_output_embeddings().weight.shape[0]
        rows = proof_rows(vocabulary)
        self._packed.is_alone = True
        expected = self.score_rows(rows, token_budget=1)
        why = head_beyond_linear(self.module)
        if not why:
            self._packed.is_alone = False
            self.module.set_attn_implementation(PACKED)
            is_exact = self.compute.dtype == "float32" and next(self.module.parameters()).dtype == torch.float32
            why = fault_of_packing(
                lambda rows: self.score_rows(rows, token_budget=PROOF_TOKENS),
                rows,
                expected,
                vocabulary=vocabulary,
                noise="float32" if is_exact else "bfloat16",
                has_experts=bool(self.experts_per_token),
                parts=describe_layers(self.module),
            )
        if why:
            self._packed.is_alone = True
            self.module.set_attn_implementation(self._packed.own_attention)
        return why

    def _let_go(self) -> None:
        """Without a backward, gathered weights would stay, and be stale after the next update."""
        if self.is_sharded:
            self._packed.reshard()  # type: ignore[operator]  # fully_shard made it an FSDPModule

    @torch.no_grad()
    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Every weight under its checkpoint name, in one fixed order, one whole tensor at a time; a tied head too.

        Engines that keep a packed copy of the head need it named, tied or not. In a world of several ranks all must
        iterate. With adapters, weights are what they amount to, or if not `merged`, both as they are stored.
        """
        yield from merged_tensors(self.module) if merged else stored_tensors(self.module)

    @torch.no_grad()
    def named_adapters(self) -> Iterator[tuple[str, Tensor]]:
        """Every adapter weight, whole, as peft names it; nothing without adapters. In a world of several ranks all must
        iterate."""
        yield from whole_adapters(self.module)

    @property
    def tied_names(self) -> dict[str, str]:
        """Weights that are others by another name: `{"lm_head.weight": "model.embed_tokens.weight"}` or nothing."""
        if not getattr(self.module.config, "tie_word_embeddings", False):
            return {}
        embedding = self.module.get_input_embeddings().weight
        names = [name for name, each in self.module.named_parameters(remove_duplicate=False) if each is embedding]
        return {"lm_head.weight": next(name for name in names if name != "lm_head.weight")}

    def reset_adapters(self) -> None:
        """Put the adapters back to how they began."""
        self.module.load_state_dict(self._fresh_adapters, strict=False)

    @torch.no_grad()
    def digest(self) -> str:
        """`sha256:` over names and bytes of all weights: which model this is."""
        total = hashlib.sha256()
        for name, tensor in self.named_tensors():
            total.update(name.encode())
            total.update(tensor_bytes(tensor))
        return f"sha256:{total.hexdigest()}"


class _Passes(nn.Module):
    """The whole computation as one module: what `fully_shard` hooks into, the head and its loss included."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.own_attention = lm.config._attn_implementation
        self.is_alone = False
        """Each pack is one row, and the model's own forward computes it, head and all."""

    def forward(
        self, pack: Pack, *, temperature: float, scored: bool = False, routers: bool = False
    ) -> ChosenLogprobs | Tensor:
        """Log-probs of the pack's response tokens; `scored`: without gradient and entropy."""
        more = {"output_router_logits": True} if routers else {}
        if self.is_alone:
            output = self.lm(input_ids=pack.ids_N[None], use_cache=False, **more)
            logits_RV = output.logits[0].index_select(0, pack.predictors_R)
            chosen = logprobs_of_logits(logits_RV, pack.chosen_R, temperature=temperature)
            return chosen.logprobs_N if scored else chosen._replace(routers=_routers(output, pack, routers))
        output = self.lm.base_model(
            input_ids=pack.ids_N[None], position_ids=pack.positions_N[None], use_cache=False, pack=pack, **more
        )
        # The head runs only on the states from which response tokens are predicted.
        hidden_RD: Tensor = output.last_hidden_state[0].index_select(0, pack.predictors_R)
        head_VD: Tensor = self.lm.get_output_embeddings().weight
        tiles = TILES.get(head_VD.device.type, TILES["cuda"])
        divisor = temperature * logits_divisor(self.lm.config)
        if scored:
            return scored_logprobs(hidden_RD, head_VD, pack.chosen_R, temperature=divisor, tiles=tiles)
        chosen = chosen_logprobs(hidden_RD, head_VD, pack.chosen_R, temperature=divisor, tiles=tiles)
        return chosen._replace(routers=_routers(output, pack, routers))


def _routers(output: Any, pack: Pack, wanted: bool) -> tuple[Tensor, ...]:
    if not wanted:
        return ()
    logits: tuple[Tensor, ...] = tuple(getattr(output, "router_logits", None) or ())
    if not logits:
        raise SettingsError(
            "the balance of routers is asked for, and transformers tells nothing of routers in this model; "
            "set trainer.loss.router_coef to 0"
        )
    return tuple(each_NE.view(-1, each_NE.shape[-1]).index_select(0, pack.predictors_R) for each_NE in logits)


def positions_of(config: Any) -> int:
    """Tokens of the longest sequence that a model was made for."""
    return int(getattr(config, "max_position_embeddings", 0)) or sys.maxsize


def follows_length(config: Any) -> bool:
    """Whether a pass changes the module: rotary frequencies that follow the length of what is read."""
    scaling = getattr(config.get_text_config(), "rope_scaling", None) or {}
    return any("dynamic" in str(each) or "longrope" in str(each) for each in scaling.values())


def experts_per_token(config: Any) -> int:
    """Of a mixture of experts; 0 of any other model."""
    return int(getattr(config.get_text_config(), "num_experts_per_tok", 0) or 0)


def load_module(folder: Path, *, dtype: torch.dtype, attention: str | None, empty: bool = False) -> Any:
    """A `transformers` causal LM from a local folder; `empty`: its structure on the meta device, without weights.

    `attention` None: what transformers picks for the model. A folder of adapters is their base with them added in.

    Raises:
        CheckpointError: the folder holds no model.
        SettingsError: it holds adapters, and peft is not installed.
    """
    if is_adapter_folder(folder):
        module = load_module(base_of(folder), dtype=dtype, attention=attention, empty=empty)
        return module if empty else merge_adapters(module, folder)
    require_model_folder(folder)
    # Its bars would run through the logs and progress displays of whoever called us.
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if attention is None and getattr(config.get_text_config(), "attn_logit_softcapping", None):
            attention = "eager"  # transformers' choice leaves the soft cap out
        if empty:
            with torch.device("meta"):
                module = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        else:
            module = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation=attention, local_files_only=True
            )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no causal LM that transformers can load: {error}") from error
    return module


def head_beyond_linear(module: Any) -> str:
    """What the logits are besides a product of hidden states and head, in words; empty if nothing."""
    if getattr(module.get_output_embeddings(), "bias", None) is not None:
        return "the output head has a bias"
    if getattr(module.config, "final_logit_softcapping", None):
        return "config.final_logit_softcapping bends the logits after the head"
    return ""


def logits_divisor(config: Any) -> float:
    """What the product of hidden states and head is divided by: Granite's `logits_scaling`, Cohere's `logit_scale`."""
    return float(getattr(config, "logits_scaling", None) or 1.0) / float(getattr(config, "logit_scale", None) or 1.0)


def require_model_folder(folder: Path) -> None:
    """Check that a folder looks like a model, before anything slow starts.

    Raises:
        CheckpointError: it does not exist, has no `config.json`, or has files that this user may not read.
    """
    if not folder.exists():
        raise CheckpointError(f"the model folder {folder} does not exist (seen from {Path.cwd()})")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a Hugging Face model folder: it has no config.json")
    # safetensors would say that there is no such file.
    for file in sorted(folder.iterdir()):
        if not os.access(file, os.R_OK, effective_ids=True):
            raise CheckpointError(f"{file} cannot be read by user {os.geteuid()}; change its owner or its mode")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        CheckpointError: the folder has no tokenizer, or one without an end token.
    """
    if is_adapter_folder(folder) and not (folder / "tokenizer_config.json").is_file():
        folder = base_of(folder)
    elif not is_adapter_folder(folder):
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
    """Ids that end a response: the end tokens of tokenizer, `config.json` and `generation_config.json` together.

    Chat models often name the end of a turn in the last of them alone.
    """
    configured = [AutoConfig.from_pretrained(folder, local_files_only=True).eos_token_id]
    if (folder / GENERATION_CONFIG_NAME).is_file():
        configured.append(GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id)
    ids = {tokenizer.eos_token_id}
    for named in configured:
        ids.update(named if isinstance(named, list) else [named])
    return tuple(sorted(int(token) for token in ids if token is not None))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw bytes of a tensor, little-endian, on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    view: memoryview = flat.numpy().data
    return view
