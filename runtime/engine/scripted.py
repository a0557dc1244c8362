"""Provides an engine that plays given pieces, vectors and return codes, for tests of applications and of reenact.

It has cells like a real engine (it checks positions, and copies, trims and shifts cells), so a wrong plan has effects.
Its vocabulary: tokens 0 to 255 are the bytes of prompts, token 256 ends the text, and the script's pieces follow from
257 in the order of their first appearance.

Without a script it is a made-up model that answers any prompt: each token is `drawn` from a checksum of the cells, so a
wrong cell changes the text. Nothing depends on ``hash``, which differs between processes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal
from zlib import crc32

from reenact.actors.batch import BatchDecoded, BatchPlanned, Likely, Part, Sample, Vector
from reenact.actors.errors import EngineBroken, InvalidRequest, shown
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, ModelFacts, Numerics
from reenact.actors.inputs import Input
from reenact.actors.options import DRAW_OPTIONS, Options
from reenact.runtime.engine.plain_tools import without_tools
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
from reenact.runtime.engine.think_tags import think_tags, think_variables
from reenact.runtime.grammar.in_force import grammar_in_force


class Special(Enum):
    """Items of a script that are not pieces."""

    EOG = "eog"
    """An end-of-generation token."""
    NAN = "nan"
    """Logits that contain a NaN."""
    DEAD_END = "dead end"
    """A grammar that allows no token."""


EOG: Final = Special.EOG
NAN: Final = Special.NAN
DEAD_END: Final = Special.DEAD_END

Script = Sequence[str | bytes | Special]
Scripts = Script | Mapping[str, Script]
"""One script for every prompt, or one for each prompt by its text."""
Faults = Mapping[int, int | Exception]
"""Return codes of ``llama_decode``, or exceptions to raise, by the number of a batch; looked up when it comes."""
Vectors = Mapping[str, Sequence[float]]
"""The vector of each text."""

DrawsFrom = Literal["script", "history", "batch"]
"""The basis of a token: its place in the script ("script"); or the cells of its sequence ("history"); or the cells and
the shapes of the batches that evaluated them, which are the row counts of their parts in order ("batch")."""

_ANY: Final[Script] = (
    *("a", "b", "ab ", "the ", ". "),
    *("<", "/s>", "x</s>"),
    *(b"\xc3", b"\xa9", "é", b"", b"\xff"),
)
PIECES: Final[Script] = (*_ANY, *_ANY, EOG)
"""The pieces of a made-up model that is given none; among them are parts of characters and of stop strings."""

_EOG_TOKEN: Final = 256

_MAX_NAMED: Final = 5
"""The most prompts that an error names; the rest are counted."""


def row_of(cells: Iterable[object]) -> int:
    """Return a number in place of the row of logits after these cells, which is also the row's checksum."""
    return crc32(repr(list(cells)).encode())


def drawn(script: Script, row: int, index: int, options: Options) -> str | bytes | Special:
    """Return the piece that a made-up model draws from a row; one that is in the script more often comes more often.

    Args:
        script: The pieces to draw from.
        row: The row, as `row_of` returns it.
        index: The index of the token.
        options: The options of the request.
    """
    by = [getattr(options, name) for name in DRAW_OPTIONS]
    return script[crc32(repr((row, index, by)).encode()) % len(script)]


