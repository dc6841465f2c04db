"""Reads assertions: which names they ask of a program, and what has to be called so that they are asked at all.

    "assert add(3, 5) == 8"                                     asks `add`
    "def check(candidate):\\n    assert candidate(3) == 4"       with `fn_name`: `check` is called with that function
    "def test_add():\\n    assert add(3, 5) == 8"                is called, as pytest would

A name of Python's own (`sum`) is the program's only where the assertions ask for no other, so that a program cannot
bring its own `abs` to be compared with. Every other name that the test neither defines nor imports is the program's,
`factorial` and `Match` too. Pure; called by `code_tests.py`.
"""

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prime.errors import InvalidInput
from services.verifier.sandbox.isolation.preset import MEASURES

_LONGEST = 1024 * 1024
_ALIASES = {"np": "numpy"}
_BUILTINS = frozenset(dir(builtins)) | frozenset(MEASURES)
CANDIDATE = "candidate"
"""What public test sets call the function that is asked, whatever its name is."""
PROGRAM_MODULES = ("solution", "your_module", "main", "__main__")
"""Names of modules by which a test imports the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """Source of a test: `Assertion(source="assert add(3, 5) == 8", asks=("add",), function="", calls=())`."""

    source: str
    asks: tuple[str, ...]
    """Names that are the program's."""
    function: str
    """The function that the problem names; also known as `candidate`. May be empty."""
    calls: tuple[str, ...]
    """Functions of the test that are called after it was loaded."""
    imports: Mapping[str, str]
    """Modules that the test uses and relies on the program to import, by the names that it has for them."""
    modules: tuple[str, ...] = PROGRAM_MODULES
    """Names by which the test may import the program."""


def read_assertions(value: Any, function: str) -> tuple[Assertion, ...]:
    """Check and analyse a text of assertions, or a list of them.

    Raises:
        InvalidInput: one is no Python, asks nothing of the program, or all that is asked is that nothing is returned.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InvalidInput("ground truth: `assertions` must be source text or a list of it, none of it empty")
    trees = [_parse(text, index) for index, text in enumerate(texts)]
    if texts and all(map(_expects_nothing, trees)):
        raise InvalidInput("ground truth: all assertions expect None; an expectation is never nothing")
    return tuple(
        _read(text, tree, function, index) for index, (text, tree) in enumerate(zip(texts, trees, strict=True))
    )


def _parse(text: str, index: int) -> ast.Module:
    if len(text) > _LONGEST:
        raise InvalidInput(f"ground truth: assertion {index} has {len(text)} characters; the limit is {_LONGEST}")
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"ground truth: assertion {index} is no Python: {error}") from None


def _read(text: str, tree: ast.Module, function: str, index: int) -> Assertion:
    calls = _calls(tree)
    imports = _missing_imports(tree)
    asks = tuple(name for name in _asks(tree, function) if name not in imports)
    if not asks and not _imports_program(tree):
        raise InvalidInput(f"ground truth: assertion {index} asks nothing of the program")
    if not calls and not any(map(_does_something, tree.body)):
        raise InvalidInput(f"ground truth: assertion {index} defines what nothing calls, so that it always holds")
    return Assertion(source=text, asks=asks, function=function, calls=calls, imports=imports)


def _expects_nothing(tree: ast.Module) -> bool:
    """Whether it is `assert f(...) is None`, which holds for a function that does nothing."""
    (*others, last) = tree.body or [ast.Pass()]
    if not isinstance(last, ast.Assert) or any(not isinstance(each, ast.Import | ast.ImportFrom) for each in others):
        return False
    test = last.test
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.ops[0], ast.Is | ast.Eq)
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value is None
    )


def _does_something(statement: ast.stmt) -> bool:
    passive = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)
    return not isinstance(statement, passive) and any(
        isinstance(node, ast.Call | ast.Assert | ast.Raise) for node in ast.walk(statement)
    )


def _calls(tree: ast.Module) -> tuple[str, ...]:
    """`check` and the `test_` functions, where the test itself calls none of them."""
    defined = [each for each in tree.body if isinstance(each, ast.FunctionDef)]
    active = [each for each in tree.body if not isinstance(each, ast.FunctionDef | ast.ClassDef)]
    used = {node.id for each in active for node in ast.walk(each) if isinstance(node, ast.Name)}
    tests = [each.name for each in defined if each.name.startswith("test") and not each.args.args]
    check = [each.name for each in defined if each.name == "check" and len(each.args.args) == 1]
    return tuple(name for name in (*check, *tests) if name not in used)


# ---------------------------------------------------------------- names


def _missing_imports(tree: ast.Module) -> dict[str, str]:
    """Names that are only used as modules, and are known as such: never the program's, which could fake one."""
    attributes = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {node.id for node in attributes if isinstance(node, ast.Name)} - _bound(tree)
    others = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - modules
    known = {name: _ALIASES.get(name, name) for name in sorted(modules - others)}
    return {name: module for name, module in known.items() if module in sys.stdlib_module_names or name in _ALIASES}


def _asks(tree: ast.Module, function: str) -> tuple[str, ...]:
    bound = _bound(tree)
    free = [(depth, name) for depth, name in _loaded(tree) if name not in bound]
    if function:
        free = [(depth, name) for depth, name in free if name != CANDIDATE]
    names = dict.fromkeys(name for _, name in free if name not in _BUILTINS)
    asked = {**names, **({function: None} if function else {})}
    if not asked and free:
        # The innermost one: in `abs(sum(1, 2) - 3)` it is `sum` that is asked.
        asked = {max(free, key=lambda pair: pair[0])[1]: None}
    return tuple(asked)


def _bound(tree: ast.AST) -> set[str]:
    """Every name that a test defines somewhere; parameters and imports too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if not (isinstance(node, ast.ImportFrom) and node.module in PROGRAM_MODULES):
                found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
                found.update(_names_of_all(node))
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def _names_of_all(node: ast.Import | ast.ImportFrom) -> set[str]:
    """What `from math import *` brings; of the modules that are known here, which none is loaded for."""
    if not isinstance(node, ast.ImportFrom) or node.module not in sys.stdlib_module_names or node.names[0].name != "*":
        return set()
    known = vars(sys.modules.get(str(node.module), ast))
    return set(known.get("__all__", (name for name in known if not name.startswith("_"))))


def _loaded(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that are read, each with how deep it lies."""
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        following: list[ast.AST] = []
        for node in level:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield depth, node.id
            # Annotations are not evaluated there.
            following += (
                inner
                for field, value in ast.iter_fields(node)
                if field not in ("annotation", "returns")
                for inner in (value if isinstance(value, list) else [value])
                if isinstance(inner, ast.AST)
            )
        level, depth = following, depth + 1


def _imports_program(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and node.module in PROGRAM_MODULES)
        or (isinstance(node, ast.Import) and any(alias.name in PROGRAM_MODULES for alias in node.names))
        for node in ast.walk(tree)
    )
