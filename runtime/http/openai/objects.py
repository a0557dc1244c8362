"""Makes the answers of OpenAI's API: objects, and chunks of a stream."""

import base64
import struct
from typing import Any, Final, Literal

import orjson

from reenact.runtime.http.models import Card
from reenact.runtime.http.thinking import Thought
from reenact.runtime.http.tools import AnswerPart, Call
from reenact.runtime.results import Completion, Embedding, Logprob

DONE: Final = b"data: [DONE]\n\n"

_FINISHED: Final = {"stop": "stop", "length": "length", "context_full": "length", "deadline": "length"}


_CALLED: Final = "tool_calls"
"""The finish reason of a complete call."""


class OpenaiAnswer:
    """The objects of one answer.

    Args:
        kind: The kind of answer, for a chat or for a text.
        identity: The answer's id, without its prefix.
        model: The model's name as the client wrote it.
        created: The time in Unix seconds.
        fingerprint: The fingerprint of the weights and the library.
    """

    def __init__(
        self, kind: Literal["chat", "text"], *, identity: str, model: str, created: int, fingerprint: str
    ) -> None:
        self._chat = kind == "chat"
        prefix = "chatcmpl" if self._chat else "cmpl"
        self._common = {
            "id": f"{prefix}-{identity}",
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._offset = 0
        """The count of characters that went out."""

    def first(self) -> dict[str, Any] | None:
        """Return the chunk with the role of the speaker, for a chat."""
        return self._chunk({"role": "assistant", "content": ""}) if self._chat else None

    def chunk(self, thought: Thought, logprobs: tuple[Logprob, ...] = ()) -> dict[str, Any]:
        """Return a chunk with text, or with thinking."""
        shown = self._logprobs(logprobs)
        self._offset += len(thought.text)
        if not self._chat:
            return self._choice({"text": thought.text, "logprobs": shown, "finish_reason": None})
        if not thought.thinking:
            return self._chunk({"content": thought.text}, logprobs=shown)
        content = {"content": thought.text} if thought.text else {}
        return self._chunk({"reasoning_content": thought.thinking, **content}, logprobs=shown)

    def calling(self, part: AnswerPart, identity: str) -> dict[str, Any]:
        """Return a chunk of a call; the first one has its id and name."""
        call: dict[str, Any] = {"index": 0, "function": {"arguments": part.arguments}}
        if part.name is not None:
            call |= {"id": identity, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        return self._chunk({"tool_calls": [call]})

    def last(self, completion: Completion, *, called: bool = False) -> dict[str, Any]:
        """Return the chunk with the finish reason."""
        reason = _CALLED if called else _FINISHED.get(completion.finish_reason, completion.finish_reason)
        if self._chat:
            return self._chunk({}, finish_reason=reason)
        return self._choice({"text": "", "logprobs": None, "finish_reason": reason})

    def usage(self, completion: Completion) -> dict[str, Any]:
        """Return the chunk with the usage."""
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": [], "usage": usage(completion)}

    def whole(
        self, completion: Completion, thought: Thought, call: Call | None = None, *, called: bool = False
    ) -> dict[str, Any]:
        """Return a whole answer, without a stream.

        Args:
            completion: The completion.
            thought: Its text, divided.
            call: The call that it is.
            called: Whether the call is complete.
        """
        reason = _CALLED if called else _FINISHED.get(completion.finish_reason, completion.finish_reason)
        logprobs = self._logprobs(completion.logprobs)
        choice: dict[str, Any] = {"index": 0, "logprobs": logprobs, "finish_reason": reason}
        if call is not None:
            function = {"name": call.name, "arguments": call.arguments}
            calls = [{"id": call.identity, "type": "function", "function": function}]
            choice["message"] = {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None}
        elif self._chat:
            thinking = {"reasoning_content": thought.thinking} if thought.thinking else {}
            choice["message"] = {"role": "assistant", "content": thought.text, **thinking, "refusal": None}
        else:
            choice["text"] = thought.text
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": [choice], "usage": usage(completion)}

    def _chunk(
        self, delta: dict[str, Any], *, logprobs: Any = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._common, "object": "chat.completion.chunk", "choices": [choice]}

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._common, "object": "text_completion", "choices": [{"index": 0, **choice}]}

    def _logprobs(self, logprobs: tuple[Logprob, ...]) -> dict[str, Any] | None:
        if not logprobs:
            return None
        if self._chat:
            content = [
                _likely(one.piece, one.logprob)
                | {"top_logprobs": [_likely(other.piece, other.logprob) for other in one.top]}
                for one in logprobs
            ]
            return {"content": content, "refusal": None}
        offsets, offset = [], self._offset
        for one in logprobs:
            offsets.append(offset)
            offset += len(_text(one.piece))
        return {
            "tokens": [_text(one.piece) for one in logprobs],
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{_text(other.piece): other.logprob for other in one.top} for one in logprobs],
            "text_offset": offsets,
        }


def usage(completion: Completion) -> dict[str, Any]:
    """Return the usage of a completion, in tokens."""
    prompt = completion.n_prompt - completion.n_truncated
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion.n_sampled,
        "total_tokens": prompt + completion.n_sampled,
        "prompt_tokens_details": {"cached_tokens": completion.n_cached},
    }


def _likely(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _text(piece), "logprob": logprob, "bytes": list(piece)}


def _text(piece: bytes) -> str:
    return piece.decode(errors="replace")


def event(value: dict[str, Any]) -> bytes:
    """Return an event of a stream."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def embeddings(found: list[Embedding], model: str, encoding: Literal["float", "base64"]) -> dict[str, Any]:
    """Return the vectors of texts."""
    n_prompt = sum(one.n_prompt for one in found)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": _vector(one.embedding, encoding)}
            for i, one in enumerate(found)
        ],
        "model": model,
        "usage": {"prompt_tokens": n_prompt, "total_tokens": n_prompt},
    }


def _vector(values: tuple[float, ...], encoding: Literal["float", "base64"]) -> tuple[float, ...] | str:
    if encoding == "float":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def entry(card: Card) -> dict[str, Any]:
    """Return an entry of ``/v1/models``."""
    created = int(card.modified_at.timestamp())
    return {"id": card.name, "object": "model", "created": created, "owned_by": "library"}
