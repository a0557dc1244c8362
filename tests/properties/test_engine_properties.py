"""The draws of a real engine for a request follow from the request alone, whichever others are there."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest
from attrs import frozen
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.replay.testing.kernel import Submission
from reenact.replay.testing.strategies import weighted
from reenact.runtime.engine.draw_key import draw_key
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.llama.engine import LlamaEngine
from tests.helpers.models.here import numerics_here
from tests.helpers.models.tiny import tiny
from tests.helpers.programs.computing import Computing, alone
from tests.helpers.properties import holds_for

if TYPE_CHECKING:
    from reenact.actors.header import ContextFacts

pytestmark = pytest.mark.model

N_SLOTS, N_CTX, N_BATCH = 2, 40, 8

# The model's rows are steep: likely tokens are some 10 apart. It takes much to make another one likely.
OPTIONS: Final = st.builds(
    Options,
    seed=st.integers(1, 3),
    num_predict=st.sampled_from([1, 4, 12, 12]),
    temperature=st.sampled_from([0.0, 0.0, 8.0, 40.0]),
    top_k=st.sampled_from([0, 3, 3]),
    top_p=st.just(1.0),
    repeat_penalty=st.sampled_from([1.0, 3.0]),
    presence_penalty=st.sampled_from([0.0, 15.0]),
    frequency_penalty=st.sampled_from([0.0, 15.0]),
    repeat_last_n=st.sampled_from([64, 3, 1, 0, -1]),
    priority=st.sampled_from([0, 0, 1, 2]),
)
PROMPT: Final = st.builds(
    lambda family, length, tail: (*range(family, family + length), *tail),
    st.sampled_from([3, 3, 9]),
    st.integers(1, 20),
    st.lists(st.integers(30, 39), max_size=3),
)
SUBMISSION: Final = st.builds(Submission, prompt=PROMPT, bos_added=st.just(value=False), options=OPTIONS)


@frozen
class Happening:
    """Something that happens, and then so many steps."""

    what: Submission | int
    """A request, or a caller that leaves: the number counts, around, all that came."""
    n_steps: int


PROGRAM: Final = st.lists(
    st.builds(Happening, weighted((3, SUBMISSION), (1, st.integers(0, 9))), st.integers(0, 5)),
    min_size=3,
    max_size=8,
)

loaded: dict[str, Any] = {}
"""The engine of this module, and its context: a property is made before there are any."""


@pytest.fixture(scope="module", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Load a model of one layer, which takes milliseconds."""
    path = tiny(tmp_path_factory.mktemp("model") / "tiny.gguf", n_positions=64)
    numerics = numerics_here(path)
    engine = LlamaEngine(path)
    settings = ContextSettings(
        n_slots=N_SLOTS,
        n_ctx=N_CTX,
        n_batch=N_BATCH,
        n_threads=1,
        determinism="schedule-independent",
        numerics=numerics,
    )
    loaded.update(engine=engine, context=engine.load(settings).context)
    yield
    engine.close()


def played(program: list[Happening]) -> tuple[Computing, list[Submission]]:
    """Let it happen."""
    engine: LlamaEngine = loaded["engine"]
    session = Computing(engine, loaded["context"])
    requests: list[Submission] = []
    for happening in program:
        if isinstance(happening.what, Submission):
            session.ask(happening.what)
            requests.append(happening.what)
        elif requests:
            session.give(e.CancelRequested(sequence=happening.what % len(requests) + 1))
        for _ in range(happening.n_steps):
            if session.in_flight is not None:
                session.step()
    session.finish()
    return session, requests


@holds_for(examples=60, program=PROGRAM)
def test_company_changes_no_bit(program: list[Happening]) -> None:
    """Each request draws the tokens that it draws alone, from rows with the same bits, and as its options say."""
    session, requests = played(program)
    engine: LlamaEngine = loaded["engine"]
    context: ContextFacts = loaded["context"]
    for number, request in enumerate(requests, 1):
        expected = alone(engine, context, request, len(session.drawn[number]))
        assert expected == session.drawn[number]


def test_all_of_it_happens() -> None:
    """Among a few examples are forks, reuse, preemptions and aborts: what the property is about."""
    kinds: Counter[type[e.Event]] = Counter()

    @holds_for(examples=60, program=PROGRAM)
    def look(program: list[Happening]) -> None:
        kinds.update(type(record.event) for record in played(program)[0].records)

    look("fixed", 60)
    assert {e.SequencePreempted, e.AbortRequested, e.TokenDropped} <= set(+kinds)


@holds_for(
    one=st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 1)),
    other=st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 1)),
)
def test_each_draw_has_a_key_of_its_own(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    """Draws of other seeds, indices or attempts have other keys; the same have the same."""
    assert (one == other) == (draw_key(*one) == draw_key(*other))
