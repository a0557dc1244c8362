import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

FOLDERS = ("actors", "replay", "runtime")

# The house style's habit is 50 lines; at 70 one must cut.
MAX_FUNCTION_LINES = 70

# A path that exists on somebody's machine; relative paths and addresses have something else before the slash.
MACHINE_PATH = re.compile(r"""(?:^|[\s"'`=(:,\[])/(?:home|mnt|opt|root|tmp|Users|work)(?:/|\b)""", re.MULTILINE)
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|piwheels\.org|anaconda\.(?:org|com)|index-url\b|find-links\b")

# What differs from one process to the next, reaches outside, or hides what is called.
IMPURE_CALLS = {"__import__", "eval", "exec", "globals", "hash", "id", "input", "open", "print", "vars"}

# "Return what it prints", "Who waits for whom".
FREE_RELATIVE = re.compile(
    r"(?:(?:Give|Print|Return|Say|Yield) )?(?:so|what|whatever|where|which|who|whoever|whom|whose|why)\b", re.IGNORECASE
)
# Words for people; a program has no gender, and reports, prints or contains.
OF_PEOPLE = re.compile(
    r"\b(?:he|him|his|who|whoever|whom|(?:any|every|no|some)(?:body|one)|said|tells?|told|stands?)\b", re.IGNORECASE
)

# A name of the program in a docstring is not English.
CODE = re.compile(r"`[^`]*`")

# British, with the Oxford Dictionary's -ize: tokenize, behaviour. In code, libraries have their own words.
OTHER_SPELLING = re.compile(
    r"(?:apolog|final|initial|normal|optim|organ|parametr|penal|quant|real|recogn|serial|special|summar|token)is(?:e|ing|at)|"
    r"(?:behavi|fav|hon|neighb)or(?!e)|analyz",
    re.IGNORECASE,
)

# What puts something on a standard stream.
PRINTS = re.compile(r"print|sys\.std(out|err)\.write|(.+\.)?_?console\.print")
# A growing display, which goes by way of `visible_lines`.
PRINT_ESCAPED = {"runtime/cli/display.py"}


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    """Return the text files that git tracks or would add, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
    )
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if path.is_symlink() or not path.is_file():
            continue
        try:
            found[name] = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
    return found


@pytest.fixture(scope="module")
def modules(root: Path) -> dict[str, ast.Module]:
    """Return the parsed modules of the three packages, by path."""
    return _parsed(root, [path for folder in FOLDERS for path in (root / folder).rglob("*.py")])


def test_no_machine_path(texts: dict[str, str]) -> None:
    """No text file of the project holds an absolute path of somebody's machine."""
    assert [] == _lines_with(MACHINE_PATH, texts)


def test_no_registry(texts: dict[str, str]) -> None:
    """No text file of the project names a package registry: which one to use is the machine's matter."""
    others = {name: text for name, text in texts.items() if name != "tests/packaging/test_tidy.py"}
    assert [] == _lines_with(REGISTRY, others)


