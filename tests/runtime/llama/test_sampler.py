import ctypes
import json
import math
import os
import re
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from attrs import define, evolve

from reenact.actors.batch import Draw, Part, Sample
from reenact.actors.errors import InvalidRequest
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.draw_key import draw_key
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.grammar.in_force import grammar_in_force
from reenact.runtime.llama.bindings import ShortCalls, listen, llama_cpp
from reenact.runtime.llama.sampler import Sampler

pytestmark = pytest.mark.model

N_CTX = 512
ALL = Options(seed=0, temperature=1.0, top_k=0, top_p=1.0)
"""Draws from the row's own distribution."""
GREEDY = Options(seed=0, temperature=0.0)
ASKED = "<|im_start|>user\nDescribe a pet as JSON.<|im_end|>\n<|im_start|>assistant\n"
PET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cat", "dog", None]},
        "owner": {"type": "object", "properties": {"age": {"type": "integer", "minimum": 18, "maximum": 99}}},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "kind", "tags"],
}


@define
class Bench:
    """A context whose last row a test may write itself."""

    vocabulary: Any
    context: Any
    calls: ShortCalls
    draws: Sampler

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return a text's tokens."""
        raw = text.encode()
        tokens = (llama_cpp.llama_token * (len(raw) + 1))()
        count = llama_cpp.llama_tokenize(self.vocabulary, raw, len(raw), tokens, len(raw) + 1, False, True)  # noqa: FBT003
        return tuple(tokens[:count])

    def token(self, text: str) -> int:
        """Return the one token that a text is."""
        (token,) = self.tokens(text)
        return token

    def decode(self, tokens: Sequence[int]) -> None:
        """Evaluate tokens behind those that are there."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        assert llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(tokens))) == 0

    @property
    def row(self) -> Any:
        """The last row of logits, to be read and written."""
        address = ctypes.cast(self.calls.llama_get_logits_ith(self.context, -1), ctypes.c_void_p).value
        n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        return np.ctypeslib.as_array((ctypes.c_float * n_vocab).from_address(address or 0))

    def write(self, logits: dict[int, float], rest: float = -200.0) -> None:
        """Give the last row these logits."""
        self.row[:] = rest
        for token, logit in logits.items():
            self.row[token] = logit

    def fits(self, grammar: str, text: str) -> bool:
        """Return whether a text has the form of a grammar from beginning to end."""
        place = self.draws._grammars.follow(66, grammar, self.tokens(text))
        return place is not None and place.allows(self.token("<|im_end|>"))

    def draw(
        self,
        options: Options,
        *,
        grammar: str | None = None,
        prompt: Sequence[Input] = (),
        sampled: Sequence[int] = (),
        sequence: int = 1,
    ) -> Sample:
        """Draw from the last row."""
        part = Part(sequence=sequence, slot=0, position=0, inputs=(), wants=Draw(len(sampled)))
        return self.draws.draw(-1, part, Drawing(options=options, grammar=grammar, prompt=prompt, sampled=sampled))

    def generate(self, options: Options, *, limit: int = 200, forgetful: bool = False) -> list[Sample]:
        """Generate after ``ASKED`` until the model ends; ``forgetful`` throws all caches away before each token."""
        grammar = grammar_in_force(options)
        prompt = self.tokens(ASKED)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)  # noqa: FBT003
        self.decode(prompt)
        samples: list[Sample] = []
        while len(samples) < limit and not (samples and samples[-1].eog):
            if forgetful:
                self.draws.close()
            sampled = [one.token for one in samples]
            samples.append(self.draw(options, grammar=grammar, prompt=prompt, sampled=sampled))
            self.decode([samples[-1].token])
        return samples


def quoted(text: str) -> str:
    """Return a text as a literal of a grammar."""
    return f'"{text}"'


def is_beginning(raw: bytes) -> bool:
    """Return whether bytes begin a text, which holds no NUL."""
    try:
        return "\0" not in getincrementaldecoder("utf-8")().decode(raw)
    except UnicodeDecodeError:
        return False


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Give a small context of SmolLM2 with one row."""
    listen()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(installed_model()), parameters)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = N_CTX, 64, 1, 1
    context: Any = llama_cpp.llama_init_from_model(model, settings)
    vocabulary: Any = llama_cpp.llama_model_get_vocab(model)
    calls = ShortCalls()
    made = Bench(vocabulary, context, calls, Sampler(vocabulary, context, calls, N_CTX, logits_hash=True))
    made.decode(made.tokens("The pet is"))
    yield made
    made.draws.close()
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)


