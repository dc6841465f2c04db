"""Writes the generated blocks of the pages in `docs/`: `make docs-pages`.

A test fails while a page differs from what this writes, so the pages cannot contradict the code.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tools.cli_page import cli_blocks
from tools.markdown import fill
from tools.metrics_page import metrics_blocks
from tools.settings_page import settings_blocks

DOCS = Path(__file__).parents[1] / "docs"
PAGES: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "settings.md": settings_blocks,
    "cli.md": cli_blocks,
    "metrics.md": metrics_blocks,
}


def rendered(name: str) -> str:
    """The page as it should be.

    Raises:
        ValueError: something that is documented there has no description, or a block is missing from the page.
    """
    return fill((DOCS / name).read_text(encoding="utf-8"), PAGES[name]())


if __name__ == "__main__":
    for page in PAGES:
        (DOCS / page).write_text(rendered(page), encoding="utf-8")
