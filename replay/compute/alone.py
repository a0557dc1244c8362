"""Executes one sequence of a log alone, in an otherwise empty context.

The rules that hold here:

* The actors run again for this one request, so that its truncation, shifts and end happen as they did; it goes on from
  the recorded tokens.
* Under a schedule-independent log every row must have the recorded bits, whatever was reused, forked, preempted or
  beside it then. Where a row differs, the recorded schedule is executed too, to report what the other sequences
  changed.
"""

import os
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Final

from attrs import Factory, define
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.actors.options import Options
from reenact.replay.compute.compare import Counts
from reenact.replay.compute.execution import ExecutedRow, Execution, executed_records
from reenact.replay.compute.machine import ModelHere
from reenact.replay.compute.redraws import cause_of_draws
from reenact.replay.compute.report import EDITED_BESIDE, Cause, Computed
from reenact.replay.compute.tier import ComputeOptions, executed
from reenact.replay.fold import NotInLog
from reenact.replay.naming import is_named
from reenact.replay.verdict import Verdict
from reenact.runtime.engine.driver import Driver, execute
from reenact.runtime.engine.row_numbers import NO_NUMBERS, Numbers, numbers_of
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_in

if TYPE_CHECKING:
    from reenact.runtime.llama.matcher import Weights

_ME: Final = 1
"""The number of the sequence when it is alone."""


@define(kw_only=True)
class SequenceRecords:
    """A log's records of one sequence; it grows while the log is read."""

    request: e.RequestReceived
    tokenized: e.PromptTokenized | None = None
    outcomes: dict[int | None, tuple[int, e.Outcome]] = Factory(dict)
    """For each token's index the number of its record and the recorded draw; for None the vector."""
    forks: list[tuple[int, Options]] = Factory(list)
    """The options of each fork, and how many tokens the sequence had then."""


def sequence_records(log: LogFile) -> dict[int, SequenceRecords]:
    """Return the records of each sequence of a log."""
    by_number: dict[int, SequenceRecords] = {}
    for entry in entries(log):
        event = entry.record.event
        match event:
            case e.RequestReceived():
                by_number[event.sequence] = SequenceRecords(request=event)
            case e.PromptTokenized():
                by_number[event.sequence].tokenized = event
            case e.SequenceForked():
                records = by_number[event.sequence]
                records.forks.append((len(records.outcomes), event.options))
            case e.BatchDecoded():
                for outcome in event.outcomes:
                    index = outcome.index if isinstance(outcome, e.Sample) else None
                    by_number[outcome.sequence].outcomes[index] = entry.record.n, outcome
            case _:
                pass
    return by_number


def alone_log(path: str | os.PathLike[str], only: str, asked: ComputeOptions | None = None) -> Verdict:
    """Execute one sequence of a log alone, and compare every row and every token.

    Args:
        path: The log.
        only: The sequence, by its number or by its caller's name for it; several of one name are executed one by one.
        asked: The options of the execution; None for the defaults.

    Raises:
        NotInLog: The log has no such sequence.
    """

    def compare(log: LogFile, header: e.SessionOpened, machine: ModelHere, asked: ComputeOptions) -> Computed:
        by_number = sequence_records(log)
        chosen = {number: one for number, one in by_number.items() if is_named(only, number, one.request.request_id)}
        if not chosen:
            raise NotInLog(f"there is no sequence {only}")
        return _compared(log, header, machine, asked, chosen)

    return executed(path, asked or ComputeOptions(), compare)


def all_alone(path: str | os.PathLike[str], asked: ComputeOptions | None = None) -> Verdict:
    """Execute every sequence of a log alone, one after the other, and compare every row and every token."""

    def compare(log: LogFile, header: e.SessionOpened, machine: ModelHere, asked: ComputeOptions) -> Computed:
        return _compared(log, header, machine, asked, sequence_records(log))

    return executed(path, asked or ComputeOptions(), compare)


def _compared(
    log: LogFile,
    header: e.SessionOpened,
    machine: ModelHere,
    asked: ComputeOptions,
    by_number: dict[int, SequenceRecords],
) -> Computed:
    counts, numbers = Counts(machine, tokens_only=asked.tokens_only), rows_in(log)
    started = monotonic()
    for done, (number, records) in enumerate(by_number.items()):

        def see(
            _row: int, part: e.Part, logits: "Weights", sample: e.Sample, records: SequenceRecords = records
        ) -> None:
            _, recorded = records.outcomes.get(part.draw, (0, None))
            counts.see(logits, recorded if isinstance(recorded, e.Sample) else None, sample)

        machine.engine.watch(see)
        for row in alone(machine, header, number, records, numbers):
            counts.add(row)
        asked.on_progress("executing alone", (done + 1) / len(by_number))
    machine.engine.watch(None)
    found = counts.found(forced=asked.force, seconds=monotonic() - started, alone=True)
    if found.n_rows + found.n_tokens == 0:
        raise LogNotComparable("there is no row of logits and no token of it to compare")
    if found.first_row is None:
        token = found.first_token
        if token is None or not isinstance(token.recorded, e.Sample):
            return found
        machine.renew()
        return found.because(lambda: cause_of_draws(log, machine, token))
    first = found.first_row.row
    if first.same_checksum:
        return changed(found, cause=EDITED_BESIDE)
    return found.because(lambda: _company(log, header, machine, by_number[first.part.sequence], first))


