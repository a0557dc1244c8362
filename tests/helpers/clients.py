"""Servers for clients that people use, and the clients `ollama` and `openai` called in a thread."""

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import ollama
import openai
import pytest
import trio
from pydantic import BaseModel

from reenact.runtime.engine.scripted import NAN
from tests.helpers.paths import ROOT
from tests.helpers.serving import Server, scripted, serving


class Person(BaseModel):
    name: str
    age: int


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Server]:
    """Serve a model for a text, for a person as JSON, for a call and for vectors; one that breaks, and a slow one."""
    async with serving(
        scripted("hello", folder, ["Hel", "lo"]),
        scripted("json", folder, ['{"name": "Ann",', ' "age": 7}']),
        scripted("tool", folder, ['{"name": "weather", "arg', 'uments": {"city": "Ro', 'me"}}']),
        scripted("vectors", folder, vectors={"a": [3.0, 4.0], "b": [0.0, 1.0]}),
        scripted("broken", folder, ["Hel", NAN]),
        scripted("slow", folder, ["x"] * 20, batch_seconds=0.05, settings={"n_slots": 1, "max_waiting": 0}),
    ) as server:
        yield server


async def ask_ollama(server: Server, call: Any) -> Any:
    """Call the client in a thread; it is closed behind that."""

    def asked() -> Any:
        with ollama.Client(server.url) as client:
            return call(client)

    return await trio.to_thread.run_sync(asked)


async def ask_openai(server: Server, call: Any, **settings: Any) -> Any:
    """Call the client in a thread; it is closed behind that."""

    def asked() -> Any:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", **settings) as client:
            return call(client)

    return await trio.to_thread.run_sync(asked)


NAMES: Final = {"chat": "hello", "schema": "json", "tool": "tool", "vectors": "vectors", "slow": "slow"}
"""The scripted models for a program of `tests/helpers/programs/clients/`."""

_SHARED: Final = {
    "schema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 10},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
    },
    "tool": {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
            },
        },
    },
}
"""The schema and the tool of every such program."""
_PYTHON: Final = ROOT / ".venv-clients" / "bin" / "python"
_MODULES: Final = ROOT / ".venv-clients" / "node_modules"
_PROGRAMS: Final = ROOT / "tests" / "helpers" / "programs" / "clients"


def skip_without(program: str) -> None:
    """Leave a test out where the client of its program is not installed; a server must not have begun."""
    if not _PYTHON.exists():
        pytest.skip("make .venv-clients/.installed installs the clients")
    if program.endswith(".mjs") and (shutil.which("node") is None or not _MODULES.exists()):
        pytest.skip("node or its packages are not to be had")


async def told_by(program: str, url: str, names: dict[str, str], folder: Path) -> Any:
    """Run a program with a client, and return what it tells; call `skip_without` first.

    Args:
        program: Its file's name; one in JavaScript is run by node.
        url: The server.
        names: The model for each kind of call; "" where there is none.
        folder: Where the client may keep files.
    """
    path = _PROGRAMS / program
    if path.suffix == ".mjs":
        # node looks for packages beside a program.
        (folder / "node_modules").symlink_to(_MODULES)
        path = Path(shutil.copy(path, folder))
    runs = "node" if path.suffix == ".mjs" else _PYTHON
    env = os.environ | {"OLLAMA_HOST": url, "LLM_USER_PATH": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with trio.fail_after(300):
        done = await trio.run_process(
            [runs, path, url, json.dumps(names), json.dumps(_SHARED)],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            env=env,
        )
    assert 0 == done.returncode, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])
