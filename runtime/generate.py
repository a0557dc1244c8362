"""Several prompts through one runtime, shown as they grow: the work behind ``reenact generate``."""

from pathlib import Path
from typing import Any

import trio

from reenact.actors.errors import EngineBroken, ReenactError
from reenact.actors.options import RequestOptions
from reenact.runtime.api import open_runtime
from reenact.runtime.display import Display
from reenact.runtime.streams import Completion
from reenact.runtime.tasks import Runtime


def generate(
    model: Path, prompts: list[str], display: Display, *, log: Path | None, settings: dict[str, Any], options: dict[str, Any]
) -> list[ReenactError | None]:
    """Complete all prompts at once.

    Returns:
        What became of each prompt: None, or its error. One that fails does not end the others.

    Raises:
        KeyboardInterrupt: After the log was closed.
        OSError, ReenactError: There is no session, or it broke.
    """
    errors: list[ReenactError | None] = [None] * len(prompts)
    try:
        trio.run(_generate, model, prompts, display, log, settings, options, errors)
    except BaseExceptionGroup as group:
        # Ctrl-C can come up in any task; one error is all that a person needs.
        interrupts, _ = group.split(KeyboardInterrupt)
        if interrupts is not None:
            raise KeyboardInterrupt from None
        raise group.exceptions[0] from None
    return errors


async def _generate(
    model: Path,
    prompts: list[str],
    display: Display,
    log: Path | None,
    settings: dict[str, Any],
    options: RequestOptions,
    errors: list[ReenactError | None],
) -> None:
    engine = _engine(model, display)
    with display:
        async with (
            open_runtime(engine, log=log, max_waiting=len(prompts), **settings) as runtime,
            trio.open_nursery() as nursery,
        ):
            display.loaded()
            for i, prompt in enumerate(prompts):
                nursery.start_soon(_one, runtime, i, prompt, display, options, errors)


def _engine(model: Path, display: Display) -> Any:
    try:
        from reenact.runtime.llama import LlamaEngine  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise EngineBroken(f"llama.cpp is not installed ({error}); pip install 'reenact[llama]' compiles it") from None
    return LlamaEngine(model, on_progress=display.loading)


async def _one(
    runtime: Runtime,
    i: int,
    prompt: str,
    display: Display,
    options: RequestOptions,
    errors: list[ReenactError | None],
) -> None:
    completion: Completion | None = None
    try:
        async with runtime.stream(prompt, **options) as stream:
            async for chunk in stream:
                display.grow(i, chunk.text)
        completion = stream.completion
    except ReenactError as error:
        errors[i] = error
    display.finish(i, completion)
