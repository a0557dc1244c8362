"""Defines the results of requests."""

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.metrics import Times


@frozen(kw_only=True)
class Logprob:
    """The log-probability of a token by the model alone, before the request's options change it."""

    token: int
    piece: bytes
    """The token's bytes."""
    logprob: float
    """The natural logarithm of its probability."""
    top: tuple[e.Likely, ...]
    """The likeliest tokens in its place, likeliest first: as many as ``top_logprobs`` asked for."""


@frozen(kw_only=True)
class Chunk:
    """Text that became final with one token, or with the end."""

    text: str
    tokens: tuple[int, ...] = ()
    """The tokens whose text is complete with this chunk."""
    logprobs: tuple[Logprob, ...] = ()
    """One for each of these tokens, if ``logprobs`` was asked for."""


@frozen(kw_only=True)
class Completion:
    """The result of a request for text."""

    sequence: int
    """Its number in the session's log."""
    request_id: str | None
    text: str
    tokens: tuple[int, ...]
    """The tokens of the text, without an end-of-generation token and without those that a stop string cut."""
    logprobs: tuple[Logprob, ...]
    """One for each of these tokens, if ``logprobs`` was asked for."""
    finish_reason: e.FinishReason
    stop: str | None
    """The stop string that ended it; None with reason "stop" means an end-of-generation token."""
    seed: int
    n_prompt: int
    """The count of the prompt's tokens."""
    n_cached: int
    """The count of those that were in the cache already and were not evaluated."""
    n_truncated: int
    """The count of those that were left out because the context is too small for them."""
    n_left_out: int
    """The count of the chat's messages that were left out for the same reason, including the last one if it lost its
    beginning; their tokens are not in `n_prompt`."""
    n_sampled: int
    """The count of sampled tokens, including an end-of-generation token and tokens cut by a stop string."""
    n_shifts: int
    """The count of times when the context was full and inputs were dropped."""
    times: Times


@frozen(kw_only=True)
class Embedding:
    """The vector of a text."""

    sequence: int
    """Its number in the session's log."""
    embedding: tuple[float, ...]
    """A vector of length 1, or of zeros."""
    n_prompt: int
    """The count of the text's tokens."""
    n_truncated: int
    """The count of those that were left out because the context is too small for them."""
    times: Times
