"""Chats as a model's own template puts them.

A template is a program that came with the model (Jinja in a sandbox, ``Jinja2ChatFormatter``): whatever it raises
concerns the messages it was given, and nobody else. It can ask the clock (``strftime_now``), so what it returns is a
fact, not something to render again.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from reenact.actors.errors import InvalidRequest, description
from reenact.runtime.engine import Message
from reenact.runtime.library import llama_chat_format, llama_cpp

Render = Callable[[Iterable[Message]], str]


def renderer(model: Any) -> Render:
    """Return what renders chats for a model, up to where the assistant's answer begins.

    What it returns begins without BOS where the vocabulary adds one by itself: a template that writes it too would
    bring it twice.
    """
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    bos = _text_of_token(vocabulary, llama_cpp.llama_vocab_bos(vocabulary))
    eos = _text_of_token(vocabulary, llama_cpp.llama_vocab_eos(vocabulary))
    adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocabulary))
    source = llama_cpp.llama_model_chat_template(model, None)

    @cache
    def formatter() -> Any:
        return llama_chat_format.Jinja2ChatFormatter(source.decode(), bos_token=bos, eos_token=eos)

    def render(messages: Iterable[Message]) -> str:
        if not source:
            raise InvalidRequest("messages", "the model has no chat template; put the prompt together yourself")
        try:
            text: str = formatter()(messages=list(messages)).prompt
        except Exception as error:  # noqa: BLE001  # a template is someone's program: it may raise anything
            raise InvalidRequest("messages", f"the model's chat template refuses them: {description(error)}") from None
        return text.removeprefix(bos) if adds_bos else text

    return render


def _text_of_token(vocabulary: Any, token: int) -> str:
    """Return a special token as text; nothing where the vocabulary has none (llama_vocab_get_text would abort)."""
    if token < 0:
        return ""
    text: bytes = llama_cpp.llama_vocab_get_text(vocabulary, token)
    return text.decode("utf-8", "replace")
