"""What it costs that sessions can be run again, as ratios in one run, on SmolLM2: ``make measure-prices``.

The rules that hold here:

* What is compared is measured in turn, again and again, and medians are compared: a machine that others use is slower
  now than a minute ago.
* A process multiplies by tiles or does not, as its first model decides (`runtime.numerics`): where that is one of the
  settings that are compared, each has processes of its own, in turn.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from cProfile import Profile
from functools import partial
from io import StringIO
from pathlib import Path
from pstats import Stats
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import trio

from reenact.actors.batch import Part, Trim
from reenact.replay.compute.tier import ComputeOptions, compute_log
from reenact.runtime import LlamaEngine
from reenact.runtime.engine.protocol import ContextSettings
from tests.helpers.engine_steps import emptied, part, step, tokens_of
from tests.helpers.models.load import DEEP, Sizes, record, shown
from tests.helpers.models.quantizations import file_of

Speeds = dict[str, float]
"""Rows a second, by what they are for."""

N_THREADS: Final = 2
N_SLOTS: Final = 8
N_TRIES: Final = 7
N_TOKENS: Final = 16
"""Generated in a try, by each sequence."""
N_PREFILL, N_BATCH = 256, 64
N_SESSIONS, N_SAMPLED = 3, 600
"""Sessions that are recorded and executed again, and tokens of each."""
SIZES: Final = Sizes(family=(20, 60), num_predict=(32, 64), n_lone=0, lone=0)
"""How long things are in them."""

INDEPENDENT, FASTEST, UNHASHED = "schedule-independent", "fastest", "without checksums"
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    INDEPENDENT: {"determinism": "schedule-independent"},
    FASTEST: {"determinism": "recorded-schedule"},
    UNHASHED: {"determinism": "schedule-independent", "logits_hash": False},
}


class Bench:
    """An engine whose speed is measured.

    Args:
        model: The file.
        settings: One of `SETTINGS`.
    """

    def __init__(self, model: Path, settings: dict[str, Any]) -> None:
        self._engine = LlamaEngine(model)
        self._engine.load(ContextSettings(n_slots=N_SLOTS, n_ctx=768, n_batch=N_BATCH, n_threads=N_THREADS, **settings))
        self._text = tokens_of(self._engine, "One word after the other, and so on to the end of the page. " * 60)

    def speeds(self) -> Speeds:
        """Measure each speed once."""
        step(self._engine, trims=emptied(*range(N_SLOTS)))
        found = {"prefill": N_PREFILL / self._prefill(0, N_PREFILL)}
        self._prefill(0, DEEP, start=N_PREFILL)
        found[f"1 sequence at {DEEP} cells"] = self._generate(1, DEEP)
        for slot in range(N_SLOTS):
            self._prefill(slot, N_BATCH)
        found["1 sequence"] = self._generate(1, N_BATCH)
        found[f"{N_SLOTS} sequences"] = self._generate(N_SLOTS, N_BATCH)
        return found

    def close(self) -> None:
        """Free it."""
        self._engine.close()

    def _prefill(self, slot: int, end: int, *, start: int = 0) -> float:
        """Evaluate a prompt up to ``end`` and return how long it took, in seconds."""
        step(self._engine, trims=(Trim(slot=slot, length=start),))
        chunks = [(at, self._text[at : min(at + N_BATCH, end)]) for at in range(start, end, N_BATCH)]
        return _seconds(lambda: [step(self._engine, part(rows, slot=slot, position=at)) for at, rows in chunks])

    def _generate(self, n: int, start: int) -> float:
        """Let the first ``n`` sequences generate behind their first ``start`` cells; return tokens a second."""
        step(self._engine, trims=tuple(Trim(slot=slot, length=start) for slot in range(n)))
        taken = _seconds(lambda: [step(self._engine, *self._parts(n, start + i)) for i in range(N_TOKENS)])
        return n * N_TOKENS / taken

    def _parts(self, n: int, at: int) -> Iterable[Part]:
        inputs = self._text[at : at + 1]
        return [part(inputs, sequence=slot + 1, slot=slot, position=at, draw=at) for slot in range(n)]


def _seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def medians(tries: list[Speeds]) -> Speeds:
    """Return the median of each speed."""
    return {name: median(one[name] for one in tries) for name in tries[0]}


def in_this_process(name: str) -> dict[str, Speeds]:
    """Return the speeds of a type of weights without tiles, under each setting."""
    benches = {setting: Bench(file_of(name), settings) for setting, settings in SETTINGS.items()}
    tries: dict[str, list[Speeds]] = {setting: [] for setting in benches}
    for bench in benches.values():
        bench.speeds()  # So that all is in memory.
    for _ in range(N_TRIES):
        for setting, bench in benches.items():
            tries[setting].append(bench.speeds())
    for bench in benches.values():
        bench.close()
    return {setting: medians(found) for setting, found in tries.items()}


def in_processes(name: str) -> dict[str, Speeds]:
    """Return the speeds of a type of weights with tiles, under each setting."""
    tries: dict[str, list[Speeds]] = {setting: [] for setting in SETTINGS}
    for _ in range(3):
        for setting, found in tries.items():
            command = (sys.executable, "-m", "tests.measure.prices", "--one", name, setting)
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout))
    return {setting: medians(found) for setting, found in tries.items()}


def tell_speeds(name: str, found: dict[str, Speeds]) -> None:
    """Print speeds, and what the others are to the fastest settings."""
    print(f"{name}, tokens a second; in brackets schedule-independent / fastest, and with / without checksums:")
    for what, fastest in found[FASTEST].items():
        here, unhashed = found[INDEPENDENT][what], found[UNHASHED][what]
        speeds = f"{here:7.1f} against {fastest:7.1f} ({here / fastest:.2f})"
        print(f"  {what:24} {speeds}; without checksums {unhashed:7.1f} ({here / unhashed:.3f})")


# ---------------------------------------------------------------- re-execution


def recorded_and_executed(name: str, log: Path) -> tuple[float, float]:
    """Record a random load and execute it again.

    Returns:
        What both took, in seconds, without the time in which there was nothing to do.
    """
    settings: dict[str, Any] = {
        "sizes": SIZES,
        "n_slots": N_SLOTS,
        "n_ctx": 512,
        "n_batch": N_BATCH,
        "n_threads": N_THREADS,
    }
    trio.run(partial(record, log, file_of(name), 1, lambda so_far: so_far.n_sampled >= N_SAMPLED, **settings))
    computed = compute_log(log, ComputeOptions(model=file_of(name))).computed
    assert computed is not None
    assert computed.same
    return shown(log).seconds, computed.seconds


def tell_execution(name: str) -> bool:
    """Print how fast sessions are executed again; return whether that is as fast as they were recorded."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "session.jsonl"
        ratios = []
        for number in range(N_SESSIONS):
            log.unlink(missing_ok=True)
            recorded, executed = recorded_and_executed(name, log)
            ratios.append(recorded / executed)
            print(f"{name}, session {number}: recorded in {recorded:.2f} s, executed in {executed:.2f} s")
        fast = median(ratios) >= 1
        print(f"{name}: executed {median(ratios):.2f} times as fast as recorded")
        if not fast:
            print(profile(name, log))
    return fast


def profile(name: str, log: Path) -> str:
    """Return what an execution spends its time with."""
    profiler = Profile()
    profiler.runcall(compute_log, log, ComputeOptions(model=file_of(name)))
    written = StringIO()
    Stats(profiler, stream=written).sort_stats("tottime").print_stats(15)
    return written.getvalue()


def main() -> int:
    """Print all prices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SETTING"), help="measure one, and print it as JSON")
    args = parser.parse_args()
    if args.one:
        name, setting = args.one
        bench = Bench(file_of(name), SETTINGS[setting])
        bench.speeds()
        print(json.dumps(medians([bench.speeds() for _ in range(3)])))
        bench.close()
        return 0
    for name in ("Q4_1", "Q4_0"):
        tell_speeds(name, in_this_process(name))
    tell_speeds("Q4_K_M", in_processes("Q4_K_M"))
    fast = [tell_execution(name) for name in ("Q4_1", "Q4_0")]
    return int(not all(fast))


if __name__ == "__main__":
    sys.exit(main())
