"""A GGUF file becomes an ordinary model folder, and what is refused says why."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.gguf import end_of_turn, import_gguf
from prime.adapters.settings import cache_folder, is_ci
from prime.data.chain import build_tokenizer
from prime.data.prompts import encode_prompt
from prime.data.tiny import build_byte_tokenizer
from prime.errors import DataError, EngineError, PeerUnavailable, SettingsError
from prime.lm.model import CausalLM, load_module, load_tokenizer, stop_token_ids
from prime.lm.packing import TokenRow
from prime.types import Message
from primectl.real_model import fetch_real_model

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        file = fetch_real_model(cache_folder())
    except PeerUnavailable as error:
        if is_ci():
            raise
        pytest.skip(str(error))
    return import_gguf(file, tmp_path_factory.mktemp("real") / "model")


# ---------------------------------------------------------------- the model


@pytest.mark.timeout(600)
def test_it_answers_a_sum_and_ends_its_turn(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert stop_token_ids(folder, tokenizer) == (tokenizer.eos_token_id,)
    module = load_module(folder, dtype=torch.float32, attention="sdpa")
    assert module.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not hasattr(module.config, "quantization_config")
    prompt = encode_prompt(tokenizer, [Message(role="user", content="What is 7 + 5?")])
    ids = module.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0, len(prompt) :].tolist()
    assert ids[-1] == tokenizer.eos_token_id
    assert "12" in tokenizer.decode(ids)


@pytest.mark.timeout(600)
def test_the_lm_core_reads_it_as_transformers_does(folder: Path) -> None:
    lm = CausalLM(folder, device=torch.device("cpu"))
    row = TokenRow(prompt_ids=(1, 504, 365), response_ids=(335, 253, 2))
    (mine_T,) = lm.score_rows([row], token_budget=64)
    module = load_module(folder, dtype=torch.float32, attention="sdpa")
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    with torch.no_grad():
        theirs_LV = module(ids).logits[0].log_softmax(dim=1)
    theirs_T = theirs_LV[2:5].gather(1, ids[0, 3:, None]).squeeze(1)
    torch.testing.assert_close(mine_T, theirs_T, atol=1e-3, rtol=1e-4)


# ---------------------------------------------------------------- the end of a turn


def test_the_end_token_is_read_from_the_template() -> None:
    tokenizer: Any = build_byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + m['content'] + '<|pad|>\n' }}{% endfor %}"
    assert end_of_turn(tokenizer, default=7) == tokenizer.convert_tokens_to_ids("<|pad|>")


def test_without_a_template_or_a_token_in_it_the_file_decides() -> None:
    tokenizer: Any = build_tokenizer()
    assert end_of_turn(tokenizer, default=1) == 1
    tokenizer.chat_template = None
    assert end_of_turn(tokenizer, default=5) == 5


# ---------------------------------------------------------------- what is refused


def test_a_missing_file_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        import_gguf(tmp_path / "none.gguf", tmp_path / "out")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="not a GGUF file"):
        import_gguf(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1))
    with pytest.raises(DataError, match="torn"):
        import_gguf(torn, tmp_path / "out")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "bert.gguf", "bert")
    for act in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        act()
    with pytest.raises(EngineError, match="'bert'"):
        import_gguf(tmp_path / "bert.gguf", tmp_path / "out")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    with pytest.raises(SettingsError, match="not empty"):
        import_gguf(tmp_path / "model.gguf", tmp_path / "out")
