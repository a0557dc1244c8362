"""Plays random sessions on a made-up model."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batch import apply_operations, without
from reenact.actors.batcher import Batcher
from reenact.actors.inputs import Input
from reenact.actors.options import options_of
from reenact.replay.testing.kernel import Submission, left_undone
from reenact.runtime.engine.protocol import ContextSettings, Drawing, refused
from reenact.runtime.engine.row_numbers import NO_NUMBERS, Numbers
from reenact.runtime.engine.scripted import ScriptedEngine, row_of
from tests.helpers.header import opened
from tests.helpers.programs.programs import Program, Step, Submit, Tell
from tests.helpers.programs.session import Session
from tests.helpers.watched_kernel import Moment, WatchedKernel

Cell = tuple[Input, int]
"""An input, and what stands for it and for all cells before it when it was evaluated."""


def evaluated(cells: Iterable[Cell], inputs: Iterable[Input]) -> list[Cell]:
    """Return what cells hold of inputs that are evaluated behind others: one that is moved later is another one."""
    before, made = list(cells), []
    for one in inputs:
        made.append((one, row_of([*before, one])))
        before.append(made[-1])
    return made


def vector_of(inputs: Iterable[Input]) -> tuple[float, ...]:
    """Return a vector that tells texts apart."""
    return tuple(float(row_of([*inputs, dimension]) % 1000) for dimension in range(3))


class MadeUpModel(ScriptedEngine):
    """A scripted engine whose draws follow from how its cells were evaluated, and which pools any text.

    Args:
        header: Of its session.
    """

    def __init__(self, header: e.SessionOpened) -> None:
        pools = header.context.pooling != "none"
        super().__init__(draws_from="history", vectors={} if pools else None)
        self._settings = ContextSettings(
            n_slots=header.context.n_slots,
            n_ctx=header.context.n_ctx,
            n_batch=header.context.n_batch,
            n_threads=1,
            determinism="recorded-schedule",
        )
        self.load(self._settings)

    def renew(self) -> None:
        """Lose what the cells hold."""
        self.close()
        self.load(self._settings)

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Numbers) -> e.BatchDecoded:
        """Carry out a batch."""
        decoded = super().step(planned, drawings, numbers)
        inputs = {part.sequence: part.inputs for part in planned.parts}
        vectors = [
            e.Vector(sequence=one.sequence, values=vector_of(inputs[one.sequence]), crc32=0) for one in decoded.vectors
        ]
        return changed(decoded, vectors=tuple(vectors))

    def step_in_part(self, planned: e.BatchPlanned, code: int, n_rows: int) -> e.BatchDecoded:
        """Carry out what a batch does to cells, and where the code says that some of its rows came to be, so many."""
        left = n_rows if code == e.ABORTED or code < e.INVALID else 0
        counts: list[int] = []
        for part in planned.parts:
            done = min(left, len(part.inputs))
            left -= done
            counts.append(0 if part.pools else done)
        parts = [
            changed(part, inputs=part.inputs[:count], wants=None)
            for part, count in zip(planned.parts, counts, strict=True)
            if count
        ]
        super().step(changed(planned, parts=tuple(parts)), {}, NO_NUMBERS)
        return left_undone(planned, code, counts)

    def cells_before(self, planned: e.BatchPlanned | None) -> list[list[Cell]]:
        """Return what each slot holds once a batch has copied, trimmed and moved cells."""
        cells = dict(enumerate(self._cells))
        after = cells if planned is None else apply_operations(cells, planned, without)
        return list(after.values())  # type: ignore[arg-type]  # they are what `_evaluated` returns

    def abort(self, batch: int) -> None:
        """Do nothing: whether a batch that is to be aborted comes to its end is for the program to say."""

    def _evaluated(self, planned: e.BatchPlanned, number: int) -> Iterable[object]:
        part = planned.parts[number]
        return evaluated(self._cells[part.slot], part.inputs)  # type: ignore[arg-type]  # they came from here


class Playing(Session):
    """A session on a made-up model.

    Args:
        header: Settings of its context, and how many may wait.
        rules: Those that are held; None for all.
    """

    engine: MadeUpModel

    def __init__(self, header: Mapping[str, Any], *, rules: Collection[str] | None = None) -> None:
        first = opened(**header)
        super().__init__(MadeUpModel(first), first, rules=rules)

    @property
    def batcher(self) -> Batcher:
        """What the Batcher knows."""
        batcher = self.kernel.state.batcher
        assert batcher is not None
        return batcher

    def ask(self, request: Submit) -> int:
        """Let a request come, not tokenized yet, and return its number."""
        embedding = self.context.pooling != "none"
        options = options_of(request.options, seed=lambda: 1)  # type: ignore[arg-type]  # it is made of options
        dimensions = request.dimensions if embedding else None
        return self.submit(
            Submission(
                prompt=request.prompt,
                bos_added=request.bos,
                options=changed(options, dimensions=dimensions),
                embedding=embedding,
            )
        )


@frozen
class Played:
    """A session that is over."""

    session: Playing
    program: Program
    requests: list[Submit]
    """As they were, with the whole of their prompts."""
    n_left: int
    """Steps after the last command."""

    def alone(self, number: int) -> Playing:
        """Return a session in which one of the requests had a slot all the time, and no company."""
        session = Playing({**self.program.header, "n_slots": 1}, rules=())
        session.tokenize(session.ask(self.requests[number - 1]))
        session.finish()
        return session

    def moments(self) -> list[Moment]:
        """Return each record that another kernel makes of the same facts, with the state that it left there."""
        kernel = WatchedKernel()
        for record in self.session.records:
            if record.cause is None:
                kernel.handle(record.event)  # type: ignore[arg-type]  # it was given
        return kernel.moments


class Player:
    """Plays a program, and then drives all that are left to the end.

    Args:
        program: The program.
        rules: Those that are held; None for all.
    """

    def __init__(self, program: Program, *, rules: Collection[str] | None = None) -> None:
        self.program = program
        self.session = Playing(program.header, rules=rules)
        self.requests: list[Submit] = []

    def play(self, check: Callable[[Playing], None] = lambda _: None) -> Played:
        """Play all of it, and call ``check`` with the session after every command."""
        for command in self.program.commands:
            self.obey(command)
            check(self.session)
        for number in list(self.session.untokenized):
            self.session.tokenize(number)
        for number in range(1, self.session.kernel.n_requests + 1):
            self.session.give(e.ReaderResumed(sequence=number))
        n_left = self.session.finish()
        check(self.session)
        self.session.close()
        return Played(self.session, self.program, self.requests, n_left)

    def obey(self, command: Submit | Tell | Step) -> None:
        """Let happen what a command says."""
        match command:
            case Submit():
                self._submit(command)
            case Tell():
                self._tell(command)
            case Step():
                for _ in range(command.times):
                    if self.session.in_flight is not None:
                        self._step(command, self.session.in_flight)

    def _submit(self, request: Submit) -> None:
        if request.follows is not None and self.requests:
            number = request.follows % len(self.requests)
            said = (emitted.token for emitted in self.session.events(e.TokenEmitted) if emitted.sequence == number + 1)
            request = changed(request, prompt=(*self.requests[number].prompt, *said, *request.prompt))
        self.requests.append(request)
        number = self.session.ask(request)
        if not request.late:
            self.session.tokenize(number)

    def _tell(self, tell: Tell) -> None:
        living = sorted(self.session.live)
        numbers = living + sorted(set(range(1, self.session.kernel.n_requests + 1)) - set(living))
        if not numbers:
            return
        number = numbers[tell.which % len(numbers)]
        if tell.what is not e.PromptTokenized:
            self.session.give(tell.what(sequence=number))
        elif number in self.session.untokenized:
            self.session.tokenize(number)

    def _step(self, step: Step, planned: e.BatchPlanned) -> None:
        session = self.session
        n_rows = min(step.rows, sum(len(part.inputs) for part in planned.parts))
        if step.outcome == "leave":
            session.give(e.CancelRequested(sequence=max(planned.parts, key=lambda part: len(part.inputs)).sequence))
        match step.outcome:
            case "raise":
                session.give(e.EngineFailed(error="OSError"))
            case "refuse":
                session.give(refused(planned))
            case "nan" | "grammar" as fault:
                session.give(_without_last(session.outcome(), planned.parts[-1].sequence, fault))
            case "abort" | "leave":
                aborted = session.aborting
                session.give(session.engine.step_in_part(planned, e.ABORTED, n_rows)) if aborted else session.step()
            case 0:
                session.step()
            case code:
                session.give(session.engine.step_in_part(planned, code, n_rows))


def _without_last(decoded: e.BatchDecoded, sequence: int, fault: Any) -> e.BatchDecoded:
    """Return an outcome in which no token could be drawn for the sequence of the last part, if one was."""
    samples = [
        e.Sample(sequence=sequence, index=one.index, token=-1, fault=fault) if one.sequence == sequence else one
        for one in decoded.samples
    ]
    return changed(decoded, samples=tuple(samples))


def played(program: Program) -> Played:
    """Play a program without a look at the rules, which are held where that is the fact (test_whatever_happens)."""
    return Player(program, rules=()).play()
