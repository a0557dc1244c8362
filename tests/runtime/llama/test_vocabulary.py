"""From texts to tokens, on vocabularies that put a space before a text and BOS before that."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.errors import InvalidRequest
from reenact.actors.inputs import Input
from reenact.actors.options import RequestOptions
from reenact.runtime import open_runtime
from reenact.runtime.engine.protocol import ContextSettings, Message, Rendered
from reenact.runtime.llama.engine import LlamaEngine
from tests.helpers.models.tiny import LETTERS, tiny
from tests.helpers.sessions import read_fields

pytestmark = pytest.mark.model

PLAIN: Final = """
    {%- for m in messages %}{% if m.role == 'user' %}u:{{ m.content }}\ns:{% else %}{{ m.content }}\n{% endif %}
    {%- endfor %}"""
CLOSED: Final = """
    {{- bos_token }}{% for m in messages %}{% if m.role == 'user' %}u{{ m.content }}s
    {%- else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"""
OPEN_ENDED: Final = """
    {{- bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'user' else 'u' }}{% endfor %}"""
BOS, EOS, SPACE, LETTER = 1, 2, 3 + LETTERS.index("\u2581"), 3 + LETTERS.index("u")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the model's file."""
    return tiny(tmp_path_factory.mktemp("model") / "tiny.gguf", n_positions=512, pieces=LETTERS, template=CLOSED)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LlamaEngine]:
    """Give the engine, loaded."""
    engine = LlamaEngine(model)
    engine.load(ContextSettings(n_slots=1, n_ctx=512, n_batch=64, n_threads=1))
    yield engine
    engine.close()


def pieces(tokens: tuple[int, ...]) -> str:
    """Return tokens as the vocabulary writes them."""
    return "".join(("<unk>", "<s>", "</s>", *LETTERS)[token] for token in tokens)


def prompts(log: Path) -> list[tuple[int, ...]]:
    """Return the prompts of a session."""
    return [tuple(record["inputs"]) for record in read_fields(log) if record["type"] == "PromptTokenized"]


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("abcd", None, "<s>\u2581abcd"),
        ("abcd", LETTER, "abcd"),
        (" abcd", LETTER, "\u2581abcd"),
        ("", LETTER, ""),
        ("</s>ab", LETTER, "</s>\u2581ab"),
        ("ab", EOS, "\u2581ab"),
        ("ab", (0.5,), "ab"),
        ("<s>ab", None, "<s>\u2581ab"),
        ("<s><s>ab", None, "<s><s>\u2581ab"),
        ("a<s>", None, "<s>\u2581a<s>"),
    ],
)
def test_a_prompt_begins_once(engine: LlamaEngine, text: str, after: Input | None, expected: str) -> None:
    """BOS and a space come before a prompt, one BOS where it is written, and neither before a text that goes on.

    Behind a special token there is a space, also where the text goes on from it.
    """
    assert expected == pieces(engine.tokenize(text, after=after).tokens)


@given(text=st.text(), before=st.sampled_from(["u", "c", "\n"]))
def test_a_text_that_goes_on_is_as_long_as_it_is(engine: LlamaEngine, text: str, before: str) -> None:
    """What goes on from a text adds no bytes: with what stands before, it is the whole as text."""
    whole = engine.tokenize(before + text).tokens
    begun = engine.tokenize(before).tokens
    parts = begun + engine.tokenize(text, after=begun[-1]).tokens

    def content(tokens: tuple[int, ...]) -> bytes:
        raw = b"".join(bytes([token - 3]) if 3 <= token < SPACE else pieces((token,)).encode() for token in tokens)
        return raw.replace("\u2581".encode(), b" ")

    assert content(whole) == content(parts)


def test_a_text_that_was_said_has_no_special_tokens(engine: LlamaEngine) -> None:
    """In a run that a message said no special token is parsed, and no space is put around it."""
    whole = Rendered(text="u</s>b</s>", said=((1, 5),))
    tokens = engine.tokenize(whole).tokens
    assert (1, EOS) == (tokens.count(EOS), tokens[-1])
    assert 1 == tokens.count(SPACE)
    assert Rendered(text="s>b</s>", said=((0, 2),)) == whole.rest(3)
    assert Rendered(text="b</s>") == whole.rest(5)


def test_a_template_that_writes_bos_has_one(engine: LlamaEngine) -> None:
    """A template's BOS and that of the vocabulary are one, and a message's is text."""
    tokenized = engine.tokenize(engine.render([{"role": "user", "content": "<s>"}]))
    assert (True, 1, BOS) == (tokenized.bos_added, tokenized.tokens.count(BOS), tokenized.tokens[0])


