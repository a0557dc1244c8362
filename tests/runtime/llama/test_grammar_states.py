"""What may come next in a text that has the form of a grammar."""

from contextlib import suppress
from itertools import count, product
from string import ascii_lowercase

import pytest

from reenact.runtime.grammar.gbnf import ALL
from reenact.runtime.grammar.soundness import check
from reenact.runtime.llama import matcher
from reenact.runtime.llama.grammar_states import DEAD, START, GrammarStates, TooCostly
from reenact.runtime.llama.matcher import Grammars, Pieces


def states_of(grammar: str) -> GrammarStates:
    """Return the states of a grammar."""
    return GrammarStates(check(grammar))


RESTS = (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80")
"""What completes any character that is begun."""


def is_text(raw: bytes) -> bool:
    """Return whether bytes are characters, none of which is NUL."""
    try:
        return "\0" not in raw.decode()
    except UnicodeDecodeError:
        return False


def is_begun(raw: bytes) -> bool:
    """Return whether bytes begin a text."""
    return any(is_text(raw + rest) for rest in RESTS)


def test_two_bytes_that_begin_no_text_are_refused() -> None:
    """Overlong forms, surrogates, what is beyond 10FFFF, and bytes that begin nothing; all others are allowed."""
    states = states_of("root ::= .*")
    pairs = [bytes(pair) for pair in product(range(256), repeat=2)]
    assert [] == [pair for pair in pairs if is_begun(pair) != (states.after(START, pair) != DEAD)]


def test_the_characters_at_all_ends_are_allowed() -> None:
    """The first and the last of each length, and those beside the surrogates."""
    states = states_of("root ::= .")
    ends = {1, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, *(end for ends in ALL for end in ends)}
    assert [] == [end for end in sorted(ends) if not states.may_end(states.after(START, chr(end).encode()))]


@pytest.mark.parametrize(("length", "fits"), [(2, False), (3, True), (4, False)])
def test_a_character_counts_once_however_many_bytes_it_has(length: int, fits: bool) -> None:
    """A repetition is one of characters."""
    states = states_of("root ::= [a-\\U0010FFFF]{3}")
    for sign in "aé日😀":
        assert fits == states.may_end(states.after(START, (sign * length).encode()))


def given_up_after(states: GrammarStates) -> int:
    """Return the number of times that a byte can be read before a grammar is given up."""
    state = START
    for length in count():
        try:
            state = states.after(state, b"a")
        except TooCostly:
            return length
    raise AssertionError


def test_the_cost_is_a_count() -> None:
    """A text is given up after the same bytes, whatever was asked before."""
    cold, warm = (states_of('root ::= s\ns ::= "a" | "a" s s | "b" s s s') for _ in range(2))
    warm.after(START, b"a" * 20 + b"ba")
    assert given_up_after(cold) == given_up_after(warm) > 100


PIECES = Pieces([bytes(word) for length in (1, 2, 3) for word in product(ascii_lowercase.encode(), repeat=length)])
"""A vocabulary of all words of up to three letters."""


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + " | ".join(f'[a-z ]* "{vowel}" [a-z ]{{9}}' for vowel in ascii_lowercase),
        'root ::= "x" ' + '"a"? ' * 9500 + '"a"',
        "root ::= " + " ".join(f"[a-{letter}]?" for letter in ascii_lowercase for _ in range(150)),
        "root ::= (" + " | ".join(f"[a-{letter}] [a-z]{{{n}}}" for letter in ascii_lowercase for n in range(40)) + ")+",
    ],
)
def test_what_a_token_may_cost_bounds_its_memory(grammar: str) -> None:
    """Whether it is given up or not: states that are named cost, and so does each byte that leads to many."""
    states = states_of(grammar)
    with suppress(TooCostly):
        PIECES.allowed(states, states.after(START, b"x"))
    assert 100 * 2**20 > states.size


def test_what_an_answer_costs_is_no_matter_of_what_is_kept() -> None:
    """Asked again it is given up again, though what it came to was kept."""
    states = states_of("root ::= " + " | ".join(f'[a-z ]* "{vowel}" [a-z ]{{9}}' for vowel in ascii_lowercase))
    for _ in range(20):
        with pytest.raises(TooCostly):
            PIECES.allowed(states, START)


def test_words_are_followed_as_far_as_the_vocabulary_goes() -> None:
    """All constants that a grammar can hold are looked through for one token."""
    words = ["".join(word) for word in product(ascii_lowercase, repeat=3)]
    states = states_of("root ::= (" + " | ".join(f'"{word}"' for word in words[:9000]) + ")*")
    assert 26 + 26 * 26 + 9000 > len(PIECES.allowed(states, START)) > 9000


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= s\ns ::= "a" | "a" s s | "b" s s s',
        'root ::= "[" (root ("," root)*)? "]" | [a-z]{1,30}',
        'root ::= ("a" | "ab" | [^b])* "b" root?',
    ],
)
def test_what_is_forgotten_can_be_made_anew(grammar: str) -> None:
    """A state goes on as it would have, though all others are gone and it has another number."""
    kept, forgetful = states_of(grammar), states_of(grammar)
    state, place = START, START
    for byte in b"[[aba,abbab],[abba]]" if '"["' in grammar else b"aabbabaabaab":
        state, place = kept.after(state, bytes([byte])), forgetful.after(place, bytes([byte]))
        (place,) = forgetful.forget([place])
        assert [kept.after(state, bytes([one])) == DEAD for one in range(256)] == [
            forgetful.after(place, bytes([one])) == DEAD for one in range(256)
        ]
        assert kept.may_end(state) == forgetful.may_end(place)


def test_grammars_that_are_kept_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they truly take, whichever were followed, and without a look at all of them."""
    monkeypatch.setattr(matcher, "_MAX_KEPT", 2**20)
    followed = Grammars(lambda: PIECES)
    for number in range(300):
        place = followed.follow(number, f'root ::= "{number:06d}" [a-z]*', [])
        assert place is not None
        place.allowed()
        assert followed._memory.used == sum(states.size for states in followed._states.values()) < 2**20 + 2**16


def test_a_grammar_that_is_followed_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is forgotten meanwhile: checking takes long, and others wait."""
    monkeypatch.setattr(matcher, "_MAX_OF_ONE", 0)
    monkeypatch.setattr(matcher, "_MAX_KEPT", 2**17)
    followed = Grammars(lambda: PIECES)
    texts = ['root ::= "a" [a-z]+', "root ::= [a-z]{3,10}", 'root ::= ("a" | "ab")* "c"']
    assert all(followed.follow(number, text, []) for number, text in enumerate(texts))
    monkeypatch.setattr(matcher, "check", None)
    sampled = [0, 1]
    for _ in range(5):
        places = [followed.follow(number, text, sampled) for number, text in enumerate(texts)]
        assert [26 + 26**2 + 26**3] * 2 == [len(place.allowed()) for place in places[:2] if place is not None]
    assert [0, 1] == followed._followed[0].accepted
