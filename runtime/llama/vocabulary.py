"""A model's vocabulary: from texts to tokens.

The rules that hold here:

* A prompt begins once: BOS and the space that SentencePiece puts before a text come at its beginning, and a BOS that is
  written there is the one that is added. A text that goes on from something else has neither.
* Behind a special token llama.cpp puts that space too, and so do models' own tokenisers. It stays, be the token of the
  same text or of a chat that goes on.
* Special tokens are parsed, but for the runs of a `Rendered` that messages said.
* A SentencePiece vocabulary must have a token for each byte: llama.cpp aborts the process at a character that has none.
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
"""A character that no vocabulary joins to others: what stands behind it is tokenised as if it went on from a text."""


_BYTES: Final = (*range(0xC0), *range(0xC2, 0xF5))
"""All that occur in UTF-8."""

_ASCII: Final = frozenset(map(chr, range(0x80)))
"""The characters that are the bytes which they are written with."""

UNKNOWN: Final = "\U0010fffe"
"""A character for which a vocabulary hardly has a token."""


class Vocabulary:
    """The vocabulary of one model.

    Args:
        vocabulary: llama.cpp's.

    Raises:
        InvalidRequest: It has no token for some byte, and llama.cpp wants one.
    """

    def __init__(self, vocabulary: Any) -> None:
        self._vocabulary = vocabulary
        self.bos: int = llama_cpp.llama_vocab_bos(vocabulary)
        self.eos: int = llama_cpp.llama_vocab_eos(vocabulary)
        self._adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocabulary))
        self._adds_eos = bool(llama_cpp.llama_vocab_get_add_eos(vocabulary))
        self._check_bytes()

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Return the tokens of a text that goes on from an input, or that a prompt begins with."""
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
        """Return a special token as text; nothing where the vocabulary has none (llama_vocab_get_text would abort)."""
        if token < 0:
            return ""
        text: bytes = llama_cpp.llama_vocab_get_text(self._vocabulary, token)
        return text.decode("utf-8", "replace")

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """What those tokens look like that are found only where special tokens are parsed."""
        return self._texts(_CONTROL)

    @cached_property
    def user_defined_texts(self) -> tuple[str, ...]:
        """What those tokens look like that are found in any text."""
        return self._texts(llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def _check_bytes(self) -> None:
        if llama_cpp.llama_vocab_type(self._vocabulary) != llama_cpp.LLAMA_VOCAB_TYPE_SPM:
            return  # Other kinds have a token for what is unknown, or leave it out.
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
        """Return whether an input is a token that llama.cpp looks for before it tokenises the text around it."""
        return isinstance(one, int) and self._is(_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED, one)

    def _is(self, kinds: int, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_get_attr(self._vocabulary, token) & kinds)

    def _going_on(self, text: str, *, parsed: bool) -> list[int]:
        """Return the tokens of a text that goes on from something."""
        return self._tokens(_APART * bool(self._n_apart) + text, special=False, parsed=parsed)[self._n_apart :]

    @cached_property
    def _n_apart(self) -> int:
        """How many tokens the space and the character are that keep a text apart; 0 where no space is put."""
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
            # The one failure llama_tokenize knows is too little room, and it tells how much it wants.
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, -count, special, parsed)
        return list(tokens[:count])
