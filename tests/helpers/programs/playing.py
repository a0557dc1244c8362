"""Plays random sessions, with an engine whose tokens follow from what its cells hold."""

from collections.abc import Callable
from typing import Any, Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batcher import Batcher
from reenact.actors.inputs import Input
from reenact.runtime.engine.protocol import refused
from tests.helpers.driver import Driver
from tests.helpers.programs.programs import Program, Step, Submit, Tell

MAX_STEPS: Final = 4000
"""More than any program here needs; a session that is not done by then goes round in circles."""

PIECES: Final = (b"a", b"b", b"<", b"/s>", b"x</s>", b"\xc3", b"\xa9", b"", b"a", b"b", b"c")


class ComputingDriver(Driver):
    """A driver whose tokens follow from what the cells hold, and what a cell holds from those before it.

    So a text changes if a cell is not what it is taken for.
    """

    def __init__(self, **header: Any) -> None:
        self.traces: list[list[int]] = [[] for _ in range(header["n_slots"])]
        """What each cell holds: a number made of its input and of all cells before it when it was evaluated."""
        super().__init__(**header)

    @property
    def batcher(self) -> Batcher:
        """What the Batcher knows."""
        batcher = self.kernel.state.batcher
        assert batcher is not None
        return batcher

    def decoded(self, **outcome: Any) -> e.BatchDecoded:
        """Compute; what is pooled leaves no cells, whatever the code."""
        parts = self.planned.parts if self.planned else ()
        decoded = super().decoded(**outcome)
        for part in parts:
            if part.pool:
                self.cells[part.slot].clear()
                self.traces[part.slot].clear()
            self._evaluate(part.slot)
        pooled = {part.sequence: vector_of(part.inputs) for part in parts}
        return changed(
            decoded,
            vectors=tuple(changed(vector, values=pooled[vector.sequence]) for vector in decoded.vectors),
            positions=tuple((part.slot, len(self.cells[part.slot]) - 1) for part in parts),
        )

    def refuse(self) -> None:
        """Let the engine find the batch invalid, and do nothing."""
        planned, self.planned = self.planned, None
        assert planned is not None
        self.give(refused(planned))

    def _operate(self, planned: e.BatchPlanned) -> None:
        lengths = [len(cells) for cells in self.cells]
        for copy in planned.copies:
            lengths[copy.slot] = lengths[copy.source]
        for trim in planned.trims:
            # Of a slot that is not known it is not known either whether there is anything to trim.
            assert trim.length < lengths[trim.slot] or trim.length == 0, "nothing is trimmed"
        arrange(self.cells, planned)
        arrange(self.traces, planned)

    def _evaluate(self, slot: int) -> None:
        traces = self.traces[slot]
        for one in self.cells[slot][len(traces) :]:
            traces.append(hash((*traces, one)))

    def _sample(self, part: e.Part, nan: frozenset[int], no_token: frozenset[int], unknown: frozenset[int]) -> e.Sample:
        sample = super()._sample(part, nan, no_token, unknown)
        if sample.fault is not None:
            return sample
        self._evaluate(part.slot)
        drawn = hash((self.traces[part.slot][-1], part.draw))
        if drawn % 40 == 0:
            return changed(sample, token=2, piece=b"", eog=True)
        return changed(sample, token=1000 + drawn % 50, piece=PIECES[drawn % len(PIECES)], eog=False)


def arrange(cells: list[list[Any]], planned: e.BatchPlanned) -> None:
    """Copy, trim and shift cells as a plan says."""
    for copy in planned.copies:
        cells[copy.slot] = list(cells[copy.source])
    for trim in planned.trims:
        del cells[trim.slot][trim.length :]
    for shift in planned.shifts:
        del cells[shift.slot][shift.keep : shift.keep + shift.discard]


def vector_of(inputs: tuple[Input, ...]) -> tuple[float, ...]:
    """Return a vector that tells texts apart."""
    return tuple(float(hash((inputs, dimension)) % 1000) for dimension in range(3))


