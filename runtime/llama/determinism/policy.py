"""Decides what is promised of a model's results, and the numerics that keep the promise.

The rules that hold here:

* "auto" and "schedule-independent" take the fastest settings under which no known effect makes results of the file's
  types depend on the schedule. Then a probe tests them. If it finds different bits, "auto" takes "recorded-schedule"
  and "schedule-independent" is refused. A probe that runs out of time changes nothing.
* Where a text's vector must depend on the text only, the text is alone in its batch; that needs no probe.
* A session that is executed again gets the policy and the numerics of its log, as far as this process can provide them.
"""

from collections.abc import Callable

from attrs import evolve as changed
from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.header import DeterminismFacts, EngineFacts, Numerics, Policy, Probed
from reenact.runtime.engine.protocol import ContextSettings, Determinism
from reenact.runtime.llama.determinism.numerics import (
    Hardware,
    clamp_to_process,
    fastest,
    known_obstacle,
    schedule_independent,
)
from reenact.runtime.llama.model_metadata import ModelFile

Ask = Callable[[Numerics], dict[str, Probed]]
"""Probes the model under these numerics."""


@frozen
class Promise:
    """A policy, and the numerics that keep it."""

    facts: DeterminismFacts
    numerics: Numerics


@frozen(kw_only=True)
class Findings:
    """The results of a full probe, and the policy that follows from them."""

    file: ModelFile
    engine: EngineFacts
    n_threads: int
    numerics: Numerics
    """The numerics that were probed."""
    probe: dict[str, Probed]
    """The result of each case; empty for a model that pools."""
    obstacle: str | None
    """A known reason why results depend on the schedule, whatever the probe found; None if there is none."""
    facts: DeterminismFacts
    """The policy that "auto" takes here."""


def promise(file: ModelFile, settings: ContextSettings, machine: Hardware, ask: Ask) -> Promise:
    """Return the policy that can be promised.

    Args:
        file: The metadata of the model's file.
        settings: The settings asked for.
        machine: The abilities of this machine.
        ask: Probes the model.

    Raises:
        InvalidRequest: The policy asked for by name is impossible here; the error names ``determinism``.
    """
    promised = _promised(file, settings, machine, ask)
    if machine.repacks:
        return promised
    reason = f"{promised.facts.reason}; weights are not repacked, because llama.cpp dies of that on this machine"
    return changed(promised, facts=changed(promised.facts, reason=reason))


def _promised(file: ModelFile, settings: ContextSettings, machine: Hardware, ask: Ask) -> Promise:
    asked, types = settings.determinism, file.matrix_types
    if settings.numerics is not None and asked != "auto":
        return _promise(asked, asked, clamp_to_process(settings.numerics, types, machine), "as recorded")
    if asked == "recorded-schedule":
        return _promise(asked, asked, fastest(types, machine), "it was asked for")
    if file.pools:
        numerics = changed(fastest(types, machine), repack=schedule_independent(types, machine).repack)
        return _promise(asked, "schedule-independent", numerics, "a text is alone in its batch")
    against = known_obstacle(types)
    found: dict[str, Probed] = {}
    if against is None:
        numerics = schedule_independent(types, machine)
        found = ask(numerics)
        differing = [case for case, outcome in found.items() if outcome == "differs"]
        if not differing:
            return _promise(asked, "schedule-independent", numerics, _reason(found), found)
        against = f"a probe found other bits {differing[0]}"
    if asked == "schedule-independent":
        cure = 'determinism="auto" takes "recorded-schedule" here'
        raise InvalidRequest("determinism", f'"schedule-independent" cannot be had: {against}; {cure}')
    return _promise(asked, "recorded-schedule", fastest(types, machine), against, found)


def _reason(found: dict[str, Probed]) -> str:
    """Return the reason for a promise, where a probe found no difference."""
    if "same" in found.values() and "not tried" not in found.values():
        return "a probe found no other bits"
    return "nothing is known against it" + ("; the probe's time ran out" if found else "")


def _promise(
    asked: Determinism, policy: Policy, numerics: Numerics, reason: str, found: dict[str, Probed] | None = None
) -> Promise:
    facts = DeterminismFacts(asked=asked, policy=policy, reason=reason, probe=found or {})
    return Promise(facts, numerics)
