"""What a draw depends on is what the log says: told from the records a second time, naively."""

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.runtime.engine.drawings import Drawings
from reenact.runtime.engine.protocol import Drawing
from tests.helpers.programs.playing import played
from tests.helpers.programs.programs import GENERATING, Program
from tests.helpers.properties import holds_for


@holds_for(examples=60, program=GENERATING)
def test_a_draw_depends_on_what_was_evaluated_and_said(program: Program) -> None:
    """It sees the prompt without what was left out of it, each token that is part of the text, and the options."""
    drawings = Drawings()
    events: list[e.Event] = []
    for record in played(program).session.records:
        drawings.add(record.event)
        events.append(record.event)
        if isinstance(record.event, e.BatchPlanned):
            due = {part.sequence: told(events, part.sequence) for part in record.event.parts if part.draw is not None}
            assert due == {number: values(drawing) for number, drawing in drawings.of(record.event).items()}


Told = tuple[Options, str | None, tuple[Input, ...], list[int]]


def values(drawing: Drawing) -> Told:
    """Return all that is in a drawing."""
    return drawing.options, drawing.grammar, tuple(drawing.prompt), list(drawing.sampled)


def told(events: list[e.Event], number: int) -> Told:
    """Return the drawing of a sequence's next token as a log has it."""
    mine = [event for event in events if getattr(event, "sequence", None) == number]
    (request,) = (event for event in mine if isinstance(event, e.RequestReceived))
    (tokenized,) = (event for event in mine if isinstance(event, e.PromptTokenized))
    cuts = [event for event in mine if isinstance(event, e.PromptTruncated)]
    left_out = {one for cut in cuts for one in range(cut.keep, cut.keep + cut.discard)}
    prompt = tuple(one for place, one in enumerate(tokenized.inputs) if place not in left_out)
    said = [event.token for event in mine if isinstance(event, e.TokenEmitted)]
    return request.options, tokenized.grammar, prompt, said
