"""Rules of texts: which part of the sampled text is emitted, and which never is.

The rule that holds here: a text is computed from all bytes of a sequence at once, matched byte by byte and decoded as a
whole, and not piece by piece from the held bytes.
"""

from collections.abc import Iterator

from attrs import Factory, define

from reenact.actors import events as e
from reenact.replay.check.recount import Recount
from reenact.replay.check.rule import Rule, Violation, quoted

_REPLACED = "\ufffd"


@define(kw_only=True)
class RecountedText:
    """All bytes of one sequence, and how far they were emitted."""

    stops: tuple[bytes, ...] = ()
    data: bytearray = Factory(bytearray)
    ends: list[int] = Factory(list)
    """The offset at which each token's bytes end."""
    gone: int = 0
    """How many bytes were emitted, or never will be."""
    since: int = 0
    """How many bytes had been emitted when these stop strings took effect."""
    looked: int = 0
    """The offset up to which ends of stop strings have been searched for."""
    texts: list[str] = Factory(list)
    """The emitted texts."""
    cut: int | None = None
    """The offset at which a stop string cuts the text."""

    def add(self, piece: bytes) -> None:
        """Add the bytes of a token."""
        self.data += piece
        self.ends.append(len(self.data))

    def stop(self) -> tuple[int, bytes] | None:
        """Return the offset and the bytes of the stop string that is complete first; of several, the longest."""
        if self.stops:
            for end in range(self.looked + 1, len(self.data) + 1):
                if self.data.endswith(self.stops, self.since, end):
                    found = max((one for one in self.stops if self.data.endswith(one, self.since, end)), key=len)
                    return end - len(found), found
        self.looked = len(self.data)
        return None

    def held(self) -> int:
        """Return how many of the last bytes must be held: the beginning of a stop string, or else of a character."""
        begun = max((_begun(self.data, one, self.since) for one in self.stops), default=0)
        return begun or _incomplete(self.data)

    def brought(self) -> tuple[int, ...]:
        """Return, for each of the last tokens, how many of the bytes not yet emitted it contributed."""
        last = len(self.ends)
        while last and self.ends[last - 1] > self.gone:
            last -= 1
        starts = [self.gone, *self.ends[last:]]
        return tuple(end - start for start, end in zip(starts, self.ends[last:], strict=False))

    def hidden(self, cut: int) -> int:
        """Return how many tokens before the last one do not lie wholly before ``cut``."""
        earlier = self.ends[:-1]
        count = 0
        while count < len(earlier) and earlier[-1 - count] > cut:
            count += 1
        return count


def _begun(data: bytearray, stop: bytes, since: int) -> int:
    """Return how many bytes at the end of ``data`` are the beginning of an incomplete stop string."""
    last = data[-1:]
    length = stop.rfind(last, 0, len(stop) - 1) + 1 if last else 0
    while length and not data.endswith(stop[:length], since):
        length = stop.rfind(last, 0, length - 1) + 1
    return length


def _incomplete(data: bytearray) -> int:
    """Return how many bytes at the end of ``data`` are the beginning of a character that later bytes can complete."""
    for length in range(1, min(len(data), 3) + 1):
        tail = bytes(data[-length:])
        if tail[0] < 0x80:  # noqa: PLR2004  # a character of one byte
            return 0
        # One of these two can always follow the first bytes of a character.
        for filler in (b"\x80", b"\xbf"):
            for n_more in range(1, 4 - length + 1):
                if _is_character(tail + filler * n_more):
                    return length
    return 0


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