def text_of(samples: Sequence[Sample]) -> str:
    """Return what the samples' pieces come to."""
    return b"".join(sample.piece for sample in samples).decode()


# ---------------------------------------------------------------- without a grammar


def test_temperature_0_takes_the_likeliest_token(bench: Bench) -> None:
    """Of equals it is the one with the lowest id."""
    bench.write({700: 3.0, 500: 3.0, 600: 2.0})
    assert 500 == bench.draw(GREEDY).token
    assert 500 == bench.draw(evolve(GREEDY, temperature=1e-40)).token


def test_a_draw_depends_on_seed_and_index_only(bench: Bench) -> None:
    """Neither the sequence nor the draws made before change it."""
    bench.write(dict.fromkeys(range(1000), 0.0))
    indices = [(), (1,), (1, 2)]
    first = [bench.draw(evolve(ALL, seed=seed), sampled=some).token for seed in (1, 2) for some in indices]
    again = [
        bench.draw(evolve(ALL, seed=seed), sampled=some, sequence=9).token for seed in (2, 1) for some in indices[::-1]
    ]
    assert sorted(first) == sorted(again)
    assert 6 == len(set(first))
    assert first[::-1] == again


def test_a_row_is_drawn_from_the_same_way_with_and_without_a_detour(bench: Bench) -> None:
    """llama_sampler_sample and candidates that are filled here agree."""
    bench.write({token: token / 100 for token in range(1000)})
    options = Options(seed=0, top_k=30, min_p=0.01)
    keys = [draw_key(0, index) for index in range(50)]
    every = np.arange(len(bench.row))
    assert [bench.draws._sample(-1, options, key) for key in keys] == [
        bench.draws._pick(every, bench.row, options, key) for key in keys
    ]


def test_a_nan_is_a_fault(bench: Bench) -> None:
    """There is no token then."""
    bench.write({5: math.nan})
    sample = bench.draw(ALL)
    assert ("nan", -1, b"") == (sample.fault, sample.token, sample.piece)


def test_typical_p_leaves_out_the_likeliest_token_where_it_says_too_little(bench: Bench) -> None:
    """Of 0.4, 0.2, 0.2, 0.2 the last three are the typical ones; what has no probability does not disturb that."""
    bench.write({500: math.log(0.4), 501: math.log(0.2), 502: math.log(0.2), 503: math.log(0.2)})
    drawn = {bench.draw(evolve(ALL, seed=seed, typical_p=0.5)).token for seed in range(60)}
    assert {501, 502, 503} == drawn


# ---------------------------------------------------------------- penalties


