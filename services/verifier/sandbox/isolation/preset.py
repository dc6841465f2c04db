"""Names that function-call problems take for granted: what LeetCode, LiveCodeBench and PRIME import before a solution.

They lie where Python keeps its own names, behind those of the program: so they never answer for it nor shadow it.
"""

import builtins
import contextlib
import re
import sys
from typing import Any

_IMPORTS = """
from typing import *
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from json import *
from dataclasses import dataclass, field
from sys import argv, byteorder, float_info, getrecursionlimit, getsizeof, maxsize, setrecursionlimit, version_info
from queue import Empty, Full, LifoQueue, PriorityQueue, Queue
from fractions import Fraction
from decimal import Decimal, getcontext
from enum import Enum, IntEnum
from time import perf_counter, monotonic, sleep
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools, operator
import io, json, sys, typing, dataclasses, decimal, fractions, time, array, queue
import abc, cmath, enum, numbers, os, threading
"""
RECURSION_LIMIT = 600_000
"""PRIME's; LiveCodeBench has 50,000. The stack has room for it."""
_LIBRARY = "sortedcontainers"
_NUMPY = re.compile(rb"^(?!.*import numpy).*\b(?:np|numpy)\.\w", re.DOTALL)
"""Of a program that uses it and does not import it itself."""
_SORTED = ("SortedList", "SortedDict", "SortedSet", "SortedKeyList")


class ListNode:
    """LeetCode's, for programs that define none of their own."""

    def __init__(self, val: Any = 0, next: "ListNode | None" = None) -> None:
        self.val, self.next = val, next


class TreeNode:
    """LeetCode's, for programs that define none of their own."""

    def __init__(self, val: Any = 0, left: "TreeNode | None" = None, right: "TreeNode | None" = None) -> None:
        self.val, self.left, self.right = val, left, right


def _imported() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(_IMPORTS, names)
    return {name: value for name, value in names.items() if not hasattr(builtins, name) and name[:2] != "__"}


_PRESET = {**_imported(), "ListNode": ListNode, "TreeNode": TreeNode}
for _node in (ListNode, TreeNode):
    _node.__module__ = "builtins"  # where a program finds them
MEASURES = ("isclose", "fabs")
"""What a test compares with, so that a program's own of that name would be a ruler that it made for itself."""


def is_preset(name: str, value: object) -> bool:
    """Whether a program's name is the very thing that is preset, so that whoever asks may take its own."""
    return name in _PRESET and _PRESET[name] is value


def value_of(name: str) -> Any:
    """What a preset name stands for. Raises KeyError."""
    return _PRESET[name]


def install(source: bytes) -> None:
    """Make the names known in this process, for a program of that source."""
    builtins.__dict__.update(_PRESET)
    for name in ("stdin", "stdout", "stderr"):
        builtins.__dict__[name] = getattr(sys, name)
    if _NUMPY.search(source):
        with contextlib.suppress(ImportError):
            builtins.__dict__.update(dict.fromkeys(("np", "numpy"), __import__("numpy")))
    if b"Sorted" in source:
        try:
            library = __import__(_LIBRARY)
        except ImportError:
            return  # not installed here; the program will say which name is missing
        builtins.__dict__.update({name: getattr(library, name) for name in _SORTED}, sortedcontainers=library)
