"""``replay extract``: keeps one request of a log, alone, in a log of its own.

The rules that hold here:

* Where results do not depend on the schedule, a request has the same rows alone as in company. So its facts happen
  again without the others, today's actors decide what follows, and it draws its recorded tokens.
* The sequence must decide what it decided in the log, record by record; otherwise nothing is written.
* Nothing of other requests is in the new log: neither their texts nor their tokens, names or times.
* Batches that only evaluate a prompt are other ones than the log's, because nothing is reused and they are not shared.
  They take no time; everything else happens at its recorded time.
* Several requests of one name come one after the other: the times of a later one move on as a whole, until after the
  end of the one before.
"""

import os

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import InternalError, LogNotComparable
from reenact.actors.header import Parent
from reenact.actors.inputs import rows_of
from reenact.replay.compute.machine import OnProgress
from reenact.replay.decide.tier import replay_log
from reenact.replay.extract.own import Befell, Chosen, Planned, RequestHistory, Spoilt, chosen_of
from reenact.replay.extract.report import Extracted, ExtractedSequence
from reenact.replay.new_log import new_log
from reenact.replay.render.values import named, sequences
from reenact.runtime.engine.driver import Driver
from reenact.runtime.log.codec import FORMAT, SCHEMA
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.restored import Fact
from reenact.runtime.log.rows import ROWS_CURE, RowsMissing
from reenact.runtime.sources import Sources


def extract_log(
    path: str | os.PathLike[str], only: str, *, out: str | os.PathLike[str], on_progress: OnProgress | None = None
) -> Extracted:
    """Write a log that has one request of another log, alone; this needs no model.

    Args:
        path: The log of a session whose results do not depend on the schedule, including one that crashed.
        only: The sequence, by its number or by its caller's name for it; several of one name come one after the other.
        out: The path of the new log, which must not exist. It will contain the request's prompt, and no other.
        on_progress: A callback for the progress of reading.

    Raises:
        NotInLog: The log has no such sequence.
        LogNotComparable: The request cannot be had without the others; the error gives the reason and the cure.
        LogCorrupt: A line of the log is corrupt, or the file of rows.
        OSError: A file cannot be read or created; FileExistsError if the new log exists.
        LogBroken: The new log cannot be written.
    """
    show = on_progress or (lambda _doing, _fraction: None)
    with new_log(out) as journal:
        with LogFile(path) as log:
            size = max(log.path.stat().st_size, 1)
            chosen = chosen_of(log, only, lambda n_bytes: show("reading the log", n_bytes / size))
        _check(chosen)
        header = _header(chosen)
        facts = _session(header, chosen)
        for fact in facts:
            journal.append(fact.records, fact.t, None if header.redacted else chosen.rows)
        journal.close()
        replayed = replay_log(out)
        if replayed.verdict != "same":
            raise InternalError(f"{os.fspath(out)} does not replay the same: {'; '.join(replayed.lines())}")
    return Extracted(
        path=os.fspath(out),
        session=header.session,
        parent=_parent(chosen),
        sequences=tuple(ExtractedSequence(number=i, history=one) for i, one in enumerate(chosen.histories, 1)),
        n_records=sum(len(fact.records) for fact in facts),
        computed=header.engine.name == "llama.cpp" and not header.redacted,
    )


def _check(chosen: Chosen) -> None:
    """Refuse a request that cannot be had alone."""
    determinism = chosen.header.determinism
    if determinism.policy != "schedule-independent":
        cure = 'record with determinism="schedule-independent", or replay redact the whole log'
        raise LogNotComparable(f"its results depend on the schedule, and so on all its requests: {cure}")
    for one in chosen.histories:
        if one.turned_away is not None:
            which = f"sequence {one.number}{named(one.request.request_id)}"
            reason = f"{which} was turned away for the sake of others ({one.turned_away.reason})"
            raise LogNotComparable(f"{reason}, which cannot happen to it alone: replay redact the whole log")
        inputs = [befell.what.inputs for befell in one.befell if isinstance(befell.what, e.PromptTokenized)]
        if chosen.header.redacted:
            continue  # Its rows were left out.
        try:
            for row in (row for some in inputs for row in rows_of(some)):
                _ = chosen.rows[row]
        except RowsMissing as error:
            raise RowsMissing(f"{error}: {ROWS_CURE}") from error
    unfinished = [one.number for one in chosen.histories[:-1] if one.end is None]
    if unfinished:
        reason = f"{sequences(unfinished)} of that name had not ended when the log did, and another one follows"
        raise LogNotComparable(f"{reason}: extract one of them, by its number")


def _parent(chosen: Chosen) -> Parent:
    numbers = tuple(one.number for one in chosen.histories)
    return Parent(session=chosen.header.session, n=chosen.n, sequences=numbers)


def _header(chosen: Chosen) -> e.SessionOpened:
    """Return the header: the log's, because the same engine computed the rows."""
    session = Sources().session()
    return changed(chosen.header, format=FORMAT, schema=SCHEMA, session=session, parent=_parent(chosen))