def alone(
    machine: ModelHere, header: e.SessionOpened, number: int, records: SequenceRecords, numbers: Numbers
) -> Iterator[ExecutedRow]:
    """Execute a sequence alone, and return each row with its recorded and its new outcome."""
    if records.tokenized is None:
        return
    driver, forks, n_drawn = Driver(), list(records.forks), 0
    _empty(machine, header)
    request = changed(records.request, sequence=_ME, continues=None)
    for fact in (header, request, changed(records.tokenized, sequence=_ME)):
        driver.give(fact).checked()
    while (crossing := driver.crossing) is not None:
        if forks and forks[0][0] == n_drawn:
            driver.give(e.SequenceForked(sequence=_ME, options=forks.pop(0)[1])).checked()
            _empty(machine, header)
            driver.give(e.CellsLost()).checked()
            continue
        (part,) = crossing.planned.parts
        decoded = execute(machine.engine, crossing, numbers_of(crossing.planned, numbers))
        drawn = part.draw is not None or part.pools
        failed = isinstance(decoded, e.EngineFailed) or decoded.code != e.DONE
        n, recorded = records.outcomes.get(None if part.pools else n_drawn, (0, None))
        if drawn and recorded is None:
            return  # The sequence ended, or the log does, before this draw.
        if recorded is not None and (drawn or failed):
            replayed = None if isinstance(decoded, e.EngineFailed) else next(iter(decoded.outcomes), None)
            yield ExecutedRow(n, crossing.planned.batch, changed(part, sequence=number), recorded, replayed)
            n_drawn += 1
        if isinstance(decoded, e.EngineFailed) or failed:
            return
        driver.give(_as_recorded(decoded, recorded if drawn else None)).checked()


def _as_recorded(decoded: e.BatchDecoded, recorded: e.Outcome | None) -> e.BatchDecoded:
    """Return a batch's outcome with the recorded draw in place of the new one."""
    match recorded:
        case e.Sample():
            return changed(decoded, samples=(changed(recorded, sequence=_ME),))
        case e.Vector():
            return changed(decoded, vectors=(changed(recorded, sequence=_ME),))
        case None:
            return decoded


def _empty(machine: ModelHere, header: e.SessionOpened) -> None:
    """Remove all cells."""
    trims = tuple(e.Trim(slot=slot, length=0) for slot in range(header.context.n_slots))
    machine.engine.step(e.BatchPlanned(batch=0, copies=(), trims=trims, shifts=(), parts=()), {}, NO_NUMBERS)


def _company(
    log: LogFile, header: e.SessionOpened, machine: ModelHere, records: SequenceRecords, row: ExecutedRow
) -> Cause:
    """Return the effect of the other sequences on a row, which is executed with them and alone."""
    rows: list[Weights] = []
    sequence = _ME

    def keep(_row: int, part: e.Part, logits: "Weights", _sample: e.Sample) -> None:
        if part.sequence == sequence and part.draw == row.part.draw:
            rows.append(logits.copy())

    machine.engine.watch(keep)
    numbers = rows_in(log)
    for other in alone(machine, header, row.part.sequence, records, numbers):
        if other.n == row.n:
            break
    sequence = row.part.sequence
    machine.renew()
    in_company: ExecutedRow | None = None
    for step in Execution(machine.engine, machine.renew, numbers).run(executed_records(log)):
        if step.n == row.n:
            in_company = next((one for one in step.rows if one.part.sequence == sequence), None)
            break
    machine.engine.watch(None)
    promised = header.determinism.policy == "schedule-independent"
    if in_company is None or len(rows) != 2 or not in_company.same_bits:  # noqa: PLR2004  # both ways
        return Cause(name="unknown", reason="in the recorded schedule it is not as recorded either", shown=False)
    difference = float(abs(rows[0] - rows[1]).max())
    reason = f"in the recorded schedule the row is as recorded; alone its logits differ by up to {difference:.3g}" + (
        "" if promised else "; nothing better was promised: the log's policy is recorded-schedule"
    )
    return Cause(name="its company", reason=reason, shown=True)
