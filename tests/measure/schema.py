"""How many texts in the form of a JSON Schema end by themselves, on SmolLM2: ``make measure-schema``."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from reenact.replay import replay_log
from tests.model.people import Answer, answers
from tests.model.scenarios import smollm2

N_SEEDS = 50
WANTED = 45


async def measure(log: Path) -> list[Answer]:
    """Return the answer of each seed."""
    async with smollm2(log, n_ctx=512, n_slots=8) as runtime:
        return await answers(runtime, range(N_SEEDS))


def main() -> int:
    """Print every answer and how many ended and validate."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "schema.jsonl"
        found = trio.run(measure, log)
        verdict = replay_log(log)
    for answer in found:
        how = f"{answer.completion.finish_reason:6} {'valid' if answer.valid else 'INVALID' if answer.ended else ''}"
        print(f"seed {answer.seed:2} {answer.completion.n_sampled:3} tokens {how:14} {answer.completion.text}")
    ended = [answer for answer in found if answer.ended]
    n_valid = sum(answer.valid for answer in ended)
    print(f"{len(ended)} of {N_SEEDS} ended by themselves, {n_valid} of these validate; replays {verdict.verdict}")
    return int(len(ended) < WANTED or n_valid < len(ended) or verdict.exit_code > 0)


if __name__ == "__main__":
    sys.exit(main())
