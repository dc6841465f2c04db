"""Reads settings: one TOML file per run, dotted overrides, and the few values that come from the environment.

The only module that reads the environment. Unknown keys are errors; messages name the key and where it was set.
"""

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from prime.errors import SettingsError

TOKEN_VARIABLE = "PRIME_TOKEN"
"""The bearer token that the services of a run share. `PRIME_TOKEN_FILE` names a file that holds it."""
REDIS_PASSWORD_VARIABLE = "PRIME_REDIS_PASSWORD"
"""Redis' password, for a `run.redis_url` without one. `PRIME_REDIS_PASSWORD_FILE` names a file that holds it."""
ENGINE_KEY_VARIABLE = "PRIME_ENGINE_KEY"
"""The key for engines and endpoints that ask for one, e.g. OpenAI's. `PRIME_ENGINE_KEY_FILE` names a file that holds
it."""
COLLECTOR_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Address of an OpenTelemetry collector that gets the traces. OpenTelemetry's other variables apply as well."""
CACHE_VARIABLE = "PRIME_CACHE"
"""Folder in which downloads are kept between runs. Default: `~/.cache/prime-services`."""
CI_VARIABLE = "PRIME_CI"
"""If set, a test that lacks something fails instead of being skipped."""
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""The GPUs that `primectl up` may use."""


class Settings(BaseModel):
    """Base of every settings model: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _host_and_port(address: str) -> str:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return address


Address = Annotated[str, AfterValidator(_host_and_port)]
"""`host:port`."""


class ServiceSettings(Settings):
    """What every service has: where it listens. Loopback unless the operator says otherwise."""

    listen: Address
    """gRPC address."""
    ops_listen: Address
    """HTTP address of `/healthz`, `/readyz` and `/metrics`."""
    grace_seconds: float = Field(20.0, ge=0)
    """How long calls in flight may run on after the service was asked to stop."""


class RunSettings(Settings):
    """The run that all services belong to. Every service reads this section."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run folder and the Redis keys. Letters, digits, `.`, `_` and `-`; the first is a letter or a digit."""
    model: Path
    """Hugging Face folder of the SFT checkpoint. Policy, PRM and reference all start from it."""
    folder: Path = Path("runs")
    """Folder of the run folders. A relative path counts from where the command is started."""
    seed: int = 0
    """The order of problems, sampling and the dealing of rows to mini-batches all derive from it."""
    preset: Literal["", "paper"] = ""
    """A set of values that apply where file and command line say nothing. `paper`: as PRIME's released script has them
    (see "The paper's settings")."""
    redis_url: str = ""
    """Address of Redis. Empty: `primectl up` and `primectl train` start one of their own; services that are started
    alone need one."""
    tls_folder: Path | None = None
    """Folder with `ca.crt`, `tls.crt` and `tls.key`. gRPC between services is then encrypted, and both sides show a
    certificate of this authority (`docs/deploy.md`). Empty: not encrypted."""

    @property
    def path(self) -> Path:
        """This run's folder."""
        return self.folder / self.name

    @property
    def token_file(self) -> Path:
        """Where `primectl up` leaves the bearer token, readable by its owner alone."""
        return self.path / "token"


class ComputeSettings(Settings):
    """How a model that is trained is computed."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products. Master weights, gradient sums and log-probs are float32 in any case. `auto`: bfloat16 on
    a GPU, float32 on a CPU."""
    recompute: bool = False
    """Activation checkpointing: a third more work for far less memory."""
    compile: bool = False
    """`torch.compile` around attention. The first steps take a minute longer."""
    offload: bool = False
    """Keep weights, gradients and moments in the machine's memory, and update there."""
    lora_rank: int = Field(0, ge=0)
    """Train adapters of this rank on all linear layers instead of the weights. Needs `peft`. 0: train all weights."""


