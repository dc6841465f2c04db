"""The child that runs one program on one input. Started as a script by `sandbox.py`, never imported.

In: the program and, for a call, the function's name and arguments, through a pipe that is closed before the program
runs. What the right answer is never comes in. Out: the program's own stdout; on the report pipe first one line that
says which isolation is in force, then, for a call, the returned value as JSON.
"""

import builtins
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from services.verifier import jail
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import jail

    del sys.path[0]

_DEPTH = 200
_PRESET = """
from typing import *
import bisect, collections, functools, heapq, itertools, math, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from string import *
del pow  # `math` has one without a modulus
"""
"""Names that the function-call problems take for granted; a solution may define its own over them."""


class _Unsupported(Exception):
    """The solution returned something other than plain values."""


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _plain(value: object, depth: int = 0) -> object:
    """The value made of exact built-in types; a subclass may lie about itself, so it is refused."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if depth >= _DEPTH:
        raise _Unsupported("nested too deep")
    if kind in (list, tuple):
        return [_plain(item, depth + 1) for item in value]  # type: ignore[attr-defined]
    if kind is dict:
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}  # type: ignore[attr-defined]
    raise _Unsupported(f"type {kind.__name__}")


def _key(key: object) -> str:
    if type(key) is str:
        return key
    if type(key) is int:
        return str(key)
    raise _Unsupported("a key that is neither text nor integer")


def _main_module() -> dict[str, object]:
    # A module of its own, so that the program is `__main__` and finds none of our names.
    module = type(sys)("__main__")
    # `site`, which is not loaded, would add these two; programs end with them.
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module.__dict__


def _run_script(source: bytes, report: int) -> None:
    os.close(report)
    exec(compile(source, "solution.py", "exec", dont_inherit=True), _main_module())


def _run_call(source: bytes, call: bytes, report: int) -> None:
    import json

    encode = json.JSONEncoder(ensure_ascii=True).encode
    request = json.loads(call)
    names = _main_module()
    names["__name__"] = "solution"  # no `if __name__ == "__main__"` part: there is no stdin to read
    exec(compile(_PRESET, "preset.py", "exec", dont_inherit=True), names)
    exec(compile(source, "solution.py", "exec", dont_inherit=True), names)
    function = names.get(request["fn_name"])
    if not callable(function):
        holder = names["Solution"]
        function = getattr(holder(), request["fn_name"])  # type: ignore[operator]
    value = function(*request["arguments"])
    try:
        answer = b"value " + encode(_plain(value)).encode()
    except (_Unsupported, ValueError, RecursionError) as error:
        answer = b"unsupported " + str(error).encode("utf-8", "replace")[:200]
    _write_all(report, answer)
    # The function has returned: nothing that the solution left running can change the value.
    os._exit(0)


def _main(arguments: list[str]) -> None:
    inward, report, identity, cpu_seconds, memory_mib, threads, program_bytes = (int(text) for text in arguments)
    sent = _read_all(inward)
    try:
        layers = jail.enter(identity=identity, cpu_seconds=cpu_seconds, memory_mib=memory_mib, threads=threads)
    except jail.JailError as error:
        _write_all(report, f"refused {error}\n".encode())
        os._exit(3)
    _write_all(report, f"ready {' '.join(layers)}\n".encode())
    # Threads would otherwise take the raised stack limit as their own size, and four fill the address space.
    import _thread

    _thread.stack_size(16 * 1024 * 1024)
    sys.set_int_max_str_digits(0)
    sys.argv = ["solution.py"]
    program, call = sent[:program_bytes], sent[program_bytes:]
    del sys.modules["jail"]
    if call:
        _run_call(program, call, report)
    else:
        _run_script(program, report)


_main(sys.argv[1:])
