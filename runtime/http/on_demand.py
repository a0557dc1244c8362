"""Opens a model on its first request, and closes it after a while without requests.

The rules that hold here:

* Each model has its own runtime and its own log; the log's name contains the session, so that a response's header leads
  to it.
* A request that comes while its model is being opened waits; cancelling it does not affect the others.
* A broken runtime takes no new request: it is closed when its last request ends, and the next request opens another.
* If a model cannot be opened or read, or breaks, the server's console prints a warning with the reason; the client gets
  only an error.
"""

import math
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import trio
from attrs import Factory, define, evolve, frozen

from reenact.actors.errors import EngineBroken, InternalError, LogBroken, ReenactError, description
from reenact.runtime.api import llama_engine, open_runtime
from reenact.runtime.engine.protocol import Engine
from reenact.runtime.gguf_head import HeadValue, gguf_head
from reenact.runtime.http.failures import UnknownModel
from reenact.runtime.http.models import Card, InUse, Running, card_of, digest_of
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log_name import escaped, nameable
from reenact.runtime.model_store import StoredModel, full_name
from reenact.runtime.runtime import Runtime
from reenact.runtime.user_cache import keep_sha256, kept_sha256

KEEP_ALIVE: Final = 300.0
"""The default for the seconds that a model stays loaded after its last request: ollama's."""

_ENDLESS: Final = 100 * 365 * 86_400.0
"""The seconds beyond which a model counts as loaded for ever, because no date is so late."""

_BREAKS: Final = (EngineBroken, LogBroken, InternalError)
_BLOCK: Final = 1 << 22

Warn = Callable[[str], None]


@frozen(kw_only=True)
class ServedModel:
    """A model that can be opened."""

    stored: StoredModel
    n_ctx: int
    log_folder: Path | None
    """The folder for the logs of its sessions; None records nothing."""
    settings: dict[str, Any]
    """The other settings for `open_runtime`."""
    engine: Callable[[], Engine] | None = None
    """The function that makes its engine; by default llama.cpp's."""
    resume: bool = False
    """Whether the server, when it starts, goes on with the latest log of this model if its session was not closed."""
    unfinished: Path | None = None
    """The log to go on with when the model is opened."""

    @property
    def name(self) -> str:
        """The model's name for clients."""
        return self.stored.name

    def opened(self) -> AbstractAsyncContextManager[Runtime]:
        """Open it, with a log whose name contains the time, the model and the session."""
        log: str | Path | None = self.unfinished
        if log is None and self.log_folder is not None:
            log = f"{escaped(self.log_folder)}/{{opened_at}}-{nameable(self.name)}-{{session}}.jsonl.zst"
        stored = self.stored
        engine = llama_engine(stored.path, name=stored.header_name) if self.engine is None else self.engine()
        resume = self.unfinished is not None
        return open_runtime(engine, log=log, resume=resume, n_ctx=self.n_ctx, **self.settings)

    def latest_unfinished(self) -> Path | None:
        """Return the latest log of this model if its session was not closed; the log is read to its end."""
        if self.log_folder is None:
            return None
        # A time has no "-" and a session neither; so the log of "big/one" is not one of "one".
        its_own = re.compile(rf"[^-]+-{re.escape(nameable(self.name))}-[^-]+\.jsonl(?:\.zst)?")
        logs = [path for path in self.log_folder.glob("*.jsonl*") if its_own.fullmatch(path.name)]
        latest = max(logs, default=None)
        if latest is None:
            return None
        with LogFile(latest) as lines:
            last = deque(lines, maxlen=1).pop()
        return None if b'"SessionClosed"' in last.body else latest

    def card(self) -> Card:
        """Return its card without opening it; the digest of a file is computed once and kept."""
        stored, path = self.stored, self.stored.path
        size, at, digest = 0, datetime.fromtimestamp(0, UTC), stored.sha256 or digest_of(self.name)
        head: dict[str, HeadValue] = {}
        if self.engine is None:
            status = path.stat()
            size, at = status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)
            digest = stored.sha256 or kept_sha256(path, status) or ""
            if not digest:
                digest = _sha256(path)
                keep_sha256(path, status, digest)
            head = gguf_head(path)
        architecture = str(head.get("general.architecture", stored.family or "unknown"))
        pools = head.get(f"{architecture}.pooling_type") or head.get(f"{architecture}.attention.causal") is False
        return Card(
            name=self.name,
            size=size,
            digest=digest,
            modified_at=at,
            n_ctx=self.n_ctx,
            capability="embedding" if pools else "completion",
            architecture=architecture,
            parameter_size=stored.parameter_size or str(head.get("general.size_label", "")),
            quantization=stored.quantization,
            template=str(head.get("tokenizer.chat_template", "")),
        )


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@define(eq=False)
class _Held:
    """A model that is opened, or being opened."""

    keep_alive: float
    runtime: Runtime | None = None
    card: Card | None = None
    """Its card as `ModelsOnDemand.cards` has it, once that is made."""
    n_users: int = 0
    expires_at: float = math.inf
    """The time on trio's clock at which it is closed; valid while no request uses it."""
    broken: bool = False
    leaving: bool = False
    ready: trio.Event = Factory(trio.Event)
    changed: trio.Event = Factory(trio.Event)
    gone: trio.Event = Factory(trio.Event)

    def tell(self) -> None:
        """Wake its task to check it again."""
        self.changed.set()
        self.changed = trio.Event()