class EndpointSettings(Settings):
    """A model behind OpenAI's API. Its key is read from `PRIME_ENGINE_KEY`."""

    url: str
    """E.g. `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    """The endpoint's name for the model."""
    temperature: float = Field(0.8, ge=0, le=2)
    """Sampling temperature."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Share of the probability that is sampled from."""
    max_tokens: int = Field(16384, ge=1)
    """Longest answer, in tokens."""
    at_once: int = Field(64, ge=1)
    """Requests in flight."""
    call_seconds: float = Field(1800.0, gt=0)
    """Deadline of one request."""
    patience_seconds: float = Field(600.0, ge=0)
    """For how long a request is repeated while the endpoint is away or at its limit."""
    price_in: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, in any currency. Used in the report only."""
    price_out: float = Field(0.0, ge=0)
    """Price of a million generated tokens."""


class TrackerSettings(Settings):
    """Experiment trackers (`docs/trackers.md`). `metrics.jsonl` is written in any case. Keys and passwords come from
    the libraries' own variables and login files, never from here."""

    use: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """The trackers in use, each from the extra of that name."""
    project: str = Field("prime", min_length=1)
    """The project in W&B and trackio, the experiment in MLflow."""
    entity: str = ""
    """W&B's user or team. Empty: W&B's default."""
    mlflow_uri: str = ""
    """MLflow's tracking URI, e.g. `http://host:5000` or `sqlite:///mlflow.db`. Empty: as MLflow decides
    (`MLFLOW_TRACKING_URI`)."""
    offline: bool = False
    """W&B writes files into the run folder only, for `wandb sync`."""
    flush_seconds: float = Field(10.0, gt=0)
    """How long the end of a run waits for trackers that have not taken all figures."""


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(
    model: type[SettingsT], path: Path | None, overrides: Sequence[str] = (), *, base: Path | None = None
) -> SettingsT:
    """Read `path`, lay `section.key=value` overrides on top, and check the whole against `model`.

    Override values are read as TOML where they parse as TOML (`4`, `0.5`, `true`, `[1, 2]`), else as text. `base`: a
    file that counts where the others say nothing.

    Raises:
        SettingsError: the file is missing or no TOML, an override has no `=`, or any key or value does not fit.
    """
    tree = _read_tree(path, overrides)
    if base is not None:
        tree = merged(_read_toml(base), tree)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem, overrides, path) for problem in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def peek_setting(path: Path | None, overrides: Sequence[str], dotted: str) -> Any:
    """One value as file and overrides have it, unchecked; None where they say nothing.

    Raises:
        SettingsError: the file is missing or no TOML, or an override has no `=`.
    """
    node: Any = _read_tree(path, overrides)
    for part in dotted.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def given_token() -> str:
    """The bearer token in the environment; empty without one."""
    return _secret(TOKEN_VARIABLE)


def redis_password() -> str:
    """For a `run.redis_url` that names none; empty without one."""
    return _secret(REDIS_PASSWORD_VARIABLE)


def engine_key() -> str:
    """The key for an engine that asks for one, e.g. OpenAI's; empty without one."""
    return _secret(ENGINE_KEY_VARIABLE)


def collector_is_named() -> bool:
    """Whether traces are to be sent to an OpenTelemetry collector."""
    return bool(os.environ.get(COLLECTOR_VARIABLE, "").strip())


def cache_folder() -> Path:
    """Where downloads are kept between runs: `PRIME_CACHE`, else `~/.cache/prime-services`."""
    given = os.environ.get(CACHE_VARIABLE, "").strip()
    return Path(given) if given else Path.home() / ".cache" / "prime-services"


def is_ci() -> bool:
    """Whether a test that lacks something must fail instead of being skipped (`PRIME_CI`)."""
    return bool(os.environ.get(CI_VARIABLE, "").strip())


def _secret(variable: str) -> str:
    """From the variable, else from the file that `<variable>_FILE` names.

    Raises:
        SettingsError: the file is named and cannot be read.
    """
    given = os.environ.get(variable, "").strip()
    file = os.environ.get(f"{variable}_FILE", "").strip()
    if given or not file:
        return given
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE = {file} cannot be read: {error}") from None


