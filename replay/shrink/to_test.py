"""A log kept as a test: ``replay to-test``.

The rules that hold here:

* The test is a file of pytest beside a copy of the log. It needs no more than reenact and pytest.
* It fails while what is wrong in the log is so, and passes once that is mended: a rule that is broken is asked of what
  today's actors make of the facts, not of the records, which stay as they are. Where it is mended already the test
  passes, and is there so that it stays so.
* A log that breaks no rule and is decided otherwise today is to replay the same, and so is one in which nothing is
  wrong.
* Nothing that a log holds gets into the program text, and the copy of a log is its owner's, like the log.
"""

import os
import re
from pathlib import Path
from shutil import copyfileobj
from textwrap import fill
from typing import Any, Final

from attrs import frozen

from reenact.replay.check.report import check_facts, check_log
from reenact.replay.check.runner import RULES
from reenact.replay.decide.tier import replay_log
from reenact.replay.shrink.shrink import DIVERGES, what_is_wrong
from reenact.runtime.log.rows import rows_path
from reenact.runtime.terminal import Spans

_WIDTH: Final = 88
"""Characters of a line of a test; it is read in other people's trees."""

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
    """Today's actors decide what stands in the log."""
    replay_log(LOG).raise_for_divergence()
'''


@frozen(kw_only=True)
class KeptTest:
    """A log that was kept as a test."""

    test: str
    """The file of pytest."""
    log: str
    """The log beside it."""
    wrong: str | None
    """What the test is about: a rule by its name, or "diverges"; None where nothing is wrong in the log."""
    fails: bool
    """It does now."""

    def as_json(self) -> dict[str, Any]:
        """Return what ``replay to-test --json`` prints."""
        return {"test": self.test, "log": self.log, "wrong": self.wrong, "fails": self.fails}

    def lines(self) -> list[Spans]:
        """Return what ``replay to-test`` prints."""
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
    """Write a test about what is wrong in a log, and a copy of the log beside it.

    Args:
        path: The log.
        out: The file of pytest, which must not exist; None for ``test_NAME.py`` beside the log. Where its folder is
            another one, the log is copied there.
        rule: The rule that the test is about, as in `reenact.replay.check.runner.RULES`; None for what is wrong: the
            first rule that today's actors break, or that the log does, or else that it diverges.

    Raises:
        LogNotComparable: There is nothing in it that actors decided, or it is too new.
        LogCorrupt: A line of the log is.
        OSError: A file cannot be read or made; FileExistsError for one that exists.
        KeyError: There is no rule of such a name.
    """
    log = Path(path)
    wrong = what_is_wrong(replay_log(log))
    if rule is not None:
        wrong = rule
    elif wrong == DIVERGES and (violations := check_log(log).violations):
        wrong = violations[0].rule  # Its actors were at fault, and today's are not.
    fails = wrong == DIVERGES or (wrong is not None and check_facts(log, [wrong]).n_violations > 0)
    name = re.sub(r"\W+", "_", log.stem, flags=re.ASCII).strip("_") or "log"
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
    """Copy a file that is its owner's."""
    with (
        os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        source.open("rb") as whole,
    ):
        copyfileobj(whole, file)
