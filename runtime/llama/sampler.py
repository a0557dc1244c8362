"""Draws one token from one row of logits.

The rules that hold here:

* A draw is a function of the row, the `Drawing` and the token's index; everything that is kept is a cache.
* The order is llama.cpp's (``common_params_sampling::samplers``): grammar, penalties, top_k, typical_p, top_p, min_p,
  temperature, and last a fresh generator for every draw, keyed by `draw_key`.
* A token is first drawn without the grammar. Only if the grammar refuses it, another one is drawn, with another key,
  from the tokens that the grammar allows (docs/llama-cpp.md section 5).
* A grammar accepts a token when the next draw's history contains it, and not before, because a drawn token may be
  dropped.
* A grammar that can be followed in too many ways ends its own sequence only, by a count that is the same on any
  machine.
* Log-probabilities are those of the raw row.
"""

import ctypes
from collections import Counter, OrderedDict
from ctypes import byref, cast, create_string_buffer
from functools import cached_property
from typing import Any, Final, Literal
from zlib import crc32

import numpy as np
from attrs import frozen

from reenact.actors.batch import Likely, Part, Sample
from reenact.actors.options import Options
from reenact.runtime.engine.draw_key import draw_key
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.llama.bindings import ShortCalls, llama_cpp, piece_of
from reenact.runtime.llama.grammar_states import TooCostly
from reenact.runtime.llama.matcher import Grammars, Pieces, Tokens, Weights

_MAX_CHAINS: Final = 64
"""Sampler chains that are kept, one for each combination of options; making one takes microseconds."""

_COLDEST: Final = 1e-30
"""Below this temperature the likeliest token is taken: dividing by it leaves the range of a float."""

_MOST: Final = 1e6
"""A penalty moves no logit further from 0, for the same reason."""

_ROOM: Final = 256
"""Bytes that are enough for nearly every piece."""

_NEGLIGIBLE: Final = 80.0
"""A logit this far below the largest has probability 0, which ``llama_sampler_typical_apply`` turns into NaN."""


class Candidates:
    """A llama_token_data_array of a fixed capacity, filled through numpy."""

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
        self._array.data = self._data  # A sampler may have replaced it.
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


