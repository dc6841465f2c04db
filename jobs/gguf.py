"""Turns a GGUF file of a Llama model into a Hugging Face folder that every part of this project can start from.

The weights are dequantised to float32. The tokenizer's end token becomes the one that ends a turn of the chat template.
Behind `primectl import-gguf`.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from prime.errors import DataError, EngineError, SettingsError
from prime.lm.checkpoint import write_folder

_MAGIC = b"GGUF"
_ARCHITECTURE = "llama"
# A text that no chat template contains; what follows it in a rendered conversation ends the turn.
_MARK = "7f3a"


def import_gguf(file: Path, output: Path) -> Path:
    """Write the model of `file` to the folder `output`; returns the folder.

    Raises:
        SettingsError: the package gguf is not installed, or `output` is in the way.
        DataError: the file is missing or is not a GGUF file, or no end token can be found in it.
        EngineError: the model is not of the Llama architecture.
    """
    if importlib.util.find_spec("gguf") is None:
        raise SettingsError("reading a GGUF file needs the package gguf: pip install --no-deps gguf")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output} exists and is not empty; choose another folder")
    _check(file)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    source = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    end = end_of_turn(tokenizer, default=source.config.eos_token_id)
    if end is None:
        raise DataError(f"{file} names no end token, and its chat template ends a turn with none")
    tokenizer.clean_up_tokenization_spaces = False  # it would change decoded text
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)
    module = _without_traces(source, end)
    write_folder(output, lambda target: _fill(module, tokenizer, target))
    return output


def end_of_turn(tokenizer: Any, *, default: int | None) -> int | None:
    """Id of the token that ends a turn of the chat template; `default` where there is no template or no such token.

    Example: ChatML closes a turn with `<|im_end|>` and a line break, so it is the id of `<|im_end|>`.
    """
    if not tokenizer.chat_template:
        return default
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    _, _, ending = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_MARK)
    known = tokenizer.added_tokens_decoder
    ids = tokenizer(ending, add_special_tokens=False)["input_ids"]
    return next((int(number) for number in ids if number in known), default)


def _check(file: Path) -> None:
    """Read the head of the file, before the weights are.

    Raises:
        DataError: it is missing or not a GGUF file.
        EngineError: the architecture is another one.
    """
    if not file.is_file():
        raise DataError(f"GGUF file {file} does not exist")
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise DataError(f"{file} is not a GGUF file: it does not begin with {_MAGIC.decode()}")
    from gguf import GGUFReader

    try:
        field = GGUFReader(file).get_field("general.architecture")
    except (ValueError, IndexError) as error:
        raise DataError(f"{file} is a torn GGUF file: {error}") from error
    architecture = field.contents() if field is not None else "unknown"
    if architecture != _ARCHITECTURE:
        raise EngineError(f"{file} holds a model of architecture {architecture!r}; only {_ARCHITECTURE!r} is supported")


def _without_traces(source: Any, end: int) -> Any:
    """The same model without the marks that it came from a GGUF file, which stop transformers from saving it."""
    facts = source.config.to_dict()
    facts.pop("quantization_config", None)
    config = LlamaConfig.from_dict({**facts, "eos_token_id": end, "pad_token_id": end})
    module = LlamaForCausalLM(config)
    module.load_state_dict(source.state_dict())
    module.generation_config.eos_token_id = module.generation_config.pad_token_id = end
    return module


def _fill(module: Any, tokenizer: Any, target: Path) -> None:
    module.save_pretrained(target)
    tokenizer.save_pretrained(target)
