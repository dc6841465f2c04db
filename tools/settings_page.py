"""The generated blocks of `docs/settings.md`: every key with its values, default and meaning, from the models."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

import prime.adapters.settings
from jobs.action_responses import ResponseSettings
from jobs.curate.settings import CurateSettings
from jobs.evaluate.settings import EvaluateSettings
from jobs.sft import SftSettings
from jobs.train_prm import TrainPrmSettings
from prime.adapters.settings import Address, ComputeSettings, EndpointSettings
from primectl.config import RunConfig
from services.rollout.settings import RolloutSettings
from services.verifier.settings import VerifierSettings
from tools.attribute_docs import constant_texts, field_texts, summary
from tools.markdown import code, table

_JOBS: Mapping[str, type[BaseModel]] = {
    "sft": SftSettings,
    "evaluate": EvaluateSettings,
    "sft-data": ResponseSettings,
    "curate": CurateSettings,
    "endpoint": EndpointSettings,
    "train-prm": TrainPrmSettings,
}
_SHARED: Mapping[type[BaseModel], str] = {
    RolloutSettings: "as in `[rollout]`",
    VerifierSettings: "as in `[verifier]`",
    ComputeSettings: "as in `[trainer.compute]`",
    EndpointSettings: 'see "Endpoints"',
}
"""Models of several jobs, which are listed once, and where."""
_, _ADDRESS_CHECK = get_args(Address)
_COLUMNS = ("key", "values", "default", "meaning")
_BOUNDS = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))
_PLAIN: Mapping[Any, str] = {str: "text", int: "integer", float: "number", Path: "path", bool: "`true`, `false`"}


@dataclass(frozen=True, slots=True)
class _Nested:
    """A field that holds settings of its own: `_Nested(model=SourceSettings, many=True)` for a list of them."""

    model: type[BaseModel]
    many: bool


def settings_blocks() -> dict[str, str]:
    """Name to text of each generated block.

    Raises:
        ValueError: a setting has no text under it.
    """
    blocks = {"environment": _environment(), "sections": "\n\n".join(_sections(RunConfig)), "preset": _preset()}
    return blocks | {name: table(_COLUMNS, list(_rows(model))) for name, model in _JOBS.items()}


def _environment() -> str:
    module = prime.adapters.settings
    texts = constant_texts(module)
    names = [name for name in vars(module) if name.endswith("_VARIABLE")]
    return table(("variable", "meaning"), [(code(getattr(module, name)), texts[name]) for name in names])


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One section of the page per model, the outer before the inner."""
    texts = field_texts(model)
    for name, field in model.model_fields.items():
        nested = _nested(field.annotation)
        if nested is None:
            continue
        path = f"{prefix}{name}"
        intro = f"{summary(nested.model)} {texts.get(name, '')}".strip()
        yield f"## `[{path}]`\n\n{intro}\n\n{table(_COLUMNS, list(_own_rows(nested.model, f'{path}.')))}"
        yield from _sections(nested.model, f"{path}.")


def _own_rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    """Of the fields that are values; those that are sections have their own table."""
    for name, field in model.model_fields.items():
        if _nested(field.annotation) is None:
            yield (code(prefix + name), _values(field.annotation, field.metadata), _default(field), _text(model, name))


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Of all fields, those inside nested models included."""
    for name, field in model.model_fields.items():
        key, nested = prefix + name, _nested(field.annotation)
        if nested is None:
            yield (code(key), _values(field.annotation, field.metadata), _default(field), _text(model, name))
            continue
        inside = f"{key}[]." if nested.many else f"{key}."
        if nested.model in _SHARED:
            yield (code(f"{inside}*"), _SHARED[nested.model], _default_of_nested(field), _text(model, name))
        else:
            yield from _rows(nested.model, inside)


def _text(model: type[BaseModel], name: str) -> str:
    text = field_texts(model).get(name, "")
    if not text:
        raise ValueError(f"{model.__name__}.{name} has no text; write a docstring under the field")
    return text


def _nested(annotation: Any) -> _Nested | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _Nested(annotation, many=False)
    inner = [_nested(each) for each in get_args(annotation) if each not in (type(None), Ellipsis)]
    found = [each for each in inner if each is not None]
    return _Nested(found[0].model, many=get_origin(annotation) is tuple) if found else None


def _values(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a field takes, e.g. "number > 0, ≤ 1"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _ADDRESS_CHECK in metadata:
        return "`host:port`"
    if origin is Annotated:
        return _values(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, UnionType):
        [only] = [each for each in arguments if each is not type(None)]
        return _values(only, metadata)
    if origin is tuple:
        text = f"list: {_values(arguments[0])}" if arguments[1] is ... else f"{len(arguments)} numbers"
    elif origin is dict:
        text = f"table: {_values(arguments[1])}"
    elif origin is Literal:
        text = ", ".join(_toml(each) for each in arguments)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        text = ", ".join(_toml(each.value) for each in annotation)
    else:
        text = _PLAIN[annotation]
    return text + _limits(metadata)


def _limits(metadata: Sequence[Any]) -> str:
    bounds, more = [], ""
    for each in metadata:
        bounds += [f"{sign} {getattr(each, name)}" for kind, name, sign in _BOUNDS if isinstance(each, kind)]
        if isinstance(each, MinLen):
            more += ", not empty"
        elif isinstance(each, StringConstraints):
            more += f", matches `{each.pattern}`"
    return (f" {', '.join(bounds)}" if bounds else "") + more


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "empty" if value in (None, "", {}) else _toml(value)


def _default_of_nested(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "empty" if field.default in (None, ()) else ""


def _toml(value: Any) -> str:
    """A value as a settings file has it. JSON's form of these types is TOML's too."""
    return code(json.dumps(value, default=lambda other: getattr(other, "value", str(other)), ensure_ascii=False))


def _preset() -> str:
    preset = tomllib.loads((resources.files("primectl") / "paper.toml").read_text(encoding="utf-8"))
    rows = []
    for path, value in _leaves(preset):
        model: type[BaseModel] = RunConfig
        *parents, name = path
        for parent in parents:
            nested = _nested(model.model_fields[parent].annotation)
            assert nested is not None, f"{parent} of the preset is no section"
            model = nested.model
        rows.append((code(".".join(path)), _default(model.model_fields[name]), _toml(value)))
    return table(("key", "default", '`run.preset = "paper"`'), rows)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
