"""Text assembly against rules written down a second time, naively: a character at a time, a stop at a time."""

from hypothesis import strategies as st

from reenact.actors.text import assemble, release
from reenact.runtime.chats import kept
from tests.helpers.properties import holds_for

# The Unicode Standard, table 3-7: well-formed UTF-8. Each row is a range for every byte of a character.
WELL_FORMED = [
    "00-7F",
    "C2-DF 80-BF",
    "E0-E0 A0-BF 80-BF",
    "E1-EC 80-BF 80-BF",
    "ED-ED 80-9F 80-BF",
    "EE-EF 80-BF 80-BF",
    "F0-F0 90-BF 80-BF 80-BF",
    "F1-F3 80-BF 80-BF 80-BF",
    "F4-F4 80-8F 80-BF 80-BF",
]
RANGES = [[(int(r[:2], 16), int(r[3:], 16)) for r in row.split()] for row in WELL_FORMED]


def begins(data: bytes) -> bool:
    """Return whether ``data`` is a character or the beginning of one."""
    return any(
        len(data) <= len(row) and all(low <= byte <= high for byte, (low, high) in zip(data, row, strict=False))
        for row in RANGES
    )


def is_whole(data: bytes) -> bool:
    """Return whether ``data`` is one character."""
    return begins(data) and not begins(data + b"\x80") and not begins(data + b"\xbf")


def decoded(data: bytes) -> tuple[str, bytes]:
    """Return the characters of ``data``, and the beginning of a character at its end.

    The longest bytes that begin a character and are none become one U+FFFD (the Unicode Standard, section 3.9).
    """
    text, character = "", b""
    for number in data:
        byte = bytes([number])
        if character and not begins(character + byte):
            text, character = text + "\ufffd", b""
        character += byte
        if not begins(character):
            text, character = text + "\ufffd", b""
        elif is_whole(character):
            text, character = text + character.decode(), b""
    return text, character


def ended(data: bytes) -> str:
    """Return ``data`` as text after which nothing comes."""
    text, character = decoded(data)
    return text + "\ufffd" * bool(character)


def cut(data: bytes, stops: list[str]) -> tuple[int, str | None]:
    """Return where the first complete stop string begins, and that string; else the length."""
    for end in range(1, len(data) + 1):
        for start in range(end):
            for stop in stops:
                if data[start:end] == stop.encode():
                    return start, stop
    return len(data), None


def visible(data: bytes, stops: list[str]) -> tuple[str, bytes, str | None]:
    """Return what may have gone out after ``data``, what is held, and the stop string that is complete."""
    start, stop = cut(data, stops)
    if stop is not None:
        return ended(data[:start]), b"", stop
    for start in range(len(data)):
        if any(stop.encode().startswith(data[start:]) for stop in stops):
            return ended(data[:start]), data[start:], None
    text, character = decoded(data)
    return text, character, None


# Small alphabets, so that stop strings and halves of characters come often; ED A0 is half a surrogate.
LETTERS = st.lists(st.sampled_from([b"a", b"b", b"<"]), max_size=12).map(b"".join)
HALVES = st.lists(
    st.sampled_from(
        [
            b"a",
            b"<",
            b"\xc3",
            b"\xa9",
            b"\xe2",
            b"\x82",
            b"\xac",
            b"\xf0",
            b"\x9f",
            b"\x98",
            b"\x80",
            b"\xc0",
            b"\xed",
            b"\xa0",
        ]
    ),
    max_size=12,
).map(b"".join)
WHOLE = st.text("aé€😀<", max_size=6).map(str.encode)
BYTES = st.binary(max_size=12)
DATA = st.one_of(LETTERS, HALVES, WHOLE, BYTES)
PIECES = st.one_of(
    DATA.map(lambda data: [bytes([byte]) for byte in data]),
    st.lists(DATA.map(lambda data: data[:4]), max_size=8),
)
STOPS = st.lists(st.text("ab<é€😀", min_size=1, max_size=4), max_size=3)


