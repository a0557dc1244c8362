"""Grammars in GBNF: whether their rules come to something.

The rules that hold here:

* What passes `check` compiles in llama.cpp, but for a few cases of left recursion, which llama.cpp reports properly.
* Some grammars hang the process. They are refused: a rule that begins with itself by way of one that may be empty
  (``llama_grammar_advance_stack`` never ends, because ``llama_grammar_detect_left_recursion`` sees only rules that are
  empty themselves), and rules whose beginnings multiply (both functions walk every path).
* A grammar has texts: one that only never ends or only the empty text fits is refused.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from reenact.runtime.gbnf import GrammarError, Group, Item, Reference, Repetition, Text, read

MAX_BEGINNINGS: Final = 10_000
"""Ways in which a rule can begin. llama.cpp keeps a stack for each, and walks them all for every token."""


def check(grammar: str) -> None:
    """Look whether llama.cpp can compile a grammar and follow it, and whether a text can have its form.

    Raises:
        GrammarError: No; the error says why.
    """
    rules = read(grammar)
    if "root" not in rules:
        raise GrammarError("it has no rule 'root'")
    for name, body in rules.items():
        for other in _references(body):
            if other not in rules:
                raise GrammarError(f"rule {name!r} wants a rule {other!r}, which is not there")
    _check_beginnings(rules)
    _check_texts(rules)


def _check_texts(rules: dict[str, Group]) -> None:
    """Refuse a grammar that no text ever ends in, or only the empty one."""
    ends: set[str] = set()
    while more := {name for name, body in rules.items() if name not in ends and _ends(body, ends)}:
        ends |= more
    if "root" not in ends:
        raise GrammarError("no text that ends has its form: a rule always wants itself again")
    reached = ["root"]
    for name in reached:
        reached += [other for other in dict.fromkeys(_references(rules[name])) if other not in reached]
    if not any(_has_text(rules[name]) for name in reached):
        raise GrammarError("only the empty text has its form")


def _ends(item: Item, ends: set[str]) -> bool:
    """Return whether some text of an item is finite, where those of these rules are."""
    if isinstance(item, Text):
        return True
    if isinstance(item, Reference):
        return item.name in ends
    if isinstance(item, Repetition):
        return item.low == 0 or _ends(item.item, ends)
    return any(all(_ends(one, ends) for one in alternative) for alternative in item.alternatives)


def _has_text(item: Item) -> bool:
    """Return whether characters stand in an item itself."""
    if isinstance(item, Text):
        return item.length > 0
    if isinstance(item, Repetition):
        return _has_text(item.item)
    return isinstance(item, Group) and any(_has_text(one) for alternative in item.alternatives for one in alternative)


def _references(item: Item) -> Iterator[str]:
    if isinstance(item, Reference):
        yield item.name
    elif isinstance(item, Repetition):
        yield from _references(item.item)
    elif isinstance(item, Group):
        for alternative in item.alternatives:
            for one in alternative:
                yield from _references(one)


def _may_be_empty(item: Item, empty: set[str]) -> bool:
    if isinstance(item, Text):
        return item.length == 0
    if isinstance(item, Reference):
        return item.name in empty
    if isinstance(item, Repetition):
        return item.low == 0 or _may_be_empty(item.item, empty)
    return any(all(_may_be_empty(one, empty) for one in alternative) for alternative in item.alternatives)


def _empty_rules(rules: dict[str, Group]) -> set[str]:
    """Return the rules that the empty text has the form of."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, body in rules.items():
        for other in _references(body):
            users[other].add(name)
    empty: set[str] = set()
    todo = deque(rules)
    while todo:
        name = todo.popleft()
        if name not in empty and _may_be_empty(rules[name], empty):
            empty.add(name)
            todo.extend(users[name])
    return empty


def _first(item: Item, empty: set[str]) -> Iterator[str]:
    """Yield the rules that an item can begin with, once for each way."""
    if isinstance(item, Reference):
        yield item.name
    elif isinstance(item, Repetition):
        yield from _first(item.item, empty)
    elif isinstance(item, Group):
        for alternative in item.alternatives:
            for one in alternative:
                yield from _first(one, empty)
                if not _may_be_empty(one, empty):
                    break


def _ways(item: Item, empty: set[str], known: dict[str, int]) -> int:
    """Return in how many ways an item can begin."""
    if isinstance(item, Text):
        return 1
    if isinstance(item, Reference):
        return known[item.name]
    if isinstance(item, Repetition):
        copies = (item.high or item.low) + 1 if _may_be_empty(item.item, empty) else 2
        return copies * _ways(item.item, empty, known)
    ways = 1
    for alternative in item.alternatives:
        for one in alternative:
            ways += _ways(one, empty, known)
            if not _may_be_empty(one, empty):
                break
    return ways


def _check_beginnings(rules: dict[str, Group]) -> None:
    """Refuse rules that begin with themselves, and those that can begin in too many ways."""
    empty = _empty_rules(rules)
    begins = {name: set(_first(body, empty)) for name, body in rules.items()}
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, others in begins.items():
        for other in others:
            users[other].append(name)
    left = {name: len(others) for name, others in begins.items()}
    ready = deque(name for name, count in left.items() if not count)
    ways: dict[str, int] = {}
    while ready:
        name = ready.popleft()
        ways[name] = _ways(rules[name], empty, ways)
        if ways[name] > MAX_BEGINNINGS:
            raise GrammarError(f"rule {name!r} can begin in more than {MAX_BEGINNINGS:,} ways")
        for user in users[name]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    if len(ways) < len(rules):
        raise GrammarError(f"left recursion: rule {_in_cycle(begins, ways)!r} can begin with itself")


def _in_cycle(begins: dict[str, set[str]], done: dict[str, int]) -> str:
    """Return a rule that begins with itself: every rule that is not ``done`` leads to one."""
    name = next(one for one in begins if one not in done)
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        name = min(one for one in begins[name] if one not in done)
    return name
