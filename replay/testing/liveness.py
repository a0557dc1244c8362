"""The most batches in which all requests of a session end once no caller interferes, and a check of it.

The number is that of our own policy, which gives every sequence a row in every batch and shares out the rest. It is
counted from the requests, by none of the code that decides.
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
    """The most that a request takes until it ends."""

    rows: int
    """The rows that are evaluated."""
    draws: int
    of_numbers: int
    """How many of the rows are rows of numbers, which go in batches of their own."""


def rows_left(context: ContextFacts, submission: Submission, n_sampled: int) -> Left:
    """Return the most rows that a request has evaluated until it ends, and the most tokens that it draws.

    It may have to begin anew, so all its inputs are counted: those of its prompt and its sampled tokens, of which a
    context holds ``n_ctx`` and one more can wait. Each of its tokens but the last is one more row. Whenever they come
    to more than the context holds, a shift drops some, and where cells are not moved, those after the gap are evaluated
    again.

    Args:
        context: The context of the session.
        submission: The request.
        n_sampled: How many tokens it has drawn.
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
    """Return the most batches that all these requests take, if no other request comes and nothing fails.

    One batch may be in flight, and be of no use to them. After it slots are assigned until no waiting request has a
    higher priority than one with a slot, and no new request comes: so none is preempted from here on.

    A batch is full, or it has all rows of all requests with a slot:

    * Each full one evaluates ``n_batch`` of the rows that are left.
    * In each of the others every request with a slot draws a token. While a request waits, that is ``n_slots`` of the
      draws that are left. When none waits, it is one draw of each request that is left, including the longest.
    * A slot stays free only for a request that waits while another's prompt is evaluated. A batch that is not full ends
      that prompt, so there is at most one such batch for each of the requests.

    Rows of numbers come on top. A batch of them evaluates at least one; and each batch of tokens that leaves out a
    request, because its next row is one of numbers, is followed by a batch of numbers.

    Args:
        context: The context of the session.
        left: The remaining rows and draws of each request, from `rows_left`.
    """
    rows, draws = sum(one.rows for one in left), [one.draws for one in left]
    generating = rows // context.n_batch + sum(draws) // context.n_slots + max(draws, default=0)
    return 1 + generating + len(left) + 2 * sum(one.of_numbers for one in left)


def end_all(session: CheckedKernel) -> None:
    """Tokenize all prompts, resume all readers, and decode until all requests have ended, in the batches that are due.

    Args:
        session: The session; its requests were given by `CheckedKernel.submit`, and still have those options.

    Raises:
        AssertionError: It takes more batches; no batch is planned although a request is live; or a rule is broken.
        ValueError: A request was not given by `submit`.
    """
    if strangers := sorted(session.live - session.submissions.keys()):
        raise ValueError(f"requests {strangers} were not given by submit(): nothing is known of them")
    for number in [number for number in session.untokenized if number in session.submissions]:
        session.tokenize(number)
    for number in sorted(session.live):
        session.give(e.ReaderResumed(sequence=number))
    emitted = Counter(record.event.sequence for record in session.records if isinstance(record.event, e.TokenEmitted))
    left = [rows_left(session.context, session.submissions[number], emitted[number]) for number in session.live]
    # Each batch of pooled texts has at least a whole one.
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
