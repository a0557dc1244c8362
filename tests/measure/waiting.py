"""What it costs that OpenMP's threads spin while they wait, alone and beside other programs: ``make measure-waiting``.

The rules that hold here:

* libgomp reads the environment when it is loaded, so each setting has processes of its own, in turn, and medians are
  compared.
* "before" is libgomp's default, "now" what `reenact.runtime.llama.bindings` sets, "sleeping" what
  OMP_WAIT_POLICY=PASSIVE does.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Final

from reenact.actors.batch import Trim
from reenact.runtime import LlamaEngine
from reenact.runtime.engine.protocol import ContextSettings
from tests.helpers.engine_steps import part, step, tokens_of
from tests.helpers.models.quantized import quantized

N_TRIES: Final = 5
N_PREFILL, N_BATCH, N_TOKENS = 256, 64, 30
SETTINGS: Final = {
    "before": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own, where no more threads run than there are CPUs
    "now": {},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
}
_BUSY: Final = "while True: pass"


def measured() -> dict[str, float]:
    """Return the seconds of a prefill and of a lone sequence's tokens."""
    engine = LlamaEngine(quantized("Q4_0"))
    engine.load(ContextSettings(n_slots=1, n_ctx=512, n_batch=N_BATCH, n_threads=2))
    text = tokens_of(engine, "One word after the other, and so on to the end of the page. " * 30)
    step(engine, part(text[:N_BATCH], slot=0, position=0), trims=(Trim(slot=0, length=0),))
    started = perf_counter()
    for at in range(0, N_PREFILL, N_BATCH):
        trims = () if at else (Trim(slot=0, length=0),)
        step(engine, part(text[at : at + N_BATCH], slot=0, position=at), trims=trims)
    prefilled = perf_counter()
    for at in range(N_PREFILL, N_PREFILL + N_TOKENS):
        step(engine, part(text[at : at + 1], slot=0, position=at, draw=at))
    ended = perf_counter()
    engine.close()
    return {f"prefill of {N_PREFILL}": prefilled - started, f"{N_TOKENS} tokens of one": ended - prefilled}


@contextmanager
def beside(n_programs: int) -> Iterator[None]:
    """Let other programs use the CPUs meanwhile."""
    programs = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(n_programs)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main() -> int:
    """Print the medians."""
    if sys.argv[1:] == ["--one"]:
        sys.stdout.write(json.dumps(measured()))
        return 0
    clean = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    for n_programs in (0, 2):
        tries: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
        with beside(n_programs):
            for _ in range(N_TRIES):
                for name, setting in SETTINGS.items():
                    command = (sys.executable, "-m", "tests.measure.waiting", "--one")
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=clean | setting)
                    tries[name].append(json.loads(done.stdout))
        print("alone:" if not n_programs else f"beside {n_programs} busy programs:")
        for what in tries["now"][0]:
            found = {name: median(one[what] for one in taken) for name, taken in tries.items()}
            told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items())
            print(f"  {what:20} {told}; now / before {found['now'] / found['before']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
