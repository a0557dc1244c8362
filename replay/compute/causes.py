"""Finds the cause of a differing execution, from its data and by experiments.

The rules that hold here:

* A forced difference of the header is named first: it explains all that follows.
* Bits first. Where a row differs, one thing at a time is changed until the row has its recorded bits: that shows the
  cause instead of guessing it. Where rows are equal and tokens are not, draws are made again under other options.
* A cause that no experiment shows is reported as likely, or as unknown. The search is bounded in time.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Final

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.replay.compute.execution import ExecutedRow, Execution, Planned, Step, executed_records
from reenact.replay.compute.machine import MachineDifference, ModelHere, OnProgress, numerics_of, open_machine
from reenact.replay.compute.redraws import cause_of_draws
from reenact.replay.compute.report import EDITED_BESIDE, Cause, Computed, RowSpot
from reenact.replay.render.events import operation_phrase
from reenact.replay.render.values import count, piece, text
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.engine.row_numbers import NO_NUMBERS
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_in

_SECONDS: Final = 60.0
"""The least time for experiments, in seconds; they may take three times as long as the execution if that is more."""

_UNKNOWN: Final = "unknown"


def cause_of(log: LogFile, header: e.SessionOpened, model: Path, found: Computed, on_progress: OnProgress) -> Cause:
    """Return the cause of the difference between an execution and its log."""
    if found.forced:
        return _of_header(found.differences)
    row, token = found.first_row, found.first_token
    search = _Search(log, header, model, found, on_progress)
    if token is not None and (row is None or token.n < row.row.n):
        return search.of_token(token, row)
    if row is not None:
        return search.of_row(row)
    return Cause(name=_UNKNOWN, reason="a decode ended differently, and no row before it differs", shown=False)


def _of_header(differences: tuple[MachineDifference, ...]) -> Cause:
    """Return the cause that a difference of the header is by itself."""
    by_name = {one.name: one for one in differences}
    if "model.sha256" not in by_name:
        first = next(one for one in differences if one.decides)
        group = first.name.split(".")[0]
        name = "another context" if group == "context" else "another build or kind of machine"
        return Cause(name=name, reason=str(first), shown=False)
    described = by_name.get("model.description")
    if described is None:
        return Cause(name="another model", reason=str(by_name["model.sha256"]), shown=False)
    # llama_model_desc: architecture, size, quantization.
    *one, _ = f"{described.recorded}".split()
    *other, _ = f"{described.here}".split()
    name = "another quantization" if one == other else "another model"
    return Cause(name=name, reason=str(described), shown=False)


class _Search:
    """A series of experiments on one log, within a limit of time."""

    def __init__(
        self, log: LogFile, header: e.SessionOpened, model: Path, found: Computed, on_progress: OnProgress
    ) -> None:
        self._log = log
        self._header = header
        self._model = model
        self._on_progress = on_progress
        self._ends = monotonic() + max(_SECONDS, 3 * found.seconds)
        self._n_tried = 0
        self._tokens_only = found.tokens_only

    # ------------------------------------------------------------ a token differs, and its row does not

    def of_token(self, token: ExecutedRow, row: RowSpot | None) -> Cause:
        """Return the cause of another token drawn from the same bits."""
        one, other = token.recorded, token.replayed
        if (
            isinstance(one, e.Sample)
            and isinstance(other, e.Sample)
            and one.token != other.token
            and self._is_mended_by(other.token, token, row)
        ):
            reason = (
                f"with {piece(other.piece)} in place of {piece(one.piece)} as token {token.part.draw} of"
                f" sequence {token.part.sequence} everything after it is as recorded"
            )
            return Cause(name="an edited token", reason=reason, shown=True)
        with open_machine(self._header, self._model) as machine:
            return cause_of_draws(self._log, machine, token)

    def _is_mended_by(self, replayed: int, token: ExecutedRow, row: RowSpot | None) -> bool:
        """Return whether everything after a token is as recorded if the token drawn here takes its place."""
        me = token.part.sequence
        edit = _with_token(me, token.part.position + len(token.part.inputs), replayed)
        if row is not None:
            return row.row.part.sequence == me and self._gives(row.row, planned=edit) is True
        if not self._tokens_only:
            return False  # Rows were compared, and those after it are as recorded although the token is not.
        with open_machine(self._header, self._model) as machine:
            steps = Execution(machine.engine, machine.renew, rows_in(self._log), edit).run(executed_records(self._log))
            rows = [row for step in steps for row in step.rows if row.n > token.n and row.part.sequence == me]
        after = [row.same_token for row in rows]
        return len(after) > 0 and all(after)

    # ------------------------------------------------------------ a row differs

    def of_row(self, spot: RowSpot) -> Cause:
        """Return the cause of a row with other bits."""
        if spot.row.same_checksum:
            return EDITED_BESIDE
        prompt = self._of_prompt(spot.row)
        if prompt is not None and prompt.shown:
            return prompt
        for name, reason, changes in self._experiments(spot):
            self._on_progress(f"looking for the cause: {name}", 0.0)
            if monotonic() > self._ends:
                return Cause(name=_UNKNOWN, reason=f"{self._tried()}, and the time was up", shown=False)
            gives = self._gives(spot.row, **changes)
            self._n_tried += gives is not None
            if gives:
                return Cause(name=name, reason=f"{reason} the row is as recorded", shown=True)
        if prompt is not None:
            return prompt
        left = "another build remains, or a fault of a machine or of the log"
        return Cause(name=_UNKNOWN, reason=f"{self._tried()}; {left}", shown=False)

    def _tried(self) -> str:
        return f"{count(self._n_tried, 'change')} tried (threads, numerics, order, operations), and none explains it"

    def _experiments(self, spot: RowSpot) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Return the possible changes: the cause that each would show, its wording, and the change itself."""
        recorded = self._header.context
        for batch, operation in spot.operations:
            what = f'without "{operation_phrase(operation)}" in batch {batch:,}'
            yield "a missing operation on cells", what, {"planned": _without(batch, operation)}
        n_cpus = os.cpu_count() or 1
        for n_threads in sorted({1, n_cpus, *(n for n in (2, 4, 8) if n < n_cpus)} - {recorded.n_threads}):
            what = f"with n_threads {n_threads} in place of {recorded.n_threads}"
            yield "another thread count", what, {"n_threads": n_threads}
        yield "another order of rows", "with the slots of each batch in descending order", {"planned": _reversed}
        largest = _largest_batch(self._log)
        for n_ubatch in sorted({16, 32, 64, 128, 256, 512} - {recorded.n_ubatch}):
            cuts = recorded.pooling == "none"  # A pooled text is never cut.
            if cuts and n_ubatch <= recorded.n_batch and min(n_ubatch, recorded.n_ubatch) < largest:
                what = f"with at most {n_ubatch} rows computed at once in place of {recorded.n_ubatch}"
                yield "another n_batch", what, {"n_ubatch": n_ubatch}
        for numerics in numerics_of(self._model, recorded.numerics):
            what = ", ".join(_changes(recorded.numerics, numerics))
            cache = (recorded.numerics.type_k, recorded.numerics.type_v) != (numerics.type_k, numerics.type_v)
            yield "another cache type" if cache else "other kernels", f"with {what}", {"numerics": numerics}

    def _of_prompt(self, row: ExecutedRow) -> Cause | None:
        """Return a cause if the prompt's inputs are not the tokens of its text."""
        if row.part.draw:
            return None
        request, tokenized = _prompt_of(self._log, row.part.sequence)
        if request is None or tokenized is None or request.continues is not None or "\ufffc" in request.prompt:
            return None
        with open_machine(self._header, self._model) as machine:
            inputs = machine.engine.tokenize(request.prompt).tokens
            if inputs == tokenized.inputs:
                return None
            shown = isinstance(row.recorded, e.Sample) and _alone(machine, inputs) == row.recorded.logits_crc32
        shorter = tokenized.inputs == inputs[: len(tokenized.inputs)]
        name = "a truncated prompt" if shorter else "an edited prompt"
        head = f"its text {text(request.prompt[:40])} has {count(len(inputs), 'token')}, and the log contains"
        found = "; with the text's own tokens the row is as recorded"
        found = found if shown else ", if it was given in one piece"
        number = f"{len(tokenized.inputs):,}{' of them' if shorter else ' others'}"
        return Cause(name=name, reason=f"{head} {number}{found}", shown=shown)

    def _gives(self, target: ExecutedRow, *, planned: Planned | None = None, **settings: Any) -> bool | None:  # noqa: ANN401
        """Return whether the log, executed with one thing changed, yields the recorded row.

        None if this process cannot make the change.
        """
        with open_machine(self._header, self._model, **settings) as machine:
            wanted = settings.get("numerics")
            if wanted is not None and machine.loaded.context.numerics != wanted:
                return None
            execution = Execution(machine.engine, machine.renew, rows_in(self._log), planned)
            for step in execution.run(executed_records(self._log)):
                if step.n >= target.n or monotonic() > self._ends:
                    return _has(step, target)
        return False


