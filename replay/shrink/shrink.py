"""``replay shrink``: makes a log smaller while its fault stays.

The rules that hold here:

* The fault is a rule that the session does not keep, or a record that today's actors decide differently.
* The smaller log is a log like any other, of a session that today's actors had. Nothing in it was computed, and its
  header records that.
* It is written when nothing more can be left out, when the time is up, or on Ctrl-C; then it is read back, and must
  have the same fault. It can be shrunk further.
"""

import os
from typing import Any, Final

from attrs import asdict, frozen
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import InternalError, LogNotComparable
from reenact.actors.header import EngineFacts
from reenact.replay.check.report import check_facts, check_log
from reenact.replay.compute.machine import OnProgress
from reenact.replay.decide.tier import replay_log
from reenact.replay.facts import Facts, facts_of
from reenact.replay.interrupts import interrupts
from reenact.replay.render.values import count
from reenact.replay.shrink.patience import Patience, TimeIsOver
from reenact.replay.shrink.question import Breaks, Diverges, Shows, Wrong
from reenact.replay.shrink.reduce import Reduction
from reenact.replay.verdict import Verdict
from reenact.runtime.engine.row_numbers import Numbers
from reenact.runtime.log.codec import FORMAT, SCHEMA
from reenact.runtime.log.reader import Entry, LogFile, entries
from reenact.runtime.log.rows import RowsCorrupt, RowsFile, RowsMissing, rows_in
from reenact.runtime.log.writer import Journal
from reenact.runtime.terminal import Spans

DIVERGES: Final = "diverges"
"""The fault of a log in which today's actors decide a record differently."""

LIMIT: Final = 60.0
"""After how many seconds, by default, the smallest session so far is written. Most logs take a tenth of that, and
little is left out late."""

_NOT_COMPUTED: Final = EngineFacts(name="none", versions={}, system_info="", cpu="", library_sha256="")
"""The engine of a session that was made smaller."""


@frozen(kw_only=True)
class Size:
    """The size of a session."""

    n_requests: int
    n_facts: int
    """The number of given records."""
    n_inputs: int
    """The number of inputs of all prompts together."""
    n_tokens: int
    """The number of tokens drawn."""

    @classmethod
    def of(cls, facts: Facts) -> "Size":
        """Return the size of a session of these facts."""
        prompts = [one.what.inputs for one in facts.happenings if isinstance(one.what, e.PromptTokenized)]
        return cls(
            n_requests=len(facts.requests),
            n_facts=len(facts.happenings) + 1,
            n_inputs=sum(map(len, prompts)),
            n_tokens=sum(map(len, facts.drawn.values())),
        )

    @property
    def total(self) -> int:
        """The sum of all the numbers."""
        return self.n_requests + self.n_facts + self.n_inputs + self.n_tokens

    def __str__(self) -> str:
        parts = (
            (self.n_requests, "request"),
            (self.n_facts, "fact"),
            (self.n_inputs, "input"),
            (self.n_tokens, "token"),
        )
        return ", ".join(count(number, noun) for number, noun in parts)


