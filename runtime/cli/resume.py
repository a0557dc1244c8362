"""Resumes a session whose process died, until its requests have ended: the work behind ``reenact resume``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from reenact.actors.errors import ReenactError
from reenact.actors.events import SessionOpened
from reenact.actors.header import Durability
from reenact.runtime.api import llama_engine, open_runtime
from reenact.runtime.cli.display import LoadingProgress
from reenact.runtime.cli.generate import run_for_a_person
from reenact.runtime.log.reader import LogFile, header_in
from reenact.runtime.model_store import named_model, recorded_model
from reenact.runtime.runtime import Runtime
from reenact.runtime.terminal import print_block, print_json


@frozen
class Resuming:
    """The log of the session, and its model."""

    log: Path
    model: Path | None
    """The model's file, or its name; None for the recorded model."""
    json: bool
    durability: Durability | None = None
    """The durability of the log from here on; None for the one that it has."""


def resume(resuming: Resuming) -> int:
    """Resume a session, and print each text as soon as its request has ended.

    Returns:
        The count of requests that failed.
    """
    failed: list[int] = []
    run_for_a_person(_resume, resuming, failed)
    return len(failed)


async def _resume(resuming: Resuming, failed: list[int]) -> None:
    with LogFile(resuming.log) as log:
        header = header_in(log)
    model = recorded_model(header.model) if resuming.model is None else named_model(resuming.model).path
    loading = LoadingProgress()
    engine = llama_engine(model, on_progress=loading.loading, on_warning=loading.warn)
    settings = dict(settings_of(header)) | {"durability": resuming.durability}
    with loading:
        async with (
            open_runtime(engine, log=resuming.log, resume=True, **settings) as runtime,
            trio.open_nursery() as nursery,
        ):
            loading.loaded()
            for one in runtime.live_requests():
                nursery.start_soon(_one, runtime, one.sequence, resuming, failed)


def settings_of(header: SessionOpened) -> Iterator[tuple[str, Any]]:
    """Return the arguments of `open_runtime` with which a session was opened."""
    for name in ("n_slots", "n_ctx", "n_batch", "n_threads"):
        yield name, getattr(header.context, name)
    for name in ("max_waiting", "max_reader_lag", "max_pause"):
        yield name, getattr(header.limits, name)
    yield "determinism", header.determinism.asked
    yield "logits_hash", header.policies.get("logits_hash") != "none"


async def _one(runtime: Runtime, sequence: int, resuming: Resuming, failed: list[int]) -> None:
    """Wait for the end of a request, and print its text."""
    text, reason = "", "error"
    request_id = None
    try:
        async with runtime.resume(sequence) as stream:
            request_id = stream.request_id
            async for chunk in stream:
                text += chunk.text
        reason = stream.completion.finish_reason
    except ReenactError as error:
        failed.append(sequence)
        reason = f"error: {error}"
    if resuming.json:
        print_json({"sequence": sequence, "request_id": request_id, "finish_reason": reason, "text": text})
    else:
        name = "" if request_id is None else f" ({request_id})"
        print_block(f"--- sequence {sequence}{name}: {reason}\n{text}\n\n")
