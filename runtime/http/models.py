"""Defines the models that an application serves: their names, a card for each, and their runtimes while in use.

The rules that hold here:

* A name without a tag means the tag "latest", and case does not matter.
* A request holds the runtime that it uses, which stays open until the request ends.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, Protocol

from attrs import frozen

from reenact.runtime.http.failures import UnknownModel
from reenact.runtime.model_store import full_name
from reenact.runtime.runtime import Runtime

Capability = Literal["completion", "embedding"]


@frozen(kw_only=True)
class Card:
    """The description of a model for clients."""

    name: str
    """The name with its tag."""
    size: int
    """The size of its file in bytes."""
    digest: str
    """The file's SHA-256, or the name's if there is no file: clients take two models of one digest for one."""
    modified_at: datetime
    n_ctx: int
    """The most tokens of one sequence on this server."""
    capability: Capability
    architecture: str
    parameter_size: str = ""
    """The count of parameters as people write it: "135M"."""
    quantization: str = ""
    template: str = ""


@frozen(kw_only=True)
class InUse:
    """A runtime that a request holds."""

    runtime: Runtime
    load_seconds: float
    """The seconds that the request waited for it."""


@frozen(kw_only=True)
class Running:
    """A model that is loaded."""

    card: Card
    runtime: Runtime
    expires_at: datetime | None
    """The time at which it is unloaded if no request comes; None for never."""


class Models(Protocol):
    """The models that an application serves."""

    async def cards(self) -> list[Card]:
        """Return the card of each model, in the order of their names."""

    def running(self) -> list[Running]:
        """Return the models that are loaded."""

    def using(self, name: str, keep_alive: float | None = None) -> AbstractAsyncContextManager[InUse]:
        """Hold a model's runtime, and load it first if necessary.

        Args:
            name: The name as the client writes it.
            keep_alive: Seconds that it stays loaded after this use; None for the usual time.

        Raises:
            UnknownModel: The model is not served.
            InvalidRequest, EngineBroken, LogBroken: The model cannot be loaded.
        """

    def unload(self, name: str) -> None:
        """Close a model's runtime as soon as no request uses it.

        Raises:
            UnknownModel: The model is not served.
        """


class GivenModels:
    """Runtimes that the application opens and closes itself, so that they stay loaded."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = {full_name(name): runtime for name, runtime in runtimes.items()}

    async def cards(self) -> list[Card]:
        """Return the card of each, made from its session."""
        return [card_of(name, self._runtimes[name]) for name in sorted(self._runtimes)]

    def running(self) -> list[Running]:
        """Return all of them."""
        return [
            Running(card=card_of(name, runtime), runtime=runtime, expires_at=None)
            for name, runtime in sorted(self._runtimes.items())
        ]

    @asynccontextmanager
    async def using(self, name: str, keep_alive: float | None = None) -> AsyncIterator[InUse]:  # noqa: ARG002  # for ever
        """Hold a runtime."""
        yield InUse(runtime=self._named(name), load_seconds=0.0)

    def unload(self, name: str) -> None:
        """Check the name only; the application closes its runtimes itself."""
        self._named(name)

    def _named(self, name: str) -> Runtime:
        runtime = self._runtimes.get(full_name(name))
        if runtime is None:
            raise UnknownModel(name)
        return runtime


def card_of(name: str, runtime: Runtime) -> Card:
    """Return the card of a loaded model, made from the header of its session."""
    header = runtime.header
    return Card(
        name=name,
        size=header.model.size,
        digest=header.model.sha256 or digest_of(name),
        modified_at=datetime.fromisoformat(header.opened_at).astimezone(UTC),
        n_ctx=header.context.n_ctx,
        capability="completion" if header.context.pooling == "none" else "embedding",
        architecture=header.model.description.partition(" ")[0],
        template=runtime.chat_template,
    )


def digest_of(name: str) -> str:
    """Return a digest for a model that has no file."""
    return sha256(name.encode()).hexdigest()


async def card_for(models: Models, name: str) -> Card:
    """Return the card of one model.

    Raises:
        UnknownModel: The model is not served.
    """
    wanted = full_name(name)
    for card in await models.cards():
        if card.name == wanted:
            return card
    raise UnknownModel(name)
