"""Checks that a grammar in GBNF can be followed and has texts.

The rules that hold here:

* A grammar that passes can be followed: every rule that it names exists, and none begins with itself, even after items
  that may be empty.
* A grammar that passes has texts: it is refused if no text is finite, or if only the empty text matches. Branches that
  lead to no end are removed, so every beginning that is allowed is the beginning of a whole text.
* At no place can a text continue in more than `MAX_WAYS` ways.
* The checks take time and memory linear in the grammar's size, which is bounded (`reenact.runtime.grammar.automaton`).
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Final

from attrs import define, field

from reenact.runtime.grammar.automaton import CALL, EMPTY, Automaton, Compact, Edge, automaton_of
from reenact.runtime.grammar.gbnf import GrammarError, Group, Item, Reference, Repetition, read

MAX_WAYS: Final = 20_000
"""The most ways in which a text can continue at one place."""

_MAX_COUNTED: Final = 300_000
"""The most ways that are counted one by one, where the upper bound does not suffice: 0.15 s."""

_MAX_KEPT: Final = 128 * 2**20
"""The most bytes of automata that are kept: enough for sixty of the largest grammars, or ten thousand usual ones."""

_OF_EACH: Final = 2048
"""The fixed bytes of each."""


@define
class _Automata:
    """A cache of automata, shared by the thread that checks a request and the thread that draws for it."""

    _made: OrderedDict[str, Compact] = field(factory=OrderedDict)
    _size: int = 0
    _lock: Lock = field(factory=Lock)

    def of(self, grammar: str) -> Compact:
        """Return a grammar's automaton."""
        with self._lock:
            made = self._made.get(grammar)
        made = made or _automaton(grammar)
        with self._lock:
            if grammar not in self._made:
                self._size += _size(grammar, made)
            self._made[grammar] = made
            self._made.move_to_end(grammar)
            while len(self._made) > 1 and self._size > _MAX_KEPT:
                self._size -= _size(*self._made.popitem(last=False))
        return made


def _size(grammar: str, made: Compact) -> int:
    return made.size + len(grammar) + _OF_EACH


_AUTOMATA: Final = _Automata()


def check(grammar: str) -> Compact:
    """Return the automaton of a grammar.

    Raises:
        GrammarError: The grammar cannot be followed, or has no texts; the error gives the reason.
    """
    return _AUTOMATA.of(grammar)


def _automaton(grammar: str) -> Compact:
    rules = read(grammar)
    if "root" not in rules:
        raise GrammarError("it has no rule 'root'")
    for name, body in rules.items():
        for other in _references(body):
            if other not in rules:
                raise GrammarError(f"rule {name!r} refers to a rule {other!r}, which does not exist")
    automaton = automaton_of(rules)
    _, automaton.nullable = _ending(automaton, by_bytes=False)
    _check_beginnings(automaton)
    _prune(automaton)
    _check_ways(automaton)
    return automaton.compact()


def _references(item: Item) -> Iterator[str]:
    if isinstance(item, Reference):
        yield item.name
    elif isinstance(item, Repetition):
        yield from _references(item.item)
    elif isinstance(item, Group):
        for alternative in item.alternatives:
            for one in alternative:
                yield from _references(one)


def _ending(automaton: Automaton, *, by_bytes: bool) -> tuple[set[int], set[int]]:
    """Return the nodes from which the end of their rule can be reached, and the starts of rules among them.

    Args:
        automaton: The nodes.
        by_bytes: Whether bytes may be read on the way; if not, only empty items are passed.
    """
    before: list[list[int]] = [[] for _ in automaton.edges]
    calls: dict[int, list[tuple[int, int]]] = defaultdict(list)
    """By the node after a call: the node of the call and the start of the rule that it calls."""
    begins: set[int] = set(automaton.starts.values())
    for node, edges in enumerate(automaton.edges):
        for low, high, then in edges:
            if low == CALL:
                calls[then].append((node, high))
                begins.add(high)
            elif low == EMPTY or by_bytes:
                before[then].append(node)
    found: set[int] = set()
    waiting: dict[int, list[int]] = defaultdict(list)
    todo = list(automaton.ends)
    while todo:
        node = todo.pop()
        if node in found:
            continue
        found.add(node)
        todo += before[node]
        todo += waiting.pop(node, ())
        for earlier, start in calls.get(node, ()):
            if start in found:
                todo.append(earlier)
            else:
                waiting[start].append(earlier)
    return found, found & begins


