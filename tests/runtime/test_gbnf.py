import pytest

from reenact.runtime.gbnf import GrammarError
from reenact.runtime.soundness import check

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
        'root ::= "a"{0} b { 1 , 2 }\nb ::= ""',
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
        ("root ::= foo", "rule 'root' wants a rule 'foo', which is not there"),
        ('root ::= "a"\nroot ::= "b"', "rule 'root' is there twice"),
        ("root := x", "line 1: '::=' is missing, at ':= x'"),
        ('root ::= "a"\n  "b"', "line 2: the name of a rule is missing"),
        ('root ::= "a" = "b"', "line 1: what is that, at '= \"b\"'"),
        ('root ::= "a', 'line 1: " is missing, at the end'),
        ("root ::= [a", "] is missing"),
        ('root ::= ("a"', "')' is missing"),
        ('root ::= "\\q"', "\\q is no escape"),
        ('root ::= "\\x1"', "\\x wants 2 hexadecimal digits"),
        ('root ::= "\\', "is no escape"),
        ("root ::= *", "nothing is there to be repeated"),
        ('root ::= ""*', "nothing is there to be repeated"),
        ("root ::= []", "a class of characters is empty"),
        ("root ::= [z-a]", "a range ends before it begins"),
        ('root ::= "a"{', "a number is missing"),
        ('root ::= "a"{1', "'}' is missing"),
        ("root ::= <|im_end|>", "tokens are not taken here"),
        ('root ::= "a" "\0"', "NUL"),
        ('root ::= "\\x00"', "no text holds a NUL"),
        ('root ::= "\\ud83d\\ude00"', "half a surrogate pair"),
    ],
)
def test_what_is_wrong_is_told(grammar: str, reason: str) -> None:
    """With the line, and what stands there."""
    assert reason in refused(grammar)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000, "more than 100 groups stand in each other"),
        ('root ::= "a"{5,2}', "{5,2} ends before it begins"),
        ('root ::= "a"{0,1000000}', "a repetition must stay below 2000"),
        ('root ::= "a"{' + "9" * 5000 + "}", "a repetition must stay below 2000"),
        ('root ::= ("a"{0,60}){60}', "a repetition comes to"),
        ('root ::= "' + "a" * 1000 + '"{1999}', "more than 200,000 elements"),
        ("root ::= " + " ".join('"aaaaaaaaaa"{1000}' for _ in range(25)), "more than 200,000 elements"),
        ('root ::= root "a" | "b"', "left recursion: rule 'root' can begin with itself"),
        ('root ::= a "x" | "y"\na ::= b root\nb ::= c\nc ::= ""', "left recursion: rule 'root' can begin with itself"),
        (f'root ::= a0\n{CHAIN}\na40 ::= "x"', "can begin in more than 10,000 ways"),
    ],
)
def test_what_would_stop_llama_cpp_is_refused(grammar: str, reason: str) -> None:
    """Each of them crashed it, kept it busy for ever, filled the memory or was taken for something else."""
    assert reason in refused(grammar)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('root ::= "a" root', "no text that ends"),
        ('root ::= "a" s\ns ::= "b" root', "no text that ends"),
        ("root ::= ", "only the empty text"),
        ('root ::= ""', "only the empty text"),
        ("root ::= s*\ns ::= (t)?\nt ::= ", "only the empty text"),
    ],
)
def test_a_grammar_without_texts_is_refused(grammar: str, reason: str) -> None:
    """A form that no text has, or the empty one alone, is a mistake of whoever wrote it."""
    assert reason in refused(grammar)


@pytest.mark.parametrize("grammar", ['root ::= "a" root | "b"', 'root ::= "a"?', 'root ::= s\ns ::= ("x" s)?'])
def test_a_grammar_with_texts_is_taken(grammar: str) -> None:
    """One text is enough, and the empty one may be among them."""
    check(grammar)
