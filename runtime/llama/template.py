"""Renders chats with a model's own template.

A template is a program that comes with the model (Jinja in a sandbox): an exception from it fails the request whose
messages it was given, and no other. It can read the clock (``strftime_now``), so its text is a fact that is recorded
and never rendered again.

The rule that holds here: text of messages is text. A special token is parsed only where the template itself wrote it,
and the same is true of a user-defined token that the template uses as a marker. A template is rendered twice: with the
messages as they are, which gives the text, and with their text marked (`reenact.runtime.llama.marked`), which shows
where each character comes from.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from itertools import pairwise
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reenact.actors.errors import InvalidRequest
from reenact.runtime.engine.plain_tools import without_tools
from reenact.runtime.engine.protocol import Message, Rendered
from reenact.runtime.engine.think_tags import think_variables
from reenact.runtime.llama.bindings import llama_chat_format
from reenact.runtime.llama.marked import CLOSE, OPEN, SAID, Marked, marked_message, noticed, of_a_message
from reenact.runtime.llama.vocabulary import Vocabulary

Render = Callable[..., Rendered]

_MARKER: Final = re.compile(r"[^\w\s].*[^\w\s]", re.DOTALL)
"""The form of a user-defined token that is a marker, not a word or whitespace."""

_ROLES: Final = (
    *(("system", "user", "assistant", "user"), ("user", "assistant", "user", "assistant"), ("user",)),
    *(("user", "assistant", "tool"), ("system", "user", "assistant", "tool", "assistant")),
)
"""Chats that a template is tried with, to collect all text of its own; it may refuse some."""

_TOOLS: Final = re.compile(rb"\btools\b")
"""The variable by whose name a template knows tools."""

_SHOWN: Final = "tools"

_CUT: Final = re.compile(rb"\x01")

_NOT_ASCII: Final = re.compile(f"[^\\x00-\\x7f{OPEN}{CLOSE}]")


def renderer(source: bytes | None, vocabulary: Vocabulary) -> Render:
    """Return a function that renders chats with a template, up to where the assistant's answer begins."""
    texts = {"bos_token": vocabulary.text(vocabulary.bos), "eos_token": vocabulary.text(vocabulary.eos)}

    @cache
    def template() -> Any:
        return _Environment().from_string((source or b"").decode())

    def putting() -> Callable[..., str]:
        return partial(_put, template, {**texts, "strftime_now": datetime.now().astimezone().strftime})

    @cache
    def markers() -> tuple[str, ...]:
        candidates = [text for text in vocabulary.user_defined_texts if _MARKER.fullmatch(text)]
        written = _written(putting()) if candidates else ""
        return tuple(text for text in candidates if text in written)

    def render(
        messages: Iterable[Message], tools: Sequence[dict[str, Any]] = (), *, think: bool | None = None
    ) -> Rendered:
        if not source:
            raise InvalidRequest("messages", "the model has no chat template; put the prompt together yourself")
        knows_tools = _TOOLS.search(source) is not None
        asked: list[Any] = list(messages) if knows_tools else without_tools(messages, tools)
        with_tools = partial(putting(), **think_variables(source.decode(errors="replace"), think))
        if knows_tools and tools:
            # Their text is the caller's too, so it is marked with that of the messages.
            asked.append({_SHOWN: list(tools)})
        put = partial(_put_tools, with_tools)
        try:
            text = put(asked)
        except Exception as error:  # noqa: BLE001  # a template is someone's program: it may raise anything
            raise InvalidRequest.because("messages", "the model's chat template refuses them", error) from None
        return Rendered(text=text, said=said_runs(text, put, asked, vocabulary.control_texts, markers()))

    return render


