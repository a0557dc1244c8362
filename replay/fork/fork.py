"""Forks a session: it goes on from one of its records with other options, and writes a log of its own.

The rules that hold here:

* A child begins with its parent's records. It is cut before a given record, where no actor has anything left to decide.
* It goes on with `SequenceForked` for each live sequence, then `CellsLost`: the inputs of a sequence are evaluated as
  if they were a prompt, and a batch that was in flight is void. Then paused readers resume. So a text whose options
  stay is the parent's, unless results depend on the schedule.
* From there on no request arrives or is cancelled, no reader pauses, and no deadline expires. A prompt that was still
  being tokenized gets the tokens from later in the parent's log; if there are none, the request is cancelled.
* Times continue from the parent's last one as real time passes.
* Ctrl-C cancels all live sequences and closes the log.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import InvalidRequest, LogNotComparable
from reenact.actors.header import REDACTED, DeterminismFacts, Parent
from reenact.actors.options import CHANGEABLE, OPTIONS, Options, about
from reenact.actors.text import release
from reenact.replay.compute.machine import OnProgress, chosen_model, open_machine, token_obstacles
from reenact.replay.fold import NotInLog
from reenact.replay.fork.recorder import Recorder
from reenact.replay.fork.report import Continued, Forked, LeftOut
from reenact.replay.interrupts import interrupts
from reenact.replay.look.texts import Texts, texts_of
from reenact.replay.naming import is_named
from reenact.replay.render.values import count
from reenact.runtime.engine.driver import Driver
from reenact.runtime.engine.protocol import Engine, Loaded
from reenact.runtime.engine.session_header import session_header
from reenact.runtime.log.reader import EmptyLog, LogFile, entries
from reenact.runtime.log.restored import restored
from reenact.runtime.log.rows import rows_in
from reenact.runtime.log.writer import Journal
from reenact.runtime.sources import Sources


@frozen(kw_only=True)
class Opened:
    """An engine with empty cells; `fork` closes it."""

    engine: Engine
    loaded: Loaded
    notes: tuple[str, ...] = ()
    """The differences between it and the parent's header."""
    warnings: tuple[str, ...] = ()
    """The warnings that it gave while it was loaded."""


OpenEngine = Callable[[e.SessionOpened], Opened]
"""A function that opens an engine with the settings of the parent's header."""


