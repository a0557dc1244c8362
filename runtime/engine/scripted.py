"""An engine that plays given pieces, vectors and return codes: for the tests of an application, and for our own.

It keeps cells like a real one (positions are checked; cells are copied, trimmed and shifted), so that what it is asked
matters. Its vocabulary: tokens 0 to 255 are the bytes of prompts, token 256 ends the text, and from 257 on come the
script's pieces in the order of their first appearance.

Where it follows no script it is a made-up model, that answers anything: its tokens are `drawn` from a row that stands
for what the cells hold, so a cell that is not what it is taken for changes the text. Nothing depends on ``hash``, which
is another one in every process.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, Literal
from zlib import crc32

from reenact.actors.batch import BatchDecoded, BatchPlanned, Likely, Part, Sample, Vector
from reenact.actors.errors import EngineBroken, InvalidRequest, shown
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, ModelFacts, Numerics
from reenact.actors.inputs import Input
from reenact.actors.options import DRAW_OPTIONS, Options
from reenact.runtime.engine.protocol import (
    ContextSettings,
    Determinism,
    Drawing,
    Loaded,
    Message,
    Rendered,
    Tokenized,
    code_before,
    is_valid,
    not_a_time,
    padded,
    refused,
)
from reenact.runtime.engine.row_numbers import Numbers
from reenact.runtime.grammar.in_force import grammar_in_force


class Special(Enum):
    """What a script may hold beside pieces."""

    EOG = "eog"
    """An end-of-generation token."""
    NAN = "nan"
    """Logits that hold a NaN."""
    DEAD_END = "dead end"
    """A grammar that allows no token."""


EOG: Final = Special.EOG
NAN: Final = Special.NAN
DEAD_END: Final = Special.DEAD_END

Script = Sequence[str | bytes | Special]
Scripts = Script | Mapping[str, Script]
"""One script for every prompt, or one for each prompt by its text."""
Faults = Mapping[int, int | Exception]
"""Return codes of ``llama_decode``, or exceptions to raise, by the number of the batch; looked up when it comes."""
Vectors = Mapping[str, Sequence[float]]
"""The vector of each text."""

DrawsFrom = Literal["script", "history", "batch"]
"""What a token follows from: its place in the script; or what the cells of its sequence hold ("history"); or that and
the shapes of the batches in which they were evaluated ("batch"): how many rows the parts had, and in which order."""

_ANY: Final[Script] = (
    *("a", "b", "ab ", "the ", ". "),
    *("<", "/s>", "x</s>"),
    *(b"\xc3", b"\xa9", "é", b"", b"\xff"),
)
PIECES: Final[Script] = (*_ANY, *_ANY, EOG)
"""What a made-up model says that is given no pieces: parts of characters and of stop strings are among it."""

_EOG_TOKEN: Final = 256

_MAX_NAMED: Final = 5
"""Prompts that an error names; the rest are counted."""


def row_of(cells: Iterable[object]) -> int:
    """Return what stands for the row of logits behind these cells, and for its checksum."""
    return crc32(repr(list(cells)).encode())


def drawn(script: Script, row: int, index: int, options: Options) -> str | bytes | Special:
    """Return what a made-up model draws from a row: any of the script; what stands there more often comes more often.

    Args:
        script: What there is to draw from.
        row: As `row_of` returns it.
        index: Of the token.
        options: Of the request.
    """
    by = [getattr(options, name) for name in DRAW_OPTIONS]
    return script[crc32(repr((row, index, by)).encode()) % len(script)]


class ScriptedEngine:
    r"""Plays a script for each prompt; a script that is over ends with an end-of-generation token.

    A prompt or a text that nothing is scripted for fails its own request, with `SequenceFailed`. A prompt that holds
    rows is looked up, and named in errors, as its text without them: ``["hi", [1.0, 2.0]]`` as ``"hi"``.

    Args:
        scripts: Pieces for every prompt, or a script for each prompt by its text.
        draws_from: What a token follows from; where not from the script, it is any of the script's, or of `PIECES`.
        faults: What batches with these numbers, from 0, do instead of succeeding: return a code of ``llama_decode``, or
            raise an exception.
        vectors: Makes it an engine for embeddings: the vector of each text.
        batch_seconds: What each batch takes on trio's clock; on a `trio.testing.MockClock` nobody waits for it. A
            deadline that comes as a batch ends comes first, so the token of that batch is lost. Leaving the runtime
            waits for the batch in flight; only one with several rows of a request that is left ends early.

    Raises:
        TypeError: A script that is no list of pieces, or a vector that is no list of numbers; it names which.
        ValueError: ``batch_seconds`` that are no time.

    Example:
        ``ScriptedEngine(["Hel", "lo"])``, ``ScriptedEngine({"Hi": ["Hello"], "Bye": [b"\xf0\x9f", EOG]})``,
        ``ScriptedEngine(draws_from="history")``
    """

    computes = False

    def __init__(
        self,
        scripts: Scripts = (),
        *,
        draws_from: DrawsFrom = "script",
        faults: Faults | None = None,
        vectors: Vectors | None = None,
        batch_seconds: float = 0.0,
    ) -> None:
        if isinstance(scripts, Mapping) and draws_from != "script":
            raise TypeError("a made-up model draws from one list of pieces, whatever the prompt")
        if not scripts and draws_from != "script":
            scripts = PIECES
        self._scripts = (
            {prompt: _checked(script, f"the script for {shown(prompt)}") for prompt, script in scripts.items()}
            if isinstance(scripts, Mapping)
            else _checked(scripts, "a script")
        )
        if (wrong := not_a_time(batch_seconds)) is not None:
            raise ValueError(wrong)
        self.batch_seconds = batch_seconds
        self._draws_from = draws_from
        self._faults = {} if faults is None else faults
        self._vectors = None if vectors is None else {text: _numbers(text, vectors[text]) for text in vectors}
        self._tokens = _vocabulary(self._scripts)
        self._pieces = {token: piece for piece, token in self._tokens.items()}
        self._cells: list[list[object]] = []
        """What each slot holds: inputs, or each with the shape of its batch where draws follow from that."""
        self._aborted = -1
        self._logits_hash = True
        self.context_facts: ContextFacts | None = None

    def load(self, settings: ContextSettings) -> Loaded:
        """Make the cells; nothing is read."""
        if self.context_facts is not None:
            raise EngineBroken("the engine is loaded already: it serves one runtime at a time")
        determinism = self._promise(settings.determinism)
        policy = determinism.policy
        self._cells = [[] for _ in range(settings.n_slots)]
        self._aborted = -1
        self._logits_hash = settings.logits_hash
        # A text is pooled whole, so a batch must hold any.
        n_batch = settings.n_batch if self._vectors is None else max(settings.n_batch, settings.n_ctx)
        self.context_facts = ContextFacts(
            n_slots=settings.n_slots,
            n_ctx=settings.n_ctx,
            n_ctx_seq=padded(settings.n_ctx),
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_threads=settings.n_threads,
            numerics=Numerics(type_k="tokens", type_v="none", flash_attn="none", repack=False, tiled=False),
            kv_unified=False,
            shift="evaluate" if policy == "schedule-independent" else "move",
            n_embd=2,
            pooling="none" if self._vectors is None else "mean",
            alone=policy == "schedule-independent",
            parameters={},
        )
        return Loaded(
            engine=EngineFacts(name="scripted", versions={}, system_info="", cpu="", library_sha256=""),
            model=ModelFacts(name="script", size=0, sha256="", description="plays given pieces"),
            context=self.context_facts,
            determinism=determinism,
            policies={"draws": self._draws_from},
        )

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:  # noqa: ARG002  # it has no BOS
        """Return the bytes of ``text``."""
        self._context()
        plain = text if isinstance(text, str) else text.text
        return Tokenized(tokens=tuple(plain.encode()), bos_added=False)

    def compile(self, options: Options) -> str | None:
        """Return the grammar in force, which is read as a real engine does; the script need not have its form."""
        self._context()
        return grammar_in_force(options)

    def render(self, messages: Iterable[Message]) -> Rendered:
        """Return each message behind its role, a line each."""
        lines = "".join(f"{message['role']}: {message['content']}\n" for message in messages)
        return Rendered(text=f"{lines}assistant: ")

    def step(
        self,
        planned: BatchPlanned,
        drawings: Mapping[int, Drawing],
        numbers: Numbers,  # noqa: ARG002  # digests tell rows apart
    ) -> BatchDecoded:
        """Keep the batch's inputs in the cells and play the next pieces."""
        context = self._context()
        pools = {part.pool for part in planned.parts}
        if not is_valid(planned, context) or not pools <= {self._vectors is not None}:
            return refused(planned)
        self._operate(planned)
        fault = self._faults.get(planned.batch, 2 if self._aborted == planned.batch else 0)
        if isinstance(fault, Exception):
            raise fault
        code = fault or code_before(planned, [len(self._cells[part.slot]) for part in planned.parts], context)
        if code not in {1, -1}:
            # As in llama.cpp, what was evaluated before an abort or a failure stays.
            for number, part in enumerate(planned.parts if code == 0 else planned.parts[:1]):
                self._cells[part.slot].extend(self._evaluated(planned, number))
        done = planned.parts if code == 0 else ()
        samples = tuple(self._sample(part, drawings[part.sequence]) for part in done if part.draw is not None)
        vectors = tuple(self._vector(part) for part in done if part.pool)
        positions = tuple((part.slot, len(self._cells[part.slot]) - 1) for part in planned.parts)
        return BatchDecoded(batch=planned.batch, code=code, samples=samples, vectors=vectors, positions=positions)

    def abort(self, batch: int) -> None:
        """Let this batch end with code 2, with its first part evaluated."""
        self._aborted = batch

    def close(self) -> None:
        """Drop the cells."""
        self._cells = []
        self.context_facts = None

    def _context(self) -> ContextFacts:
        if self.context_facts is None:
            raise EngineBroken("the engine is not loaded")
        return self.context_facts

    def _promise(self, asked: Determinism) -> DeterminismFacts:
        """Say what can be promised of the tokens.

        Raises:
            InvalidRequest: Not what was asked for by name.
        """
        if self._draws_from != "batch":
            policy = "schedule-independent" if asked == "auto" else asked
            return DeterminismFacts(asked=asked, policy=policy, reason="nothing is computed", probe={})
        reason = "draws follow from the shapes of the batches"
        if asked == "schedule-independent":
            cure = 'determinism="auto" takes "recorded-schedule" here'
            raise InvalidRequest("determinism", f'"schedule-independent" cannot be had: {reason}; {cure}')
        return DeterminismFacts(asked=asked, policy="recorded-schedule", reason=reason, probe={})

    def _evaluated(self, planned: BatchPlanned, number: int) -> Iterable[object]:
        """Return what the cells hold of a batch's part."""
        inputs = planned.parts[number].inputs
        if self._draws_from != "batch":
            return inputs
        shape = crc32(repr(([len(part.inputs) for part in planned.parts], number)).encode())
        return [(one, shape) for one in inputs]

    def _operate(self, planned: BatchPlanned) -> None:
        for copy in planned.copies:
            self._cells[copy.slot] = list(self._cells[copy.source])
        for trim in planned.trims:
            del self._cells[trim.slot][trim.length :]
        for shift in planned.shifts:
            del self._cells[shift.slot][shift.keep : shift.keep + shift.discard]

    def _sample(self, part: Part, drawing: Drawing) -> Sample:
        row, index = row_of(self._cells[part.slot]), part.draw or 0
        crc = row if self._logits_hash else None
        script = self._script(drawing)
        if script is None:
            reason = _unscripted("script for the prompt", self._text(drawing.prompt), self._scripts, '["pieces"]')
            return Sample(sequence=part.sequence, token=-1, fault="engine", reason=reason, logits_crc32=crc)
        if self._draws_from == "script":
            piece = script[index] if index < len(script) else EOG
        else:
            piece = drawn(script, row, index, drawing.options)
        if isinstance(piece, Special) and piece is not EOG:
            fault: Literal["nan", "grammar"] = "nan" if piece is NAN else "grammar"
            return Sample(sequence=part.sequence, token=-1, fault=fault, logits_crc32=crc)
        token = _EOG_TOKEN if isinstance(piece, Special) else self._tokens[_as_bytes(piece)]
        likely = [
            Likely(token=other, piece=self._pieces[other], logprob=-other / 1000)
            for other in sorted(self._pieces)[: drawing.options.top_logprobs]
        ]
        return Sample(
            sequence=part.sequence,
            token=token,
            piece=self._pieces.get(token, b""),
            eog=token == _EOG_TOKEN,
            logits_crc32=crc,
            logprob=-token / 1000 if drawing.options.logprobs else None,
            top=tuple(likely),
        )

    def _vector(self, part: Part) -> Vector:
        self._cells[part.slot].clear()
        text = self._text(part.inputs)
        values = {} if self._vectors is None else self._vectors
        if text not in values:
            reason = _unscripted("vector for the text", text, values, "[0.5, 0.5]")
            return Vector(sequence=part.sequence, values=(), crc32=0, reason=reason)
        usable = all(map(math.isfinite, values[text]))
        crc = crc32(repr(values[text]).encode())
        return Vector(sequence=part.sequence, values=values[text] if usable else (), crc32=crc)

    def _text(self, inputs: Iterable[Input]) -> str:
        known = (self._pieces.get(one, bytes([min(one, 255)])) for one in inputs if isinstance(one, int))
        return b"".join(known).decode(errors="replace")

    def _script(self, drawing: Drawing) -> Script | None:
        if isinstance(self._scripts, dict):
            return self._scripts.get(self._text(drawing.prompt))
        return self._scripts


