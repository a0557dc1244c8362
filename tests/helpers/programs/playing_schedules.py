"""Sessions that play the same requests in other schedules.

The rules that hold here:

* What decides is the kernel, and what answers is a `ScriptedEngine` that is a made-up model.
* A request that was failed or cancelled on purpose is made again once nothing happens any more. So each ends of its
  own, or something is wrong.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.options import options_of
from reenact.replay.testing.kernel import Submission, header_of
from reenact.replay.testing.strategies import ROWS
from reenact.runtime.engine.protocol import ContextSettings, refused
from reenact.runtime.engine.scripted import DrawsFrom, ScriptedEngine
from reenact.runtime.log.writer import Journal
from tests.helpers.programs.programs import Step, Submit, Tell
from tests.helpers.programs.schedules import Arrive, Case, Schedule
from tests.helpers.programs.session import Session


@frozen
class Said:
    """All that a request came to."""

    text: str
    draws: tuple[tuple[int, int, int | None], ...]
    """Of each the index, the token and the row's checksum."""
    end: tuple[e.FinishReason, str | None, Failure | None]


class Scheduled(Session):
    """A session that is written down in the end; no rule is held, for it is the texts that tell what is wrong.

    Args:
        draws_from: What the engine's draws follow from.
        n_ctx: Cells of a sequence.
        settings: All else of the context.
    """

    def __init__(self, draws_from: DrawsFrom, n_ctx: int, settings: dict[str, Any]) -> None:
        self.faults: dict[int, int] = {}
        """What comes of a batch that goes wrong, by its number."""
        engine = ScriptedEngine(draws_from=draws_from, faults=self.faults)
        loaded = engine.load(ContextSettings(n_ctx=n_ctx, n_threads=1, **settings))
        header = changed(
            header_of(loaded.context, max_waiting=100),
            engine=loaded.engine,
            policies=loaded.policies,
            determinism=loaded.determinism,
        )
        super().__init__(engine, header, rules=())

    def ask(self, request: Submit) -> int:
        """Take a request, not tokenized yet, and return its number."""
        options = options_of(request.options, seed=lambda: 1)  # type: ignore[arg-type]  # it is made of options
        return self.submit(Submission(prompt=tuple(request.prompt), bos_added=request.bos, options=options))

    def said(self, number: int) -> Said:
        """Return what a sequence that has ended came to."""
        text, draws = "", []
        for record in self.records:
            event = record.event
            match event:
                case e.BatchDecoded():
                    mine = (sample for sample in event.samples if sample.sequence == number)
                    draws += [(sample.index, sample.token, sample.logits_crc32) for sample in mine]
                case e.TokenEmitted() | e.StopMatched() if event.sequence == number:
                    text += event.text
                case e.SequenceFinished() if event.sequence == number:
                    return Said(text + event.text, tuple(draws), (event.finish_reason, event.stop, event.error))
                case _:
                    pass
        raise AssertionError(f"sequence {number} has no end")

    def write(self, path: Path) -> None:
        """Close the session and write its log, a fact each millisecond."""
        self.close()
        journal = Journal(path)
        begins = [record.n for record in self.records if record.cause is None]
        for milliseconds, (begin, end) in enumerate(pairwise([*begins, len(self.records)])):
            journal.append(self.records[begin:end], milliseconds * 1_000_000, ROWS)
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
        self.session = Scheduled(draws_from, case.n_ctx, schedule.settings)
        self._schedule = schedule
        self._requests = requests
        self._left = list(schedule.order)
        self._numbers: dict[int, int] = {}
        """The sequence of each request, the last one where it was made again."""
        self._spoilt: set[int] = set()
        """Sequences that were failed or cancelled on purpose."""

    def play(self) -> list[Said]:
        """Return what became of each request."""
        for happening in self._schedule.happenings:
            self._obey(happening)
        for which in self._left:
            self._numbers[which] = self._submit(self._requests[which])
        for number in list(self.session.untokenized):
            self.session.tokenize(number)
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
                    if self.session.in_flight is not None:
                        self._step(self.session.in_flight, happening.outcome)
            case _:
                pass

    def _submit(self, request: Submit) -> int:
        number = self.session.ask(request)
        if not request.late:
            self.session.tokenize(number)
        return number

    def _after_another(self, request: Submit) -> Submit:
        """Return a neighbour's request, that goes on from what another one has said so far."""
        if request.follows is None or not self.session.submissions:
            return request
        number = request.follows % len(self.session.submissions) + 1
        said = [event.token for event in self.session.events(e.TokenEmitted) if event.sequence == number]
        return changed(request, prompt=(*self.session.submissions[number].prompt, *said, *request.prompt))

    def _tell(self, tell: Tell) -> None:
        numbers = sorted(self.session.live)
        if tell.what is e.ReaderPaused and self.session.in_flight is not None:
            # A reader falls behind one who generates.
            numbers = [part.sequence for part in self.session.in_flight.parts]
        if not numbers:
            return
        number = numbers[tell.which % len(numbers)]
        if tell.what is not e.PromptTokenized:
            self._spoilt |= {number} if tell.what in {e.CancelRequested, e.DeadlineExpired} else set()
            self.session.give(tell.what(sequence=number))
        elif number in self.session.untokenized:
            self.session.tokenize(number)

    def _step(self, planned: e.BatchPlanned, outcome: object) -> None:
        if outcome == "leave":
            number = max(planned.parts, key=lambda part: len(part.inputs)).sequence
            self._spoilt.add(number)
            self.session.give(e.CancelRequested(sequence=number))
        elif isinstance(outcome, int) and outcome != 0:
            self.session.faults[planned.batch] = outcome
        records = self.session.give(refused(planned) if outcome == "refuse" else self.session.outcome())
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
        session = Scheduled("history", case.n_ctx, {"n_slots": 1, "n_batch": 512})
        number = session.ask(request)
        session.tokenize(number)
        session.finish()
        requests.append(request)
        results.append(session.said(number))
    return requests, results
