"""What is promised of a model's results, and the numerics that the promise rests on.

The rules that hold here:

* "auto" and "schedule-independent" take the fastest settings under which, as far as is known of the file's types,
  nothing depends on the schedule; then a probe is asked. What it finds counts: where bits differ the first one gives
  way to "recorded-schedule", and the second one is refused. A probe that ran out of time changes nothing.
* A text that is pooled is alone in its batch where nothing may change its vector; no probe is needed for that.
* A session that is executed again has the policy and the numerics of its log, as far as this process can have them.
"""

from collections.abc import Callable

from attrs import evolve as changed
from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.header import DeterminismFacts, EngineFacts, Numerics, Policy, Probed
from reenact.runtime.engine.protocol import ContextSettings, Determinism
from reenact.runtime.llama.determinism.numerics import Hardware, fastest, independent, obstacle, possible
from reenact.runtime.llama.modelfile import ModelFile

Ask = Callable[[Numerics], dict[str, Probed]]
"""Probes a model under these numerics."""


@frozen
class Promise:
    """What is promised, and the numerics that keep it."""

    facts: DeterminismFacts
    numerics: Numerics


@frozen(kw_only=True)
class Findings:
    """What a probe in full came to, and what follows."""

    file: ModelFile
    engine: EngineFacts
    n_threads: int
    numerics: Numerics
    """Those under which it was probed."""
    probe: dict[str, Probed]
    """Each case; none for a model that pools."""
    obstacle: str | None
    """What is known against results that do not depend on the schedule, whatever the probe says."""
    facts: DeterminismFacts
    """What "auto" takes here."""


def promise(file: ModelFile, settings: ContextSettings, machine: Hardware, ask: Ask) -> Promise:
    """Return what can be promised.

    Args:
        file: What the model's file says.
        settings: What is asked.
        machine: What this machine can do.
        ask: Probes the model.

    Raises:
        InvalidRequest: Not what was asked for by name; it names ``determinism``.
    """
    promised = _promised(file, settings, machine, ask)
    if machine.repacks:
        return promised
    reason = f"{promised.facts.reason}; weights are not repacked, because llama.cpp dies of that on this machine"
    return changed(promised, facts=changed(promised.facts, reason=reason))


def _promised(file: ModelFile, settings: ContextSettings, machine: Hardware, ask: Ask) -> Promise:
    asked, types = settings.determinism, file.matrix_types
    if settings.numerics is not None and asked != "auto":
        return _promise(asked, asked, possible(settings.numerics, types, machine), "as recorded")
    if asked == "recorded-schedule":
        return _promise(asked, asked, fastest(types, machine), "it was asked for")
    if file.pools:
        numerics = changed(fastest(types, machine), repack=independent(types, machine).repack)
        return _promise(asked, "schedule-independent", numerics, "a text is alone in its batch")
    against = obstacle(types)
    found: dict[str, Probed] = {}
    if against is None:
        found = ask(independent(types, machine))
        differing = [case for case, outcome in found.items() if outcome == "differs"]
        if not differing:
            return _promise(asked, "schedule-independent", independent(types, machine), _reason(found), found)
        against = f"a probe found other bits {differing[0]}"
    if asked == "schedule-independent":
        cure = 'determinism="auto" takes "recorded-schedule" here'
        raise InvalidRequest("determinism", f'"schedule-independent" cannot be had: {against}; {cure}')
    return _promise(asked, "recorded-schedule", fastest(types, machine), against, found)


def _reason(found: dict[str, Probed]) -> str:
    """Say what a promise rests on, where a probe found no difference."""
    if "same" in found.values() and "not tried" not in found.values():
        return "a probe found no other bits"
    return "nothing is known against it" + ("; the probe's time ran out" if found else "")


def _promise(
    asked: Determinism, policy: Policy, numerics: Numerics, reason: str, found: dict[str, Probed] | None = None
) -> Promise:
    facts = DeterminismFacts(asked=asked, policy=policy, reason=reason, probe=found or {})
    return Promise(facts, numerics)
