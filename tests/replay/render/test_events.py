import pytest

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.inputs import Row
from reenact.actors.options import Options
from reenact.replay.render import events, values


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            e.PromptTokenized(sequence=1, inputs=tuple(range(20)), bos_added=True, grammar=None),
            "prompt tokenized: 20 tokens [0, 1, 2, 3, 4, 5, 6, 7, …], BOS added",
        ),
        (
            e.PromptTokenized(sequence=1, inputs=(7, Row("0123456789" * 6)), bos_added=False, grammar='root ::= "a"\n'),
            "prompt tokenized: 2 inputs [7, row 01234567…], grammar 'root ::= \"a\"\\n'",
        ),
        (
            e.RequestReceived(
                sequence=1,
                request_id=None,
                prompt="a",
                options=Options(seed=1),
                embedding=False,
                continues=None,
                left_out=2,
                traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            (
                "request received, 2 messages left out, in trace 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
                "-01: 'a', seed 1"
            ),
        ),
        (
            e.RequestRefused(
                request_id="a-1", failure=Failure(kind="invalid_request", field="top_k", reason="below 0")
            ),
            "request 'a-1' refused: invalid_request: top_k: below 0",
        ),
        (
            e.RequestRefused(request_id=None, failure=Failure(kind="engine_broken", reason="KeyError: 5")),
            "request refused: engine_broken: KeyError: 5",
        ),
        (
            e.TokenizeFailed(sequence=1, error="OSError: no such word"),
            "tokenizing failed: OSError: no such word",
        ),
        (e.DeadlineExpired(sequence=1), "deadline expired"),
        (
            e.PromptTruncated(sequence=1, keep=4, discard=1200),
            "prompt truncated: 1,200 inputs left out after the first 4",
        ),
        (e.ContextShifted(sequence=1, keep=0, discard=1), "context shifted: 1 input dropped from the beginning"),
        (
            e.InputsDropped(sequence=1, keep=3, discard=2),
            "inputs dropped: 2 inputs forgotten after the first 3 of sequence 1",
        ),
        (
            e.EmbeddingComputed(sequence=1, embedding=(0.6, -0.8)),
            "embedding computed: 2 values [0.6, -0.8]",
        ),
        (
            e.RequestQueued(sequence=1, priority=5, n_ahead=0),
            "request queued: sequence 1 with priority 5, 0 ahead of it",
        ),
        (
            e.InputQueued(sequence=1, inputs=(Row("0123456789" * 6),), wants=e.Draw(0)),
            "input queued: sequence 1, 1 input [row 01234567…], then draws token 0",
        ),
        (
            e.InputQueued(sequence=1, inputs=(1, 2), wants=e.Pool()),
            "input queued: sequence 1, 2 tokens [1, 2], to be pooled",
        ),
        (e.SlotAssigned(sequence=5, slot=2, reused=0, source=None), "slot 2 assigned to sequence 5"),
        (
            e.SlotAssigned(sequence=5, slot=2, reused=37, source=None),
            "slot 2 assigned to sequence 5, 37 inputs reused",
        ),
        (
            e.SlotAssigned(sequence=5, slot=2, reused=120, source=0),
            "slot 2 assigned to sequence 5, 120 inputs forked from slot 0",
        ),
        (e.SequencePreempted(sequence=1, slot=2, by=3), "sequence 1 preempted: slot 2 is for sequence 3"),
        (e.AbortRequested(batch=7, sequence=3), "abort of batch 7 requested: sequence 3 has ended"),
        (
            e.BatchDecoded(batch=7, code=2, samples=(), vectors=(), positions=((0, 3),)),
            "batch 7 decoded: llama_decode returned 2 (aborted); nothing drawn",
        ),
        (
            e.BatchDecoded(
                batch=7,
                code=0,
                samples=(
                    e.Sample(sequence=1, index=0, token=-1, fault="grammar"),
                    e.Sample(sequence=2, index=0, token=-1, fault="nan"),
                ),
                vectors=(),
                positions=(),
            ),
            "batch 7 decoded: sequence 1 no token that its grammar allows, sequence 2 NaN in the logits",
        ),
        (
            e.BatchDecoded(
                batch=7,
                code=0,
                samples=(
                    e.Sample(sequence=1, index=0, token=-1, fault="cost"),
                    e.Sample(sequence=2, index=0, token=-1, fault="engine", reason="no script"),
                ),
                vectors=(e.Vector(sequence=3, values=(), crc32=0, reason="no vector"),),
                positions=(),
            ),
            (
                "batch 7 decoded: sequence 1 no token, its grammar having too many ways to go on, "
                "sequence 2 no token that its engine has, sequence 3 no vector that its engine has"
            ),
        ),
        (
            e.BatchDecoded(
                batch=7,
                code=0,
                samples=(),
                vectors=(e.Vector(sequence=1, values=(3.0, 4.0), crc32=0), e.Vector(sequence=2, values=(), crc32=0)),
                positions=(),
            ),
            "batch 7 decoded: sequence 1 pooled to 2 values [3, 4], sequence 2 NaN or infinity in the vector",
        ),
        (
            e.TokenEmitted(sequence=1, index=3, token=9, text=" a", held=b"\xf0"),
            "token 3 emitted (id 9): ' a', b'\\xf0' held",
        ),
        (
            e.StopMatched(sequence=1, index=3, token=9, stop="\n", text="x"),
            "stop matched by token 3 (id 9): '\\n', 'x' before it",
        ),
        (e.EngineFailed(error="bad\x1b[2J\nluck"), "engine failed: 'bad\\x1b[2J\\nluck'"),
        (
            e.RequestRejected(sequence=4, failure=Failure(kind="overloaded", reason="2 wait already")),
            "request rejected: sequence 4, 2 wait already",
        ),
        (e.PauseExpired(sequence=1), "pause expired: the reader has not read on for too long"),
        (e.SlotYielded(sequence=1, slot=2), "slot 2 given up by sequence 1 until its reader resumes"),
        (
            e.RequestDisplaced(sequence=4, by=5, failure=Failure(kind="overloaded", reason="2 wait already")),
            "request displaced: sequence 4 leaves for sequence 5, which goes first",
        ),
        (e.TokenDropped(sequence=1, index=2, token=5), "token 2 dropped (id 5): sequence 1 has ended"),
        (
            e.SessionResumed(resumed_at="now", reenact="1", python="3", platform="here", durability="power"),
            "session resumed at now: reenact 1, durability power",
        ),
        (e.ActorFailed(failed="batcher", error="KeyError: 1"), "actor failed: batcher: KeyError: 1"),
    ],
)
def test_phrases(event: e.Event, expected: str) -> None:
    """Each event has its phrase, long lists are cut, and nothing in it can move a cursor or begin a line."""
    assert expected == events.phrase(event)


