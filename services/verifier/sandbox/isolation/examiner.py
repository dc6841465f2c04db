"""The end of assertions that asks: runs the source of a test, in which the program's names stand for the other process.

Runs in a confined process that never sees the program. What comes back are exact built-in types, which are compared
here by Python's own rules, or `Remote` objects. An object is equal to nothing that is plain, whatever it says itself.
"""

import __future__

import builtins
import itertools
import json
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn, TypeVar

from services.verifier.sandbox.isolation import preset
from services.verifier.sandbox.isolation.confinement import VALUE
from services.verifier.sandbox.isolation.dialogue import (
    Channel,
    Gone,
    array_of,
    decode,
    decode_call,
    encode,
    encode_call,
)
from services.verifier.sandbox.isolation.iterables import items_of

_PRESET = object()
ExactT = TypeVar("ExactT", int, str, bool, float)
_OF_ARRAYS = re.compile(r"\bnumpy\b|\.(?:tolist|shape|dtype|ndim|all|any)\b")
"""Of a test that knows of arrays; to others they are lists."""
_MOST_ITEMS = 1_000_000


def examine(detail: bytes) -> NoReturn:
    """Run the test that `detail` describes; says `passed` if it got to its end."""
    request = json.loads(detail)
    sys.setrecursionlimit(preset.RECURSION_LIMIT)
    has_arrays = _OF_ARRAYS.search(request["source"]) is not None or "numpy" in request["imports"].values()
    asking = _Asking(Channel(), has_arrays=has_arrays)
    names = _names(request, asking)
    flags = __future__.annotations.compiler_flag
    exec(compile(request["source"], "assertions.py", "exec", flags=flags, dont_inherit=True), names)
    for name in request["calls"]:
        names[name](*([names["candidate"]] if name == "check" else []))
    if not asking.is_lost:
        os.write(VALUE, b"passed")
    os._exit(0)


def _names(request: dict[str, Any], asking: "_Asking") -> dict[str, Any]:
    """What the test finds: the program's names, and modules by which it may import them."""
    module = ModuleType("assertions")
    sys.modules["__main__"] = module
    names = module.__dict__
    names["__builtins__"] = builtins
    names.update((name, preset.value_of(name)) for name in preset.MEASURES)
    for name in request["modules"]:
        sys.modules[name] = _Program(name, asking)
    for name, module_name in request["imports"].items():
        names[name] = __import__(module_name)
    if request["function"]:
        names["candidate"] = names[request["function"]] = asking.ask("function", None, request["function"])
    for name in request["asks"]:
        if name not in names or name in preset.MEASURES:
            names[name] = asking.named(name)
    return names


class _Program(ModuleType):
    """The program as a module that a test may import from."""

    def __init__(self, name: str, asking: "_Asking") -> None:
        super().__init__(name)
        self.__dict__["_asking"] = asking

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["_asking"].named(name)


