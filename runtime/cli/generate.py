"""Completes several prompts in one runtime, and shows the texts as they grow: the work behind ``reenact generate``."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from reenact.actors.errors import InvalidRequest, ReenactError
from reenact.actors.options import OPTION_NAMES
from reenact.runtime.api import llama_engine, open_runtime
from reenact.runtime.cli.display import Display
from reenact.runtime.model_store import StoredModel
from reenact.runtime.regular import text_of_name
from reenact.runtime.runtime import Runtime
from reenact.runtime.terminal import tell

Errors = list[ReenactError | None]


@frozen
class Job:
    """The prompts to complete, the settings, and the display."""

    model: StoredModel
    prompts: list[str]
    display: Display
    log: Path | None
    settings: dict[str, Any]
    """Arguments of `open_runtime`."""
    options: dict[str, Any]
    """The options of every request."""


def generate(job: Job) -> Errors:
    """Complete all prompts at once.

    Returns:
        The error of each prompt, or None. A prompt that fails does not end the others.

    Raises:
        KeyboardInterrupt: After the log was closed.
        OSError, ReenactError: The session could not be opened, or broke.
    """
    errors: Errors = [None] * len(job.prompts)
    run_for_a_person(_generate, job, errors)
    return errors


def run_for_a_person(work: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run an async function on trio, and raise one error in place of a group: Ctrl-C can be raised in any task."""
    try:
        trio.run(work, *arguments)
    except BaseExceptionGroup as group:
        interrupts, _ = group.split(KeyboardInterrupt)
        if interrupts is not None:
            raise KeyboardInterrupt from None
        raise group.exceptions[0] from None


async def _generate(job: Job, errors: Errors) -> None:
    engine = llama_engine(
        job.model.path,
        name=job.model.header_name,
        on_progress=job.display.loading,
        on_warning=job.display.warn,
    )
    with job.display:
        async with (
            open_runtime(engine, log=job.log, max_waiting=len(job.prompts), **job.settings) as runtime,
            trio.open_nursery() as nursery,
        ):
            job.display.loaded()
            tell_log(runtime, job.log)
            for i in range(len(job.prompts)):
                asked = trio.Event()
                nursery.start_soon(_one, runtime, job, i, errors, asked)
                # In the order of the prompts, so that the log numbers them as the command does.
                await asked.wait()


def tell_log(runtime: Runtime, asked: Path | None) -> None:
    """Print the name of the log if the runtime filled it in."""
    if runtime.log is not None and runtime.log != asked:
        tell("reenact", f"the log is {text_of_name(runtime.log)}")


async def _one(runtime: Runtime, job: Job, i: int, errors: Errors, asked: trio.Event) -> None:
    """Request the completion of a prompt, set ``asked``, and show the text."""
    try:
        async with runtime.stream(job.prompts[i], request_id=f"prompt-{i + 1}", **job.options) as stream:
            asked.set()
            async for chunk in stream:
                job.display.grow(i, chunk.text)
    except ReenactError as error:
        if isinstance(error, InvalidRequest) and error.field in OPTION_NAMES:
            raise  # It does not concern the prompt.
        errors[i] = error
        job.display.finish(i, error)
    else:
        job.display.finish(i, stream.completion)
    finally:
        asked.set()
