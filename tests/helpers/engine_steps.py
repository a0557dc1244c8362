"""Steps put to an engine by hand."""

from collections.abc import Iterable
from typing import Final

from reenact.actors.batch import BatchDecoded, BatchPlanned, Copy, Draw, Part, Pool, Shift, Trim
from reenact.actors.inputs import Input, Row
from reenact.actors.options import Options
from reenact.runtime.engine.protocol import Drawing, Engine
from reenact.runtime.engine.row_numbers import packed, row_with

ANY: Final = Options(seed=1)
"""Options where they do not matter."""

_NUMBERS: Final[dict[Row, bytes]] = {}
"""Those of each `row`."""


def row(numbers: Iterable[float]) -> Row:
    """Return a row with these numbers, which `step` gives to the engine."""
    values = packed(numbers)
    one = row_with(values)
    _NUMBERS[one] = values
    return one


def part(
    inputs: Iterable[Input],
    *,
    sequence: int = 1,
    slot: int = 0,
    position: int = 0,
    draw: int | None = None,
    pool: bool = False,
) -> Part:
    """Return a part of a batch."""
    wants = Pool() if pool else None if draw is None else Draw(draw)
    return Part(sequence=sequence, slot=slot, position=position, inputs=tuple(inputs), wants=wants)


def step(
    engine: Engine,
    *parts: Part,
    batch: int = 5,
    copies: tuple[Copy, ...] = (),
    trims: tuple[Trim, ...] = (),
    shifts: tuple[Shift, ...] = (),
    seed: int = 7,
) -> BatchDecoded:
    """Let an engine do one step, all sequences with the same options."""
    options = Options(seed=seed, temperature=1.0)
    drawings = {part.sequence: Drawing(options=options, grammar=None, prompt=part.inputs, sampled=()) for part in parts}
    planned = BatchPlanned(batch=batch, copies=copies, trims=trims, shifts=shifts, parts=parts)
    return engine.step(planned, drawings, _NUMBERS)


def emptied(*slots: int) -> tuple[Trim, ...]:
    """Return what empties these slots."""
    return tuple(Trim(slot=slot, length=0) for slot in slots)


def tokens_of(engine: Engine, text: str) -> tuple[int, ...]:
    """Return the tokens of a prompt."""
    return engine.tokenize(text).tokens
