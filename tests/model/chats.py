"""A chat of many turns, and what of each turn was evaluated."""

from typing import Final

from attrs import frozen

from reenact.runtime import Runtime

QUESTIONS: Final = (
    "Where do gulls sleep?",
    "Why is that so?",
    "Tell me something about the tides, in one sentence.",
    "And the moon?",
    "Write a line of a poem about it!",
    "Another line, please.",
    "What rhymes with sea?",
    "Count from one to five.",
    "Who are you?",
    "Good night.",
)


@frozen
class Turn:
    """What one turn cost."""

    n_new: int
    """Tokens of the new message and of what the template puts around it."""
    n_evaluated: int
    """Tokens of the prompt that did not come from the cache."""
    finish_reason: str


async def turns(runtime: Runtime, seed: int, *, num_predict: int) -> list[Turn]:
    """Chat through all questions and return what each turn cost."""
    messages: list[dict[str, str]] = []
    before = 0
    taken: list[Turn] = []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        answer = await runtime.chat(messages, seed=seed, num_predict=num_predict)
        messages.append({"role": "assistant", "content": answer.text})
        taken.append(Turn(answer.n_prompt - before, answer.n_prompt - answer.n_cached, answer.finish_reason))
        before = answer.n_prompt + len(answer.tokens)
    return taken
