"""Chat templates: text of messages stays text, in templates of many shapes."""

import json
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.errors import InvalidRequest
from reenact.runtime.engine.protocol import Rendered
from reenact.runtime.llama.marked import OPEN, Marked, marked, marked_message
from reenact.runtime.llama.template import _Environment, _put, renderer, said_runs

pytestmark = pytest.mark.model

SPECIAL: Final = (
    "<|im_start|>",
    "<|im_end|>",
    "<s>",
    "</s>",
    "<|user|>",
    "<|end|>",
    "[INST]",
    "[/INST]",
    "<S>",
    "<|eot|>",
)

TEMPLATES: Final = {
    "markers in a string": """
        {%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}
        {%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}""",
    "trimmed and joined": """
        {%- for m in messages %}
        {%- if m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ m.content.strip() ~ ' [/INST]' }}
        {%- else %}{{ ' ' ~ (m.content | trim) ~ eos_token }}{% endif %}{% endfor %}""",
    "set before": """
        {%- for m in messages %}{% set c = '<|im_start|>' + m.role + '\n\n' + m.content | trim + '<|eot|>' %}
        {%- if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}""",
    "a role in a marker": """
        {%- for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>""",
    "thoughts left out": """
        {%- for m in messages %}{% set c = m.content %}
        {%- if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}
        {{- '<|end|>' + c + '<|eot|>' }}{% endfor %}""",
    "system text gathered": """
        {%- set ns = namespace(text='') %}
        {%- for m in messages %}{% set ns.text = ns.text + m.content + '<|end|>' %}{% endfor %}
        {{- bos_token }}{{ ns.text }}""",
    "JSON": """
        {%- macro show(x) %}[INST]{{ x | tojson }}{{ x | tojson(ensure_ascii=true, indent=2) }}[/INST]{% endmacro %}
        {%- for m in messages %}{{ show(m) }}{% endfor %}""",
    "changed": """
        {%- for m in messages %}{{ m.content | upper }}{{ m.content | reverse }}{{ m.content | replace('a', '<s>') }}
        {{- m.content[1:-1] }}{{ m.content.title() }}{{ '%s<|end|>' % m.content }}{{ '{}'.format(m.content) }}
        {%- endfor %}""",
    "filtered": """
        {%- for m in messages %}<|im_start|>{{ m.content | title }}{{ m.content | capitalize }}
        {{- m.content | center(30) }}{{ m.content | indent(2) }}{{ m.content | wordwrap(3) }}
        {{- m.content | truncate(5) }}{{ m.content | e }}{{ m.content | striptags }}{{ m.content | lower }}
        {{- m.content | pprint }}{{ m.content | urlize }}<|im_end|>
        {%- endfor %}""",
    "looked into": """
        {%- for m in messages %}{{ m.content | length }}{{ m.content == 'a' }}{{ m.content.startswith('<') }}
        {{- m.content.find('|') }}{{ m.content is string }}{{ {'user': 1, 'assistant': 2}[m.role] }}
        {{- m.content > 'b' }}{{ m.content in ['a', '<s>'] }}{{ (m.content ~ 'x') | length }}
        {{- [m.content, 'x'] | join('-') == m.content + '-x' }}{{ m.content.splitlines() | length }}
        {%- set block %}<s>{{ m.content }}{% endset %}{{ block | length }}{{ m.content.partition('|')[2] }}
        {{- m.content.rsplit('|', 1)[0] }}{{ m.content | list | length }}{% endfor %}""",
}

WORDS: Final = ("</think>", "a", " ", "\n", "|", "im_start", "é", "\\", '"', "{{ x }}", "{0.__class__}")
SAID = st.lists(st.one_of(st.sampled_from([*SPECIAL, *WORDS]), st.text(max_size=3)), max_size=5).map("".join)


@cache
def compiled(template: str) -> Any:
    """Return a template as it is run."""
    return _Environment().from_string(template)


def render(template: str, messages: list[Any]) -> str:
    """Return what a template makes of messages."""
    return _put(lambda: compiled(template), {"bos_token": "<s>", "eos_token": "</s>"}, messages)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@given(contents=st.lists(SAID, min_size=1, max_size=3))
