"""Reads the file that names the keys of the API: who may ask for what, how often, and with which share.

[alice]                       # the name, in metrics and messages
sha256 = "9f86d081..."        # of the key, which the file does not hold
scopes = ["score", "chat"]
requests_per_minute = 600
"""

import hashlib
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from prime.adapters.settings import Settings
from prime.errors import SettingsError

SERVICES = "services"
"""The name of the token that the services share, in metrics and messages."""
_RESERVED = frozenset((SERVICES, "anyone"))


class Scope(StrEnum):
    """What a key may open."""

    SCORE = "score"
    """Scoring: all HTTP routes but best-of-N's, and Score over gRPC."""
    CHAT = "chat"
    """Best-of-N."""
    LEARN = "learn"
    """Learn, Save and Restore over gRPC."""
    METRICS = "metrics"
    """`/metrics`, where that is not open to all."""


class Key(Settings):
    """One key of the file."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """Of the key, in hexadecimal digits."""
    scopes: frozenset[Scope] = Field(min_length=1)
    requests_per_minute: int = Field(0, ge=0)
    """0: as many as come."""
    tokens_per_day: int = Field(0, ge=0)
    """Scored tokens, by UTC's days; 0: as many as come."""
    share: float = Field(1.0, gt=0, le=1000)
    """How much of the model the key gets beside others."""
    priority: bool = False
    """Whether it may send `X-Priority: high`."""


_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_FILE = TypeAdapter(dict[_Name, Key])


def digest_of(key: str) -> str:
    """As the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> Mapping[str, Key]:
    """The keys of a file by their names.

    Raises:
        SettingsError: the file cannot be read, or is not as `keys_of` wants it.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"key file {path} (setting `prm.api.keys`) cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"key file {path} is no TOML: {error}") from None
    return keys_of(tree, origin=f"key file {path}")


def keys_of(tree: Mapping[str, Any], *, origin: str) -> Mapping[str, Key]:
    """The keys of a file's tables; messages begin with `origin`.

    Raises:
        SettingsError: a field is unknown, missing or out of range, or two names have one key.
    """
    try:
        keys = _FILE.validate_python(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(origin, problem) for problem in error.errors())) from None
    names: dict[str, str] = {}
    for name, key in keys.items():
        if name in _RESERVED:
            raise SettingsError(f"{origin}: the name {name!r} is taken by the service itself; choose another")
        if key.sha256 in names:
            raise SettingsError(
                f"{origin}: {names[key.sha256]!r} and {name!r} have the same sha256; give each a key of its own"
            )
        names[key.sha256] = name
    return keys


def _explain(origin: str, problem: Any) -> str:
    name, *fields = (str(part) for part in problem["loc"])
    field = fields[0] if fields else ""
    place = f"{origin}, key {name!r}"
    known = ", ".join(Key.model_fields)
    match problem["type"]:
        case "extra_forbidden":
            return f"{place}: unknown field {field!r}; take it out or correct it: known are {known}"
        case "missing":
            return f"{place}: the field {field!r} is missing; `primectl new-key` writes a table to start from"
        case _ if field == "sha256":
            # The value is not shown: it may be the key itself.
            return f"{place}: sha256 must be 64 digits 0-9a-f, the SHA-256 of the key (`primectl new-key` makes both)"
        case "string_pattern_mismatch":
            return f"{place}: a name has 1 to 64 letters, digits, '_' and '-'"
        case "model_type":
            return f"{place}: it must be a table with the fields {known}"
        case _:
            return f"{place}: {'.'.join(fields)} = {problem['input']!r}: {problem['msg']}"
