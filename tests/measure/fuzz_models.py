"""Damaged files of models, each opened as a service would, and its vocabulary used: ``make measure-fuzz_models``.

What is looked for: a process that dies, an error that is not typed, more than 2 seconds of CPU, more than 300 MB.
"""

import argparse
import os
import resource
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.options import Options
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.llama.engine import LlamaEngine
from reenact.runtime.llama.vocabulary import UNKNOWN
from reenact.runtime.user_cache import FOLDER_NAME
from tests.helpers.models.damaged import files

SETTINGS: Final = ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1)
DIED: Final = "EngineBroken: llama.cpp died"
_SECONDS, _MEGABYTES = 2.0, 300


def outcome_of(path: Path) -> str:
    """Open a file and use its vocabulary; return what came of it, without what is only this file's."""
    engine = LlamaEngine(path)
    try:
        engine.load(SETTINGS)
        engine.tokenize(f"a\n\0\u00e9{UNKNOWN}<s>")
        engine.compile(Options(seed=0, format="json"))
    except InvalidRequest as error:
        return f"InvalidRequest({error.field})"
    except EngineBroken as error:
        return DIED if "llama.cpp dies of" in str(error) else "EngineBroken"
    finally:
        engine.close()
    return "opened"


def _cpu_seconds() -> float:
    """Return how long this process and its children have computed: other programs make it no longer."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> int:
    """Open them, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=1000)
    args = parser.parse_args()
    outcomes: Counter[str] = Counter()
    taken: dict[int, float] = {}
    with TemporaryDirectory() as folder:
        os.environ[FOLDER_NAME] = f"{folder}/cache"
        for seed, path in files(Path(folder), range(args.seed, args.seed + args.files)):
            started = _cpu_seconds()
            outcome = outcome_of(path)
            taken[seed] = _cpu_seconds() - started
            outcomes[outcome] += 1
            if taken[seed] > _SECONDS or outcome == DIED:
                print(f"seed {seed}: {taken[seed]:.2f} s of CPU, {outcome}")
    sizes = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    for outcome, n in outcomes.most_common():
        print(f"  {outcome:32} {n:6,}")
    slowest = max(taken, key=lambda seed: taken[seed])
    print(
        f"{args.files:,} files, each with a typed end; slowest {taken[slowest]:.2f} s of CPU (seed {slowest});", end=" "
    )
    print(f"at most {sizes[0]} MB here and {sizes[1]} MB in a child")
    return int(taken[slowest] > _SECONDS or max(sizes) > _MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())