def _prune(automaton: Automaton) -> None:
    """Remove branches that lead to no end; refuse a grammar without a finite text, or with only the empty text."""
    ending, _ = _ending(automaton, by_bytes=True)
    if automaton.root not in ending:
        raise GrammarError("no finite text matches: a rule always needs itself again")
    if len(ending) < len(automaton.edges):
        for node, edges in enumerate(automaton.edges):
            automaton.edges[node] = [
                edge for edge in edges if edge[2] in ending and (edge[0] != CALL or edge[1] in ending)
            ]
    seen, todo = {automaton.root}, [automaton.root]
    while todo:
        for low, high, then in automaton.edges[todo.pop()]:
            if low >= 0:
                return
            new = {then, high} - seen if low == CALL else {then} - seen
            seen |= new
            todo += new
    raise GrammarError("only the empty text matches")


def _check_beginnings(automaton: Automaton) -> None:
    """Refuse a rule that begins with itself: it would be entered for ever without reading a byte."""
    named = set(automaton.starts.values())
    begins = {start: _first(automaton, start) & named for start in named}
    users: dict[int, list[int]] = defaultdict(list)
    for start, others in begins.items():
        for other in others:
            users[other].append(start)
    left = {start: len(others) for start, others in begins.items()}
    ready = [start for start, count in left.items() if not count]
    for start in ready:
        for user in users[start]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    if len(ready) < len(begins):
        name = _in_cycle(begins, {start for start, count in left.items() if count})
        names = {start: name for name, start in automaton.starts.items()}
        raise GrammarError(f"left recursion: rule {names[name]!r} can begin with itself")


def _first(automaton: Automaton, start: int) -> set[int]:
    """Return the starts of the rules that a rule can begin with."""
    found, seen, todo = set[int](), {start}, [start]
    while todo:
        for low, high, then in automaton.edges[todo.pop()]:
            if low == CALL:
                found.add(high)
            if then not in seen and (low == EMPTY or (low == CALL and high in automaton.nullable)):
                seen.add(then)
                todo.append(then)
    return found


def _check_ways(automaton: Automaton) -> None:
    """Refuse a grammar by which a text can continue in too many ways at some place."""
    if sum(map(len, automaton.edges)) <= MAX_WAYS:
        return
    at_most: dict[int, int] = {}
    left = _MAX_COUNTED
    behind = {then for edges in automaton.edges for low, _, then in edges if low >= 0}
    for begin in (automaton.root, *(node for node in behind if _may_branch(automaton.edges[node]))):
        if _at_most(automaton, begin, at_most) > MAX_WAYS:
            left -= (ways := _ways(automaton, begin))
            if ways > MAX_WAYS or left < 0:
                raise GrammarError(f"a text can go on in more than {MAX_WAYS:,} ways; join those that begin alike")


def _may_branch(edges: list[Edge]) -> bool:
    """Return whether a node may have more than one way out; a single edge with bytes is one."""
    return len(edges) != 1 or edges[0][0] < 0


def _at_most(automaton: Automaton, begin: int, known: dict[int, int]) -> int:
    """Return an upper bound of the ways out of a node: ways that meet again are counted several times."""
    todo = [begin]
    while todo:
        node = todo[-1]
        following = list(_following(automaton, node))
        if node not in known:
            known[node] = 0  # For a repetition of nothing, which leads back to it.
            todo += [one for one in following if one not in known]
            continue
        todo.pop()
        known[node] = min(len(automaton.edges[node]) + sum(known[one] for one in following), MAX_WAYS + 1)
    return known[begin]


def _ways(automaton: Automaton, begin: int) -> int:
    """Return the count of the ways out of a node, or some number above `MAX_WAYS`."""
    ways, seen, todo = 0, {begin}, [begin]
    while todo and ways <= MAX_WAYS:
        node = todo.pop()
        ways += len(automaton.edges[node])
        new = set(_following(automaton, node)) - seen
        seen |= new
        todo += new
    return ways


def _following(automaton: Automaton, node: int) -> Iterator[int]:
    """Yield the nodes that a node leads to without a byte."""
    for low, high, then in automaton.edges[node]:
        if low == CALL:
            yield high
        if low == EMPTY or (low == CALL and high in automaton.nullable):
            yield then


def _in_cycle(begins: Mapping[int, set[int]], left: set[int]) -> int:
    """Return a rule that begins with itself; each of the rules ``left`` leads to one."""
    start = min(left)
    seen: set[int] = set()
    while start not in seen:
        seen.add(start)
        start = min(begins[start] & left)
    return start
