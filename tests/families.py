"""Tiny checkpoints with random weights of the model families that people train."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 64
_BASE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    # Larger than usual, so that log-probs differ clearly from token to token.
    "initializer_range": 0.2,
}
_MOE: Mapping[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of model: `Family(title="Llama", model_type="llama", members="Llama 2 and 3, SmolLM2")`."""

    title: str
    model_type: str
    members: str
    config: Mapping[str, Any]
    dropped: tuple[str, ...] = ()
    """Of what all share, what this configuration does not have."""

    def write(self, folder: Path) -> Path:
        """A checkpoint in Hugging Face form, without a tokenizer."""
        settings = {name: value for name, value in {**_BASE, **self.config}.items() if name not in self.dropped}
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(self.model_type, **settings), dtype=torch.float32)
        model.save_pretrained(folder)
        return folder


def _family(title: str, model_type: str, members: str, *, dropped: tuple[str, ...] = (), **config: Any) -> Family:
    return Family(title=title, model_type=model_type, members=members, config=config, dropped=dropped)


_LINEAR: Mapping[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    # Its chunked and its step-by-step form round differently, and more with large weights.
    "initializer_range": 0.1,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "head_dim": 8,
}

FAMILIES = (
    _family("Llama", "llama", "Llama 2 and 3, SmolLM2, many others"),
    _family("Llama, tied head", "llama", "Llama 3.2 1B, SmolLM2", tie_word_embeddings=True),
    _family("Qwen2", "qwen2", "Qwen2.5, Qwen2.5-Math, DeepSeek-R1-Distill-Qwen", tie_word_embeddings=True),
    _family("Qwen3", "qwen3", "Qwen3", head_dim=8),
    _family("Qwen3-MoE", "qwen3_moe", "Qwen3-30B-A3B", head_dim=8, **_MOE),
    _family("Qwen3-Next", "qwen3_next", "Qwen3-Next", shared_expert_intermediate_size=16, **_MOE, **_LINEAR),
    _family("Qwen3.5", "qwen3_5_text", "Qwen3.5, text", **_LINEAR),
    _family("Mistral", "mistral", "Mistral 7B", sliding_window=None),
    _family("Mistral, sliding window", "mistral", "Mistral 7B v0.1", sliding_window=8),
    _family("Mixtral", "mixtral", "Mixtral 8x7B", num_local_experts=4, num_experts_per_tok=2),
    _family("Gemma", "gemma", "Gemma 1", head_dim=8),
    _family("Gemma 2", "gemma2", "Gemma 2", head_dim=8, sliding_window=8, query_pre_attn_scalar=8),
    _family("Gemma 3", "gemma3_text", "Gemma 3, text", head_dim=8, sliding_window=8, query_pre_attn_scalar=8),
    _family("Phi-3", "phi3", "Phi-3 and Phi-4-mini"),
    _family("OLMo 2", "olmo2", "OLMo 2"),
    _family("OLMo 3", "olmo3", "OLMo 3", sliding_window=8),
    _family("OLMoE", "olmoe", "OLMoE", num_experts=4, num_experts_per_tok=2),
    _family("Granite", "granite", "Granite 3", logits_scaling=4.0, attention_multiplier=0.3),
    _family(
        "Granite 4, hybrid",
        "granitemoehybrid",
        "Granite 4",
        layer_types=["mamba", "mamba", "attention", "mamba"],
        num_local_experts=0,
        shared_intermediate_size=48,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_chunk_size=8,
        mamba_n_groups=1,
    ),
    _family(
        "Falcon-H1",
        "falcon_h1",
        "Falcon-H1",
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_chunk_size=8,
        mamba_n_groups=1,
    ),
    _family("LFM2", "lfm2", "LFM2", layer_types=["conv", "full_attention", "conv", "full_attention"]),
    _family("SmolLM3", "smollm3", "SmolLM3"),
    _family("GLM-4", "glm4", "GLM-4", head_dim=8),
    _family("Cohere", "cohere", "Command R", logit_scale=0.25),
    _family("StarCoder2", "starcoder2", "StarCoder2", sliding_window=8),
    _family("GPT-2", "gpt2", "GPT-2", n_embd=32, n_layer=4, n_head=4, n_positions=256, dropped=tuple(_BASE)[1:7]),
    _family("GPT-NeoX", "gpt_neox", "Pythia", dropped=("num_key_value_heads",)),
    _family(
        "gpt-oss",
        "gpt_oss",
        "gpt-oss 20B and 120B",
        head_dim=8,
        sliding_window=8,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    _family(
        "DeepSeek-V3",
        "deepseek_v3",
        "DeepSeek-V3 and R1, Kimi K2, Moonlight",
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    _family("Llama 4", "llama4_text", "Llama 4, text", head_dim=8, num_local_experts=2, intermediate_size_mlp=48),
    _family("Mamba 2", "mamba2", "Mamba 2", num_heads=8, head_dim=8, state_size=8, n_groups=1, chunk_size=8, expand=2),
)
