"""Go back to the middle of a session, change an option, and go on from there: the parent's log stays as it is.

Run it with ``python examples/what_if.py``; then ``replay diff first.jsonl second.jsonl`` shows where the texts part.
"""

from pathlib import Path

import trio

from reenact.replay import fork_log
from reenact.runtime import installed_model, open_runtime


async def record(model: Path, log: Path) -> str:
    """Record a session of one request, and return its text."""
    async with open_runtime(model, log=log) as runtime:
        completion = await runtime.complete("Once upon a time", seed=7, num_predict=24, temperature=0.8)
        return completion.text


def main(model: Path, first: Path, second: Path) -> tuple[str, str]:
    """Record a session, go on from its record 30 with another temperature, and return the text of each."""
    text = trio.run(record, model, first)
    (continued,) = fork_log(first, 30, out=second, model=model, changes={"temperature": 0.0}).sequences
    return text, continued.before + continued.after


if __name__ == "__main__":
    print(*main(installed_model(), Path("first.jsonl"), Path("second.jsonl")), sep="\n")
