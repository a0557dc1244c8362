"""Replay: the same actors, driven by the log.

`replay_log` runs today's actors on the given events of a log and compares every derived event with the recorded one.
`compute_log` also executes its batches again on the model; `fork_log` goes on from one of its records; `extract_log`
keeps one request in a log of its own; `redact_log` replaces texts and tokens. Nothing here imports trio, and llama.cpp
is loaded only where a log is executed again. The public names are loaded on first use, so that `replay --version` is
quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reenact.actors.errors import LogCorrupt, LogNotComparable
    from reenact.replay.check.condition import Condition, condition_of
    from reenact.replay.check.report import Checked, RuleViolation, check_facts, check_log
    from reenact.replay.compute.tier import ComputeOptions, compute_log
    from reenact.replay.decide.figures import Tally
    from reenact.replay.decide.tier import replay_log
    from reenact.replay.divergence import Divergence, ReplayDivergence
    from reenact.replay.extract.extract import extract_log
    from reenact.replay.extract.report import Extracted
    from reenact.replay.fork.fork import fork_log
    from reenact.replay.fork.report import Forked
    from reenact.replay.redact.redact import redact_log
    from reenact.replay.redact.report import Redacted
    from reenact.replay.repair.repair import repair_log
    from reenact.replay.repair.report import Repaired
    from reenact.replay.verdict import Verdict

_MODULE_OF = {
    "ComputeOptions": "reenact.replay.compute.tier",
    "compute_log": "reenact.replay.compute.tier",
    "Condition": "reenact.replay.check.condition",
    "condition_of": "reenact.replay.check.condition",
    "Repaired": "reenact.replay.repair.report",
    "repair_log": "reenact.replay.repair.repair",
    "Checked": "reenact.replay.check.report",
    "RuleViolation": "reenact.replay.check.report",
    "check_facts": "reenact.replay.check.report",
    "check_log": "reenact.replay.check.report",
    "replay_log": "reenact.replay.decide.tier",
    "Divergence": "reenact.replay.divergence",
    "ReplayDivergence": "reenact.replay.divergence",
    "Extracted": "reenact.replay.extract.report",
    "extract_log": "reenact.replay.extract.extract",
    "Forked": "reenact.replay.fork.report",
    "fork_log": "reenact.replay.fork.fork",
    "Redacted": "reenact.replay.redact.report",
    "redact_log": "reenact.replay.redact.redact",
    "LogCorrupt": "reenact.actors.errors",
    "LogNotComparable": "reenact.actors.errors",
    "Tally": "reenact.replay.decide.figures",
    "Verdict": "reenact.replay.verdict",
}

__all__ = [
    "Checked",
    "ComputeOptions",
    "Condition",
    "Divergence",
    "Extracted",
    "Forked",
    "LogCorrupt",
    "LogNotComparable",
    "Redacted",
    "Repaired",
    "ReplayDivergence",
    "RuleViolation",
    "Tally",
    "Verdict",
    "check_facts",
    "check_log",
    "compute_log",
    "condition_of",
    "extract_log",
    "fork_log",
    "redact_log",
    "repair_log",
    "replay_log",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
