"""The documents against the tree: links, pages, the reference, and the lists that the architecture gives."""

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from attrs import has

from reenact import replay, runtime
from reenact.actors import batch, events
from reenact.actors.options import OPTION_NAMES
from reenact.actors.routing import ROUTES, Origin
from reenact.runtime import results

MAX_WIDTH = 120

LINK = re.compile(r"\[[^\]]*\]\(([^)#:\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
CODE = re.compile(r"`(\w+)`")
NAME = re.compile(r"`([A-Za-z]+)`")
DIRECTIVE = re.compile(r"^\.\. auto\w+:: ([\w.]+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def documents(root: Path) -> dict[Path, str]:
    """Return the text of every document, by path."""
    paths = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    return {path: path.read_text("utf-8") for path in sorted(paths)}


def test_the_readme_lists_every_option_once(root: Path) -> None:
    """The table of what a request can ask for has each option, and nothing else."""
    table = (root / "README.md").read_text("utf-8").split("| options | what they do |\n")[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[1:] for name in CODE.findall(row.split("|")[1])]
    assert sorted(OPTION_NAMES) == sorted(named)


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
        if len(line) > MAX_WIDTH and not line.lstrip().startswith("|")
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
    public = {*runtime.__all__, *replay.__all__, "app"}
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
    """The list of decisions links to every page, by its title; each decision has a date."""
    folder = root / "docs" / "decisions"
    listed = re.findall(r"^\* \[(.+)\]\((.+\.md)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    found = []
    for path in folder.glob("*.md"):
        if path.name != "README.md":
            title, *decisions = re.split(r"^## ", path.read_text("utf-8"), flags=re.MULTILINE)
            found.append((title.strip().removeprefix("# "), path.name))
            undated = [one for one in decisions if not re.match(r".+\n\n2026-\d\d-\d\d\.\s", one)]
            assert [] == undated
    assert sorted(listed) == sorted(found)


def test_the_architecture_lists_the_events_as_they_are_routed(architecture: str) -> None:
    """Section 2 gives the owner and the origin of every event, and every actor that decides on it."""
    owned = {(route.owner.value, route.origin): set[str]() for route in ROUTES.values()}
    received: dict[str, set[str]] = defaultdict(set)
    for route in ROUTES.values():
        owned[route.owner.value, route.origin].add(route.name)
        for role in route.receivers:
            received[role.value].add(route.name)
    rows = {owner: (given, derived) for owner, given, derived in _table(architecture, "owner")}
    assert owned == {
        (owner, origin): set(NAME.findall(rows[owner][column]))
        for owner, origin in owned
        for column in [0 if origin is Origin.GIVEN else 1]
    }
    assert received == {receiver: set(NAME.findall(names)) for receiver, names in _table(architecture, "receiver")}


def test_the_architecture_lists_the_modules(root: Path, architecture: str) -> None:
    """Section 6 names every module of the three packages in its folder, and none that is not there."""
    (block,) = re.findall(r"```\n(actors/ .*?)```", architecture, re.DOTALL)
    listed: dict[str, set[str]] = {}
    folder = ""
    for line in block.splitlines():
        first, *names = line.partition("#")[0].split()
        if line[0] != " ":
            folder = first.rstrip("/")
        else:
            names.insert(0, first)
        listed.setdefault(folder, set()).update(names)
    tree: dict[str, set[str]] = defaultdict(set)
    for top in ("actors", "runtime", "replay"):
        for path in (root / top).rglob("*.py"):
            if not path.stem.startswith("__"):
                tree[path.parent.relative_to(root).as_posix()].add(path.stem)
    assert listed == tree


def test_the_values_of_the_log_are_in_the_architecture(architecture: str) -> None:
    """Every public class of events, of batches and of results is named in the tables or in the glossary."""
    public = {
        name
        for module in (events, batch, results)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and has(kind) and kind.__module__ == module.__name__ and name[0] != "_"
    }
    assert [] == sorted(public - set(NAME.findall(architecture)))


def test_the_glossary_is_of_words_that_are_used(root: Path, architecture: str) -> None:
    """Each word of section 9 has a meaning, comes once, and is used in the source or in another document."""
    glossary = _table(architecture, "word")
    words = [word for words, meaning in glossary for word in words.split(", ") if meaning]
    assert len(words) >= len(glossary)
    assert sorted(set(words)) == sorted(words)
    paths = [*(path for top in ("actors", "runtime", "replay") for path in (root / top).rglob("*.py"))]
    paths += [*(root / "docs").rglob("*.md"), root / "README.md"]
    used = " ".join(" ".join(path.read_text("utf-8") for path in paths).split())
    assert [] == [word for word in words if not re.search(rf"\b{word}", used, re.IGNORECASE)]


@pytest.fixture(scope="module")
def architecture(root: Path) -> str:
    """Return the text of ARCHITECTURE.md."""
    return (root / "ARCHITECTURE.md").read_text("utf-8")


def _table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table whose first column has this heading."""
    (body,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in body.splitlines()]


def test_every_folder_is_a_package_of_the_wheel(root: Path) -> None:
    """pyproject.toml lists each folder with modules, so that an installed reenact has it."""
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        path.parent.relative_to(root)
        for name in ("actors", "runtime", "replay")
        for path in (root / name).rglob("*.py")
    }
    assert sorted(".".join(("reenact", *folder.parts)) for folder in folders) == sorted(listed)
