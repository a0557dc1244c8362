"""Sessions that play the same requests in other schedules.

The rules that hold here:

* What decides is the kernel, and what answers is a `ScriptedEngine` that is a made-up model; they are driven as
  ``replay fork`` drives them, without trio.
* A request that was failed or cancelled on purpose is made again once nothing happens any more. So each ends of its
  own, or something is wrong.
"""

from pathlib import Path
from typing import Any, Final, Literal

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.header import Limits
from reenact.actors.options import options_of
from reenact.replay.driver import Driver, live
from reenact.runtime.engine.protocol import ContextSettings, refused
from reenact.runtime.engine.scripted import DrawsFrom, ScriptedEngine
from reenact.runtime.log.writer import Journal
from tests.helpers.header import opened
from tests.helpers.programs.programs import Step, Submit, Tell
from tests.helpers.programs.schedules import Arrive, Case, Schedule

MAX_STEPS: Final = 4000
"""More than any schedule here needs; a session that is not done by then goes round in circles."""


@frozen
class Said:
    """All that a request came to."""

    text: str
    draws: tuple[tuple[int, int, int | None], ...]
    """Of each the index, the token and the row's checksum."""
    end: tuple[e.FinishReason, str | None, Failure | None]


class Session(Driver):
    """A session that keeps its records, and aborts where that is asked for.

    Args:
        draws_from: What the engine's draws follow from.
        n_ctx: Cells of a sequence.
        settings: All else of the context.
    """

    def __init__(self, draws_from: DrawsFrom, n_ctx: int, settings: dict[str, Any]) -> None:
        self.faults: dict[int, int] = {}
        """What comes of a batch that goes wrong, by its number."""
        self.facts: list[list[e.Record]] = []
        self.engine = ScriptedEngine(draws_from=draws_from, faults=self.faults)
        loaded = self.engine.load(ContextSettings(n_ctx=n_ctx, n_threads=1, **settings))
        super().__init__(self.engine)
        header = changed(
            opened(),
            engine=loaded.engine,
            context=loaded.context,
            policies=loaded.policies,
            determinism=loaded.determinism,
            limits=Limits(max_waiting=100, max_reader_lag=64),
        )
        self.give(header)

    def give(self, given: e.GivenEvent) -> list[e.Record]:
        """Hand a fact to the kernel, and the engine what is to be aborted."""
        records = super().give(given)
        self.facts.append(records)
        for record in records:
            if isinstance(record.event, e.AbortRequested):
                self.engine.abort(record.event.batch)
        return records

    def receive(self, request: Submit) -> int:
        """Take a request, not tokenised yet, and return its number."""
        number = self.kernel.n_requests + 1
        options = options_of(request.options, seed=lambda: 1)  # type: ignore[arg-type]  # it is made of options
        self.give(
            e.RequestReceived(
                sequence=number, request_id=None, prompt="...", options=options, embedding=False, continues=None
            )
        )
        return number

    def tokenize(self, number: int, request: Submit) -> None:
        """Say what the prompt's inputs are."""
        self.give(e.PromptTokenized(sequence=number, inputs=tuple(request.prompt), bos_added=request.bos, grammar=None))

    def finish(self) -> None:
        """Carry batches out until none is planned."""
        for _ in range(MAX_STEPS):
            if self.planned is None:
                return
            self.give(self.step())
        raise AssertionError("the session goes round in circles")

    @property
    def events(self) -> list[e.Event]:
        """All that happened."""
        return [record.event for fact in self.facts for record in fact]

    def said(self, number: int) -> Said:
        """Return what a sequence that has ended came to."""
        text, draws = "", []
        planned: dict[int, e.Part] = {}
        for event in self.events:
            match event:
                case e.BatchPlanned():
                    planned = {part.sequence: part for part in event.parts}
                case e.BatchDecoded():
                    mine = (sample for sample in event.samples if sample.sequence == number)
                    draws += [(planned[number].draw or 0, sample.token, sample.logits_crc32) for sample in mine]
                case e.TokenEmitted() | e.StopMatched() if event.sequence == number:
                    text += event.text
                case e.SequenceFinished() if event.sequence == number:
                    return Said(text + event.text, tuple(draws), (event.finish_reason, event.stop, event.error))
                case _:
                    pass
        raise AssertionError(f"sequence {number} has no end")

    def write(self, path: Path) -> None:
        """Close the session and write its log, a fact each millisecond."""
        self.give(e.SessionClosed(digest=self.kernel.digest()))
        journal = Journal(path)
        for milliseconds, records in enumerate(self.facts):
            journal.append(records, milliseconds * 1_000_000)
        journal.close()


