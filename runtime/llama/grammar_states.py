"""Tracks what may come next in a text that must match a grammar, in states that are made on first use.

The rules that hold here:

* A state represents all ways to read a text so far, and is a function of the grammar and the text. Ways with the same
  continuation are one: rules that are entered at the same place share the place that they return to. So constants with
  a common beginning, and recursion that can be read in many ways, cost only what they differ in.
* The cost of following a grammar is a count of the ways in its states (usually 5 to 50 in one), and not a time. Beyond
  `MAX_WAYS_HERE` in one state, or `MAX_WORK` for one token, following ends (`TooCostly`): at the same place on any
  machine, whatever states are kept.
* A state gets its number when a byte leads to it, and its edges when a byte is to lead on from it. Testing a token
  costs the states of its own bytes; looking for the allowed tokens costs those of the vocabulary's bytes.
* The states that are kept are a cache, which can be made anew from the text.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from attrs import define

from reenact.runtime.grammar.automaton import CALL, Compact, Edge
from reenact.runtime.grammar.soundness import MAX_WAYS

States = npt.NDArray[np.int32]

DEAD: Final = 0
"""The state of a text that the grammar refuses."""
START: Final = 1
"""The state of the empty text."""

MAX_WORK: Final = 700_000
"""The most that one token may cost, in ways followed: in the states on its path, or in all states visited to find the
tokens that are allowed. It takes up to 0.25 s and 50 MB if no states are kept. 64 KB of constants cost half of it."""

MAX_WAYS_HERE: Final = 4 * MAX_WAYS
"""The most ways in one state: a text may be read in several ways at once, so a state may have more than one place."""

_OF_EACH: Final = 16
"""The fixed cost of making a state, or of numbering one."""

_ALL_BYTES: Final = 256
_ROOM: Final = 16
_UNKNOWN: Final = -1
_OF_GRAMMAR: Final = 8192
_SET_BYTES: Final = 400
_WAY_BYTES: Final = 100
"""Rough upper bounds of the bytes that a grammar's states take at first, a set of ways, and each way in it."""

_Way = tuple[int, int]
"""A node, and where its rule returns to: the number of a context, or `_pending`'s number for a rule that is just being
entered."""

_Exits = dict[tuple[int, int], set[_Way]]
"""Ways by the lowest and the highest byte that lead to them."""

_OVER: Final[_Way] = (-1, -1)
"""The state to which the root returns: the end of the text."""
_OUTERMOST: Final = 0
"""The context of the root."""


class TooCostly(Exception):
    """A text can be read in too many ways for the grammar to be followed any further."""


class TokenWork:
    """The budget of one token."""

    def __init__(self) -> None:
        self.left = MAX_WORK
        self.least = 0
        """The least that must remain."""
        self.paid: set[int] = {DEAD}
        """States whose making has been charged."""
        self._named: set[int] = set()

    def take(self, ways: int) -> None:
        """Charge a cost.

        Raises:
            TooCostly: The budget is exceeded.
        """
        self.left -= ways
        if self.left < self.least:
            raise TooCostly

    def unpaid(self, names: list[int]) -> list[int]:
        """Return the names that have not been charged yet, and mark them as charged."""
        new = [name for name in names if name not in self._named]
        self._named.update(new)
        return new


@define
class Memory:
    """Roughly the bytes that the states of several grammars take together."""

    used: int = 0


