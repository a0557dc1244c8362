"""Stop strings, hold-back and character boundaries, case by case."""

import pytest

from reenact.actors.text import Assembled, assemble, first_stop, release


def run(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the whole text of these pieces, and the stop string that ended it."""
    text, held = "", b""
    for piece in pieces:
        assembled = assemble(held, piece, stops)
        text += assembled.text
        if assembled.stop is not None:
            return text, assembled.stop
        held = assembled.held
    return text + release(held), None


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "stop"),
    [
        ("hello| world", ["world"], "hello ", "world"),
        ("hello| wor", ["or"], "hello w", "or"),
        ("foo|bar", ["oba"], "fo", "oba"),
        ("a|STOP|b", ["STOP"], "a", "STOP"),
        ("x", ["zz"], "x", None),
        ("a|b|c", ["abc"], "", "abc"),
        ("ab", ["b", "a"], "", "a"),
        ("a|b", ["b", "a"], "", "a"),
        ("abc", ["b", "abc"], "a", "b"),
        ("a|b|c", ["b", "abc"], "a", "b"),
        ("xabc", ["bc", "abc"], "x", "abc"),
        ("x|a|b|c", ["bc", "abc"], "x", "abc"),
        ("aaab", ["aab"], "a", "aab"),
        ("aa|ab", ["aab"], "a", "aab"),
        ("abab", ["abac"], "abab", None),
        ("a€b", ["€"], "a", "€"),
    ],
)
def test_a_stop_string_cuts_the_text(pieces: str, stops: list[str], text: str, stop: str | None) -> None:
    """The stop string that is complete first cuts the text before it; of two, the one that starts earlier."""
    assert (text, stop) == run([piece.encode() for piece in pieces.split("|")], tuple(stops))


@pytest.mark.parametrize(
    ("pending", "stops", "text", "held"),
    [
        (b"Hello<", ["</s>"], "Hello", b"<"),
        (b"Hello</p", ["</s>"], "Hello</p", b""),
        (b"abca", ["cab"], "ab", b"ca"),
        (b"abd", ["cab"], "abd", b""),
        (b"a<<", ["</s>"], "a<", b"<"),
        (b"xaba", ["abac", "ad"], "x", b"aba"),
        (b"xab", ["bc", "abd"], "x", b"ab"),
    ],
)
def test_the_beginning_of_a_stop_string_is_held(pending: bytes, stops: list[str], text: str, held: bytes) -> None:
    """What may still grow into a stop string is held, and no more than that."""
    assert Assembled(text, held, None) == assemble(b"", pending, tuple(stops))


@pytest.mark.parametrize("incomplete", ["C2", "E0", "E0 A0", "F0", "F0 92", "F0 92 8A"])
def test_an_incomplete_character_is_held(incomplete: str) -> None:
    """Bytes at the end that may still become a character are held."""
    held = bytes.fromhex(incomplete)
    assert Assembled("é", held, None) == assemble(b"", "é".encode() + held, ())


@pytest.mark.parametrize("complete", ["C2 A3", "E0 A0 80", "F0 92 8A B7"])
def test_a_complete_character_goes_out(complete: str) -> None:
    """A character goes out with its last byte."""
    character = bytes.fromhex(complete)
    assert Assembled(character.decode(), b"", None) == assemble(character[:-1], character[-1:], ())


@pytest.mark.parametrize(
    ("pending", "text", "held"),
    [
        ("FF 61", "\ufffda", ""),
        ("80", "\ufffd", ""),
        ("F0 9F 61", "\ufffda", ""),
        ("C3 C3", "\ufffd", "C3"),
        ("F4 90", "\ufffd\ufffd", ""),
        ("C0 AF", "\ufffd\ufffd", ""),
    ],
)
def test_bytes_that_cannot_become_valid_are_replaced(pending: str, text: str, held: str) -> None:
    """Bytes that no byte can make valid any more become U+FFFD at once, and what follows them is kept."""
    assert Assembled(text, bytes.fromhex(held), None) == assemble(b"", bytes.fromhex(pending), ())


def test_an_incomplete_character_before_a_held_beginning_is_final() -> None:
    """Where the beginning of a stop string follows, an incomplete character cannot become whole."""
    assert Assembled("\ufffd", b"<", None) == assemble(b"\xf0\x9f", b"<", ("</s>",))


def test_an_incomplete_character_before_a_stop_string_is_replaced() -> None:
    """An incomplete character that a stop string cuts off goes out as U+FFFD."""
    assert Assembled("\ufffd", b"", "x") == assemble(b"\xe2\x82", b"xyz", ("x",))


def test_the_first_byte_of_a_stop_string_can_be_half_a_character() -> None:
    """A stop string is matched byte by byte, also where a piece ends within its character."""
    assert ("a", "é") == run([b"a\xc3", b"\xa9b"], ("é",))


@pytest.mark.parametrize(("held", "text"), [(b"", ""), (b"</", "</"), (b"\xf0\x9f", "\ufffd")])
def test_released_text_is_all_of_it(held: bytes, text: str) -> None:
    """When nothing can follow, everything that was held goes out."""
    assert text == release(held)


def test_no_stop_string_is_none() -> None:
    """Text without a stop string has no first one."""
    assert first_stop(b"abc", ("abd", "x")) is None
