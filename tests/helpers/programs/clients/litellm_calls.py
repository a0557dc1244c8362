"""Calls a server with `litellm`, by ollama's API and by OpenAI's, and prints the results as JSON."""

import json
import sys
from typing import Any

import litellm
from pydantic import BaseModel, Field

URL, MODELS, SHARED = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
MESSAGES = [{"role": "user", "content": "x"}]
litellm.suppress_debug_info = True
LIMITS = {"seed": 7, "max_tokens": 60}


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=10)
    age: int = Field(ge=0, le=150)


def calls(asked: dict[str, Any]) -> list[Any]:
    """Return the names and arguments of the calls in an answer."""
    message = litellm.completion(**asked).choices[0].message
    return [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or ()]


def seen(prefix: str, base: str) -> dict[str, Any]:
    """Return the result of each call."""

    def asked(kind: str, **more: Any) -> dict[str, Any]:
        return {"model": f"{prefix}/{MODELS[kind]}", "api_base": base, "api_key": "any", "messages": MESSAGES} | more

    chat = asked("chat", temperature=0.5, **LIMITS)
    whole = litellm.completion(**chat)
    chunks = list(litellm.completion(**chat, stream=True))
    form = litellm.completion(**asked("schema", response_format=Person, **LIMITS)).choices[0].message.content
    told = {
        "whole": whole.choices[0].message.content,
        "tokens": whole.usage.completion_tokens,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
        "end": chunks[-1].choices[0].finish_reason,
        "schema": json.loads(form),
        "tools": calls(asked("tool", tools=[SHARED["tool"]], **LIMITS)),
    }
    try:
        litellm.completion(**asked("chat") | {"model": f"{prefix}/nothing"}, num_retries=0)
    except litellm.exceptions.APIError as error:
        told["unknown"] = [type(error).__name__, error.status_code]
    except Exception as error:  # noqa: BLE001  # which one it is, is what is told
        told["unknown"] = [type(error).__name__, getattr(error, "status_code", None)]
    if MODELS["vectors"]:
        named = {"model": f"{prefix.removesuffix('_chat')}/{MODELS['vectors']}", "api_base": base, "api_key": "any"}
        told["vectors"] = [one["embedding"] for one in litellm.embedding(input=["a", "b"], **named).data]
    return told


print(json.dumps({"ollama": seen("ollama_chat", URL), "openai": seen("openai", f"{URL}/v1")}))  # noqa: T201
