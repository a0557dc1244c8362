"""Compares two logs: the sequences and the headers that differ, and where the difference begins.

The rules that hold here:

* Nothing is decided or computed again: only the content of the two logs, A and B, matters.
* A value that only one log contains is a difference, except for a checksum of logits, which takes two to compare.
* Logits after the first token that differs are not compared, because they follow from it.
* Headers may differ between equal logs. They may explain differing sequences, so they are printed below the verdict.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final, Literal

from attrs import frozen

from reenact.replay.divergence import elided
from reenact.replay.look.history import History, Log, read_log
from reenact.replay.render.values import count, inputs, named, sequences
from reenact.runtime.log.codec import ENVELOPE, Fields, flat, same, written
from reenact.runtime.terminal import Spans

_IDENTITY: Final = {*ENVELOPE, "session", "opened_at", "sequence", "request_id", "traceparent", "continues"}
"""Fields that identify a session or a request, and do not affect its behaviour."""

_BEFORE, _AFTER = 3, 5
"""How many tokens are shown before and after the first one that differs."""

_IN_FULL: Final = 3
"""How many sequences are shown; the rest are counted."""

Sides = tuple[Any, Any]
"""The values in A and in B, as plain values; None where there is none."""

_Row = tuple[str, str, str, str]
"""A line of a table: "*" if the sides differ and " " otherwise, a name, A's side and B's side."""


@frozen
class Spot:
    """A place at which two histories differ."""

    what: Literal["request", "input", "logits", "token", "end"]
    records: tuple[int | None, int | None]
    """The record of A and that of B; None where there is none."""
    index: int | None = None
    """The index of the prompt's input or of the token, from 0."""

    def __str__(self) -> str:
        if self.index is None:
            return f"the {self.what}"
        return f"the logits of token {self.index}" if self.what == "logits" else f"{self.what} {self.index}"

    @property
    def where(self) -> str:
        """The records, for people."""
        a, b = ("none" if n is None else f"{n:,}" for n in self.records)
        return f"(record {a} of A, {b} of B)"


@frozen
class Difference:
    """The differences between two histories of one sequence."""

    a: History
    b: History
    spots: list[Spot]
    """The places at which they differ, causes first; of inputs, logits and tokens the first place."""
    request: dict[str, Sides]
    """The differences between the requests, by the path of the field."""
    end: dict[str, Sides]
    """The differences between the ends, by the path of the field."""

    def __str__(self) -> str:
        a, b = self._both("sequence")
        return f"sequence {a if a == b else f'{a} of A, {b} of B'}{named(self._both('request_id')[0])}"

    def as_json(self) -> Fields:
        """Return the difference as plain values; the first of each pair is A's."""
        return {
            "sequence": self._both("sequence"),
            "request_id": self._both("request_id"),
            "spots": [{"what": spot.what, "index": spot.index, "records": spot.records} for spot in self.spots],
            "request": self.request,
            "n_inputs": (len(self.a.inputs), len(self.b.inputs)),
            "end": self.end,
        }

    def rows(self) -> Iterator[_Row]:
        """Return the differences as rows, with the tokens around the first one that differs."""
        yield from _rows(self.request)
        for spot in self.spots:
            match spot:
                case Spot("input", index=int(at)):
                    a, b = (f"{inputs(side.inputs[at:])}, {len(side.inputs):,} in all" for side in (self.a, self.b))
                    yield "*", f"inputs from {at}", a, b
                case Spot("logits", index=int(at)):
                    yield "*", f"logits {at}", str(self.a.draws[at].logits), str(self.b.draws[at].logits)
                case Spot("token", index=int(at)):
                    for i in range(at - _BEFORE, at + _AFTER + 1):
                        one, other = self.a.draws.get(i), self.b.draws.get(i)
                        if one or other:
                            yield " " if one == other else "*", f"token {i}", str(one or "-"), str(other or "-")
                case _:
                    pass
        yield from _rows(self.end)

    def _both(self, name: str) -> Sides:
        return self.a.fact("RequestReceived", name), self.b.fact("RequestReceived", name)


