"""The time until a hang-up is heard among 64 streaming clients, and the memory meanwhile: ``make measure-http_load``.

The rules that hold here:

* One client in five hangs up: in its request, after a while, in the prefill, or in the stream. The log tells where.
* A text counts as equal to the one that a runtime generates for its request alone, whole or as far as it was read.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

import trio

from reenact.replay import check_log, replay_log
from tests.helpers.http_load import HANG_UPS, N_CLIENTS, STAGES, alone, hang_ups, run_load

N_REQUESTS = 1000


def main() -> int:
    """Print a table of the hang-ups, the memory, and the verdict on the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=N_REQUESTS)
    n_requests = parser.parse_args().requests
    with TemporaryDirectory() as folder:
        begun = monotonic()
        load = trio.run(run_load, Path(folder) / "log.jsonl", n_requests)
        print(f"{n_requests:,} requests of {N_CLIENTS} clients in {monotonic() - begun:.0f} s, {HANG_UPS:.0%} hang up")
        found = hang_ups(load)
        print(f"\n{'hung up in':<12} {'clients':>8} {'median':>10} {'slowest':>10}")
        for stage in STAGES:
            seconds = [one.seconds for one in found if one.stage == stage and one.seconds is not None]
            times = f"{median(seconds) * 1e3:7.1f} ms {max(seconds) * 1e3:7.1f} ms" if seconds else ""
            print(f"{stage:<12} {sum(one.stage == stage for one in found):>8} {times}")
        print(f"the loop was late by {load.latest * 1e3:.1f} ms at most\n")
        sizes = [load.sizes[len(load.sizes) * share // 4 - 1] for share in range(1, 5)]
        print(f"memory after each quarter: {', '.join(f'{size:.1f}' for size in sizes)} MiB")
        texts = trio.run(alone, load.asked)
        equal = sum(texts[one.number] == one.text for one in load.asked if one.whole)
        whole = sum(one.whole for one in load.asked)
        begun_alike = sum(texts[one.number].startswith(one.text) for one in load.asked if not one.whole)
        print(f"texts as alone: {equal} of {whole} whole ones, {begun_alike} of {len(load.asked) - whole} others")
        print(f"slots in use at the end: {load.n_active}, requests that wait: {load.n_waiting}")
        verdict, violations = replay_log(load.log).verdict, len(list(check_log(load.log).violations))
        print(f"replay run: {verdict}; replay check: {violations} violations")
    return int(equal < whole or verdict != "same" or violations > 0 or load.n_active > 0)


if __name__ == "__main__":
    sys.exit(main())
