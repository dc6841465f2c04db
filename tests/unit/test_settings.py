"""What is wrong with a settings file or an override is said by key and by where it was set."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobs.action_responses import ResponseSettings
from jobs.curate.settings import CurateSettings
from jobs.evaluate.settings import EvaluateSettings
from jobs.sft import SftSettings
from prime.adapters.settings import TOKEN_VARIABLE, Settings, child_environment, load_settings, read_token
from prime.errors import SettingsError
from primectl.config import RunConfig, load_config

ROOT = Path(__file__).parents[2]
MINIMAL = """
[run]
name = "first"
model = "models/sft"
[trainer]
problems = "problems.jsonl"
steps = 3
"""
KEYS = [
    "prm.api.body_seconds",
    "prm.api.keys",
    "prm.api.max_body_mib",
    "prm.api.max_candidates",
    "prm.api.max_tokens",
    "prm.api.max_waiting",
    "prm.api.model_id",
    "prm.api.open_metrics",
    "prm.api.require_key",
    "prm.balance",
    "prm.best_of_n.best_of",
    "prm.best_of_n.continuation",
    "prm.best_of_n.engine",
    "prm.best_of_n.engine_model",
    "prm.best_of_n.engine_seconds",
    "prm.best_of_n.max_best_of",
    "prm.best_of_n.selection",
    "prm.best_of_n.verifier",
    "prm.best_of_n.votes",
    "prm.beta",
    "prm.compute.compile",
    "prm.compute.dtype",
    "prm.compute.lora_rank",
    "prm.compute.offload",
    "prm.compute.recompute",
    "prm.device",
    "prm.dtype",
    "prm.frozen",
    "prm.gpus",
    "prm.grace_seconds",
    "prm.grad_clip",
    "prm.listen",
    "prm.loss",
    "prm.lr",
    "prm.margin",
    "prm.mini_batches",
    "prm.model",
    "prm.ops_listen",
    "prm.prefix_emphasis",
    "prm.processes",
    "prm.reference",
    "prm.reference_cache_mib",
    "prm.reference_mode",
    "prm.shift",
    "prm.threads",
    "prm.token_budget",
    "prm.watch_frozen",
    "rollout.device",
    "rollout.dtype",
    "rollout.engine",
    "rollout.gpus",
    "rollout.grace_seconds",
    "rollout.kv_cache_gib",
    "rollout.lease_seconds",
    "rollout.listen",
    "rollout.lora_rank",
    "rollout.max_context",
    "rollout.max_groups",
    "rollout.memory_share",
    "rollout.ops_listen",
    "rollout.tensor_parallel",
    "rollout.threads",
    "run.folder",
    "run.model",
    "run.name",
    "run.preset",
    "run.redis_url",
    "run.seed",
    "run.tls_folder",
    "trainer.advantage.bound",
    "trainer.advantage.bound_at",
    "trainer.advantage.combine",
    "trainer.advantage.credit",
    "trainer.advantage.estimator",
    "trainer.advantage.gamma",
    "trainer.advantage.granularity",
    "trainer.advantage.min_temperature",
    "trainer.advantage.outcome_coef",
    "trainer.advantage.overlong_window",
    "trainer.advantage.process_coef",
    "trainer.advantage.process_on",
    "trainer.advantage.reward_norm",
    "trainer.advantage.shared_prefix_correction",
    "trainer.advantage.source",
    "trainer.advantage.step_delimiter",
    "trainer.advantage.step_worth",
    "trainer.advantage.trust.ceiling",
    "trainer.advantage.trust.enabled",
    "trainer.advantage.trust.floor",
    "trainer.advantage.trust.full_at",
    "trainer.advantage.trust.memory",
    "trainer.advantage.whiten",
    "trainer.alarm.behind_frozen",
    "trainer.alarm.entropy",
    "trainer.alarm.sampler_kl",
    "trainer.alarm.truncated_share",
    "trainer.checkpoint_every",
    "trainer.code_score",
    "trainer.compute.compile",
    "trainer.compute.dtype",
    "trainer.compute.lora_rank",
    "trainer.compute.offload",
    "trainer.compute.recompute",
    "trainer.evaluation.data",
    "trainer.evaluation.every",
    "trainer.evaluation.limit",
    "trainer.evaluation.problems",
    "trainer.evaluation.samples",
    "trainer.evaluation.sets",
    "trainer.filter.high",
    "trainer.filter.low",
    "trainer.filter.max_attempts",
    "trainer.filter.max_oversample",
    "trainer.filter.max_rounds",
    "trainer.filter.on_short",
    "trainer.filter.rest_epochs",
    "trainer.gpus",
    "trainer.grace_seconds",
    "trainer.keep_checkpoints",
    "trainer.keep_every",
    "trainer.listen",
    "trainer.long_prompts",
    "trainer.loss.clip",
    "trainer.loss.clip_high",
    "trainer.loss.dual_clip",
    "trainer.loss.entropy_coef",
    "trainer.loss.importance",
    "trainer.loss.importance_cap",
    "trainer.loss.importance_kind",
    "trainer.loss.kind",
    "trainer.loss.kl_coef",
    "trainer.loss.mean",
    "trainer.loss.router_coef",
    "trainer.max_lag",
    "trainer.max_prompt_tokens",
    "trainer.mode",
    "trainer.ops_listen",
    "trainer.optimiser.betas",
    "trainer.optimiser.device",
    "trainer.optimiser.final_lr_share",
    "trainer.optimiser.grad_clip",
    "trainer.optimiser.lr",
    "trainer.optimiser.max_skipped",
    "trainer.optimiser.mini_batches",
    "trainer.optimiser.threads",
    "trainer.optimiser.token_budget",
    "trainer.optimiser.warmup_share",
    "trainer.optimiser.weight_decay",
    "trainer.peers.call_seconds",
    "trainer.peers.patience_seconds",
    "trainer.peers.prm",
    "trainer.peers.rollout",
    "trainer.peers.stall_seconds",
    "trainer.peers.verifier",
    "trainer.prm_max_lag",
    "trainer.prm_update",
    "trainer.prm_warmup_steps",
    "trainer.probe_gap",
    "trainer.problems",
    "trainer.processes",
    "trainer.prompts_per_step",
    "trainer.push",
    "trainer.record",
    "trainer.recorded",
    "trainer.reference_every",
    "trainer.samples_per_prompt",
    "trainer.sampling.max_tokens",
    "trainer.sampling.min_p",
    "trainer.sampling.stop",
    "trainer.sampling.stop_token_ids",
    "trainer.sampling.temperature",
    "trainer.sampling.top_k",
    "trainer.sampling.top_p",
    "trainer.steps",
    "trainer.trackers.entity",
    "trainer.trackers.flush_seconds",
    "trainer.trackers.mlflow_uri",
    "trainer.trackers.offline",
    "trainer.trackers.project",
    "trainer.trackers.use",
    "trainer.truncated",
    "verifier.cache_entries",
    "verifier.cpu_seconds",
    "verifier.grace_seconds",
    "verifier.idle_seconds",
    "verifier.libraries",
    "verifier.listen",
    "verifier.math_options",
    "verifier.math_seconds",
    "verifier.max_queue",
    "verifier.max_tests",
    "verifier.memory_mib",
    "verifier.min_tier",
    "verifier.ops_listen",
    "verifier.output_kib",
    "verifier.program_seconds",
    "verifier.testlib_path",
    "verifier.wall_seconds",
    "verifier.workers",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _write(tmp_path / "run.toml", MINIMAL)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _dotted_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


# ---------------------------------------------------------------- the list of keys


def test_the_settings_are_exactly_these() -> None:
    assert sorted(_dotted_keys(RunConfig)) == KEYS


def test_the_table_of_settings_names_every_key_once_and_no_other() -> None:
    cells = re.findall(r"^\| *`([a-z_.]+)` *\|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert sorted(key for key in cells if key.partition(".")[0] in RunConfig.model_fields) == KEYS


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (SftSettings, "## Supervised fine-tuning"),
        (ResponseSettings, "## Responses in actions"),
        (CurateSettings, "## Curation"),
        (EvaluateSettings, "## Evaluation"),
    ],
)
def test_settings_of_jobs_are_explained_as_well(model: type[BaseModel], heading: str) -> None:
    """Of models within models the name alone, or `name.*`."""
    page = (ROOT / "docs" / "settings.md").read_text()
    section = page.partition(heading)[2].partition("\n## ")[0]
    for key in _dotted_keys(model):
        name = key.partition(".")[0]
        shown = {key, name, f"{name}.*", f"{key}.*", f"{key}[].*", f"{key}[].kind"}
        assert any(f"`{each}`" in section for each in shown), key


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
