"""How soon all requests of a session end once nobody interferes: a number of batches, and whether it is kept.

The number is that of our own policy, which gives everybody a row in every batch and shares the rest out. It is counted
from the requests, by none of the code that decides.
"""

from collections import Counter

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.header import ContextFacts
from reenact.actors.inputs import rows_of
from reenact.actors.limits import NUM_PREDICT_CONTEXTS
from reenact.replay.testing.kernel import CheckedKernel, Submission, decoded


@frozen
class Left:
    """What a request takes at most until it ends."""

    rows: int
    """That are evaluated."""
    draws: int
    of_numbers: int
    """Of the rows, those that are rows of numbers, which go in batches of their own."""


def rows_left(context: ContextFacts, submission: Submission, n_sampled: int) -> Left:
    """Return how many rows a request has evaluated at most until it ends, and how many tokens it draws at most.

    It may have to begin anew, so all its inputs are counted: those of its prompt and of what it said, of which a
    context holds ``n_ctx`` and one more can wait. Each of its tokens but the last is one more row. Whenever they come
    to more than the context holds, a shift drops some, and where cells are not moved, those behind the gap are
    evaluated again.

    Args:
        context: Of the session.
        submission: The request.
        n_sampled: Tokens that it has drawn.
    """
    options, n_prompt = submission.options, len(submission.prompt)
    limit = options.num_predict if options.num_predict >= 0 else NUM_PREDICT_CONTEXTS * context.n_ctx
    n_draws = limit - n_sampled
    n_rows = min(n_prompt + n_sampled, context.n_ctx + 1) + n_draws - 1
    wanted = n_prompt if options.num_keep < 0 else options.num_keep + submission.bos_added
    keep = min(wanted, context.n_ctx - 1)
    discard = max((context.n_ctx - keep) // 2, 1)
    n_shifts = -(-max(n_rows - context.n_ctx, 0) // discard)
    again = context.n_ctx - keep - discard if context.shift == "evaluate" else 0
    of_numbers = len(rows_of(submission.prompt)) * (1 + (n_shifts if again else 0))
    return Left(n_rows + n_shifts * again, n_draws, of_numbers)


def most_steps(context: ContextFacts, left: list[Left]) -> int:
    """Return how many batches all these requests take at most, if nobody else comes and nothing fails.

    One batch may be in flight, and be worth nothing to them. After it slots are given out until nobody who waits has a
    higher priority than one who has a slot, and nobody comes who has: so nobody is preempted from here on.

    A batch is full, or it has all rows that anybody wants who has a slot:

    * Each full one evaluates ``n_batch`` of the rows that are left.
    * In each of the others everybody who has a slot draws a token. While somebody waits, that is ``n_slots`` of the
      draws that are left. When nobody waits, it is one of each that is left, also of the one that draws most.
    * A slot stays free only for one that waits while another's prompt is evaluated. A batch that is not full ends
      that prompt, so there is at most one such batch for each of the requests.

    Rows of numbers come on top. A batch of them evaluates one at least; and a batch of tokens in which somebody is not,
    because its next row is one of numbers, has a batch of numbers behind it.

    Args:
        context: Of the session.
        left: What each takes, as `rows_left` counts it.
    """
    rows, draws = sum(one.rows for one in left), [one.draws for one in left]
    generating = rows // context.n_batch + sum(draws) // context.n_slots + max(draws, default=0)
    return 1 + generating + len(left) + 2 * sum(one.of_numbers for one in left)


def end_all(session: CheckedKernel) -> None:
    """Let all be tokenised and read on, and decode until everybody has ended, in as many batches as it may take.

    Args:
        session: The session; its requests came by `CheckedKernel.submit`, and ask for what they asked for then.

    Raises:
        AssertionError: It takes more; no batch is planned although somebody has not ended; or a rule does not hold.
        ValueError: A request did not come by `submit`.
    """
    if strangers := sorted(session.live - session.submissions.keys()):
        raise ValueError(f"requests {strangers} did not come by submit(): nothing is known of them")
    for number in [number for number in session.untokenized if number in session.submissions]:
        session.tokenize(number)
    for number in sorted(session.live):
        session.give(e.ReaderResumed(sequence=number))
    said = Counter(record.event.sequence for record in session.records if isinstance(record.event, e.TokenEmitted))
    left = [rows_left(session.context, session.submissions[number], said[number]) for number in session.live]
    # Of texts that are pooled each batch has a whole one at least.
    pools = session.context.pooling != "none"
    most = 1 + len(session.live) if pools else most_steps(session.context, left)
    n_steps = 0
    while session.in_flight is not None:
        n_steps += 1
        if n_steps > most:
            raise AssertionError(f"{sorted(session.live)} have not ended after {most} batches")
        session.give(decoded(session.in_flight))
    if session.live:
        raise AssertionError(f"no batch is planned, and {sorted(session.live)} have not ended")
