"""Counts an execution's rows and tokens, and keeps the first differences.

The rule that holds here: rows are compared by the recorded checksums, tokens by themselves.
"""

from typing import TYPE_CHECKING, Final

from reenact.actors import events as e
from reenact.replay.compute.execution import ExecutedRow, Step
from reenact.replay.compute.machine import ModelHere
from reenact.replay.compute.report import Best, Computed, RowSpot

if TYPE_CHECKING:
    from reenact.runtime.llama.matcher import Weights

_N_BEST: Final = 5


class Counts:
    """Counts rows and tokens, and keeps the first ones that differ.

    Args:
        machine: The engine, opened for this log.
        tokens_only: Do not compare bits.
    """

    def __init__(self, machine: ModelHere, *, tokens_only: bool) -> None:
        self._machine = machine
        self._tokens_only = tokens_only
        self._n_rows = self._n_rows_differ = 0
        self._n_tokens = self._n_tokens_differ = 0
        self._n_outcomes_differ = 0
        self._n_unchecked = 0
        self._sequences: set[int] = set()
        self._differing: set[int] = set()
        """The sequences of which a row or a token differs."""
        self._first_row: RowSpot | None = None
        self._first_token: ExecutedRow | None = None
        self._first_outcome: Step | None = None
        self._seen: tuple[tuple[Best, ...], Weights] | None = None
        self._operations: dict[int, list[tuple[int, e.Operation]]] = {}
        """For each slot, the operations on it since its last equal row."""

    def see(self, logits: "Weights", recorded: e.Sample | None, replayed: e.Sample) -> None:
        """Keep the first row that differs, while its logits are available."""
        if self._tokens_only or self._seen is not None or recorded is None:
            return
        if recorded.logits_crc32 not in {None, replayed.logits_crc32}:
            tokens = logits.argsort()[: -_N_BEST - 1 : -1].tolist()
            piece = self._machine.engine.draws.piece
            best = tuple(Best(token=one, piece=piece(one), logit=float(logits[one])) for one in tokens)
            self._seen = best, logits.copy()

    def step(self, step: Step) -> None:
        """Count a batch."""
        if not step.same_outcome:
            self._n_outcomes_differ += 1
            self._first_outcome = self._first_outcome or step
        self._operate(step.planned)
        for row in step.rows:
            self.add(row, step.planned)

    def add(self, row: ExecutedRow, planned: e.BatchPlanned | None = None) -> None:
        """Count the outcome of a part."""
        self._n_unchecked += not row.has_checksum
        self._sequences.add(row.part.sequence)
        if row.has_checksum and not self._tokens_only:
            self._n_rows += 1
            if row.same_bits:
                self._operations.pop(row.part.slot, None)
            else:
                self._n_rows_differ += 1
                self._differing.add(row.part.sequence)
                self._first_row = self._first_row or self._spot(row, planned)
        if isinstance(row.recorded, e.Sample):
            self._n_tokens += 1
            if not row.same_token:
                self._n_tokens_differ += 1
                self._differing.add(row.part.sequence)
                self._first_token = self._first_token or row

    def found(self, *, forced: bool, seconds: float, alone: bool = False) -> Computed:
        """Return the result."""
        return Computed(
            tokens_only=self._tokens_only or (self._n_rows == 0 < self._n_tokens),
            alone=tuple(sorted(self._sequences)) if alone else (),
            n_unchecked=0 if self._tokens_only else self._n_unchecked,
            n_rows=self._n_rows,
            n_rows_differ=self._n_rows_differ,
            n_tokens=self._n_tokens,
            n_tokens_differ=self._n_tokens_differ,
            n_outcomes_differ=self._n_outcomes_differ,
            differing=tuple(sorted(self._differing)),
            first_row=self._first_row,
            first_token=self._first_token,
            first_outcome=self._first_outcome,
            differences=self._machine.differences,
            forced=forced and bool(self._machine.obstacles),
            seconds=seconds,
        )

    def _operate(self, planned: e.BatchPlanned) -> None:
        for operation in planned.operations:
            # A copy brings the operations on its source.
            done = operation.slot if not isinstance(operation, e.Copy) else operation.source
            self._operations[operation.slot] = [*self._operations.get(done, []), (planned.batch, operation)]

    def _spot(self, row: ExecutedRow, planned: e.BatchPlanned | None) -> RowSpot:
        best, logits = self._seen or ((), None)
        operations = tuple(self._operations.get(row.part.slot, ()))
        return RowSpot(row=row, planned=planned, best=best, logits=logits, operations=operations)
