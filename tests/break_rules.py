"""Breaks every rule of `tests.rules`, one at a time, and checks that its tests notice: ``python -m tests.break_rules``.

Names of rules, or beginnings of names, as arguments restrict it to these. Each rule has a process of its own, forked
from this one. A test has noticed if it fails by an assertion, by an error of reenact's own, or because it looks in vain
for what should be there. One that fails because the replacement is nonsense (a TypeError, say, also one that an actor
raises) has noticed nothing.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest
from attrs import define, field, frozen
from rich.console import Console

from reenact.actors import kernel
from reenact.actors.errors import ReenactError
from tests import support  # noqa: F401  # once, before the forks: it takes longer to import than most tests to run
from tests.breaking import BREAK_NAME, Rule
from tests.rules import RULES

WORKERS: Final = os.cpu_count() or 1
SECONDS: Final = 30
"""For one rule: a rule that is broken may keep a session from coming to an end."""
NOTICED: Final = (AssertionError, pytest.fail.Exception, ReenactError)
IN_VAIN: Final = (ValueError, LookupError, StopIteration)
"""What a test raises that takes something apart that is not there."""
NONSENSE: Final = (TypeError, AttributeError, NameError)
QUIET: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Plugins are imported before the forks, which pytest would warn of."""
TESTS: Final = Path(__file__).parent
REPLACEMENTS: Final = ("broken.py", "rules.py")


@frozen
class Outcome:
    """What became of the tests of one rule."""

    passed: list[str]
    failed: list[str]
    """By what a failure is for; see above."""
    wrong: list[str]
    """What went wrong in another way."""

    @property
    def missing(self) -> bool:
        """Whether no test ran."""
        return not (self.passed or self.failed or self.wrong)


@define
class Watcher:
    """A plugin of pytest: who passed, and why the others did not."""

    passed: list[str] = field(factory=list)
    failed: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that passed."""
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid)
        elif report.skipped:
            self.wrong.append(f"{report.nodeid} is skipped")

    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]) -> None:
        """Count a test that failed, by why it did."""
        if isinstance(node, pytest.Item) and call.when == "call" and call.excinfo and noticed(call.excinfo):
            self.failed.append(node.nodeid)
        else:
            self.wrong.append(f"{node.nodeid}: {call.excinfo and call.excinfo.exconly()}".splitlines()[0])


def noticed(raised: pytest.ExceptionInfo[BaseException]) -> bool:
    """Return whether a test failed because of what it looks at."""
    error = raised.value
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # A test that runs in trio fails in its nursery.
    if isinstance(error, NOTICED):
        return True
    where = Path(raised.traceback[-1].path)
    return isinstance(raised.value, IN_VAIN) and where.is_relative_to(TESTS) and where.name not in REPLACEMENTS


def run(nodes: Iterable[str], broken: str) -> Outcome:
    """Run tests in this process, a rule broken if one is named."""
    os.environ[BREAK_NAME] = broken
    watcher = Watcher()
    watch_actors(watcher)
    arguments = ["-q", "-p", "no:cacheprovider", "--tb=no", "--no-header", *QUIET, *nodes]
    pytest.main(arguments, plugins=[watcher])
    return Outcome(watcher.passed, watcher.failed, watcher.wrong)


def watch_actors(watcher: Watcher) -> None:
    """Notice an actor that raises because the replacement is nonsense; the kernel would hide it."""
    original = vars(kernel)["description"]

    def description(error: BaseException) -> str:
        if isinstance(error, NONSENSE):
            watcher.wrong.append(f"an actor raised {type(error).__name__}: {error}")
        return str(original(error))

    vars(kernel)["description"] = description


def forked(nodes: Iterable[str], broken: str, path: Path) -> int:
    """Run tests in a process of their own, which leaves the outcome in a file; return its number."""
    number = os.fork()
    if number:
        return number
    try:
        signal.alarm(SECONDS)
        with Path(os.devnull).open("w") as output, redirect_stdout(output), redirect_stderr(output):
            outcome = run(nodes, broken)
    except BaseException as error:  # noqa: BLE001  # this process ends here, and whoever waits for it is told why
        outcome = Outcome([], [], [f"pytest raised {type(error).__name__}: {error}"])
    path.write_text(json.dumps([outcome.passed, outcome.failed, outcome.wrong]))
    os._exit(0)


def outcome_of(path: Path) -> Outcome:
    """Return what a process left in its file."""
    if not path.exists():
        return Outcome([], [], [f"nothing came back within {SECONDS} seconds"])
    return Outcome(*json.loads(path.read_text()))


def uncaught(rule: Rule, outcome: Outcome) -> list[str]:
    """Return why the tests of a rule do not hold it; nothing if they do."""
    unmoved = [node for node in rule.nodes if not any(of(node, failed) for failed in outcome.failed)]
    return [*outcome.wrong, *(f"{node} passes" for node in unmoved)]


def of(node: str, case: str) -> bool:
    """Return whether a case is one of a test's."""
    return case == node or case.startswith(f"{node}[")


def shown(console: Console, done: str, rule: Rule, problems: list[str]) -> None:
    """Print one line of the table, and what is wrong below it."""
    tests = ", ".join(test.rpartition("::")[2] for test in rule.tests)
    verdict = "[red]NOT CAUGHT[/]" if problems else "[green]caught[/]"
    console.print(f"{done} {verdict} | [bold]{rule.name}[/] | {rule.target.removeprefix('reenact.')} | [dim]{tests}[/]")
    for problem in problems:
        console.print(f"        {problem}", style="red", markup=False)


def main(names: list[str]) -> int:
    """Run the tests of all rules unbroken, then each rule's with it broken; return 1 if any goes unnoticed."""
    console = Console(highlight=False, soft_wrap=True)
    rules = [rule for rule in RULES if not names or rule.name.startswith(tuple(names))]
    nodes = list(dict.fromkeys(node for rule in rules for node in rule.nodes))
    start = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unbroken.json")
        os.waitpid(forked(nodes, "", path), 0)
        unbroken = outcome_of(path)
        if unbroken.failed or unbroken.wrong or unbroken.missing:
            console.print("The tests fail while no rule is broken:", *unbroken.failed, *unbroken.wrong, sep="\n  ")
            return 1
        console.print(f"{len(unbroken.passed)} cases of {len(nodes)} tests pass; now {len(rules)} rules are broken.")
        bad = broken_one_by_one(console, rules, Path(folder))
    console.print(f"{len(rules) - bad} of {len(rules)} rules are held, in {monotonic() - start:.0f} seconds.")
    return 1 if bad else 0


def broken_one_by_one(console: Console, rules: list[Rule], folder: Path) -> int:
    """Break the rules, as many at a time as there are cores, and return how many went unnoticed."""
    waiting, running, n_done, bad = list(enumerate(rules)), dict[int, tuple[Path, Rule]](), 0, 0
    while waiting or running:
        while waiting and len(running) < WORKERS:
            index, rule = waiting.pop(0)
            path = folder / f"{index}.json"
            running[forked(rule.nodes, rule.name, path)] = path, rule
        number, _ = os.wait()
        path, rule = running.pop(number)
        problems = uncaught(rule, outcome_of(path))
        n_done, bad = n_done + 1, bad + bool(problems)
        shown(console, f"{n_done:3}/{len(rules)}", rule, problems)
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