class Sampler:
    """Draws tokens from the rows of one context; only in the compute thread.

    Args:
        vocabulary: The model's.
        context: Where the rows are.
        calls: The short calls.
        n_ctx: What ``repeat_last_n`` -1 means.
        logits_hash: Take the checksum of each row.
    """

    def __init__(self, vocabulary: Any, context: Any, calls: ShortCalls, n_ctx: int, *, logits_hash: bool) -> None:
        self._vocabulary = vocabulary
        self._context = context
        self._calls = calls
        self._n_ctx = n_ctx
        self._logits_hash = logits_hash
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._all = np.arange(self._n_vocab)
        self._candidates = Candidates(self._n_vocab, calls)
        self._grammars = Grammars(lambda: self.texts)
        self._chains: OrderedDict[_Chain, Any] = OrderedDict()
        self._pieces: dict[int, bytes] = {}

    def draw(self, row: int, part: Part, drawing: Drawing) -> Sample:
        """Return the token for ``part`` from a row of the batch that was decoded last."""
        logits = self.logits(row)
        index = part.draw or 0
        crc = crc32(logits.data) if self._logits_hash else None
        # min() is NaN if one is; llama.cpp would sample silently.
        if np.isnan(logits.min()):
            return Sample(sequence=part.sequence, index=index, token=-1, fault="nan", logits_crc32=crc)
        token = self._token(row, logits, part, drawing)
        if isinstance(token, str):
            return Sample(sequence=part.sequence, index=index, token=-1, fault=token, logits_crc32=crc)
        options = drawing.options
        logprob, top = self._likely(logits, token, options.top_logprobs) if options.logprobs else (None, ())
        return Sample(
            sequence=part.sequence,
            index=index,
            token=token,
            piece=self.piece(token),
            eog=self._calls.llama_vocab_is_eog(self._vocabulary, token),
            logits_crc32=crc,
            logprob=logprob,
            top=top,
        )

    def logits(self, row: int) -> Weights:
        """Return a row of the batch that was decoded last; it lies in llama.cpp's memory until the next decode."""
        address = ctypes.cast(self._calls.llama_get_logits_ith(self._context, row), ctypes.c_void_p).value
        logits: Weights = np.ctypeslib.as_array((ctypes.c_float * self._n_vocab).from_address(address))
        return logits

    def piece(self, token: int) -> bytes:
        """Return a token's bytes: the text of a special token, and no bytes for one that ends the generation."""
        piece = self._pieces.get(token)
        if piece is None:
            eog = self._calls.llama_vocab_is_eog(self._vocabulary, token)
            piece = self._pieces[token] = b"" if eog else piece_of(self._vocabulary, token, special=True)
        return piece

    @cached_property
    def texts(self) -> Pieces:
        """The pieces of the vocabulary; special tokens have no text in it. Takes 0.1 s to make, in any thread."""
        buffer = create_string_buffer(_ROOM)

        def text(token: int) -> bytes | None:
            if self._calls.llama_vocab_is_eog(self._vocabulary, token):
                return None
            length = self._calls.llama_token_to_piece(self._vocabulary, token, buffer, _ROOM, 0, False)
            return buffer.raw[:length] if length >= 0 else piece_of(self._vocabulary, token)

        return Pieces([text(token) for token in range(self._n_vocab)])

    def close(self) -> None:
        """Free all samplers, which must happen before the context and the model are freed."""
        for chain in self._chains.values():
            llama_cpp.llama_sampler_free(chain)
        self._chains.clear()

    # ------------------------------------------------------------ choosing

    def _token(self, row: int, logits: Weights, part: Part, drawing: Drawing) -> int | Literal["grammar", "cost"]:
        """Return the token drawn, or the reason for having none: the grammar allows none, or has too many ways."""
        options, index = drawing.options, part.draw or 0
        weights = self._penalized(logits, drawing)
        key = draw_key(options.seed, index)
        plain = weights is logits and options.typical_p == 1 and options.temperature >= _COLDEST
        token = self._sample(row, options, key) if plain else self._pick(self._all, weights, options, key)
        if drawing.grammar is None:
            return token
        try:
            place = self._grammars.follow(part.sequence, drawing.grammar, drawing.sampled)
            if place is None:
                return "grammar"
            if place.allows(token):
                return token
            allowed = place.allowed()
        except TooCostly:
            return "cost"
        if not len(allowed):
            return "grammar"
        # The key of the first draw would favour the tokens near the refused one.
        return self._pick(allowed, weights[allowed], options, draw_key(options.seed, index, attempt=1))

    def _sample(self, row: int, options: Options, key: int) -> int:
        """Draw from an unchanged row; gives the same token as `_pick`, a little faster."""
        calls, chain = self._calls, self._chain(options)
        calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_dist(key))
        token: int = calls.llama_sampler_sample(chain, self._context, row)
        calls.llama_sampler_free(calls.llama_sampler_chain_remove(chain, calls.llama_sampler_chain_n(chain) - 1))
        return token

    def _pick(self, tokens: Tokens, weights: Weights, options: Options, key: int) -> int:
        """Draw one of ``tokens``, whose logits are ``weights``."""
        if options.temperature < _COLDEST:
            return int(tokens[weights.argmax()])  # the lower one of equals, as llama_sampler_greedy_apply does
        if options.typical_p < 1:
            kept = np.flatnonzero(weights > weights.max() - _NEGLIGIBLE)
            tokens, weights = tokens[kept], weights[kept]
        self._candidates.fill(tokens, weights)
        self._candidates.apply(self._chain(options))
        generator = self._calls.llama_sampler_init_dist(key)
        self._candidates.apply(generator)
        self._calls.llama_sampler_free(generator)
        return self._candidates.selected

    def _chain(self, options: Options) -> Any:
        """Return the sampler chain of these options, without a generator."""
        key = _Chain(options.top_k, options.typical_p, options.top_p, options.min_p, options.temperature)
        chain = self._chains.get(key)
        if chain is None:
            if len(self._chains) == _MAX_CHAINS:
                self._calls.llama_sampler_free(self._chains.popitem(last=False)[1])
            chain = self._chains[key] = key.build(self._calls)
        self._chains.move_to_end(key)
        return chain

    def _penalized(self, logits: Weights, drawing: Drawing) -> Weights:
        """Return the logits after penalties, as ``llama_sampler_penalties_apply`` makes them; the row is not changed.

        Done in numpy, because llama.cpp's sampler would have to be given the history first: with 64 tokens of history
        numpy is faster.
        """
        options = drawing.options
        repeat = np.float32(options.repeat_penalty)
        if repeat == 1 and options.presence_penalty == options.frequency_penalty == 0:
            return logits
        counts = Counter(_window(drawing, self._n_ctx if options.repeat_last_n == -1 else options.repeat_last_n))
        tokens = np.fromiter(counts.keys(), np.int64, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        before = logits[tokens]
        with np.errstate(all="ignore"):
            after = np.where(before <= 0, before * repeat, before / repeat)
            after -= times * np.float32(options.frequency_penalty) + np.float32(options.presence_penalty)
        weights = logits.copy()
        weights[tokens] = np.where(np.isfinite(before), np.clip(after, -_MOST, _MOST), before)
        return weights

    # ------------------------------------------------------------ log-probabilities

    def _likely(self, logits: Weights, token: int, count: int) -> tuple[float | None, tuple[Likely, ...]]:
        """Return the log-probabilities of ``token`` and of the ``count`` likeliest tokens, without infinite ones."""
        with np.errstate(invalid="ignore"):
            raised = logits.astype(np.float64) - np.float64(logits.max())
            logprobs = raised - np.log(np.exp(raised).sum())
        first = np.zeros(0, np.int64)
        if count := min(count, self._n_vocab):
            first = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
            first = first[np.lexsort((first, -logits[first]))][:count]
        top = [
            Likely(token=one, piece=self.piece(one), logprob=float(logprobs[one]))
            for one in first.tolist()
            if np.isfinite(logprobs[one])
        ]
        return float(logprobs[token]) if np.isfinite(logprobs[token]) else None, tuple(top)


@frozen
class _Chain:
    """The options that a sampler chain is made of."""

    top_k: int
    typical_p: float
    top_p: float
    min_p: float
    temperature: float

    def build(self, calls: ShortCalls) -> Any:
        """Make the chain, in llama.cpp's usual order, without samplers that would change nothing."""
        chain = calls.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if self.top_k > 0:
            calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_top_k(min(self.top_k, 2**31 - 1)))
        if self.typical_p < 1:
            calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_typical(self.typical_p, 1))
        if self.top_p < 1:
            calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_top_p(self.top_p, 1))
        if self.min_p > 0:
            calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_min_p(self.min_p, 1))
        calls.llama_sampler_chain_add(chain, calls.llama_sampler_init_temp(self.temperature))
        return chain


def _window(drawing: Drawing, length: int) -> list[int]:
    """Return the last ``length`` tokens, including the prompt's; rows of numbers do not count."""
    if length == 0:
        return []
    window = list(drawing.sampled[-length:])
    if (missing := length - len(window)) > 0:
        # Rows are rare: look at them only if there are any near the end.
        near = drawing.prompt[-missing:]
        tokens = [one for one in near if isinstance(one, int)]
        if len(tokens) < len(near):
            tokens = [one for one in drawing.prompt[:] if isinstance(one, int)][-missing:]
        window += tokens
    return window
