"""What is wrong with a run is said before anything starts."""

from pathlib import Path

import pytest

from prime.data.chain import draw_chains, problem_of, write_fresh_model
from prime.data.problems import write_jsonl
from prime.errors import SettingsError
from primectl.config import load_config
from primectl.preflight import check_inputs


def test_a_frozen_prm_is_for_serving_and_not_for_a_run(tmp_path: Path) -> None:
    write_fresh_model(tmp_path / "model", seed=0, hidden=32)
    write_jsonl([problem_of(digits) for digits in draw_chains(4, length=3, seed=1)], tmp_path / "problems.jsonl")
    file = tmp_path / "run.toml"
    file.write_text(
        f'[run]\nname = "r"\nmodel = "{tmp_path / "model"}"\nfolder = "{tmp_path}"\n'
        f'[trainer]\nproblems = "{tmp_path / "problems.jsonl"}"\nsteps = 1\nmax_prompt_tokens = 32\n'
        "sampling = { max_tokens = 32 }\n[rollout]\nmax_context = 64\n"
    )
    check_inputs(load_config(file, []), resume=False)
    with pytest.raises(SettingsError, match="primectl serve-prm"):
        check_inputs(load_config(file, ["prm.frozen=true"]), resume=False)
