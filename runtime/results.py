"""What comes of a request: values for its caller."""

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.metrics import Times


@frozen(kw_only=True)
class Logprob:
    """How likely a token was, by the model alone: before any option of the request changed it."""

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
    """The tokens whose text is whole with it."""
    logprobs: tuple[Logprob, ...] = ()
    """One for each of them, if ``logprobs`` was asked for."""


@frozen(kw_only=True)
class Completion:
    """What came of a request."""

    sequence: int
    """Its number in the session's log."""
    request_id: str | None
    text: str
    tokens: tuple[int, ...]
    """The tokens of the text, without an end-of-generation token and without those that a stop string cut."""
    logprobs: tuple[Logprob, ...]
    """One for each of them, if ``logprobs`` was asked for."""
    finish_reason: e.FinishReason
    stop: str | None
    """The stop string that ended it; None with reason "stop" means an end-of-generation token."""
    seed: int
    n_prompt: int
    """Tokens of the prompt."""
    n_cached: int
    """Of these, tokens that were in the cache already and were not evaluated."""
    n_truncated: int
    """Of these, tokens that were left out because the context does not hold them."""
    n_left_out: int
    """Messages of the chat that were left out for the same reason, the last one counted where its beginning was; their
    tokens are not in `n_prompt`."""
    n_sampled: int
    """Tokens sampled, an end-of-generation token and what a stop string cut included."""
    n_shifts: int
    """How often the context was full and inputs were dropped."""
    times: Times


@frozen(kw_only=True)
class Embedding:
    """The vector of a text."""

    sequence: int
    """Its number in the session's log."""
    embedding: tuple[float, ...]
    """Of length 1, or of zeros."""
    n_prompt: int
    """Tokens of the text."""
    n_truncated: int
    """Of these, tokens that were left out because the context does not hold them."""
    times: Times