def test_penalties_are_those_of_llama_cpp(bench: Bench) -> None:
    """Of logits above and below 0, of tokens that were there once and more than once."""
    bench.write({10: 3.0, 11: -2.0, 12: 1.0, 13: 0.5}, rest=-1.0)
    history = [10, 11, 11, 12, 10, 10]
    options = Options(seed=0, repeat_penalty=1.3, presence_penalty=0.2, frequency_penalty=0.4, repeat_last_n=6)
    drawing = Drawing(options=options, grammar=None, prompt=history[:2], sampled=history[2:])
    sampler = llama_cpp.llama_sampler_init_penalties(len(bench.row), 6, 1.3, 0.4, 0.2)
    for token in history:
        llama_cpp.llama_sampler_accept(sampler, token)
    candidates = bench.draws._candidates
    candidates.fill(np.arange(len(bench.row)), bench.row)
    candidates.apply(sampler)
    llama_cpp.llama_sampler_free(sampler)
    np.testing.assert_allclose(bench.draws._penalized(bench.row, drawing), candidates.weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "sampled", "length", "expected"),
    [
        ((500, 1, 2), (), 3, 501),
        ((500, 1, 2), (), 2, 500),
        ((500, 1), (3,), 3, 501),
        ((500, 1), (3,), 2, 500),
        ((1, 2), (500, 3), 2, 501),
        ((1, 2), (500, 3), 1, 500),
        ((500, (0.5,), (0.25,)), (), 1, 501),
        ((500, (0.5,), 7), (), 1, 500),
        ((500, *range(N_CTX - 1)), (), -1, 501),
        ((500, *range(N_CTX)), (), -1, 500),
        ((500,), (500,), 0, 500),
    ],
)
def test_the_window_is_exactly_as_long_as_asked(
    bench: Bench, prompt: Sequence[Input], sampled: Sequence[int], length: int, expected: int
) -> None:
    """It holds the last tokens, the prompt's included and its rows passed over; -1 is the context's length."""
    bench.write({500: 5.0, 501: 4.9})
    options = evolve(GREEDY, presence_penalty=1.0, repeat_last_n=length)
    prompt = [one if one not in {500, 501} or index == 0 else 7 for index, one in enumerate(prompt)]
    assert expected == bench.draw(options, prompt=prompt, sampled=sampled).token


def test_penalties_leave_the_row_alone(bench: Bench) -> None:
    """The checksum and the log-probabilities stay those of the raw row."""
    bench.write({500: 5.0, 501: 4.9})
    told = evolve(GREEDY, logprobs=True)
    penalized = bench.draw(evolve(told, repeat_penalty=2.0), prompt=[500])
    plain = bench.draw(told, prompt=[500])
    assert (501, 500) == (penalized.token, plain.token)
    assert plain.logits_crc32 == penalized.logits_crc32
    assert plain.logprob is not None
    assert penalized.logprob == pytest.approx(plain.logprob - 0.1, abs=1e-6)


def test_the_strongest_penalty_leaves_a_draw(bench: Bench) -> None:
    """No option makes a number that a float does not hold."""
    bench.write({500: 5.0, 501: 4.9})
    options = evolve(ALL, repeat_penalty=1e-300, frequency_penalty=-100.0, temperature=1e-29)
    assert 500 == bench.draw(options, prompt=[500]).token


# ---------------------------------------------------------------- log-probabilities


def test_log_probabilities_are_those_of_the_row(bench: Bench) -> None:
    """Likeliest first, of equals the lower id, whatever the temperature; and none that is not finite."""
    halves = {900: math.log(0.5), 800: math.log(0.2), 700: math.log(0.2), 600: math.log(0.1)}
    bench.write(halves, rest=-math.inf)
    for temperature in (0.0, 0.5, 2.0):
        sample = bench.draw(Options(seed=3, temperature=temperature, logprobs=True, top_logprobs=9))
        assert [900, 700, 800, 600] == [one.token for one in sample.top]
        assert 1 == pytest.approx(sum(math.exp(one.logprob) for one in sample.top))
        assert sample.logprob == pytest.approx(halves[sample.token], abs=1e-6)


def test_a_whole_row_of_log_probabilities_sums_to_1(bench: Bench) -> None:
    """The model's own row; what is told begins with the token that temperature 0 takes."""
    bench.decode(bench.tokens("The pet is"))
    row = bench.row.astype(float)
    sample = bench.draw(evolve(GREEDY, logprobs=True, top_logprobs=20))
    assert sample.token == sample.top[0].token
    assert sample.logprob == sample.top[0].logprob
    assert 20 == len(sample.top)
    assert sorted((one.logprob for one in sample.top), reverse=True) == [one.logprob for one in sample.top]
    assert sample.logprob == pytest.approx(row.max() - math.log(np.exp(row).sum()))
    assert all(one.piece for one in sample.top)