def test_marks_change_nothing_that_a_template_sees(template: str, contents: list[str]) -> None:
    """A template makes the same of messages whose text is marked, but for the marks."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    expected = render(template, messages)
    actual = Marked(render(template, [marked_message(message) for message in messages]))
    assert expected == actual.plain


@pytest.mark.parametrize(
    "name", ["markers in a string", "trimmed and joined", "set before", "a role in a marker", "JSON", "filtered"]
)
@given(content=SAID)
def test_special_tokens_are_the_templates_own(name: str, content: str) -> None:
    """Whatever a message says, as many special tokens are parsed as for a message that says none."""
    template = TEMPLATES[name]

    def parsed(text: str) -> list[int]:
        messages: list[Any] = [{"role": "user", "content": text}]
        put = partial(render, template)
        whole, runs = put(messages), said_runs(put(messages), put, messages, SPECIAL)
        parts = [part for part, parsed in Rendered(text=whole, said=runs).parts() if parsed]
        return [sum(part.count(token) for part in parts) for token in SPECIAL]

    assert parsed("x") == parsed(content)


@given(content=SAID)
def test_a_marker_in_a_message_is_no_token(content: str) -> None:
    """A token that is found in any text stands whole in no part but where the template wrote it."""
    messages: list[Any] = [{"role": "user", "content": content}]
    put = partial(render, TEMPLATES["markers in a string"])
    text = put(messages)
    runs = said_runs(text, put, messages, (), ("<|im_start|>", "<|im_end|>", "</s>"))
    parts = Rendered(text=text, said=runs).parts()
    assert text == "".join(part for part, _ in parts)
    assert [2, 1, 0] == [sum(part.count(one) for part, _ in parts) for one in ("<|im_start|>", "<|im_end|>", "</s>")]


@pytest.mark.parametrize("hidden", ["m.content.encode().decode()", "'%c' % m.content[0] ~ (m.content | string)[1:]"])
def test_a_template_that_hides_whose_text_is_whose(hidden: str) -> None:
    """A template that loses the marks refuses what looks like a special token in whatever case, and takes the rest."""
    put = partial(render, f"{{% for m in messages %}}<s>{{{{ ({hidden}).lower() }}}}</s>{{% endfor %}}")

    def runs(content: str) -> Any:
        messages: list[Any] = [{"role": "user", "content": content}]
        return said_runs(put(messages), put, messages, SPECIAL)

    assert () == runs("S > a")
    with pytest.raises(
        InvalidRequest, match=r"they contain the text of the special token </s>, .* hides where it goes"
    ):
        runs("a</S>")


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "<s>", "arguments": {"<s>": ["<s>"]}}}],
        },
        {"role": "user", "content": [{"type": "text", "text": "<s>"}, {"type": "text", "text": "a<s>b"}]},
        {"role": "user<s>", "content": ""},
        {"role": "user", "content": "", "name": "<s>"},
    ],
)
def test_no_field_of_a_message_has_special_tokens(message: dict[str, Any]) -> None:
    """Tool calls, their arguments, parts of a content, names, and a role that is more than a word are text too."""
    put = partial(render, "<s>{{ messages[0].role }}{{ messages[0] | tojson }}</s>")
    text = put([message])
    runs = said_runs(text, put, [message], SPECIAL)  # type: ignore[list-item]
    parsed = [part for part, parsed in Rendered(text=text, said=runs).parts() if parsed]
    assert 2 == sum(part.count("<s>") + part.count("</s>") for part in parsed)


def test_a_word_as_a_role_may_be_part_of_a_marker() -> None:
    """``<|user|>`` that a template puts together is its own."""
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    put = partial(render, TEMPLATES["a role in a marker"])
    assert () == said_runs(put(messages), put, messages, SPECIAL)


def test_a_template_that_is_no_text() -> None:
    """A file whose template is no UTF-8, or no template, can be used for everything but chats."""
    vocabulary: Any = SimpleNamespace(bos=-1, eos=-1, text=lambda _: "", control_texts=(), user_defined_texts=())
    for source in (b"\xff", b"{% if %}"):
        with pytest.raises(InvalidRequest, match="the model's chat template refuses them"):
            renderer(source, vocabulary)([{"role": "user", "content": "Hi"}])


def test_what_a_template_says_is_for_its_caller() -> None:
    """It may be a message's text, so a log has the type alone of what a template raises."""
    vocabulary: Any = SimpleNamespace(bos=-1, eos=-1, text=lambda _: "", control_texts=(), user_defined_texts=())
    render = renderer(b"{{ raise_exception('no ' + messages[0].content) }}", vocabulary)
    with pytest.raises(InvalidRequest, match="refuses them: ValueError: no secret") as raised:
        render([{"role": "user", "content": "secret"}])
    assert "the model's chat template refuses them: ValueError" == raised.value.recorded


