"""Defines the protocol of an engine: plain synchronous calls, from one thread at a time except for two of them.

An engine evaluates and draws; it decides nothing. `LlamaEngine` computes and `ScriptedEngine` plays scripts; both pass
the same contract tests (``tests/runtime/engine/test_engines.py``). The order of calls is `Engine.load`, then any of the
others, then `Engine.close`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NotRequired, Protocol, TypedDict, get_args

from attrs import Attribute, field, frozen

from reenact.actors.batch import BatchDecoded, BatchPlanned
from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, ModelFacts, Numerics, within_bounds
from reenact.actors.inputs import Input, kind_of
from reenact.actors.limits import MAX_DEADLINE
from reenact.actors.options import Options, yes_or_no
from reenact.runtime.engine.row_numbers import Numbers

Determinism = Literal["auto", "schedule-independent", "recorded-schedule"]
"""The policy asked for: by its name, or "auto" for schedule-independent where that is possible."""


def _policy(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if type(value) is not str or value not in get_args(Determinism):
        raise InvalidRequest(attribute.name, f"expected one of {', '.join(get_args(Determinism))}, got {shown(value)}")


@frozen(kw_only=True)
class ContextSettings:
    """The settings asked for a context, by llama.cpp's names.

    Raises:
        InvalidRequest: A setting that no session can have; it names the field.
    """

    n_slots: int = field(validator=within_bounds)
    n_ctx: int = field(validator=within_bounds)
    """The count of cells for one sequence."""
    n_batch: int = field(validator=within_bounds)
    n_threads: int = field(validator=within_bounds)
    determinism: Determinism = field(default="auto", validator=_policy)
    logits_hash: bool = field(default=True, validator=yes_or_no)
    """Take the checksum of every row of logits that a token is drawn from."""
    n_ubatch: int | None = None
    """The most rows that are computed at once; None for the engine's choice."""
    numerics: Numerics | None = None
    """The numerics of a recorded session, to execute it again under the policy that ``determinism`` names; then nothing
    is chosen and nothing is probed."""


@frozen(kw_only=True)
class Loaded:
    """An engine's facts once it is loaded, for the log's header."""

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
    """The runs of characters in which no special token is parsed, by beginning and end, in order: they come from
    messages and look like a special token."""

    def before(self, end: int) -> "Rendered":
        """Return its first ``end`` characters."""
        said = tuple((begin, min(ends, end)) for begin, ends in self.said if begin < end)
        return Rendered(text=self.text[:end], said=said)

    def rest(self, start: int) -> "Rendered":
        """Return the part after the first ``start`` characters."""
        said = tuple((max(begin - start, 0), end - start) for begin, end in self.said if end > start)
        return Rendered(text=self.text[start:], said=said)

    def parts(self) -> list[tuple[str, bool]]:
        """Return the parts of the text, each with a flag for whether special tokens are parsed in it."""
        ends = [0, *(end for run in self.said for end in run), len(self.text)]
        parts = [(self.text[begin:end], i % 2 == 0) for i, (begin, end) in enumerate(pairwise(ends))]
        return [part for part in parts if part[0]] or [("", True)]


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    """The calls of an assistant, each with ``id`` and ``function``, which has ``name`` and ``arguments``."""
    tool_call_id: NotRequired[str]
    """The ``id`` of the call whose result this is."""
    name: NotRequired[str]
    """The name of the tool whose result this is."""


@frozen(kw_only=True)
class Drawing:
    """Everything that a sequence's draws depend on, apart from the logits.

    An engine may cache results for a history (a grammar's state), but must be able to make them anew: its draws are a
    function of this.
    """

    options: Options
    grammar: str | None
    prompt: Sequence[Input]
    """The prompt's inputs, without a truncated part."""
    sampled: Sequence[int]
    """The tokens sampled so far; their count is the index of the next one, which is the draw of a part."""


def not_a_time(batch_seconds: object) -> str | None:
    """Return the reason why an engine's ``batch_seconds`` is not a valid time; None if it is."""
    if type(batch_seconds) in {int, float} and 0 <= batch_seconds <= MAX_DEADLINE:  # type: ignore[operator]
        return None
    return f"batch_seconds is a number of seconds from 0 to {MAX_DEADLINE:,}, got {shown(batch_seconds)}"


