"""Runs the tests against mutants, each mutant in a process of its own that ends with the first test that fails.

A process is forked when pytest has collected the tests, so a mutant costs no more than the tests that run through the
function it changes, quickest first. What runs while its module is imported is forked before that.
"""

import os
import resource
import signal
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from cProfile import Profile
from itertools import zip_longest
from pathlib import Path
from time import process_time
from types import CodeType, FrameType
from typing import Final

import pytest
from attrs import define, field, frozen

from tests.mutants.generated.mutants import ACTORS, Change, Mutant
from tests.mutants.generated.planting import import_mutated, replace_function

TESTS: Final = ("tests/actors",)
"""What else runs through actors/ kills mutants too, but takes long: a wrong line is to be found in seconds."""
SETTINGS: Final = {"REENACT_EXAMPLES": "10", "REENACT_SEED": "1"}
"""So many examples of a property at most; and all the same in every run."""
LEFT_OUT: Final = "not fresh"
"""Tests whose examples are others in every run."""
SECONDS: Final = 2
"""Of the CPU that a test may take beyond five times what it takes without a mutant; a mutant that takes more goes round
in circles, however busy the machine is."""
SECONDS_AT_IMPORT: Final = 300
"""Of the CPU that all tests together may take."""
SECONDS_ASLEEP: Final = 20
"""By the wall clock: a mutant that computes for less than a hundredth of them waits for what never comes."""
MEMORY: Final = 4 * 2**30
"""Bytes: a mutant that goes round in circles may collect something on the way."""
TIMED_OUT: Final = "timed out"


@frozen
class Result:
    """What became of a mutant."""

    mutant: Mutant
    killer: str
    """The first test that failed, or that it timed out; empty if it survived."""


Told = Callable[[Result], None]


def limit(seconds: float) -> None:
    """Let this process end if it computes for more than ``seconds`` from now on, or sleeps."""
    computed = process_time()

    def look(number: int, _: FrameType | None) -> None:
        nonlocal computed
        before, computed = computed, process_time()
        if computed - before < SECONDS_ASLEEP / 100:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_ASLEEP, SECONDS_ASLEEP)
    signal.setitimer(signal.ITIMER_PROF, seconds)


@define
class Killers:
    """The tests that killed mutants before, in earlier runs and with other actors too; they are tried first."""

    of_mutants: dict[str, str] = field(factory=dict)
    """By what a mutant changes."""
    of_functions: dict[str, Counter[str]] = field(factory=lambda: defaultdict(Counter))

    def add(self, change: str, killer: str) -> None:
        """Count one more."""
        self.of_mutants[change] = killer
        self.of_functions[change.splitlines()[0].partition(" ")[0]][killer] += 1

    def order(self, change: Change, items: Iterable[pytest.Item], seconds: Mapping[str, float]) -> list[pytest.Item]:
        """Return tests in the order in which they are tried: likely killers first, and then quick ones."""
        own, often = self.of_mutants.get(str(change)), self.of_functions[change.function]
        return sorted(items, key=lambda item: (item.nodeid != own, -often[item.nodeid], seconds[item.nodeid]))


def arguments(tests: Iterable[str]) -> list[str]:
    """Return what pytest is called with."""
    return ["-q", "-p", "no:cacheprovider", "--tb=no", "-k", LEFT_OUT, *tests]


def forked(act: Callable[[int], None]) -> str:
    """Let ``act`` do something in a process of its own, and return what it wrote to the pipe it is given."""
    reading, writing = os.pipe()
    number = os.fork()
    if not number:
        status = 1
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            act(writing)
            status = 0
        except BaseException:  # noqa: BLE001  # whatever it is, this process ends here
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(number, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return TIMED_OUT if number in {signal.SIGALRM, signal.SIGPROF} else f"signal {number}"
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"the tests did not come to run: {said}")
    return said