def said_runs(
    text: str,
    put: Callable[[list[Any]], str],
    messages: list[Message],
    control_texts: Iterable[str],
    markers: Iterable[str] = (),
) -> tuple[tuple[int, int], ...]:
    """Return the runs of characters in ``text`` that come from messages and would be taken for special tokens.

    A marker is divided between two adjacent runs, because llama.cpp would find it within one run.

    Args:
        text: The text that the template makes of the messages.
        put: Renders the template.
        messages: The messages.
        control_texts: The texts of special tokens.
        markers: The texts of user-defined tokens that the template writes; llama.cpp finds these in any text.

    Raises:
        InvalidRequest: Marks in the messages change what the template writes, and a message contains the text of a
            special token.
    """
    try:
        put_marked = Marked(put([marked_message(message) for message in messages]))
    except Exception:  # noqa: BLE001  # as above
        put_marked = Marked()
    if put_marked.plain == text:
        return _forged(text, put_marked.said, control_texts, markers)
    said = [one.casefold() for one in _texts(messages)]  # A template may have changed the case before it hid them.
    for found in (*control_texts, *markers):
        if any(found.casefold() in one for one in said):
            reason = (
                f"they contain the text of the special token {found}, and the model's chat template hides where it goes"
            )
            raise InvalidRequest("messages", reason)
    return ()


def _forged(
    text: str, said: bytes, control_texts: Iterable[str], markers: Iterable[str]
) -> tuple[tuple[int, int], ...]:
    """Return the runs of messages' text that form a part of a special token's text; a marker is in two runs."""
    taking_part, cuts = bytearray(len(text)), bytearray(len(text))
    for start, end in _places(text, control_texts):
        taking_part[start:end] = b"\1" * (end - start)
    for start, end in _places(text, markers):
        if 0 not in said[start:end]:
            taking_part[start] = cuts[start + 1] = 1
    forged = [run.span() for run in SAID.finditer(said) if 1 in taking_part[slice(*run.span())]]
    ends = [[begin, *(cut.start() for cut in _CUT.finditer(cuts, begin + 1, end)), end] for begin, end in forged]
    return tuple(run for run_ends in ends for run in pairwise(run_ends))


def _places(text: str, found: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Return the beginning and end of each occurrence of these in a text."""
    for one in found:
        start = text.find(one)
        while start >= 0:
            yield start, start + len(one)
            start = text.find(one, start + 1)


def _written(put: Callable[[list[Any]], str]) -> str:
    """Return the text that a template itself writes around messages of the usual roles."""
    written = []
    for roles in _ROLES:
        with suppress(Exception):  # as above
            written.append(put([{"role": role, "content": "x"} for role in roles]))
    return "\n".join(written)


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


def _put_tools(put: Callable[..., str], messages: list[Any]) -> str:
    """Render messages, of which the last may hold the tools in place of a role."""
    if messages and _SHOWN in messages[-1]:
        return put(messages[:-1], tools=messages[-1][_SHOWN])
    return put(messages)


def _put(
    template: Callable[[], Any],
    texts: dict[str, Any],
    messages: list[Any],
    tools: list[Any] | None = None,
    **variables: bool,
) -> str:
    text: str = template().render(
        messages=messages,
        add_generation_prompt=True,
        raise_exception=_refuse,
        functions=None,
        function_call=None,
        tools=tools,
        tool_choice=None,
        **texts,
        **variables,
    )
    return text


def _refuse(message: str) -> None:
    """Raise a template's own error."""
    raise ValueError(message)


class _Code(CodeGenerator):
    """Generates code that keeps strings marked when it joins them."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  # jinja2's name
        """Write ``a ~ b``."""
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of a chat template, with the filters and extensions that other runtimes have."""

    code_generator_class = _Code

    def __init__(self) -> None:
        extensions = [llama_chat_format.Jinja2ChatFormatter.IgnoreGenerationTags, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self.filters["tojson"] = _tojson
        self.filters = {name: of_a_message(call) for name, call in self.filters.items()}

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the parts of the output."""
        joined: str = noticed("".join(parts))
        return joined

    def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
        """Call a function for a template."""
        return noticed(super().call(context, called, *args, **named))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # templates give it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002  # likewise
) -> str:
    """Return a value as JSON, without escaping the characters of HTML as jinja2's own filter does."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text) if ensure_ascii else text