def test_log_probabilities_are_not_told_unasked(bench: Bench) -> None:
    """A sample has neither then."""
    bench.write({500: 5.0})
    sample = bench.draw(GREEDY)
    assert (None, ()) == (sample.logprob, sample.top)


# ---------------------------------------------------------------- grammars


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_fits_its_schema(bench: Bench, seed: int) -> None:
    """It ends by itself, is JSON, and keeps properties, enum and bounds."""
    samples = bench.generate(Options(seed=seed, format=json.dumps(PET)))
    pet = json.loads(text_of(samples))
    assert samples[-1].eog
    assert [name for name in PET["properties"] if name in pet] == list(pet)
    assert {"name", "kind", "tags"} <= set(pet)
    assert len(pet["name"]) <= 12
    assert pet["kind"] in {"cat", "dog", None}
    assert 1 <= len(pet["tags"]) <= 2
    assert all(len(tag) <= 6 for tag in pet["tags"])
    assert 18 <= pet.get("owner", {}).get("age", 18) <= 99


@pytest.mark.parametrize("temperature", [0.0, 0.8, 2.0])
def test_a_text_has_the_form_of_its_grammar(bench: Bench, temperature: float) -> None:
    """Greedily drawn or hot, token by token."""
    grammar = 'root ::= ("a" [0-9]{2,4} " é"){2} "\\n"'
    samples = bench.generate(Options(seed=1, temperature=temperature, grammar=grammar))
    assert re.fullmatch(r"(a[0-9]{2,4} é){2}\n", text_of(samples))
    assert samples[-1].eog


def test_what_is_kept_is_only_a_cache(bench: Bench) -> None:
    """The same tokens are drawn if all samplers are thrown away before each of them."""
    options = Options(seed=5, format=json.dumps(PET), repeat_penalty=1.2)
    assert bench.generate(options) == bench.generate(options, forgetful=True)


def test_a_token_that_was_dropped_leaves_no_trace(bench: Bench) -> None:
    """A grammar is as far as the history says, though more was drawn, or something else before."""
    a, b = bench.token("a"), bench.token("b")
    bench.write({a: 2.0, b: 1.0})
    grammar = 'root ::= "ab" | "ba"'
    assert a == bench.draw(GREEDY, grammar=grammar).token
    assert b == bench.draw(GREEDY, grammar=grammar, sampled=(a,)).token
    assert a == bench.draw(GREEDY, grammar=grammar).token
    assert a == bench.draw(GREEDY, grammar=grammar, sampled=(b,)).token
    assert a == bench.draw(GREEDY, grammar='root ::= "bab"', sampled=(b,)).token


def test_the_end_waits_for_the_grammar(bench: Bench) -> None:
    """An end-of-generation token is refused until the text is complete, and then it is all there is."""
    end, a, b = bench.token("<|im_end|>"), bench.token("a"), bench.token("b")
    bench.write({end: 9.0, a: 2.0, b: 1.0})
    grammar = "root ::= [ab]{2}"
    samples = [bench.draw(GREEDY, grammar=grammar, sampled=(a,) * count) for count in range(3)]
    assert [(a, False), (a, False), (end, True)] == [(one.token, one.eog) for one in samples]
    bench.write({end: 1.0, a: 2.0, b: 9.0})
    assert end == bench.draw(GREEDY, grammar=grammar, sampled=(a, a)).token


def test_a_token_without_text_is_not_drawn(bench: Bench) -> None:
    """A grammar that allows any text does not allow the name of a control token."""
    start, a = bench.token("<|im_start|>"), bench.token("a")
    bench.write({start: 9.0, a: 2.0})
    assert start == bench.draw(GREEDY).token
    assert a == bench.draw(GREEDY, grammar="root ::= .*").token
    assert a == bench.draw(evolve(ALL, top_k=40), grammar="root ::= .*").token


@pytest.mark.parametrize("options", [GREEDY, ALL, Options(seed=0)])
def test_a_grammar_that_allows_nothing_is_a_fault(bench: Bench, options: Options) -> None:
    """The vocabulary has no token that begins with this character's first byte."""
    a = bench.token("a")
    bench.write({a: 2.0})
    grammar = r'root ::= "a" "\U00050000"'
    assert bench.draw(options, grammar=grammar).fault is None
    sample = bench.draw(options, grammar=grammar, sampled=(a,))
    assert ("grammar", -1, b"") == (sample.fault, sample.token, sample.piece)