class ScriptedEngine:
    r"""Plays a script for each prompt; after the script it draws an end-of-generation token.

    A prompt or a text without a script fails its own request, with `SequenceFailed`. A prompt with rows is looked up,
    and named in errors, as its text without them: ``["hi", [1.0, 2.0]]`` as ``"hi"``.

    Args:
        scripts: Pieces for every prompt, or a script for each prompt by its text.
        draws_from: The basis of a token; unless it is the script, a token is any of the script's pieces, or of
            `PIECES`.
        faults: By the number of a batch, from 0: the code of ``llama_decode`` to return, or the exception to raise,
            instead of success.
        vectors: The vector of each text, for an engine that makes embeddings.
        batch_seconds: The time that each batch takes on trio's clock; on a `trio.testing.MockClock` it passes at once.
            A deadline at the moment when a batch ends comes first, so the token of that batch is lost. Leaving the
            runtime waits for the batch in flight; the batch ends early only if it has several rows of a request that
            is left.
        chat_template: The source of a template, by which a server finds the tags around thinking. It is not rendered:
            if it has the variable ``enable_thinking``, and thinking is turned off, empty tags end the prompt.

    Raises:
        TypeError: A script is not a list of pieces, or a vector not a list of numbers; the error names which.
        ValueError: ``batch_seconds`` is not a time.

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
        chat_template: str = "",
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
        self.chat_template = chat_template
        self._draws_from = draws_from
        self._faults = {} if faults is None else faults
        self._vectors = None if vectors is None else {text: _numbers(text, vectors[text]) for text in vectors}
        self._tokens = _vocabulary(self._scripts)
        self._pieces = {token: piece for piece, token in self._tokens.items()}
        self._cells: list[list[object]] = []
        """The cells of each slot: inputs, each with the shape of its batch if draws depend on that."""
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
        # A text is pooled whole, so a batch must have room for any text.
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
        """Return the grammar in force, checked as in a real engine; the script need not match it."""
        self._context()
        return grammar_in_force(options)

    def render(
        self, messages: Iterable[Message], tools: Sequence[dict[str, Any]] = (), *, think: bool | None = None
    ) -> Rendered:
        """Return each message on a line, after its role; tools and calls are shown as to a template without tools."""
        shown_messages = without_tools(messages, tools)
        lines = "".join(f"{message['role']}: {message['content']}\n" for message in shown_messages)
        variables = think_variables(self.chat_template, think)
        tags = think_tags(self.chat_template) if variables == {"enable_thinking": False} else None
        return Rendered(text=f"{lines}assistant: " + (f"{tags.begin}{tags.end}" if tags else ""))

    def step(
        self,
        planned: BatchPlanned,
        drawings: Mapping[int, Drawing],
        numbers: Numbers,  # noqa: ARG002  # digests distinguish rows
    ) -> BatchDecoded:
        """Keep the batch's inputs in the cells and play the next pieces."""
        context = self._context()
        pools = {part.pools for part in planned.parts}
        if not is_valid(planned, context) or not pools <= {self._vectors is not None}:
            return refused(planned)
        self._operate(planned)
        fault = self._faults.get(planned.batch, 2 if self._aborted == planned.batch else 0)
        if isinstance(fault, Exception):
            raise fault
        code = fault or code_before(planned, [len(self._cells[part.slot]) for part in planned.parts], context)
        if code not in {1, -1}:
            # As in llama.cpp, rows evaluated before an abort or a failure stay.
            for number, part in enumerate(planned.parts if code == 0 else planned.parts[:1]):
                self._cells[part.slot].extend(self._evaluated(planned, number))
        done = planned.parts if code == 0 else ()
        samples = tuple(self._sample(part, drawings[part.sequence]) for part in done if part.draw is not None)
        vectors = tuple(self._vector(part) for part in done if part.pools)
        positions = tuple((part.slot, len(self._cells[part.slot]) - 1) for part in planned.parts)
        return BatchDecoded(batch=planned.batch, code=code, samples=samples, vectors=vectors, positions=positions)

    def abort(self, batch: int) -> None:
        """End this batch with code 2, after its first part."""
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
        """Return the policy that can be promised for the tokens.

        Raises:
            InvalidRequest: The policy asked for by name is impossible.
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
        """Return the cells that a part of a batch becomes."""
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
            return Sample(
                sequence=part.sequence, index=index, token=-1, fault="engine", reason=reason, logits_crc32=crc
            )
        if self._draws_from == "script":
            piece = script[index] if index < len(script) else EOG
        else:
            piece = drawn(script, row, index, drawing.options)
        if isinstance(piece, Special) and piece is not EOG:
            fault: Literal["nan", "grammar"] = "nan" if piece is NAN else "grammar"
            return Sample(sequence=part.sequence, index=index, token=-1, fault=fault, logits_crc32=crc)
        token = _EOG_TOKEN if isinstance(piece, Special) else self._tokens[_as_bytes(piece)]
        likely = [
            Likely(token=other, piece=self._pieces[other], logprob=-other / 1000)
            for other in sorted(self._pieces)[: drawing.options.top_logprobs]
        ]
        return Sample(
            sequence=part.sequence,
            index=index,
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
    """Return an error text: what is missing, what is there, and how to add it."""
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