@frozen(kw_only=True)
class Shrunk:
    """A log that was made smaller."""

    path: str
    """The path of the smaller log."""
    rule: str | None
    """The rule that both break; None if both diverge."""
    n: int
    """The number of the faulty record in the smaller log."""
    before: Size
    after: Size
    n_tries: int
    """How often facts happened again on the way."""
    finished: bool
    """Whether nothing more can be left out; otherwise the time was up."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay shrink --json`` prints it."""
        return {
            "log": self.path,
            "rule": self.rule,
            "n": self.n,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "tries": self.n_tries,
            "finished": self.finished,
        }

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay shrink`` prints."""
        wrong = "diverges" if self.rule is None else f"breaks rule {self.rule}"
        command = f"run {self.path}" if self.rule is None else f"check {self.path} --rules {self.rule}"
        about = "" if self.rule is None else f" --rule {self.rule}"
        more = [] if self.finished else [[(f"  more can be left out: replay shrink {self.path}{about}", "yellow")]]
        return [
            [(f"shrunk: {self.path}: {wrong} at record {self.n:,}; {self.after}", "bold green")],
            [(f"  from {self.before}; facts happened {count(self.n_tries, 'time')}", "")],
            *more,
            [(f"  replay {command}", "")],
            [(f"  replay to-test {self.path}{about}", "")],
        ]


def shrink_log(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    rule: str | None = None,
    diverges: bool = False,
    seconds: float = LIMIT,
    on_progress: OnProgress | None = None,
) -> Shrunk:
    """Make a log smaller while its fault stays; this needs no model.

    Args:
        path: The log of any session.
        out: The path of the smaller log, which must not exist.
        rule: The rule, as in `reenact.replay.check.rules.RULES`, that must stay broken.
        diverges: Whether the fault is that today's actors diverge. Without a rule too, `what_is_wrong` finds the fault.
        seconds: After how long the smallest session so far is written, including the time to read the log.
        on_progress: A callback for how much has been left out.

    Raises:
        LogNotComparable: The log does not have that fault, or has one that no smaller session can show; or the time
            was up before that was known.
        LogCorrupt: A line of the log is corrupt.
        OSError: A file cannot be read or created; FileExistsError if the smaller log exists.
        LogBroken: The smaller log cannot be written.
        KeyError: A name is not that of a rule.
        KeyboardInterrupt: Raised once the smallest session so far is written.
    """
    journal, patience = Journal(out), Patience(seconds)
    try:
        with LogFile(path) as log:
            whole = list(patience.within(entries(log)))
            rows = rows_in(log)
        facts = facts_of(whole)
        before, show = Size.of(facts), on_progress or (lambda _doing, _fraction: None)
        rule, facts, wrong = _question(path, whole, facts, patience, rule=rule, diverges=diverges)

        def report(smaller: Facts) -> None:
            size = Size.of(smaller)
            show(f"left: {size}", 1 - size.total / before.total)

        with interrupts() as interrupted:
            n, reduction = 0, Reduction(facts, wrong, on_progress=report, stopped=interrupted.is_set, patience=patience)
            reduction.run()
            if reduction.shows is not None:
                _write(journal, reduction.shows, _whole(rows))
                n = _read_back(out, rule)
            elif not interrupted.is_set():
                patience.check()
                raise LogNotComparable(_no_longer(facts.header, rule))
    except TimeIsOver:
        reason = f"the fault was not found within {seconds:g} seconds: give it more time with --limit"
        raise LogNotComparable(reason) from None
    finally:
        journal.discard()
    return Shrunk(
        path=os.fspath(out),
        rule=rule,
        n=n,
        before=before,
        after=Size.of(reduction.facts),
        n_tries=reduction.n_tries,
        finished=reduction.finished,
    )


def _question(
    path: str | os.PathLike[str],
    whole: list[Entry],
    facts: Facts,
    patience: Patience,
    *,
    rule: str | None,
    diverges: bool,
) -> tuple[str | None, Facts, Wrong]:
    """Return the rule that must stay broken, or None for a record that stays different; the facts; the predicate."""
    if rule is None:
        verdict = replay_log(path, patience)
        what = DIVERGES if diverges else what_is_wrong(verdict, patience)
        if what is None:
            raise LogNotComparable("it replays the same and keeps all rules: it has no fault to keep")
        if what == DIVERGES:
            return None, *_diverging(verdict, whole, facts, patience)
        rule = what
    return rule, facts, Breaks(rule, patience)


def what_is_wrong(verdict: Verdict, patience: Patience | None = None) -> str | None:
    """Return the first rule that today's actors break on a log's facts, or else "diverges" if they diverge.

    None if today's actors do neither.

    Args:
        verdict: The verdict of a replay of the log.
        patience: The limit on how long this may take; None for no limit.

    Raises:
        LogCorrupt: A line of the log is corrupt.
        LogNotComparable: The log has no record that actors decided, or its schema is too new.
        OSError: The log cannot be read.
    """
    if verdict.error is not None:
        raise verdict.error
    violations = check_facts(verdict.path, patience=patience).violations
    if violations:
        return violations[0].rule
    return None if verdict.first_divergence is None else DIVERGES


def _diverging(verdict: Verdict, whole: list[Entry], facts: Facts, patience: Patience) -> tuple[Facts, Wrong]:
    """Return the facts up to the one from which today's actors diverge, and the predicate for that."""
    divergence = verdict.first_divergence
    if divergence is None:
        if verdict.error is not None:
            raise verdict.error
        raise LogNotComparable("it replays the same: it has no difference to keep")
    missing = divergence.actual is not None and whole[divergence.n].record.cause is None
    given = [entry.record.n for entry in whole[: divergence.n + (not missing)] if entry.record.cause is None]
    # The header is a given record, but not a happening.
    n_facts = len(given) - 1
    following = facts.happenings[n_facts] if missing else None
    wrong = Diverges(divergence, given[-1], following, patience)
    return changed(facts, happenings=facts.happenings[:n_facts]), wrong


def _no_longer(header: e.SessionOpened, rule: str | None) -> str:
    """Return the reason why a session cannot be made smaller whose fault does not show when its facts happen again."""
    if rule is None:
        return "the differing record has no place among the records that today's actors make of the facts"
    cure = f"use the reenact that wrote it ({header.reenact}), or keep the difference itself: --diverges"
    return f"today's actors keep rule {rule} on its facts: {cure}"


def _whole(rows: RowsFile) -> Numbers | None:
    """Return the rows of a log, None if they are missing or corrupt: a fault shows without them."""
    try:
        rows.check()
    except (RowsMissing, RowsCorrupt):
        return None
    return rows


def _write(journal: Journal, shows: Shows, numbers: Numbers | None) -> None:
    """Write a session."""
    for played in shows.played:
        records = played.records
        if played.index < 0 and isinstance(header := records[0].event, e.SessionOpened):
            records = [
                changed(records[0], event=changed(header, engine=_NOT_COMPUTED, format=FORMAT, schema=SCHEMA)),
                *records[1:],
            ]
        journal.append(records, played.t, numbers)
    journal.close()


def _read_back(out: str | os.PathLike[str], rule: str | None) -> int:
    """Return the number of the faulty record in the smaller log."""
    if rule is None:
        divergence = replay_log(out).first_divergence
        n = None if divergence is None else divergence.n
    else:
        n = next((one.n for one in check_log(out, [rule]).violations), None)
    if n is None:
        raise InternalError(f"{os.fspath(out)} is not wrong any more, read back")
    return n
