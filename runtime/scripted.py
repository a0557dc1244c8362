"""An engine that plays given pieces and return codes: for the tests of an application, and for our own.

It keeps cells like a real one (positions are checked, slots are emptied), so that what it is asked matters. Its
vocabulary: tokens 0 to 255 are the bytes of prompts, token 256 ends the text, and from 257 on come the script's pieces
in the order of their first appearance.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final
from zlib import crc32

from reenact.actors.errors import EngineBroken
from reenact.actors.events import BatchDecoded, BatchPlanned, ContextFacts, EngineFacts, ModelFacts, Part, Sample
from reenact.actors.options import Options
from reenact.runtime.engine import ContextSettings, Loaded, Tokenized, code_before, is_valid, padded, refused


class Special(Enum):
    """What a script may hold beside pieces."""

    EOG = "eog"
    """An end-of-generation token."""
    NAN = "nan"
    """Logits that hold a NaN."""


EOG: Final = Special.EOG
NAN: Final = Special.NAN

Script = Sequence[str | bytes | Special]
Scripts = Script | Mapping[str, Script]
"""One script for every prompt, or one for each prompt by its text."""
Faults = Mapping[int, int | Exception]
"""Return codes of ``llama_decode``, or exceptions to raise, by the number of the batch."""

_EOG_TOKEN: Final = 256


class ScriptedEngine:
    r"""Plays a script for each prompt; a script that is over ends with an end-of-generation token.

    Args:
        scripts: Pieces for every prompt, or a script for each prompt by its text.
        faults: What batches with these numbers, from 0, do instead of succeeding: return a code of ``llama_decode``, or
            raise an exception.

    Example:
        ``ScriptedEngine(["Hel", "lo"])``, ``ScriptedEngine({"Hi": ["Hello"], "Bye": [b"\xf0\x9f", EOG]})``
    """

    computes = False

    def __init__(self, scripts: Scripts = (), *, faults: Faults | None = None) -> None:
        if isinstance(scripts, str | bytes):
            raise TypeError("a script is a list of pieces, not one string")
        self._scripts = dict(scripts) if isinstance(scripts, Mapping) else scripts
        self._faults = dict(faults or {})
        self._pieces = _vocabulary(self._scripts)
        self._cells: list[list[int]] = []
        self.context_facts: ContextFacts | None = None

    def load(self, settings: ContextSettings) -> Loaded:
        """Make the cells; nothing is read."""
        if self.context_facts is not None:
            raise EngineBroken("the engine is loaded already: it serves one runtime at a time")
        self._cells = [[] for _ in range(settings.n_slots)]
        self.context_facts = ContextFacts(
            n_slots=settings.n_slots,
            n_ctx=settings.n_ctx,
            n_ctx_seq=padded(settings.n_ctx),
            n_batch=settings.n_batch,
            n_ubatch=settings.n_batch,
            n_threads=settings.n_threads,
            type_k="tokens",
            type_v="none",
            flash_attn="none",
            kv_unified=False,
        )
        return Loaded(
            engine=EngineFacts(name="scripted", versions={}, system_info=""),
            model=ModelFacts(name="script", size=0, sha256="", description="plays given pieces"),
            context=self.context_facts,
            policies={},
        )

    def tokenize(self, text: str) -> Tokenized:
        """Return the bytes of ``text``."""
        if self.context_facts is None:
            raise EngineBroken("the engine is not loaded")
        return Tokenized(tokens=tuple(text.encode()), bos_added=False)

    def step(self, planned: BatchPlanned, options: Mapping[int, Options]) -> BatchDecoded:  # noqa: ARG002  # nothing is drawn
        """Keep the batch's tokens in the cells and play the next pieces."""
        context = self.context_facts
        if context is None:
            raise EngineBroken("the engine is not loaded")
        if not is_valid(planned, context):
            return refused(planned)
        for slot in planned.clears:
            self._cells[slot].clear()
        fault = self._faults.get(planned.batch, 0)
        if isinstance(fault, Exception):
            raise fault
        code = fault or code_before(planned, [len(self._cells[part.slot]) for part in planned.parts], context)
        if code not in {1, -1}:
            # As in llama.cpp, what was evaluated before an abort or a failure stays.
            for part in planned.parts if code == 0 else planned.parts[:1]:
                self._cells[part.slot].extend(part.tokens)
        samples = tuple(self._sample(part) for part in planned.parts if part.draw is not None) if code == 0 else ()
        positions = tuple((part.slot, len(self._cells[part.slot]) - 1) for part in planned.parts)
        return BatchDecoded(batch=planned.batch, code=code, samples=samples, positions=positions)

    def close(self) -> None:
        """Drop the cells."""
        self._cells = []
        self.context_facts = None

    def _sample(self, part: Part) -> Sample:
        cells = self._cells[part.slot]
        crc = crc32(repr(cells).encode())
        script = self._script(bytes(token for token in cells if token < _EOG_TOKEN).decode())
        piece = script[part.draw] if part.draw is not None and part.draw < len(script) else EOG
        if piece is EOG:
            return Sample(sequence=part.sequence, token=_EOG_TOKEN, eog=True, logits_crc32=crc)
        if isinstance(piece, Special):
            return Sample(sequence=part.sequence, token=-1, nan=True, logits_crc32=crc)
        raw = _as_bytes(piece)
        return Sample(sequence=part.sequence, token=self._pieces[raw], piece=raw, logits_crc32=crc)

    def _script(self, prompt: str) -> Script:
        if not isinstance(self._scripts, dict):
            return self._scripts
        if prompt not in self._scripts:
            raise LookupError(f"there is no script for the prompt {prompt!r}")
        return self._scripts[prompt]


def _vocabulary(scripts: Script | dict[str, Script]) -> dict[bytes, int]:
    pieces: dict[bytes, int] = {}
    for script in scripts.values() if isinstance(scripts, dict) else [scripts]:
        for piece in script:
            if not isinstance(piece, Special):
                pieces.setdefault(_as_bytes(piece), _EOG_TOKEN + 1 + len(pieces))
    return pieces


def _as_bytes(piece: str | bytes) -> bytes:
    return piece.encode() if isinstance(piece, str) else piece
