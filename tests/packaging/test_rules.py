"""The table of rules against the document, the program and the tests."""

import ast
import re
from pathlib import Path

import pytest

from tests.mutants.change import Rule, found
from tests.mutants.rules.table import RULES

PARAGRAPH = re.compile(r"^\*\*(.+?)\.\*\*", re.MULTILINE)


def by_name(rule: Rule) -> str:
    """Return what a test of this rule is called."""
    return rule.name


@pytest.fixture(scope="module")
def paragraphs(root: Path) -> dict[str, str]:
    """Return the paragraphs of section 2 by their headings, and all of section 3 as "Case"."""
    document = (root / "docs" / "runner-semantics.md").read_text("utf-8")
    rules, _, cases = document.partition("## 2.")[2].partition("## 3.")
    _, *parts = PARAGRAPH.split(rules)
    found = {**dict(zip(parts[::2], parts[1::2], strict=True)), "Case": cases}
    return {heading: " ".join(text.split()) for heading, text in found.items()}


def test_every_paragraph_has_rules(paragraphs: dict[str, str]) -> None:
    """Every paragraph of section 2 has a rule in the table, section 3 has cases, and every rule is of one of them."""
    assert set(paragraphs) == {rule.name.partition(":")[0] for rule in RULES}


def test_rules_have_names_of_their_own() -> None:
    """A name says which rule is broken, and no other."""
    names = [rule.name for rule in RULES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_a_rule_is_quoted_word_for_word(rule: Rule, paragraphs: dict[str, str]) -> None:
    """What a rule says stands in its paragraph."""
    assert rule.says in paragraphs[rule.name.partition(":")[0]]


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_what_a_rule_breaks_is_there(rule: Rule) -> None:
    """The function that is replaced exists, and can be replaced."""
    _, _, original = found(rule.target)
    assert isinstance(original, property) or callable(original)


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_the_tests_of_a_rule_are_there(rule: Rule, root: Path) -> None:
    """Every test that is named exists."""
    assert rule.nodes
    for node in rule.nodes:
        path, _, name = node.partition("::")
        functions = ast.parse((root / path).read_text("utf-8")).body
        assert name.partition("[")[0] in [
            one.name for one in functions if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
