"""Serves the text of OpenAI's ``/v1/responses``: messages in, one message out, with the model's thinking before it.

The rules that hold here:

* A response is not stored by its id: the log has it. So a conversation is sent as a whole, and
  ``previous_response_id`` is refused.
* Tools are refused; ``/v1/chat/completions`` has them.
* The events of a stream and the whole response are made by the same code.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import orjson
from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_INTEGER
from reenact.runtime.http.document import NUMBER, TEXT, WHOLE, list_of, nullable, object_of
from reenact.runtime.http.failures import openai_shape
from reenact.runtime.http.fields import (
    Refusal,
    Table,
    each,
    filled,
    flag,
    listed,
    mapping,
    nested,
    one_of,
    option,
    takes,
    text,
    within,
)
from reenact.runtime.http.openai.requests import SAMPLING, SYSTEM_ROLES, response_format
from reenact.runtime.http.thinking import Thought
from reenact.runtime.results import Completion

_MESSAGE: Final = "message"
_REASONING: Final = "reasoning"

_PART: Final = Table(
    done={"type": one_of("input_text", "output_text", "text"), "text": text}, required=("type", "text")
)


@takes(anyOf=[{"type": "string"}, {"type": "array", "items": _PART.schema}])
def _content(name: str, value: object) -> str:
    """Return a content as one text, its parts joined."""
    if not isinstance(value, list):
        return text(name, value)
    return "".join(part["text"] for part in each(nested(_PART))(name, value))


_ITEM: Final = Table(done={"type": one_of(_MESSAGE), "role": text, "content": _content}, required=("role",))


@takes(
    anyOf=[
        {"type": "object", "properties": {"type": {"enum": ["text", "json_object"]}}, "required": ["type"]},
        {
            "type": "object",
            "properties": {"type": {"enum": ["json_schema"]}, "schema": {"type": "object", "minProperties": 1}},
            "required": ["type", "schema"],
        },
    ]
)
def _format(name: str, value: object) -> object:
    """Return the format for an answer, whose schema lies beside its type here."""
    asked = mapping(name, value)
    return response_format(name, {"json_schema": asked, **asked})


_OLD_THINKING: Final = {"type": "object", "properties": {"type": {"enum": [_REASONING]}}, "required": ["type"]}


@takes(
    anyOf=[
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [_ITEM.schema, _OLD_THINKING]}, "contains": _ITEM.schema},
    ]
)
def _input(name: str, value: object) -> list[dict[str, Any]]:
    """Return the messages of an input."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    # Templates leave old thinking out.
    kept = [item for item in listed(name, value) if not (isinstance(item, dict) and item.get("type") == _REASONING)]
    if not kept:
        raise InvalidRequest(name, "there is no message in it")
    return [
        {"role": SYSTEM_ROLES.get(item["role"], item["role"]), "content": item.get("content", "")}
        for item in each(nested(_ITEM))(name, kept)
    ]


RESPONSE: Final = Table(
    done={
        "model": filled(text),
        "input": _input,
        "instructions": text,
        "stream": flag,
        "temperature": option("temperature"),
        "top_p": option("top_p"),
        **SAMPLING,
        "max_output_tokens": within(0, MAX_INTEGER),
        "metadata": mapping,
        "text": nested(Table(done={"format": _format})),
    },
    refused={
        "tools": Refusal(reason="they are supported in /v1/chat/completions"),
        "tool_choice": Refusal(reason="there are no tools to choose from", but=("auto", "none")),
        "previous_response_id": Refusal(reason="responses are not stored: send the whole conversation as input"),
        "conversation": Refusal(reason="conversations are not stored: send the whole conversation as input"),
        "background": Refusal(reason="a response is generated while its client waits"),
        "prompt": Refusal(reason="there are no stored prompts"),
        "reasoning": Refusal(reason="there are no levels of thinking"),
        "top_logprobs": Refusal(reason="they are supported in /v1/chat/completions"),
        "truncation": Refusal(reason="an input that is too long is an error", but=("disabled",)),
    },
    required=("model", "input"),
)


@frozen(kw_only=True)
class ResponseAsked:
    """A client's request for a response."""

    model: str
    messages: list[Mapping[str, Any]]
    instructions: str | None
    metadata: dict[str, Any]
    """The client's own notes, which come back with the response."""
    stream: bool
    options: dict[str, Any]
    prompt: None = None
    tools: None = None
    think: None = None


