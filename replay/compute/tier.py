"""The compute tier: a log's batches executed again on the model, and every row of logits and every draw compared.

The rules that hold here:

* The decide tier comes first: the recorded plan is executed, so it must be the plan that today's actors make.
* Rows are compared by the recorded checksums, tokens by themselves. Where the log has no checksums, or only tokens are
  asked for, that is another tier with a name of its own.
* Unequal things are not compared: another model, build or context is "not comparable", unless it is forced, and then
  the verdict names it.
* The whole log is executed, also after a difference: each batch has the recorded tokens, so rows can agree again.
"""

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, LogNotComparable, ModelNotFound, ReenactError
from reenact.actors.header import REDACTED
from reenact.replay.compute.causes import cause_of
from reenact.replay.compute.compare import Counts
from reenact.replay.compute.execution import Execution, executed_records
from reenact.replay.compute.machine import (
    ModelHere,
    OnProgress,
    chosen_model,
    open_machine,
    token_obstacles,
)
from reenact.replay.compute.report import Computed, outcome_as_json
from reenact.replay.decide.tier import replay_log
from reenact.replay.divergence import Divergence
from reenact.replay.verdict import Result, Verdict
from reenact.runtime.log.codec import encode
from reenact.runtime.log.reader import LogFile, header_in
from reenact.runtime.log.rows import ROWS_CURE, RowsCorrupt, RowsMissing, rows_in

if TYPE_CHECKING:
    from reenact.runtime.llama.matcher import Weights


@frozen(kw_only=True)
class ComputeOptions:
    """The options of a re-execution."""

    model: Path | None = None
    """The model's file, or its name; None for the recorded model."""
    force: bool = False
    """Whether to compare results although the model, the build or the context differs."""
    tokens_only: bool = False
    """Whether to leave out the bits, for a log from another kind of machine."""
    on_progress: OnProgress = lambda _doing, _fraction: None


Compare = Callable[[LogFile, e.SessionOpened, ModelHere, ComputeOptions], Computed]
"""A function that executes a log, or a part of it, on an engine that is open for it."""


def compute_log(path: str | os.PathLike[str], asked: ComputeOptions | None = None) -> Verdict:
    """Execute a log again on its model, and compare every row of logits and every token.

    Args:
        path: The log of any session on llama.cpp, including one that crashed.
        asked: The options; by default the recorded file is used, if it is still there.

    Returns:
            The verdict; that of the decide tier if it is other than "same".
    """
    return executed(path, asked or ComputeOptions(), _compared)


def executed(path: str | os.PathLike[str], asked: ComputeOptions, compare: Compare) -> Verdict:
    """Run the decide tier on a log, open its model and compare; every outcome is a verdict.

    Args:
        path: The log.
        asked: The options.
        compare: A function that executes the log or a part of it.

    Raises:
        NotInLog: From ``compare``.
    """
    verdict = replay_log(path)
    if verdict.verdict != "same":
        return verdict
    try:
        with LogFile(path) as log:
            header = header_of(log)
            rows_in(log).check()
            with machine_of(header, asked) as machine:
                verdict = changed(verdict, notes=(*verdict.notes, *machine.warnings))
                found = compare(log, header, machine, asked)
    except RowsMissing as error:
        return _without(verdict, "not comparable", error, f"{error}: {ROWS_CURE}")
    except LogNotComparable as error:
        return _without(verdict, "not comparable", error)
    except RowsCorrupt as error:
        return _without(verdict, "corrupt", error)
    except ModelNotFound as error:
        return _without(verdict, "unreadable", error)
    if found.same:
        return changed(verdict, tier=found.tier, computed=found)
    return changed(verdict, verdict="diverged", tier=found.tier, computed=found, first_divergence=_divergence(found))


def _compared(log: LogFile, header: e.SessionOpened, machine: ModelHere, asked: ComputeOptions) -> Computed:
    """Execute the whole log."""
    execution = Execution(machine.engine, machine.renew, rows_in(log))
    counts = Counts(machine, tokens_only=asked.tokens_only)

    def see(_row: int, part: e.Part, logits: "Weights", sample: e.Sample) -> None:
        counts.see(logits, execution.recorded(part.sequence), sample)

    machine.engine.watch(see)
    n_batches = sum(b'"type":"BatchDecoded"' in line.body for line in log)
    started = monotonic()
    for done, step in enumerate(execution.run(executed_records(log))):
        counts.step(step)
        asked.on_progress("executing", (done + 1) / n_batches)
    machine.engine.watch(None)
    found = counts.found(forced=asked.force, seconds=monotonic() - started)
    if found.n_tokens + found.n_rows == 0 and found.same:
        raise LogNotComparable("there is no row of logits and no token to compare")
    if found.same:
        return found
    machine.engine.close()
    model = chosen_model(header, asked.model)
    return found.because(lambda: cause_of(log, header, model, found, asked.on_progress))


def _without(verdict: Verdict, result: Result, error: Exception, note: str | None = None) -> Verdict:
    return changed(verdict, verdict=result, tier="compute", notes=(note or str(error),), error=error)


def header_of(log: LogFile) -> e.SessionOpened:
    """Return the header of a log whose batches llama.cpp computed.

    Raises:
        LogNotComparable: llama.cpp computed nothing in this log, or it was redacted.
    """
    header = header_in(log)
    if header.redacted:
        raise LogNotComparable(REDACTED)
    if header.engine.name != "llama.cpp":
        raise LogNotComparable("nothing was computed: its engine is not llama.cpp")
    return header


def machine_of(header: e.SessionOpened, asked: ComputeOptions) -> ModelHere:
    """Return the engine on which a log is executed; its block closes it.

    Raises:
        LogNotComparable: Results here cannot be compared with the log's; the error lists the reasons.
        ModelNotFound: The file cannot be opened, or llama.cpp cannot load it.
    """
    model = chosen_model(header, asked.model)
    try:
        machine = open_machine(header, model, asked.on_progress)
    except LogNotComparable:
        raise
    except InvalidRequest as error:
        raise ModelNotFound(error.reason) from error
    except OSError as error:
        raise ModelNotFound(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except ReenactError as error:
        raise ModelNotFound(str(error)) from error
    obstacles = machine.obstacles
    if asked.tokens_only or asked.force:
        sizes = token_obstacles(machine.differences)
        obstacles = [one for one in sizes if not (asked.force and one.name == "model.sha256")]
    if obstacles:
        machine.engine.close()
        cure = "" if asked.force else "; --force compares all the same, --tokens compares tokens only"
        if [one.name for one in obstacles] == ["context.numerics.tiled"]:
            cure = "; the first model of a process settles this: run this log in a process of its own"
        raise LogNotComparable("; ".join(map(str, obstacles)) + cure)
    return machine


def _divergence(found: Computed) -> Divergence:
    """Return the first difference, as the recorded and the new value."""
    step = found.first_outcome
    if step is not None and step.n == found.first_n:
        recorded, replayed = (encode(e.Record(step.n, one, None), 0) for one in (step.recorded, step.replayed))
        return Divergence(n=step.n, expected=recorded, actual=replayed)
    row = None if found.first_row is None else found.first_row.row
    first = next(one for one in (row, found.first_token) if one is not None and one.n == found.first_n)
    return Divergence(n=first.n, expected=outcome_as_json(first.recorded), actual=outcome_as_json(first.replayed))