def test_constraints_are_exact_versions(texts: dict[str, str]) -> None:
    """The constraints file holds one exact version a distribution, and nothing but that."""
    lines = [line for line in texts["constraints.txt"].splitlines() if not line.startswith("#")]
    assert [] == [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)]
    names = [re.sub(r"[_.-]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert sorted(set(names)) == sorted(names)


def test_one_spelling(texts: dict[str, str]) -> None:
    """The spelling is British, with -ize, in documents, docstrings and names."""
    others = {name: text for name, text in texts.items() if not name.endswith(".jsonl")}
    del others["tests/packaging/test_tidy.py"]
    assert [] == _lines_with(OTHER_SPELLING, others)


def test_every_test_states_its_fact(root: Path) -> None:
    """Every test function has a docstring."""
    tests = _parsed(root, (root / "tests").rglob("test_*.py"))
    assert [] == [
        f"{path}:{function.lineno} {function.name}"
        for path, tree in tests.items()
        for function in _functions(tree)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]


def test_every_module_says_what_it_owns(modules: dict[str, ast.Module]) -> None:
    """Every module of the three packages has a docstring."""
    assert [] == [path for path, tree in modules.items() if not ast.get_docstring(tree)]


def test_no_docstring_begins_with_a_free_relative(modules: dict[str, ast.Module]) -> None:
    """No docstring of the product begins as "Return what ..." or "Who ..." does, those of attributes included."""
    assert [] == [
        f"{where} {text[:60]}"
        for where, text, is_docstring in _texts(modules)
        if is_docstring and FREE_RELATIVE.match(text)
    ]


def test_texts_say_it_of_software(modules: dict[str, ast.Module]) -> None:
    """No docstring, message or help text of the product speaks of logs, sequences or code as of people."""
    assert [] == [
        f"{where} {found.group()}: {text[:60]}"
        for where, text, _ in _texts(modules)
        if (found := OF_PEOPLE.search(CODE.sub("", text))) is not None
    ]


def test_no_function_is_long(modules: dict[str, ast.Module]) -> None:
    """No function of the three packages has more than 70 lines, its docstring included."""
    lengths = {
        f"{path}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path, tree in modules.items()
        for function in _functions(tree)
    }
    assert {} == {where: lines for where, lines in lengths.items() if lines > MAX_FUNCTION_LINES}


def test_core_is_synchronous_and_deterministic(modules: dict[str, ast.Module]) -> None:
    """Nothing in actors/ awaits, rebinds a global, goes through a set, or calls what differs between processes."""
    assert [] == [
        f"{path}:{node.lineno} {ast.unparse(node).splitlines()[0]}"
        for path, tree in modules.items()
        if path.startswith("actors/")
        for node in _impure(tree)
    ]


def test_one_module_prints(modules: dict[str, ast.Module]) -> None:
    """Only runtime/terminal.py writes to a standard stream, so that all that is printed is escaped there."""
    assert [] == [
        f"{path}:{node.lineno} {ast.unparse(node)}"
        for path, tree in modules.items()
        if path not in {"runtime/terminal.py", *PRINT_ESCAPED}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and PRINTS.fullmatch(ast.unparse(node.func))
    ]


def _impure(tree: ast.Module) -> Iterator[ast.stmt | ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith() | ast.Await() | ast.Global():
                yield node
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield node
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated) if _is_set(iterated):
                yield iterated
            case ast.Starred(value=iterated) if _is_set(iterated):
                yield iterated
            case _:
                pass


def _is_set(node: ast.expr) -> bool:
    """Say whether an expression is plainly a set; a set behind a name is not seen."""
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case _:
            return False


def _texts(modules: dict[str, ast.Module]) -> Iterator[tuple[str, str, bool]]:
    """Yield the strings of the product: where each is, the string, and whether it is a docstring."""
    for path, tree in modules.items():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path}:{node.lineno}", node.value.strip(), id(node) in docstrings


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _parsed(root: Path, paths: Iterable[Path]) -> dict[str, ast.Module]:
    return {path.relative_to(root).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(paths)}


def _lines_with(pattern: re.Pattern[str], texts: dict[str, str]) -> list[str]:
    return [
        f"{name}:{text.count(chr(10), 0, found.end()) + 1} {found.group().strip()}"
        for name, text in sorted(texts.items())
        for found in pattern.finditer(text)
    ]


def test_no_class_has_the_name_of_another(modules: dict[str, ast.Module]) -> None:
    """A public class has a name of its own in all three packages."""
    places: dict[str, list[str]] = {}
    for path, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path)
    assert {} == {name: paths for name, paths in places.items() if len(paths) > 1}


def test_no_module_is_an_inflection_of_its_neighbour(modules: dict[str, ast.Module]) -> None:
    """In one folder no two modules differ by the ending of a plural, a participle or a past tense alone."""
    stems: dict[tuple[Path, str], list[str]] = {}
    for path in modules:
        stem = re.sub(r"(?<=\w{3})(s|es|ed|e|ing)$", "", Path(path).stem)
        stems.setdefault((Path(path).parent, stem), []).append(path)
    assert [] == [paths for paths in stems.values() if len(paths) > 1]
