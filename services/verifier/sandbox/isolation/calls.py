"""Calls one function of a program and hands its value out. Runs in a confined process; used by `untrusted.py`."""

import builtins
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any, NoReturn

from services.verifier.sandbox.isolation import preset
from services.verifier.sandbox.isolation.confinement import VALUE
from services.verifier.sandbox.isolation.values import Unsupported, plain, to_chain, to_tree

MODULE = "solution"
_FRAMES_SHOWN = 100
"""Of an error; to print hundreds of thousands takes a second."""
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})", re.ASCII)
_DOCUMENTED_RESULT = re.compile(r":rtype\s*:\s*([^\n]+)")
_DOCUMENTED = re.compile(r":type\s+(\w+)\s*:\s*([^\n]+)")


class Solution:
    """A program that was loaded as the module `solution`; found by the names that it defines itself."""

    def __init__(self, code: CodeType, source: bytes) -> None:
        preset.install(source)
        sys.setrecursionlimit(preset.RECURSION_LIMIT)
        sys.tracebacklimit = _FRAMES_SHOWN
        self._code = code
        self.names = self._load(MODULE)

    def _load(self, name: str) -> dict[str, Any]:
        module = ModuleType(name)
        module.__dict__.update(__builtins__=builtins, __file__="solution.py")
        # By both names, for what looks itself up: dataclasses, pickles, annotations.
        sys.modules["__main__"] = sys.modules[MODULE] = sys.modules[name] = module
        try:
            exec(self._code, module.__dict__)
        except Exception:
            if name != "__main__":
                raise  # else what stands in the guard has failed for want of input; what it defines counts
        return module.__dict__

    def function(self, name: str) -> Callable[..., Any]:
        """The method of `class Solution` where it defines one of that name, else what the module calls so.

        Raises:
            NameError: there is neither.
        """
        for attempt in (MODULE, "__main__"):
            if attempt != MODULE:
                self.names = self._load(attempt)  # it may be defined under the guard
            own = self.names.get("Solution")
            if isinstance(own, type) and callable(getattr(own, name, None)):
                return getattr(own(), name)  # type: ignore[no-any-return]
            if callable(self.names.get(name)):
                return self.names[name]  # type: ignore[no-any-return]
        raise NameError(f"the program defines no function {name!r}")


def call(code: CodeType, source: bytes, detail: bytes) -> NoReturn:
    """Call what `detail` asks for, hand the value over, and end the process."""
    write, end, encode = os.write, os._exit, json.JSONEncoder(ensure_ascii=True).encode
    request = json.loads(detail)
    function = Solution(code, source).function(request["fn_name"])
    positional, named = _arguments(function, request)
    value = function(*positional, **named)
    if value is None and re.search(r"(?:List|Tree)Node\b", _kinds(function).get("return", "")):
        value = []  # no node at all
    try:
        with_sets = bool(request.get("unordered"))
        answer = b"value " + encode(plain(value, with_sets=with_sets)).encode()
        if value is None:
            answer += b"\n" + _changed([*positional, *named.values()], encode)
    except (Unsupported, ValueError, RecursionError) as error:
        answer = b"unsupported " + str(error).encode("utf-8", "replace")[:200]
    while answer:
        answer = answer[write(VALUE, answer) :]
    # The function has returned: nothing that the solution left running can change the value.
    end(0)


def _changed(arguments: list[Any], encode: Callable[[Any], str]) -> bytes:
    """The first argument as it is now, if it is one that can change; the answer of functions that return nothing."""
    if not arguments or arguments[0] is None or type(arguments[0]) in (bool, int, float, str):
        return b""
    try:
        return encode(plain(arguments[0])).encode()
    except (Unsupported, ValueError, RecursionError):
        return b""


# ---------------------------------------------------------------- arguments


def _arguments(function: Callable[..., Any], request: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What the function is called with, in order and by name."""
    given = request["arguments"]
    if request.get("integer_keys"):
        given = with_integer_keys(given)
    parameters = _parameters(function)
    kinds = _kinds(function)
    if _are_by_name(given, parameters):
        (given,) = given

    def in_order(values: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        names = _padded(parameters, values)
        return [_node(value, kinds.get(name, "")) for value, name in zip(values, names, strict=True)], {}

    def by_name(values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        return [], {name: _node(value, kinds.get(name, "")) for name, value in values.items()}

    if isinstance(given, list):
        return in_order(given)
    parameters = [*parameters, *_named_only(function)]
    names = {name.lower(): name for name in parameters}
    if _takes_any_name(function) and not set(given) <= set(parameters):
        return [], given
    if len(names) == len(parameters) and names.keys() <= {name.lower() for name in given}:
        # Those that the function does not take say how long the others are.
        return by_name({names[name.lower()]: value for name, value in given.items() if name.lower() in names})
    if set(given) <= set(parameters):
        return by_name(given)
    return in_order(list(given.values()))


def _are_by_name(given: Any, parameters: list[str]) -> bool:
    """Whether the only argument is an object of all that the function takes, which has several parameters."""
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict) or len(parameters) < 2:
        return False
    return {str(name).lower() for name in given[0]} == {name.lower() for name in parameters}


def _padded(parameters: list[str], values: list[Any]) -> list[str]:
    return parameters[: len(values)] + [""] * (len(values) - len(parameters))


def with_integer_keys(value: Any) -> Any:
    """The value with integers for keys in every dictionary whose keys are all integers: JSON has none."""
    if isinstance(value, list):
        return [with_integer_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    are_integers = bool(value) and all(_INTEGER.fullmatch(key) for key in value)
    return {int(key) if are_integers else key: with_integer_keys(item) for key, item in value.items()}


def _plain_function(function: Any) -> Any:
    function = getattr(function, "__func__", function)
    return getattr(function, "__wrapped__", function)


def _parameters(function: Any) -> list[str]:
    code = getattr(_plain_function(function), "__code__", None)
    if code is None:
        try:
            found = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return []
        return [each.name for each in found if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    names = list(code.co_varnames[: code.co_argcount])
    return names[1:] if getattr(function, "__self__", None) is not None else names


def _named_only(function: Any) -> list[str]:
    """Parameters behind a `*`."""
    code = getattr(_plain_function(function), "__code__", None)
    return list(code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]) if code else []


def _takes_any_name(function: Any) -> bool:
    code = getattr(_plain_function(function), "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _kinds(function: Any) -> dict[str, str]:
    """Annotations as text, or the types that LeetCode's older templates name in the documentation."""
    inner = _plain_function(function)
    annotations = getattr(inner, "__annotations__", None) or {}
    documentation = getattr(inner, "__doc__", None) or ""
    found = dict(_DOCUMENTED.findall(documentation))
    result = _DOCUMENTED_RESULT.search(documentation)
    if result:
        found["return"] = result.group(1)
    for name, kind in annotations.items():
        found[name] = kind if isinstance(kind, str) else kind.__name__ if isinstance(kind, type) else repr(kind)
    return found


def _node(value: Any, kind: str) -> Any:
    """LeetCode writes its linked lists and trees as lists."""
    for name, build in (("ListNode", to_chain), ("TreeNode", to_tree)):
        if name in kind and (value is None or isinstance(value, list)):
            node = getattr(sys.modules[MODULE], name, None) or getattr(builtins, name)
            if "List[" in kind.replace("ListNode", "") or "list[" in kind:
                return [build(item or [], node) for item in value or []]
            return build(value or [], node)
    return value
