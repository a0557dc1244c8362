"""Small loads on SmolLM2 in several types of weights, each executed again.

Run it as ``python -m tests.helpers.models.quantizations``.

Names of types, as arguments, restrict it to these.

The rule that holds here: a process multiplies by tiles or does not, as its first model decides (`runtime.numerics`), so
each type has a process of its own.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from reenact.actors.header import DeterminismFacts
from reenact.actors.metrics import Statistics
from reenact.replay.compute.tier import ComputeOptions, compute_log, header_of
from reenact.replay.verdict import Verdict
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.log.reader import LogFile
from tests.helpers.models.load import BRIEF, Shown, record, shown
from tests.helpers.models.quantized import Quantization, quantized

INSTALLED: Final = "Q4_1"
"""What the installed file has."""
NAMES: Final[tuple[Quantization, ...]] = ("Q4_0", "Q8_0", "Q6_K", "Q4_K_M", "F16")
"""What is made of it."""
_SEED: Final = 11
_N_REQUESTS: Final = 10


def file_of(name: str) -> Path:
    """Return SmolLM2 in a type of weights, by its name."""
    return installed_model() if name == INSTALLED else quantized(next(one for one in NAMES if one == name))


def enough(so_far: Statistics) -> bool:
    """Return whether a small load has shown something."""
    return so_far.n_requests >= _N_REQUESTS


def few(so_far: Statistics) -> bool:
    """Return whether a load has shown as much as each of many types of weights is to show."""
    return so_far.n_requests >= _N_REQUESTS // 2


def executed(name: str, log: Path) -> tuple[DeterminismFacts, Shown, Verdict]:
    """Record a small load, and execute it again.

    Returns:
        What was promised, what the log shows, and the verdict.
    """
    model = file_of(name)
    trio.run(lambda: record(log, model, _SEED, few, sizes=BRIEF, n_slots=4, n_ctx=704, n_batch=64))
    with LogFile(log) as file:
        promised = header_of(file).determinism
    return promised, shown(log), compute_log(log, ComputeOptions(model=model))


def tell(name: str) -> int:
    """Execute a small load again and print what came of it, all on one line."""
    with TemporaryDirectory() as folder:
        promised, counted, verdict = executed(name, Path(folder) / f"{name}.jsonl")
    computed = verdict.computed
    n_rows = 0 if computed is None else computed.n_rows
    compared = f"{n_rows:,} of {counted.rows:,} rows compared, {verdict.verdict}"
    sys.stdout.write(f"{name}: {promised.policy} ({promised.reason}): {compared}\n")
    return int(verdict.exit_code != 0 or n_rows != counted.rows)


def main() -> int:
    """Execute a small load on each type again, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=(INSTALLED, *NAMES), metavar="NAME")
    names = parser.parse_args().names
    if len(names) == 1:
        return tell(names[0])
    command = (sys.executable, "-m", "tests.helpers.models.quantizations")
    return max(subprocess.run((*command, name), check=False).returncode for name in names)


if __name__ == "__main__":
    sys.exit(main())
