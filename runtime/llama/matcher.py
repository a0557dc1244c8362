"""Applies grammars to a vocabulary: follows each sequence's grammar and finds the tokens that it allows next.

The rules that hold here:

* The place kept for a sequence is a cache of its history. It is compared with the history before each use, and found
  anew unless it belongs to a beginning of that history.
* A token is its bytes, and it is allowed if the grammar can continue after all of them. It may end within a character,
  but only if that can become a character.
* A token without text is never allowed unless it ends the generation: the name of a control token is not text.
* The memory for grammars is bounded. States are forgotten first, except the places of the sequences that are followed.
  Whole grammars go only if those places alone take too much, as with sixty of the largest; they are checked anew.
* Nothing here depends on llama.cpp or a clock. Whether a text can be followed, and its cost, depend on the grammar and
  the text.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen

from reenact.runtime.grammar.gbnf import GrammarError
from reenact.runtime.grammar.soundness import check
from reenact.runtime.llama.grammar_states import DEAD, START, GrammarStates, Memory, States, TokenWork

Weights = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_MAX_FOLLOWED: Final = 256
"""The most sequences whose place is kept. Finding a place anew takes some microseconds for each byte of the text."""

_MAX_KEPT: Final = 192 * 2**20
"""Roughly the most bytes of states that are kept. Most grammars take 0.1 MB."""

_MAX_OF_ONE: Final = 48 * 2**20
"""The same for one grammar; one token adds up to as much again."""


class Pieces:
    """The texts of a vocabulary's tokens as a tree, with a node for every prefix.

    Args:
        pieces: The text of each token; None if it ends the generation.
    """

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = pieces
        self._ends = np.array([token for token, piece in enumerate(pieces) if piece is None], np.int64)
        lengths = np.array([len(piece or b"") for piece in pieces], np.int64)
        self._texts = np.flatnonzero(lengths)
        """The tokens that have a text."""
        every = np.frombuffer(b"".join(piece or b"" for piece in pieces), np.uint8)
        begins = np.cumsum(lengths) - lengths
        self._node = np.zeros(len(pieces), np.int64)
        """The node at which each token's text ends."""
        bytes_, first, count = [np.zeros(1, np.uint8)], [], []
        tokens, depth, n_nodes, n_before = self._texts, 0, 1, 0
        while len(tokens):
            parents, own = self._node[tokens], every[begins[tokens] + depth]
            keys, nodes = np.unique(parents * 256 + own, return_inverse=True)
            self._node[tokens] = n_nodes + nodes
            children = np.bincount(keys // 256 - n_before, minlength=n_nodes - n_before)
            count.append(children)
            first.append(n_nodes + np.cumsum(children) - children)
            bytes_.append((keys % 256).astype(np.uint8))
            n_before, n_nodes, depth = n_nodes, n_nodes + len(keys), depth + 1
            tokens = tokens[lengths[tokens] > depth]
        count.append(np.zeros(n_nodes - n_before, np.int64))
        first.append(np.zeros(n_nodes - n_before, np.int64))
        self._byte, self._first, self._count = np.concatenate(bytes_), np.concatenate(first), np.concatenate(count)
        """Of each node: its byte, its first child, and the count of its children, which are consecutive."""

    def of(self, token: int) -> bytes | None:
        """Return a token's text; None if it ends the generation."""
        return self._pieces[token]

    def allowed(self, states: GrammarStates, state: int) -> Tokens:
        """Return the tokens that may come next, ascending.

        Raises:
            TooCostly: Finding out costs too much.
        """
        work = TokenWork()
        found = np.zeros(len(self._byte), np.bool_)
        nodes, reached = np.zeros(1, np.int64), np.full(1, state, np.int32)
        while len(nodes):
            counts = self._count[nodes]
            children = np.repeat(self._first[nodes] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            following: States = states.next(np.repeat(reached, counts), self._byte[children], work)
            lives = following != DEAD
            nodes, reached = children[lives], following[lives]
            found[nodes] = True
        tokens = self._texts[found[self._node[self._texts]]]
        return np.sort(np.concatenate([tokens, self._ends])) if states.may_end(state, work) else tokens


class Grammars:
    """The grammars of the sequences of one context; only in the compute thread.

    Args:
        pieces: Returns the vocabulary's pieces; called only once a grammar is followed.
    """

    def __init__(self, pieces: Callable[[], Pieces]) -> None:
        self._pieces = pieces
        self._states: OrderedDict[str, GrammarStates] = OrderedDict()
        self._memory = Memory()
        self._followed: OrderedDict[int, _Followed] = OrderedDict()

    def follow(self, sequence: int, grammar: str, sampled: Sequence[int]) -> "Place | None":
        """Return a grammar's place after the sampled tokens; None if it refuses one of them.

        Raises:
            TooCostly: Following it this far costs too much.
        """
        if (states := self._states_of(grammar)) is None:
            return None
        followed = self._followed.get(sequence)
        if followed is None or followed.states is not states or not followed.leads_to(sampled):
            if sequence not in self._followed and len(self._followed) == _MAX_FOLLOWED:
                self._followed.popitem(last=False)
            followed = self._followed[sequence] = _Followed(states)
        self._followed.move_to_end(sequence)
        followed.history = sampled
        pieces = self._pieces()
        for token in sampled[len(followed.accepted) :]:
            followed.state = states.after(followed.state, pieces.of(token) or b"")
            followed.accepted.append(token)
        return None if followed.state == DEAD else Place(states, pieces, followed.state)

    def _states_of(self, grammar: str) -> GrammarStates | None:
        """Return the states of a grammar, or None if it cannot be followed."""
        if grammar not in self._states:
            try:
                self._states[grammar] = GrammarStates(check(grammar), self._memory)
            except GrammarError:
                return None
        self._states.move_to_end(grammar)
        if self._states[grammar].size > _MAX_OF_ONE:
            self._forget(grammar)
        if self._memory.used > _MAX_KEPT:
            self._make_room()
        return self._states[grammar]

    def _forget(self, grammar: str) -> None:
        """Forget a grammar's states, except the places of the sequences that it follows."""
        states = self._states[grammar]
        followed = [one for one in self._followed.values() if one.states is states]
        for one, place in zip(followed, states.forget([one.state for one in followed]), strict=True):
            one.state = place

    def _make_room(self) -> None:
        """Forget the states that were unused longest, and whole grammars if that is not enough."""
        for grammar in list(self._states):
            if self._memory.used > _MAX_KEPT // 2:
                self._forget(grammar)
        while self._memory.used > _MAX_KEPT // 2 and len(self._states) > 1:
            _, states = self._states.popitem(last=False)
            self._memory.used -= states.size
            for sequence in [number for number, one in self._followed.items() if one.states is states]:
                del self._followed[sequence]


@frozen
class Place:
    """How far a grammar has been followed."""

    states: GrammarStates
    pieces: Pieces
    state: int

    def allows(self, token: int) -> bool:
        """Return whether a token may come next.

        Raises:
            TooCostly: Finding out costs too much.
        """
        piece = self.pieces.of(token)
        if piece is None:
            return self.states.may_end(self.state)
        return piece != b"" and self.states.after(self.state, piece) != DEAD

    def allowed(self) -> Tokens:
        """Return the tokens that may come next, ascending.

        Raises:
            TooCostly: Finding out costs too much.
        """
        return self.pieces.allowed(self.states, self.state)


@define
class _Followed:
    """A grammar that follows one sequence."""

    states: GrammarStates
    state: int = START
    history: Sequence[int] = ()
    """The list that was followed last, which only grows."""
    accepted: list[int] = field(factory=list)

    def leads_to(self, sampled: Sequence[int]) -> bool:
        """Return whether the tokens accepted so far are a beginning of the sampled ones."""
        if len(sampled) < len(self.accepted):
            return False
        return self.history is sampled or list(sampled[: len(self.accepted)]) == self.accepted
