"""Markdown tables, and pages of which some blocks are generated.

A generated block stands between two marks, and everything around it is written by hand:

    <!-- generated: NAME -->
    ...
    <!-- end of generated -->
"""

import re
from collections.abc import Mapping, Sequence

_BLOCK = re.compile(
    r"(?P<begin>^<!-- generated: (?P<name>[a-z-]+) -->\n)(?P<text>.*?)(?P<end>^<!-- end of generated -->$)",
    re.MULTILINE | re.DOTALL,
)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, one line per row."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(text: str) -> str:
    """`text` as inline code; nothing for an empty one."""
    return f"`{text}`" if text else ""


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """The page with every generated block replaced by its text in `blocks`.

    Raises:
        ValueError: a block is missing from the page, stands there twice, or is not among `blocks`.
    """
    names = [match["name"] for match in _BLOCK.finditer(page)]
    if sorted(names) != sorted(blocks):
        raise ValueError(f"the page has the generated blocks {sorted(names)} and needs {sorted(blocks)}, each once")
    return _BLOCK.sub(lambda match: f"{match['begin']}\n{blocks[match['name']]}\n\n{match['end']}", page)