class _Asking:
    """Asks the program's process: `asking.ask("call", 3, 1, 2)`."""

    def __init__(self, channel: Channel, *, has_arrays: bool) -> None:
        self._channel = channel
        self._has_arrays = has_arrays
        self._functions: list[Any] = []
        self._exceptions: dict[int, type[Exception]] = {}
        self.is_lost = False
        """Whether the other end has gone, which a test must not get over."""

    def named(self, name: str) -> Any:
        """What the program calls so."""
        found = self.ask("name", None, name)
        if found is _PRESET:  # the library's own, which the program imports
            return preset.value_of(name)
        if isinstance(found, Remote) and name[:1].isupper():
            object.__setattr__(found, "_makes_own", True)  # a class, by how the problem writes it
        return found

    def ask(self, what: str, on: int | None, *arguments: Any, **named: Any) -> Any:
        """What comes of it there; raises what it raises."""
        try:
            self._channel.send({"do": what, "on": on, **encode_call(arguments, named, self._encoded)})
            message = self._channel.receive()
            while "call" in message:
                self._call_back(message)
                message = self._channel.receive()
            self._update(arguments, message.get("args"))
            if "raise" in message:
                error = self._error(message["raise"])
            else:
                return self._decoded(message["value"])
        except (Gone, KeyError):
            self.is_lost = True
            raise Gone from None
        raise error

    def _update(self, arguments: tuple[Any, ...], changed: Any) -> None:
        """Give the arguments the state that they have there."""
        if not isinstance(changed, list) or len(changed) != len(arguments):
            return
        for argument, now in zip(arguments, changed, strict=True):
            value = self._decoded(now)
            if type(argument) is list and type(value) is list:
                argument[:] = value
            elif type(argument) in (dict, set) and type(value) is type(argument):
                argument.clear()
                argument.update(value)

    def _call_back(self, message: dict[str, Any]) -> None:
        function = self._functions[message["call"]]
        arguments, named = decode_call(message, self._decoded)
        try:
            reply = {"value": self._encoded(function(*arguments, **named))}
        except Exception as error:  # noqa: BLE001 - whatever the test's function raises
            reply = {"raise": [type(error).__name__, str(error)]}
        self._channel.send(reply)

    # ------------------------------------------------------------ values

    def _encoded(self, value: Any) -> Any:
        return encode(value, self._stand_in)

    def _stand_in(self, value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return ["r", object.__getattribute__(value, "_number")]
        items = items_of(value)
        if items is not None:
            return ["i", [self._encoded(item) for item in itertools.islice(items, _MOST_ITEMS)]]
        if callable(value):
            self._functions.append(value)
            return ["k", len(self._functions) - 1]
        raise TypeError(f"a {type(value).__name__} of the test cannot be handed to the program")

    def _decoded(self, value: Any) -> Any:
        return decode(value, self._object)

    def _object(self, stand_in: list[Any]) -> Any:
        if stand_in[0] == "e":
            return self._exception(*stand_in[1:])
        if stand_in[0] == "n" and len(stand_in) == 3:
            items = self._decoded(stand_in[2])
            return array_of(stand_in, items) if self._has_arrays else items
        if stand_in == ["p"]:
            return _PRESET
        kind, number = stand_in
        if kind != "r" or type(number) is not int:
            raise Gone
        return Remote(self, number)

    def _error(self, raised: list[Any]) -> Exception:
        base, text, number, name = raised
        return self._exception(base, number, name)(str(text))

    def _exception(self, base: str, number: int | None, name: str) -> type[Exception]:
        """An exception of Python's own, or one that stands for the program's, so that a test can name and catch it."""
        known = getattr(builtins, str(base), None)
        if not (isinstance(known, type) and issubclass(known, Exception)):
            raise Gone
        if number is None:
            return known
        if number not in self._exceptions:
            self._exceptions[number] = type(str(name), (_made_by_text(known),), {})
        return self._exceptions[number]


def _made_by_text(known: type[Exception]) -> type[Exception]:
    try:
        known("")
    except TypeError:  # UnicodeDecodeError and its like want more
        return Exception
    return known


class Remote:
    """An object of the program's process. Own are those that the test made itself, of a class that it asks for."""

    __slots__ = ("_asking", "_is_own", "_makes_own", "_number")

    def __init__(self, asking: _Asking, number: int, *, is_own: bool = False) -> None:
        for name, value in (("_asking", asking), ("_number", number), ("_is_own", is_own), ("_makes_own", False)):
            object.__setattr__(self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it there."""
        found = _ask(self, "call", *arguments, **named)
        if isinstance(found, Remote) and object.__getattribute__(self, "_makes_own"):
            object.__setattr__(found, "_is_own", True)
        return found

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __iter__(self) -> Any:
        return _ask(self, "iter")

    def __next__(self) -> Any:
        return _ask(self, "next")

    def __len__(self) -> int:
        return _exact(_ask(self, "len"), int)

    def __str__(self) -> str:
        return _exact(_ask(self, "str"), str)

    def __repr__(self) -> str:
        return _exact(_ask(self, "repr"), str)

    def __bool__(self) -> bool:
        return _exact(_ask(self, "bool"), bool)

    def __int__(self) -> int:
        return _exact(_ask(self, "int"), int)

    def __float__(self) -> float:
        return _exact(_ask(self, "float"), float)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _ask(self, "delitem", key)

    def __contains__(self, item: Any) -> bool:
        if _is_own(self):
            return _exact(_ask(self, "contains", item), bool)
        return any(item is each or item == each for each in iter(self))

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Remote) and _exact(_ask(self, "isinstance", value), bool)

    def __enter__(self) -> Any:
        return _ask(self, "enter")

    def __exit__(self, *_: object) -> None:
        _ask(self, "exit")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote) or not _compares(self, other):
            return other is self or (isinstance(other, Remote) and _number(self) == _number(other))
        return _ask(self, "eq", other) is True

    def __ne__(self, other: object) -> bool:
        if not isinstance(other, Remote) or not _compares(self, other):
            return not self == other
        return _ask(self, "ne", other) is True

    def __hash__(self) -> int:
        return _exact(_ask(self, "hash"), int)


def _ask(remote: Remote, what: str, *arguments: Any, **named: Any) -> Any:
    asking = object.__getattribute__(remote, "_asking")
    return asking.ask(what, _number(remote), *arguments, **named)


def _number(remote: Remote) -> int:
    return object.__getattribute__(remote, "_number")  # type: ignore[no-any-return]


def _is_own(value: object) -> bool:
    return isinstance(value, Remote) and bool(object.__getattribute__(value, "_is_own"))


def _compares(remote: Remote, other: object) -> bool:
    """Whether what the program says of the two counts."""
    return _is_own(remote) or _is_own(other)


def _exact(value: Any, kind: type[ExactT]) -> ExactT:
    if type(value) is not kind:
        raise TypeError(f"the program's object gave no {kind.__name__}")
    return value


_ORDER = ("lt", "le", "gt", "ge")


def _operation(what: str) -> Callable[..., Any]:
    def operate(self: Remote, *others: Any) -> Any:
        with_plain = what in _ORDER and not all(isinstance(other, Remote) for other in others)
        if with_plain or not all(_compares(self, other) for other in others or (self,)):
            raise TypeError(f"`{what}` of an object that the program returned")
        found = _ask(self, what, *others)
        if isinstance(found, Remote):
            object.__setattr__(found, "_is_own", True)
        elif not all(isinstance(other, Remote) for other in others):
            raise TypeError(f"`{what}` of an object and a plain value gave a plain one")  # a difference of its choice
        return found

    return operate


_UNARY_AND_BINARY = "neg abs add sub mul truediv floordiv mod pow and or xor matmul"
_REFLECTED = "radd rsub rmul rtruediv rfloordiv rmod rpow"
for _name in (*_ORDER, *_UNARY_AND_BINARY.split(), *_REFLECTED.split()):
    setattr(Remote, f"__{_name}__", _operation(_name))
