"""A small untrained model that reads any text, byte by byte: to try a whole run with, not to be good."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from transformers.utils import logging

_END, _PAD = "<|end|>", "<|pad|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 byte tokens, an end token and padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([_PAD, _END, *alphabet])}
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token=_END, pad_token=_PAD, chat_template=_CHAT_TEMPLATE)


def write_tiny_model(
    folder: Path, *, seed: int = 0, hidden: int = 128, layers: int = 2, tied: bool = False, context: int = 2048
) -> None:
    """A randomly initialised Llama with the byte tokenizer, as a Hugging Face folder."""
    write_untrained_model(
        folder,
        build_byte_tokenizer(),
        seed=seed,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
    )


def write_untrained_model(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int, **shape: Any) -> None:
    """A randomly initialised Llama of the given shape (fields of `LlamaConfig`) with a tokenizer, as one folder."""
    set_seed(seed)
    logging.disable_progress_bar()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
