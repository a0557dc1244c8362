"""The header of a session whose engine plays scripts, with the settings that a test names."""

from typing import Literal

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.replay.testing.kernel import context_of, header_of


def opened(
    *,
    n_slots: int = 2,
    n_ctx: int = 64,
    n_batch: int = 32,
    max_waiting: int = 8,
    shift: Literal["move", "evaluate"] = "evaluate",
    pooling: str = "none",
    alone: bool = True,
) -> e.SessionOpened:
    """Return the header of a session whose engine is `tests.helpers.driver.Driver`."""
    context = context_of(
        n_slots=n_slots,
        n_ctx=n_ctx,
        n_ctx_seq=n_ctx,
        n_batch=n_batch,
        shift=shift,
        pooling=pooling,
        alone=alone,
    )
    header = header_of(context, max_waiting=max_waiting)
    engine, model = changed(header.engine, name="driver"), changed(header.model, name="script")
    return changed(header, engine=engine, model=model)