class ModelsOnDemand:
    """The models of a server.

    Args:
        nursery: The nursery of their tasks; cancelling it closes all models and their logs.
        served: The models that can be opened.
        keep_alive: Seconds that each stays loaded after its last request.
        warn: Called with the reason if a model cannot be opened, or breaks.
    """

    def __init__(
        self, nursery: trio.Nursery, served: Sequence[ServedModel], *, keep_alive: float = KEEP_ALIVE, warn: Warn
    ) -> None:
        self._nursery = nursery
        self._served = {one.name: one for one in served}
        self._keep_alive = keep_alive
        self._warn = warn
        self._held: dict[str, _Held] = {}
        self._closing = False
        self._unreadable: set[str] = set()
        """The models whose file could not be read when they were last listed; each is one warning."""

    def close(self) -> None:
        """Close all models and their logs; requests that use one or wait for one fail as after an unloading."""
        self._closing = True
        self._nursery.cancel_scope.cancel()

    def resume(self) -> None:
        """Open each model that has an unfinished session to resume, so that its requests go on without a client."""
        for served in [one for one in self._served.values() if one.resume]:
            try:
                unfinished = served.latest_unfinished()
            except (ReenactError, OSError, IndexError) as error:
                self._warn(f"{served.name}: its latest log cannot be resumed: {description(error)}")
                continue
            if unfinished is not None:
                self._served[served.name] = evolve(served, unfinished=unfinished)
                self._nursery.start_soon(self._finish, served)

    async def _finish(self, served: ServedModel) -> None:
        """Hold a model until the requests of its earlier session have ended; its next session is a new one.

        Args:
            served: The model, without its earlier session.
        """
        try:
            async with self.using(served.name) as held:
                await held.runtime.resumed()
        except EngineBroken:  # Its reason was a warning.
            pass
        finally:
            self._served[served.name] = served

    async def cards(self) -> list[Card]:
        """Return the card of each; loaded models take their capability from their headers.

        A model whose file cannot be read is left out unless it is loaded: the others can be used.
        """
        cards = [await self._card(self._served[name]) for name in sorted(self._served)]
        return [card for card in cards if card is not None]

    async def _card(self, served: ServedModel) -> Card | None:
        card: Card | None = None
        try:
            card = await trio.to_thread.run_sync(served.card, abandon_on_cancel=True)
            self._unreadable.discard(served.name)
        except OSError as error:
            if served.name not in self._unreadable:
                self._unreadable.add(served.name)
                self._warn(f"{served.name}: {served.stored.path} cannot be read: {error.strerror}")
        held = self._held.get(served.name)
        if held is None or held.runtime is None:
            return card
        told = card_of(served.name, held.runtime)
        return told if card is None else evolve(card, capability=told.capability, template=told.template)

    def running(self) -> list[Running]:
        """Return the loaded models."""
        found = []
        for name, held in sorted(self._held.items()):
            if held.runtime is not None:
                left = held.keep_alive if held.n_users else held.expires_at - trio.current_time()
                at = None if left > _ENDLESS else datetime.now(UTC) + timedelta(seconds=left)
                card = held.card or card_of(name, held.runtime)
                found.append(Running(card=card, runtime=held.runtime, expires_at=at))
        return found

    @asynccontextmanager
    async def using(self, name: str, keep_alive: float | None = None) -> AsyncIterator[InUse]:
        """Hold a model's runtime, and open it first if necessary."""
        served = self._served.get(full_name(name))
        if served is None:
            raise UnknownModel(name)
        begun = trio.current_time()
        held = await self._taken(served)
        try:
            await held.ready.wait()
            if held.runtime is None and self._closing:
                raise trio.ClosedResourceError
            if held.runtime is None:
                raise EngineBroken(f"{served.name} cannot be opened") from None
            yield InUse(runtime=held.runtime, load_seconds=trio.current_time() - begun)
        except _BREAKS as error:
            if held.runtime is not None and not held.broken:
                self._warn(f"{served.name}: {error}")
            held.broken = True
            raise
        finally:
            held.n_users -= 1
            held.keep_alive = self._keep_alive if keep_alive is None else keep_alive
            held.expires_at = trio.current_time() + held.keep_alive
            held.tell()

    def unload(self, name: str) -> None:
        """Close a model's runtime as soon as no request uses it."""
        if full_name(name) not in self._served:
            raise UnknownModel(name)
        held = self._held.get(full_name(name))
        if held is not None:
            held.keep_alive = 0.0
            held.expires_at = trio.current_time()
            held.tell()

    async def _taken(self, served: ServedModel) -> _Held:
        """Return the entry of a model, with one more user."""
        while (held := self._held.get(served.name)) is not None and (held.leaving or held.broken):
            await held.gone.wait()
        if held is None:
            held = self._held[served.name] = _Held(self._keep_alive)
            held.n_users += 1
            self._nursery.start_soon(self._hold, served, held)
        else:
            held.n_users += 1
        return held

    async def _hold(self, served: ServedModel, held: _Held) -> None:
        """Open a model, and close it when its time is over; a failure is a warning, and ends no other model."""
        try:
            async with served.opened() as runtime:
                held.runtime = runtime
                held.ready.set()
                held.card = await self._card(served)
                await _over(held)
                held.leaving = True
                held.runtime = None
        except ReenactError as error:
            self._warn(f"{served.name}: {error}")
        except OSError as error:
            self._warn(
                f"{served.name}: {error.filename}: {error.strerror}" if error.strerror else f"{served.name}: {error}"
            )
        except Exception as error:  # noqa: BLE001  # a fault with one model ends no other one
            self._warn(f"{served.name}: {InternalError(description(error))}")
        finally:
            held.leaving = True
            held.runtime = None
            del self._held[served.name]
            held.ready.set()
            held.gone.set()


async def _over(held: _Held) -> None:
    """Wait until no request uses a model, and its time is over or it is broken."""
    while held.n_users or not (held.broken or trio.current_time() >= held.expires_at):
        with trio.move_on_at(math.inf if held.n_users else held.expires_at):
            await held.changed.wait()
