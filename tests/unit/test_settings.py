"""What is wrong with a settings file or an override is said by key and by where it was set."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prime.adapters.settings import TOKEN_VARIABLE, Settings, child_environment, load_settings, read_token
from prime.errors import SettingsError
from primectl.config import load_config

ROOT = Path(__file__).parents[2]
MINIMAL = """
[run]
name = "first"
model = "models/sft"
[trainer]
problems = "problems.jsonl"
steps = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _write(tmp_path / "run.toml", MINIMAL)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---------------------------------------------------------------- what is right


def test_a_minimal_file_is_completed_by_defaults(file: Path) -> None:
    config = load_config(file, [])
    assert config.run.path == Path("runs/first")
    assert config.run.token_file == Path("runs/first/token")
    assert (config.trainer.steps, config.trainer.samples_per_prompt) == (3, 4)
    assert (config.prm.beta, config.prm.model) == (None, None)


def test_everything_listens_on_loopback_unless_told_otherwise(file: Path) -> None:
    config = load_config(file, [])
    services = (config.trainer, config.rollout, config.prm, config.verifier)
    addresses = [address for service in services for address in (service.listen, service.ops_listen)]
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert len(set(addresses)) == 8


def test_overrides_lie_on_top_and_are_read_as_toml(file: Path) -> None:
    overrides = [
        "trainer.steps=7",
        "trainer.filter.low=0.25",
        'trainer.peers.rollout=["10.0.0.1:1", "10.0.0.2:2"]',
        "trainer.sampling={ max_tokens = 9, temperature = 0.5 }",
        'run.name="quoted"',
    ]
    config = load_config(file, overrides)
    assert config.trainer.steps == 7
    assert config.trainer.filter.low == 0.25
    assert config.trainer.peers.rollout == ("10.0.0.1:1", "10.0.0.2:2")
    assert (config.trainer.sampling.max_tokens, config.trainer.sampling.temperature) == (9, 0.5)
    assert config.run.name == "quoted"


def test_a_preset_counts_where_file_and_command_line_say_nothing(file: Path) -> None:
    plain, paper = load_config(file, []), load_config(file, ["run.preset=paper"])
    assert (plain.trainer.max_lag, plain.trainer.optimiser.mini_batches, plain.prm.mini_batches) == (1, 1, 1)
    assert (paper.trainer.max_lag, paper.trainer.optimiser.mini_batches, paper.prm.mini_batches) == (0, 4, 4)
    assert paper.trainer.optimiser.weight_decay == 0.01
    assert paper.trainer.steps == plain.trainer.steps
    mixed = load_config(file, ["run.preset=paper", "trainer.optimiser.mini_batches=2"])
    assert (mixed.trainer.optimiser.mini_batches, mixed.trainer.optimiser.weight_decay) == (2, 0.01)
    with pytest.raises(SettingsError, match=r"run\.preset"):
        load_config(file, ["run.preset=papers"])


def test_an_override_that_is_no_toml_is_text(file: Path) -> None:
    config = load_config(file, ["run.model=/models/Qwen2.5-0.5B", "trainer.problems=a=b.jsonl", "run.redis_url="])
    assert config.run.model == Path("/models/Qwen2.5-0.5B")
    assert config.trainer.problems == "a=b.jsonl"
    assert config.run.redis_url == ""


def test_of_two_overrides_the_last_wins(file: Path) -> None:
    assert load_config(file, ["trainer.steps=5", "trainer.steps=6"]).trainer.steps == 6


def test_settings_without_a_file_come_from_overrides_alone() -> None:
    class Pair(Settings):
        left: int
        right: str = "r"

    assert load_settings(Pair, None, ["left=2"]) == Pair(left=2)
    with pytest.raises(SettingsError, match="settings: setting 'left' is missing"):
        load_settings(Pair, None)


def test_resolved_settings_written_as_json_read_back_equal(file: Path, tmp_path: Path) -> None:
    config = load_config(file, ["prm.model=models/prm", 'trainer.peers.rollout=["h:1", "h:2"]', "trainer.max_lag=2"])
    dumped = _write(tmp_path / "settings.json", json.dumps(config.model_dump(mode="json")))
    assert load_config(dumped, []) == config


