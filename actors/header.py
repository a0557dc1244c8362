"""Defines the header of a session: the model, the engine, the context, and the determinism that was promised.

The rule that holds here: a re-execution depends on nothing but these values and the records after them. They include no
clock and no path, because a path on one machine means nothing on another.
"""

from typing import Any, Final, Literal

from attrs import Attribute, field, frozen

from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.limits import MAX_DEADLINE, MAX_SLOTS, bounds

Policy = Literal["schedule-independent", "recorded-schedule"]
"""Whether results depend on nothing but the request, or also on the recorded schedule, at llama.cpp's fastest."""

Durability = Literal["process", "power", "relaxed"]
"""The crash that the log survives with all that a caller has seen: of the process, of the machine, or of neither."""

REDACTED: Final = (
    "its texts and tokens were replaced (replay redact), so nothing of it can be computed:"
    " use the log that it was made of"
)
"""The reason why a redacted log is not executed, and no session goes on from it."""

Probed = Literal["same", "differs", "not tried"]
"""The finding of a probe about one way to schedule."""


@frozen(kw_only=True)
class ModelFacts:
    """The weights; a replay that computes needs the same ones."""

    name: str
    size: int
    """The size in bytes."""
    sha256: str
    description: str


@frozen(kw_only=True)
class EngineFacts:
    """The program, build and machine that compute."""

    name: str
    versions: dict[str, str]
    system_info: str
    """The CPU features for which the program was compiled, as llama.cpp lists them."""
    cpu: str
    """The machine's CPU, as the system names it."""
    library_sha256: str
    """The SHA-256 of the library that computes, because builds of one version can differ."""


@frozen(kw_only=True)
class Numerics:
    """The settings that affect rounding, besides the weights and the build (docs/llama-cpp.md section 2)."""

    type_k: str
    type_v: str
    flash_attn: str
    repack: bool
    """Whether weights are laid out differently for other kernels (``use_extra_bufts``)."""
    tiled: bool
    """Whether matrices of some types are multiplied by tiles (``GGML_CPU_TILED_MM``)."""


@frozen(kw_only=True)
class ContextFacts:
    """The context's parameters: as the engine reports them, or else as it was given them."""

    n_slots: int
    """The most sequences that are evaluated together (llama.cpp's ``n_seq_max``)."""
    n_ctx: int
    """The count of cells that one sequence may use, as requested; the actors enforce it."""
    n_ctx_seq: int
    """The count of cells that one sequence has in the engine, which pads."""
    n_batch: int
    """The most rows of one batch."""
    n_ubatch: int
    n_threads: int
    numerics: Numerics
    kv_unified: bool
    shift: Literal["move", "evaluate"]
    """The way in which a full context makes room: cells move, or the inputs behind the gap are evaluated again."""
    n_embd: int
    """The count of numbers in a row that replaces a token; 0 if the model takes no rows."""
    pooling: str
    """The method that makes one vector of a text's vectors; "none" if the model generates instead."""
    alone: bool
    """Whether a pooled text has a batch of its own, because neighbours would change its vector."""
    parameters: dict[str, str]
    """All other parameters of the engine, by its own names."""


@frozen(kw_only=True)
class DeterminismFacts:
    """The determinism that was promised, and the reason."""

    asked: Literal["auto", "schedule-independent", "recorded-schedule"]
    policy: Policy
    """The policy in force."""
    reason: str
    """The reason for this policy, in words."""
    probe: dict[str, Probed]
    """The findings of a probe of this model, build and machine, by name; empty if nothing was probed."""

    @property
    def verdict(self) -> Literal["same", "differs", "not probed"]:
        """The probe's overall finding: "same" for all ways, "differs" for at least one, or neither."""
        found = self.probe.values()
        if "differs" in found:
            return "differs"
        return "same" if found and "not tried" not in found else "not probed"


@frozen(kw_only=True)
class Parent:
    """The session that a session was forked from, or of which it keeps some requests (`replay extract`)."""

    session: str
    n: int
    """The first record of the parent that is not in the child; of an extract, that comes after all that is in it."""
    sequences: tuple[int, ...] = field(default=(), repr=False)
    """Of an extract, the sequences that it keeps, by their numbers in the parent; empty for a fork. It is not part of
    the state's digest, so that those of forks stay."""


def within_bounds(settings: object, attribute: "Attribute[Any]", value: object) -> None:
    """Refuse a setting that no session can have: a validator for a field, after that of ``n_slots`` if there is one.

    Raises:
        InvalidRequest: The value is out of bounds; the error names the field.
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
        InvalidRequest: No session can have this limit; the error names the field.
    """

    max_waiting: int = field(validator=within_bounds)
    max_reader_lag: int = field(validator=within_bounds)
    max_pause: float | None = field(default=None, converter=_as_seconds, validator=_pause)
    """Seconds; None if a paused sequence keeps its slot, as it did before schema 4."""


def beyond(context: ContextFacts) -> str | None:
    """Return the setting that no session can have, with its bounds; None if all settings are possible.

    The memory for opening a session, and so for reading a log, grows with its settings.
    """
    allowed = bounds(max(1, min(context.n_slots, MAX_SLOTS)))
    if context.pooling != "none":  # A batch holds any whole text, and one row for each slot.
        low, high = allowed["n_batch"]
        allowed["n_batch"] = (low, max(high, context.n_ctx_seq + context.n_slots))
    allowed["n_ctx_seq"] = (1, allowed["n_ctx"][1] + 256)
    for name, (low, high) in allowed.items():
        value = getattr(context, name, low)
        if not low <= value <= high:
            return f"{name}: expected a whole number from {low:,} to {high:,}, got {value}"
    return None
