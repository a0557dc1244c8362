"""Redacted texts: what is held, matched and released stays the same, for any pieces and stop strings."""

from typing import Any

from hypothesis import strategies as st

from reenact.actors.text import Assembled, assemble
from reenact.replay.redact.hashes import ByBeginning, ByToken, Key
from reenact.replay.redact.letters import Alphabet, Letters
from reenact.replay.testing.strategies import PIECES
from tests.helpers.properties import holds_for

LETTERS = st.sampled_from([*"abé€😀<>/s ", "ก", "퟿", "\n"])
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=4)
ANY_PIECE = st.one_of(st.sampled_from(PIECES), st.text(LETTERS, max_size=5).map(str.encode), st.binary(max_size=4))


def assembled(pieces: list[bytes], stops: tuple[str, ...]) -> list[Assembled]:
    """Return the pieces as they go out, one after the other, up to a stop string."""
    held, held_by = b"", tuple[int, ...]()
    steps: list[Assembled] = []
    for piece in pieces:
        step = assemble(held, held_by, piece, stops)
        steps.append(step)
        if step.stop is not None:
            break
        held, held_by = step.held, step.held_by
    return steps


def shape(step: Assembled, stops: tuple[str, ...]) -> tuple[Any, ...]:
    """Return all that is to stay the same."""
    which = None if step.stop is None else stops.index(step.stop)
    return len(step.text), len(step.text.encode()), len(step.held), step.held_by, which, step.n_hidden


@holds_for(examples=2000, pieces=st.lists(ANY_PIECE, max_size=12), stops=STOPS, secret=st.binary(max_size=2))
def test_text_is_cut_where_it_was(pieces: list[bytes], stops: list[str], secret: bytes) -> None:
    """Each piece releases and holds as many bytes and characters as before, and the same stop string matches."""
    alphabet = Alphabet(Key(secret))
    letters = Letters(alphabet, stops)
    put = [letters.put(piece, bytes([number])) for number, piece in enumerate(pieces)]
    before, after = tuple(dict.fromkeys(stops)), tuple(map(alphabet.text, dict.fromkeys(stops)))
    assert [len(piece) for piece in pieces] == [len(piece) for piece in put]
    assert [shape(step, before) for step in assembled(pieces, before)] == [
        shape(step, after) for step in assembled(put, after)
    ]


@holds_for(examples=500, one=st.lists(st.integers(0, 3), max_size=8), other=st.lists(st.integers(0, 3), max_size=8))
def test_beginnings_stay_equal(one: list[int], other: list[int]) -> None:
    """Two lists of inputs have as many first labels in common as inputs; by token, equal ones are equal anywhere."""

    def n_common(some: list[Any], others: list[Any]) -> int:
        both = zip(some, others, strict=False)
        return next((i for i, (a, b) in enumerate(both) if a != b), min(len(some), len(others)))

    key = Key(b"key")
    hashes = ByBeginning(key)
    ids, others = ([hashes.put(label, 0) for label in hashes.labels(b"", inputs)] for inputs in (one, other))
    assert n_common(one, other) == n_common(ids, others)
    assert len(set(ids)) == len(ids)
    by_token = ByToken(key)
    same = {token: by_token.put(by_token.label(b"", token), token) for token in (*one, *other)}
    assert len(set(same.values())) == len(same)
    assert [same[token] for token in one] == [by_token.put(label, 0) for label in by_token.labels(b"x", one)]
