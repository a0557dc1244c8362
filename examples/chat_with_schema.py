"""A chat whose answer is JSON of a given form: every answer that ends by itself fits the schema.

Run it with ``python examples/chat_with_schema.py``.
"""

import json
from typing import Any

import trio

from reenact.runtime import Engine, installed_model, open_runtime

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "job": {"enum": ["cook", "sailor"]}},
    "required": ["name", "job"],
}


async def main(model: str | Engine, log: str) -> Any:  # noqa: ANN401  # what a model's JSON holds
    """Ask for a person, then ask about the same person again."""
    messages = [{"role": "user", "content": "Invent a person and the person's job. Answer in JSON."}]
    async with open_runtime(model, log=log) as runtime:
        answer = await runtime.chat(messages, seed=7, num_predict=64, format=PERSON)
        if answer.finish_reason != "stop":
            raise RuntimeError(f"the answer is cut: {answer.finish_reason}")
        person = json.loads(answer.text)

        messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "Greet this person."}]
        greeting = await runtime.chat(messages, seed=7, num_predict=32)
        return person, greeting.text


if __name__ == "__main__":
    print(*trio.run(main, str(installed_model()), "chat.jsonl"), sep="\n")
