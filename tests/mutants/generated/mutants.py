"""The mutants of actors/: mutmut's mutations, each as the whole text of the module that has it.

mutmut is asked for the mutations alone. Its own runner takes a package for the folder that it lies in, and actors/ is
imported as reenact.actors.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

import libcst as cst
from attrs import evolve as changed
from attrs import frozen
from mutmut.configuration import config
from mutmut.mutation.file_mutation import Mutation, create_mutations, deep_replace

ACTORS: Final = Path("actors")
PACKAGE: Final = "reenact.actors"
PROPERTY: Final = "    @property\n"
HIDDEN: Final = "    # @property\n"
"""mutmut passes over what has a decorator, because its trampolines cannot replace it. What we do can, so this one is
hidden from mutmut."""


@frozen
class Change:
    """What a mutant changes. No number of a line is in it, so it stays the same when others are edited."""

    function: str
    """ "slots.Slot.reusable"."""
    removed: tuple[str, ...]
    """The lines that go, without their indentation."""
    added: tuple[str, ...]
    """The lines that come."""
    which: int = 1
    """Of several that are the same in one function."""

    def __str__(self) -> str:
        name = self.function if self.which == 1 else f"{self.function} #{self.which}"
        return "\n".join([name, *(f"- {line}" for line in self.removed), *(f"+ {line}" for line in self.added)])


@frozen
class Mutant:
    """One mutation."""

    change: Change
    source: str
    """The mutated module."""
    at_import: bool
    """The function runs while its module is imported, so it cannot be replaced afterwards."""

    @property
    def module(self) -> str:
        """The module's name in actors/."""
        return self.change.function.partition(".")[0]

    @property
    def path(self) -> str:
        """Where the function stands in its module."""
        return self.change.function.partition(".")[2]


@frozen
class Generated:
    """All mutants."""

    mutants: list[Mutant]
    n_outside: int
    """Mutations of what stands in no function (constants, tables, fields), which mutmut makes and does not run."""
    n_messages: int
    """Mutations of what an error of ours says, which pyproject.toml leaves out."""


def generated() -> Generated:
    """Make all mutants of actors/."""
    mutants: list[Mutant] = []
    seen = Counter[Change]()
    n_outside = n_messages = 0
    for path in sorted(ACTORS.glob("*.py")):
        source = path.read_text("utf-8")
        module, mutations, n_ignored = _mutations(path, source.replace(PROPERTY, HIDDEN))
        n_messages += n_ignored
        at_import = _called_at_import(source)
        owners = {function: (statement, name) for statement in module.body for function, name in _functions(statement)}
        texts = {statement: _text(module, statement) for statement, _ in owners.values()}
        for mutation in mutations:
            function = mutation.contained_by_top_level_function
            if function not in owners:
                n_outside += 1
                continue
            statement, name = owners[function]
            before = texts[statement]
            after = _text(module, deep_replace(statement, mutation.original_node, mutation.mutated_node))
            if source.count(before) != 1:
                raise ValueError(f"{name} stands twice in its module")
            change = Change(f"{path.stem}.{name}", *difference(before.splitlines(), after.splitlines()))
            seen[change] += 1
            change = changed(change, which=seen[change])
            mutants.append(Mutant(change, source.replace(before, after), name in at_import))
    return Generated(mutants, n_outside, n_messages)


def _mutations(path: Path, source: str) -> tuple[cst.Module, list[Mutation], int]:
    """Return a module, its mutations, and how many more there are in the lines that pyproject.toml leaves out."""
    settings = config()
    patterns, settings.do_not_mutate_patterns = settings.do_not_mutate_patterns, []
    n_all = len(create_mutations(str(path), source)[1])
    settings.do_not_mutate_patterns = patterns
    module, mutations, _, _ = create_mutations(str(path), source)
    return module, mutations, n_all - len(mutations)


def _text(module: cst.Module, statement: object) -> str:
    """Return a statement as it stands in the module."""
    if not isinstance(statement, cst.CSTNode):
        raise TypeError(f"{statement} is no statement")
    return str(module.code_for_node(statement).replace(HIDDEN, PROPERTY))


def difference(before: list[str], after: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the lines that go and those that come."""
    removed: list[str] = []
    added: list[str] = []
    for what, start, end, new_start, new_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what != "equal":
            removed += before[start:end]
            added += after[new_start:new_end]
    return tuple(line.strip() for line in removed), tuple(line.strip() for line in added)


def _functions(statement: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, str]]:
    """Return a function, or the methods of a class, each with its name."""
    if isinstance(statement, cst.FunctionDef):
        yield statement, statement.name.value
    elif isinstance(statement, cst.ClassDef):
        for node in statement.body.body:
            if isinstance(node, cst.FunctionDef):
                yield node, f"{statement.name.value}.{node.name.value}"


def _called_at_import(source: str) -> set[str]:
    """Return the functions that the module calls while it is imported, and those that they call in turn."""
    body = ast.parse(source).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    found: set[str] = set()
    waiting: list[ast.stmt] = [node for node in body if not isinstance(node, ast.FunctionDef)]
    while waiting:
        calls = [node.func for node in _walk(waiting.pop()) if isinstance(node, ast.Call)]
        names = {func.id for func in calls if isinstance(func, ast.Name)}
        waiting += [statement for name in names & functions.keys() - found for statement in functions[name].body]
        found |= names & functions.keys() | {f"{name}.__init__" for name in names & classes}
    return found


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a node without the bodies of functions, which run later."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield from _walk(child)
