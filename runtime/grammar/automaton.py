"""Turns grammars into automata over bytes.

The rules that hold here:

* An automaton reads only valid UTF-8: overlong forms, surrogates and code points beyond 10FFFF are in no range. So
  every text that it allows consists of characters, and every beginning can become such a text.
* The cost of making an automaton is counted while it is made, and bounded: every node, edge and group, every byte of a
  text and every range of a class counts once for each time that a repetition writes it out.
* Texts with a common beginning form a tree, so any number of constants is followed as fast as one.
* Each class of characters beyond ASCII has one rule of its own, however often the class is repeated.
"""

from array import array
from collections.abc import Iterator, Mapping
from itertools import accumulate, chain
from typing import Final

from attrs import define, field, frozen

from reenact.runtime.grammar.gbnf import Class, GrammarError, Group, Item, Ranges, Reference, Repetition, Text

MAX_STEPS: Final = 200_000
"""The most steps in a grammar. Making and checking that many takes 0.15 s, and keeping them takes 2 MB."""

EMPTY: Final = -1
CALL: Final = -2

Edge = tuple[int, int, int]
"""An edge from a node: a lowest and a highest byte, and the next node; or `EMPTY`, 0, and the next node; or `CALL`, the
start of a rule, and the node after that rule."""

_ALL_BYTES: Final = 256
_ASCII: Final = 0x7F
_LENGTHS: Final = ((0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, 0x10FFFF))
"""The characters of two, three and four bytes."""


@frozen(eq=False)
class Compact:
    """An automaton in the form that is kept: ten times smaller than while it is made."""

    root: int
    """The node where a text begins."""
    ends: frozenset[int]
    """The nodes where rules end."""
    nullable: frozenset[int]
    """The starts of rules that match the empty text."""
    classes: tuple[int, ...]
    """The first byte of each class of bytes that are equivalent in all nodes."""
    _edges: "array[int]"
    """The edges of all nodes, three numbers for each."""
    _begins: "array[int]"
    """The index of each node's first edge in ``_edges``, and after the last node the count of all edges."""

    @property
    def size(self) -> int:
        """Roughly the bytes that it takes in memory."""
        return 4 * (len(self._edges) + len(self._begins)) + 64 * (len(self.ends) + len(self.nullable))

    @property
    def n_edges(self) -> int:
        """The count of its edges."""
        return len(self._edges) // 3

    def edges(self, node: int) -> list[Edge]:
        """Return a node's edges."""
        numbers = iter(self._edges[3 * self._begins[node] : 3 * self._begins[node + 1]])
        return list(zip(numbers, numbers, numbers, strict=True))


