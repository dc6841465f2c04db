"""Says why the sandbox refuses something. The kernel refuses; this only puts the reason into the message.

Modules that are not loaded yet are wrapped when a program imports them: one more in the zygote makes every fork dearer.
"""

import errno
import functools
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
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
    for name in _NAMES:
        _wrap(socket, name, _NO_NETWORK)
    socket.socket.__init__ = _explained(socket.socket.__init__, _NO_NETWORK)  # type: ignore[method-assign]
    sys.meta_path.insert(0, _WhenImported("_posixsubprocess", lambda module: _wrap(module, "fork_exec", _NO_PROCESSES)))
    # Not refused, but made of what is there.
    sys.modules["_multiprocessing"] = semaphore.as_module()


def without_place(function: FunctionT) -> FunctionT:
    """The function, in whose tracebacks no file of ours is named."""
    if isinstance(function, FunctionType):
        function.__code__ = function.__code__.replace(co_filename="<sandbox>")
    return function


class _WhenImported:
    """A finder that changes one module right after it was loaded, and is its loader for that."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name, self._change = name, change
        self._loader: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader does, and then the change."""
        self._loader.exec_module(module)
        self._change(module)


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
