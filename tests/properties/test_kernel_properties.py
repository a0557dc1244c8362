"""What holds for the kernel whatever callers, readers and the engine do, in whatever order."""

from collections import Counter

from attrs import field, frozen
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.kernel import Kernel
from reenact.actors.routing import ROUTES, Origin, Role, sequences_of
from tests.support import Driver, Moment, holds_for


@frozen
class Submit:
    """A request; one whose prompt is tokenised late waits for `Tell` or the end of the program."""

    pieces: list[bytes]
    prompt: int
    num_predict: int
    stop: list[str]
    late: bool


@frozen
class Tell:
    """A fact about one of the requests so far: ``which`` counts, around, the living ones and then the ended ones."""

    what: str
    which: int


@frozen
class Step:
    """The batch in flight is carried out; ``outcome`` is a return code, "nan" or "raise"."""

    outcome: int | str


@frozen
class Program:
    """A session's settings, and all that happens in it."""

    n_slots: int
    n_ctx: int
    n_batch: int
    max_waiting: int
    commands: list[Submit | Tell | Step] = field(repr=lambda commands: "\n  " + "\n  ".join(map(repr, commands)))


NAN_TOKEN = -1

SUBMIT = st.builds(
    Submit,
    pieces=st.lists(
        st.sampled_from([b"a", b"b", b"<", b"/s>", b"x</s>", b"\xc3", b"\xa9", b""]), min_size=1, max_size=8
    ),
    prompt=st.one_of(st.integers(1, 4), st.integers(1, 4), st.integers(0, 17)),
    num_predict=st.sampled_from([-1, -1, -1, -1, -1, 5, 2, 0]),
    stop=st.lists(st.sampled_from(["</s>", "ab", "é", "bb"]), max_size=2),
    late=st.sampled_from([False, False, True]),
)
TELL = st.builds(
    Tell, what=st.sampled_from(["pause", "pause", "resume", "cancel", "tokenize"]), which=st.integers(0, 5)
)
GOOD_STEP = st.just(Step(0))
STEP = st.builds(Step, outcome=st.sampled_from(["nan", "nan", "nan", "nan", "nan", "nan", 1, 2, -1, -3, "raise"]))
# Steps that succeed stand here more than once, so that sequences come to an end of their own.
COMMAND = st.one_of(GOOD_STEP, SUBMIT, GOOD_STEP, TELL, GOOD_STEP, TELL, GOOD_STEP, STEP)
PROGRAM = st.integers(1, 3).flatmap(
    lambda n_slots: st.builds(
        Program,
        n_slots=st.just(n_slots),
        n_ctx=st.integers(6, 20),
        n_batch=st.integers(n_slots, 10),
        max_waiting=st.integers(0, 4),
        commands=st.lists(COMMAND, min_size=10, max_size=50),
    )
)


def submit(driver: Driver, request: Submit) -> int:
    """Submit a request without its tokens."""
    return driver.receive(*request.pieces, prompt=request.prompt, num_predict=request.num_predict, stop=request.stop)


def play(program: Program) -> Driver:
    """Play a program, and then drive everybody who is left to the end; nobody is cancelled for it."""
    driver = Driver(
        n_slots=program.n_slots, n_ctx=program.n_ctx, n_batch=program.n_batch, max_waiting=program.max_waiting
    )
    late: set[int] = set()
    for command in program.commands:
        if isinstance(command, Submit):
            number = submit(driver, command)
            if command.late:
                late.add(number)
            else:
                driver.tokenize(number)
        elif isinstance(command, Tell):
            living = [state.sequence for state in driver.kernel.state.sequences if state.finish_reason is None]
            numbers = living + sorted(set(range(1, driver.kernel.n_requests + 1)) - set(living))
            number = numbers[command.which % len(numbers)] if numbers else 0
            if number and (command.what != "tokenize" or number in late):
                late -= {number} if command.what == "tokenize" else set()
                getattr(driver, command.what)(number)
        elif driver.planned is None:
            continue
        elif command.outcome == "raise":
            driver.planned = None
            driver.give(e.EngineFailed(error="OSError"))
        elif isinstance(command.outcome, int):
            driver.step(code=command.outcome)
        else:
            driver.step(nan=frozenset({driver.planned.parts[-1].sequence}))
    for number in sorted(late):
        driver.tokenize(number)
    for number in range(1, driver.kernel.n_requests + 1):
        driver.resume(number)
    driver.run()
    return driver


@holds_for(examples=120, program=PROGRAM)
def test_every_request_ends_exactly_once(program: Program) -> None:
    """Every request has one end, nothing of its own follows it, and all slots and places in the queue are free."""
    driver = play(program)
    ended: set[int] = set()
    for record in driver.records:
        route = ROUTES[type(record.event)]
        own = route.origin is Origin.DERIVED and route.owner is Role.SEQUENCE
        if own or isinstance(record.event, e.InputQueued | e.SlotAssigned):
            (number,) = sequences_of(record.event)
            assert number not in ended
            if isinstance(record.event, e.SequenceFinished):
                ended.add(number)
    assert set(range(1, driver.kernel.n_requests + 1)) == ended
    batcher = driver.kernel.state.batcher
    assert batcher is not None
    assert ((), {None}, False) == (batcher.waiting, set(driver.holders()), batcher.in_flight)
    assert [] == driver.events(e.ActorFailed)