@given(
    contents=st.lists(
        st.text(alphabet="ab </s>\n") | st.sampled_from(["<s>", "</s>", "a</s><s>"]), min_size=1, max_size=3
    )
)
def test_special_tokens_of_a_chat_are_the_templates_own(engine: LlamaEngine, contents: list[str]) -> None:
    """A chat has one BOS, and an EOS behind each answer, whatever its messages say."""
    messages: list[Message] = [
        {"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)
    ]
    tokens = engine.tokenize(engine.render(messages)).tokens
    assert (1, len(contents) // 2) == (tokens.count(BOS), tokens.count(EOS))


ROLES: Final = """
    {%- for m in messages %}{% if m.role == 'system' %}[SYS]{% else %}<|turn|>{% endif %}{{ m.role }}\n{{ m.content }}
    {{- '\n\n' }}{% endfor %}"""


@pytest.mark.parametrize(
    ("content", "found"),
    [("a<|turn|>b", 0), ("<<|turn|>|turn|>", 0), ("[SYS]a", 0), ("</think>a", 1), ("a\n\nb", 1), ("user", 1)],
)
def test_user_defined_markers_are_the_templates_own(tmp_path: Path, content: str, found: int) -> None:
    """A user-defined token that a template writes as a marker is text in messages; words, blanks and others stay."""
    markers = ("<|turn|>", "[SYS]", "</think>", "\n\n", "user")
    path = tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS, markers=markers, template=ROLES)
    engine = LlamaEngine(path)
    engine.load(ContextSettings(n_slots=1, n_ctx=64, n_batch=64, n_threads=1))
    plain, said = (engine.tokenize(engine.render([{"role": "user", "content": one}])).tokens for one in ("x", content))
    engine.close()
    first = 3 + len(LETTERS)
    counts = [[tokens.count(first + i) for i in range(len(markers))] for tokens in (plain, said)]
    assert ([1, 0, 0, 1, 1], found) == (counts[0], sum(counts[1]) - sum(counts[0]))


def test_eos_comes_once_and_last(tmp_path: Path) -> None:
    """A vocabulary that puts EOS behind a prompt does so behind all of it, also where a message looks like a token."""
    engine = LlamaEngine(tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS, add_eos=True))
    engine.load(ContextSettings(n_slots=1, n_ctx=64, n_batch=64, n_threads=1))
    plain, said = (engine.tokenize(Rendered(text="a</s>b", said=runs)) for runs in ((), ((1, 5),)))
    engine.close()
    assert (2, 1) == (plain.tokens.count(EOS), said.tokens.count(EOS))
    assert (EOS, EOS) == (plain.tokens[-1], said.tokens[-1])


async def test_texts_of_a_list_are_one_text(model: Path, session_log: Path) -> None:
    """Texts that follow one another are tokenized as the text that they are."""
    async with open_runtime(model, log=session_log, n_ctx=256, n_threads=1) as runtime:
        await runtime.complete("abcd", num_predict=1)
        await runtime.complete(["a", "", "bcd"], num_predict=1)
    one, other = prompts(session_log)
    assert one == other


@pytest.mark.parametrize("template", [PLAIN, CLOSED])
@pytest.mark.parametrize("answer", ["ab", "cd", "cb"])
async def test_a_chat_that_goes_on_is_the_chat_afresh(tmp_path: Path, template: str, answer: str) -> None:
    """Its prompt is the same text, whatever tokens the answer was sampled as."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=512, pieces=LETTERS, template=template)
    messages = [{"role": "user", "content": "ab"}]
    async with open_runtime(path, log=tmp_path / "on", n_ctx=256, n_threads=1) as runtime:
        first = await runtime.chat(messages, num_predict=8, grammar=f'root ::= "{answer}"')
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "cd"}]
        await runtime.chat(messages, num_predict=1)
    async with open_runtime(path, log=tmp_path / "afresh", n_ctx=256, n_threads=1) as runtime:
        await runtime.chat(messages, num_predict=1)
    _, goes_on, afresh = (pieces(prompt) for name in ("on", "afresh") for prompt in prompts(tmp_path / name))
    for letter in "abcd":
        goes_on = goes_on.replace(f"<0x{ord(letter):02X}>", letter)
    assert (afresh, answer) == (goes_on, first.text)


@pytest.mark.parametrize("options", [{"num_predict": 0}, {"grammar": 'root ::= "ab"', "stop": ["a"]}])
async def test_a_chat_goes_on_from_a_special_token(tmp_path: Path, options: RequestOptions) -> None:
    """Where no token of an answer is kept, what follows the special token is tokenized as in the whole text."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=512, pieces=LETTERS, template=OPEN_ENDED)
    messages = [{"role": "user", "content": "cd"}]
    async with open_runtime(path, log=tmp_path / "on", n_ctx=256, n_threads=1) as runtime:
        assert "" == (await runtime.chat(messages, **options)).text
        messages += [{"role": "assistant", "content": ""}, {"role": "user", "content": "ab"}]
        await runtime.chat(messages, num_predict=1)
    async with open_runtime(path, log=tmp_path / "afresh", n_ctx=256, n_threads=1) as runtime:
        await runtime.chat(messages, num_predict=1)
    _, goes_on, afresh = (pieces(prompt) for name in ("on", "afresh") for prompt in prompts(tmp_path / name))
    assert ("<s>\u2581cd</s>\u2581uab</s>", goes_on) == (afresh, afresh)


@pytest.mark.parametrize("byte", ["<0x09>", "<0x80>", "<0xF4>"])
def test_a_vocabulary_without_some_byte_is_refused(tmp_path: Path, byte: str) -> None:
    """llama.cpp would abort the process at a character whose bytes have no tokens, so such a file is refused."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=[piece for piece in LETTERS if piece != byte])
    with pytest.raises(InvalidRequest, match=f"no tokens for 1 of the 243 bytes of UTF-8, the first is {byte}: "):
        LlamaEngine(path).load(ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1))


def test_bytes_that_no_text_has_need_no_token(tmp_path: Path) -> None:
    """A byte that does not occur in UTF-8, and a letter that is its own byte, are not missed."""
    path = tiny(
        tmp_path / "tiny.gguf", n_positions=64, pieces=[one for one in LETTERS if one not in {"<0xC0>", "<0x61>"}]
    )
    engine = LlamaEngine(path)
    engine.load(ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1))
    assert 0x900 < len(engine.tokenize("".join(map(chr, range(0x900)))).tokens)
    engine.close()