class Player:
    """Plays requests in a schedule.

    Args:
        case: What they are about.
        requests: With the whole of their prompts.
        schedule: The schedule.
        draws_from: What the engine's draws follow from.
    """

    def __init__(self, case: Case, requests: list[Submit], schedule: Schedule, draws_from: DrawsFrom) -> None:
        self.session = Session(draws_from, case.n_ctx, schedule.settings)
        self._schedule = schedule
        self._requests = requests
        self._left = list(schedule.order)
        self._numbers: dict[int, int] = {}
        """The sequence of each request, the last one where it was made again."""
        self._prompts: dict[int, Submit] = {}
        """By sequence, also those of neighbours."""
        self._late: set[int] = set()
        self._spoilt: set[int] = set()
        """Sequences that were failed or cancelled on purpose."""

    def play(self) -> list[Said]:
        """Return what became of each request."""
        for happening in self._schedule.happenings:
            self._obey(happening)
        for which in self._left:
            self._numbers[which] = self._submit(self._requests[which])
        for number in sorted(self._late):
            self.session.tokenize(number, self._prompts[number])
        for number in range(1, self.session.kernel.n_requests + 1):
            self.session.give(e.ReaderResumed(sequence=number))
        self.session.finish()
        for which, number in self._numbers.items():
            if number in self._spoilt:
                self._numbers[which] = self._submit(changed(self._requests[which], late=False))
        self.session.finish()
        return [self.session.said(self._numbers[which]) for which in range(len(self._requests))]

    def _obey(self, happening: Arrive | Submit | Tell | Step) -> None:
        match happening:
            case Arrive() if self._left:
                which = self._left.pop(0)
                self._numbers[which] = self._submit(self._requests[which])
            case Submit():
                self._submit(self._after_another(happening))
            case Tell():
                self._tell(happening)
            case Step():
                for _ in range(happening.times):
                    if self.session.planned is not None:
                        self._step(self.session.planned, happening.outcome)
            case _:
                pass

    def _submit(self, request: Submit) -> int:
        number = self.session.receive(request)
        self._prompts[number] = request
        if request.late:
            self._late.add(number)
        else:
            self.session.tokenize(number, request)
        return number

    def _after_another(self, request: Submit) -> Submit:
        """Return a neighbour's request, that goes on from what another one has said so far."""
        if request.follows is None or not self._prompts:
            return request
        number = request.follows % len(self._prompts) + 1
        emitted = (event for event in self.session.events if isinstance(event, e.TokenEmitted))
        said = [event.token for event in emitted if event.sequence == number]
        return changed(request, prompt=(*self._prompts[number].prompt, *said, *request.prompt))

    def _tell(self, tell: Tell) -> None:
        numbers = [one.sequence for one in live(self.session.kernel)]
        if tell.what == "pause" and self.session.planned is not None:
            # A reader falls behind one who generates.
            numbers = [part.sequence for part in self.session.planned.parts]
        if not numbers:
            return
        number = numbers[tell.which % len(numbers)]
        match tell.what:
            case "pause":
                self.session.give(e.ReaderPaused(sequence=number))
            case "stall":
                self.session.give(e.PauseExpired(sequence=number))
            case "resume":
                self.session.give(e.ReaderResumed(sequence=number))
            case "tokenize" if number in self._late:
                self._late.remove(number)
                self.session.tokenize(number, self._prompts[number])
            case "cancel" | "expire":
                self._end(number, tell.what)
            case _:
                pass

    def _end(self, number: int, how: Literal["cancel", "expire"]) -> None:
        self._spoilt.add(number)
        self._late.discard(number)
        kind = e.CancelRequested if how == "cancel" else e.DeadlineExpired
        self.session.give(kind(sequence=number))

    def _step(self, planned: e.BatchPlanned, outcome: object) -> None:
        if outcome == "leave":
            self._end(max(planned.parts, key=lambda part: len(part.inputs)).sequence, "cancel")
        elif isinstance(outcome, int) and outcome != 0:
            self.session.faults[planned.batch] = outcome
        records = self.session.give(refused(planned) if outcome == "refuse" else self.session.step())
        if outcome != 0:
            failed = [record.event for record in records if isinstance(record.event, e.BatchFailed)]
            self._spoilt |= {number for event in failed for number in event.sequences}


def alone(case: Case) -> tuple[list[Submit], list[Said]]:
    """Return the requests of a case with the whole of their prompts, and what each says that has all for itself."""
    requests: list[Submit] = []
    results: list[Said] = []
    for asked in case.requests:
        request = asked
        if asked.follows is not None and requests:
            which = asked.follows % len(requests)
            said = [token for _, token, _ in results[which].draws]
            request = changed(asked, prompt=(*requests[which].prompt, *said, *asked.prompt))
        session = Session("history", case.n_ctx, {"n_slots": 1, "n_batch": 512})
        number = session.receive(request)
        session.tokenize(number, request)
        session.finish()
        requests.append(request)
        results.append(session.said(number))
    return requests, results
