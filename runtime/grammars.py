"""Grammars in llama.cpp: one follows each sequence, and says which tokens it allows next.

The rules that hold here:

* What is kept for a sequence is a cache of its history: looked at before each use, and made anew where it is not a
  beginning of that history.
* A grammar accepts no token that it was not asked about first: one that it refuses would end the process
  (``llama_grammar_accept_token`` throws).
* A grammar that costs too much is given up. Where one can be followed in several ways at once llama.cpp keeps a stack
  for each and compares every two of them, so that a byte may cost a multiple of the one before it; and what a token is
  refused for it finds by walking every path through its text. So tokens are accepted byte by byte, and shown by
  their lengths, short ones first. The thread's CPU time is looked at in between: beyond `MAX_ACCEPTING` or
  `MAX_SHOWING` the grammar is given up (`TooCostly`). That is a sample's fault then, a given fact in the log, so that a
  replay asks no clock.
* A token without text is never allowed, unless it ends the generation: llama.cpp takes a control token for its name
  (``llama_grammar_apply_impl``), and the name would not stand in the text.
"""

from collections import OrderedDict
from collections.abc import Sequence
from ctypes import byref, cast, create_string_buffer
from functools import cached_property, lru_cache
from time import thread_time
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen

from reenact.runtime.gbnf import GrammarError
from reenact.runtime.library import ShortCalls, complaint, forget_complaints, llama_cpp, piece_of
from reenact.runtime.soundness import check

Weights = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_MAX_GRAMMARS: Final = 256
"""Grammars kept, one for each sequence; making one anew costs up to milliseconds, and some per token that it saw."""

_WIDTH: Final = 512
"""So many likeliest tokens are shown to a grammar before all are: of a whole vocabulary it takes 3 to 9 ms."""

_BEGINNING: Final = 2
"""Bytes. A grammar that refuses a text refuses whatever begins with it, so tokens are looked at by how they begin."""

_ROOM: Final = 256
"""Bytes that nearly every piece has room in."""

MAX_ACCEPTING: Final = 0.05
"""Seconds of CPU time that a grammar may take to accept one token. Usual are 20 us, and 3 ms among 1,000 alternatives.
Where k alternatives stay open the next byte takes up to k^2 times as long: 0.2 s for two, 5 s for ten. For many more
that is no bound: with 40 recursive alternatives that begin alike the third byte can take a minute."""

MAX_SHOWING: Final = 0.5
"""Seconds of CPU time that a grammar may take to say which tokens it allows. Usual are 50 us for one token, and 20 to
50 ms for a vocabulary of 49,000; where k alternatives stay open a text that is longer by one takes k times as long."""


class TooCostly(Exception):
    """Following a grammar any further could keep the compute thread for minutes."""


