"""What a program returned, made of plain values of exact built-in types.

A subclass may lie about itself, so it is read by its base's own methods, and only if it does not bring its own ones.
"""

import collections
import decimal
import fractions
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from services.verifier.sandbox.isolation.iterables import items_of, mapping_of

DEEPEST = 200
_LONGEST_CHAIN = 1_000_000
_TRUSTED = (
    collections.OrderedDict,
    collections.defaultdict,
    collections.Counter,
    collections.deque,
    list,
    tuple,
    dict,
    set,
    frozenset,
)
_BASES = (list, tuple, dict, set, frozenset, collections.deque)
_READS = frozenset(f"__{name}__" for name in ("iter", "len", "getitem", "contains", "eq", "ne", "lt", "gt", "le", "ge"))
_READS_OF_DICT = _READS | {"items", "keys", "values"}
_COMPARES = ("__eq__", "__ne__")
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
)


class Unsupported(Exception):
    """A value that is none of the plain ones."""


def container_of(value: object) -> type | None:
    """The built-in container that a value can be read as; None when it is none, or is read in a way of its own."""
    reads = _READS_OF_DICT if issubclass(type(value), dict) else _READS
    for kind in type(value).__mro__:
        if kind in _TRUSTED:
            return next(base for base in _BASES if issubclass(kind, base))
        if not reads.isdisjoint(vars(kind)):
            return None
    return None


def plain(value: Any, *, with_sets: bool = False, depth: int = 0) -> Any:
    """A value for JSON: numbers, texts, lists, and dictionaries with texts for keys.

    Raises:
        Unsupported: something in it is none of these.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if depth >= DEEPEST:
        raise Unsupported("nested too deep")

    def inner(item: Any) -> Any:
        return plain(item, with_sets=with_sets, depth=depth + 1)

    container = container_of(value)
    if container is dict:
        return {_key(key): inner(item) for key, item in dict.items(value)}
    if container in _BASES and (with_sets or container not in (set, frozenset)):
        return [inner(item) for item in container.__iter__(value)]
    return inner(_simpler(value))


def exact(value: Any) -> Any:
    """The number or text that an object of a subclass is, such as IntEnum, read by its base's own methods.

    Raises:
        Unsupported: it is none, or compares in a way of its own.
    """
    kind = type(value)
    for base, read in _EXACT:
        if issubclass(kind, base) and all(getattr(kind, name) is getattr(base, name) for name in _COMPARES):
            return read(value)
    raise Unsupported(f"type {kind.__name__}")


def of_numpy(value: Any) -> bool:
    """Whether it is a number or an array of numpy's own classes."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value).__module__ == "numpy" and isinstance(value, (numpy.generic, numpy.ndarray))


def _simpler(value: Any) -> Any:
    """A list, dictionary or number in the place of a value of another kind. Raises Unsupported."""
    kind = type(value)
    items = items_of(value)
    if items is not None:
        return _all(items)
    mapping = mapping_of(value)
    if mapping is not None:
        return mapping
    if kind in (decimal.Decimal, fractions.Fraction):
        return _number(value)
    if kind.__name__ == "ListNode":
        return list(_chain(value))
    if kind.__name__ == "TreeNode":
        return _level_order(value)
    return value.tolist() if of_numpy(value) else exact(value)


def _number(value: Any) -> int | float:
    is_whole = isinstance(value, fractions.Fraction) or value.is_finite()
    return int(value) if is_whole and value == int(value) else float(value)


def _all(items: Iterator[Any]) -> list[Any]:
    found = list(itertools.islice(items, _LONGEST_CHAIN + 1))
    if len(found) > _LONGEST_CHAIN:
        raise Unsupported("an iterator without end")
    return found


def _key(key: Any) -> str:
    """As `json.dumps` writes it. Raises Unsupported."""
    if of_numpy(key):
        key = key.tolist()
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    value = exact(key)
    return value if type(value) is str else json.dumps(value)


# ---------------------------------------------------------------- LeetCode's nodes


def _chain(node: Any) -> Iterator[Any]:
    for _ in range(_LONGEST_CHAIN):
        if node is None:
            return
        yield node.val
        node = node.next
    raise Unsupported("a list without end")


def _level_order(root: Any) -> list[Any]:
    """Level by level, with None for a child that is not there, but not at the end."""
    values: list[Any] = []
    level = [root]
    for node in level:  # grows on the way
        values.append(None if node is None else node.val)
        if node is not None:
            level += (node.left, node.right)
        if len(level) > _LONGEST_CHAIN:
            raise Unsupported("a tree without end")
    while values and values[-1] is None:
        values.pop()
    return values


def to_chain(values: list[Any], node: Callable[[Any], Any]) -> Any:
    """The head of a linked list of these values."""
    head = None
    for value in reversed(values):
        one = node(value)
        one.next, head = head, one
    return head


def to_tree(values: list[Any], node: Callable[[Any], Any]) -> Any:
    """The root of a tree that is written level by level."""
    if not values or values[0] is None:
        return None
    root = node(values[0])
    parents, rest = collections.deque([root]), iter(values[1:])
    while parents:
        parent = parents.popleft()
        children = list(itertools.islice(rest, 2))
        if not children:
            break
        for side, value in zip(("left", "right"), children, strict=False):
            if value is not None:
                child = node(value)
                setattr(parent, side, child)
                parents.append(child)
    return root
