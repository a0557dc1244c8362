"""The models that an application serves: their names, what is told of each, and their runtimes while they are in use.

The rules that hold here:

* A name without a tag means the tag "latest", and case does not matter.
* Who uses a runtime holds it: it is not left before they are done.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Literal, Protocol

from attrs import frozen

from reenact.actors import events as e
from reenact.runtime.http.failures import UnknownModel
from reenact.runtime.model_store import full_name
from reenact.runtime.runtime import Runtime

Capability = Literal["completion", "embedding"]


@frozen(kw_only=True)
class Card:
    """What clients are told of a model."""

    name: str
    """With its tag."""
    size: int
    """Bytes of its file."""
    digest: str
    """The file's SHA-256."""
    modified_at: datetime
    n_ctx: int
    """Tokens that one sequence may have here."""
    capability: Capability
    architecture: str
    parameter_size: str = ""
    """As people write it: "135M"."""
    quantization: str = ""
    template: str = ""


@frozen(kw_only=True)
class InUse:
    """A runtime that is held."""

    runtime: Runtime
    load_seconds: float
    """How long it was waited for."""


@frozen(kw_only=True)
class Running:
    """A model that is loaded."""

    card: Card
    runtime: Runtime
    expires_at: datetime | None
    """When it is unloaded if nobody asks; None for never."""


class Models(Protocol):
    """What an application serves."""

    async def cards(self) -> list[Card]:
        """Return what is told of each model, in the order of their names."""

    def running(self) -> list[Running]:
        """Return the models that are loaded."""

    def using(self, name: str, keep_alive: float | None = None) -> AbstractAsyncContextManager[InUse]:
        """Hold a model's runtime; it is loaded where it was not.

        Args:
            name: As a client says it.
            keep_alive: Seconds that it stays loaded behind this; None for as long as is usual.

        Raises:
            UnknownModel: It is not served.
            InvalidRequest, EngineBroken, LogBroken: It cannot be loaded.
        """

    def unload(self, name: str) -> None:
        """Leave a model as soon as nobody uses it.

        Raises:
            UnknownModel: It is not served.
        """


class GivenModels:
    """Runtimes that the application has opened, and leaves itself: they stay loaded."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = {full_name(name): runtime for name, runtime in runtimes.items()}

    async def cards(self) -> list[Card]:
        """Return what is told of each, by their headers."""
        return [card_of(name, self._runtimes[name].header) for name in sorted(self._runtimes)]

    def running(self) -> list[Running]:
        """Return all of them."""
        return [
            Running(card=card_of(name, runtime.header), runtime=runtime, expires_at=None)
            for name, runtime in sorted(self._runtimes.items())
        ]

    @asynccontextmanager
    async def using(self, name: str, keep_alive: float | None = None) -> AsyncIterator[InUse]:  # noqa: ARG002  # for ever
        """Hold a runtime."""
        yield InUse(runtime=self._named(name), load_seconds=0.0)

    def unload(self, name: str) -> None:
        """Leave it to the application."""
        self._named(name)

    def _named(self, name: str) -> Runtime:
        runtime = self._runtimes.get(full_name(name))
        if runtime is None:
            raise UnknownModel(name)
        return runtime


def card_of(name: str, header: e.SessionOpened) -> Card:
    """Return what the header of a session tells of its model."""
    return Card(
        name=name,
        size=header.model.size,
        digest=header.model.sha256,
        modified_at=datetime.fromisoformat(header.opened_at).astimezone(UTC),
        n_ctx=header.context.n_ctx,
        capability="completion" if header.context.pooling == "none" else "embedding",
        architecture=header.model.description.partition(" ")[0],
    )


async def card_for(models: Models, name: str) -> Card:
    """Return what is told of one model.

    Raises:
        UnknownModel: It is not served.
    """
    wanted = full_name(name)
    for card in await models.cards():
        if card.name == wanted:
            return card
    raise UnknownModel(name)
