"""Reads the text that stands under a name in source code: the description of a settings field, or of a constant."""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import ModuleType


def field_texts(model: type) -> Mapping[str, str]:
    """Name of each field to the text under it. A class that declares a field again without a text inherits the text."""
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__):
        # Models of libraries (pydantic's base) have no settings of ours.
        if each.__module__.partition(".")[0] in ("prime", "services", "jobs"):
            [node] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            assert isinstance(node, ast.ClassDef)
            texts |= _texts(node.body)
    return texts


def constant_texts(module: ModuleType) -> Mapping[str, str]:
    """Name of each constant of a module to the text under it; those without one are left out."""
    return _texts(ast.parse(inspect.getsource(module)).body)


def summary(model: type) -> str:
    """A class's docstring in one line."""
    return " ".join((model.__doc__ or "").split())


def _texts(body: Sequence[ast.stmt]) -> dict[str, str]:
    texts = {}
    for statement, below in pairwise(body):
        match statement, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[name] = " ".join(text.split())
    return texts
