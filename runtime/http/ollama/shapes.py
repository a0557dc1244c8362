"""Describes the answers of ollama's API for the OpenAPI document."""

from typing import Final

from reenact.runtime.http.document import FLAG, NUMBER, TEXT, TIME, WHOLE, list_of, object_of

_DETAILS: Final = object_of(
    parent_model=TEXT,
    format=TEXT,
    family=TEXT,
    families=list_of(TEXT),
    parameter_size=TEXT,
    quantization_level=TEXT,
)
_TAG: Final = {
    "name": TEXT,
    "model": TEXT,
    "modified_at": TIME,
    "size": WHOLE,
    "digest": TEXT,
    "details": _DETAILS,
}
_TOKEN: Final = {"token": TEXT, "logprob": NUMBER, "bytes": list_of(WHOLE)}
_LOGPROB: Final = object_of(("top_logprobs",), **_TOKEN, top_logprobs=list_of(object_of(**_TOKEN)))
_CALL: Final = object_of(id=TEXT, function=object_of(index=WHOLE, name=TEXT, arguments={"type": "object"}))
_MESSAGE: Final = object_of(
    ("tool_calls", "thinking"), role=TEXT, content=TEXT, tool_calls=list_of(_CALL), thinking=TEXT
)
_AT_THE_END: Final = {
    "done_reason": {"enum": ["stop", "length", "load", "unload"]},
    "total_duration": WHOLE,
    "load_duration": WHOLE,
    "prompt_eval_count": WHOLE,
    "prompt_eval_duration": WHOLE,
    "eval_count": WHOLE,
    "eval_duration": WHOLE,
}
_PART: Final = {"model": TEXT, "created_at": TIME, "done": FLAG, "logprobs": list_of(_LOGPROB), **_AT_THE_END}
_OPTIONAL: Final = ("logprobs", *_AT_THE_END)

VERSION: Final = object_of(version=TEXT)
TAGS: Final = object_of(models=list_of(object_of(**_TAG)))
PS: Final = object_of(models=list_of(object_of(**_TAG, expires_at=TIME, size_vram=WHOLE, context_length=WHOLE)))
SHOWN: Final = object_of(
    modelfile=TEXT,
    parameters=TEXT,
    template=TEXT,
    details=_DETAILS,
    model_info={"type": "object"},
    capabilities=list_of(TEXT),
    modified_at=TIME,
)
GENERATED: Final = object_of(("thinking", *_OPTIONAL), **_PART, response=TEXT, thinking=TEXT)
CHATTED: Final = object_of(_OPTIONAL, **_PART, message=_MESSAGE)
EMBEDDED: Final = object_of(
    model=TEXT,
    embeddings=list_of(list_of(NUMBER)),
    total_duration=WHOLE,
    load_duration=WHOLE,
    prompt_eval_count=WHOLE,
)
OLD_EMBEDDED: Final = object_of(embedding=list_of(NUMBER))
