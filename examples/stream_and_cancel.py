"""Read a text as it grows, and stop in the middle: leaving the block cancels the sequence and frees its slot.

Run it with ``python examples/stream_and_cancel.py``; then ``replay texts story.jsonl`` prints how the request ended.
"""

import trio

from reenact.runtime import Engine, installed_model, open_runtime


async def main(model: str | Engine, log: str) -> str:
    """Return the first sentence of a story, and generate no more of it than that."""
    text = ""
    async with open_runtime(model, log=log) as runtime:
        async with runtime.stream("Once upon a time", seed=7) as stream:
            async for chunk in stream:
                text += chunk.text
                if "." in text:
                    break
    return text


if __name__ == "__main__":
    print("Once upon a time" + trio.run(main, str(installed_model()), "story.jsonl"))
