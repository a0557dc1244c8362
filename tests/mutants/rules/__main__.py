"""Breaks every rule of the table, one at a time, and checks that its tests notice: ``make rules``.

Names of rules, or beginnings of names, as arguments restrict it to these. Each rule has a process of its own, forked
from this one; what counts as noticing says `tests.mutants.runner`.
"""

import sys
from time import monotonic
from typing import Final

from rich.console import Console

from tests.helpers import driver  # noqa: F401  # once, before the forks: it takes longer to import than most tests to run
from tests.mutants.change import Rule
from tests.mutants.rules.table import RULES
from tests.mutants.runner import Job, Outcome, outcomes

SECONDS: Final = 30
"""For one rule."""


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
    rules = {rule.name: rule for rule in RULES if not names or rule.name.startswith(tuple(names))}
    if not rules:
        console.print(f"There is no rule with a name that begins with {' or '.join(names)}.")
        return 2
    nodes = tuple(dict.fromkeys(node for rule in rules.values() for node in rule.nodes))
    start = monotonic()
    [(_, unbroken)] = outcomes([Job("", nodes, SECONDS)])
    if unbroken.failed or unbroken.wrong or unbroken.missing:
        console.print("The tests fail while no rule is broken:", *unbroken.failed, *unbroken.wrong, sep="\n  ")
        return 1
    console.print(f"{len(unbroken.passed)} cases of {len(nodes)} tests pass; now {len(rules)} rules are broken.")
    bad = 0
    jobs = [Job(rule.name, tuple(rule.nodes), SECONDS) for rule in rules.values()]
    for n_done, (job, outcome) in enumerate(outcomes(jobs), 1):
        problems = uncaught(rules[job.broken], outcome)
        bad += bool(problems)
        shown(console, f"{n_done:3}/{len(rules)}", rules[job.broken], problems)
    console.print(f"{len(rules) - bad} of {len(rules)} rules are held, in {monotonic() - start:.0f} seconds.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