class TextRule(Rule):
    """The emitted text."""

    name = "text"
    says = (
        "The emitted text is the sampled bytes, decoded, up to the stop string that is complete first, or of two "
        "the one that starts earlier; exactly the beginning of a stop string or of a character is held back, and it "
        "is emitted if the sequence ends in any other way."
    )
    source = "docs/runner-semantics.md, Text"
    hears = (
        e.RequestReceived,
        e.SequenceForked,
        e.BatchDecoded,
        e.TokenEmitted,
        e.StopMatched,
        e.SequenceFinished,
    )

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._known: dict[int, RecountedText] = {}
        self._pieces: dict[int, bytes] = {}

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the emitted texts."""
        match record.event:
            case e.BatchDecoded(samples=samples):
                self._pieces = {sample.sequence: sample.piece for sample in samples}
            case e.TokenEmitted() as emitted:
                yield from self._emitted(record.n, emitted, self._of(emitted.sequence))
            case e.StopMatched() as matched:
                yield from self._matched(record.n, matched, self._of(matched.sequence))
            case e.SequenceFinished() as end:
                yield from self._ended(record.n, end, self._known.pop(end.sequence, RecountedText()))
            case e.RequestReceived(sequence=number, options=options):
                self._known[number] = RecountedText(stops=tuple(stop.encode() for stop in options.stop))
            case e.SequenceForked(sequence=number, options=options) if number in self._known:
                known = self._known[number]
                known.stops = tuple(stop.encode() for stop in options.stop)
                known.since = known.looked = known.gone
            case _:
                pass

    def _of(self, number: int) -> RecountedText:
        """Return the text of a sequence, with its next piece added."""
        known = self._known.setdefault(number, RecountedText())
        known.add(self._pieces.pop(number, b""))
        return known

    def _emitted(self, n: int, emitted: e.TokenEmitted, known: RecountedText) -> Iterator[Violation]:
        found = known.stop()
        if found is not None:
            yield self.violation(n, f"the stop string {quoted(found[1])}", f"TokenEmitted {quoted(emitted.text)}")
        free = max(len(known.data) - known.held(), known.gone)
        text, held = _decoded(known.data[known.gone : free]), bytes(known.data[free:])
        known.gone = free
        if (text, held) != (emitted.text, emitted.held):
            actual = f"{quoted(emitted.text)}, held {quoted(emitted.held)}"
            yield self.violation(n, f"{quoted(text)}, held {quoted(held)}", actual)
        elif known.brought() != emitted.held_by:
            yield self.violation(n, f"held_by {known.brought()}", f"{emitted.held_by}")
        known.texts.append(emitted.text)

    def _matched(self, n: int, matched: e.StopMatched, known: RecountedText) -> Iterator[Violation]:
        found = known.stop()
        if found is None:
            yield self.violation(n, "no stop string: none is complete", f"{quoted(matched.stop)}")
            found = len(known.data), matched.stop.encode()
        known.cut, stop = found
        text = _decoded(known.data[known.gone : known.cut])
        if (stop, text) != (matched.stop.encode(), matched.text):
            actual = f"{quoted(matched.text)} before {quoted(matched.stop)}"
            yield self.violation(n, f"{quoted(text)} before {quoted(stop.decode())}", actual)
        known.texts.append(matched.text)

    def _ended(self, n: int, end: e.SequenceFinished, known: RecountedText) -> Iterator[Violation]:
        cut = len(known.data) if known.cut is None else known.cut
        text = _decoded(known.data[known.gone :]) if known.cut is None else ""
        n_hidden = 0 if known.cut is None else known.hidden(cut)
        if (text, n_hidden) != (end.text, end.n_hidden):
            actual = f"{quoted(end.text)} and n_hidden {end.n_hidden}"
            yield self.violation(n, f"{quoted(text)} and n_hidden {n_hidden}", actual)
        whole, actual = _decoded(known.data[:cut]), "".join([*known.texts, end.text])
        if whole != actual:
            at = next((i for i, (a, b) in enumerate(zip(whole, actual, strict=False)) if a != b), 0)
            yield self.violation(n, f"the whole text {quoted(whole[at:])}", f"{quoted(actual[at:])}, from {at} on")


def _decoded(data: bytearray) -> str:
    return data.decode("utf-8", "replace")


class StopsRule(Rule):
    """The stop strings, which are never emitted."""

    name = "stops"
    says = "No emitted text contains a stop string of its request."
    source = "docs/runner-semantics.md, Text"
    hears = (e.RequestReceived, e.SequenceForked, e.TokenEmitted, e.StopMatched, e.SequenceFinished)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._texts: dict[int, list[str]] = {}
        """For each live request with stop strings, the texts emitted since."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Collect the emitted texts, and check the whole text at the end."""
        match record.event:
            case e.TokenEmitted(sequence=number, text=text) | e.StopMatched(sequence=number, text=text):
                if number in self._texts:
                    self._texts[number].append(text)
            case e.RequestReceived(sequence=number, options=options):
                if options.stop:
                    self._texts[number] = []
            case e.SequenceForked(sequence=number, options=options):
                self._texts.pop(number, None)
                if options.stop and self.recount.is_live(number):
                    self._texts[number] = []
            case e.SequenceFinished() as end if end.sequence in self._texts:
                whole = "".join([*self._texts.pop(end.sequence), end.text])
                for stop in self.recount.request(end.sequence).options.stop:
                    # U+FFFD replaces bytes that are not valid, so it is no evidence of a stop string.
                    if stop in whole and _REPLACED not in stop:
                        yield self.violation(record.n, f"no {quoted(stop)} in the emitted text", quoted(whole))
            case _:
                pass
