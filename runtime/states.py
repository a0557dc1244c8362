"""What may come next in a text that has the form of a grammar: states, made when they are first asked for.

The rules that hold here:

* A state stands for all ways in which a text so far can be read, and is a function of the grammar and the text. Ways
  that go on alike are one: rules that are gone into at the same place share where they lead back to, so constants that
  begin alike, and recursion that can be read in many ways, cost no more than what they differ in.
* What following a grammar costs is a count of the ways in its states, and no clock's affair. Beyond
  `MAX_WAYS_HERE` in one state (usual are 5 to 50), or `MAX_WORK` for one token, it is given up (`TooCostly`), on any
  machine alike.
* What is kept of states is a cache, which can be made anew from the text.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from reenact.runtime.automaton import CALL, Automaton
from reenact.runtime.soundness import MAX_WAYS

States = npt.NDArray[np.int32]

DEAD: Final = 0
"""The state of a text that the grammar refuses."""
START: Final = 1
"""The state of the empty text."""

MAX_WAYS_HERE: Final = 4 * MAX_WAYS
"""Ways in one state: a text goes on in several ways at once, so there may be more than from one place."""

MAX_WORK: Final = 1_500_000
"""Ways in all states that one token leads through, or that are looked through for the tokens that are allowed; each
state counts `_OF_EACH` besides. It takes up to 0.7 s where none of them is kept. 64 KB of constants take less."""

_OF_EACH: Final = 16
_STATE_BYTES: Final = 2048
_NODE_BYTES: Final = 256
"""What a state, and a node or a context, take at most, roughly."""
_ALL_BYTES: Final = 256

_Way = tuple[int, int]
"""A node, and where the rule that it is in leads back to: a context by its number, or the beginning of a rule that is
being gone into, as `_pending` numbers it."""

_OVER: Final[_Way] = (-1, -1)
"""Where the root leads back to: the end of the text."""
_OUTERMOST: Final = 0
"""The context of the root."""


class TooCostly(Exception):
    """A text can be read in too many ways for the grammar to be followed any further."""


class _Count:
    """How many ways one state has; those that meet count each."""

    def __init__(self) -> None:
        self.n_ways = 0

    def add(self, ways: int) -> None:
        """Count ways.

        Raises:
            TooCostly: There are too many.
        """
        self.n_ways += ways
        if self.n_ways > MAX_WAYS_HERE:
            raise TooCostly


class Work:
    """What one token may cost."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def take(self, ways: int) -> None:
        """Take what one state costs.

        Raises:
            TooCostly: Nothing is left.
        """
        self._left -= ways + _OF_EACH
        if self._left < 0:
            raise TooCostly


