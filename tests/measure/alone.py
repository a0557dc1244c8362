"""Every sequence of a random load, executed alone in an empty context: ``make measure-alone``.

Under the schedule-independent policy every row must be the same. The control, with llama.cpp's default cache types,
shows that the check can fail.
"""

import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from reenact.actors.metrics import Statistics
from reenact.replay.compute.alone import all_alone
from reenact.replay.compute.report import Computed
from reenact.replay.compute.tier import ComputeOptions
from tests.helpers.models.here import add_type_v, machine_with
from tests.helpers.models.load import BRIEF, record
from tests.helpers.models.quantizations import INSTALLED, file_of

SEED = 3
N_ROWS = 600
SETTINGS = {"n_slots": 4, "n_ctx": 704, "n_batch": 96}


def alone(folder: Path, name: str, determinism: str) -> Computed:
    """Return what the sequences of a load come to, each alone."""
    log = folder / f"{name}-{determinism}.jsonl"

    def enough(so_far: Statistics) -> bool:
        return so_far.n_sampled >= N_ROWS

    settings = {**SETTINGS, "determinism": determinism}
    trio.run(partial(record, log, file_of(name), SEED, enough, sizes=BRIEF, **settings))
    computed = all_alone(log, ComputeOptions(model=file_of(name))).computed
    assert computed is not None
    return computed


def main() -> int:
    """Print how many sequences differ, and in how many rows."""
    parser = ArgumentParser(description=__doc__)
    add_type_v(parser)
    with machine_with(parser.parse_args().type_v):
        return compare()


def compare() -> int:
    """Print, for each type of weights, how many sequences differ; return the exit code."""
    wrong = 0
    with TemporaryDirectory() as folder:
        for name in (INSTALLED, "Q4_0"):
            for determinism, may_differ in (("schedule-independent", False), ("recorded-schedule", True)):
                found = alone(Path(folder), name, determinism)
                print(
                    f"{name}, {determinism}: {len(found.alone)} sequences alone, {found.n_rows:,} rows:"
                    f" {len(found.differing)} sequences and {found.n_rows_differ:,} rows differ",
                    flush=True,
                )
                wrong += bool(found.differing) != may_differ
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