class GrammarStates:
    """The states of one grammar.

    Args:
        automaton: The grammar's.
        memory: Counts the bytes that are kept.
    """

    def __init__(self, automaton: Compact, memory: Memory | None = None) -> None:
        self._automaton = automaton
        self._memory = memory or Memory()
        self._first = automaton.classes
        self._class = np.searchsorted(self._first, np.arange(_ALL_BYTES), side="right") - 1
        self.size = 0
        """Roughly the bytes that are kept."""
        self._begin()

    def _begin(self) -> None:
        """Begin with two states: that of a refused text, and that of the empty text."""
        self._grow(self._automaton.size + _OF_GRAMMAR - self.size)
        self._edges: dict[int, list[Edge]] = {}
        """The edges of the nodes visited so far."""
        self._contexts: list[frozenset[_Way]] = [frozenset([_OVER])]
        self._context_numbers: dict[frozenset[_Way], int] = {self._contexts[0]: _OUTERMOST}
        self._kernels: list[frozenset[_Way]] = [frozenset(), frozenset([(self._automaton.root, _OUTERMOST)])]
        self._numbers = {kernel: number for number, kernel in enumerate(self._kernels)}
        self._costs = np.zeros(_ROOM, np.int64)
        """The cost of making each state; 0 if it is yet to be made."""
        self._rows = np.zeros(_ROOM, np.int32)
        """The row of each state in the tables, once the state is made."""
        self._exits: list[_Exits] = [{}]
        """By row: the ways out of a state, by the bytes that lead to them."""
        self._following: States = np.full((_ROOM, len(self._first)), _UNKNOWN, np.int32)
        """By row and class of bytes: the next state."""
        self._prices = np.zeros(self._following.shape, np.int32)
        """By row and class of bytes: the cost of numbering that state."""
        self._may_end: set[int] = set()

    def forget(self, but: Iterable[int]) -> list[int]:
        """Forget all states except some, and return the new numbers of these."""
        kernels, contexts = self._kernels, self._contexts
        self._begin()
        now = {_OVER[1]: _OVER[1], _OUTERMOST: _OUTERMOST}
        """The new numbers of contexts by their old ones."""

        def adopted(ways: frozenset[_Way]) -> frozenset[_Way]:
            return frozenset((node, now[context]) for node, context in ways)

        numbers = []
        for kernel in [kernels[state] for state in but]:
            todo = [context for _, context in kernel]
            while todo:
                context = todo[-1]
                if missing := [one for _, one in contexts[context] if context not in now and one not in now]:
                    todo.extend(missing)
                    continue
                todo.pop()
                if context not in now:
                    now[context] = self._numbered(adopted(contexts[context]), self._context_numbers, self._contexts)
            numbers.append(self._number(adopted(kernel)))
        return numbers

    def after(self, state: int, text: bytes) -> int:
        """Return the state after a text.

        Raises:
            TooCostly: Finding out costs too much.
        """
        work = TokenWork()
        for byte in text:
            self._make(state, work)
            row, of = int(self._rows[state]), int(self._class[byte])
            if self._following[row, of] == _UNKNOWN:
                self._name(row, of, work)
            else:
                work.take(int(self._prices[row, of]))
            state = int(self._following[row, of])
        return state

    def may_end(self, state: int, work: TokenWork | None = None) -> bool:
        """Return whether a text may end here.

        Raises:
            TooCostly: Finding out costs too much.
        """
        self._make(state, work or TokenWork())
        return state in self._may_end

    def next(self, states: States, texts: npt.NDArray[np.uint8], work: TokenWork) -> States:
        """Return the next state for each of ``states``, none of which is dead, and its own byte.

        Raises:
            TooCostly: Finding out costs too much.
        """
        if not len(states):
            return states
        here = np.flatnonzero(np.bincount(states))
        for state in here.tolist():
            self._make(state, work)
        classes, width = self._class[texts], len(self._first)
        places = np.zeros(int(here[-1]) + 1, np.int64)
        places[here] = np.arange(len(here))
        asked = np.zeros(len(here) * width, np.bool_)
        asked[places[states] * width + classes] = True
        pairs = np.flatnonzero(asked)
        names = np.array(work.unpaid((here[pairs // width] * width + pairs % width).tolist()), np.int64)
        rows, of = self._rows[names // width], names % width
        work.take(int(self._prices[rows, of].sum()))
        unknown = self._following[rows, of] == _UNKNOWN
        for row, one in zip(rows[unknown].tolist(), of[unknown].tolist(), strict=True):
            self._name(row, one, work)
        following: States = self._following[self._rows[states], classes]
        return following

    def _make(self, state: int, work: TokenWork) -> None:
        """Find the ways out of a state, by the bytes that lead to them."""
        if state in work.paid:
            return
        work.paid.add(state)
        if cost := int(self._costs[state]):
            work.take(cost)
            return
        before = work.left
        work.take(_OF_EACH)
        work.least = max(work.left - MAX_WAYS_HERE, 0)
        edges, pending, may_end = self._closure(self._kernels[state], work)
        numbers = self._settled(pending, work)
        work.least = 0
        exits: _Exits = {}
        for low, high, node, context in edges:
            exits.setdefault((low, high), set()).add((node, context if context >= 0 else numbers[context]))
        if len(self._exits) == len(self._following):
            self._following = _doubled(self._following, _UNKNOWN)
            self._prices = _doubled(self._prices, 0)
        self._rows[state] = len(self._exits)
        self._exits.append(exits)
        self._costs[state] = before - work.left
        self._grow(_SET_BYTES * (1 + len(exits)) + _WAY_BYTES * len(edges) + 8 * len(self._first))
        if may_end:
            self._may_end.add(state)

    def _name(self, row: int, of: int, work: TokenWork) -> None:
        """Find the next state for a class of bytes."""
        exits, byte = self._exits[row], self._first[of]
        found = [ways for (low, high), ways in exits.items() if low <= byte <= high]
        price = len(exits) + (_OF_EACH + sum(map(len, found)) if found else 1)
        work.take(price)
        self._prices[row, of] = price
        self._following[row, of] = self._number(frozenset().union(*found))

    def _closure(
        self, kernel: frozenset[_Way], work: TokenWork
    ) -> tuple[list[tuple[int, int, int, int]], dict[int, set[_Way]], bool]:
        """Enter and leave rules, as far as the next byte.

        Returns:
            The edges that read a byte, each with the context of its node; the new contexts, by the numbers that these
            edges use for them; and whether the text may end.
        """
        automaton, known = self._automaton, self._edges
        seen: set[_Way] = set()
        todo = list(kernel)
        work.take(len(todo))
        edges: list[tuple[int, int, int, int]] = []
        pending: dict[int, set[_Way]] = {}
        may_end = False
        while todo:
            way = todo.pop()
            if way in seen:
                continue
            seen.add(way)
            node, context = way
            if way == _OVER:
                may_end = True
            elif node in automaton.ends:
                # A rule that is being entered here matched the empty text, which `nullable` has covered already.
                back = self._contexts[context] if context >= 0 else ()
                work.take(len(back))
                todo.extend(back)
            else:
                if (own := known.get(node)) is None:
                    own = self._edges_of(node)
                for low, high, then in own:
                    if low >= 0:
                        edges.append((low, high, then, context))
                        continue
                    if low == CALL:
                        new = _pending(high)
                        if new not in pending:
                            pending[new] = set()
                            todo.append((high, new))
                        pending[new].add((then, context))
                        if high not in automaton.nullable:
                            continue
                    todo.append((then, context))
                work.take(len(own))
        return edges, pending, may_end

    def _settled(self, pending: dict[int, set[_Way]], work: TokenWork) -> dict[int, int]:
        """Return the final numbers of the contexts. No rule begins with itself, so some context depends on no other."""
        numbers: dict[int, int] = {}
        todo = list(pending)
        while todo:
            new = todo[-1]
            if missing := [c for _, c in pending[new] if c < 0 and c not in numbers and new not in numbers]:
                todo.extend(missing)
                continue
            todo.pop()
            if new not in numbers:
                numbers[new] = self._context(pending[new], numbers, work)
        return numbers

    def _context(self, ways: set[_Way], numbers: dict[int, int], work: TokenWork) -> int:
        """Return the number of a context. A way at the end of its rule is replaced by the ways that rule returns to."""
        own: set[_Way] = set()
        for node, context in ways:
            number = context if context >= 0 else numbers[context]
            if node in self._automaton.ends:
                work.take(len(self._contexts[number]))
                own |= self._contexts[number]
            else:
                own.add((node, number))
        return self._numbered(frozenset(own), self._context_numbers, self._contexts)

    def _number(self, kernel: frozenset[_Way]) -> int:
        if (number := self._numbered(kernel, self._numbers, self._kernels)) == len(self._costs):
            self._costs = _doubled(self._costs, 0)
            self._rows = _doubled(self._rows, 0)
        return number

    def _numbered(
        self, one: frozenset[_Way], numbers: dict[frozenset[_Way], int], all_of_them: list[frozenset[_Way]]
    ) -> int:
        number = numbers.setdefault(one, len(all_of_them))
        if number == len(all_of_them):
            all_of_them.append(one)
            self._grow(_SET_BYTES + _WAY_BYTES * len(one))
        return number

    def _edges_of(self, node: int) -> list[Edge]:
        edges = self._edges[node] = self._automaton.edges(node)
        self._grow(_WAY_BYTES * (1 + len(edges)))
        return edges

    def _grow(self, size: int) -> None:
        self.size += size
        self._memory.used += size


def _pending(start: int) -> int:
    """Return the provisional number of the context of a rule that is being entered."""
    return -2 - start


def _doubled(some: npt.NDArray[Any], fill: int) -> npt.NDArray[Any]:
    """Return an array of twice the length."""
    return np.concatenate([some, np.full_like(some, fill)])