@holds_for(examples=120, program=PROGRAM)
def test_whoever_has_inputs_is_in_every_batch(program: Program) -> None:
    """A batch has rows of every sequence that has a slot and inputs, by slot, and no more rows than `n_batch`."""
    inputs: dict[int, tuple[int, ...]] = {}
    slots: dict[int, int] = {}
    for event in (record.event for record in play(program).records):
        match event:
            case e.InputQueued():
                inputs[event.sequence] = event.tokens
            case e.SlotAssigned():
                slots[event.sequence] = event.slot
            case e.SlotReleased():
                del slots[event.sequence]
            case e.BatchPlanned():
                by_slot = sorted((slot, sequence) for sequence, slot in slots.items() if inputs[sequence])
                assert by_slot == [(part.slot, part.sequence) for part in event.parts]
                assert 1 <= sum(len(part.tokens) for part in event.parts) <= program.n_batch
                for part in event.parts:
                    queued = inputs[part.sequence]
                    assert part.tokens
                    assert part.tokens == queued[: len(part.tokens)]
                    inputs[part.sequence] = queued[len(part.tokens) :]
                    assert (part.draw is None) == bool(inputs[part.sequence])
            case _:
                pass


@holds_for(examples=120, program=PROGRAM)
def test_slots_are_given_in_the_order_of_arrival(program: Program) -> None:
    """Whoever came first gets his slot first, however long his prompt took to tokenise."""
    served = [assigned.sequence for assigned in play(program).events(e.SlotAssigned)]
    assert sorted(set(served)) == served


@holds_for(examples=120, program=PROGRAM)
def test_rows_follow_the_cells(program: Program) -> None:
    """A sequence's rows are at positions 0, 1, 2, ... without a gap, in one slot, that is emptied before the first."""
    following: dict[tuple[int, int], int] = {}
    used: set[int] = set()
    for plan in play(program).events(e.BatchPlanned):
        for part in plan.parts:
            assert following.get((part.sequence, part.slot), 0) == part.position
            assert (part.slot in plan.clears) == (part.position == 0 and part.slot in used)
            following[part.sequence, part.slot] = part.position + len(part.tokens)
            assert following[part.sequence, part.slot] <= program.n_ctx
            used.add(part.slot)
    assert len({sequence for sequence, _ in following}) == len(following)


@holds_for(examples=120, program=PROGRAM)
def test_every_sampled_token_is_accounted_for_once(program: Program) -> None:
    """A sampled token is emitted, completes a stop string, ends the text or is dropped: one of them, once."""
    driver = play(program)
    draws = {(plan.batch, part.sequence): part.draw for plan in driver.events(e.BatchPlanned) for part in plan.parts}
    sampled = Counter(
        (sample.sequence, draws[decoded.batch, sample.sequence], sample.token)
        for decoded in driver.events(e.BatchDecoded)
        for sample in decoded.samples
        if not sample.nan
    )
    accounted = Counter(
        (record.event.sequence, record.event.index, record.event.token)
        for record in driver.records
        if isinstance(record.event, e.TokenEmitted | e.StopMatched | e.EogSampled | e.TokenDropped)
        and record.event.token != NAN_TOKEN
    )
    assert sampled == accounted
    assert not sampled or 1 == max(sampled.values())


@holds_for(examples=120, program=PROGRAM)
def test_nobody_notices_the_others(program: Program) -> None:
    """A request that ends of its own says what it says alone, chunk by chunk, whatever happens to the others."""
    driver = play(program)
    requests = [command for command in program.commands if isinstance(command, Submit)]
    for number in range(1, driver.kernel.n_requests + 1):
        end = driver.end(number)
        if end.finish_reason in {"cancelled", "error"}:
            continue
        alone = Driver(n_slots=1, n_ctx=program.n_ctx, n_batch=program.n_batch)
        alone.tokenize(submit(alone, requests[number - 1]))
        alone.run()
        assert alone.chunks(1) == driver.chunks(number)
        expected = alone.end(1)
        assert (expected.finish_reason, expected.stop, expected.n_prompt, expected.n_sampled) == (
            end.finish_reason,
            end.stop,
            end.n_prompt,
            end.n_sampled,
        )


@holds_for(examples=120, program=PROGRAM)
def test_the_fold_knows_what_deciding_knew(program: Program) -> None:
    """At every record the fold of the records gives the state that deciding had, and the digest in the end."""
    driver, kernel = play(program), Kernel()
    moments = []
    for record in driver.records:
        kernel.fold(record)
        moments.append(Moment(record, kernel.state))
    assert driver.kernel.moments == moments
    assert driver.kernel.digest() == kernel.digest()


@holds_for(examples=120, program=PROGRAM)
def test_the_given_events_decide_everything(program: Program) -> None:
    """Given the same facts, another kernel makes the same records."""
    driver, kernel = play(program), Kernel()
    given = [record.event for record in driver.records if isinstance(record.event, e.GivenEvent)]
    assert driver.records == [record for event in given for record in kernel.handle(event)]
