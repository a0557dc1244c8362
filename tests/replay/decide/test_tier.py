"""The decide tier: what it compares, and that nothing gets past it."""

from pathlib import Path

import pytest
from attrs import evolve

from reenact.actors import sequence, text
from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.actors.routing import EVENT_TYPES, ROUTES, Origin
from reenact.replay import Divergence, ReplayDivergence, Verdict, replay_log
from reenact.replay.decide.tier import _Replay
from reenact.replay.render.endings import NOT_CLOSED
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.codec import FORMAT, SCHEMA, Fields, dumps
from reenact.runtime.log.line import sealed
from reenact.runtime.log.reader import LogFile
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs


def is_derived(fields: Fields) -> bool:
    """Return whether a line is a derived record's."""
    return ROUTES[EVENT_TYPES[fields["type"]]].origin is Origin.DERIVED


class Editing:
    """A log of which one line is made another, with the checksums right again."""

    def __init__(self, lines: list[Fields], path: Path) -> None:
        self._lines = lines
        self._path = path
        self._before = [(b"", 0)]
        """What stands before each line, and its checksum."""
        for fields in lines:
            data, crc = self._before[-1]
            line, crc = sealed(dumps(fields), crc)
            self._before.append((data + line, crc))

    def replayed(self, n: int, other: Fields, *, to: int | None = None) -> Verdict:
        """Replay the log with ``other`` as line ``n``, from 0; it ends there or before line ``to``."""
        data, crc = self._before[n]
        for fields in (other, *self._lines[n + 1 : to or 0]):
            line, crc = sealed(dumps(fields), crc)
            data += line
        self._path.write_bytes(data)
        return replay_log(self._path)

    def following(self, n: int) -> int:
        """Return the number of the given record that comes after line ``n``."""
        return next(k for k in range(n + 1, len(self._lines)) if not is_derived(self._lines[k]))


async def test_everything_happens_in_the_eventful_session(eventful: Path) -> None:
    """The session that the next tests change holds some 300 records and nearly every type of event."""
    lines = read_fields(eventful)
    rare = {"ActorFailed", "CellsLost", "EmbeddingComputed", "EngineFailed"}
    rare |= {"SequenceForked", "SessionResumed", "TokenizeFailed"}
    assert set(EVENT_TYPES) - rare == {fields["type"] for fields in lines}
    assert 300 <= len(lines) <= 400
    assert {"nan", "grammar"} <= {sample.get("fault") for fields in lines for sample in fields.get("samples", [])}
    assert any(fields.get("shifts") for fields in lines)


async def test_every_derived_record_is_compared(eventful: Path) -> None:
    """A log that replays the same had each of its derived records compared."""
    verdict = replay_log(eventful)
    assert verdict.verdict == "same"
    assert sum(map(is_derived, read_fields(eventful))) == verdict.tally.derived


def test_every_changed_scalar_of_a_derived_record_is_a_difference(eventful: Path) -> None:
    """A replay that has come to a derived record finds whatever scalar of it is changed, and shows both sides."""
    lines, replay, n_changed = read_fields(eventful), _Replay(str(eventful)), 0
    with LogFile(eventful) as log:
        for line in log:
            fields = lines[line.number - 1]
            if replay._expected:
                due = replay._expected.copy()
                for path in logs.scalars(fields):
                    other = logs.changed(fields, path)
                    divergence = replay._derived(evolve(line, body=dumps(other)))
                    assert Divergence(n=line.number - 1, expected=other, actual=fields) == divergence, path
                    replay._expected = due.copy()
                    n_changed += 1
                assert None is replay._derived(line)
            else:
                assert None is replay._given(line)
    assert n_changed > 1000


