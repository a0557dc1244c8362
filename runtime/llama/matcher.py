"""Grammars over a vocabulary: one follows each sequence, and says which tokens it allows next.

The rules that hold here:

* What is kept for a sequence is a cache of its history: looked at before each use, and made anew where it is not a
  beginning of that history.
* Tokens are their bytes, and a token is allowed where the grammar can go on behind all of them: also in the middle of a
  character, and never where no character can come of it.
* A token without text is never allowed, unless it ends the generation: the name of a control token is no text.
* What is kept of grammars is bounded by what it takes. First states are forgotten, but for the places of the sequences
  that are followed; grammars only where those alone take too much: sixty of the largest. Those are checked anew.
* Nothing here asks llama.cpp or a clock. What can be followed, and at what cost, follows from the grammar and the text.
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
"""Sequences whose place is kept. Finding it anew takes some microseconds for each byte of the text."""

_MAX_KEPT: Final = 192 * 2**20
"""Roughly the bytes of states kept. They are 0.1 MB for most grammars."""

_MAX_OF_ONE: Final = 48 * 2**20
"""Likewise, of one grammar; one token adds up to as much again."""


class Pieces:
    """The texts of a vocabulary's tokens as a tree: a node for every beginning of one.

    Args:
        pieces: Of each token; None where it ends the generation.
    """

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = pieces
        self._ends = np.array([token for token, piece in enumerate(pieces) if piece is None], np.int64)
        lengths = np.array([len(piece or b"") for piece in pieces], np.int64)
        self._texts = np.flatnonzero(lengths)
        """The tokens that have one."""
        every = np.frombuffer(b"".join(piece or b"" for piece in pieces), np.uint8)
        begins = np.cumsum(lengths) - lengths
        self._node = np.zeros(len(pieces), np.int64)
        """Where each token's text ends."""
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
        """Of each node: its byte, its first child, and how many there are, one after the other."""

    def of(self, token: int) -> bytes | None:
        """Return a token's text; None where it ends the generation."""
        return self._pieces[token]

    def allowed(self, states: GrammarStates, state: int) -> Tokens:
        """Return the tokens that may come next, ascending.

        Raises:
            TooCostly: It cannot be told.
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
        pieces: Returns the vocabulary's, which are asked for only if a grammar is followed.
    """

    def __init__(self, pieces: Callable[[], Pieces]) -> None:
        self._pieces = pieces
        self._states: OrderedDict[str, GrammarStates] = OrderedDict()
        self._memory = Memory()
        self._followed: OrderedDict[int, _Followed] = OrderedDict()

    def follow(self, sequence: int, grammar: str, sampled: Sequence[int]) -> "Place | None":
        """Return the place of a grammar after what was sampled; None where it refuses some of that.

        Raises:
            TooCostly: It cannot be followed so far.
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
        """Keep of a grammar no more than the places of the sequences that it follows."""
        states = self._states[grammar]
        followed = [one for one in self._followed.values() if one.states is states]
        for one, place in zip(followed, states.forget([one.state for one in followed]), strict=True):
            one.state = place

    def _make_room(self) -> None:
        """Forget states, those first that were not looked at for longest; and whole grammars if that is not enough."""
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
            TooCostly: It cannot be told.
        """
        piece = self.pieces.of(token)
        if piece is None:
            return self.states.may_end(self.state)
        return piece != b"" and self.states.after(self.state, piece) != DEAD

    def allowed(self) -> Tokens:
        """Return the tokens that may come next, ascending.

        Raises:
            TooCostly: It cannot be told.
        """
        return self.pieces.allowed(self.states, self.state)


@define
class _Followed:
    """A grammar that follows one sequence."""

    states: GrammarStates
    state: int = START
    history: Sequence[int] = ()
    """The list that was followed last; it only grows."""
    accepted: list[int] = field(factory=list)

    def leads_to(self, sampled: Sequence[int]) -> bool:
        """Return whether it has accepted a beginning of what was sampled and nothing else."""
        if len(sampled) < len(self.accepted):
            return False
        return self.history is sampled or list(sampled[: len(self.accepted)]) == self.accepted