class Engine(Protocol):
    """A model's context, with a stream of cells for each slot."""

    computes: bool
    """Whether its calls take long; if so, the runtime makes them in threads of its own."""
    batch_seconds: float
    """The time that a batch takes on trio's clock in addition to `step`: 0 if an engine computes. It is read once."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Make the context ready.

        Raises:
            OSError: The model's file cannot be read.
            InvalidRequest: The file is not a model, or the engine does not support a setting; the error names
                ``determinism`` if that policy is impossible.
            EngineBroken: Loading failed, or the engine is loaded already: it serves one runtime at a time.
        """

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Return the tokens of ``text``, with special tokens parsed.

        Args:
            text: The text.
            after: The input that the text continues. None if the text begins a prompt: then BOS and the like are added
                if the vocabulary needs them.
        """

    def compile(self, options: Options) -> str | None:
        """Return the grammar in force, in GBNF: as given, or made from the format; None without either.

        It is called from a thread of its own, while other requests generate; `close` waits for it.

        Raises:
            InvalidRequest: The grammar does not compile; the error names the field and the reason.
        """

    def render(
        self, messages: Iterable[Message], tools: Sequence[dict[str, Any]] = (), *, think: bool | None = None
    ) -> Rendered:
        """Return a chat as the model's own template renders it, up to the beginning of the assistant's answer.

        Args:
            messages: The messages.
            tools: The tools that the assistant may call, each with ``type`` and ``function``. If the template knows no
                tools, messages show them (`reenact.runtime.engine.plain_tools`).
            think: Whether the model is to think first; None for the template's own default
                (`reenact.runtime.engine.think_tags`).

        Raises:
            InvalidRequest: The model has no template, or the template refuses the messages; the error names
                ``messages``.
        """

    def step(self, planned: BatchPlanned, drawings: Mapping[int, Drawing], numbers: Numbers) -> BatchDecoded:
        """Copy, trim and shift cells, in this order; decode the batch's rows; then draw and pool as the parts ask.

        A draw depends only on the row's logits and on its `Drawing`. A return code other than 0 is an outcome, not an
        error. After 1 and -1 the cells are as the copies, trims and shifts left them; but if the batch is not
        `is_valid`, the code is -1 and nothing is done. A batch without parts only copies, trims and shifts.

        Args:
            planned: The batch.
            drawings: The drawing of every sequence that a token is drawn for.
            numbers: The numbers of the batch's rows.
        """

    def abort(self, batch: int) -> None:
        """End the decode of this batch soon with code 2, if it is in progress or yet to come; from any thread.

        The rows evaluated so far stay in the cells; the outcome's positions show how many.
        """

    def close(self) -> None:
        """Free everything. It may be called twice, or without `load`; a `load` that raises has closed the engine."""


def is_valid(planned: BatchPlanned, context: ContextFacts) -> bool:
    """Return whether a batch may be handed to llama.cpp, which aborts the process on some invalid batches.

    A valid batch has at most ``n_batch`` rows, all of one kind, and each of its slots exists and has one part. It
    copies between two different slots, shifts only if the context can, and has no length below 0 (``llama_decode`` and
    ``llama_memory_seq_*``, docs/llama-cpp.md section 5).
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
    """Return the count of cells for a sequence if ``n_ctx`` are asked for: llama.cpp pads it to a multiple of 256."""
    return -(-n_ctx // 256) * 256


def code_before(planned: BatchPlanned, lengths: Sequence[int], context: ContextFacts) -> int:
    """Return the code of a valid batch, if it is certain before decoding.

    ``llama_decode`` would accept a gap at the start of an empty slot, and notices a full slot only while it looks for
    cells.

    Args:
        planned: The batch.
        lengths: The count of cells in use in the slot of each part, after copies, trims and shifts.
        context: The context's parameters.

    Returns:
        -1 if rows do not continue the cells, 1 if the slot is too small for them, else 0.
    """
    if any(part.position != length for part, length in zip(planned.parts, lengths, strict=True)):
        return -1
    beyond = any(part.position + len(part.inputs) > context.n_ctx_seq for part in planned.parts)
    return 1 if beyond else 0


def refused(planned: BatchPlanned) -> BatchDecoded:
    """Return the outcome of an invalid batch, for which nothing was done."""
    return BatchDecoded(batch=planned.batch, code=-1, samples=(), vectors=(), positions=())