@pytest.mark.long
def test_every_changed_scalar_of_a_derived_record_is_named(eventful: Path, tmp_path: Path) -> None:
    """Whatever scalar of whatever derived record is changed, that record is the first divergence of the whole log."""
    lines = read_fields(eventful)
    editing = Editing(lines, tmp_path / "edited.jsonl")
    n_changed = 0
    for n, fields in enumerate(lines):
        if not is_derived(fields):
            continue
        for path in logs.scalars(fields):
            other = logs.changed(fields, path)
            verdict = editing.replayed(n, other)
            assert (1, n) == (verdict.exit_code, verdict.first_divergence and verdict.first_divergence.n), (n, path)
            divergence = verdict.first_divergence
            assert divergence is not None
            assert (other, fields) == (divergence.expected, divergence.actual)
            n_changed += 1
    assert n_changed > 1000


@pytest.mark.parametrize("field", ["token", "piece", "sequence", "eog", "fault"])
async def test_every_changed_sample_diverges(eventful: Path, tmp_path: Path, field: str) -> None:
    """Another token, piece, sequence or end in a recorded sample makes what follows from it diverge."""
    lines = read_fields(eventful)
    editing = Editing(lines, tmp_path / "edited.jsonl")
    n_changed = 0
    dropped = {(fields["cause"], fields["sequence"]) for fields in lines if fields["type"] == "TokenDropped"}
    for n, fields in enumerate(lines):
        for i, sample in enumerate(fields.get("samples", [])):
            # An ended sequence's token is accounted for by its number alone, and a fault has no token.
            name = "piece_bytes" if field == "piece" and "piece_bytes" in sample else field
            if sample.get("fault") or (field not in {"eog", "fault"} and name not in sample):
                continue
            if (n, sample["sequence"]) in dropped and field not in {"token", "sequence", "fault"}:
                continue
            value = {
                "token": 999,
                "piece": "?",
                "piece_bytes": "8J+Y",
                "sequence": 99,
                "eog": not sample.get("eog"),
                "fault": "grammar",
            }[name]
            samples = [*fields["samples"][:i], {**sample, name: value}, *fields["samples"][i + 1 :]]
            verdict = editing.replayed(n, {**fields, "samples": samples}, to=editing.following(n))
            assert 1 == verdict.exit_code, (n, i, verdict)
            assert n <= (verdict.first_divergence.n if verdict.first_divergence else -1)
            n_changed += 1
    assert n_changed > 10


@pytest.mark.parametrize("bits", ["one of each byte", pytest.param("all", marks=pytest.mark.long)])
async def test_every_flipped_bit_is_found(tmp_path: Path, bits: str, autojump_clock: object) -> None:
    """Any flipped bit is found: corrupt, in the version too; only the last newline may look like a torn end."""
    small = tmp_path / "small.jsonl"
    async with open_runtime(ScriptedEngine(["a", "<"]), log=small) as runtime:
        await runtime.complete("p", stop=["</s>"])
    data = small.read_bytes()
    edited = tmp_path / "edited.jsonl"
    found: dict[str, set[int]] = {}
    versions = {data.index(f'"format":{FORMAT}'.encode()) + 9, data.index(f'"schema":{SCHEMA}'.encode()) + 9}
    for position in range(len(data)):
        for bit in range(8) if bits == "all" or position in versions else [position % 8]:
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            edited.write_bytes(flipped)
            found.setdefault(_read(edited), set()).add(position)
        # What is found while reading is what a replay tells.
        assert _VERDICTS[_read(edited)] == replay_log(edited).exit_code
    assert {"corrupt", "torn"} == set(found)
    assert {len(data) - 1} == found["torn"]


_VERDICTS = {"corrupt": 3, "not comparable": 4, "torn": 0}


def _read(path: Path) -> str:
    """Read a log to its end and return what is wrong with its bytes."""
    try:
        with LogFile(path) as log:
            for _ in log:
                pass
    except LogCorrupt:
        return "corrupt"
    except LogNotComparable:
        return "not comparable"
    return "torn" if log.torn else "whole"