def test_a_history_that_the_grammar_refuses_is_a_fault(bench: Bench) -> None:
    """llama.cpp is never asked to accept it, which would end the process; nor to compile what it cannot."""
    bench.write({500: 2.0})
    assert "grammar" == bench.draw(GREEDY, grammar='root ::= "a"', sampled=(bench.token("b"),)).fault
    assert "grammar" == bench.draw(GREEDY, grammar="root ::= ", sampled=(bench.token("b"),)).fault
    assert "grammar" == bench.draw(GREEDY, grammar="root ::= (").fault


def test_an_ambiguous_grammar_is_followed(bench: Bench) -> None:
    """Its readings double with each token; those that go on alike are one."""
    a, b, d = bench.token("a"), bench.token("b"), bench.token("d")
    bench.write({a: 2.0, b: 1.0, d: 0.0})
    grammar = 'root ::= s\ns ::= "a" s "b" | "a" s "c" | "d"'
    assert a == bench.draw(GREEDY, grammar=grammar, sampled=(a,) * 300).token
    assert b == bench.draw(GREEDY, grammar=grammar, sampled=(*(a,) * 300, d, *(b,) * 299)).token
    end = bench.draw(GREEDY, grammar=grammar, sampled=(*(a,) * 300, d, *(b,) * 300))
    assert end.eog


def test_a_grammar_with_too_many_readings_is_given_up(bench: Bench) -> None:
    """By a count, so at the same token everywhere. Other sequences go on."""
    a = bench.token("a")
    bench.write({a: 2.0})
    grammar = 'root ::= s\ns ::= "a" | "a" s s | "b" s s s'
    faults = [bench.draw(GREEDY, grammar=grammar, sampled=(a,) * count).fault for count in (100, 1000)]
    assert [None, "cost"] == faults
    assert bench.draw(GREEDY, grammar='root ::= "a"+', sampled=(a,) * 20).fault is None


@pytest.mark.parametrize("n_constants", [100, 3000])
def test_constants_that_begin_alike_are_followed(bench: Bench, n_constants: int) -> None:
    """As an enum, and as alternatives of a grammar."""
    names = [f"product_{number:04d}" for number in range(n_constants)]
    for grammar in (
        grammar_in_force(Options(seed=0, format={"enum": names})),
        f"root ::= {' | '.join(map(quoted, names))}",
    ):
        assert grammar is not None
        quote = '"' if "space" in grammar else ""
        assert bench.fits(grammar, f"{quote}{names[-1]}{quote}")
        assert not bench.fits(grammar, f"{quote}product_9999{quote}")


def test_bytes_that_are_no_character_are_never_allowed(bench: Bench) -> None:
    """Wherever a text is cut, what may come next begins a character or goes on with the one that is begun."""
    every = range(llama_cpp.llama_vocab_n_tokens(bench.vocabulary))
    pieces = [bench.draws.texts.of(token) for token in every]
    for history in ("", "é", "日本", "😀x"):
        sampled = bench.tokens(history)
        for length in range(len(sampled) + 1):
            before = b"".join(pieces[token] or b"" for token in sampled[:length])
            place = bench.draws._grammars.follow(9, "root ::= .*", sampled[:length])
            assert place is not None
            allowed = set(place.allowed().tolist())
            assert [] == [
                token
                for token in every
                if (piece := pieces[token]) and (token in allowed) != is_beginning(before + piece)
            ]


@pytest.mark.parametrize("text", ["", "{", '{"a', '{"a": ', '{"a": [1', '{"é'])
def test_the_tokens_that_are_allowed_are_those_that_each_are(bench: Bench, text: str) -> None:
    """All at once or one by one."""
    grammar = grammar_in_force(Options(seed=0, format="json"))
    assert grammar is not None
    place = bench.draws._grammars.follow(77, grammar, bench.tokens(text))
    assert place is not None
    every = range(llama_cpp.llama_vocab_n_tokens(bench.vocabulary))
    assert [token for token in every if place.allows(token)] == place.allowed().tolist()


