"""Serves ollama's and OpenAI's API over runtimes: `app` makes an ASGI application for trio. It needs the extra "serve".

::

    async with open_runtime("model.gguf", log="session.jsonl") as runtime:
        application = app({"model": runtime})
"""

from reenact.runtime.http.application import app

__all__ = ["app"]