def _alone(machine: ModelHere, inputs: tuple[int, ...]) -> int | None:
    """Return the checksum of the last row of inputs that are evaluated alone."""
    drawing = Drawing(options=Options(seed=0, temperature=0), grammar=None, prompt=inputs, sampled=())
    checksum, n_batch = None, machine.loaded.context.n_batch
    for start in range(0, len(inputs), n_batch):
        part = e.Part(sequence=1, slot=0, position=start, inputs=inputs[start : start + n_batch], wants=e.Draw(0))
        planned = e.BatchPlanned(batch=0, copies=(), trims=(), shifts=(), parts=(part,))
        decoded = machine.engine.step(planned, {1: drawing}, NO_NUMBERS)
        checksum = decoded.samples[0].logits_crc32 if decoded.samples else None
    return checksum


def _has(step: Step, target: ExecutedRow) -> bool:
    return any(
        row.n == target.n and row.part.sequence == target.part.sequence and row.replayed is not None and row.same_bits
        for row in step.rows
    )


def _changes(one: Any, other: Any) -> Iterator[str]:  # noqa: ANN401  # two Numerics
    for name in type(one).__annotations__:
        before, after = getattr(one, name), getattr(other, name)
        if before != after:
            yield f"{name} {after} in place of {before}"


def _largest_batch(log: LogFile) -> int:
    """Return the number of rows of the largest batch."""
    events = (entry.record.event for entry in entries(log))
    plans = (event for event in events if isinstance(event, e.BatchPlanned))
    return max((sum(len(part.inputs) for part in plan.parts) for plan in plans), default=0)


