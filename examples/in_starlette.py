"""A Starlette application that serves ollama's and OpenAI's API under a path of its own, beside its other pages.

It runs on trio. Run it with ``python examples/in_starlette.py``, and give a client the address
``http://127.0.0.1:8000/llm`` (ollama) or ``http://127.0.0.1:8000/llm/v1`` (OpenAI).
"""

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from reenact.runtime import Runtime, installed_model, open_runtime
from reenact.runtime.http import app


def application(runtime: Runtime) -> Starlette:
    """Return the application: a page that asks the runtime itself, and the API for clients, on the same model."""

    async def story(request: Request) -> PlainTextResponse:
        completion = await runtime.complete(f"{request.path_params['name']} lived", num_predict=32)
        return PlainTextResponse(completion.text, headers={"x-reenact-sequence": str(completion.sequence)})

    return Starlette(routes=[Route("/story/{name}", story), Mount("/llm", app({"smollm2": runtime}))])


async def main() -> None:
    """Serve until Ctrl-C."""
    async with open_runtime(installed_model(), log="starlette.jsonl") as runtime:
        config = Config()
        config.bind = ["127.0.0.1:8000"]
        await serve(application(runtime), config)  # type: ignore[arg-type]  # its types are ASGI's, told otherwise


if __name__ == "__main__":
    trio.run(main)