@frozen(kw_only=True)
class Comparison:
    """The outcome of `diff_logs`."""

    a: Log
    b: Log
    header: dict[str, Sides]
    """The differences between the headers, by the path of the field."""
    only: tuple[list[int], list[int]]
    """The sequences that only A has, and those that only B has."""
    n_sequences: int
    """How many sequences both have."""
    n_tokens: int
    """How many tokens of these sequences both have."""
    differences: list[Difference]
    """The sequences that differ; the one whose difference comes first in A is the first."""

    @property
    def exit_code(self) -> int:
        """The exit code of ``replay diff``."""
        return 1 if self.differences or any(self.only) else 0

    def as_json(self) -> Fields:
        """Return the comparison as ``replay diff --json`` prints it; the first of each pair is A's."""
        return {
            "verdict": "different" if self.exit_code else "same",
            "logs": (self.a.path, self.b.path),
            "notes": (self.a.notes, self.b.notes),
            "sequences": self.n_sequences,
            "tokens": self.n_tokens,
            "header": self.header,
            "only": self.only,
            "differences": [difference.as_json() for difference in self.differences],
        }

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay diff`` prints: the verdict, then the headers, then sequence by sequence."""
        lines: list[Spans] = [[(self._verdict(), "bold red" if self.exit_code else "bold green")]]
        for log in (self.a, self.b):
            lines += [[(f"{log.path}: {note}", "yellow")] for note in log.notes]
        for side, only in zip("AB", self.only, strict=True):
            lines += [[(f"only in {side}: {sequences(only)}", "red")]] if only else []
        if self.header:
            lines += _table("header", _rows(self.header))
        for difference in self.differences[:_IN_FULL]:
            spots = ", ".join(f"{spot} {spot.where}" for spot in difference.spots)
            lines += _table(f"{difference}: {spots}", difference.rows())
        rest = len(self.differences) - _IN_FULL
        return [*lines, [(f"and {rest:,} more", "bold")]] if rest > 0 else lines

    def _verdict(self) -> str:
        logs, both = f"{self.a.path} {self.b.path}", count(self.n_sequences, "sequence")
        if not self.exit_code:
            return f"same: {logs}: {both}, {count(self.n_tokens, 'token')} compared, all equal"
        verdict = f"different: {logs}: {len(self.differences):,} of {both}"
        for difference in self.differences[:1]:
            spot = difference.spots[0]
            verdict += f"; first at {spot} of {difference} {spot.where}"
        return verdict


def diff_logs(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compare two logs; it raises what `read_log` raises for either."""
    return compared(read_log(a), read_log(b))


def compared(a: Log, b: Log) -> Comparison:
    """Compare two logs, sequence by sequence."""
    pairs = _pairs(a.histories, b.histories)
    both = [(a.histories[one], b.histories[other]) for one, other in sorted(pairs.items())]
    differences = [found for one, other in both if (found := _difference(one, other)).spots]
    differences.sort(key=lambda found: next((n for n in found.spots[0].records if n is not None), 0))
    return Comparison(
        a=a,
        b=b,
        header=_changed(a.header, b.header),
        only=(sorted(a.histories.keys() - pairs.keys()), sorted(b.histories.keys() - set(pairs.values()))),
        n_sequences=len(both),
        n_tokens=sum(len(one.draws.keys() & other.draws.keys()) for one, other in both),
        differences=differences,
    )


def _pairs(a: dict[int, History], b: dict[int, History]) -> dict[int, int]:
    """Return B's number of each sequence of A, matched by a unique request_id or else by the number."""
    names, others = _by_name(a), _by_name(b)
    pairs = {number: others[name] for name, number in names.items() if name in others}
    rest = b.keys() - set(pairs.values())
    return pairs | {number: number for number in a.keys() - pairs.keys() if number in rest}


def _by_name(histories: dict[int, History]) -> dict[str, int]:
    names = {number: history.fact("RequestReceived", "request_id") for number, history in histories.items()}
    uses = Counter(names.values())
    return {name: number for number, name in names.items() if name is not None and uses[name] == 1}


def _difference(a: History, b: History) -> Difference:
    asked, ended = (a.asked(), b.asked()), (a.ended(), b.ended())
    request, end, spots = _changed(*asked), _changed(*ended), []
    if request:
        spots.append(Spot("request", (asked[0]["n"], asked[1]["n"])))
    unequal = next((i for i, (one, other) in enumerate(zip_longest(a.inputs, b.inputs)) if one != other), None)
    if unequal is not None:
        spots.append(Spot("input", (a.fact("PromptTokenized", "n"), b.fact("PromptTokenized", "n")), unequal))
    spots += _drawn(a, b)
    if end:
        spots.append(Spot("end", (ended[0]["n"], ended[1]["n"])))
    return Difference(a, b, spots, request, end)


def _drawn(a: History, b: History) -> Iterator[Spot]:
    """Return the places at which the logits and the tokens first differ."""
    same_logits = True
    for i in sorted(a.draws.keys() | b.draws.keys()):
        one, other = a.draws.get(i), b.draws.get(i)
        records = (one.n if one else None, other.n if other else None)
        if same_logits and one and other and one.logits and other.logits and one.logits != other.logits:
            same_logits = False
            yield Spot("logits", records, i)
        if one != other:
            yield Spot("token", records, i)
            return


def _changed(a: Fields, b: Fields) -> dict[str, Sides]:
    """Return the fields that differ, by their paths; a missing one is None."""
    one, other = dict(flat(a)), dict(flat(b))
    sides = {path: (one.get(path), other.get(path)) for path in one | other if path not in _IDENTITY}
    return {path: both for path, both in sides.items() if not same(*both)}


def _rows(changed: dict[str, Sides]) -> Iterator[_Row]:
    for path, sides in changed.items():
        a, b = ("-" if side is None else written(side) for side in sides)
        yield "*", path, *elided(a, b)


def _table(title: str, rows: Iterable[_Row]) -> list[Spans]:
    table = [(" ", "", "A", "B"), *rows]
    wide = [max(len(row[i]) for row in table) for i in (1, 2)]
    lines: list[Spans] = [[(title, "bold")]]
    for mark, name, a, b in table:
        lines.append([(f"  {mark} {name:<{wide[0]}}  {a:<{wide[1]}}  {b}", "dim" if mark == " " else "")])
    return lines