@define
class Automaton:
    """A grammar's rules as nodes with edges, while they are made and checked."""

    edges: list[list[Edge]] = field(factory=list)
    """The edges of each node. The end of a rule has none."""
    starts: dict[str, int] = field(factory=dict)
    """The start of each rule of the grammar."""
    ends: set[int] = field(factory=set)
    """The nodes where rules end."""
    nullable: set[int] = field(factory=set)
    """The starts of rules that match the empty text."""
    cuts: set[int] = field(factory=lambda: {0})
    """The first bytes of classes: all bytes from one of them up to the next are equivalent in all nodes."""
    _classes: dict[Ranges, int] = field(factory=dict)
    _texts: dict[tuple[int, int], int] = field(factory=dict)
    """The node after a node and a byte, within texts."""
    steps: int = 0
    """The cost so far."""
    _rule: str = ""
    """The rule that is being added."""

    @property
    def root(self) -> int:
        """The node where a text begins."""
        return self.starts["root"]

    def compact(self) -> Compact:
        """Return the automaton in the form that is kept."""
        return Compact(
            root=self.root,
            ends=frozenset(self.ends),
            nullable=frozenset(self.nullable),
            classes=tuple(sorted(self.cuts - {_ALL_BYTES})),
            edges=array("i", chain.from_iterable(chain.from_iterable(self.edges))),
            begins=array("i", accumulate(map(len, self.edges), initial=0)),
        )

    def node(self) -> int:
        """Return a new node."""
        self._count(1)
        self.edges.append([])
        return len(self.edges) - 1

    def end(self) -> int:
        """Return a new node that ends a rule."""
        node = self.node()
        self.ends.add(node)
        return node

    def add_rule(self, name: str, body: Group) -> None:
        """Add a rule at its start.

        Raises:
            GrammarError: The grammar is too large.
        """
        self._rule = name
        self.add(self.starts[name], body, self.end())

    def add(self, node: int, item: Item, then: int) -> None:
        """Add an item that is read at ``node`` and leads to ``then``.

        Raises:
            GrammarError: The grammar is too large.
        """
        match item:
            case Text():
                self._add_text(node, "".join(map(chr, item.codes)).encode(), then)
            case Class():
                self._add_class(node, item.ranges, then)
            case Reference():
                self._link(node, CALL, self.starts[item.name], then)
            case Group():
                self._count(3)
                for alternative in item.alternatives:
                    self._add_sequence(node, alternative, then)
            case Repetition():
                self._add_repetition(node, item, then)

    def _link(self, node: int, low: int, high: int, then: int) -> None:
        self._count(1)
        self.edges[node].append((low, high, then))
        if low >= 0:
            self.cuts.add(low)
            self.cuts.add(high + 1)

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise GrammarError(
                f"with rule {self._rule!r} it comes to more than {MAX_STEPS:,} steps once its repetitions are written"
                " out; let it repeat less, or without an upper bound, and give what is long a rule of its own"
            )

    def _add_text(self, node: int, text: bytes, then: int) -> None:
        """Add a text; it shares its beginning with other texts at the same node."""
        for byte in text[:-1]:
            self._count(1)
            if (following := self._texts.get((node, byte))) is None:
                following = self._texts[node, byte] = self.node()
                self._link(node, byte, byte, following)
            node = following
        if text:
            self._link(node, text[-1], text[-1], then)
        else:
            self._link(node, EMPTY, 0, then)

    def _add_sequence(self, node: int, items: tuple[Item, ...], then: int) -> None:
        if not items:
            self._link(node, EMPTY, 0, then)
        for i, item in enumerate(items):
            following = then if i == len(items) - 1 else self.node()
            self.add(node, item, following)
            node = following

    def _add_repetition(self, node: int, repeated: Repetition, then: int) -> None:
        if repeated.high == 0:
            self._link(node, EMPTY, 0, then)
            return
        for _ in range(repeated.low):
            following = self.node()
            self.add(node, repeated.item, following)
            node = following
        if repeated.high is None:
            again = self.node()
            self._link(node, EMPTY, 0, again)
            self.add(again, repeated.item, again)
            self._link(again, EMPTY, 0, then)
            return
        for _ in range(repeated.high - repeated.low):
            self._link(node, EMPTY, 0, then)
            following = self.node()
            self.add(node, repeated.item, following)
            node = following
        self._link(node, EMPTY, 0, then)

    def _add_class(self, node: int, ranges: Ranges, then: int) -> None:
        self._count(len(ranges) - 1)
        beyond = []
        for low, high in ranges:
            if low <= _ASCII:
                self._link(node, low, min(high, _ASCII), then)
            if high > _ASCII:
                beyond.append((max(low, _ASCII + 1), high))
        if beyond:
            self._link(node, CALL, self._beyond(tuple(beyond)), then)

    def _beyond(self, ranges: Ranges) -> int:
        """Return the start of a rule that reads one of these characters, none of which is ASCII."""
        if (start := self._classes.get(ranges)) is None:
            start = self._classes[ranges] = self.node()
            end = self.end()
            for low, high in ranges:
                for first, last in _of_one_length(low, high):
                    self._add_bytes(start, chr(first).encode(), chr(last).encode(), end)
        return start

    def _add_bytes(self, node: int, low: bytes, high: bytes, then: int) -> None:
        """Add the characters from ``low`` to ``high``, whose bytes have the same length."""
        if len(low) == 1:
            self._link(node, low[0], high[0], then)
            return
        lowest, highest = b"\x80" * (len(low) - 1), b"\xbf" * (len(low) - 1)
        first, last = low[0], high[0]
        if first == last:
            self._step(node, first, first, (low[1:], high[1:]), then)
            return
        if low[1:] != lowest:
            self._step(node, first, first, (low[1:], highest), then)
            first += 1
        if high[1:] != highest:
            self._step(node, last, last, (lowest, high[1:]), then)
            last -= 1
        if first <= last:
            self._step(node, first, last, (lowest, highest), then)

    def _step(self, node: int, first: int, last: int, rest: tuple[bytes, bytes], then: int) -> None:
        following = self.node()
        self._link(node, first, last, following)
        self._add_bytes(following, *rest, then)


def automaton_of(rules: Mapping[str, Group]) -> Automaton:
    """Return the automaton of rules, which must refer only to one another.

    Raises:
        GrammarError: They are too large.
    """
    made = Automaton()
    for name in rules:
        made.starts[name] = made.node()
    for name, body in rules.items():
        made.add_rule(name, body)
    return made


def _of_one_length(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield a range of characters in parts, each of one length in UTF-8 and without surrogates."""
    for shortest, longest in _LENGTHS:
        first, last = max(low, shortest), min(high, longest)
        if first <= last:
            yield first, last