def read_token(token_file: Path | None) -> str:
    """The bearer token that services share: `PRIME_TOKEN` or `PRIME_TOKEN_FILE`, else the token file.

    Raises:
        SettingsError: neither is there. No token means no service: nothing listens without one.
    """
    if given_token():
        return given_token()
    if token_file is not None and token_file.is_file():
        token = token_file.read_text().strip()
        if token:
            return token
    place = f", or write it into {token_file} (`primectl up` makes this file)" if token_file is not None else ""
    raise SettingsError(
        f"no token: set {TOKEN_VARIABLE} to the token that the service uses (`primectl serve-prm` prints its key at "
        f"the start), or name a file with --token-file{place}"
    )


def child_environment(token: str, *, gpus: Sequence[str] = ()) -> dict[str, str]:
    """This process's environment for a service started from it, with the token, and with these GPUs alone if any."""
    environment = dict(os.environ)
    if gpus:
        environment[GPU_VARIABLE] = ",".join(gpus)
    environment[TOKEN_VARIABLE] = token
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # oneDNN keeps a kernel, with memory of its own, for every size of product, and packs have many sizes: half a
    # gibibyte in a process of 135 M parameters.
    environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    return environment


def visible_gpus() -> tuple[str, ...] | None:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves, by its names for them; None where it is not set."""
    given = os.environ.get(GPU_VARIABLE)
    return None if given is None else tuple(name.strip() for name in given.split(",") if name.strip())


def settle_vllm_environment(*, on_gpu: bool) -> None:
    """What vLLM reads from the environment, and only from there: no usage reports, nothing asked of a hub.

    Without a GPU its sampler would be compiled at first use, which needs a C++ compiler and gains nothing.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not on_gpu:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """What `key=value` arguments say, as a tree: `["top_p=0.9", "prime.width=4"]` is `{"top_p": 0.9, "prime": {"width":
    4}}`.

    Raises:
        SettingsError: one is not of that form.
    """
    return _read_tree(None, overrides)


def _read_tree(path: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    tree = _read_toml(path) if path is not None else {}
    for override in overrides:
        _lay_on_top(tree, override)
    return tree


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of both, values of `above` where both have one."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            both[key] = merged(below[key], above[key])
    return both


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        # The resolved settings of a run folder are JSON, which the services that `primectl up` starts read back.
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"settings file {path} does not exist") from None
    except IsADirectoryError:
        raise SettingsError(f"settings file {path} is a folder; give the .toml file") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"settings file {path} must hold sections, not a {type(tree).__name__}")
    return tree


def _lay_on_top(tree: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise SettingsError(f"override {override!r} is not of the form section.key=value")
    *parents, last = dotted.strip().split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise SettingsError(f"override {override!r}: {parent!r} is a value, not a section")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    # No setting is a date; a run may well be named after one.
    node[last] = text if isinstance(value, date | time) else value


def _explain(problem: Any, overrides: Sequence[str], path: Path | None) -> str:
    dotted = ".".join(str(part) for part in problem["loc"])
    source = next(
        (f"override {override!r}" for override in reversed(overrides) if _overlaps(override, dotted)),
        f"settings file {path}" if path is not None else "settings",
    )
    match problem["type"]:
        case "extra_forbidden":
            return f"{source}: unknown setting {dotted!r}; check its spelling and section (docs/settings.md lists all)"
        case "missing":
            return f"{source}: setting {dotted!r} is missing"
        case _:
            return f"{source}: setting {dotted!r} = {problem['input']!r}: {problem['msg']}"


def _overlaps(override: str, dotted: str) -> bool:
    """Whether an override set this key, a part of it, or the section around it."""
    name = override.partition("=")[0].strip()
    return name == dotted or name.startswith(f"{dotted}.") or dotted.startswith(f"{name}.")
