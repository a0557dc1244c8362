"""What the runtime asks of an engine: plain synchronous calls, from one thread at a time but for two of them.

An engine evaluates and draws; it decides nothing. `LlamaEngine` computes, `ScriptedEngine` plays; both pass the same
contract tests (``tests/runtime/engine/test_engines.py``). The order of calls is `Engine.load`, then any of the others,
then `Engine.close`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, Protocol, TypedDict

from attrs import frozen

from reenact.actors.batch import BatchDecoded, BatchPlanned
from reenact.actors.errors import shown
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, ModelFacts, Numerics
from reenact.actors.inputs import Input, kind_of
from reenact.actors.limits import MAX_DEADLINE
from reenact.actors.options import Options
from reenact.runtime.engine.row_numbers import Numbers

Determinism = Literal["auto", "schedule-independent", "recorded-schedule"]
"""What is asked of results: a policy by its name, or "auto", schedule-independent where that can be had."""


@frozen(kw_only=True)
class ContextSettings:
    """What is asked of a context, in llama.cpp's names."""

    n_slots: int
    n_ctx: int
    """Cells for one sequence."""
    n_batch: int
    n_threads: int
    determinism: Determinism = "auto"
    logits_hash: bool = True
    """Take the checksum of every row of logits that a token is drawn from."""
    n_ubatch: int | None = None
    """Rows that are computed at once, at most; None for the engine's choice."""
    numerics: Numerics | None = None
    """Those of a recorded session, which is to be executed again under the policy that ``determinism`` names; nothing
    is chosen and nothing probed then."""


@frozen(kw_only=True)
class Loaded:
    """What an engine says of itself once it is loaded; it stands in the log's header."""

    engine: EngineFacts
    model: ModelFacts
    context: ContextFacts
    determinism: DeterminismFacts
    policies: dict[str, str]
    """The engine's choices that results depend on, by name."""


@frozen(kw_only=True)
class Tokenized:
    """A text's tokens."""

    tokens: tuple[int, ...]
    bos_added: bool


@frozen(kw_only=True)
class Rendered:
    """A chat as text."""

    text: str
    said: tuple[tuple[int, int], ...] = ()
    """Runs of characters, by beginning and end, in order, in which no special token is parsed: a message said what
    looks like one."""

    def before(self, end: int) -> "Rendered":
        """Return its first ``end`` characters."""
        said = tuple((begin, min(ends, end)) for begin, ends in self.said if begin < end)
        return Rendered(text=self.text[:end], said=said)

    def rest(self, start: int) -> "Rendered":
        """Return what stands behind the first ``start`` characters."""
        said = tuple((max(begin - start, 0), end - start) for begin, end in self.said if end > start)
        return Rendered(text=self.text[start:], said=said)

    def parts(self) -> list[tuple[str, bool]]:
        """Return the text in parts, each with whether special tokens are parsed in it."""
        ends = [0, *(end for run in self.said for end in run), len(self.text)]
        parts = [(self.text[begin:end], i % 2 == 0) for i, (begin, end) in enumerate(pairwise(ends))]
        return [part for part in parts if part[0]] or [("", True)]


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


@frozen(kw_only=True)
class Drawing:
    """What a sequence's draws depend on, beside the logits.

    An engine may keep what it made of a history (a grammar's state), but must be able to make it anew: what it draws is
    a function of this.
    """

    options: Options
    grammar: str | None
    prompt: Sequence[Input]
    """The prompt's inputs, as far as they were not truncated."""
    sampled: Sequence[int]
    """The tokens sampled so far; the next one has the index of a part's draw, which is their number."""


def not_a_time(batch_seconds: object) -> str | None:
    """Return the reason why an engine's ``batch_seconds`` is no time that a batch takes; None where it is one."""
    if type(batch_seconds) in {int, float} and 0 <= batch_seconds <= MAX_DEADLINE:  # type: ignore[operator]
        return None
    return f"batch_seconds is a number of seconds from 0 to {MAX_DEADLINE:,}, got {shown(batch_seconds)}"


