"""Two requests at once in a trio application: they share the model, and each batch computes a row of both.

Run it with ``python examples/two_requests.py``; then ``replay show requests.jsonl`` prints what happened.
"""

import trio

from reenact.runtime import Engine, Runtime, installed_model, open_runtime


async def ask(runtime: Runtime, prompt: str, answers: dict[str, str]) -> None:
    """Complete one prompt and keep its text."""
    completion = await runtime.complete(prompt, seed=7, num_predict=16)
    answers[prompt] = completion.text


async def main(model: str | Engine, log: str) -> dict[str, str]:
    """Complete two prompts at the same time."""
    answers: dict[str, str] = {}
    async with open_runtime(model, log=log, n_slots=2) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(ask, runtime, "The capital of France is", answers)
        nursery.start_soon(ask, runtime, "Once upon a time", answers)
    return answers


if __name__ == "__main__":
    for question, text in trio.run(main, str(installed_model()), "requests.jsonl").items():
        print(f"{question}{text}")
