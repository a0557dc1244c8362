"""Tokenizes texts with a model's vocabulary.

The rules that hold here:

* A prompt begins once: BOS, and the space that SentencePiece puts before a text, come only at the prompt's beginning. A
  BOS that is written there replaces the one that would be added. A text that continues another one gets neither.
* After a special token llama.cpp puts that space too, and so do models' own tokenizers. It is kept, both within a text
  and where a chat continues after such a token.
* Special tokens are parsed, except in the runs of a `Rendered` that come from messages (`Rendered.said`).
* A SentencePiece vocabulary must have a token for each byte: llama.cpp aborts the process at a byte that has none.
"""

from functools import cached_property
from typing import Any, Final

from reenact.actors.errors import InvalidRequest
from reenact.actors.inputs import Input
from reenact.runtime.engine.protocol import Rendered, Tokenized
from reenact.runtime.llama.bindings import llama_cpp, piece_of

_CONTROL: Final = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
"""Attributes of the tokens that llama.cpp finds in a text only where special tokens are parsed."""

_APART: Final = "\U0010fffd"
"""A character that no vocabulary joins to others: the text after it is tokenized as if it continued another text."""


_BYTES: Final = (*range(0xC0), *range(0xC2, 0xF5))
"""All bytes that occur in UTF-8."""

_ASCII: Final = frozenset(map(chr, range(0x80)))
"""The characters that UTF-8 writes as one byte of the same value."""

UNKNOWN: Final = "\U0010fffe"
"""A character that hardly any vocabulary has a token for."""


class Vocabulary:
    """The vocabulary of one model.

    Args:
        vocabulary: llama.cpp's.

    Raises:
        InvalidRequest: It lacks a token for some byte, and llama.cpp needs one.
    """

    def __init__(self, vocabulary: Any) -> None:
        self._vocabulary = vocabulary
        self.bos: int = llama_cpp.llama_vocab_bos(vocabulary)
        self.eos: int = llama_cpp.llama_vocab_eos(vocabulary)
        self._adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocabulary))
        self._adds_eos = bool(llama_cpp.llama_vocab_get_add_eos(vocabulary))
        self._check_bytes()

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Return the tokens of a text that continues after an input, or that begins a prompt."""
        parts = [(text, True)] if isinstance(text, str) else text.parts()
        if after is None and len(parts) == 1:
            [(part, parsed)] = parts
            tokens = self._tokens(part, special=True, parsed=parsed)
        else:
            tokens = self._joined(parts, after)
        bos_added = after is None and self._adds_bos and tokens[:1] == [self.bos]
        if bos_added and tokens[1:2] == [self.bos]:
            del tokens[0]
        return Tokenized(tokens=tuple(tokens), bos_added=bos_added)

    def text(self, token: int) -> str:
        """Return the text of a special token, or "" for a token that does not exist (llama_vocab_get_text aborts)."""
        if token < 0:
            return ""
        text: bytes = llama_cpp.llama_vocab_get_text(self._vocabulary, token)
        return text.decode("utf-8", "replace")

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The texts of the tokens that llama.cpp finds only where special tokens are parsed."""
        return self._texts(_CONTROL)

    @cached_property
    def user_defined_texts(self) -> tuple[str, ...]:
        """The texts of the tokens that llama.cpp finds in any text."""
        return self._texts(llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def _check_bytes(self) -> None:
        if llama_cpp.llama_vocab_type(self._vocabulary) != llama_cpp.LLAMA_VOCAB_TYPE_SPM:
            return  # Other kinds have a token for unknown characters, or leave them out.
        texts = {self.text(token) for token in range(llama_cpp.llama_vocab_n_tokens(self._vocabulary))}
        missing = [byte for byte in _BYTES if f"<0x{byte:02X}>" not in texts and chr(byte) not in texts & _ASCII]
        if missing:
            raise InvalidRequest(
                "model",
                f"its vocabulary has no tokens for {len(missing)} of the {len(_BYTES)} bytes of UTF-8, the first is"
                f" <0x{missing[0]:02X}>: llama.cpp would end the process at a character that it does not know",
            )

    def _texts(self, kinds: int) -> tuple[str, ...]:
        every = range(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        return tuple(text for token in every if self._is(kinds, token) and (text := self.text(token)))

    def _joined(self, parts: list[tuple[str, bool]], after: Input | None) -> list[int]:
        """Return the tokens of parts of one text."""
        tokens = [self.bos] if after is None and self._adds_bos else []
        for part, parsed in parts:
            last = tokens[-1] if tokens else after
            if last is None or self._is_special(last):
                tokens += self._tokens(part, special=False, parsed=parsed)
            else:
                tokens += self._going_on(part, parsed=parsed)
        return [*tokens, self.eos] if after is None and self._adds_eos else tokens

    def _is_special(self, one: Input) -> bool:
        """Return whether an input is a token that llama.cpp looks for before it tokenizes the text around it."""
        return isinstance(one, int) and self._is(_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED, one)

    def _is(self, kinds: int, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_get_attr(self._vocabulary, token) & kinds)

    def _going_on(self, text: str, *, parsed: bool) -> list[int]:
        """Return the tokens of a text that continues another one."""
        return self._tokens(_APART * bool(self._n_apart) + text, special=False, parsed=parsed)[self._n_apart :]

    @cached_property
    def _n_apart(self) -> int:
        """The count of tokens of `_APART` and the space before it; 0 if the vocabulary puts no space."""
        if llama_cpp.llama_vocab_type(self._vocabulary) != llama_cpp.LLAMA_VOCAB_TYPE_SPM:
            return 0
        tokens = self._tokens(_APART, special=False, parsed=False)
        return len(tokens) if piece_of(self._vocabulary, tokens[0]).startswith(b" ") else 0

    def _tokens(self, text: str, *, special: bool, parsed: bool) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, room, special, parsed)
        if count < 0:
            # llama_tokenize fails only for want of room, and returns the room that it needs.
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, -count, special, parsed)
        return list(tokens[:count])