def test_redraws_have_the_right_distribution(bench: Bench) -> None:
    """What a grammar allows is drawn as often as the row says, renormalized (chi-square, 1 degree, 0.1%)."""
    yes, no = bench.token(" yes"), bench.token(" no")
    bench.write({yes: 0.0, no: -0.7} | dict.fromkeys(range(1000, 1005), 0.0))
    grammar = 'root ::= " yes" | " no"'
    count = 1500
    drawn = Counter(bench.draw(evolve(ALL, seed=seed), grammar=grammar).token for seed in range(count))
    expected = {yes: count / (1 + math.exp(-0.7)), no: count / (1 + math.exp(0.7))}
    assert set(expected) == set(drawn)
    assert 10.83 > sum((drawn[token] - times) ** 2 / times for token, times in expected.items())


# ---------------------------------------------------------------- compiling


def test_what_is_in_force_is_told(bench: Bench) -> None:
    """A grammar as it is, a format as the grammar it comes to."""
    assert grammar_in_force(Options(seed=0)) is None
    assert 'root ::= "a"' == grammar_in_force(Options(seed=0, grammar='root ::= "a"'))
    assert grammar_in_force(Options(seed=0, format="json")) == grammar_in_force(
        Options(seed=0, format='{"type": "object"}')
    )