def response_asked(body: dict[str, Any]) -> ResponseAsked:
    """Return the request of ``/v1/responses``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = RESPONSE.read(body)
    options: dict[str, Any] = {name: fields.get(name, 1.0) for name in ("temperature", "top_p")}
    options |= {name: fields[name] for name in SAMPLING if name in fields} | {"truncate": False, "shift": False}
    if "max_output_tokens" in fields:
        options["num_predict"] = fields["max_output_tokens"]
    if (form := fields.get("text", {}).get("format")) is not None:
        options["format"] = form
    instructions = fields.get("instructions")
    first = [] if instructions is None else [{"role": "system", "content": instructions}]
    return ResponseAsked(
        model=fields["model"],
        messages=[*first, *fields["input"]],
        instructions=instructions,
        metadata=fields.get("metadata", {}),
        stream=fields.get("stream", False),
        options=options,
    )


class ResponseAnswer:
    """One response, which grows.

    Args:
        asked: The request.
        created: The time in Unix seconds.
    """

    def __init__(self, asked: ResponseAsked, *, created: int) -> None:
        self.identity = ""
        """The response's id, without its prefix."""
        self._asked = asked
        self._created = created
        self._n_events = 0
        self._done: list[dict[str, Any]] = []
        """The items that are complete."""
        self._kind: Literal["message", "reasoning"] | None = None
        """The kind of the item that grows."""
        self._text = ""

    def begin(self) -> Iterator[bytes]:
        """Return the first events."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self._response("in_progress"))

    def take(self, thought: Thought) -> Iterator[bytes]:
        """Add text, and return its events."""
        if thought.thinking:
            yield from self._grown("reasoning", thought.thinking)
        if thought.text:
            yield from self._grown("message", thought.text)

    def end(self, completion: Completion) -> Iterator[bytes]:
        """Return the last events."""
        if self._kind != _MESSAGE and not any(item["type"] == _MESSAGE for item in self._done):
            yield from self._grown("message", "")
        status = "completed" if completion.finish_reason == "stop" else "incomplete"
        yield from self._closed(status)
        yield self._event(f"response.{status}", response=self._response(status, completion))

    def whole(self, thought: Thought, completion: Completion) -> dict[str, Any]:
        """Return the whole response."""
        for _ in (*self.take(thought), *self.end(completion)):
            pass
        status = "completed" if completion.finish_reason == "stop" else "incomplete"
        return self._response(status, completion)

    def failed(self, error: Exception) -> bytes:
        """Return the event that ends a stream with an error."""
        told = openai_shape(error)["error"]
        return self._event("error", code=told["type"], message=told["message"], param=told["param"])

    def _grown(self, kind: Literal["message", "reasoning"], more: str) -> Iterator[bytes]:
        if self._kind != kind:
            yield from self._closed("completed")
            self._kind, self._text = kind, ""
            yield self._event(
                "response.output_item.added", output_index=len(self._done), item=self._item("in_progress")
            )
            if kind == _MESSAGE:
                yield self._event("response.content_part.added", **self._place(), part=self._part())
        self._text += more
        if more:
            yield self._event(f"response.{self._part()['type']}.delta", **self._place(), delta=more, logprobs=[])

    def _closed(self, status: str) -> Iterator[bytes]:
        """End the item that grows."""
        if self._kind is None:
            return
        yield self._event(f"response.{self._part()['type']}.done", **self._place(), text=self._text, logprobs=[])
        if self._kind == _MESSAGE:
            yield self._event("response.content_part.done", **self._place(), part=self._part())
        item = self._item(status)
        yield self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)
        self._kind = None

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id(), "output_index": len(self._done), "content_index": 0}

    def _item_id(self) -> str:
        return f"{'msg' if self._kind == _MESSAGE else 'rs'}-{self.identity}"

    def _part(self) -> dict[str, Any]:
        if self._kind == _MESSAGE:
            return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}
        return {"type": "reasoning_text", "text": self._text}

    def _item(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self._part()]
        item = {"id": self._item_id(), "type": self._kind, "status": status, "content": content}
        return {**item, "role": "assistant"} if self._kind == _MESSAGE else {**item, "summary": []}

    def _response(self, status: str, completion: Completion | None = None) -> dict[str, Any]:
        return {
            "id": f"resp-{self.identity}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self._asked.instructions,
            "max_output_tokens": self._asked.options.get("num_predict"),
            "metadata": self._asked.metadata,
            "model": self._asked.model,
            "output": list(self._done),
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "temperature": self._asked.options["temperature"],
            "tool_choice": "auto",
            "tools": [],
            "top_p": self._asked.options["top_p"],
            "truncation": "disabled",
            "usage": None if completion is None else _usage(completion),
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._n_events = self._n_events, self._n_events + 1
        data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _usage(completion: Completion) -> dict[str, Any]:
    prompt = completion.n_prompt - completion.n_truncated
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": completion.n_cached},
        "output_tokens": completion.n_sampled,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion.n_sampled,
    }


RESPONDED: Final = object_of(
    id=TEXT,
    object={"enum": ["response"]},
    created_at=WHOLE,
    status={"enum": ["in_progress", "completed", "incomplete"]},
    error={"type": "null"},
    incomplete_details=nullable({"type": "object"}),
    instructions=nullable(TEXT),
    max_output_tokens=nullable(WHOLE),
    metadata={"type": "object"},
    model=TEXT,
    output=list_of({"type": "object"}),
    parallel_tool_calls={"enum": [False]},
    previous_response_id={"type": "null"},
    temperature=NUMBER,
    tool_choice=TEXT,
    tools=list_of({"type": "object"}),
    top_p=NUMBER,
    truncation=TEXT,
    usage=nullable({"type": "object"}),
)
RESPONSE_EVENT: Final = object_of(event=TEXT, data={"type": "string", "contentMediaType": "application/json"})
