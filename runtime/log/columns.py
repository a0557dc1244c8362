"""Writes the parts of a plan and the samples of an outcome as columns, without what earlier lines give.

A plan's columns have one value for each part:

* ``sequence``.
* ``slot``: left out if each is the one that its sequence was assigned.
* ``position``: left out if each part continues its sequence.
* ``rows``: how many rows; left out if each has one. In its place ``inputs``, the rows themselves, only where they are
  not the sequence's inputs from that position on.
* ``wants``: left out if what each sequence wants is wanted of its last input, and nothing of others.

An outcome's columns are the fields of its samples. One is left out if all its values are at their defaults, and
``sequence`` and ``index`` if they are those of the plan's draws. ``positions`` are left out if they follow from the
plan, and ``code`` if it is 0.

The rule that holds here: columns are read strictly. Each is known, has as many values as the first, and is given where
nothing earlier gives it.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.limits import MAX_SLOTS
from reenact.runtime.log.codec import Fields, UnreadableRecord, payload, same

if TYPE_CHECKING:
    from reenact.runtime.log.shorthand import Earlier, KnownSequence

_PART: Final[dict[str, Callable[[e.Part], object]]] = {
    "sequence": lambda part: part.sequence,
    "slot": lambda part: part.slot,
    "position": lambda part: part.position,
    "rows": lambda part: len(part.inputs),
    "inputs": lambda part: written_inputs(part.inputs),
    "wants": lambda part: written_wants(part.wants),
}
"""The columns of a plan, and the value of a part in each."""
_DEFAULTS: Final[Fields] = {
    "piece": "",
    "piece_bytes": None,
    "eog": False,
    "fault": None,
    "reason": None,
    "logits_crc32": None,
    "logprob": None,
    "top": [],
}
"""The plain values of the fields of a sample that have a default."""
_SAMPLE: Final = frozenset(("sequence", "index", "token", *_DEFAULTS))


# ---------------------------------------------------------------- plans


def short_plan(planned: e.BatchPlanned, earlier: "Earlier") -> Fields:
    """Return the short form of a plan."""
    fields = payload(changed(planned, parts=()))
    fields["parts"] = _part_columns(planned.parts, earlier)
    return fields


def _part_columns(parts: tuple[e.Part, ...], earlier: "Earlier") -> Fields:
    unusual: set[str] = set()
    for part in parts:
        known, n_rows = earlier.sequence(part.sequence), len(part.inputs)
        if part.slot != known.slot:
            unusual.add("slot")
        if part.position != known.position:
            unusual.add("position")
        if n_rows != 1:
            unusual.add("rows")
        if known.rows(part.position, n_rows) != part.inputs:
            unusual.add("inputs")
        if known.wanted(part.position + n_rows) != part.wants:
            unusual.add("wants")
    distinct = len({part.sequence for part in parts}) == len(parts)
    if "inputs" in unusual or not distinct or not earlier.may_leave_out(sum([len(part.inputs) for part in parts])):
        unusual = (unusual - {"rows"}) | {"inputs"}
    return {name: [write(part) for part in parts] for name, write in _PART.items() if name in unusual | {"sequence"}}


def whole_parts(columns: Fields, earlier: "Earlier") -> list[Fields]:
    """Return the plain values of the parts of a plan.

    Raises:
        UnreadableRecord: A column is missing or malformed.
    """
    _check("parts", columns, _PART, "sequence")
    sequences = columns["sequence"]
    if "inputs" not in columns and len(set(map(str, sequences))) != len(sequences):
        raise UnreadableRecord("BatchPlanned: parts: a sequence has two parts, and their inputs are missing")
    parts = [_part(columns, i, earlier.sequence(sequence)) for i, sequence in enumerate(sequences)]
    n_rows = sum(len(part["inputs"]) for part in parts if isinstance(part["inputs"], list))
    if "inputs" not in columns and not earlier.may_leave_out(n_rows):
        raise UnreadableRecord("BatchPlanned: parts: there are too many rows to leave out their inputs")
    return parts


def _part(columns: Fields, i: int, known: "KnownSequence") -> Fields:
    """Return the plain values of one part."""
    sequence = columns["sequence"][i]
    position = columns["position"][i] if "position" in columns else known.position
    part = {
        "sequence": sequence,
        "slot": columns["slot"][i] if "slot" in columns else known.slot,
        "position": position,
    }
    if "inputs" in columns:
        part["inputs"] = columns["inputs"][i]
        n_rows = len(part["inputs"]) if isinstance(part["inputs"], list) else 0
    else:
        n_rows = columns["rows"][i] if "rows" in columns else 1
        inputs = known.rows(position, n_rows) if type(position) is int and type(n_rows) is int else None
        if inputs is None:
            raise UnreadableRecord(f"BatchPlanned: parts: sequence {sequence} has no such rows in the log so far")
        part["inputs"] = written_inputs(inputs)
    wants = columns["wants"][i] if "wants" in columns else written_wants(known.wanted(_end(position, n_rows)))
    return part if wants is None else {**part, "wants": wants}


def _end(position: object, n_rows: int) -> int:
    return position + n_rows if isinstance(position, int) else -1


def written_inputs(inputs: tuple[Input, ...]) -> list[int | str]:
    """Return inputs as plain values."""
    return [one if isinstance(one, int) else one.digest for one in inputs]


def written_wants(wants: e.Wants) -> int | str | None:
    """Return a wanted outcome as a plain value."""
    match wants:
        case e.Draw(index=index):
            return index
        case e.Pool():
            return "pool"
        case None:
            return None


# ---------------------------------------------------------------- outcomes


def short_outcome(decoded: e.BatchDecoded, earlier: "Earlier") -> Fields:
    """Return the short form of an outcome."""
    fields = payload(decoded)
    planned = earlier.plan
    if decoded.code == e.DONE:
        del fields["code"]
    if planned is not None and decoded.positions == _due(planned):
        del fields["positions"]
    if decoded.samples:
        fields["samples"] = _sample_columns(fields["samples"])
        if [(sample.sequence, sample.index) for sample in decoded.samples] == _draws(planned):
            del fields["samples"]["sequence"], fields["samples"]["index"]
    return fields


def _sample_columns(samples: list[Fields]) -> Fields:
    columns: Fields = {name: [sample[name] for sample in samples] for name in ("sequence", "index", "token")}
    given = {name for sample in samples for name in sample}
    for name, default in _DEFAULTS.items():
        if name in given:
            columns[name] = [sample.get(name, default) for sample in samples]
    return columns


def whole_outcome(fields: Fields, earlier: "Earlier") -> Fields:
    """Return the plain values of an outcome.

    Raises:
        UnreadableRecord: A column is missing or malformed.
    """
    whole = {"batch": fields.get("batch"), "code": e.DONE, **fields}
    planned = earlier.plan
    if "positions" not in whole and planned is not None:
        whole["positions"] = [list(pair) for pair in _due(planned)]
    columns = whole.get("samples")
    if not isinstance(columns, dict):
        return whole
    _check("samples", columns, _SAMPLE, "token")
    if "sequence" not in columns and "index" not in columns:
        draws = _draws(planned)
        if len(draws) != len(columns["token"]):
            raise UnreadableRecord("BatchDecoded: samples: they are not those of the plan, and have no sequence")
        columns = {"sequence": [one for one, _ in draws], "index": [index for _, index in draws], **columns}
    whole["samples"] = [
        {
            name: values[i]
            for name, values in columns.items()
            if name not in _DEFAULTS or not same(values[i], _DEFAULTS[name])
        }
        for i in range(len(columns["token"]))
    ]
    return whole


def _due(planned: e.BatchPlanned) -> tuple[tuple[int, int], ...]:
    """Return the positions after a batch that is done."""
    return tuple((part.slot, -1 if part.pools else part.position + len(part.inputs) - 1) for part in planned.parts)


def _draws(planned: e.BatchPlanned | None) -> list[tuple[int, Any]]:
    """Return the sequence and index of each draw of a plan."""
    parts = () if planned is None else planned.parts
    return [(part.sequence, part.draw) for part in parts if part.draw is not None]


def _check(what: str, columns: Fields, names: Collection[str], first: str) -> None:
    """Refuse columns that are unknown or of unequal lengths."""
    if unknown := columns.keys() - set(names):
        raise UnreadableRecord(f"{what}: there is no column {min(unknown)!r}")
    values = columns.get(first)
    if not isinstance(values, list) or len(values) > MAX_SLOTS:
        raise UnreadableRecord(f"{what}.{first}: expected a list of at most {MAX_SLOTS} values")
    for name, column in columns.items():
        if not isinstance(column, list) or len(column) != len(values):
            raise UnreadableRecord(f"{what}.{name}: expected a list of {len(values)} values")