class GrammarStates:
    """The states of one grammar."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._contexts: list[frozenset[_Way]] = [frozenset([_OVER])]
        self._context_numbers: dict[frozenset[_Way], int] = {self._contexts[0]: _OUTERMOST}
        self._kernels: list[frozenset[_Way]] = [frozenset(), frozenset([(automaton.root, _OUTERMOST)])]
        self._numbers = {kernel: number for number, kernel in enumerate(self._kernels)}
        self._rows: States = np.zeros((64, _ALL_BYTES), np.int32)
        self._ways = np.zeros(64, np.int64)
        """Of each state that has its row; 0 where it is still to be made."""
        self._ways[DEAD] = 1
        self._may_end: set[int] = set()

    @property
    def size(self) -> int:
        """Roughly the bytes that are kept."""
        return _STATE_BYTES * len(self._kernels) + _NODE_BYTES * (len(self._contexts) + len(self._automaton.edges))

    def after(self, state: int, text: bytes) -> int:
        """Return the state behind a text.

        Raises:
            TooCostly: It cannot be told.
        """
        work = Work()
        for byte in text:
            self.make([state], work)
            state = int(self._rows[state, byte])
        return state

    def may_end(self, state: int) -> bool:
        """Return whether a text may end here."""
        self.make([state], Work())
        return state in self._may_end

    def next(self, states: States, texts: npt.NDArray[np.uint8]) -> States:
        """Return the state behind each of ``states``, all of which are made, and a byte of its own."""
        following: States = self._rows[states, texts]
        return following

    def make(self, states: Iterable[int], work: Work) -> None:
        """Make the rows of states.

        Raises:
            TooCostly: There are too many ways.
        """
        for state in states:
            if not self._ways[state]:
                self._make(state)
            work.take(int(self._ways[state]))

    def _make(self, state: int) -> None:
        count = _Count()
        edges, pending, may_end = self._closure(self._kernels[state], count)
        numbers = self._settled(pending, count)
        singles: dict[int, set[_Way]] = {}
        wide: list[tuple[int, int, _Way]] = []
        for low, high, node, context in edges:
            way = (node, context if context >= 0 else numbers[context])
            if low == high:
                singles.setdefault(low, set()).add(way)
            else:
                wide.append((low, high, way))
        cuts = sorted(
            {cut for low, high, _ in wide for cut in (low, high + 1)} | {c for b in singles for c in (b, b + 1)}
        )
        parts: list[set[_Way]] = [set() for _ in cuts]
        for byte, found in singles.items():
            parts[bisect_left(cuts, byte)] |= found
        for low, high, way in wide:
            for part in parts[bisect_left(cuts, low) : bisect_left(cuts, high + 1)]:
                part.add(way)
        row = np.zeros(_ALL_BYTES, np.int32)
        for first, last, part in zip(cuts, [*cuts, _ALL_BYTES][1:], parts, strict=True):
            if part:
                row[first:last] = self._number(frozenset(part))
        self._rows[state] = row
        self._ways[state] = count.n_ways
        if may_end:
            self._may_end.add(state)

    def _closure(
        self, kernel: frozenset[_Way], count: "_Count"
    ) -> tuple[list[tuple[int, int, int, int]], dict[int, set[_Way]], bool]:
        """Go into rules, and out of them, as far as the next byte.

        Returns:
            The edges by which a byte is read, each with the context of its node; the contexts
            that are new, by the numbers that they have in these; and whether the text may end.
        """
        automaton = self._automaton
        seen: set[_Way] = set()
        todo = list(kernel)
        count.add(len(todo))
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
                # Of a rule that is gone into only here it was the empty text, which was passed by already.
                back = self._contexts[context] if context >= 0 else ()
                count.add(len(back))
                todo.extend(back)
            else:
                for low, high, then in automaton.edges[node]:
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
                count.add(len(automaton.edges[node]))
        return edges, pending, may_end

    def _settled(self, pending: dict[int, set[_Way]], count: "_Count") -> dict[int, int]:
        """Return the contexts' own numbers. No rule begins with itself, so there is one to begin with."""
        numbers: dict[int, int] = {}
        todo = list(pending)
        while todo:
            new = todo[-1]
            if missing := [c for _, c in pending[new] if c < 0 and c not in numbers and new not in numbers]:
                todo.extend(missing)
                continue
            todo.pop()
            if new not in numbers:
                numbers[new] = self._context(pending[new], numbers, count)
        return numbers

    def _context(self, ways: set[_Way], numbers: dict[int, int], count: "_Count") -> int:
        """Return the number of a context: what is at the end of its rule leads back to where that one does."""
        own: set[_Way] = set()
        for node, context in ways:
            number = context if context >= 0 else numbers[context]
            if node in self._automaton.ends:
                count.add(len(self._contexts[number]))
                own |= self._contexts[number]
            else:
                own.add((node, number))
        return _numbered(frozenset(own), self._context_numbers, self._contexts)

    def _number(self, kernel: frozenset[_Way]) -> int:
        number = _numbered(kernel, self._numbers, self._kernels)
        if number == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._ways = np.concatenate([self._ways, np.zeros_like(self._ways)])
        return number


def _pending(start: int) -> int:
    """Return the number of the context that a rule is gone into with, for as long as it is not settled."""
    return -2 - start


def _numbered(one: frozenset[_Way], numbers: dict[frozenset[_Way], int], all_of_them: list[frozenset[_Way]]) -> int:
    number = numbers.setdefault(one, len(all_of_them))
    if number == len(all_of_them):
        all_of_them.append(one)
    return number
