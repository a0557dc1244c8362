"""Describes the answers of OpenAI's API for the OpenAPI document."""

from typing import Any, Final

from reenact.runtime.http.document import NUMBER, TEXT, WHOLE, list_of, nullable, object_of

_NULL: Final = {"type": "null"}
_MODEL: Final = {"id": TEXT, "object": {"enum": ["model"]}, "created": WHOLE, "owned_by": TEXT}
_USAGE: Final = object_of(
    prompt_tokens=WHOLE,
    completion_tokens=WHOLE,
    total_tokens=WHOLE,
    prompt_tokens_details=object_of(cached_tokens=WHOLE),
)
_TOKEN: Final = {"token": TEXT, "logprob": NUMBER, "bytes": list_of(WHOLE)}
_LOGPROBS: Final = nullable(
    object_of(
        content=list_of(object_of(**_TOKEN, top_logprobs=list_of(object_of(**_TOKEN)))),
        refusal=_NULL,
    )
)
_OLD_LOGPROBS: Final = nullable(
    object_of(
        tokens=list_of(TEXT),
        token_logprobs=list_of(NUMBER),
        top_logprobs=list_of({"type": "object", "additionalProperties": NUMBER}),
        text_offset=list_of(WHOLE),
    )
)
_FUNCTION: Final = object_of(("name",), name=TEXT, arguments=TEXT)
_CALL: Final = object_of(id=TEXT, type={"enum": ["function"]}, function=_FUNCTION)
_CALL_PART: Final = object_of(("id", "type"), index=WHOLE, id=TEXT, type={"enum": ["function"]}, function=_FUNCTION)
_MESSAGE: Final = object_of(
    ("tool_calls", "reasoning_content"),
    role=TEXT,
    content=nullable(TEXT),
    reasoning_content=TEXT,
    tool_calls=list_of(_CALL),
    refusal=_NULL,
)
_DELTA: Final = object_of(
    ("role", "content", "reasoning_content", "tool_calls"),
    role=TEXT,
    content=TEXT,
    reasoning_content=TEXT,
    tool_calls=list_of(_CALL_PART),
)
_REASON: Final = {"enum": ["stop", "length", "tool_calls"]}
_COMMON: Final = {"id": TEXT, "created": WHOLE, "model": TEXT, "system_fingerprint": TEXT}


def _answer(kind: str, **choice: Any) -> dict[str, Any]:
    return {**_COMMON, "object": {"enum": [kind]}, "choices": list_of(object_of(index=WHOLE, **choice))}


MODEL: Final = object_of(**_MODEL)
MODELS: Final = object_of(object={"enum": ["list"]}, data=list_of(MODEL))
CHATTED: Final = object_of(
    **_answer("chat.completion", message=_MESSAGE, logprobs=_LOGPROBS, finish_reason=_REASON), usage=_USAGE
)
CHAT_CHUNK: Final = object_of(
    ("usage",),
    **_answer("chat.completion.chunk", delta=_DELTA, logprobs=_LOGPROBS, finish_reason=nullable(_REASON)),
    usage=_USAGE,
)
COMPLETED: Final = object_of(
    **_answer("text_completion", text=TEXT, logprobs=_OLD_LOGPROBS, finish_reason=_REASON), usage=_USAGE
)
COMPLETION_CHUNK: Final = object_of(
    ("usage",),
    **_answer("text_completion", text=TEXT, logprobs=_OLD_LOGPROBS, finish_reason=nullable(_REASON)),
    usage=_USAGE,
)
EMBEDDED: Final = object_of(
    object={"enum": ["list"]},
    data=list_of(object_of(object={"enum": ["embedding"]}, index=WHOLE, embedding={"anyOf": [list_of(NUMBER), TEXT]})),
    model=TEXT,
    usage=object_of(prompt_tokens=WHOLE, total_tokens=WHOLE),
)