@define(eq=False)
class Watcher:
    """A plugin of pytest in the process of a mutant: the first test that fails ends it."""

    writing: int

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the tests that killed the mutant."""
        if report.failed:
            self.tell(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Likewise for a file of tests that cannot be imported any more."""
        if report.failed:
            self.tell(report.nodeid)

    def tell(self, killer: str) -> None:
        """Name the killer and end."""
        os.write(self.writing, killer.encode())
        os._exit(0)


def run_from_import(mutants: Iterable[Mutant], told: Told) -> None:
    """Try mutants of what runs at import. Nobody may have imported reenact yet."""
    for mutant in mutants:
        # Its module's own tests alone first, because to import all others takes longer.
        own = [path for path in (f"tests/actors/test_{mutant.module}.py",) if Path(path).exists()]
        told(Result(mutant, (own and from_import(mutant, own)) or from_import(mutant, TESTS)))


def from_import(mutant: Mutant, tests: Iterable[str]) -> str:
    """Return which of the tests kills a mutant that is imported in place of its module; nothing if none does."""

    def act(writing: int) -> None:
        import_mutated(mutant)
        limit(SECONDS_AT_IMPORT)
        code = pytest.main(arguments(tests), plugins=[Watcher(writing)])
        if code != pytest.ExitCode.OK:
            # Without a test that failed: the mutant cannot even be imported.
            os.write(writing, f"pytest: {code.name if isinstance(code, pytest.ExitCode) else code}".encode())

    return forked(act)


@define(eq=False)
class Runner:
    """A plugin of pytest that runs the tests once as they are, and then those that each mutant concerns."""

    mutants: list[Mutant]
    killers: Killers
    told: Told
    failed: list[str] = field(factory=list)
    """The tests that fail without any mutant, or what went wrong otherwise."""
    _seconds: dict[str, float] = field(factory=dict)
    _covering: dict[str, list[pytest.Item]] = field(factory=lambda: defaultdict(list))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a test that fails."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Likewise a file of tests that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_internalerror(self, excrepr: object) -> None:
        """Remember what stopped us."""
        self.failed.append(str(excrepr))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests."""
        for item, following in with_next(session.items):
            start = process_time()
            for function in functions_run(lambda item=item, following=following: run(item, following)):  # type: ignore[misc]
                self._covering[function].append(item)
            self._seconds[item.nodeid] = process_time() - start
        # A test that fails in a second run would seem to kill every mutant.
        if not self.failed and (again := forked(lambda writing: self._run(session, session.items, writing))):
            self.failed.append(f"{again} (in a second run)")
        for mutant in self.mutants if not self.failed else []:
            result = Result(mutant, forked(lambda writing, mutant=mutant: self._try(session, mutant, writing)))  # type: ignore[misc]
            if result.killer:
                self.killers.add(str(mutant.change), result.killer)
            self.told(result)
        return True

    def _try(self, session: pytest.Session, mutant: Mutant, writing: int) -> None:
        replace_function(mutant)
        items = self.killers.order(mutant.change, self._covering[mutant.change.function], self._seconds)
        self._run(session, items, writing)

    def _run(self, session: pytest.Session, items: list[pytest.Item], writing: int) -> None:
        session.config.pluginmanager.unregister(self)
        session.config.pluginmanager.register(Watcher(writing))
        for item, following in with_next(items):
            limit(SECONDS + 5 * self._seconds[item.nodeid])
            run(item, following)


def run(item: pytest.Item, following: pytest.Item | None) -> None:
    """Run one test."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def with_next(items: list[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Return each test with the one after it, for which pytest keeps fixtures."""
    return zip_longest(items, items[1:])


def functions_run(act: Callable[[], None]) -> set[str]:
    """Return which functions of actors/ run meanwhile, as `Change.function` names them."""
    folder = str(ACTORS.resolve())
    with Profile(subcalls=False, builtins=False) as profile:
        act()
    codes = [entry.code for entry in profile.getstats() if isinstance(entry.code, CodeType)]
    return {
        f"{Path(code.co_filename).stem}.{code.co_qualname.partition('.<locals>')[0]}"
        for code in codes
        if code.co_filename.startswith(folder)
    }
