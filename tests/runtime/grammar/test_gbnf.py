import time

import pytest

from reenact.actors.limits import MAX_GRAMMAR_BYTES
from reenact.runtime.grammar import soundness
from reenact.runtime.grammar.gbnf import GrammarError
from reenact.runtime.grammar.soundness import check

CHAIN = "\n".join(f"a{index} ::= a{index + 1} | a{index + 1}" for index in range(40))


def refused(grammar: str) -> str:
    """Return why a grammar is refused."""
    with pytest.raises(GrammarError) as caught:
        check(grammar)
    return str(caught.value)


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a"',
        '\n# a comment\nroot ::= # another\n  "a" | b\nb ::= [^a-z\\]\\x00-\\x1F-] # at the end',
        'root ::= ( "a"\n | "b" )* "c"{2} "d"{1,} [e]{0,3} .?',
        'root::="\\"\\\\\\n\\u00e9é"\r\nb::=root',
        'root ::= a "x" | "y"\na ::= "" "b" root',
        'root ::= ws "x" ws\nws ::= ([ \\t] ws)?',
        'root ::= "a"{1999}',
        "root ::= " + "(" * 100 + '"a"' + ")" * 100,
        f'root ::= a0\n{CHAIN}\na40 ::= "x"',
        'root ::= (((("a"?){0,7}){0,7}){0,7}){0,7}',
        'root ::= ("a" | "")*',
        'root ::= (("a"?)* ("b"? | s)*)* "c"\ns ::= ("a" s)?',
        "root ::= [^\\x00-\\x1F] [\\u0000-\\U0010FFFF]",
        'root ::= "a"{0} b { 1 , 2 }\nb ::= "b"?',
        'root ::= "a"{2}?',
    ],
)
def test_a_grammar_passes(grammar: str) -> None:
    """Whatever GBNF has a sign for."""
    check(grammar)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("# nothing", "it has no rule 'root'"),
        ('x ::= "a"', "it has no rule 'root'"),
        ("root ::= foo", "rule 'root' refers to a rule 'foo', which does not exist"),
        ('root ::= "a"\nroot ::= "b"', "rule 'root' is defined twice"),
        ("root := x", "line 1: '::=' is missing, at ':= x'"),
        ('root ::= "a"\n  "b"', "line 2: the name of a rule is missing"),
        ('root ::= "a" = "b"', "line 1: unexpected text, at '= \"b\"'"),
        ('root ::= "a', 'line 1: " is missing, at the end'),
        ("root ::= [a", "] is missing"),
        ('root ::= ("a"', "')' is missing"),
        ('root ::= "\\q"', "\\q is no escape"),
        ('root ::= "\\x1"', "\\x needs 2 hexadecimal digits"),
        ('root ::= "\\', "is no escape"),
        ("root ::= *", "there is nothing to repeat"),
        ('root ::= ""*', "there is nothing to repeat"),
        ("root ::= []", "a class of characters is empty"),
        ("root ::= [^]", "a class of characters is empty (any character is .)"),
        ("root ::= [z-a]", "a range ends before it begins"),
        ('root ::= "a"{', "a number is missing"),
        ('root ::= "a"{1', "'}' is missing"),
        ("root ::= <|im_end|>", "tokens are not supported"),
        ('root ::= "a" "\0"', "NUL"),
        ('root ::= "\\x00"', "no text contains a NUL"),
        ('root ::= "\\ud83d\\ude00"', "half a surrogate pair"),
        ("root ::= [\\ud83d-\\uffff]", "half a surrogate pair"),
        ('root ::= "\\U00110000"', "there is no character beyond"),
        ("root ::= [a-\\UFFFFFFFF]", "there is no character beyond"),
        ("root ::= [\\x00]", "a class of characters is empty"),
        ("root ::= [^\\x00-\\U0010FFFF]", "a class of characters is empty"),
    ],
)
def test_what_is_wrong_is_told(grammar: str, reason: str) -> None:
    """With the line, and what stands there."""
    assert reason in refused(grammar)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000, "groups are nested more than 100 deep"),
        ('root ::= "a"{5,2}', "{5,2} ends before it begins"),
        ('root ::= "a"{0,1000000}', "a repetition must stay below 2000"),
        ('root ::= "a"{' + "9" * 5000 + "}", "a repetition must stay below 2000"),
        ('root ::= "a"' + "*" * 60_000, "more than two repetitions follow each other"),
        ('root ::= root "a" | "b"', "left recursion: rule 'root' can begin with itself"),
        ('root ::= "x" ' + '"a"?' * 11_000, "a text can go on in more than 20,000 ways; join those that begin alike"),
        ('root ::= a "x" | "y"\na ::= b root\nb ::= c\nc ::= ""', "left recursion: rule 'root' can begin with itself"),
        ('root ::= "x" | a\na ::= a', "left recursion: rule 'a' can begin with itself"),
        ('root ::= "x" | a\na ::= a "b"', "left recursion: rule 'a' can begin with itself"),
    ],
)
def test_what_cannot_be_followed_is_refused(grammar: str, reason: str) -> None:
    """Each of them would recur too deeply, never end, fill the memory, or be something else to llama.cpp."""
    assert reason in refused(grammar)


