"""What came of a batch, held against its plan.

The rules (docs/runner-semantics.md section 2, "Faults"):

* An outcome that contradicts the plan is no fact: our picture of the cells would be wrong from then on.
* A return code is an outcome like any other; `failure` says whose fault it is.
"""

from reenact.actors import events as e
from reenact.actors.errors import Failure, InternalError


def check(planned: e.BatchPlanned, decoded: e.BatchDecoded) -> None:
    """Refuse an outcome that is none of this batch's.

    Raises:
        InternalError: It is not; the error says in what.
    """
    done = planned.parts if decoded.code == e.DONE else ()
    drawn = [part.sequence for part in done if part.draw is not None]
    pooled = [part.sequence for part in done if part.pool]
    if [sample.sequence for sample in decoded.samples] != drawn:
        raise InternalError(f"batch {decoded.batch} was sampled for other sequences than planned")
    if [vector.sequence for vector in decoded.vectors] != pooled:
        raise InternalError(f"batch {decoded.batch} was pooled for other sequences than planned")
    due = tuple((part.slot, -1 if part.pool else part.position + len(part.inputs) - 1) for part in planned.parts)
    if decoded.code == e.DONE and decoded.positions != due:
        raise InternalError(f"the last positions are {list(decoded.positions)}, and by the plan {list(due)}")
    if not {slot for slot, _ in decoded.positions} <= {slot for slot, _ in due}:
        raise InternalError(f"batch {decoded.batch} has positions of slots that are not in it")


def failure(code: int) -> Failure:
    """Say whose fault a return code of llama_decode is."""
    if code in {e.NO_ROOM, e.INVALID}:
        # A slot has a stream of its own and the plan is within it: our picture of the cells is wrong.
        meaning = "no room in the cells" if code == e.NO_ROOM else "an invalid batch"
        return Failure(kind="internal_error", reason=f"llama_decode returned {code}, {meaning}")
    return Failure(kind="sequence_failed", reason=f"llama_decode returned {code}")
