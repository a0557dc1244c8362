"""Logs of scripted engines, executed again: as they were recorded, or in other batches."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.replay.compute.execution import Execution, Planned, Step, executed_records
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.engine.scripted import ScriptedEngine
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_in


def settings_of(header: e.SessionOpened) -> ContextSettings:
    """Return the settings of a session, as ``replay run`` takes them from its header."""
    context = header.context
    return ContextSettings(
        n_slots=context.n_slots,
        n_ctx=context.n_ctx,
        n_batch=context.n_batch,
        n_threads=context.n_threads,
        determinism=header.determinism.policy,
    )


def made_up_for(log: Path) -> ScriptedEngine:
    """Return a made-up model as a log's header says, that has no room again for a batch that it had none for."""
    with LogFile(log) as lines:
        events = [entry.record.event for entry in entries(lines)]
    header = events[0]
    assert isinstance(header, e.SessionOpened)
    full = [event.batch for event in events if isinstance(event, e.BatchDecoded) and event.code == e.NO_ROOM]
    draws_from = header.policies["draws"]
    return ScriptedEngine(draws_from=draws_from, faults=dict.fromkeys(full, e.NO_ROOM))  # type: ignore[arg-type]


def executed(
    log: Path,
    engine: ScriptedEngine,
    *,
    planned: Planned | None = None,
    records: Callable[[list[e.Record]], Iterable[e.Record]] = iter,
) -> list[Step]:
    """Execute a log again.

    Args:
        log: The log.
        engine: As it was recorded with, but not loaded.
        planned: Changes its plans.
        records: Changes its records.
    """
    with LogFile(log) as lines:
        header = next(entries(lines)).record.event
        recorded = list(executed_records(lines))
        numbers = rows_in(lines)
    assert isinstance(header, e.SessionOpened)
    engine.load(settings_of(header))

    def renew() -> None:
        engine.close()
        engine.load(settings_of(header))

    return list(Execution(engine, renew, numbers, planned).run(records(recorded)))


def n_differ(steps: Iterable[Step], *, outcomes: bool = False) -> int:
    """Return how many rows and tokens are other ones, and where ``outcomes`` is true how many codes and cells."""
    rows = sum((not row.same_bits) + (not row.same_token) for step in steps for row in step.rows)
    return rows + sum(outcomes and not step.same_outcome for step in steps)


def reversed_order(planned: e.BatchPlanned) -> e.BatchPlanned:
    """Return a batch with its last part first."""
    return changed(planned, parts=planned.parts[::-1])


def split(records: list[e.Record]) -> Iterator[e.Record]:
    """Have the first part of each batch that came to its end evaluated in a batch of its own, before the others."""
    decoded = {record.event.batch: record.event for record in records if isinstance(record.event, e.BatchDecoded)}
    rest: e.BatchDecoded | None = None
    for record in records:
        event = record.event
        if isinstance(event, e.BatchPlanned) and len(event.parts) > 1 and decoded[event.batch].code == e.DONE:
            first, *others = event.parts
            mine, rest = _divided(decoded[event.batch], first)
            yield changed(record, event=changed(event, parts=(first,)))
            yield changed(record, event=mine)
            yield changed(record, event=changed(event, copies=(), trims=(), shifts=(), parts=tuple(others)))
        elif isinstance(event, e.BatchDecoded) and rest is not None:
            yield changed(record, event=rest)
            rest = None
        else:
            yield record


def _divided(decoded: e.BatchDecoded, first: e.Part) -> tuple[e.BatchDecoded, e.BatchDecoded]:
    """Return what an outcome says of a part, and what it says of the others."""
    own = changed(
        decoded,
        samples=tuple(sample for sample in decoded.samples if sample.sequence == first.sequence),
        positions=tuple(one for one in decoded.positions if one[0] == first.slot),
    )
    others = changed(
        decoded,
        samples=tuple(sample for sample in decoded.samples if sample.sequence != first.sequence),
        positions=tuple(one for one in decoded.positions if one[0] != first.slot),
    )
    return own, others
