"""Computes the amounts of truncation and context shift.

The rules are in docs/runner-semantics.md section 2, "Admission" and "Context shift"; section 3 has cases. Inputs are
counted everywhere, and ``n_ctx`` is the context of one sequence.
"""


def num_kept(num_keep: int, n_prompt: int, n_ctx: int, *, bos_added: bool) -> int:
    """Return the count of inputs at the beginning that are never dropped.

    Args:
        num_keep: The caller's option; negative means the whole prompt.
        n_prompt: The count of inputs in the prompt.
        n_ctx: The context.
        bos_added: Whether the tokenizer put a BOS first. Then one more input is kept; a whole prompt includes it.
    """
    wanted = n_prompt if num_keep < 0 else num_keep + bos_added
    return min(wanted, n_ctx - 1)


def truncated(n_prompt: int, n_ctx: int) -> int:
    """Return the count of inputs that are left out of a prompt, behind the kept ones."""
    return max(n_prompt - n_ctx, 0)


def discarded(n_ctx: int, keep: int, length: int) -> int:
    """Return the count of inputs behind the kept ones that a shift drops.

    Args:
        n_ctx: The context.
        keep: The count of inputs that are kept at the beginning.
        length: The count of inputs in the cells.
    """
    return max(max((n_ctx - keep) // 2, 1) - (n_ctx - length), 0)
