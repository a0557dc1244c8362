"""What each turn of a chat evaluates, on SmolLM2: ``make measure-chat``."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from reenact.replay import replay_log
from tests.model.chats import Turn, turns
from tests.model.scenarios import smollm2

N_SEEDS = 20
NUM_PREDICT = 40


async def measure(log: Path) -> dict[int, list[Turn]]:
    """Return the turns of each seed's chat."""
    taken: dict[int, list[Turn]] = {}
    async with smollm2(log, n_ctx=1536, n_slots=8) as runtime:

        async def chat(seed: int) -> None:
            taken[seed] = await turns(runtime, seed, num_predict=NUM_PREDICT)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{len(taken)} of {N_SEEDS} chats ")

        # As many at once as there are slots: a chat whose slot somebody else took evaluates all of it again.
        for first in range(0, N_SEEDS, 8):
            async with trio.open_nursery() as nursery:
                for seed in range(first, min(first + 8, N_SEEDS)):
                    nursery.start_soon(chat, seed)
    return taken


def main() -> int:
    """Print new and evaluated tokens of each turn, and whether any was more than one token over."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "chat.jsonl"
        taken = trio.run(measure, log)
        verdict = replay_log(log)
    print("new/evaluated tokens of each turn; * where the answer before it ended with num_predict")
    worst = 0
    for seed, chat in sorted(taken.items()):
        ended = ["", *("*" if turn.finish_reason == "length" else "" for turn in chat)]
        cells = [f"{turn.n_new}/{turn.n_evaluated}{mark}" for turn, mark in zip(chat, ended, strict=False)]
        print(f"seed {seed:2}: " + " ".join(f"{cell:>7}" for cell in cells))
        worst = max(worst, *(turn.n_evaluated - turn.n_new for turn in chat[1:]))
    print(f"from the second turn on, at most {worst} evaluated beyond what is new; the log replays {verdict.verdict}")
    return int(worst > 1 or verdict.exit_code > 0)


if __name__ == "__main__":
    sys.exit(main())
