"""Makes the answers of ollama's API: parts of a stream, and descriptions of models."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from reenact.runtime.engine.think_tags import think_tags
from reenact.runtime.http.models import Card, Running
from reenact.runtime.http.thinking import Thought
from reenact.runtime.http.tools import Call
from reenact.runtime.results import Completion, Logprob

_NANOSECONDS: Final = 1e9

_DONE: Final = {"stop": "stop", "length": "length", "context_full": "length", "deadline": "length"}

_FOR_EVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""The expiry of a model that never expires; clients need a time."""


class OllamaAnswer:
    """The parts of one answer.

    Args:
        model: The model's name as the client wrote it.
        chat: Whether they hold a message, and not a response.
    """

    def __init__(self, model: str, *, chat: bool) -> None:
        self._model = model
        self._chat = chat

    def part(self, thought: Thought, logprobs: tuple[Logprob, ...] = ()) -> dict[str, Any]:
        """Return a part with text, or with thinking."""
        return self._part(thought) | {"done": False} | _logprobs(logprobs)

    def end(self, completion: Completion, load_seconds: float) -> dict[str, Any]:
        """Return the last part of a stream."""
        times = completion.times
        return self._part(Thought()) | {
            "done": True,
            "done_reason": _DONE.get(completion.finish_reason, completion.finish_reason),
            "total_duration": _ns(times.total + load_seconds),
            "load_duration": _ns(load_seconds),
            "prompt_eval_count": completion.n_prompt - completion.n_truncated,
            "prompt_eval_duration": _ns(times.prefill),
            "eval_count": completion.n_sampled,
            "eval_duration": _ns(times.generation),
        }

    def whole(self, completion: Completion, thought: Thought, load_seconds: float) -> dict[str, Any]:
        """Return a whole answer, without a stream."""
        return self.end(completion, load_seconds) | self._text(thought) | _logprobs(completion.logprobs)

    def calling(self, call: Call) -> dict[str, Any]:
        """Return a part with a call."""
        return self._part(Thought()) | {"message": _message_of(call), "done": False}

    def whole_call(self, call: Call, completion: Completion, load_seconds: float) -> dict[str, Any]:
        """Return a whole answer that is a call."""
        return self.end(completion, load_seconds) | {"message": _message_of(call)}

    def loaded(self, reason: str) -> dict[str, Any]:
        """Return the answer to a request that only loads or unloads."""
        return self._part(Thought()) | {"done": True, "done_reason": reason}

    def _part(self, thought: Thought) -> dict[str, Any]:
        return {"model": self._model, "created_at": datetime.now(UTC), **self._text(thought)}

    def _text(self, thought: Thought) -> dict[str, Any]:
        thinking = {"thinking": thought.thinking} if thought.thinking else {}
        if self._chat:
            return {"message": {"role": "assistant", "content": thought.text, **thinking}}
        return {"response": thought.text, **thinking}


def _message_of(call: Call) -> dict[str, Any]:
    # The arguments go out as they were generated, with numbers of any length.
    function = {"index": 0, "name": call.name, "arguments": orjson.Fragment(call.arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": call.identity, "function": function}]}


def _ns(seconds: float | None) -> int:
    """Return nanoseconds, at least one, because clients divide by them."""
    return max(1, round((seconds or 0.0) * _NANOSECONDS))


def _logprobs(logprobs: tuple[Logprob, ...]) -> dict[str, Any]:
    if not logprobs:
        return {}
    found = []
    for one in logprobs:
        top = [_likely(other.piece, other.logprob) for other in one.top]
        found.append(_likely(one.piece, one.logprob) | ({"top_logprobs": top} if top else {}))
    return {"logprobs": found}


def _likely(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode(errors="replace"), "logprob": logprob, "bytes": list(piece)}


def rfc3339(at: datetime) -> str:
    """Return a time in UTC, with its zone."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def tag(card: Card) -> dict[str, Any]:
    """Return an entry of ``/api/tags``."""
    return {
        "name": card.name,
        "model": card.name,
        "modified_at": rfc3339(card.modified_at),
        "size": card.size,
        "digest": card.digest,
        "details": details(card),
    }


def running(one: Running) -> dict[str, Any]:
    """Return an entry of ``/api/ps``."""
    return tag(one.card) | {
        "expires_at": rfc3339(one.expires_at or _FOR_EVER),
        "size_vram": 0,
        "context_length": one.card.n_ctx,
    }


def shown(card: Card) -> dict[str, Any]:
    """Return the answer of ``/api/show`` for a model."""
    architecture = card.architecture
    can = ["tools", *(["thinking"] if think_tags(card.template) else [])] if card.capability == "completion" else []
    info = {"general.architecture": architecture, f"{architecture}.context_length": card.n_ctx}
    return {
        "modelfile": "",
        "parameters": "",
        "template": card.template,
        "details": details(card),
        "model_info": info,
        "capabilities": [card.capability, *can],
        "modified_at": rfc3339(card.modified_at),
    }


def details(card: Card) -> dict[str, Any]:
    """Return the details that all three endpoints report."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": card.architecture,
        "families": [card.architecture],
        "parameter_size": card.parameter_size,
        "quantization_level": card.quantization,
    }
