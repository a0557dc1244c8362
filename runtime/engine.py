"""What the runtime asks of an engine: plain synchronous calls, from one thread at a time.

An engine evaluates and draws; it decides nothing. `LlamaEngine` computes, `ScriptedEngine` plays; both pass the same
contract tests (``tests/runtime/test_engines.py``). The order of calls is `Engine.load`, then any of the others, then
`Engine.close`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from attrs import frozen

from reenact.actors.events import BatchDecoded, BatchPlanned, ContextFacts, EngineFacts, ModelFacts
from reenact.actors.options import Options


@frozen(kw_only=True)
class ContextSettings:
    """What is asked of a context, in llama.cpp's names."""

    n_slots: int
    n_ctx: int
    """Cells for one sequence."""
    n_batch: int
    n_threads: int


@frozen(kw_only=True)
class Loaded:
    """What an engine says of itself once it is loaded; it stands in the log's header."""

    engine: EngineFacts
    model: ModelFacts
    context: ContextFacts
    policies: dict[str, str]
    """The engine's choices that results depend on, by name."""


@frozen(kw_only=True)
class Tokenized:
    """A text's tokens."""

    tokens: tuple[int, ...]
    bos_added: bool


class Engine(Protocol):
    """A model's context, with a stream of cells for each slot."""

    computes: bool
    """Whether its calls take long: then the runtime makes them all in its compute thread."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Make the context ready.

        Raises:
            OSError: The model's file cannot be read.
            InvalidRequest: The file is not a model, or a setting is beyond what the engine can do.
            EngineBroken: Loading failed; or it is loaded already: an engine serves one runtime at a time.
        """

    def tokenize(self, text: str) -> Tokenized:
        """Return the tokens of ``text``, special tokens parsed, BOS added where the vocabulary wants it."""

    def step(self, planned: BatchPlanned, options: Mapping[int, Options]) -> BatchDecoded:
        """Empty slots, decode the batch's rows, draw a token wherever one is asked for.

        A draw depends on the row's logits, the sequence's options, its seed and the token's index, and on nothing else.
        A return code other than 0 is an outcome, not an error: 1 leaves the cells as they were after emptying, and so
        does -1 unless the batch is not `is_valid`: then nothing is done. A batch without parts only empties.

        Args:
            planned: The batch.
            options: The options of every sequence that a token is drawn for.
        """

    def close(self) -> None:
        """Free everything. Closing twice, or without having loaded, is fine; `load` that raises has done it itself."""


def is_valid(planned: BatchPlanned, context: ContextFacts) -> bool:
    """Return whether a batch is one that may be handed to llama.cpp, which aborts the process on some that may not.

    Checked: rows within ``n_batch``, slots that exist, ascending and each once (``llama_decode`` and
    ``llama_memory_seq_*``, docs/llama-cpp.md section 5).
    """
    slots = [part.slot for part in planned.parts]
    return (
        sum(len(part.tokens) for part in planned.parts) <= context.n_batch
        and all(part.tokens for part in planned.parts)
        and all(0 <= slot < context.n_slots for slot in (*slots, *planned.clears))
        and all(one < other for one, other in pairwise(slots))
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
        lengths: Cells in use in the slot of each part.
        context: The context's parameters.

    Returns:
        -1 for rows that do not follow the cells, 1 for rows beyond them, else 0.
    """
    if any(part.position != length for part, length in zip(planned.parts, lengths, strict=True)):
        return -1
    beyond = any(part.position + len(part.tokens) > context.n_ctx_seq for part in planned.parts)
    return 1 if beyond else 0


def refused(planned: BatchPlanned) -> BatchDecoded:
    """Return the outcome of a batch that is not valid: nothing was done."""
    return BatchDecoded(batch=planned.batch, code=-1, samples=(), positions=())
