"""A scheduling policy of your own under random sessions: every rule is held against every record.

The policy here serves the shortest prompt first among requests of one priority. Run it with
``pytest examples/test_policy.py``; Hypothesis makes the sessions and reduces one that fails.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.replay.check.rules import RULES
from reenact.replay.testing.kernel import CheckedKernel
from reenact.replay.testing.liveness import end_all
from reenact.replay.testing.strategies import facts, headers, outcomes, submissions

FIRST_COME = {"queue", "places", "digest"}
"""Rules of the policy that is replaced: first come, first served."""


def shortest_first(work: Any) -> tuple[int, int]:  # noqa: ANN401  # the Batcher's own account of a request
    """Return the place of a request in the queue; the lowest is served first."""
    return -work.priority, len(work.inputs)


@settings(max_examples=25, deadline=None)  # more find more; a busy machine fails nothing
@given(header=headers(), data=st.data())
def test_the_shortest_prompt_comes_first(header: Any, data: st.DataObject) -> None:  # noqa: ANN401
    """Requests arrive, readers pause, batches fail: all other rules hold, and everyone's request ends in time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reenact.actors.batcher.turn", shortest_first)
        session = CheckedKernel(header, rules=RULES.keys() - FIRST_COME)
        for _ in range(10):
            number = session.submit(data.draw(submissions(header.context)))
            session.tokenize(number)
            session.give(data.draw(facts(session)))
            for _ in range(3):
                if session.in_flight is not None:
                    session.give(data.draw(outcomes(session)))
        end_all(session)
        session.close()
