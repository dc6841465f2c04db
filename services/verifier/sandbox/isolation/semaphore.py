"""Locks of `multiprocessing` without a file: in a sandbox without other processes, threads are all there is to lock.

Its pool of threads is built on them, as are queues and locks that programs make and never share.
"""

import threading
import time
from types import ModuleType
from typing import Any

_RECURSIVE = 0


class SemLock:
    """Takes the place of `_multiprocessing.SemLock`."""

    SEM_VALUE_MAX = 2**31 - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        self.kind, self.maxvalue = kind, maxvalue
        # Without one nobody tries to track it from another process.
        self.name = None
        self.handle = id(self)
        self._value = value
        self._changed = threading.Condition()
        self._owner, self._depth = 0, 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """As `threading.Lock.acquire`, with None for no time-out."""
        me = threading.get_ident()
        end = None if timeout is None else time.monotonic() + max(0.0, timeout)
        with self._changed:
            if self.kind == _RECURSIVE and self._owner == me:
                self._depth += 1
                return True
            while self._value <= 0:
                left = None if end is None else end - time.monotonic()
                if not block or (left is not None and left <= 0):
                    return False
                self._changed.wait(left)
            self._value -= 1
            self._owner = me
            self._depth += 1
            return True

    def release(self) -> None:
        """Undo one `acquire`.

        Raises:
            AssertionError: a recursive lock belongs to another thread.
            ValueError: there is nothing to undo.
        """
        with self._changed:
            if self.kind == _RECURSIVE:
                if self._owner != threading.get_ident() or not self._depth:
                    raise AssertionError("attempt to release recursive lock not owned by thread")
                if self._depth > 1:
                    self._depth -= 1
                    return
                self._owner = 0
            elif self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._depth -= 1
            self._value += 1
            self._changed.notify()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._depth

    def _is_mine(self) -> bool:
        return self._depth > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        """Never: there is no fork."""

    @staticmethod
    def _rebuild(*_: Any) -> "SemLock":
        raise PermissionError("the sandbox allows no other processes")


def sem_unlink(name: str) -> None:
    """There is no file to delete."""


def as_module() -> ModuleType:
    """Both, as the module that `multiprocessing` imports."""
    module = ModuleType("_multiprocessing")
    module.__dict__.update(SemLock=SemLock, sem_unlink=sem_unlink, flags={})
    return module
