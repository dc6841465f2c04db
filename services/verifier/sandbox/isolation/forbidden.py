"""Says why the sandbox refuses something. The kernel refuses; this only puts the reason into the message."""

import _multiprocessing  # type: ignore[import-not-found]
import _posixsubprocess
import errno
import functools
import os
import socket
import subprocess
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from services.verifier.sandbox.isolation import semaphore

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_NO_NETWORK = "the sandbox has no network"
_NO_PROCESSES = "the sandbox allows no other processes"
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_PROCESSES = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "execv", "execve", "kill", "killpg")
_NAMES = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")


def explain() -> None:
    """Wrap what programs try, once, in the zygote."""
    for name in _PROCESSES:
        _wrap(os, name, _NO_PROCESSES)
    _wrap(_posixsubprocess, "fork_exec", _NO_PROCESSES)
    _wrap(subprocess, "_fork_exec", _NO_PROCESSES)
    # Not refused, but made of what is there.
    _multiprocessing.SemLock = semaphore.SemLock
    _multiprocessing.sem_unlink = semaphore.sem_unlink
    for name in _NAMES:
        _wrap(socket, name, _NO_NETWORK)
    socket.socket.__init__ = _explained(socket.socket.__init__, _NO_NETWORK)  # type: ignore[method-assign]


def without_place(function: FunctionT) -> FunctionT:
    """The function, in whose tracebacks no file of ours is named."""
    if isinstance(function, FunctionType):
        function.__code__ = function.__code__.replace(co_filename="<sandbox>")
    return function


def _wrap(module: ModuleType, name: str, reason: str) -> None:
    if hasattr(module, name):
        setattr(module, name, _explained(getattr(module, name), reason))


def _explained(function: Callable[..., Any], reason: str) -> Callable[..., Any]:
    @without_place
    def explained(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except socket.gaierror:
            raise PermissionError(errno.EPERM, reason) from None
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            raise PermissionError(error.errno, f"{error.strerror}: {reason}") from None

    return functools.wraps(function)(explained)
