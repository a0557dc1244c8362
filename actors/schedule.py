"""How one step's rows are shared out.

One rule covers prompts and generation (docs/runner-semantics.md section 2, "Batch"): every sequence with queued
inputs gets a row, and what is left of the budget is shared evenly among those that want more. A generating sequence
wants one row, so it never waits for another's prompt; a prompt of any length advances in every batch; nobody is
skipped.
The budget covers one row for each slot, because ``n_batch >= n_slots``.
"""


def share_rows(wanted: list[int], budget: int) -> list[int]:
    """Share ``budget`` rows among sequences, evenly up to what each wants.

    Args:
        wanted: Rows each sequence could use, each at least 1; in the order of slot numbers.
        budget: Rows of the batch, at least ``len(wanted)``.

    Returns:
        Rows for each: at least 1, at most what it wants, ``budget`` in all at most. Who gets less than he wants has as
        many as any other, or one less where the rows do not divide; then lower slots have the one more.
    """
    rows = [0] * len(wanted)
    hungry = list(range(len(wanted)))
    while hungry and budget >= len(hungry):
        share = budget // len(hungry)
        for i in hungry:
            more = min(share, wanted[i] - rows[i])
            rows[i] += more
            budget -= more
        hungry = [i for i in hungry if rows[i] < wanted[i]]
    for i in hungry[:budget]:
        rows[i] += 1
    return rows
