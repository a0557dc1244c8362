"""Runs tests/actors against every mutant of actors/ that mutmut makes: ``python -m tests.mutants.generated``.

Names of functions, or beginnings of names ("slots.", "batcher._plan"), as arguments restrict it to these. It
exits with 1 if fewer than `SHARE` of the mutants are killed, if one survives that survivors.txt does not explain, or if
one that it explains is killed.

The test that killed a mutant is kept in .mutation.jsonl and counts as long as the mutant's module and the file of that
test are the same. So a run that was stopped goes on where it was, and one after new tests tries the survivors alone;
where a module has changed, each of its mutants is tried with the test that killed it before first. Without that file
(`make clean` removes it) all are tried.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, TextIO

import pytest
from attrs import define, field

from tests.mutants.generated.mutants import ACTORS, Mutant, generated
from tests.mutants.generated.running import (
    SETTINGS,
    TESTS,
    TIMED_OUT,
    Killers,
    Result,
    Runner,
    arguments,
    run_from_import,
)
from tests.mutants.generated.survivors import TABLE, explained

SHARE: Final = 0.99
KEPT: Final = Path(".mutation.jsonl")


@cache
def digest(path: Path) -> str:
    """Return a digest of what a file holds."""
    return sha256(path.read_bytes() if path.is_file() else b"").hexdigest()[:16]


@define
class Results:
    """What became of the mutants, of those of earlier runs too."""

    output: TextIO
    n_mutants: int
    killed: list[Result] = field(factory=list)
    survived: list[Result] = field(factory=list)

    def remember(self, mutants: list[Mutant]) -> tuple[list[Mutant], Killers]:
        """Return the mutants that are left to try, and which tests killed mutants before."""
        kept: dict[str, str] = {}
        killers = Killers()
        for row in map(json.loads, KEPT.read_text().splitlines() if KEPT.exists() else []):
            killers.add(row["change"], row["killer"])
            is_same = (row["module"], row["test"]) == (digest(module_of(row["change"])), digest(file_of(row["killer"])))
            kept.pop(row["change"], None)
            if is_same:
                kept[row["change"]] = row["killer"]
        self.killed = [Result(mutant, kept[str(mutant.change)]) for mutant in mutants if str(mutant.change) in kept]
        return [mutant for mutant in mutants if str(mutant.change) not in kept], killers

    def add(self, result: Result) -> None:
        """Count a result, show it and keep it."""
        (self.killed if result.killer else self.survived).append(result)
        n_done, change = len(self.killed) + len(self.survived), result.mutant.change
        if not result.killer:
            print(f"{n_done}/{self.n_mutants} survived: {change}", file=self.output, flush=True)
            return
        if n_done % 100 == 0:
            print(f"{n_done}/{self.n_mutants}", file=self.output, flush=True)
        module, test = digest(module_of(str(change))), digest(file_of(result.killer))
        row = {"change": str(change), "killer": result.killer, "module": module, "test": test}
        with KEPT.open("a") as kept:
            kept.write(json.dumps(row) + "\n")

    def verdict(self) -> int:
        """Print the survivors and the figures, and return the exit code."""
        reasons = explained(TABLE.read_text("utf-8"))
        for change in (result.mutant.change for result in self.survived):
            print(f"\n{change}\n  {reasons.get(change, 'NOT EXPLAINED')}", file=self.output)
        unexplained = [result for result in self.survived if result.mutant.change not in reasons]
        wrong = [result.mutant.change for result in self.killed if result.mutant.change in reasons]
        for change in wrong:
            print(f"\nIt is explained why it survives, and it was killed: {change}", file=self.output)
        n_all, n_killed = len(self.killed) + len(self.survived), len(self.killed)
        n_timed_out = sum(result.killer == TIMED_OUT for result in self.killed)
        modules = Counter(result.mutant.module for result in self.survived)
        print(
            f"\nSurvivors by module: {', '.join(f'{name} {n}' for name, n in modules.most_common())}"
            f"\n{n_all} of {self.n_mutants} mutants tried: {n_killed} killed, {n_timed_out} of them by the clock;"
            f" {len(self.survived)} survived, {len(unexplained)} of them not explained."
            f" {100 * n_killed / max(n_all, 1):.1f} of 100 are killed.",
            file=self.output,
        )
        return int(n_killed < SHARE * self.n_mutants or bool(unexplained) or bool(wrong))


def module_of(change: str) -> Path:
    """Return the file that a mutant changes."""
    return ACTORS / f"{change.partition('.')[0]}.py"


def file_of(test: str) -> Path:
    """Return the file that a test stands in."""
    return Path(test.partition("::")[0])


@contextmanager
def silent() -> Iterator[TextIO]:
    """Keep what pytest says from the console, and give a way to the console to us."""
    with (
        os.fdopen(os.dup(1), "w") as console,
        os.fdopen(os.dup(2), "w") as errors,
        Path(os.devnull).open("w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield console
        finally:
            os.dup2(console.fileno(), 1)
            os.dup2(errors.fileno(), 2)


def main(names: list[str]) -> int:
    """Run the tests against the mutants."""
    os.environ.update(SETTINGS)
    start = monotonic()
    made = generated()
    mutants = [mutant for mutant in made.mutants if not names or mutant.change.function.startswith(tuple(names))]
    if not mutants:
        print(f"no function has a name that begins with {' or '.join(names)}")
        return 2
    # In no order of theirs, so that the figures of a run that is stopped are those of an honest sample.
    mutants.sort(key=lambda mutant: sha256(str(mutant.change).encode()).digest())
    with silent() as console, TemporaryDirectory() as folder:
        results = Results(console, len(mutants))
        left, killers = results.remember(mutants)
        print(
            f"{len(mutants)} mutants, {len(left)} of them to be tried. Left out: {made.n_outside} mutations outside of"
            f" functions (constants, tables, fields), as mutmut does; {made.n_messages} of what our errors say.",
            file=console,
            flush=True,
        )
        run_from_import([mutant for mutant in left if mutant.at_import], results.add)
        runner = Runner([mutant for mutant in left if not mutant.at_import], killers, results.add)
        pytest.main([*arguments(TESTS), f"--basetemp={folder}/pytest"], plugins=[runner])
        if runner.failed:
            print("This fails without any mutant:", *runner.failed, sep="\n  ", file=console)
            return 1
        code = results.verdict()
        print(f"It took {monotonic() - start:.0f} seconds.", file=console)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
