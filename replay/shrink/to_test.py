"""``replay to-test``: keeps a log as a regression test.

The rules that hold here:

* The test is a pytest file beside a copy of the log. It needs only reenact and pytest.
* The test fails until the bug is fixed: a broken rule is checked on the records that today's actors make of the facts,
  not on the log's own records, which never change. If the bug is fixed already, the test passes and keeps it fixed.
* If a log breaks no rule but today's actors diverge from it, the test is that it replays the same; so is it for a log
  without a fault.
* No content of a log gets into the program text, and only its owner may read the copy of a log.
"""

import os
import re
from pathlib import Path
from shutil import copyfileobj
from textwrap import fill
from typing import Any, Final

from attrs import frozen

from reenact.replay.check.report import check_facts, check_log
from reenact.replay.check.rules import RULES
from reenact.replay.decide.tier import replay_log
from reenact.replay.shrink.shrink import DIVERGES, what_is_wrong
from reenact.runtime.log.compressed import split_name
from reenact.runtime.log.rows import rows_path
from reenact.runtime.terminal import Spans

_WIDTH: Final = 88
"""The width of a line of a test; it is read in other people's trees."""

_BROKEN: Final = '''"""Rule "{rule}" of `replay check`, which the session in the log beside this file did not keep.

{says}
"""

from pathlib import Path

from reenact.replay import check_facts

LOG = Path(__file__).with_name({log})


def test_{name}_keeps_rule_{rule}() -> None:
    """What today's actors make of the facts in the log keeps the rule."""
    check_facts(LOG, ["{rule}"]).raise_for_violation()
'''

_REPLAYS: Final = '''"""The session in the log beside this file is to replay the same."""

from pathlib import Path

from reenact.replay import replay_log

LOG = Path(__file__).with_name({log})


def test_{name}_replays_the_same() -> None:
    """Today's actors decide the records in the log."""
    replay_log(LOG).raise_for_divergence()
'''


@frozen(kw_only=True)
class KeptTest:
    """A log that was kept as a test."""

    test: str
    """The path of the pytest file."""
    log: str
    """The path of the log beside it."""
    wrong: str | None
    """The fault that the test checks: the name of a rule, or "diverges"; None if the log has no fault."""
    fails: bool
    """Whether the test fails now."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay to-test --json`` prints it."""
        return {"test": self.test, "log": self.log, "wrong": self.wrong, "fails": self.fails}

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay to-test`` prints."""
        match self.wrong:
            case None:
                what = "passes: nothing is wrong in the log"
            case "diverges":
                what = "fails while the log diverges"
            case rule:
                what = f"fails while rule {rule} is broken" if self.fails else f"passes: rule {rule} is kept today"
        return [[(f"kept: {self.test}, with {self.log}: it {what}", "bold green")], [(f"  pytest {self.test}", "")]]


def keep_log(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    rule: str | None = None,
) -> KeptTest:
    """Write a test for the fault of a log, and a copy of the log beside it.

    Args:
        path: The log.
        out: The path of the pytest file, which must not exist; None for ``test_NAME.py`` beside the log. If its folder
            is another one, the log is copied there.
        rule: The rule that the test checks, as in `reenact.replay.check.rules.RULES`; None for the first rule that
            today's actors break, or that the log breaks, or else that it diverges.

    Raises:
        LogNotComparable: The log has no record that actors decided, or its schema is too new.
        LogCorrupt: A line of the log is corrupt.
        OSError: A file cannot be read or created; FileExistsError if one exists.
        KeyError: A name is not that of a rule.
    """
    log = Path(path)
    wrong = what_is_wrong(replay_log(log))
    if rule is not None:
        wrong = rule
    elif wrong == DIVERGES and (violations := check_log(log).violations):
        wrong = violations[0].rule  # The actors that wrote it had the bug, and today's do not.
    fails = wrong == DIVERGES or (wrong is not None and check_facts(log, [wrong]).n_violations > 0)
    name = re.sub(r"\W+", "_", split_name(log)[0], flags=re.ASCII).strip("_") or "log"
    test = log.with_name(f"test_{name}.py") if out is None else Path(out)
    beside = test.with_name(log.name)
    names = {"log": repr(log.name), "name": name}
    if wrong is None or wrong == DIVERGES:
        text = _REPLAYS.format(**names)
    else:
        text = _BROKEN.format(rule=wrong, says=fill(RULES[wrong].says, _WIDTH), **names)
    copies: list[Path] = []
    try:
        if not (beside.exists() and beside.samefile(log)):
            for source, copy in ((log, beside), (rows_path(log), rows_path(beside))):
                if source.is_file():
                    _copy(source, copy)
                    copies.append(copy)
        with test.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        for copy in copies:
            copy.unlink()
        raise
    return KeptTest(test=os.fspath(test), log=os.fspath(beside), wrong=wrong, fails=fails)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file so that only its owner may read it."""
    with (
        os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        source.open("rb") as whole,
    ):
        copyfileobj(whole, file)
