"""Chats as a model's own template puts them.

A template is a program that came with the model (Jinja in a sandbox): whatever it raises concerns the messages it was
given, and nobody else. It can ask the clock (``strftime_now``), so what it returns is a fact, not something to render
again.

The rule that holds here: text of messages is text. A special token is parsed where the template wrote it, and nowhere
else. A template is rendered twice: with the messages as they are, which is the text, and with their text marked
(`reenact.runtime.marked`), which tells whose each character is.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache, partial, wraps
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reenact.actors.errors import InvalidRequest
from reenact.runtime.engine import Message, Rendered
from reenact.runtime.library import llama_chat_format
from reenact.runtime.marked import CLOSE, OPEN, SAID, Marked, marked_message, noticed
from reenact.runtime.vocabulary import Vocabulary

Render = Callable[[Iterable[Message]], Rendered]

_NOT_ASCII: Final = re.compile(f"[^\\x00-\\x7f{OPEN}{CLOSE}]")


def renderer(source: bytes | None, vocabulary: Vocabulary) -> Render:
    """Return what renders chats with a template, up to where the assistant's answer begins."""
    texts = {"bos_token": vocabulary.text(vocabulary.bos), "eos_token": vocabulary.text(vocabulary.eos)}

    @cache
    def template() -> Any:
        return _Environment().from_string((source or b"").decode())

    def render(messages: Iterable[Message]) -> Rendered:
        if not source:
            raise InvalidRequest("messages", "the model has no chat template; put the prompt together yourself")
        asked = list(messages)
        put = partial(_put, template, {**texts, "strftime_now": datetime.now().astimezone().strftime})
        try:
            text = put(asked)
        except Exception as error:  # noqa: BLE001  # a template is someone's program: it may raise anything
            raise InvalidRequest.because("messages", "the model's chat template refuses them", error) from None
        return Rendered(text=text, said=said_runs(text, put, asked, vocabulary.control_texts))

    return render


def said_runs(
    text: str, put: Callable[[list[Any]], str], messages: list[Message], control_texts: Iterable[str]
) -> tuple[tuple[int, int], ...]:
    """Return which runs of characters in ``text`` come from messages and would be taken for special tokens.

    Args:
        text: What the template makes of the messages.
        put: What renders the template.
        messages: The messages.
        control_texts: What special tokens look like.

    Raises:
        InvalidRequest: The template looks into its messages in a way that marks in them change, and one of them holds
            the text of a special token.
    """
    try:
        put_marked = Marked(put([marked_message(message) for message in messages]))
    except Exception:  # noqa: BLE001  # as above
        put_marked = Marked()
    if put_marked.plain == text:
        return _forged(text, put_marked.said, control_texts)
    for found in control_texts:
        if any(found in one for one in _texts(messages)):
            reason = (
                f"they hold the text of the special token {found}, and the model's chat template hides where it goes"
            )
            raise InvalidRequest("messages", reason)
    return ()


def _forged(text: str, said: bytes, control_texts: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Return the runs of messages' text that take part in what looks like a special token."""
    runs = [run.span() for run in SAID.finditer(said)]
    taking_part = bytearray(len(text))
    for token in control_texts:
        start = text.find(token)
        while start >= 0:
            end = start + len(token)
            taking_part[start:end] = b"\1" * len(token)
            start = text.find(token, start + 1)
    return tuple(run for run in runs if 1 in taking_part[slice(*run)])


def _texts(value: Any) -> Iterator[str]:
    """Return all strings in messages."""
    match value:
        case str():
            yield value
        case dict():
            for item in value.items():
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)
        case _:
            pass


def _put(template: Callable[[], Any], texts: dict[str, Any], messages: list[Any]) -> str:
    text: str = template().render(
        messages=messages,
        add_generation_prompt=True,
        raise_exception=_refuse,
        functions=None,
        function_call=None,
        tools=None,
        tool_choice=None,
        **texts,
    )
    return text


def _refuse(message: str) -> None:
    """Raise what a template has to say."""
    raise ValueError(message)


class _Code(CodeGenerator):
    """Code in which strings that are joined stay marked."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  # jinja2's name
        """Write ``a ~ b``."""
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    """What a chat template may use, as other runtimes have it."""

    code_generator_class = _Code

    def __init__(self) -> None:
        extensions = [llama_chat_format.Jinja2ChatFormatter.IgnoreGenerationTags, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self.filters["tojson"] = _tojson
        self.filters = {name: _noticing(call) for name, call in self.filters.items()}

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join what is put out."""
        joined: str = noticed("".join(parts))
        return joined

    def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
        """Call what a template calls."""
        return noticed(super().call(context, called, *args, **named))


def _noticing(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def calling(*args: Any, **named: Any) -> Any:
        return noticed(call(*args, **named))

    return calling


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # templates give it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002  # likewise
) -> str:
    """Return a value as JSON; HTML's characters stay, which jinja2's own filter escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text) if ensure_ascii else text
