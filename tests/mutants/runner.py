"""Runs tests in forked processes in which something is broken on purpose, and tells which of them noticed.

A test has noticed if it fails by an assertion, by an error of reenact's own, or because it looks in vain for what
should be there. One that fails because the replacement is nonsense (a TypeError, say, also one that an actor raises)
has noticed nothing.
"""

import atexit
import json
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any, Final

import pytest
from attrs import define, field, frozen

from reenact.actors import kernel
from reenact.actors.errors import ReenactError
from reenact.runtime import session
from reenact.runtime.user_cache import FOLDER_NAME
from tests.helpers.paths import ROOT
from tests.mutants.change import BREAK_NAME

WORKERS: Final = os.cpu_count() or 1
NOTICED: Final = (AssertionError, pytest.fail.Exception, ReenactError)
IN_VAIN: Final = (ValueError, LookupError, StopIteration)
"""What a test raises that takes something apart that is not there."""
NONSENSE: Final = (TypeError, AttributeError, NameError)
QUIET: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Plugins are imported before the forks, which pytest would warn of."""
TESTS: Final = ROOT / "tests"
MUTANTS: Final = Path(__file__).parent


@frozen
class Job:
    """Tests that are run in a process of their own."""

    broken: str
    """The name of the rule or the bug; nothing where all is as it should be."""
    nodes: tuple[str, ...]
    """As pytest names them, in the order in which they are run."""
    seconds: int
    """Of computing, and five times as many by the clock: what is broken may keep a session from coming to an end."""
    until_noticed: bool = False
    """Whether the first test that fails is the last."""


@frozen
class Outcome:
    """What became of the tests of one process."""

    passed: list[str]
    failed: list[str]
    """By what a failure is for; see above."""
    wrong: list[str]
    """What went wrong in another way."""
    seconds: float = 0
    """By the clock."""
    computed: float = 0
    """Seconds of computing: the clock's where nobody else computes."""

    @property
    def missing(self) -> bool:
        """Whether no test ran."""
        return not (self.passed or self.failed or self.wrong)


@define(eq=False)
class Watcher:
    """A plugin of pytest: which tests passed, and why the others did not."""

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

    def watch(self, module: ModuleType, name: str) -> None:
        """Notice nonsense that somebody raises and that a test would not see: ``name`` is told what was raised."""
        original = vars(module)[name]

        def told(error: BaseException) -> Any:
            self.wrong += [
                f"nonsense: {type(one).__name__}: {one}" for one in leaves(error) if isinstance(one, NONSENSE)
            ]
            return original(error)

        vars(module)[name] = told


_SOUND: Final = tempfile.TemporaryDirectory()
"""What runs in which nothing is broken keep for those that follow."""
atexit.register(_SOUND.cleanup)  # A fork ends without it.


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Return an error, or those of a group."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def noticed(raised: pytest.ExceptionInfo[BaseException]) -> bool:
    """Return whether a test failed because of what it looks at."""
    error = raised.value
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # A test that runs in trio fails in its nursery.
    if isinstance(error, NOTICED):
        return True
    where = Path(raised.traceback[-1].path)
    return isinstance(raised.value, IN_VAIN) and where.is_relative_to(TESTS) and not where.is_relative_to(MUTANTS)


def run(job: Job, watch: Iterable[tuple[ModuleType, str]], folder: Path) -> Outcome:
    """Run tests in this process.

    Args:
        job: Which ones, and what is broken.
        watch: Where else nonsense is told of: the kernel would hide it.
        folder: For what is kept from one run to the next where something is broken: nobody else is to find that.
    """
    kept = Path(_SOUND.name)
    if job.broken:
        # What was found out while nothing was broken is not to be found out again, with what is.
        kept = Path(shutil.copytree(kept, folder))
    os.environ[BREAK_NAME], os.environ[FOLDER_NAME] = job.broken, str(kept)
    watcher = Watcher()
    for module, name in watch:
        watcher.watch(module, name)
    arguments = ["-q", "-p", "no:cacheprovider", "--tb=no", "--no-header", *QUIET, *(["-x"] * job.until_noticed)]
    code = pytest.main([*arguments, *job.nodes], plugins=[watcher])
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        watcher.wrong.append(f"pytest ended with {code!r}")
    return Outcome(watcher.passed, watcher.failed, watcher.wrong)


def forked(job: Job, watch: Iterable[tuple[ModuleType, str]], path: Path) -> int:
    """Run tests in a process of their own, which leaves the outcome in a file; return its number."""
    number = os.fork()
    if number:
        return number
    try:
        signal.alarm(5 * job.seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (job.seconds, job.seconds))
        with Path(os.devnull).open("w") as output, redirect_stdout(output), redirect_stderr(output):
            outcome = run(job, watch, path.with_suffix(".kept"))
    except BaseException as error:  # noqa: BLE001  # this process ends here, and whoever waits for it is told why
        outcome = Outcome([], [], [f"pytest raised {type(error).__name__}: {error}"])
    path.write_text(json.dumps([outcome.passed, outcome.failed, outcome.wrong]))
    os._exit(0)


ACTORS: Final = ((kernel, "description"),)
"""Where an actor that raises is told of."""
SHELL: Final = (*ACTORS, (session, "description"))
"""And where an engine or a task that raises is."""


def outcomes(jobs: Iterable[Job], watch: Iterable[tuple[ModuleType, str]] = ACTORS) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs, as many at a time as there are cores, and return what became of each as soon as it is known."""
    waiting, running = list(enumerate(jobs)), dict[int, tuple[Path, Job, float]]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < WORKERS:
                index, job = waiting.pop(0)
                path = Path(folder, f"{index}.json")
                running[forked(job, watch, path)] = path, job, monotonic()
            number, status, used = os.wait3(0)
            path, job, started = running.pop(number)
            seconds, computed = monotonic() - started, used.ru_utime + used.ru_stime
            if path.exists():
                passed, failed, wrong = json.loads(path.read_text())
                yield job, Outcome(passed, failed, wrong, seconds, computed)
            else:
                how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no outcome"
                yield (
                    job,
                    Outcome([], [], [f"{how}; {job.seconds} seconds of computing are allowed"], seconds, computed),
                )
