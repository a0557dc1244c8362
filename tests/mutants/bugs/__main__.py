"""Plants every bug of the table, one at a time, and runs property tests until one notices: ``make mutants``.

Names of bugs, or beginnings of names, as arguments restrict it to these. Each bug has a process of its own, forked from
this one; what counts as noticing says `tests.mutants.runner`. Unit tests are not asked.
"""

import argparse
import sys
from collections.abc import Iterable
from statistics import median
from time import monotonic
from typing import Final

from rich.console import Console
from rich.markup import escape

from tests.helpers.models import tiny  # noqa: F401  # as below
from tests.helpers.programs import (
    playing,  # noqa: F401  # once, before the forks: they take long to import
)
from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME
from tests.mutants.bugs.blind import BLIND
from tests.mutants.bugs.table import PLANTED
from tests.mutants.change import Planted
from tests.mutants.runner import SHELL, Job, Outcome, outcomes
from tests.simulation import __main__ as simulation

SECONDS: Final = 200
"""For one bug: more than all property tests take where there is none."""
MOST_TOLD: Final = 3
"""Lines on why a bug is not caught."""
BUGS: Final = (*PLANTED, *BLIND)

_MACHINE: Final = "tests/properties/test_kernel_machine.py"
_SIMULATION: Final = "tests/simulation/test_simulation.py"
_KERNEL: Final = (
    "tests/properties/test_crowd_properties.py",
    f"{_SIMULATION}::test_all_holds",
    "tests/replay/check/test_runner.py::test_whatever_happens_all_rules_are_kept",
    "tests/properties/test_slot_properties.py",
    "tests/properties/test_strategies.py::test_the_rules_hold",
    f"{_MACHINE}::test_all_rules_hold_and_everybody_ends_in_fixed_examples",
    "tests/properties/test_kernel_properties.py",
    f"{_SIMULATION}::test_all_holds_for_a_fresh_seed",
    f"{_MACHINE}::test_all_rules_hold_and_everybody_ends_in_fresh_examples",
)
_TEXT: Final = ("tests/properties/test_text_properties.py",)
_SCHEDULE: Final = ("tests/properties/test_schedule_properties.py",)
_DRAWINGS: Final = ("tests/properties/test_drawing_properties.py",)
_ENGINE: Final = ("tests/properties/test_engine_properties.py",)
_GRAMMAR: Final = ("tests/properties/test_grammar_properties.py", "tests/properties/test_schema_properties.py")
_FIRST: Final = {
    "reenact.actors.text": _TEXT,
    "reenact.runtime.chats": _TEXT,
    "reenact.actors.schedule": _SCHEDULE,
    "reenact.runtime.engine.drawings": (*_DRAWINGS, *_ENGINE),
    **dict.fromkeys(
        (f"reenact.runtime.{name}" for name in ("llama.sampler", "engine.draw_key", "llama.batch", "llama.context")),
        _ENGINE,
    ),
    **dict.fromkeys(
        (
            f"reenact.runtime.{name}"
            for name in (
                "grammar.automaton",
                "llama.grammar_states",
                "grammar.ranges",
                "grammar.patterns",
                "grammar.branches",
            )
        ),
        _GRAMMAR,
    ),
}
"""The property tests of a module alone, which are quick; they come first where the bug is in it."""


def properties(bug: Planted | None) -> tuple[str, ...]:
    """Return the property tests, those that find most bugs soon first."""
    first = () if bug is None else _FIRST.get(bug.target.partition(":")[0], ())
    return tuple(dict.fromkeys((*first, *_KERNEL, *_TEXT, *_SCHEDULE, *_DRAWINGS, *_ENGINE, *_GRAMMAR)))


def planted(bugs: Iterable[Planted]) -> Iterable[tuple[str, Outcome]]:
    """Plant bugs, and return the name of each with what became of it, in the order in which that is known."""
    watched = (*SHELL, (simulation, "format_exception"))
    jobs = [Job(bug.name, properties(bug), SECONDS, until_noticed=True) for bug in bugs]
    return ((job.broken, outcome) for job, outcome in outcomes(jobs, watched))


def uncaught(outcome: Outcome) -> list[str]:
    """Return why a bug does not count as caught; nothing if it does."""
    if outcome.failed and not outcome.wrong:
        return []
    return outcome.wrong or [f"{len(outcome.passed)} cases of property tests pass"]


def caught_by(outcome: Outcome) -> str:
    """Return the name of the test that caught a bug."""
    return outcome.failed[0].removeprefix("tests/").removeprefix("properties/").replace(".py::", "::")


def shown(console: Console, wide: int, bug: Planted, outcome: Outcome) -> None:
    """Print one line of the table, and why a bug is not caught below it."""
    problems = uncaught(outcome)
    verdict = "[red]NOT CAUGHT[/]" if problems else "[green]caught[/]    "
    told = bug.says if problems else f"[dim]{escape(caught_by(outcome))}[/]"
    console.print(f"{verdict} {outcome.seconds:5.1f} s | [bold]{bug.name:<{wide}}[/] | {told}")
    for problem in problems[:MOST_TOLD]:
        console.print(f"        {problem}", style="red", markup=False)


def are_sound(console: Console) -> bool:
    """Return whether the property tests pass while no bug is planted."""
    [(_, sound)] = outcomes([Job("", properties(None), SECONDS)])
    if sound.failed or sound.wrong or sound.missing:
        console.print("The property tests fail while no bug is planted:", *sound.failed, *sound.wrong, sep="\n  ")
        return False
    console.print(f"{len(sound.passed)} cases pass in {sound.seconds:.0f} seconds while no bug is planted.")
    return True


def main() -> int:
    """Run the property tests without a bug, then with each one; return 1 if any is not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.bugs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="plant only bugs whose names begin so")
    parser.add_argument("--at-once", action="store_true", help="do not run the tests without a bug first")
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    bugs = {bug.name: bug for bug in BUGS if not asked.names or bug.name.startswith(tuple(asked.names))}
    started = monotonic()
    console.print(f"Fresh examples are those of {FRESH_SEED_NAME}={FRESH_SEED}.")
    if not asked.at_once and not are_sound(console):
        return 1
    wide = max(map(len, bugs), default=0)
    seconds: list[float] = []
    computed: list[float] = []
    for name, outcome in planted(bugs.values()):
        shown(console, wide, bugs[name], outcome)
        if not uncaught(outcome):
            seconds.append(outcome.seconds)
            computed.append(outcome.computed)
    n_blind = len(bugs.keys() & {bug.name for bug in BLIND})
    console.print(f"{len(seconds)} of {len(bugs)} bugs are caught; {n_blind} of them were planted blind.")
    if seconds:
        for what, took in ("by the clock", seconds), ("of computing", computed):
            console.print(
                f"A bug is caught after {median(took):.1f} seconds {what} in the median, {max(took):.1f} at most."
            )
    console.print(f"{monotonic() - started:.0f} seconds in all.")
    return int(len(seconds) < len(bugs))


if __name__ == "__main__":
    sys.exit(main())
