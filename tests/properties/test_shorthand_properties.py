"""Short lines: whatever the records are, each comes back whole."""

from random import Random
from typing import Final

import orjson
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.runtime.log.codec import decode, dumps, encode, loads
from reenact.runtime.log.shorthand import Shorthand
from tests.helpers.programs.playing import played
from tests.helpers.programs.programs import ANY, Program
from tests.helpers.properties import holds_for

_T: Final = 1_000


def check_comes_back(records: list[e.Record]) -> int:
    """Write records in short and read them; return the count of bytes of their lines."""
    writer, reader, n_bytes = Shorthand(), Shorthand(), 0
    t = 0
    for record in records:
        t += _T if record.cause is None else 0
        body = dumps(writer.short(record, t))
        n_bytes += len(body)
        usual = reader.usual(loads(body))
        whole = reader.whole(loads(body))
        assert (record, t) == (decode(whole), whole["t"])
        assert usual is None or usual == record
        assert orjson.loads(dumps(encode(record, t))) == whole
        writer.note(record, t)
        reader.note(record, t)
    return n_bytes


@holds_for(examples=60, program=ANY)
def test_the_records_of_a_session_come_back(program: Program) -> None:
    """Each record of a session is read as it was decided, and after the header from fewer bytes."""
    header, *records = played(program).session.records
    n_whole = sum(len(dumps(encode(record, 0))) for record in records)
    assert check_comes_back([header, *records]) - check_comes_back([header]) < n_whole


@holds_for(examples=60, program=ANY, seed=st.integers(0, 2**32))
def test_records_in_any_order_come_back(program: Program, seed: int) -> None:
    """A record comes back after others than in its session too: what they do not give is written out."""
    random = Random(seed)  # noqa: S311  # it is to be the same again
    records = played(program).session.records
    check_comes_back([records[0], *random.choices(records[1:] or records, k=60)])