def test_settings_are_frozen(file: Path) -> None:
    config = load_config(file, [])
    places: list[tuple[Any, str]] = [
        (config, "run"),
        (config.run, "name"),
        (config.trainer, "steps"),
        (config.trainer.filter, "low"),
        (config.prm, "beta"),
        (config.rollout, "engine"),
        (config.verifier, "workers"),
    ]
    for owner, name in places:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(owner, name, getattr(owner, name))


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("samples_per_promt = 4", r"unknown setting 'trainer\.samples_per_promt'"),
        ("samples_per_prompt = 1", r"setting 'trainer\.samples_per_prompt' = 1: .*greater than or equal to 2"),
        ("prompts_per_step = 'many'", r"setting 'trainer\.prompts_per_step' = 'many'"),
        ("listen = 'localhost'", r"setting 'trainer\.listen' = 'localhost': .*not host:port"),
        ("ops_listen = ':80'", r"setting 'trainer\.ops_listen' = ':80': .*not host:port"),
        ("filter = { low = 0.9 }", r"setting 'trainer\.filter'.*low = 0\.9 is above high = 0\.8"),
        ("filter = { lwo = 0.1 }", r"unknown setting 'trainer\.filter\.lwo'"),
        ("peers = { rollout = ['h:1', 'h:99999'] }", r"setting 'trainer\.peers\.rollout\.1' = 'h:99999'"),
        ("prm_update = 'never'", r"setting 'trainer\.prm_update' = 'never'"),
        ("sampling = { temperature = 0.0 }", r"setting 'trainer\.sampling\.temperature' = 0\.0"),
        ("sampling = { top_p = nan }", r"setting 'trainer\.sampling\.top_p' = nan"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: str, message: str) -> None:
    file = _write(tmp_path / "run.toml", f"{MINIMAL}{line}\n")
    with pytest.raises(SettingsError, match=message) as caught:
        load_config(file, [])
    assert f"settings file {file}: " in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.step=4", r"unknown setting 'trainer\.step'"),
        ("trainr=4", "unknown setting 'trainr'"),
        ("trainer.samples_per_prompt=1", r"setting 'trainer\.samples_per_prompt' = 1: .*2"),
        ("trainer.steps=soon", r"setting 'trainer\.steps' = 'soon'"),
        ("verifier.workers=0.5", r"setting 'verifier\.workers' = 0\.5"),
        ("rollout.listen=somewhere", r"setting 'rollout\.listen' = 'somewhere': .*not host:port"),
        ("run.name=../elsewhere", r"setting 'run\.name' = '\.\./elsewhere'"),
        ("rollout.engine=magic", r"setting 'rollout\.engine' = 'magic'"),
    ],
)
def test_a_bad_override_is_named_itself(file: Path, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_config(file, [override])
    assert f"override {override!r}: " in str(caught.value)
    assert str(file) not in str(caught.value)


def test_missing_settings_are_all_named_at_once(tmp_path: Path) -> None:
    file = _write(tmp_path / "run.toml", '[run]\nname = "a"\n[trainer]\nsteps = 1\n')
    with pytest.raises(SettingsError) as caught:
        load_config(file, [])
    assert str(caught.value).splitlines() == [
        f"settings file {file}: setting 'run.model' is missing",
        f"settings file {file}: setting 'trainer.problems' is missing",
    ]


@pytest.mark.parametrize("override", ["trainer.steps", "=4", "trainer"])
def test_an_override_without_key_and_value_is_refused(file: Path, override: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"override {override!r} is not of the form section.key=value")):
        load_config(file, [override])


def test_an_override_into_a_value_is_refused(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"override 'trainer\.steps\.more=1': 'steps' is a value, not a section"):
        load_config(file, ["trainer.steps.more=1"])


@pytest.mark.parametrize("name", ["run.toml", "settings.json"])
def test_a_file_that_cannot_be_parsed_is_named(tmp_path: Path, name: str) -> None:
    file = _write(tmp_path / name, "[run\n")
    with pytest.raises(SettingsError, match=re.escape(f"settings file {file} cannot be read: ")):
        load_config(file, [])


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"settings file {tmp_path / 'no.toml'} does not exist")):
        load_config(tmp_path / "no.toml", [])
    with pytest.raises(SettingsError, match=re.escape(f"settings file {tmp_path} is a folder")):
        load_config(tmp_path, [])


# ---------------------------------------------------------------- the token


def test_the_token_comes_from_the_environment_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_file = _write(tmp_path / "token", "from-file\n")
    monkeypatch.setenv(TOKEN_VARIABLE, " from-environment ")
    assert read_token(token_file) == "from-environment"
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert read_token(token_file) == "from-file"


def test_without_a_token_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for token_file in (None, tmp_path / "missing", _write(tmp_path / "empty", " \n")):
        with pytest.raises(SettingsError, match=f"set {TOKEN_VARIABLE}"):
            read_token(token_file)


def test_a_child_inherits_the_environment_and_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIME_TEST_MARK", "kept")
    environment = child_environment("secret")
    assert (environment["PRIME_TEST_MARK"], environment[TOKEN_VARIABLE]) == ("kept", "secret")