async def test_a_changed_rule_diverges_on_older_logs(eventful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log in which a stop string cut the text diverges once another rule says where it is cut."""

    def keeps_the_stop(held: bytes, held_by: tuple[int, ...], piece: bytes, stops: tuple[str, ...]) -> text.Assembled:
        assembled = text.assemble(held, held_by, piece, stops)
        return evolve(assembled, text=assembled.text + (assembled.stop or ""))

    monkeypatch.setattr(sequence, "assemble", keeps_the_stop)
    verdict = replay_log(eventful)
    assert 1 == verdict.exit_code
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.expected is not None
    assert "StopMatched" == verdict.first_divergence.expected["type"]


async def test_another_winner_among_stops_diverges(
    session_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """A log in which two stop strings were complete at once diverges if the first in the list wins, as it did not."""
    async with open_runtime(ScriptedEngine(["a", "bc"]), log=session_log) as runtime:
        assert "a" == (await runtime.complete("p", stop=["abc", "b"])).text

    def first_in_the_list(pending: bytes, stops: tuple[str, ...]) -> tuple[int, str] | None:
        return next(((pending.find(s.encode()), s) for s in stops if s.encode() in pending), None)

    with monkeypatch.context() as patched:
        patched.setattr(text, "first_stop", first_in_the_list)
        verdict = replay_log(session_log)
    assert 1 == verdict.exit_code
    assert verdict.first_divergence is not None
    assert ("b", "abc") == (verdict.first_divergence.expected["stop"], verdict.first_divergence.actual["stop"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "theirs"), [("format", FORMAT + 1), ("schema", SCHEMA + 1), ("format", 0), ("schema", 1)]
)
async def test_a_log_of_another_kind_is_not_comparable(eventful: Path, tmp_path: Path, name: str, theirs: int) -> None:
    """A log of a newer or too old format or schema is refused with exit 4 and the advice to use what wrote it."""
    lines = read_fields(eventful)
    other = tmp_path / "other.jsonl"
    write_fields(other, [{**lines[0], name: theirs}, *lines[1:]])
    verdict = replay_log(other)
    assert 4 == verdict.exit_code
    assert f"the log's {name} is {theirs}" in verdict.lines()[0]
    with pytest.raises(LogNotComparable):
        verdict.raise_for_divergence()


@pytest.mark.parametrize("every", [823, pytest.param(101, marks=pytest.mark.long)])
async def test_every_torn_end_is_the_same_up_to_there(eventful: Path, tmp_path: Path, every: int) -> None:
    """A log cut anywhere in its second half is the same up to the last whole record, and says that it did not close."""
    data = eventful.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for length in range(len(data) // 2, len(data), every):
        torn.write_bytes(data[:length])
        verdict = replay_log(torn)
        assert 0 == verdict.exit_code, length
        n = verdict.tally.statistics.n_records - 1
        assert f"same up to record {n:,}: {NOT_CLOSED}" == verdict.notes[0]
        assert data[:length].count(b"\n") == verdict.tally.statistics.n_records


async def test_missing_last_derivations_are_listed(eventful: Path, tmp_path: Path) -> None:
    """A log that lost the last records of a fact lists what is missing, and that is no divergence."""
    lines = read_fields(eventful)
    n = next(n for n, fields in enumerate(lines) if fields["type"] == "PromptTokenized")
    cut = tmp_path / "cut.jsonl"
    write_fields(cut, lines[: n + 1])
    verdict = replay_log(cut)
    assert 0 == verdict.exit_code
    assert "missing at the end, and decided now: InputQueued, SlotAssigned, BatchPlanned" == verdict.notes[-1]


async def test_another_digest_diverges(eventful: Path, tmp_path: Path) -> None:
    """The digest that closes a log is compared with the state folded from it."""
    lines = read_fields(eventful)
    edited = tmp_path / "edited.jsonl"
    write_fields(edited, [*lines[:-1], {**lines[-1], "digest": "0" * 32}])
    verdict = replay_log(edited)
    assert verdict.first_divergence is not None
    assert len(lines) - 1 == verdict.first_divergence.n


async def test_a_lost_record_diverges(eventful: Path, tmp_path: Path) -> None:
    """A log that lacks a derived record diverges where it is missing, also with the numbers made dense again."""
    lines = read_fields(eventful)
    n = next(n for n, fields in enumerate(lines) if fields["type"] == "TokenEmitted")
    edited = tmp_path / "edited.jsonl"
    write_fields(edited, [*lines[:n], *({**fields, "n": fields["n"] - 1} for fields in lines[n + 1 :])])
    verdict = replay_log(edited)
    assert verdict.first_divergence is not None
    assert n == verdict.first_divergence.n


async def test_an_additional_record_diverges(eventful: Path, tmp_path: Path) -> None:
    """A derived record where nothing follows any more is a divergence with no actual side."""
    lines = read_fields(eventful)
    edited = tmp_path / "edited.jsonl"
    more = {**lines[2], "n": len(lines) - 1}
    write_fields(edited, [*lines[:-1], more])
    verdict = replay_log(edited)
    assert verdict.first_divergence is not None
    assert (more, None) == (verdict.first_divergence.expected, verdict.first_divergence.actual)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 7}, "it is record 7 where 1 comes next"),
        ({"prompt": 7}, "expected str"),
        ({"more": 1}, "more"),
        ({"sequence": "1"}, "expected int"),
        ({"sequence": True}, "expected int"),
        ({"sequence": 1.0}, "expected int"),
        ({"actor": "batcher"}, "belongs to sequence-1"),
        ({"type": "Nonsense"}, "no event of type 'Nonsense'"),
        ({"t": -5}, "it happened before"),
        ({"cause": 0}, "a derived record has a cause, and a given one has none"),
    ],
)
async def test_a_given_record_is_read_strictly(eventful: Path, tmp_path: Path, change: Fields, reason: str) -> None:
    """A given record that is not exactly what is written today is corrupt, and the reason names what is wrong."""
    lines = read_fields(eventful)
    edited = tmp_path / "edited.jsonl"
    first = next(n for n, fields in enumerate(lines) if fields["type"] == "RequestReceived")
    write_fields(edited, [*lines[:first], {**lines[first], **change}, *lines[first + 1 :]])
    verdict = replay_log(edited)
    assert 3 == verdict.exit_code
    assert reason in verdict.notes[0]
    with pytest.raises(LogCorrupt) as raised:
        verdict.raise_for_divergence()
    assert first + 1 == raised.value.line


async def test_a_divergence_raises_with_both_sides(eventful: Path, tmp_path: Path) -> None:
    """ReplayDivergence carries both records and renders them beside each other."""
    lines = read_fields(eventful)
    n = next(n for n, fields in enumerate(lines) if fields["type"] == "TokenEmitted")
    edited = tmp_path / "edited.jsonl"
    write_fields(edited, [*lines[:n], {**lines[n], "text": "other"}, *lines[n + 1 :]])
    with pytest.raises(ReplayDivergence) as raised:
        replay_log(edited).raise_for_divergence()
    assert raised.value.divergence.expected == {**lines[n], "text": "other"}
    assert raised.value.divergence.actual == lines[n]
    assert '"other"' in str(raised.value)
    assert f"replay show {edited} {lines[n]['cause']}-{n}" in str(raised.value)


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    """A log that cannot be opened gives exit 2, and its error on request."""
    verdict = replay_log(tmp_path / "nothing.jsonl")
    assert 2 == verdict.exit_code
    with pytest.raises(FileNotFoundError):
        verdict.raise_for_divergence()


@pytest.mark.parametrize(
    ("data", "code"), [(b"", 4), (b'{"n":0', 4), (b"hello\n", 3), (b"{}\n", 3), (b"\x00" * 100 + b"\n", 3)]
)
def test_what_is_no_log_is_told(tmp_path: Path, data: bytes, code: int) -> None:
    """An empty file has nothing to compare, and a file of something else is corrupt in its first line."""
    path = tmp_path / "no.jsonl"
    path.write_bytes(data)
    assert code == replay_log(path).exit_code
