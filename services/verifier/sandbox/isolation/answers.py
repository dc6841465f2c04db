"""The program's end of assertions: does what is asked of its functions and objects, and never learns what is expected.

Runs in a confined process, after `untrusted.py` compiled the program; the other end is `examiner.py`.
"""

import builtins
import operator
import os
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

from services.verifier.sandbox.isolation import preset
from services.verifier.sandbox.isolation.calls import Solution
from services.verifier.sandbox.isolation.dialogue import (
    Channel,
    Gone,
    array_of,
    decode,
    decode_call,
    encode,
    encode_call,
)
from services.verifier.sandbox.isolation.values import Unsupported

_MUTABLE = (list, dict, set)


def answer(code: CodeType, source: bytes) -> NoReturn:
    """Load the program, answer until the other end has had enough, and end the process."""
    end = os._exit
    answerer = _Answerer(Solution(code, source), Channel())
    try:
        while True:
            answerer.step()
    except Gone:
        end(0)


class _Answerer:
    def __init__(self, solution: Solution, channel: Channel) -> None:
        self._solution = solution
        self._channel = channel
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def step(self) -> None:
        """Answer one question."""
        self._reply(self._channel.receive())

    def _reply(self, request: dict[str, Any]) -> None:
        try:
            self._channel.send(self._result(request))
        except (Unsupported, RecursionError) as error:
            self._channel.send({"raise": ["TypeError", str(error)]})

    def _result(self, request: dict[str, Any]) -> dict[str, Any]:
        positional, named = decode_call(request, self._decoded)
        try:
            value = self._do(request["do"], request.get("on"), positional, named)
            if request["do"] == "name" and preset.is_preset(positional[0], value):
                return {"value": ["p"], "args": None}
        except Exception as error:  # noqa: BLE001 - whatever the program raises
            return {"raise": self._raised(error), "args": self._changed(request, positional)}
        return {"value": self._encoded(value), "args": self._changed(request, positional)}

    def _do(self, what: str, on: Any, positional: list[Any], named: dict[str, Any]) -> Any:
        if what == "name":
            return self._named(*positional)
        if what == "function":
            return self._solution.function(*positional)
        subject = self._objects[on]
        if what == "call":
            return subject(*positional, **named)
        return _OPERATIONS[what](subject, *positional)

    def _named(self, name: str) -> Any:
        names = self._solution.names
        if name not in names:
            return self._solution.function(name)
        return names[name]

    def _changed(self, request: dict[str, Any], positional: list[Any]) -> list[Any] | None:
        """The arguments of a call as they are now, if one that can change did."""
        if request["do"] != "call" or not any(type(each) in _MUTABLE for each in positional):
            return None
        now = [self._encoded(each) if type(each) in _MUTABLE else None for each in positional]
        same = [each is None or each == before for each, before in zip(now, request["args"], strict=True)]
        return None if all(same) else now

    def _raised(self, error: Exception) -> list[Any]:
        """Name and text of what was raised; its nearest relative of Python's own, and itself where it is another."""
        base, number, name = self._kind_of(type(error))
        try:
            text = str(error)[:1000]
        except Exception:  # noqa: BLE001 - whatever the program's exception does
            text = ""
        return [base, text, number, name]

    def _kind_of(self, kind: type[Exception]) -> tuple[str, int | None, str]:
        """The nearest relative of Python's own; the number of the class itself where it is another; its name."""
        known = next(each for each in kind.__mro__ if getattr(builtins, each.__name__, None) is each)
        return known.__name__, None if known is kind else self._number(kind), kind.__name__

    # ------------------------------------------------------------ values

    def _encoded(self, value: Any) -> Any:
        return encode(value, self._stand_in)

    def _stand_in(self, value: Any) -> list[Any]:
        if isinstance(value, type) and issubclass(value, Exception):
            return ["e", *self._kind_of(value)]
        return ["r", self._number(value)]

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # kept, so that its id stays its own
        return self._numbers[id(value)]

    def _decoded(self, value: Any) -> Any:
        return decode(value, self._object)

    def _object(self, stand_in: list[Any]) -> Any:
        if stand_in[0] == "n":
            return array_of(stand_in, self._decoded(stand_in[2]))
        kind, number = stand_in
        if kind == "r":
            return self._objects[number]
        if kind == "i":
            return iter([self._decoded(item) for item in number])
        if kind == "k":
            return self._back(number)
        raise Gone

    def _back(self, number: int) -> Callable[..., Any]:
        """A function of the assertions."""

        def call_back(*arguments: Any, **named: Any) -> Any:
            self._channel.send({"call": number, **encode_call(arguments, named, self._encoded)})
            while True:
                message = self._channel.receive()
                if "do" in message:
                    self._reply(message)  # the function asks in its turn
                elif "raise" in message:
                    raise getattr(builtins, message["raise"][0], RuntimeError)(message["raise"][1])
                else:
                    return self._decoded(message["value"])

        return call_back


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "getattr": getattr,
    "setattr": setattr,
    "hasattr": hasattr,
    "iter": iter,
    "next": next,
    "len": len,
    "str": str,
    "repr": repr,
    "bool": bool,
    "hash": hash,
    "int": int,
    "float": float,
    "enter": lambda subject: subject.__enter__(),
    "exit": lambda subject: subject.__exit__(None, None, None),
    "isinstance": lambda subject, value: isinstance(value, subject),
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "contains": operator.contains,
}
_BINARY = "eq ne lt le gt ge add sub mul truediv floordiv mod pow and or xor matmul neg abs"
_OPERATIONS |= {name: getattr(operator, f"__{name}__") for name in _BINARY.split()}


def _reflected(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda subject, other: operation(other, subject)


_OPERATIONS |= {
    f"r{name}": _reflected(_OPERATIONS[name])
    for name in "add sub mul truediv floordiv mod pow".split()  # noqa: SIM905
}
