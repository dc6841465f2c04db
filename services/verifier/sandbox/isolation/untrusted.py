"""Runs the program: in a confined process, as if the interpreter had been started for it.

Standard input is a file, the other streams are pipes. What the right answer is never comes in; out comes what the
program printed and, for a call, the returned value as JSON on a descriptor of its own.
"""

import _io
import atexit
import builtins
import contextlib
import functools
import gc
import io
import os
import sys
import threading
from types import CodeType
from typing import Any, BinaryIO, NoReturn

from services.verifier.sandbox.isolation import answers, calls, examiner, forbidden, kernel, libraries
from services.verifier.sandbox.isolation.seccomp import PROGRAM_DESCRIPTOR
from services.verifier.sandbox.isolation.supervisor import Task
from services.verifier.sandbox.isolation.wire import COMPILE_ERROR_CODE, CRASH_CODE

_TMP = "/tmp"
_ENVIRONMENT = ["PATH=/usr/bin:/bin", f"TMPDIR={_TMP}", "LC_ALL=C.UTF-8", "HOME=/"]


def prepare(root: str, scratch: str) -> None:
    """What all programs find, done once in the zygote: an interpreter that knows nothing of `root`, its origin.

    `scratch` is the folder in which they may write, and in which they start.
    """
    global _scratch
    _scratch = scratch
    forbidden.explain()
    # `site`, which is not loaded, would add these two; programs end with them.
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    builtins.open = io.open = _open
    os.open = _open_descriptor
    sys.orig_argv = ["python3", "solution.py"]
    sys.set_int_max_str_digits(0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "services"]:
        del sys.modules[name]
    for folder in [folder for folder in sys.path_importer_cache if folder.startswith(root)]:
        del sys.path_importer_cache[folder]


_open_file, _open_plainly = io.open, os.open
_scratch = _TMP
_STREAMS = {f"/dev/{name}": number for number, name in enumerate(("stdin", "stdout", "stderr"))}
_STREAMS |= {f"/dev/fd/{number}": number for number in _STREAMS.values()}


@functools.wraps(io.open)
@forbidden.without_place
def _open(file: Any, *arguments: Any, **options: Any) -> Any:
    return _open_file(_place_of(file), *arguments, **options)


@functools.wraps(os.open)
@forbidden.without_place
def _open_descriptor(path: Any, *arguments: Any, **options: Any) -> int:
    place = _place_of(path)
    return place if isinstance(place, int) else _open_plainly(place, *arguments, **options)


def _place_of(file: Any) -> Any:
    """What to open: a descriptor for a standard stream, whose name leads through `/proc`, which is not there."""
    if not isinstance(file, str | os.PathLike):
        return file
    path = os.fspath(file)
    if path in _STREAMS:
        return os.dup(_STREAMS[path])
    if _scratch != _TMP and isinstance(path, str) and path.startswith(f"{_TMP}/"):
        # Of tier B, where the machine's own folder of that name is closed.
        return path if f"{path}/".startswith(f"{_scratch}/") else _scratch + path[len(_TMP) :]
    return file


def run(task: Task) -> NoReturn:
    """Do the task and end the process as the interpreter would."""
    if task.mode == "exec":
        _execute(task)
    libraries.draw_anew()
    if task.mode == "serve":
        # The zygote has loaded it; nothing is imported any more in here.
        sys.modules[task.arguments[0]].serve()
    sys.argv = [*task.arguments] or ["solution.py"]
    code = 0
    stdout = sys.stdout.buffer  # to be flushed even if the program detaches it
    try:
        _MODES[task.mode](task)
    except SystemExit as exit_:
        code = _exit_code(exit_)
    except BaseException:  # noqa: BLE001 - whatever the program raises
        # Of a checker 1 would mean that it found the output wrong.
        code = CRASH_CODE if task.mode == "check" else 1
        kind, error, trace = sys.exc_info()
        assert trace is not None
        # Without our own frames.
        while trace.tb_next is not None and trace.tb_frame.f_code.co_filename != "solution.py":
            trace = trace.tb_next
        sys.excepthook(kind, error.with_traceback(trace), trace)  # type: ignore[arg-type,union-attr]
        kind = error = trace = None  # which hold what the program had
    _finish(code, task.source, stdout)


def _execute(task: Task) -> NoReturn:
    try:
        if task.arguments[0] == "program":
            kernel.execute(PROGRAM_DESCRIPTOR, list(task.arguments), _ENVIRONMENT)
        else:
            os.execve(task.arguments[0], list(task.arguments), dict(pair.split("=") for pair in _ENVIRONMENT))
    except OSError as error:
        os.write(2, f"{task.arguments[0]} cannot be started: {error.strerror}\n".encode())
    os._exit(127)


def _exit_code(exit_: SystemExit) -> int:
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    with contextlib.suppress(Exception):  # it may have replaced the stream
        sys.stderr.write(f"{exit_.code}\n")
    return 1


def _finish(code: int, source: bytes, stdout: BinaryIO) -> NoReturn:
    # What the interpreter does at its end, but for taking itself apart, which costs more than most programs.
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        if any(each in source for each in _FINALISED):
            _let_go()
    except BaseException:  # noqa: BLE001 - whatever the program's handlers raise
        sys.excepthook(*sys.exc_info())
    try:
        # What is closed, replaced or gone has nothing left to write.
        sys.stdout.flush()
    except OSError:
        code = code or 120
    except Exception:  # noqa: BLE001 - whatever it was replaced by
        pass
    try:
        _flush_writers()
        with contextlib.suppress(Exception):  # it may be closed
            stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


_FINALISED = (b"__del__", b"yield")
"""What only a source has whose objects do something at their end: destructors, generators with a `finally`."""


def _let_go() -> None:
    """Finalise the objects of the program's module, as the interpreter does; within the limits, like all else."""
    for name in ("__main__", "solution"):
        sys.modules.pop(name, None)
    gc.collect()


def _flush_writers() -> None:
    # What the program replaced or opened itself, over a standard descriptor perhaps: the outer layers first.
    objects = gc.get_objects()
    # By kind first: there may be millions of objects, and hardly ever a writer among them.
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, _io._IOBase)}
    writers = [each for each in objects if type(each) in kinds] if kinds else []
    for writer in (sys.__stdout__, *(each for each in writers if type(each) is not io.BufferedWriter), *writers):
        with contextlib.suppress(Exception):
            writer.flush()


# ---------------------------------------------------------------- modes


def _main_module() -> dict[str, Any]:
    # A module of its own, so that the program is `__main__` and finds none of our names.
    module = type(sys)("__main__")
    module.__dict__.update(__builtins__=builtins, __file__="solution.py")
    sys.modules["__main__"] = module
    return module.__dict__


def _compiled(source: bytes) -> CodeType:
    try:
        return compile(source, "solution.py", "exec", dont_inherit=True)
    except Exception as error:  # noqa: BLE001 - syntax, null bytes, nesting, memory: all keep it from being a program
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(COMPILE_ERROR_CODE)


def _script(task: Task) -> None:
    exec(_compiled(task.source), _main_module())


def _call(task: Task) -> NoReturn:
    calls.call(_compiled(task.source), task.source, task.detail)


def _answer(task: Task) -> NoReturn:
    answers.answer(_compiled(task.source), task.source)


def _examine(task: Task) -> NoReturn:
    examiner.examine(task.detail)


_MODES = {"script": _script, "check": _script, "call": _call, "answer": _answer, "examine": _examine}