def n_wholly_visible(pieces: list[bytes], length: int) -> int:
    """Return how many of the first pieces are within the first ``length`` bytes."""
    ends = [len(b"".join(pieces[: n + 1])) for n in range(len(pieces))]
    return sum(end <= length for end in ends)


def run(pieces: list[bytes], stops: list[str]) -> tuple[str, str | None]:
    """Return the whole text of these pieces, and the stop string that ended it."""
    text, held = "", b""
    held_by: tuple[int, ...] = ()
    for piece in pieces:
        assembled = assemble(held, held_by, piece, tuple(stops))
        text, held, held_by = text + assembled.text, assembled.held, assembled.held_by
        if assembled.stop is not None:
            return text, assembled.stop
    return text + release(held), None


@holds_for(examples=400, pieces=PIECES, stops=STOPS)
def test_after_every_piece_all_that_may_go_out_has_gone_out(pieces: list[bytes], stops: list[str]) -> None:
    """After every piece exactly the text has gone out that the rules allow, and exactly the rest is held."""
    text, held, so_far = "", b"", b""
    held_by: tuple[int, ...] = ()
    for piece in pieces:
        assembled = assemble(held, held_by, piece, tuple(stops))
        text, held, held_by = text + assembled.text, assembled.held, assembled.held_by
        so_far += piece
        assert visible(so_far, stops) == (text, held, assembled.stop)
        assert len(held) == sum(held_by)
        if assembled.stop is not None:
            break


@holds_for(examples=400, pieces=PIECES, stops=STOPS)
def test_at_the_end_the_text_is_the_whole(pieces: list[bytes], stops: list[str]) -> None:
    """At the end the text is all bytes before the first stop string, decoded as a whole: no cut shows."""
    whole = b"".join(pieces)
    start, stop = cut(whole, stops)
    assert (whole[:start].decode("utf-8", "replace"), stop) == run(pieces, stops)


@holds_for(pieces=PIECES, stops=STOPS, future=DATA)
def test_nothing_is_taken_back(pieces: list[bytes], stops: list[str], future: bytes) -> None:
    """Whatever comes later, what has gone out is the beginning of the whole text."""
    text, held = "", b""
    held_by: tuple[int, ...] = ()
    for piece in pieces:
        assembled = assemble(held, held_by, piece, tuple(stops))
        text, held, held_by = text + assembled.text, assembled.held, assembled.held_by
        if assembled.stop is not None:
            return
    for later in (future, *(stop.encode()[i:] for stop in stops for i in range(len(stop.encode())))):
        assert run([*pieces, later], stops)[0].startswith(text)


@holds_for(data=DATA, stops=STOPS)
def test_no_stop_string_leaves(data: bytes, stops: list[str]) -> None:
    """The text never holds a stop string."""
    text, _ = run([data], stops)
    assert not any(stop in text for stop in stops)


@holds_for(pieces=PIECES, stops=STOPS)
def test_the_hidden_tokens_are_those_behind_the_cut(pieces: list[bytes], stops: list[str]) -> None:
    """When a stop string is complete, all earlier tokens are visible but those that the cut runs through or leaves."""
    held: tuple[bytes, tuple[int, ...]] = (b"", ())
    for n, piece in enumerate(pieces):
        assembled = assemble(*held, piece, tuple(stops))
        if assembled.stop is not None:
            start, _ = cut(b"".join(pieces[: n + 1]), stops)
            assert n - n_wholly_visible(pieces[:n], start) == assembled.n_hidden
            return
        held = assembled.held, assembled.held_by


@holds_for(pieces=PIECES, stops=STOPS)
def test_the_kept_tokens_of_an_answer_are_its_text(pieces: list[bytes], stops: list[str]) -> None:
    """A chat goes on from tokens whose pieces are text that went out, and from no others."""
    text, _ = run(pieces, stops)
    n_kept, answer = kept(pieces, text)
    assert b"".join(pieces[:n_kept]) == answer.encode()
    assert text.startswith(answer)
