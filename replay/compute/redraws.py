"""Makes draws again under other options, to find those that yield a log's tokens.

The rules that hold here:

* Rows are equal here, so an option or the seed differs, or the token itself was edited.
* An option under which every draw of the sequence is as recorded is named. Of the many possible values, the common ones
  are tried, one option at a time.
* Where none is found, statistics decide: under another option with the same seed many draws stay the same; under
  another seed only as many as by chance, and every recorded token is one that could have been drawn.
"""

from collections import Counter
from collections.abc import Iterator
from math import sqrt
from typing import TYPE_CHECKING, Final

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.options import DRAW_OPTIONS, Options, about
from reenact.replay.compute.execution import ExecutedRow, Execution, executed_records
from reenact.replay.compute.machine import ModelHere
from reenact.replay.compute.report import Cause
from reenact.replay.render.values import count
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_in

if TYPE_CHECKING:
    from reenact.runtime.llama.matcher import Weights

_CHANCE: Final = 32
"""How many other seeds are drawn with, to estimate how many draws agree by chance."""
_FEW: Final = 4
"""The fewest draws from which agreement is judged."""
_BEFORE: Final = 16
"""How many draws before the first one that differs are examined."""
_SURE: Final = 2.5
"""The number of standard deviations from which on agreement is not put down to chance."""
_MAX_DRAWS: Final = 64
"""The most draws of a sequence that are examined."""


def cause_of_draws(log: LogFile, machine: ModelHere, token: ExecutedRow) -> Cause:
    """Return the cause of the difference between the draws of a sequence and its log.

    Args:
        log: The log.
        machine: An engine opened for the log.
        token: The first draw that differs; its row does not differ.
    """
    one, other = token.recorded, token.replayed
    if isinstance(one, e.Sample) and isinstance(other, e.Sample) and one.token == other.token:
        reason = "the token is the same, and its other fields (its bytes, or whether it ends the text) are not"
        return Cause(name="an edited record", reason=reason, shown=True)
    redraws = _Redraws(log, machine, token)
    redraws.run()
    return redraws.cause(token)


class _Redraws:
    """Draws each token of a sequence again, in many ways at once."""

    def __init__(self, log: LogFile, machine: ModelHere, token: ExecutedRow) -> None:
        self._log = log
        self._machine = machine
        self._sequence = token.part.sequence
        self._first = max((token.part.draw or 0) - _BEFORE, 0)
        self._execution = Execution(machine.engine, machine.renew, rows_in(log))
        self._options: Options | None = None
        self._ways: dict[str, Options] = {}
        self._n_draws = 0
        self._agreeing: Counter[str] = Counter()
        """For each way, how many draws are as recorded."""
        self._same: list[bool] = []
        """For each draw, whether it is as recorded under the log's own options."""
        self._chances: list[float] = []
        """For each draw, the fraction of other seeds that yield the recorded token, from 0 to 1."""

    def run(self) -> None:
        """Execute the log until enough draws were made."""
        self._seeds = [request.options.seed for request in _requests(self._log)]
        self._machine.engine.watch(self._see)
        for _ in self._execution.run(executed_records(self._log)):
            if self._n_draws == _MAX_DRAWS:
                break
        self._machine.engine.watch(None)

    def _see(self, row: int, part: e.Part, _logits: "Weights", sample: e.Sample) -> None:
        recorded = self._execution.recorded(part.sequence)
        if part.sequence != self._sequence or recorded is None or self._n_draws == _MAX_DRAWS:
            return
        if (part.draw or 0) < self._first:
            return
        drawing = self._execution.drawing(part.sequence)
        if self._options != drawing.options:
            self._options = drawing.options
            self._ways = dict(self._ways_from(drawing.options))
        self._n_draws += 1
        self._same.append(sample.token == recorded.token)
        for name, options in self._ways.items():
            self._agreeing[name] += self._draw(row, part, drawing, options) == recorded.token
        seeds = [changed(drawing.options, seed=1_000_000 + i) for i in range(_CHANCE)]
        tokens = [self._draw(row, part, drawing, options) for options in seeds]
        self._chances.append(tokens.count(recorded.token) / _CHANCE)

    def _draw(self, row: int, part: e.Part, drawing: Drawing, options: Options) -> int:
        return self._machine.engine.draws.draw(row, part, changed(drawing, options=options)).token

    def _ways_from(self, options: Options) -> Iterator[tuple[str, Options]]:
        for name in DRAW_OPTIONS:
            for value in about(name).tried if name != "seed" else ():
                if value != getattr(options, name):
                    yield f"{name} {value} in place of {getattr(options, name)}", changed(options, **{name: value})
        near = (options.seed + 1, max(options.seed - 1, 0))
        for seed in dict.fromkeys((*near, *self._seeds, *about("seed").tried)):
            if seed != options.seed:
                yield f"seed {seed} in place of {options.seed}", changed(options, seed=seed)

    def cause(self, token: ExecutedRow) -> Cause:
        """Return the cause, from the draws that were made."""
        differing = self._same.count(False)
        draws = f"{differing:,} of {count(self._n_draws, 'draw')} of sequence {self._sequence} differ"
        if differing == 1 and self._n_draws >= _FEW and not self._same[-1]:
            reason = f"{draws}, the last one: the recorded token {token.part.draw} was not drawn"
            return Cause(name="an edited token", reason=reason, shown=False)
        fitting = [name for name in self._ways if self._agreeing[name] == self._n_draws]
        if self._n_draws < _FEW:
            reason = f"{draws}; many seeds explain so few" + (f", and by {fitting[0]}" if fitting else "")
            return Cause(name="another seed or sampler option", reason=reason, shown=False)
        if fitting:
            is_seed = fitting[0].startswith("seed ")
            what = "another seed" if is_seed else "another sampler option"
            others = f" (as with {count(len(fitting) - 1, 'other change')})" if len(fitting) > 1 else ""
            reason = f"{draws}; with {fitting[0]} all are as recorded{others}"
            return Cause(name=what, reason=reason, shown=len(fitting) == 1)
        return self._by_chance(draws)

    def _by_chance(self, draws: str) -> Cause:
        by_chance = sum(self._chances)
        deviation = sqrt(sum(chance * (1 - chance) for chance in self._chances)) or 1.0
        agreeing = self._same.count(True)
        impossible = sum(not (same or chance) for same, chance in zip(self._same, self._chances, strict=True))
        differing = self._same.count(False)
        if 2 * impossible > differing:
            reason = f"{draws}, and no other seed yields {impossible:,} of the tokens under these options"
            return Cause(name="another sampler option", reason=reason, shown=False)
        reason = f"{draws}; chance alone would let {by_chance:.1f} agree, and {agreeing} do"
        if agreeing - by_chance > _SURE * deviation:
            return Cause(name="another sampler option", reason=reason, shown=False)
        return Cause(name="another seed", reason=reason, shown=False)


def _requests(log: LogFile) -> Iterator[e.RequestReceived]:
    for entry in entries(log):
        if isinstance(entry.record.event, e.RequestReceived):
            yield entry.record.event
