"""Writes GBNF for the numbers between two bounds.

The rules that hold here:

* Every number of the grammar lies between its bounds, both as a decimal and as the double that a reader makes of it: it
  has no more digits than a double distinguishes.
* There is no ``-0`` and no exponent.
"""

from decimal import Decimal
from typing import Final

from attrs import frozen

MAX_DIGITS: Final = 15
"""Decimal digits that a double distinguishes."""


@frozen
class Bound:
    """A bound of numbers."""

    value: Decimal
    included: bool = True

    @property
    def whole(self) -> int:
        """The digits before the point, as a number; only for a bound that is not negative."""
        return int(self.value)

    @property
    def fraction(self) -> str:
        """The digits after the point, without zeros at the end."""
        return format(self.value, "f").partition(".")[2].rstrip("0")


def alternatives(found: list[str]) -> str:
    """Return an expression for any one of several expressions."""
    return found[0] if len(found) == 1 else f"({' | '.join(found)})"


def integers(low: int, high: int) -> str:
    """Return the whole numbers from ``low`` to ``high``."""
    found = [f'"-" {alternatives(_naturals(max(1, -high), -low))}'] if low < 0 else []
    return alternatives(found + (_naturals(max(0, low), high) if high >= 0 else []))


def numbers(low: Bound | None, high: Bound | None) -> str | None:
    """Return the numbers of at most `MAX_DIGITS` digits from ``low`` to ``high``, or None if there are none.

    Args:
        low: The lower bound; None for the lowest number.
        high: The upper bound; None for the highest number. At least one of the two is given.
    """
    zero, most = Decimal(0), Decimal(10**MAX_DIGITS - 1)
    places = MAX_DIGITS - max(len(str(abs(end.whole))) for end in (low, high) if end is not None)
    low, high = low or Bound(-most), high or Bound(most)
    if low.value > high.value or (low.value == high.value and not (low.included and high.included)):
        return None
    found = []
    if low.value < 0:
        least = Bound(-high.value, high.included) if high.value < 0 else Bound(zero, included=False)
        found += [f'"-" {one}' for one in _between(least, Bound(-low.value, low.included), places)]
    if high.value >= 0:
        found += _between(low if low.value >= 0 else Bound(zero), high, places)
    return alternatives(found) if found else None


def _naturals(low: int, high: int) -> list[str]:
    """Return the whole numbers from ``low`` to ``high``, neither of which is negative."""
    found: list[str] = []
    whole: list[int] = []
    """The lengths of which all numbers are in the range."""
    for length in range(len(str(low)), len(str(high)) + 1):
        first, last = 10 ** (length - 1) if length > 1 else 0, 10**length - 1
        if length > 1 and low <= first and last <= high:
            whole.append(length)
        else:
            found += _of_one_length(str(max(low, first)), str(min(high, last)))
    if whole:
        found.append(f"[1-9] [0-9]{{{whole[0] - 1},{whole[-1] - 1}}}")
    return found


def _of_one_length(low: str, high: str) -> list[str]:
    """Return the digits from ``low`` to ``high``, which have the same length."""
    if not low.strip("0") and not high.strip("9"):
        return [_digits("0-9", len(low))]
    if not low[1:]:
        return [_digits(f"{low}-{high}", 1)]
    first, last, zeros, nines = int(low[0]), int(high[0]), "0" * len(low[1:]), "9" * len(low[1:])
    if first == last:
        return [f'"{first}" {alternatives(_of_one_length(low[1:], high[1:]))}']
    found, end = [], []
    if low[1:] != zeros:
        found.append(f'"{first}" {alternatives(_of_one_length(low[1:], nines))}')
        first += 1
    if high[1:] != nines:
        end.append(f'"{last}" {alternatives(_of_one_length(zeros, high[1:]))}')
        last -= 1
    if first <= last:
        found.append(f"[{first}-{last}] {_digits('0-9', len(zeros))}")
    return found + end


def _digits(which: str, count: int) -> str:
    return f"[{which}]" if count == 1 else f"[{which}]{{{count}}}"


# ---------------------------------------------------------------- decimals


def _between(low: Bound, high: Bound, places: int) -> list[str]:
    """Return the decimals from ``low`` to ``high``, neither of which is negative."""
    least, most = _Edge(low.fraction, low.included), _Edge(high.fraction, high.included)
    if low.whole == high.whole:
        return _decimals([str(low.whole)], least, most, places)
    found, first = [], low.whole
    if not least.reached:
        found += _decimals([str(first)], least, None, places)
        first += 1
    if first < high.whole:
        found += _decimals(_naturals(first, high.whole - 1), None, None, places)
    return found + _decimals([str(high.whole)], None, most, places)


@frozen
class _Edge:
    """The digits of a bound after the point that are still to be matched."""

    digits: str
    included: bool

    @property
    def reached(self) -> bool:
        """Whether 0 from here on is the bound itself, which is among the numbers."""
        return not self.digits and self.included

    def after(self) -> "_Edge":
        """Return the edge without its first digit."""
        return _Edge(self.digits[1:], self.included)


def _decimals(whole: list[str], low: _Edge | None, high: _Edge | None, places: int) -> list[str]:
    """Return the numbers with one of ``whole`` before the point, and after it digits between the edges."""
    before = alternatives([one if one[0] in '["' else f'"{one}"' for one in whole])
    behind = _more(low, high, places)
    if not behind:
        return [before] if _may_end(low, high) else []
    point = f'"." {alternatives(behind)}'
    return [f"{before} ({point})?" if _may_end(low, high) else f"{before} {point}"]


def _may_end(low: _Edge | None, high: _Edge | None) -> bool:
    """Return whether 0 lies between the edges."""
    return (low is None or low.reached) and (high is None or bool(high.digits) or high.included)


def _more(low: _Edge | None, high: _Edge | None, places: int) -> list[str]:
    """Return one digit or more, at most ``places``, between the edges."""
    if not places:
        return []
    if low is not None and low.reached:
        low = None
    if low is None and (high is None or high.reached):
        return [f"[0-9]{{1,{places}}}" if high is None else f'"0"{{1,{places}}}']
    first = -1 if low is None else int(low.digits[:1] or 0)
    last = 10 if high is None else int(high.digits[:1] or 0)
    found = []
    if first + 1 <= last - 1:
        found.append(f"[{first + 1}-{last - 1}] [0-9]{{0,{places - 1}}}")
    for digit in sorted({first, last} & set(range(10))):
        if first <= digit <= last:
            rest_low = low.after() if low is not None and digit == first else None
            rest_high = high.after() if high is not None and digit == last else None
            more, ends = _more(rest_low, rest_high, places - 1), _may_end(rest_low, rest_high)
            if more:
                found.append(f'"{digit}" {alternatives(more)}' if not ends else f'"{digit}" ({" | ".join(more)})?')
            elif ends:
                found.append(f'"{digit}"')
    return found