@frozen
class Played:
    """A session that is over."""

    driver: ComputingDriver
    program: Program
    requests: list[Submit]
    """As they were, with the whole of their prompts."""
    n_left: int
    """Steps after the last command."""

    def alone(self, number: int) -> ComputingDriver:
        """Return a session in which one of the requests had a slot all the time, and no company."""
        driver = ComputingDriver(**{**self.program.header, "n_slots": 1})
        driver.tokenize(submit(driver, self.requests[number - 1], embedding=self.embedding))
        finish(driver)
        return driver

    @property
    def embedding(self) -> bool:
        """Whether vectors are wanted."""
        return self.driver.context.pooling != "none"


def submit(driver: Driver, request: Submit, *, embedding: bool) -> int:
    """Submit a request without its tokens."""
    dimensions = request.dimensions if embedding else None
    return driver.receive(
        prompt=request.prompt, bos=request.bos, embedding=embedding, dimensions=dimensions, **request.options
    )


def finish(driver: Driver) -> int:
    """Carry batches out until none is planned, and return how many; nobody is cancelled for it."""
    n_steps = 0
    while driver.planned is not None:
        n_steps += 1
        assert n_steps < MAX_STEPS
        driver.step()
    return n_steps


class Player:
    """Plays a program, and then drives everybody who is left to the end."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.driver = ComputingDriver(**program.header)
        self.requests: list[Submit] = []
        self.late: set[int] = set()

    def play(self, check: Callable[[ComputingDriver], None] = lambda _: None) -> Played:
        """Play all of it, and call ``check`` with the driver after every command."""
        for command in self.program.commands:
            self._obey(command)
            check(self.driver)
        for number in sorted(self.late):
            self.driver.tokenize(number)
        for number in range(1, self.driver.kernel.n_requests + 1):
            self.driver.resume(number)
        n_left = finish(self.driver)
        check(self.driver)
        return Played(self.driver, self.program, self.requests, n_left)

    def _obey(self, command: Submit | Tell | Step) -> None:
        match command:
            case Submit():
                self._submit(command)
            case Tell():
                self._tell(command)
            case Step():
                for _ in range(command.times):
                    if self.driver.planned is not None:
                        self._step(command)

    def _submit(self, request: Submit) -> None:
        if request.follows is not None and self.requests:
            number = request.follows % len(self.requests)
            said = (emitted.token for emitted in self.driver.events(e.TokenEmitted) if emitted.sequence == number + 1)
            request = changed(request, prompt=(*self.requests[number].prompt, *said, *request.prompt))
        self.requests.append(request)
        number = submit(self.driver, request, embedding=self.driver.context.pooling != "none")
        if request.late:
            self.late.add(number)
        else:
            self.driver.tokenize(number)

    def _tell(self, tell: Tell) -> None:
        living = [state.sequence for state in self.driver.kernel.state.sequences if state.finish_reason is None]
        numbers = living + sorted(set(range(1, self.driver.kernel.n_requests + 1)) - set(living))
        number = numbers[tell.which % len(numbers)] if numbers else 0
        if number and (tell.what != "tokenize" or number in self.late):
            self.late -= {number} if tell.what == "tokenize" else set()
            getattr(self.driver, tell.what)(number)

    def _step(self, step: Step) -> None:
        driver, planned = self.driver, self.driver.planned
        assert planned is not None
        last = frozenset({planned.parts[-1].sequence})
        n_rows = sum(len(part.inputs) for part in planned.parts)
        match step.outcome:
            case "raise":
                driver.planned = None
                driver.give(e.EngineFailed(error="OSError"))
            case "refuse":
                driver.refuse()
            case "nan":
                driver.step(nan=last)
            case "grammar":
                driver.step(no_token=last)
            case "abort" | "leave":
                if step.outcome == "leave":
                    driver.cancel(max(planned.parts, key=lambda part: len(part.inputs)).sequence)
                driver.step(code=2, rows=min(step.rows, n_rows)) if driver.batcher.aborting else driver.step()
            case code:
                driver.step(code=code, rows=min(step.rows, n_rows))


def played(program: Program) -> Played:
    """Play a program."""
    return Player(program).play()
