"""What a rule and a bug are here, and how a function of the program is replaced by one that does otherwise."""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any, Final

from attrs import frozen

BREAK_NAME: Final = "REENACT_BREAK"
"""The environment variable that names the rule that a test run is to do without, or the bug that it is to have."""


@frozen
class Change:
    """A function of the program, and what is put in its place."""

    name: str
    says: str
    target: str
    """What is replaced: "module:name" or "module:Class.name"."""
    broken: Callable[[Any], Any]
    """Makes the replacement of the original."""


@frozen
class Planted(Change):
    """A bug such as people make; it says what goes wrong."""


@frozen
class Rule(Change):
    """A rule, one way to break it, and the tests that are there to notice.

    It is named after a paragraph of docs/runner-semantics.md section 2, or "Case" for section 3, and which of its rules
    it is; what it says stands there word for word.
    """

    tests: tuple[str, ...]
    """Which tests hold the rule: "test_text::test_..." of tests/actors, or a whole node id."""

    @property
    def nodes(self) -> list[str]:
        """The tests as pytest names them."""
        return [test if "/" in test else "tests/actors/" + test.replace("::", ".py::", 1) for test in self.tests]


def always(value: object) -> Callable[[Any], Any]:
    """Replace a function by one that returns ``value``."""
    return lambda _original: lambda *_args, **_names: value


def asked(change: Callable[..., tuple[Any, ...]]) -> Callable[[Any], Any]:
    """Have the function asked something else: ``change`` makes its positional arguments of those it is given."""
    return lambda original: lambda *args, **names: original(*change(*args), **names)


def answered(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Have the function answer something else."""
    return lambda original: lambda *args, **names: change(original(*args, **names))


def found(target: str) -> tuple[Any, str, Any]:
    """Return the owner of the target, the attribute's name, and its value."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    original = vars(owner)[name]
    return owner, name, original


def replace(target: str, broken: Callable[[Any], Any]) -> None:
    """Replace the target for good, also where it was imported by its name."""
    owner, name, original = found(target)
    replacement = property(broken(original.fget)) if isinstance(original, property) else broken(original)
    setattr(owner, name, replacement)
    for module in [module for path, module in sys.modules.items() if path.startswith(("reenact.", "tests."))]:
        if vars(module).get(name) is original:
            setattr(module, name, replacement)


def break_asked_for(changes: Iterable[Change], environment: Mapping[str, str] = os.environ) -> Change | None:
    """Make the change that the environment names, if it names one, and return it."""
    name = environment.get(BREAK_NAME)
    if not name:
        return None
    change = next(change for change in changes if change.name == name)
    replace(change.target, change.broken)
    return change