def _session(header: e.SessionOpened, chosen: Chosen) -> list[Fact]:
    """Return the facts of a session of the chosen requests, with what followed from them.

    Raises:
        LogNotComparable: A request depends on others.
    """
    alone = _Alone(header)
    for history in chosen.histories:
        alone.play(history)
    if all(one.end is not None for one in chosen.histories):
        alone.close()
    return alone.facts


class _Alone:
    """A session in which the facts of one request happen again, and then those of the next one."""

    def __init__(self, header: e.SessionOpened) -> None:
        self._driver = Driver()
        self._t = 0
        self._number = 0
        self.facts: list[Fact] = []
        """The facts so far, each with all that followed from it."""
        self._decided: list[e.Event] = []
        self._give(header)

    def play(self, history: RequestHistory) -> None:
        """Let everything happen to a request that happened to it in the log.

        Raises:
            LogNotComparable: Its sequence decides otherwise than in the log.
        """
        self._number += 1
        self._decided = []
        later = max(self._t - history.befell[0].t, 0)
        for befell in history.befell:
            self._t = max(self._t, befell.t + later)
            self._befall(befell)
        self._leave()
        self._compare(history)

    def close(self) -> None:
        """Close the session."""
        self._give(e.SessionClosed(digest=self._driver.kernel.digest()))

    def _befall(self, befell: Befell) -> None:
        match befell.what:
            case Planned(end=end, draws=draws):
                self._reach(end, draws=draws)
            case e.Sample() | e.Vector() as outcome:
                self._draw(outcome)
            case Spoilt(code=code, refused=refused):
                part = self._part
                if part is not None:
                    self._decode(code=code, positions=() if refused else ((part.slot, part.position - 1),))
            case e.RequestReceived() as request:
                self._give(changed(request, sequence=self._number, continues=None))
            case e.SessionResumed() | e.CellsLost() | e.EngineFailed() as fact:
                self._give(fact)
            case fact:
                self._give(changed(fact, sequence=self._number))  # type: ignore[arg-type]  # it is its own

    @property
    def _part(self) -> e.Part | None:
        """Its rows in the batch in flight."""
        planned = self._driver.planned
        return None if planned is None else planned.parts[0]

    def _reach(self, end: int, *, draws: bool) -> None:
        """Evaluate its inputs until the batch in flight is the one that holds a given row.

        Args:
            end: The position behind the row.
            draws: Whether it is the last row, of which an outcome is wanted.
        """
        while (part := self._part) is not None and part.wants is None:
            if not draws and part.position + len(part.inputs) >= end:
                return
            self._decode()

    def _draw(self, outcome: e.Outcome) -> None:
        """Give the recorded outcome of the batch in flight; without such a batch it has become impossible."""
        match self._part, outcome:
            case e.Part(wants=e.Draw(index=index)), e.Sample() if index == outcome.index:
                self._decode(samples=(changed(outcome, sequence=self._number),))
            case e.Part(wants=e.Pool()), e.Vector():
                self._decode(vectors=(changed(outcome, sequence=self._number),))
            case _:
                pass

    def _leave(self) -> None:
        """After its end, take back the batch that is still in flight, of which the log has no outcome for it."""
        part = self._part
        if part is None or self._driver.kernel.live:
            return
        if self._driver.aborting:
            self._decode(code=e.ABORTED, positions=((part.slot, part.position - 1),))
        else:
            self._give(e.CellsLost())

    def _decode(
        self,
        *,
        code: int = e.DONE,
        samples: tuple[e.Sample, ...] = (),
        vectors: tuple[e.Vector, ...] = (),
        positions: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        """Give the outcome of the batch in flight; its positions are those of the plan unless they are given."""
        planned = self._driver.planned
        if planned is None:
            return
        due = tuple((part.slot, -1 if part.pools else part.position + len(part.inputs) - 1) for part in planned.parts)
        reached = due if positions is None else positions
        self._give(e.BatchDecoded(batch=planned.batch, code=code, samples=samples, vectors=vectors, positions=reached))

    def _give(self, fact: e.GivenEvent) -> None:
        worked = self._driver.give(fact)
        if worked.error is not None:
            raise LogNotComparable(f"{type(fact).__name__} is impossible for it alone: {worked.error}")
        self.facts.append(Fact(worked.records, self._t))
        self._decided += [record.event for record in worked.records[1:] if isinstance(record.event, e.SequenceEvent)]

    def _compare(self, history: RequestHistory) -> None:
        """Compare the sequence's decisions with those in the log."""
        recorded = [(n, changed(event, sequence=self._number)) for n, event in history.decided]
        for i, (n, event) in enumerate(recorded):
            if self._decided[i : i + 1] != [event]:
                raise LogNotComparable(_otherwise(n))
        if len(self._decided) > len(recorded):
            raise LogNotComparable(_otherwise(history.decided[-1][0] if history.decided else 0))


def _otherwise(n: int) -> str:
    cure = "replay run says whether today's actors decide it so at all; if they do, replay redact the whole log"
    return f"record {n:,} does not follow from the request alone: {cure}"
