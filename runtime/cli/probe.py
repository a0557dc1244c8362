"""Probes a model in full and prints the findings: the work behind ``reenact probe``.

The rules that hold here:

* llama.cpp works in a thread of its own, so that Ctrl-C need not wait for the end of a batch or a file.
* The findings go to standard output, in colour only on a terminal; progress goes to standard error only.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, cast

import outcome
from attrs import asdict, frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.header import Numerics
from reenact.runtime.api import cpus, llama_engine
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.regular import text_of_name
from reenact.runtime.terminal import Spans, print_json, printer, progress_bar, tell_above, visible

if TYPE_CHECKING:
    from reenact.runtime.llama.determinism.policy import Findings
    from reenact.runtime.llama.engine import LlamaEngine

_STYLES: Final = {"same": "green", "differs": "bold red", "not tried": "yellow"}


@frozen(kw_only=True)
class ProbeRequest:
    """The model to probe, and the settings."""

    model: Path
    n_threads: int | None
    """None for one thread for each CPU."""
    seconds: float | None
    """How long it may take; None for as long as it takes."""


def probed(asked: ProbeRequest) -> "Findings":
    """Probe a model, and show the progress on a terminal.

    Raises:
        KeyboardInterrupt: Soon after Ctrl-C; the findings so far are not kept.
        OSError, InvalidRequest, EngineBroken: The model cannot be probed.
    """
    n_threads = _checked(asked)
    stopped = Event()
    bar = progress_bar(disable=not sys.stderr.isatty())
    task = bar.add_task("loading the model", total=1.0)

    def show(doing: str, fraction: float) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        bar.update(task, description=visible(doing), completed=fraction)

    engine = cast(
        "LlamaEngine",
        llama_engine(
            asked.model,
            on_progress=lambda doing, fraction: show(f"{doing} the model", fraction),
            on_warning=lambda warning: tell_above(bar, "reenact", warning),
        ),
    )
    outcomes: list[outcome.Outcome[Findings]] = []

    def work() -> None:
        outcomes.append(
            outcome.capture(
                engine.probe,
                n_threads,
                seconds=asked.seconds,
                on_case=lambda case, fraction: show(f"trying it {case}", fraction),
            )
        )

    thread = Thread(target=work, name="reenact probe", daemon=True)
    with bar:
        thread.start()
        try:
            thread.join()
        except KeyboardInterrupt:
            stopped.set()
            _abort(engine)
            thread.join()
            raise
    return outcomes[0].unwrap()


def _abort(engine: "LlamaEngine") -> None:
    from reenact.runtime.llama.determinism.probe import BATCH

    engine.abort(BATCH)


def _checked(asked: ProbeRequest) -> int:
    """Return the count of threads to use."""
    if asked.seconds is not None and not 0 <= asked.seconds < float("inf"):
        raise InvalidRequest("seconds", f"expected a number from 0 on, got {asked.seconds:g}")
    n_threads = cpus() if asked.n_threads is None else asked.n_threads
    return ContextSettings(n_slots=1, n_ctx=1, n_batch=1, n_threads=n_threads).n_threads


def show_findings(findings: "Findings") -> None:
    """Print a table for people."""
    show = printer(sys.stdout)
    for line in _lines(findings):
        show(line)


def _lines(findings: "Findings") -> Iterator[Spans]:
    yield [(findings.file.path.name, "bold")]
    yield []
    for name, value in _facts(findings):
        yield [(f"  {name:<10}", "dim"), (value, "")]
    yield []
    width = max(map(len, findings.probe), default=0)
    for case, found in findings.probe.items():
        yield [(f"  {case:<{width}}  ", ""), (found, _STYLES[found])]
    if not findings.probe:
        why = "a text that is pooled is alone in its batch" if findings.file.pools else "it has too few positions"
        yield [(f"  there is nothing to probe: {why}", "")]
    yield []
    if findings.obstacle is not None:
        yield [("known obstacle: ", "bold"), (findings.obstacle, "")]
    facts = findings.facts
    style = "bold green" if facts.policy == "schedule-independent" else "bold yellow"
    why = ", because of the known obstacle" if facts.reason == findings.obstacle else f": {facts.reason}"
    yield [('determinism="auto" takes ', ""), (facts.policy, style), (f" here{why}", "")]


def _facts(findings: "Findings") -> Iterator[tuple[str, str]]:
    engine = findings.engine
    yield "SHA-256", findings.file.sha256
    yield "matrices", ", ".join(sorted(findings.file.matrix_types))
    yield "build", ", ".join(f"{name} {version}" for name, version in engine.versions.items())
    yield "library", engine.library_sha256
    yield "CPU", engine.cpu
    yield "threads", f"{findings.n_threads}"
    if findings.probe:
        yield "numerics", _words(findings.numerics)


def _words(numerics: Numerics) -> str:
    repacked, tiled = "" if numerics.repack else "not ", "by" if numerics.tiled else "without"
    return (
        f"K in {numerics.type_k}, V in {numerics.type_v}, flash attention {numerics.flash_attn},"
        f" weights {repacked}repacked, multiplied {tiled} tiles"
    )


def show_json(findings: "Findings") -> None:
    """Print one JSON object."""
    file, facts = findings.file, findings.facts
    fields: dict[str, Any] = {
        "model": {"name": text_of_name(file.path.name), "size": file.size},
        "engine": asdict(findings.engine),
        "n_threads": findings.n_threads,
        "numerics": asdict(findings.numerics) if findings.probe else None,
        "probe": findings.probe,
        "obstacle": findings.obstacle,
        "auto": {"policy": facts.policy, "reason": facts.reason},
    }
    fields["model"] |= {"sha256": file.sha256, "matrix_types": sorted(file.matrix_types)}
    print_json(fields)
