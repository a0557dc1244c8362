"""The time that a look into a log of two million records takes, on a scripted session: ``make measure-long_log``.

It writes the log, plain and compressed, and runs the commands on it as a person does, each in a process of its own. The
first look at a state folds the log and keeps snapshots; the others begin at one.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from attrs import frozen

from reenact.runtime.user_cache import FOLDER_NAME
from tests.replay.logs import Session

N_RECORDS: Final = 2_000_000
N_SLOTS: Final = 8
N_PREDICT: Final = 200
N_LOOKS: Final = 12
PROGRAM: Final = """\
import sys
from reenact.replay.cli.main import main
code = main()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, file=sys.stderr)
sys.exit(code)
"""
"""The command, and then the most memory that its process had, in kB."""


@frozen
class Look:
    """A command that ended: the seconds, and the most memory that it had, in MB."""

    seconds: float
    memory: float


def write(path: Path, n_records: int) -> int:
    """Write a log of sequences that come and go; return the count of its records."""
    session = Session(path, n_slots=N_SLOTS, n_ctx=512, n_batch=64)
    n = 1
    while n < n_records:
        while len(session.kernel.live) < N_SLOTS:
            session.request(inputs=12, num_predict=N_PREDICT)
        n = session.decode()[-1].n + 1
    session.close()
    return n


def look(*arguments: object) -> Look:
    """Run a command of replay."""
    start = perf_counter()
    command = (sys.executable, "-c", PROGRAM, *map(str, arguments))
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return Look(perf_counter() - start, int(done.stderr.split()[-2]) / 1000)


def measure(path: Path, n_records: int) -> None:
    """Print the seconds and the memory that looks into one log take."""
    start = perf_counter()
    n = write(path, n_records)
    print(
        f"{path.name}: {n:,} records, {path.stat().st_size / 1e6:,.0f} MB, written in {perf_counter() - start:,.0f} s"
    )
    chosen = Random(path.name)  # noqa: S311  # which records are looked at
    numbers = [n // 2, *(chosen.randrange(n) for _ in range(N_LOOKS - 1))]
    looks = {
        "its first record (replay show LOG 0)": [look("show", path, 0)],
        "the first look at its last state (replay state LOG)": [look("state", path)],
        "another look at its last state": [look("state", path)],
        "the state at its middle record (replay state LOG N)": [look("state", path, n // 2)],
        f"the states at {N_LOOKS} records": [look("state", path, number) for number in numbers],
        f"{N_LOOKS} records (replay show LOG N)": [look("show", path, number) for number in numbers],
    }
    for what, times in looks.items():
        seconds = sorted(one.seconds for one in times)
        slowest = f", slowest {seconds[-1]:.2f} s" if len(seconds) > 1 else ""
        print(f"  {what}: {median(seconds):.2f} s{slowest}, at most {max(one.memory for one in times):,.0f} MB")


def main() -> None:
    """Measure as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=N_RECORDS, help="in the log (default: %(default)s)")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.environ[FOLDER_NAME] = str(Path(folder) / "cache")
        for ending in ("jsonl", "jsonl.zst"):
            measure(Path(folder) / f"long.{ending}", args.records)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
