"""The price of each durability of a log, in tokens a second: ``make measure-durability``.

The rules that hold here:

* All settings are measured in turn, again and again, and a ratio is the median of those of each turn: a machine that
  others use is slower now than a minute ago.
* The scripted engine computes nothing, so what it shows is the log's own cost, at its worst. It has threads here as an
  engine has that computes.
* Logs are in build/ of the current folder, because a temporary one may be in memory, where a sync costs nothing.
"""

import argparse
import os
import platform
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import trio

from reenact.runtime import LlamaEngine, ScriptedEngine, open_runtime
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import Engine

N_SLOTS: Final = 8
N_TRIES: Final = 7
NO_LOG: Final = "no log"
SETTINGS: Final = (NO_LOG, "relaxed", "process", "power")
N_SYNCS: Final = 50
N_TOKENS: Final = {"ScriptedEngine": 400, "SmolLM2": 48}
"""The tokens of each sequence, by the engine."""


class Quick(ScriptedEngine):
    """A scripted engine that has threads."""

    computes = True


def engine_of(name: str, n_tokens: int) -> Engine:
    """Return a new engine."""
    return Quick([f" {i}" for i in range(n_tokens)]) if name == "ScriptedEngine" else LlamaEngine(installed_model())


async def speed(name: str, setting: str, folder: Path, n_tokens: int) -> float:
    """Return the tokens a second of a session in which all slots generate."""
    given: dict[str, Any] = {}
    if setting != NO_LOG:
        given = {"log": folder / "session.jsonl.zst", "durability": setting}
    engine = engine_of(name, n_tokens)
    async with open_runtime(engine, n_slots=N_SLOTS, n_ctx=2 * n_tokens + 64, **given) as runtime:
        ask = partial(runtime.complete, num_predict=n_tokens)
        await ask("Tea is made", num_predict=4)
        started = perf_counter()
        async with trio.open_nursery() as nursery:
            for i in range(N_SLOTS):
                nursery.start_soon(partial(ask, f"The number {i} is", seed=i))
        taken = perf_counter() - started
        n_sampled = runtime.statistics().n_sampled - 4
    (folder / "session.jsonl.zst").unlink(missing_ok=True)
    return n_sampled / taken


def sync_seconds(folder: Path) -> float:
    """Return the seconds that a sync of one more line takes."""
    times = []
    with (folder / "line").open("wb", buffering=0) as file:
        for _ in range(N_SYNCS):
            file.write(bytes(500))
            started = perf_counter()
            os.fdatasync(file.fileno())
            times.append(perf_counter() - started)
    return median(times)


def file_system(folder: Path) -> str:
    """Return the type of the file system of a folder."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return "unknown"
    whole = folder.resolve()
    return max((len(at), kind) for at, kind in mounts if whole.is_relative_to(at))[1]


def cpu() -> str:
    """Return the CPU's name and the number of its cores that may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    """Print the speeds, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=N_TRIES)
    parser.add_argument("--engine", choices=N_TOKENS, help="measure this one only")
    asked_for = parser.parse_args()
    n_tries = asked_for.tries
    Path("build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir="build") as temporary:
        folder = Path(temporary)
        print(f"{cpu()}; {file_system(folder)}; a sync of one line takes {sync_seconds(folder) * 1e3:.2f} ms")
        for name, n_tokens in N_TOKENS.items():
            if asked_for.engine not in {None, name}:
                continue
            tries: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
            for _ in range(n_tries):
                for setting, found in tries.items():
                    found.append(trio.run(speed, name, setting, folder, n_tokens))
            print(f"{name}, {N_SLOTS} sequences, compressed log, medians of {n_tries}:")
            for setting, found in tries.items():
                to_none, to_relaxed = (ratio(found, tries[other]) for other in (NO_LOG, "relaxed"))
                spread = f"{median(found):8,.0f} tokens a second ({min(found):,.0f} to {max(found):,.0f})"
                print(f"  {setting:8} {spread}: {to_none:.3f} of no log, {to_relaxed:.3f} of relaxed")


def ratio(ones: list[float], others: list[float]) -> float:
    """Return the median of the ratios of each turn."""
    return median(one / other for one, other in zip(ones, others, strict=True))


if __name__ == "__main__":
    main()
