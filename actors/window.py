"""How much of a context is kept: the amounts of truncation and shift, as numbers.

The rules (docs/runner-semantics.md section 2, "Admission" and "Context shift", and section 3 for cases). All counts are
inputs, and ``n_ctx`` is the context of one sequence.
"""


def num_kept(num_keep: int, n_prompt: int, n_ctx: int, *, bos_added: bool) -> int:
    """Return how many inputs from the beginning are never dropped.

    Args:
        num_keep: What the caller asks; negative means the whole prompt.
        n_prompt: Inputs of the prompt.
        n_ctx: The context.
        bos_added: One more is kept where the vocabulary put a BOS first; the whole prompt has it already.
    """
    wanted = n_prompt if num_keep < 0 else num_keep + bos_added
    return min(wanted, n_ctx - 1)


def truncated(n_prompt: int, n_ctx: int) -> int:
    """Return how many inputs of a prompt are left out, behind the kept ones."""
    return max(n_prompt - n_ctx, 0)


def discarded(n_ctx: int, keep: int, length: int) -> int:
    """Return how many inputs behind the kept ones a shift drops.

    Args:
        n_ctx: The context.
        keep: Inputs that are kept at the beginning.
        length: Inputs in the cells.
    """
    return max(max((n_ctx - keep) // 2, 1) - (n_ctx - length), 0)
