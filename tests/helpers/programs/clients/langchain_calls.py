"""Calls a server with `langchain-ollama` and `langchain-openai`, and prints the results as JSON."""

import json
import sys
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

URL, MODELS, SHARED = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
KEY: Any = "any"


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=10)
    age: int = Field(ge=0, le=150)


def seen(model: Any) -> dict[str, Any]:
    """Return the result of each call.

    Args:
        model: A function that makes a chat model, from the kind of model.
    """
    chat, tool = model("chat"), model("tool").bind_tools([SHARED["tool"]])
    chunks = list(chat.stream("x"))
    answer = tool.invoke("x")
    told = {
        "whole": chat.invoke("x").content,
        "streamed": "".join(chunk.content for chunk in chunks),
        "schema": model("schema").with_structured_output(Person, method="json_schema").invoke("x").model_dump(),
        "tools": [[call["name"], call["args"]] for call in answer.tool_calls],
    }
    results = [ToolMessage("sunny", tool_call_id=call["id"]) for call in answer.tool_calls]
    told["after"] = chat.invoke([HumanMessage("x"), answer, *results]).content
    return told


def by_ollama(kind: str) -> ChatOllama:
    """Return a model of ollama's API."""
    return ChatOllama(model=MODELS[kind], base_url=URL, seed=7, num_predict=60)


def by_openai(kind: str) -> ChatOpenAI:
    """Return a model of OpenAI's API."""
    return ChatOpenAI(model=MODELS[kind], base_url=f"{URL}/v1", api_key=KEY, seed=7, max_tokens=60)


told: dict[str, Any] = {"ollama": seen(by_ollama), "openai": seen(by_openai)}
if MODELS["vectors"]:
    vectors = OpenAIEmbeddings(
        model=MODELS["vectors"], base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    told["ollama"]["vectors"] = OllamaEmbeddings(model=MODELS["vectors"], base_url=URL).embed_documents(["a", "b"])
    told["openai"]["vectors"] = vectors.embed_documents(["a", "b"])
for name, error in (("ollama", by_ollama), ("openai", by_openai)):
    MODELS["chat"] = "nothing"
    try:
        error("chat").invoke("x")
    except Exception as raised:  # noqa: BLE001  # which one it is, is what is told
        told[name]["unknown"] = [type(raised).__name__, getattr(raised, "status_code", None)]
print(json.dumps(told))  # noqa: T201
