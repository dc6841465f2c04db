"""What travels between assertions and the program that they ask: frames of JSON, and values in a form that keeps kinds.

Both ends are confined processes. What is decoded is made here, of exact built-in types; everything else stays a number
that stands for an object at the other end.
"""

import collections
import datetime
import decimal
import fractions
import importlib
import json
import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.verifier.sandbox.isolation.values import DEEPEST, Unsupported, container_of, of_numpy

CHANNEL = 4
"""Descriptor of the connection between the two."""
_LENGTH = struct.Struct("!I")
_LARGEST = 32 * 1024 * 1024
_CHUNK = 1024 * 1024
_TAGS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z", collections.deque: "q"}
_KINDS = {tag: kind for kind, tag in _TAGS.items()}
_NAMED: tuple[type, ...] = (int, float, str, bool, list, tuple, dict, set, frozenset, bytes, type(None))
_TIMES: dict[str, Any] = {kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time)}
_NUMBERS = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|U\d{1,4})", re.ASCII)
"""Types of arrays; none of objects."""
_TYPES = {kind.__name__: kind for kind in _NAMED}


class Gone(BaseException):
    """The other end has ended, or speaks another language. No assertion is meant to catch this."""


class Channel:
    """Frames over a descriptor."""

    def __init__(self, descriptor: int = CHANNEL) -> None:
        self._descriptor = descriptor
        self._read, self._write = os.read, os.write
        self._encoder, self._decoder = json.JSONEncoder(ensure_ascii=True), json.JSONDecoder()

    def send(self, message: dict[str, Any]) -> None:
        """Raises Gone."""
        text = self._encoder.encode(message).encode()
        left = memoryview(_LENGTH.pack(len(text)) + text)
        try:
            while left:
                left = left[self._write(self._descriptor, left[:_CHUNK]) :]
        except OSError:
            raise Gone from None

    def receive(self) -> dict[str, Any]:
        """Raises Gone."""
        (length,) = _LENGTH.unpack(self._bytes(_LENGTH.size))
        if length > _LARGEST:
            raise Gone
        try:
            message = self._decoder.decode(self._bytes(length).decode())
        except (ValueError, RecursionError):
            raise Gone from None
        if not isinstance(message, dict):
            raise Gone
        return message

    def _bytes(self, length: int) -> bytes:
        parts = []
        while length:
            try:
                part = self._read(self._descriptor, min(length, _CHUNK))
            except OSError:
                raise Gone from None
            if not part:
                raise Gone
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def encode(value: Any, stand_in: Callable[[Any], list[Any]], depth: int = 0) -> Any:
    """The value for JSON; `stand_in` gives what stands for an object that is no plain value.

    Raises:
        Unsupported: it is nested too deep.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if depth > DEEPEST:
        raise Unsupported("nested too deep")

    def inner(item: Any) -> Any:
        return encode(item, stand_in, depth + 1)

    if of_numpy(value):
        return _numpy_parts(value, inner)
    container = container_of(value)
    if container is dict:
        return ["d", [[inner(key), inner(item)] for key, item in dict.items(value)]]
    if container is not None:
        return [_TAGS[container], [inner(item) for item in container.__iter__(value)]]  # type: ignore[attr-defined]
    scalar = _scalar_parts(value)
    return stand_in(value) if scalar is None else scalar


def encode_call(arguments: Sequence[Any], named: Mapping[str, Any], encoded: Callable[[Any], Any]) -> dict[str, Any]:
    """The arguments of a call, as part of a message."""
    return {
        "args": [encoded(each) for each in arguments],
        "named": {name: encoded(each) for name, each in named.items()},
    }


def decode_call(message: Mapping[str, Any], decoded: Callable[[Any], Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call again, by position and by name."""
    return [decoded(each) for each in message["args"]], {name: decoded(each) for name, each in message["named"].items()}


def _numpy_parts(value: Any, inner: Callable[[Any], Any]) -> Any:
    """A number of numpy as Python's, an array as its type and its items."""
    items = value.tolist()
    if of_numpy(items):
        raise Unsupported("a number of numpy that Python has none for")
    return ["n", value.dtype.str, inner(items)] if hasattr(type(value), "__array_finalize__") else inner(items)


def array_of(stand_in: list[Any], items: Any) -> Any:
    """The array of numpy that an `n` describes. Raises Gone."""
    kind = stand_in[1]
    if not isinstance(kind, str) or not _NUMBERS.fullmatch(kind):
        raise Gone
    try:
        return importlib.import_module("numpy").array(items, dtype=kind)
    except (ImportError, TypeError, ValueError, OverflowError):
        raise Gone from None


def _scalar_parts(value: Any) -> list[Any] | None:
    kind = type(value)
    if kind in (bytes, bytearray):
        return ["b", bytes(value).hex()]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["g", value.start, value.stop, value.step]
    if kind in (datetime.datetime, datetime.date, datetime.time):
        return ["T", kind.__name__, value.isoformat()]
    if kind is datetime.timedelta:
        return ["L", value.days, value.seconds, value.microseconds]
    if kind is decimal.Decimal:
        return ["D", str(value)]
    if kind is fractions.Fraction:
        return ["F", int(value.numerator), int(value.denominator)]
    return ["y", value.__name__] if any(value is known for known in _NAMED) else None


def decode(value: Any, stand_in: Callable[[list[Any]], Any], depth: int = 0) -> Any:
    """The value again; `stand_in` turns what stands for an object into it.

    Raises:
        Gone: nobody of ours has encoded this.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > DEEPEST or not isinstance(value, list) or not value:
        raise Gone
    tag, *rest = value
    try:
        if tag == "d":
            return {decode(key, stand_in, depth + 1): decode(item, stand_in, depth + 1) for key, item in rest[0]}
        if tag in _KINDS:
            return _KINDS[tag](decode(item, stand_in, depth + 1) for item in rest[0])
        return _scalar(tag, rest) if tag in _SCALARS else stand_in(value)
    except (TypeError, ValueError, LookupError, ArithmeticError):
        raise Gone from None


_SCALARS: dict[str, Callable[..., Any]] = {
    "b": bytes.fromhex,
    "c": complex,
    "g": range,
    "T": lambda kind, text: _TIMES[kind].fromisoformat(text),
    "L": datetime.timedelta,
    "D": decimal.Decimal,
    "F": fractions.Fraction,
    "y": _TYPES.__getitem__,
}


def _scalar(tag: str, parts: list[Any]) -> Any:
    return _SCALARS[tag](*parts)