@pytest.mark.parametrize(
    ("schema", "fitting", "unfitting"),
    [
        ({"type": "object"}, ["{}", '{"a": [1.5e3, null, "\\u00e9\\n"]}'], ["[]", '{"a": 01}', '{"a": "\n"}', "{}  "]),
        ({"type": "object", "properties": {}}, ["{}", "{ }"], ['{"a": 1}']),
        (
            {"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "required": ["b"]},
            ['{"b":null}', '{"a": null,"b": null}', '{"b":null,"c":null}', '{ "a":null,"b":null, "c":null }'],
            ["{}", '{"b":null,"a":null}', '{"a":null}', '{"b":null,}', '{"b":null,"b":null}'],
        ),
        ({"additionalProperties": {"type": "boolean"}}, ["{}", '{"x":true,"y": false}'], ['{"x":1}', '{"x":true,}']),
        (
            {"properties": {"": {"type": "null"}, "*": {}, "decimal part": {"type": "null"}, "n": {"type": "number"}}},
            ['{"":null,"*":[1],"decimal part":null,"n":1.5}', '{"*":null}', '{"n": 1}', "{}"],
            ['{"decimal part":1}', '{"*":null,"*":null}', '{"n":null}'],
        ),
        ({"properties": {"a": {}}, "additionalProperties": True}, ["{}", '{"a":1}'], ['{"b":1}']),
        (
            {"enum": ['a"b', "c\\d", "é\n", 1, None]},
            ['"a\\"b"', '"c\\\\d"', '"é\\n"', "1", "null"],
            ['"a"', '"é\n"', "2"],
        ),
        ({"const": {"a": [1]}}, ['{"a": [1]}'], ["{}"]),
        ({"type": "integer"}, ["0", "-7", "9007199254740991"], ["01", "1.0", "--1", "12345678901234567"]),
        (
            {"type": "integer", "minimum": -3, "maximum": 120},
            ["-3", "-1", "0", "99", "120"],
            ["-4", "121", "-0", "200"],
        ),
        ({"type": "integer", "exclusiveMinimum": 8, "maximum": 999}, ["9", "10", "999"], ["8", "1000", "09"]),
        ({"type": "integer", "minimum": -20, "exclusiveMaximum": -17}, ["-18", "-20"], ["-17", "-21", "18"]),
        (
            {"type": "integer", "minimum": 0},
            ["0", "7", "120", "9007199254740991"],
            ["-0", "-1", "00", "07", "1.0", "1e2"],
        ),
        ({"type": "integer", "exclusiveMinimum": 0}, ["1", "20", "300"], ["0", "-0", "-1", "01"]),
        ({"type": ["integer", "null"], "minimum": 1}, ["1", "10", "null"], ["0", "-1"]),
        (
            {"type": "number", "minimum": 0},
            ["0", "0.0", "0.5", "1.25", "1e-9", "12E+3"],
            ["-0", "-0.5", "-1", "01", ".5"],
        ),
        ({"type": "number"}, ["0", "-1.25", "1e-9"], [".5", "1.", "1." + "3" * 17]),
        ({"type": "string", "minLength": 1, "maxLength": 3}, ['"a"', '"é\\n日"'], ['""', '"abcd"']),
        (
            {"type": "string", "minLength": 1, "maxLength": 1},
            ['"😀"', '"\\u00e9"', '"\\uD7FF"', '"\\uE000"', '"\\ud000"'],
            ['"\\ud83d\\ude00"', '"\\uD800"', '"\\udfFF"'],
        ),
        ({"type": ["string", "null"], "maxLength": 1}, ["null", '""', '"a"'], ['"ab"', "1"]),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}, ["[null,null]"], ["[null]", "[]"]),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 1}, ["[]", "[ null ]"], ["[null,null]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "array"}, ["[]", '[1, "a"]'], ["[,]"]),
        ({"prefixItems": [{"type": "null"}, {"type": "boolean"}]}, ["[null, true]"], ["[null]", "[true,null]"]),
        ({"type": "string", "format": "date"}, ['"2026-11-23"'], ['"2026-13-01"', '"x"']),
        ({"type": "string", "format": "date-time"}, ['"2026-11-23T04:05:06Z"'], ['"2026-11-23"']),
        ({"anyOf": [{"type": "null"}, {"enum": [1]}], "title": "x"}, ["null", "1"], ["2"]),
        (
            {
                "oneOf": [
                    {"type": "object", "properties": {"kind": {"const": "a"}, "n": {}}, "required": ["kind"]},
                    {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
                ]
            },
            ['{"kind":"a"}', '{"kind":"a","n":1}', '{"kind":"b"}'],
            ["{}", '{"kind":"b","n":1}', '{"kind":"c"}'],
        ),
        ({"description": "anything"}, ["1", "{}", '"a"', "null"], ["x"]),
        ({"allOf": [{"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"type": "null"}}}, ["null"], ["1"]),
        (
            {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
            ['{"next":null}', '{"next":{"next":null}}'],
            ["{}", '{"next":{}}'],
        ),
    ],
)
def test_a_schema_is_kept(bench: Bench, schema: dict[str, Any], fitting: list[str], unfitting: list[str]) -> None:
    """What fits is allowed, and what does not is not."""
    grammar = grammar_in_force(Options(seed=0, format=json.dumps(schema)))
    assert grammar is not None
    assert [] == [text for text in fitting if not bench.fits(grammar, text)]
    assert [] == [text for text in unfitting if bench.fits(grammar, text)]


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        (Options(seed=0, grammar="root ::= ("), "grammar", "')' is missing"),
        (Options(seed=0, grammar='root ::= root "a" | "b"'), "grammar", "left recursion"),
        (Options(seed=0, format='{"type": "strin"}'), "format", "there is no type"),
        (Options(seed=0, format='{"type": "\\ud800"}'), "format", "\\ud800"),
        (Options(seed=0, format='{"enum": ["\\ud800"]}'), "format", "half a surrogate pair"),
        (
            Options(seed=0, format='{"type": "string", "minLength": 5000}'),
            "format",
            "minLength must be a whole number below 2000",
        ),
    ],
)
def test_what_does_not_compile_is_refused(
    bench: Bench, options: Options, field: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error names the field and the reason, and nothing is printed."""
    with pytest.raises(InvalidRequest, match=re.escape(reason)) as caught:
        grammar_in_force(options)
    assert field == caught.value.field
    assert ("", "") == tuple(capfd.readouterr())