ALIKE = '"' + "a" * 245 + '"'
EVERY_OTHER = "".join(map(chr, range(0x30, 0x5B, 2)))


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= (("a"{300}){300}){300}',
        'root ::= ("a"{1000}){1000}',
        'root ::= "' + "a" * 1000 + '"{1999}',
        "root ::= " + " ".join('"aaaaaaaaaa"{1000}' for _ in range(25)),
        "root ::= " + f"[{EVERY_OTHER}]{{1900}}" * 20,
        "root ::= [" + "".join(map(chr, range(0x100, 0x100 + 40_000, 2))) + "]{1999}",
        "root ::= " + " ".join(f"[^\\u{code:04x}]" for code in range(0x100, 0x100 + 5000)),
        "root ::= (" + " | ".join([ALIKE] * 240) + "){1999}",
        "root ::= " + "(" * 99 + '"a"' + ")" * 99 + "{1999}",
        "root ::= " + "(" * 50 + '""' + "){2}" * 50,
    ],
)
def test_what_a_grammar_comes_to_is_counted_while_it_is_made(grammar: str) -> None:
    """However repetitions, classes and texts are put into each other, it is refused before it takes much memory."""
    since = time.thread_time()
    reason = "with rule 'root' it comes to more than 200,000 steps once its repetitions are written out"
    assert reason in refused(grammar)
    assert 1 > time.thread_time() - since


def test_repetitions_in_each_other_may_come_to_what_one_may() -> None:
    """It is their nodes that count, and not how they are written."""
    check('root ::= ("a"{0,60}){60}')


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('root ::= "a" root', "no finite text"),
        ('root ::= "a" s\ns ::= "b" root', "no finite text"),
        ("root ::= ", "only the empty text"),
        ('root ::= ""', "only the empty text"),
        ("root ::= s*\ns ::= (t)?\nt ::= ", "only the empty text"),
        ('root ::= "a"{0} b\nb ::= ""', "only the empty text"),
    ],
)
def test_a_grammar_without_texts_is_refused(grammar: str, reason: str) -> None:
    """A form that no text has, or the empty one alone, is a mistake in the grammar."""
    assert reason in refused(grammar)


@pytest.mark.parametrize("grammar", ['root ::= "a" root | "b"', 'root ::= "a"?', 'root ::= s\ns ::= ("x" s)?'])
def test_a_grammar_with_texts_is_taken(grammar: str) -> None:
    """One text is enough, and the empty one may be among them."""
    check(grammar)


def test_the_check_takes_time_as_the_grammar_is_long() -> None:
    """As many rules in a row as a grammar can hold take less than a tenth of what their square would."""
    grammar = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(4200)) + 'r4200 ::= "a"\n'
    assert 60_000 < len(grammar) < MAX_GRAMMAR_BYTES
    since = time.thread_time()
    check(grammar)
    assert 1 > time.thread_time() - since


def test_texts_that_begin_alike_are_a_tree() -> None:
    """However many there are: up to where they part, each byte is there once."""
    texts = [f'"product_{number:04d}"' for number in range(3000)]
    automaton = check(f"root ::= {' | '.join(texts)}")
    assert len("product_") + 3 + 30 + 300 + 3000 == automaton.n_edges


def test_automata_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go, by their nodes; one is kept, however large it is."""
    kept = soundness._Automata()
    monkeypatch.setattr(soundness, "_MAX_KEPT", 100)
    grammars = [f'root ::= "{sign * 60}"' for sign in "abc"]
    made = [kept.of(grammar) for grammar in grammars]
    assert made[2] is kept.of(grammars[2])
    assert made[0] is not kept.of(grammars[0])
    assert 1 == len(kept._made)
