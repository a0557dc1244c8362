"""The documents against the tree: links, pages, the reference, and the lists that the architecture gives."""

import re
from pathlib import Path

import pytest

from reenact import replay, runtime

MAX_WIDTH = 120

LINK = re.compile(r"\[[^\]]*\]\(([^)#:\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
DIRECTIVE = re.compile(r"^\.\. auto\w+:: ([\w.]+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def documents(root: Path) -> dict[Path, str]:
    """Return the text of every document, by path."""
    paths = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    return {path: path.read_text("utf-8") for path in sorted(paths)}


def test_no_link_is_broken(documents: dict[Path, str]) -> None:
    """Every relative link leads to a file of the tree."""
    assert [] == [
        f"{path.name}: {target}"
        for path, text in documents.items()
        for target in LINK.findall(FENCE.sub("", text))
        if not (path.parent / target).exists()
    ]


def test_no_line_is_wide(documents: dict[Path, str]) -> None:
    """Prose is wrapped at 120 columns; tables and what programs print are as wide as they are."""
    assert [] == [
        f"{path.name}: {line}"
        for path, text in documents.items()
        for line in FENCE.sub("", text).splitlines()
        if len(line) > MAX_WIDTH and path.name != "CHANGELOG.md" and not line.lstrip().startswith("|")
    ]


def test_every_document_is_a_page_of_the_site(root: Path, documents: dict[Path, str]) -> None:
    """Some table of contents names each document, and names no other."""
    named = {root / "docs" / "index.md"}
    for path, text in documents.items():
        for block in TOCTREE.findall(text):
            for entry in block.splitlines():
                if entry and not entry.startswith(":"):
                    named |= {found.resolve() for found in path.parent.glob(f"{entry}.md")} or {path.parent / entry}
    assert set(documents) == named


def test_every_public_name_is_in_the_reference(root: Path) -> None:
    """The reference has what the packages export, once."""
    pages = "".join(path.read_text("utf-8") for path in sorted((root / "docs" / "reference").glob("*.md")))
    written = [target.rpartition(".")[2] for target in DIRECTIVE.findall(pages)]
    public = {*runtime.__all__, *replay.__all__}
    assert [] == sorted(public - set(written))
    assert sorted(set(written)) == sorted(written)
    for module in (
        "actors.events",
        "actors.batch",
        "replay.testing.kernel",
        "replay.testing.strategies",
        "replay.testing.liveness",
    ):
        assert f".. automodule:: reenact.{module}" in pages


def test_the_list_of_decisions_is_complete(root: Path) -> None:
    """The list of decisions links to every page and counts its headings; each decision has a date."""
    folder = root / "docs" / "decisions"
    listed = re.findall(r"^\* \[(.+)\]\((.+\.md)\): (\d+) decisions$", (folder / "README.md").read_text(), re.MULTILINE)
    found = []
    for path in folder.glob("*.md"):
        if path.name != "README.md":
            title, *decisions = re.split(r"^## ", path.read_text("utf-8"), flags=re.MULTILINE)
            found.append((title.strip().removeprefix("# "), path.name, str(len(decisions))))
            undated = [one for one in decisions if not re.match(r".+\n\n2026-\d\d-\d\d\. ", one)]
            assert [] == undated
    assert sorted(listed) == sorted(found)
