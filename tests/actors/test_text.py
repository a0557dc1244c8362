"""Stop strings, hold-back and character boundaries, case by case."""

import pytest

from reenact.actors.text import Assembled, assemble, first_stop, hidden, release, still_held


def put(held: bytes, piece: bytes, stops: tuple[str, ...]) -> tuple[str, bytes, str | None]:
    """Return what goes out, what is held and which stop string is complete after one more piece."""
    assembled = assemble(held, (len(held),) if held else (), piece, stops)
    return assembled.text, assembled.held, assembled.stop


def run(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the whole text of these pieces, and the stop string that ended it."""
    text, held = "", b""
    for piece in pieces:
        out, held, stop = put(held, piece, stops)
        text += out
        if stop is not None:
            return text, stop
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
    assert (text, held, None) == put(b"", pending, tuple(stops))


@pytest.mark.parametrize("incomplete", ["C2", "E0", "E0 A0", "F0", "F0 92", "F0 92 8A"])
def test_an_incomplete_character_is_held(incomplete: str) -> None:
    """Bytes at the end that may still become a character are held."""
    held = bytes.fromhex(incomplete)
    assert ("é", held, None) == put(b"", "é".encode() + held, ())


@pytest.mark.parametrize("complete", ["C2 A3", "E0 A0 80", "F0 92 8A B7"])
def test_a_complete_character_goes_out(complete: str) -> None:
    """A character goes out with its last byte."""
    character = bytes.fromhex(complete)
    assert (character.decode(), b"", None) == put(character[:-1], character[-1:], ())


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
    assert (text, bytes.fromhex(held), None) == put(b"", bytes.fromhex(pending), ())


def test_an_incomplete_character_before_a_held_beginning_is_final() -> None:
    """Where the beginning of a stop string follows, an incomplete character cannot become whole."""
    assert ("\ufffd", b"<", None) == put(b"\xf0\x9f", b"<", ("</s>",))


def test_an_incomplete_character_before_a_stop_string_is_replaced() -> None:
    """An incomplete character that a stop string cuts off goes out as U+FFFD."""
    assert ("\ufffd", b"", "x") == put(b"\xe2\x82", b"xyz", ("x",))


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


@pytest.mark.parametrize(
    ("held_by", "start", "n_hidden"),
    [
        ((), 0, 0),
        ((1, 2), 0, 2),
        ((1, 2), 1, 1),
        ((1, 2), 2, 1),
        ((1, 2), 3, 0),
        ((2, 2, 2), 3, 2),
        ((1, 0, 1), 1, 1),
    ],
)
def test_a_token_that_is_cut_anywhere_is_hidden(held_by: tuple[int, ...], start: int, n_hidden: int) -> None:
    """Of the tokens that are held, those that end at or before the cut are visible; the rest are not."""
    assert n_hidden == hidden(held_by, start)


@pytest.mark.parametrize(
    ("held_by", "used", "left"),
    [
        ((), 0, ()),
        ((3,), 0, (3,)),
        ((3,), 1, (2,)),
        ((3,), 3, ()),
        ((1, 2, 3), 1, (2, 3)),
        ((1, 2, 3), 2, (1, 3)),
        ((1, 0, 3), 1, (3,)),
    ],
)
def test_what_went_out_is_held_no_more(held_by: tuple[int, ...], used: int, left: tuple[int, ...]) -> None:
    """Bytes go out oldest first, and a token of which all went out is forgotten."""
    assert left == still_held(held_by, used)


def test_pieces_say_how_many_bytes_they_hold() -> None:
    """What is held is told token by token, so that a stop string can be cut out of the cells."""
    first = assemble(b"", (), b"x<", ("</s>",))
    second = assemble(first.held, first.held_by, b"/s", ("</s>",))
    assert ((1,), (1, 2)) == (first.held_by, second.held_by)
    assert 2 == assemble(second.held, second.held_by, b">", ("</s>",)).n_hidden


def test_a_surrogate_behind_other_text_goes_out() -> None:
    """A surrogate, which never becomes valid, is not waited for, wherever in a piece it begins."""
    assert ("a\ufffd\ufffd", b"", None) == put(b"", b"a\xed\xa0", ())
    assert ("\ufffd\ufffda", b"\xc3", None) == put(b"", b"\xed\xa0a\xc3", ())


def test_all_that_a_piece_leads_to() -> None:
    """A piece that completes no stop string hides no token; one that does holds nothing back."""
    assert Assembled("a", b"<", (1,), None, 0) == assemble(b"", (), b"a<", ("</s>",))
    assert Assembled("a", b"", (), "</s>", 1) == assemble(b"a</", (1, 2), b"s>b", ("</s>",))


def test_the_first_of_two_in_a_piece_ends_the_text() -> None:
    """Where a piece holds the same stop string twice, the text ends before the first."""
    assert (0, "|") == first_stop(b"|a|b", ("|",))
    assert (1, "|") == first_stop(b"x|a|b", ("a|b", "|"))
