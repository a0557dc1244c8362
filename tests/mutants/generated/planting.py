"""Two ways to put a mutant in the place of the original, each for a process that tries no other one."""

import importlib
import sys
from collections.abc import Sequence
from functools import reduce
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType

from tests.mutants.generated.mutants import PACKAGE, Mutant


def replace_function(mutant: Mutant) -> None:
    """Give the function the mutant's code, so that it is replaced wherever it was imported already."""
    module = importlib.import_module(f"{PACKAGE}.{mutant.module}")
    mutated = ModuleType(module.__name__)
    exec(compile(mutant.source, str(module.__file__), "exec"), vars(mutated))  # noqa: S102  # a mutant is code
    original, other = _function(module, mutant.path), _function(mutated, mutant.path)
    original.__code__ = other.__code__
    original.__defaults__, original.__kwdefaults__ = other.__defaults__, other.__kwdefaults__


def _function(module: ModuleType, path: str) -> FunctionType:
    *owners, name = path.split(".")
    found = vars(reduce(getattr, owners, module))[name]
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, classmethod):
        found = found.__func__
    if not isinstance(found, FunctionType):
        raise TypeError(f"{path} is no function")
    return found


class MutatedModule(MetaPathFinder, Loader):
    """Lets the mutated module be imported instead of the original; before anybody has imported that."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"{PACKAGE}.{mutant.module}"
        self._source = mutant.source

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for the mutated module alone."""
        return ModuleSpec(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutated module."""
        exec(compile(self._source, f"{self._name} (a mutant)", "exec"), vars(module))  # noqa: S102  # a mutant is code


def import_mutated(mutant: Mutant) -> None:
    """Let the mutant be imported in place of its module."""
    if f"{PACKAGE}.{mutant.module}" in sys.modules:
        raise ImportError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, MutatedModule(mutant))