class Candidates:
    """A llama_token_data_array with room for so many tokens, filled through numpy."""

    def __init__(self, room: int, calls: ShortCalls) -> None:
        self._memory = np.zeros(room, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._ids = self._memory["id"]
        self.weights = self._memory["logit"]
        self._data: Any = cast(self._memory.ctypes.data, llama_cpp.llama_token_data_p)
        self._array = llama_cpp.llama_token_data_array()
        self._reference = byref(self._array)
        self._apply = calls.llama_sampler_apply

    def fill(self, tokens: Tokens | int, weights: Weights | float) -> None:
        """Hold these tokens with these logits."""
        size = len(tokens) if isinstance(tokens, np.ndarray) else 1
        self._ids[:size] = tokens
        self.weights[:size] = weights
        self._array.data = self._data  # A sampler may have put its own in its place.
        self._array.size = size
        self._array.selected = -1
        self._array.sorted = False

    def apply(self, sampler: Any) -> None:
        """Let a sampler change logits, drop tokens or select one."""
        self._apply(sampler, self._reference)

    @property
    def selected(self) -> int:
        """The token that the last sampler chose."""
        return int(self._array.data[self._array.selected].id)


class Grammars:
    """The grammars of the sequences of one context; only in the compute thread."""

    def __init__(self, vocabulary: Any, calls: ShortCalls) -> None:
        self._vocabulary = vocabulary
        self._calls = calls
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._candidates = Candidates(self._n_vocab, calls)
        self._one = Candidates(1, calls)
        self._followed: OrderedDict[int, _Followed] = OrderedDict()

    def wrong_with(self, grammar: str) -> str | None:
        """Return why a grammar cannot be followed, or None."""
        if wrong := _wrong_with(grammar):
            return wrong
        _ = self._beginnings  # Now, and not while others wait for a draw.
        forget_complaints()
        sampler = self._made(grammar)
        if not sampler:
            return complaint()
        llama_cpp.llama_sampler_free(sampler)
        return None

    def follow(self, sequence: int, grammar: str, sampled: Sequence[int]) -> Any:
        """Return the sampler of a grammar as it is after what was sampled; None where it refuses some of that.

        Raises:
            TooCostly: Then as from `allows` and `allowed`, `forget` the sequence.
        """
        followed = self._followed.get(sequence)
        if followed is None or not followed.leads_to(grammar, sampled):
            self.forget(sequence)
            if _wrong_with(grammar) or not (sampler := self._made(grammar)):
                return None
            if len(self._followed) == _MAX_GRAMMARS:
                self.forget(next(iter(self._followed)))
            followed = self._followed[sequence] = _Followed(grammar, sampler)
        self._followed.move_to_end(sequence)
        followed.history = sampled
        for token in sampled[len(followed.accepted) :]:
            if not self.allows(followed.sampler, token):
                self.forget(sequence)
                return None
            self._accept(followed.sampler, token)
            followed.accepted.append(token)
        return followed.sampler

    def allows(self, sampler: Any, token: int) -> bool:
        """Return whether a grammar allows ``token`` next."""
        if self._beginnings.textless[token]:
            return False
        since = thread_time()
        self._one.fill(token, 0)
        self._one.apply(sampler)
        _look_at_cost(since, MAX_SHOWING)
        return bool(self._one.weights[0] == 0)

    def allowed(self, sampler: Any, weights: Weights, wanted: int) -> Tokens:
        """Return tokens that a grammar allows, ascending, all or at least the ``wanted`` likeliest ones (0 for all)."""
        shown = self._possible(sampler)
        if 0 < wanted <= _WIDTH < len(shown):
            # Equals of the last one are among them, so that it does not matter how numpy orders equals.
            likely = shown[weights[shown] >= np.partition(weights[shown], -_WIDTH)[-_WIDTH]]
            found = self._allowed_of(sampler, likely, weights[likely])
            if len(found) >= wanted:
                return found
        return self._allowed_of(sampler, shown, weights[shown])

    def close(self) -> None:
        """Free all samplers."""
        for sequence in list(self._followed):
            self.forget(sequence)

    def forget(self, sequence: int) -> None:
        """Free the sampler of a sequence, if there is one."""
        followed = self._followed.pop(sequence, None)
        if followed is not None:
            llama_cpp.llama_sampler_free(followed.sampler)

    def _accept(self, sampler: Any, token: int) -> None:
        """Let a grammar go on by a token that it allows."""
        known = self._beginnings
        text = piece_of(self._vocabulary, token)
        # A vocabulary need not have a token for each byte: then it is accepted at once.
        parts = [known.of_bytes.get(byte) for byte in text] if known.lengths[token] else []
        since = thread_time()
        for part in [token] if not parts or None in parts else parts:
            self._calls.llama_sampler_accept(sampler, part)
            _look_at_cost(since, MAX_ACCEPTING)

    def _possible(self, sampler: Any) -> Tokens:
        """Return the tokens that a grammar may allow, going by how they begin."""
        known = self._beginnings
        possible = known.possible.copy()
        since = thread_time()
        self._candidates.fill(known.tokens, 0)
        self._candidates.apply(sampler)
        _look_at_cost(since, MAX_SHOWING)
        possible[known.of_tokens] = self._candidates.weights[: len(known.tokens)] == 0
        return np.flatnonzero(possible[known.of])

    def _allowed_of(self, sampler: Any, tokens: Tokens, weights: Weights) -> Tokens:
        allowed = np.zeros(len(tokens), np.bool_)
        lengths = self._beginnings.lengths[tokens]
        since = thread_time()
        for length in np.unique(lengths):
            these = np.flatnonzero(lengths == length)
            self._candidates.fill(tokens[these], weights[these])
            self._candidates.apply(sampler)
            allowed[these] = self._candidates.weights[: len(these)] > -np.inf
            _look_at_cost(since, MAX_SHOWING)
        return tokens[allowed]

    def _made(self, grammar: str) -> Any:
        """Return a sampler for a grammar that nothing is wrong with; it is false where llama.cpp refuses it even so."""
        return llama_cpp.llama_sampler_init_grammar(self._vocabulary, grammar.encode(), b"root")

    @cached_property
    def _beginnings(self) -> "_Beginnings":
        vocabulary, calls = self._vocabulary, self._calls
        numbers: dict[bytes | None, int] = {None: 0}
        tokens: dict[int, int] = {}
        of = np.zeros(self._n_vocab, np.int64)
        lengths = np.zeros(self._n_vocab, np.int64)
        of_bytes: dict[int, int] = {}
        buffer = create_string_buffer(_ROOM)
        for token in range(self._n_vocab):
            if calls.llama_vocab_is_eog(vocabulary, token):
                continue
            length = calls.llama_token_to_piece(vocabulary, token, buffer, _ROOM, 0, False)
            beginning = (
                buffer.raw[: min(length, _BEGINNING)] if length >= 0 else piece_of(vocabulary, token)[:_BEGINNING]
            )
            lengths[token] = abs(length)
            if length == 1:
                of_bytes.setdefault(beginning[0], token)
            number = of[token] = numbers.setdefault(beginning, len(numbers))
            if 0 < length <= _BEGINNING:
                tokens[number] = token
        textless = (lengths == 0) & (of > 0)
        of[textless] = len(numbers)
        possible = np.ones(len(numbers) + 1, np.bool_)
        possible[-1] = False
        return _Beginnings(
            textless=textless,
            lengths=lengths,
            of_bytes=of_bytes,
            of=of,
            possible=possible,
            tokens=np.fromiter(tokens.values(), np.int64, len(tokens)),
            of_tokens=np.fromiter(tokens.keys(), np.int64, len(tokens)),
        )


@frozen(kw_only=True)
class _Beginnings:
    """How the tokens of a vocabulary begin. Beginning 0 is that of tokens that end the generation."""

    textless: npt.NDArray[np.bool_]
    """For each token whether it has no text (llama_token_to_piece without special ones) and ends nothing."""
    lengths: npt.NDArray[np.int64]
    """The length of each token's text in bytes; that of one that ends the generation is 0."""
    of_bytes: dict[int, int]
    """The token that is this byte and nothing else, for nearly all bytes."""
    of: npt.NDArray[np.int64]
    """The beginning of each token."""
    possible: npt.NDArray[np.bool_]
    """For each beginning whether a token with it may be allowed, if no grammar is asked: all but that of no text."""
    tokens: Tokens
    """Tokens that are nothing but a beginning."""
    of_tokens: npt.NDArray[np.int64]
    """Which."""


@define
class _Followed:
    """A grammar that follows one sequence."""

    grammar: str
    sampler: Any
    history: Sequence[int] = ()
    """The list that was followed last; it only grows."""
    accepted: list[int] = field(factory=list)

    def leads_to(self, grammar: str, sampled: Sequence[int]) -> bool:
        """Return whether it is ``grammar``, and has accepted a beginning of what was sampled and nothing else."""
        if self.grammar != grammar or len(sampled) < len(self.accepted):
            return False
        return self.history is sampled or list(sampled[: len(self.accepted)]) == self.accepted


def _look_at_cost(since: float, most: float) -> None:
    # The clock decides what happens and not what a replay does: the fault that comes of it is in the log.
    if thread_time() - since > most:
        raise TooCostly


@lru_cache(maxsize=_MAX_GRAMMARS)
def _wrong_with(grammar: str) -> str | None:
    """Return why llama.cpp must not see a grammar, or None."""
    try:
        check(grammar)
    except GrammarError as error:
        return str(error)
    return None