TOOL: Final = {"type": "function", "function": {"name": "f", "description": "a <s> b", "parameters": {}}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"{{ tools | tojson }} {{ messages[0].content }}", f"{json.dumps([TOOL])} Hi"),
        (b"{{ messages[0].role }} {{ messages[-1].content }}", "system Hi"),
        (b"{{ messages[0].content[-55:] }}", json.dumps(TOOL["function"])[-55:]),
    ],
)
def test_a_template_shows_tools(source: bytes, expected: str) -> None:
    """One that knows tools gets them, any other a system message; a special token in them is text in both."""
    vocabulary: Any = SimpleNamespace(bos=-1, eos=-1, text=lambda _: "", control_texts=SPECIAL, user_defined_texts=())
    rendered = renderer(source, vocabulary)([{"role": "user", "content": "Hi"}], [TOOL])
    assert expected == rendered.text
    assert ("<s>" in expected) == any("<s>" in part for part, parsed in rendered.parts() if not parsed)


def test_a_template_that_sees_marks() -> None:
    """Where marks change what a template does, a message with a special token's text is refused, any other is not."""
    put = partial(render, "<s>{% if messages[0].content in 'a<s>b' %}yes{% else %}no{% endif %}")
    for content, refused in (("a", False), ("a<s>", True)):
        messages: Any = [{"role": "user", "content": content}]
        if refused:
            with pytest.raises(InvalidRequest, match="they contain the text of the special token <s>"):
                said_runs(put(messages), put, messages, SPECIAL)
        else:
            assert () == said_runs(put(messages), put, messages, SPECIAL)


STRINGS = st.text(alphabet="ab <\n", max_size=6)
METHODS: Final = (
    *(
        ("strip", ()),
        ("lstrip", ("a",)),
        ("rstrip", ("a ",)),
        ("split", ()),
        ("split", ("a", 1)),
        ("rsplit", (None, 1)),
    ),
    *(
        ("splitlines", ()),
        ("splitlines", (True,)),
        ("partition", ("a",)),
        ("rpartition", ("a",)),
        ("replace", ("a", "bb")),
    ),
    *(("replace", ("", "-")), ("removeprefix", ("a",)), ("removesuffix", ("a",)), ("upper", ()), ("center", (9,))),
    *(("join", (["x", "y"],)), ("index", ("",)), ("startswith", (("a", "b"),)), ("__getitem__", (slice(1, None, -1),))),
    *(("__mul__", (2,)), ("__add__", ("b",)), ("__radd__", ("b",)), ("count", ("a",)), ("__len__", ())),
)


@pytest.mark.parametrize(("name", "args"), METHODS)
@given(before=STRINGS, said=STRINGS, behind=STRINGS)
def test_a_marked_string_is_a_string(name: str, args: tuple[Any, ...], before: str, said: str, behind: str) -> None:
    """Each method answers as that of the plain text does, and no character of a message loses its mark."""
    plain, string = before + said.upper() + behind, before + marked(said.upper()) + behind
    expected = args[0] + plain if name == "__radd__" else getattr(plain, name)(*args)
    actual = getattr(Marked(string), name)(*args)
    results = (
        [(expected, actual)] if isinstance(expected, str | bytes | int) else list(zip(expected, actual, strict=True))
    )
    for one, other in results:
        assert one == (other.plain if isinstance(other, Marked) else other)
        if isinstance(other, Marked) and name != "upper":
            lost = [text for text, is_said in zip(other.plain, other.said, strict=True) if text in "AB" and not is_said]
            assert [] == lost


LETTERS = st.text(alphabet="ab", max_size=6)


@given(before=LETTERS, said=LETTERS)
def test_marks_go_with_the_characters(before: str, said: str) -> None:
    """Characters that a template wrote stay the template's where a string is cut or joined."""
    string = Marked(before + marked(said.upper()))
    cut = string.strip("b").replace("a", "c")
    assert bytes(text in "AB" for text in cut.plain) == cut.said
    assert OPEN not in cut.plain


@pytest.mark.parametrize(("think", "expected"), [(None, "Hi."), (True, "Hi. on"), (False, "Hi. off")])
def test_a_template_is_told_whether_to_think(think: bool | None, expected: str) -> None:
    """The variable that turns thinking off is given only if it is asked for, and marks of a message stay apart."""
    vocabulary: Any = SimpleNamespace(bos=-1, eos=-1, text=lambda _: "", control_texts=("<s>",), user_defined_texts=())
    variable = "{% if enable_thinking is defined %}{{ ' on' if enable_thinking else ' off' }}{% endif %}"
    source = "{{ messages[0].content }}." + variable + "{# </think> #}"
    rendered = renderer(source.encode(), vocabulary)([{"role": "user", "content": "Hi"}], think=think)
    assert (expected, ()) == (rendered.text, rendered.said)
    forged = renderer(source.encode(), vocabulary)([{"role": "user", "content": "<s>"}], think=think)
    assert ((0, 3),) == forged.said