class Engine(Protocol):
    """A model's context, with a stream of cells for each slot."""

    computes: bool
    """Whether its calls take long: then the runtime makes them in threads of its own."""
    batch_seconds: float
    """What a batch takes on trio's clock beside the time of `step`: 0 where an engine computes. It is read once."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Make the context ready.

        Raises:
            OSError: The model's file cannot be read.
            InvalidRequest: The file is not a model, or a setting is beyond what the engine can do; it names
                ``determinism`` where that policy cannot be had.
            EngineBroken: Loading failed; or it is loaded already: an engine serves one runtime at a time.
        """

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Return the tokens of ``text``, special tokens parsed.

        Args:
            text: The text.
            after: What it goes on from. None where a prompt begins with it: then BOS and its like are added where the
                vocabulary wants them.
        """

    def compile(self, options: Options) -> str | None:
        """Return the grammar in force, in GBNF: as given, or made of the format; None without either.

        It is called from a thread of its own, while others generate; `close` waits for it.

        Raises:
            InvalidRequest: It does not compile; it names the field and the reason.
        """

    def render(self, messages: Iterable[Message]) -> Rendered:
        """Return a chat as the model's own template puts it, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: The model has no template, or the template refuses the messages; it names ``messages``.
        """

    def step(self, planned: BatchPlanned, drawings: Mapping[int, Drawing], numbers: Numbers) -> BatchDecoded:
        """Copy, trim and shift cells, in this order, decode the batch's rows, draw or pool wherever it is asked for.

        A draw depends on the row's logits and on its `Drawing`, and on nothing else. A return code other than 0 is an
        outcome, not an error: 1 leaves the cells as they were after the operations on them, and so does -1 unless the
        batch is not `is_valid`: then nothing is done. A batch without parts only does the operations.

        Args:
            planned: The batch.
            drawings: How to draw, for every sequence that a token is drawn for.
            numbers: Those of the batch's rows.
        """

    def abort(self, batch: int) -> None:
        """Let the decode of this batch end soon with code 2, if it is in progress or yet to come; from any thread.

        Rows that were evaluated before stay in the cells; the positions of the outcome tell how many.
        """

    def close(self) -> None:
        """Free everything. Closing twice, or without having loaded, is fine; `load` that raises has done it itself."""


def is_valid(planned: BatchPlanned, context: ContextFacts) -> bool:
    """Return whether a batch is one that may be handed to llama.cpp, which aborts the process on some that may not.

    Checked: rows within ``n_batch``, slots that exist and each once, rows of one kind, copies between two
    slots, shifts only where the context can, no length below 0 (``llama_decode`` and ``llama_memory_seq_*``,
    docs/llama-cpp.md section 5).
    """
    slots = [part.slot for part in planned.parts]
    return (
        sum(len(part.inputs) for part in planned.parts) <= context.n_batch
        and all(part.inputs for part in planned.parts)
        and len({kind_of(one) for part in planned.parts for one in part.inputs}) <= 1
        and all(0 <= slot < context.n_slots for slot in planned.slots)
        and len(set(slots)) == len(slots)
        and all(copy.source != copy.slot for copy in planned.copies)
        and all(trim.length >= 0 for trim in planned.trims)
        and all(context.shift == "move" and shift.keep >= 0 and shift.discard > 0 for shift in planned.shifts)
    )


def padded(n_ctx: int) -> int:
    """Return the cells a sequence gets that asked for ``n_ctx``: llama.cpp pads to a multiple of 256."""
    return -(-n_ctx // 256) * 256


def code_before(planned: BatchPlanned, lengths: Sequence[int], context: ContextFacts) -> int:
    """Return the code of a valid batch as far as it can be told before decoding.

    ``llama_decode`` takes a gap at the start of an empty slot, and sees that a slot is full only while it looks for
    cells.

    Args:
        planned: The batch.
        lengths: Cells in use in the slot of each part, after the operations on them.
        context: The context's parameters.

    Returns:
        -1 for rows that do not follow the cells, 1 for rows beyond them, else 0.
    """
    if any(part.position != length for part, length in zip(planned.parts, lengths, strict=True)):
        return -1
    beyond = any(part.position + len(part.inputs) > context.n_ctx_seq for part in planned.parts)
    return 1 if beyond else 0


def refused(planned: BatchPlanned) -> BatchDecoded:
    """Return the outcome of a batch that is not valid: nothing was done."""
    return BatchDecoded(batch=planned.batch, code=-1, samples=(), vectors=(), positions=())
