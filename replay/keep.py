"""A log kept as a test: ``replay to-test``.

The rules that hold here:

* The test is a file of pytest beside a copy of the log. It needs no more than reenact and pytest.
* It fails now for what is wrong in the log, and passes once that is mended: a rule that is broken is asked of what
  today's actors make of the facts, not of the records, which stay as they are.
* The test of a log in which nothing is wrong passes: the session is to replay the same, whatever is changed.
"""

import os
import re
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.replay.checks import RULES
from reenact.replay.fold import entries
from reenact.replay.shrink import what_is_wrong
from reenact.replay.terminal import Spans
from reenact.runtime.journal import LogFile

_WIDTH: Final = 88
"""Characters of a line of a test; it is read in other people's trees."""

_BROKEN: Final = '''"""Rule "{rule}", which session {session} does not keep: {log}.

{says}
"""

from pathlib import Path

from reenact.replay import check_facts

LOG = Path(__file__).with_name("{log}")


def test_{name}_keeps_rule_{rule}() -> None:
    """What today's actors make of the facts in the log keeps the rule."""
    check_facts(LOG, ["{rule}"]).raise_for_violation()
'''

_REPLAYS: Final = '''"""Session {session} is to replay the same: {log}."""

from pathlib import Path

from reenact.replay import replay_log

LOG = Path(__file__).with_name("{log}")


def test_{name}_replays_the_same() -> None:
    """Today's actors decide what stands in the log."""
    replay_log(LOG).raise_for_divergence()
'''


@frozen(kw_only=True)
class Kept:
    """A log that was kept as a test."""

    test: str
    """The file of pytest."""
    log: str
    """The log beside it."""
    wrong: str | None
    """What the test fails for: a rule by its name, or "diverges"; None for a test that passes."""

    def as_json(self) -> dict[str, Any]:
        """Return what ``replay to-test --json`` prints."""
        return {"test": self.test, "log": self.log, "wrong": self.wrong}

    def lines(self) -> list[Spans]:
        """Return what ``replay to-test`` prints."""
        told = {None: "passes: nothing is wrong in the log", "diverges": "fails while the log diverges"}
        what = told.get(self.wrong, f"fails while rule {self.wrong} is broken")
        return [[(f"kept: {self.test}, with {self.log}: it {what}", "bold green")], [(f"  pytest {self.test}", "")]]


def keep_log(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    rule: str | None = None,
) -> Kept:
    """Write a test that fails for what is wrong in a log, and a copy of the log beside it.

    Args:
        path: The log.
        out: The file of pytest, which must not exist; None for ``test_NAME.py`` beside the log. Where its folder is
            another one, the log is copied there.
        rule: The rule that the test is about, as in `reenact.replay.checks.RULES`; None for what is wrong: that the log
            diverges, or else the first rule that it breaks.

    Raises:
        LogNotComparable: There is no record.
        LogCorrupt: A line of the log is.
        OSError: A file cannot be read or made; FileExistsError for one that exists.
        KeyError: There is no rule of such a name.
    """
    log = Path(path)
    wrong = rule or what_is_wrong(log)
    with LogFile(log) as lines:
        header = next((entry.record.event for entry in entries(lines)), None)
    if not isinstance(header, e.SessionOpened):
        raise LogNotComparable("there is no record in it")
    name = re.sub(r"\W+", "_", log.stem).strip("_") or "log"
    test = log.with_name(f"test_{name}.py") if out is None else Path(out)
    beside = test.with_name(log.name)
    names = {"session": header.session, "log": log.name, "name": name}
    if wrong in RULES and wrong is not None:
        text = _BROKEN.format(rule=wrong, says=fill(RULES[wrong].says, _WIDTH), **names)
    else:
        text = _REPLAYS.format(**names)
    with test.open("x", encoding="utf-8") as file:
        if not beside.exists() or not beside.samefile(log):
            with beside.open("xb") as copy:
                copy.write(log.read_bytes())
        file.write(text)
    return Kept(test=os.fspath(test), log=os.fspath(beside), wrong=wrong)
