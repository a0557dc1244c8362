"""What the header of a session says: the model, the engine, the context, and what was promised of them.

The rule that holds here: a re-execution depends on nothing beside these values and the records behind them. No clock
and no path is among them: where a file lies on one machine says nothing on another.
"""

from typing import Any, Literal

from attrs import Attribute, field, frozen

from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.limits import MAX_DEADLINE, MAX_SLOTS, bounds

Policy = Literal["schedule-independent", "recorded-schedule"]
"""What results depend on: on nothing but the request, or on the recorded schedule too, at llama.cpp's fastest."""

Probed = Literal["same", "differs", "not tried"]
"""What a probe found of one way to schedule."""


@frozen(kw_only=True)
class ModelFacts:
    """Which weights: a replay that computes needs the same ones."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    description: str


@frozen(kw_only=True)
class EngineFacts:
    """What computes: program, build and machine."""

    name: str
    versions: dict[str, str]
    system_info: str
    """What the program was compiled for: the CPU's features, as llama.cpp lists them."""
    cpu: str
    """The machine's CPU, as the system calls it."""
    library_sha256: str
    """Of what computes: builds of one version can differ."""


@frozen(kw_only=True)
class Numerics:
    """What decides how numbers are rounded, beside the weights and the build (docs/llama-cpp.md section 2)."""

    type_k: str
    type_v: str
    flash_attn: str
    repack: bool
    """Weights are laid out anew for other kernels (``use_extra_bufts``)."""
    tiled: bool
    """Matrices of some types are multiplied by tiles (``GGML_CPU_TILED_MM``)."""


@frozen(kw_only=True)
class ContextFacts:
    """The context's parameters: as read back where the engine tells them, else as given to it."""

    n_slots: int
    """Sequences evaluated together (llama.cpp's ``n_seq_max``)."""
    n_ctx: int
    """Cells one sequence may use, as asked; the actors enforce it."""
    n_ctx_seq: int
    """Cells one sequence has in the engine, which pads."""
    n_batch: int
    """Rows of one batch at most."""
    n_ubatch: int
    n_threads: int
    numerics: Numerics
    kv_unified: bool
    shift: Literal["move", "evaluate"]
    """How a full context makes room: cells are moved, or the inputs behind the gap are evaluated again."""
    n_embd: int
    """Numbers of a row that stands for a token; 0 where the model takes none."""
    pooling: str
    """How a text's vectors become one; "none" where the model generates instead."""
    alone: bool
    """A text that is pooled has a batch of its own, because neighbours would change its vector."""
    parameters: dict[str, str]
    """All else that the engine was given, by its own names."""


@frozen(kw_only=True)
class DeterminismFacts:
    """What was promised, and why."""

    asked: Literal["auto", "schedule-independent", "recorded-schedule"]
    policy: Policy
    """The one in force."""
    reason: str
    """Why this one, for people."""
    probe: dict[str, Probed]
    """What a probe of this model, build and machine compared, by name; empty where nothing was probed."""

    @property
    def verdict(self) -> Literal["same", "differs", "not probed"]:
        """What the probe says as a whole: of all ways "same", of one at least "differs", or neither."""
        found = self.probe.values()
        if "differs" in found:
            return "differs"
        return "same" if found and "not tried" not in found else "not probed"


@frozen(kw_only=True)
class Parent:
    """The session that a session was forked from."""

    session: str
    n: int
    """The first record of the parent that is not in the child."""


def within_bounds(settings: object, attribute: "Attribute[Any]", value: object) -> None:
    """Refuse a setting that no session can have: a validator of a field, behind that of ``n_slots`` if it has one.

    Raises:
        InvalidRequest: It names the field.
    """
    n_slots = 1 if attribute.name == "n_slots" else getattr(settings, "n_slots", 1)
    low, high = bounds(n_slots)[attribute.name]
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(attribute.name, f"expected a whole number from {low:,} to {high:,}, got {shown(value)}")


def _pause(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if value is not None and not (type(value) is float and 0 < value <= MAX_DEADLINE):
        expected = f"seconds above 0 and up to {MAX_DEADLINE:,}, or None"
        raise InvalidRequest(attribute.name, f"expected {expected}, got {shown(value)}")


def _as_seconds(value: object) -> object:
    return float(value) if type(value) is int and abs(value) <= MAX_DEADLINE else value


@frozen(kw_only=True)
class Limits:
    """The limits of this session that its opener could set.

    Raises:
        InvalidRequest: One that no session can have; it names the field.
    """

    max_waiting: int = field(validator=within_bounds)
    max_reader_lag: int = field(validator=within_bounds)
    max_pause: float | None = field(default=None, converter=_as_seconds, validator=_pause)
    """Seconds; None where a paused sequence keeps its slot, as before schema 4."""


def beyond(context: ContextFacts) -> str | None:
    """Return which setting is one that no session can have, and what it may be; None where all are well.

    What a session needs to be opened, and so a log to be read, grows with its settings.
    """
    allowed = bounds(max(1, min(context.n_slots, MAX_SLOTS)))
    if context.pooling != "none":  # A batch holds any text whole, and as many rows for each slot.
        low, high = allowed["n_batch"]
        allowed["n_batch"] = (low, max(high, context.n_ctx_seq + context.n_slots))
    allowed["n_ctx_seq"] = (1, allowed["n_ctx"][1] + 256)
    for name, (low, high) in allowed.items():
        value = getattr(context, name, low)
        if not low <= value <= high:
            return f"{name}: expected a whole number from {low:,} to {high:,}, got {value}"
    return None
