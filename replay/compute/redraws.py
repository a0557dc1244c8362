"""Draws made again under other options: which of them gives the tokens that a log holds.

The rules that hold here:

* Rows are equal here, so an option or the seed differs, or the token itself was edited.
* An option under which every draw of the sequence comes out as recorded is named. Of many that could be, the common
  values are tried, one option at a time.
* Where none is found, statistics speak: under another option with the same seed many draws stay the same; under another
  seed only as many as chance gives, and every recorded token is one that could have been drawn.
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
"""Seeds by which it is told what chance gives."""
_FEW: Final = 4
"""Draws below which nothing is told from how many agree."""
_BEFORE: Final = 16
"""Draws that are looked at before the first one that differs."""
_SURE: Final = 2.5
"""Standard deviations from which on it is no chance that draws agree."""
_MAX_DRAWS: Final = 64
"""Draws of a sequence that are looked at."""


def cause_of_draws(log: LogFile, machine: ModelHere, token: ExecutedRow) -> Cause:
    """Return why the draws of a sequence are not those that its log holds.

    Args:
        log: The log.
        machine: An engine, opened for it.
        token: The first draw that differs; its row does not.
    """
    one, other = token.recorded, token.replayed
    if isinstance(one, e.Sample) and isinstance(other, e.Sample) and one.token == other.token:
        reason = "the token is the same, and what is told of it (its bytes, or whether it ends the text) is not"
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
        """How many draws come out as recorded, by the way."""
        self._same: list[bool] = []
        """For each draw whether it comes out as recorded with the options as they stand in the log."""
        self._chances: list[float] = []
        """For each draw how many of other seeds give the recorded token, from 0 to 1."""

    def run(self) -> None:
        """Execute the log, until enough was seen."""
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
        """Return what was found."""
        differing = self._same.count(False)
        draws = f"{differing:,} of {count(self._n_draws, 'draw')} of sequence {self._sequence} come out otherwise"
        if differing == 1 and self._n_draws >= _FEW and not self._same[-1]:
            reason = f"{draws}, the last one: token {token.part.draw} is not what was drawn"
            return Cause(name="an edited token", reason=reason, shown=False)
        fitting = [name for name in self._ways if self._agreeing[name] == self._n_draws]
        if self._n_draws < _FEW:
            reason = f"{draws}; so few are explained by many seeds" + (f", and by {fitting[0]}" if fitting else "")
            return Cause(name="another seed or sampler option", reason=reason, shown=False)
        if fitting:
            is_seed = fitting[0].startswith("seed ")
            what = "another seed" if is_seed else "another sampler option"
            others = f" (as with {count(len(fitting) - 1, 'other change')})" if len(fitting) > 1 else ""
            reason = f"{draws}; with {fitting[0]} all come out as recorded{others}"
            return Cause(name=what, reason=reason, shown=len(fitting) == 1)
        return self._by_chance(draws)

    def _by_chance(self, draws: str) -> Cause:
        by_chance = sum(self._chances)
        deviation = sqrt(sum(chance * (1 - chance) for chance in self._chances)) or 1.0
        agreeing = self._same.count(True)
        impossible = sum(not (same or chance) for same, chance in zip(self._same, self._chances, strict=True))
        differing = self._same.count(False)
        if 2 * impossible > differing:
            reason = f"{draws}, and {impossible:,} tokens are such that no other seed gives them under these options"
            return Cause(name="another sampler option", reason=reason, shown=False)
        said = f"{draws}; chance alone would let {by_chance:.1f} agree, and {agreeing} do"
        if agreeing - by_chance > _SURE * deviation:
            return Cause(name="another sampler option", reason=said, shown=False)
        return Cause(name="another seed", reason=said, shown=False)


def _requests(log: LogFile) -> Iterator[e.RequestReceived]:
    for entry in entries(log):
        if isinstance(entry.record.event, e.RequestReceived):
            yield entry.record.event