def _prompt_of(log: LogFile, sequence: int) -> tuple[e.RequestReceived | None, e.PromptTokenized | None]:
    request, tokenized = None, None
    for entry in entries(log):
        match entry.record.event:
            case e.RequestReceived(sequence=number) as event if number == sequence:
                request = event
            case e.PromptTokenized(sequence=number) as event if number == sequence:
                tokenized = event
            case _:
                pass
    return request, tokenized


# ---------------------------------------------------------------- plans with one thing changed


def _with_token(sequence: int, position: int, token: int) -> Planned:
    """Return a change that puts another token at a position of a sequence."""

    def change(planned: e.BatchPlanned) -> e.BatchPlanned:
        parts = list(planned.parts)
        for i, part in enumerate(parts):
            at = position - part.position
            if part.sequence == sequence and 0 <= at < len(part.inputs):
                parts[i] = changed(part, inputs=(*part.inputs[:at], token, *part.inputs[at + 1 :]))
        return changed(planned, parts=tuple(parts))

    return change


def _without(batch: int, operation: e.Operation) -> Planned:
    """Return a change that omits an operation of a batch."""

    def change(planned: e.BatchPlanned) -> e.BatchPlanned:
        if planned.batch != batch:
            return planned
        return changed(
            planned,
            copies=tuple(one for one in planned.copies if one != operation),
            trims=tuple(one for one in planned.trims if one != operation),
            shifts=tuple(one for one in planned.shifts if one != operation),
        )

    return change


def _reversed(planned: e.BatchPlanned) -> e.BatchPlanned:
    return changed(planned, parts=planned.parts[::-1])
