"""Use a runtime in an asyncio program: trio runs in a thread beside asyncio's loop, and a portal leads there.

The portal is anyio's, which comes with the extra "serve". A task that is cancelled on asyncio cancels its request. Open
the runtime around ``asyncio.run``, because loading a model takes a while. Run it with
``python examples/from_asyncio.py``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from reenact.runtime import Engine, Runtime, installed_model, open_runtime


async def call(portal: BlockingPortal, work: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # what it returns
    """Run one of a runtime's methods on trio, and wait for it on asyncio."""
    return await asyncio.wrap_future(portal.start_task_soon(partial(work, *arguments, **options)))


async def stream(portal: BlockingPortal, runtime: Runtime, prompt: str, **options: Any) -> AsyncIterator[str]:  # noqa: ANN401
    """Yield a text as it grows; closing the generator cancels the request."""
    loop, texts = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    async def read() -> None:
        try:
            async with runtime.stream(prompt, **options) as chunks:
                async for chunk in chunks:
                    loop.call_soon_threadsafe(texts.put_nowait, chunk.text)
        finally:
            loop.call_soon_threadsafe(texts.put_nowait, None)

    reading = portal.start_task_soon(read)
    try:
        while (text := await texts.get()) is not None:
            yield text
        await asyncio.wrap_future(reading)  # So that an error of the request is raised here.
    finally:
        reading.cancel()


async def ask(portal: BlockingPortal, runtime: Runtime) -> tuple[str, str]:
    """Complete a prompt, and read another text as it grows, both at once."""

    async def grow() -> str:
        return "".join([text async for text in stream(portal, runtime, "Once upon a time", seed=7, num_predict=16)])

    completion, story = await asyncio.gather(
        call(portal, runtime.complete, "The capital of France is", seed=7, num_predict=16), grow()
    )
    return completion.text, story


def main(model: str | Engine, log: str) -> tuple[str, str]:
    """Open a runtime in a thread of trio's, and ask it from asyncio."""
    opening = partial(open_runtime, model, log=log)
    with start_blocking_portal("trio") as portal, portal.wrap_async_context_manager(opening()) as runtime:
        return asyncio.run(ask(portal, runtime))


if __name__ == "__main__":
    print(*main(str(installed_model()), "asyncio.jsonl"), sep="\n")
