"""The documentation's index is whole, and its links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
_CODE_BLOCK = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_NAMED = re.compile(r"`((?:docs|examples|deploy|proto|benchmarks|tests)/[\w./-]+\.(?:md|toml|py|jsonl|yml))`")


def _links(page: Path) -> Iterator[tuple[Path, str]]:
    """File and anchor of each relative link; a link within the page has the page itself."""
    for match in _LINK.finditer(_CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        target = match["target"]
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def _anchors(page: Path) -> set[str]:
    """As forges make them of headings: lower case, without punctuation, `-` for each space."""
    headings = re.findall(r"^#+ (.*)$", _CODE_BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in _links(page):
        assert file.exists(), f"{page.relative_to(ROOT)} links to {file}, which does not exist"
        assert not anchor or anchor in _anchors(file), f"{page.relative_to(ROOT)}: {file.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = set(_NAMED.findall(page.read_text(encoding="utf-8"))) - {"docs/adr/NNNN-title.md"}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [file for file, _ in _links(page) if file.suffix == ".md" and file.is_file()]
    assert sorted(page.relative_to(ROOT).as_posix() for page in set(DOCS.rglob("*.md")) - reached) == []


def test_every_decision_record_is_listed_by_number_title_and_a_line() -> None:
    rows = re.findall(
        r"^\| \[(\d+)\]\((\d{4}-[a-z0-9-]+\.md)\) \| (.+?) \| (\S.+) \|$",
        (DOCS / "adr" / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    records = sorted((DOCS / "adr").glob("[0-9]*.md"))
    titles = [record.read_text(encoding="utf-8").splitlines()[0] for record in records]
    assert [f"# {number}. {title}" for number, _, title, _ in rows] == titles
    assert [file for _, file, _, _ in rows] == [record.name for record in records]
    assert [int(number) for number, *_ in rows] == list(range(1, len(records) + 1))
