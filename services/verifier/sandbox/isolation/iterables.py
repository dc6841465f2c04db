"""Iterators, views and sequences of Python's own that are a list to whoever prints them. Used by `values.py`."""

import array
import collections
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_DICTS: tuple[Any, ...] = ({}, collections.OrderedDict())
_ITERATED: tuple[Any, ...] = ([], (), set(), "", b"", bytearray(), range(0), range(2**70), collections.deque(), *_DICTS)
_REVERSED: tuple[Any, ...] = ([], (), range(0), range(2**70), collections.deque(), *_DICTS)
_VIEWS = tuple(view for each in _DICTS for view in (each.keys(), each.values(), each.items()))
_MADE: tuple[Any, ...] = (
    *map(iter, _ITERATED),
    *map(reversed, _REVERSED),
    *_VIEWS,
    *map(iter, _VIEWS),
    *(reversed(view) for view in _VIEWS),
    (_ for _ in ()),
    map(id, ()),
    filter(id, ()),
    zip(),
    enumerate(()),
    iter(array.array("i")),
    iter(memoryview(b"")),
    iter(int, 0),
    itertools.tee(())[0],
    range(0),
)
_LIBRARY = [kind for name, kind in vars(itertools).items() if name[:1] != "_" and isinstance(kind, type)]
_KINDS = frozenset((*map(type, _MADE), *_LIBRARY))
_SEQUENCES = frozenset((array.array, bytearray, memoryview))
_SORTED = ("SortedList", "SortedKeyList", "SortedSet")


def items_of(value: Any) -> Iterator[Any] | None:
    """The items of a value of these kinds, which may have no end; None for any other."""
    kind = type(value)
    if kind is itertools.groupby:
        return ((key, list(group)) for key, group in value)  # a group is gone as soon as the next one is there
    if kind in _KINDS:
        found: Iterator[Any] = iter(value)
        return found
    if kind in _SEQUENCES or (kind.__name__ in _SORTED and kind is _sorted(kind.__name__)):
        items: Iterable[Any] = value.tolist() if kind in (array.array, memoryview) else value
        return iter(items)
    return iter(value.data) if kind is collections.UserList else None


def mapping_of(value: Any) -> dict[Any, Any] | None:
    """The dictionary that a value of the library's other mappings stands for; None for any other."""
    kind = type(value)
    if kind is collections.UserDict:
        return dict(value.data)
    if kind is collections.ChainMap or (kind.__name__ == "SortedDict" and kind is _sorted("SortedDict")):
        return {key: value[key] for key in value}
    return None


def _sorted(name: str) -> Any:
    """A class of `sortedcontainers`, where the program has loaded it."""
    return getattr(sys.modules.get("sortedcontainers"), name, None)