def fork_log(
    path: str | os.PathLike[str],
    n: int,
    *,
    out: str | os.PathLike[str],
    model: Path | None = None,
    only: str | None = None,
    changes: Mapping[str, Any] | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Forked:
    """Continue a session from before one of its records, on llama.cpp, with other options.

    A fact and all that follows from it are not taken apart: if record ``n`` is a derived one, the session is cut before
    the given record from which it follows. Deadlines are ignored.

    Args:
        path: The log of any session that llama.cpp computed, including one that crashed or still runs.
        n: The first record to leave out, from 1; one more than the last to leave out none.
        out: The path of the child's log, which must not exist. It will contain the prompts.
        model: The model's file, or its name; None for the recorded model.
        only: The number or the request_id of the sequence whose options change; None for all live ones.
        changes: The options that change, by name; only `CHANGEABLE` ones.
        force: Whether to go on although the build, the machine or a parameter is not the recorded one.
        on_progress: A callback for the progress of loading.

    Raises:
        InvalidRequest: An option does not exist, cannot change or has a wrong value; the error names the field.
        NotInLog: There is no such record, no such sequence, or none that is live there.
        LogNotComparable: The state before the record cannot be restored, or not be computed here; the error gives the
            reason.
        LogCorrupt: A line of the log is corrupt.
        ModelNotFound: No file of the recorded model was found.
        OSError: A file cannot be read or created; FileExistsError if the child exists.
        EngineBroken: The model cannot be loaded.
        LogBroken: The child cannot be written.
        KeyboardInterrupt: Raised once all live sequences are cancelled and the child is closed.
    """

    def opened(header: e.SessionOpened) -> Opened:
        return _open(header, model, force=force, on_progress=on_progress)

    return fork(path, n, out=out, open_engine=opened, only=only, changes=changes)


def fork(
    path: str | os.PathLike[str],
    n: int,
    *,
    out: str | os.PathLike[str],
    open_engine: OpenEngine,
    only: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Forked:
    """Fork a log as `fork_log` does, on any engine."""
    changes = changes or {}
    _check(changes)
    parent = _Parent(path, n)
    chosen = parent.chosen(only)
    options = {one.sequence: _options(one, changes if one in chosen else {}) for one in parent.live}
    with LogFile(path) as log:
        numbers = rows_in(log)
    numbers.check()
    journal = Journal(out)
    try:
        opened = open_engine(parent.header)
        try:
            header = _header(parent, opened.loaded, opened.notes)
            with interrupts() as interrupted:
                driver = Driver()
                recorder = Recorder(driver, journal, numbers)
                for fact in restored(driver, header, parent.before):
                    recorder.write(fact.records, fact.t)
                for given in parent.facts(options):
                    recorder.give(given)
                recorder.run(opened.engine, interrupted)
        finally:
            opened.engine.close()
    finally:
        journal.discard()
    depends = parent.header.determinism.policy != "schedule-independent"
    dependence = "results depend on the schedule here: a text may differ from the parent's for that alone"
    return Forked(
        path=os.fspath(out),
        session=header.session,
        parent=Parent(session=parent.header.session, n=parent.cut),
        sequences=tuple(parent.continued(out, options)),
        left_out=parent.left_out,
        notes=(*opened.warnings, *opened.notes, *parent.leavers, *([dependence] if depends else ())),
    )


def _check(changes: Mapping[str, Any]) -> None:
    """Refuse options with which no sequence can go on, before any file is read."""
    for name in changes:
        if name not in OPTIONS:
            raise InvalidRequest(name, f"there is no such option; the options are {', '.join(CHANGEABLE)}")
        if (reason := about(name).fixed) is not None:
            raise InvalidRequest(name, f"it cannot change in a fork: {reason}")
    Options(**{"seed": 0, "logprobs": "top_logprobs" in changes, **changes})


def _options(state: s.Sequence, changes: Mapping[str, Any]) -> Options:
    """Return the options with which a sequence goes on."""
    options: Options = changed(state.options, **changes)
    if state.n_prompt is None or state.embedding:
        return options
    if s.num_predicted(options.num_predict, state.n_ctx) <= state.n_sampled:
        reason = f"sequence {state.sequence} has {count(state.n_sampled, 'token')} before that record"
        raise InvalidRequest("num_predict", f"{reason}: give more, or fork before an earlier one")
    held = release(state.held)
    if complete := [stop for stop in options.stop if stop in held]:
        reason = f"sequence {state.sequence} holds {complete[0]!r} back already: fork before an earlier record"
        raise InvalidRequest("stop", reason)
    if state.length > state.n_ctx and not options.shift:
        reason = f"the context of sequence {state.sequence} is to be shifted next: fork before an earlier record"
        raise InvalidRequest("shift", reason)
    return options


class _Parent:
    """A log that is cut before a given record."""

    def __init__(self, path: str | os.PathLike[str], n: int) -> None:
        with LogFile(path) as log:
            whole = list(entries(log))
        if not whole or not isinstance(header := whole[0].record.event, e.SessionOpened):
            raise EmptyLog
        if not 1 <= n <= len(whole):
            raise NotInLog(f"a session can go on from before record 1 to {len(whole)}, not {n}")
        if header.redacted:
            raise LogNotComparable(REDACTED)
        self.header: e.SessionOpened = header
        cuts = (cut for cut in range(n, 0, -1) if cut == len(whole) or whole[cut].record.cause is None)
        self.cut = next(cuts, n)  # A log without live sequences is refused below.
        self.before = whole[: self.cut]
        self._later = [entry.record.event for entry in whole[self.cut :]]
        driver = Driver()
        restored(driver, header, self.before)
        self.live = driver.kernel.live
        if not self.live:
            raise NotInLog(f"no sequence is live before record {self.cut}: there is nothing to go on with")

    def chosen(self, only: str | None) -> list[s.Sequence]:
        """Return the sequences whose options change."""
        chosen = [one for one in self.live if only is None or is_named(only, one.sequence, one.request_id)]
        if not chosen:
            where = f"is live before record {self.cut}"
            raise NotInLog(f"no sequence with the number or the request_id {only!r} {where}")
        return chosen

    def facts(self, options: Mapping[int, Options]) -> Iterator[e.GivenEvent]:
        """Return the facts that make every live sequence go on."""
        for sequence, one in options.items():
            yield e.SequenceForked(sequence=sequence, options=one)
        yield e.CellsLost()
        for state in self.live:
            if state.reader_paused:
                yield e.ReaderResumed(sequence=state.sequence)
        known = e.PromptTokenized | e.TokenizeFailed
        tokenized = {event.sequence: event for event in self._later if isinstance(event, known)}
        for state in self.live:
            if state.n_prompt is None:
                yield tokenized.get(state.sequence, e.CancelRequested(sequence=state.sequence))

    @property
    def leavers(self) -> list[str]:
        """Notes on sequences that were cancelled or expired later in the parent, which does not happen in the child."""
        live = {one.sequence for one in self.live}
        ends = {
            event.sequence: "cancelled" if isinstance(event, e.CancelRequested) else "out of time"
            for event in self._later
            if isinstance(event, e.CancelRequested | e.DeadlineExpired) and event.sequence in live
        }
        return [f"sequence {number} was {how} later in the parent, and goes on here" for number, how in ends.items()]

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The requests that came after the cut."""
        later = [event for event in self._later if isinstance(event, e.RequestReceived)]
        return tuple(LeftOut(sequence=one.sequence, request_id=one.request_id) for one in later)

    def continued(self, child: str | os.PathLike[str], options: Mapping[int, Options]) -> Iterator[Continued]:
        """Return each sequence with its text before and after the cut."""
        texts = Texts()
        for entry in self.before:
            texts.add(entry)
        before = {one.request.sequence: one.text for one in texts.all()}
        with LogFile(child) as log:
            after = {one.request.sequence: one for one in texts_of(log)[0].all()}
        for state in self.live:
            pairs = {
                name: (getattr(state.options, name), getattr(options[state.sequence], name)) for name in CHANGEABLE
            }
            yield Continued(
                in_child=after[state.sequence],
                changed={name: (old, new) for name, (old, new) in pairs.items() if old != new},
                before=before[state.sequence],
            )


def _determinism(header: e.SessionOpened, notes: tuple[str, ...]) -> DeterminismFacts:
    """Return the child's determinism: the parent's, unless the child was forced to go on something else."""
    if not notes:
        return header.determinism
    reason = f"forked by force: {'; '.join(notes)}"
    return changed(header.determinism, policy="recorded-schedule", reason=reason, probe={})


def _header(parent: _Parent, loaded: Loaded, notes: tuple[str, ...]) -> e.SessionOpened:
    """Return the child's header: the parent's, with today's values where they differ."""
    header = parent.header
    return session_header(
        loaded,
        session=Sources().session(),
        opened_at=header.opened_at,
        limits=header.limits,
        policies=header.policies,
        rules=header.rules,
        determinism=_determinism(header, notes),
        parent=Parent(session=header.session, n=parent.cut),
    )


def _open(header: e.SessionOpened, model: Path | None, *, force: bool, on_progress: OnProgress | None) -> Opened:
    """Open llama.cpp with the settings of a log's header."""
    if header.engine.name != "llama.cpp":
        raise LogNotComparable("nothing was computed: its engine is not llama.cpp")
    machine = open_machine(header, chosen_model(header, model), on_progress)
    obstacles = machine.obstacles
    if force:
        obstacles = token_obstacles(machine.differences)
    if obstacles:
        machine.engine.close()
        raise LogNotComparable("; ".join(map(str, obstacles)) + ("" if force else "; --force goes on all the same"))
    notes = tuple(map(str, machine.obstacles))
    return Opened(engine=machine.engine, loaded=machine.loaded, notes=notes, warnings=machine.warnings)