def _checked(script: object, which: str) -> Script:
    if not isinstance(script, Sequence) or isinstance(script, str | bytes):
        raise TypeError(f"{which} is a list of pieces, got {shown(script)}")
    for piece in script:
        if not isinstance(piece, str | bytes | Special):
            raise TypeError(f"{which} holds pieces, each a str, bytes, EOG, NAN or DEAD_END, got {shown(piece)}")
    return script


def _numbers(text: str, values: object) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)  # type: ignore[attr-defined]  # it may be anything
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"the vector for {shown(text)} is a list of numbers, got {shown(values)}") from None


def _unscripted(what: str, text: str, scripted: Iterable[object], example: str) -> str:
    """Say what is missing, what there is, and how to add it."""
    there = list(scripted)
    named = ", ".join(map(shown, there[:_MAX_NAMED])) + (f" and {n} more" if (n := len(there) - _MAX_NAMED) > 0 else "")
    return f"there is no {what} {shown(text)}; scripted are {named or 'none'}: add {{{shown(text)}: {example}}}"


def _vocabulary(scripts: Script | dict[str, Script]) -> dict[bytes, int]:
    pieces: dict[bytes, int] = {}
    for script in scripts.values() if isinstance(scripts, dict) else [scripts]:
        for piece in script:
            if not isinstance(piece, Special):
                pieces.setdefault(_as_bytes(piece), _EOG_TOKEN + 1 + len(pieces))
    return pieces


def _as_bytes(piece: str | bytes) -> bytes:
    return piece.encode() if isinstance(piece, str) else piece