PLAN = e.BatchPlanned(
    batch=7,
    copies=(e.Copy(source=0, slot=2),),
    trims=(e.Trim(slot=1, length=3), e.Trim(slot=0, length=0)),
    shifts=(e.Shift(slot=2, keep=3, discard=2),),
    parts=(
        e.Part(sequence=4, slot=0, position=0, inputs=(1, 2), wants=e.Pool()),
        e.Part(sequence=5, slot=1, position=3, inputs=(1, 2), wants=e.Draw(0)),
        e.Part(sequence=6, slot=2, position=9, inputs=(1,), wants=e.Draw(8)),
    ),
)


def test_a_plan_says_what_is_done_to_cells() -> None:
    """Slots that are copied, trimmed and shifted before a batch's rows stand behind them, in this order."""
    assert (
        "batch 7 planned: 5 rows: 1 of sequence 6; 2 of sequence 4 (to be pooled); 2 of sequence 5; "
        "slot 0 copied to 2; slot 1 trimmed to 3 cells; slot 0 emptied; slot 2 shifted by 2 after its first 3"
    ) == events.phrase(PLAN)
    assert (
        "batch 7 planned: 5 rows: 2 of sequence 5 from position 3 in slot 1, then draws token 0; "
        "slot 1 trimmed to 3 cells"
    ) == events.phrase(PLAN, {5})


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((2,), "sequence 2"), ((2, 1), "sequences 1, 2"), ((1, 2, 3, 5, 7, 8), "sequences 1-3, 5, 7, 8")],
)
def test_names_of_many_sequences(numbers: tuple[int, ...], expected: str) -> None:
    """Three sequences or more with neighbouring numbers are named as a range."""
    assert expected == values.sequences(numbers)


def test_long_prompt_is_cut() -> None:
    """A long text is shown by its beginning and its length."""
    assert f"'{'a' * 80}'… (1,000 characters)" == values.text("a" * 1000)
