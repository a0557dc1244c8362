"""What the commands say where the extra that computes is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from reenact.runtime.extra import INSTALL
from tests.helpers.paths import GOLDEN, ROOT

COMPANY = GOLDEN / "company.jsonl"

HIDES = "import sys; sys.modules[{name!r}] = None"
"""Python runs it when it starts: the module cannot be imported then."""


@pytest.mark.parametrize(
    "hidden", ["llama_cpp", *(pytest.param(name, marks=pytest.mark.long) for name in ("numpy", "jinja2"))]
)
@pytest.mark.parametrize(
    ("program", "arguments", "code"),
    [
        ("reenact.replay", ("run", str(COMPANY), "--compute"), 4),
        ("reenact.replay", ("run", str(COMPANY), "--model", "a.gguf"), 4),
        ("reenact.replay", ("fork", str(COMPANY), "--at", "12", "-o", "child.jsonl"), 4),
        ("reenact.runtime.cli.main", ("generate", "--model", "a.gguf", "Hi"), 2),
        ("reenact.runtime.cli.main", ("chat", "--model", "a.gguf"), 2),
        ("reenact.runtime.cli.main", ("probe", "a.gguf"), 2),
        ("reenact.runtime.cli.main", ("resume", str(COMPANY)), 2),
        ("reenact.runtime.cli.main", ("serve", f"a={COMPANY}", "--port", "0"), 2),
    ],
)
def test_the_error_is_the_line_that_installs_it(
    program: str, arguments: tuple[str, ...], code: int, hidden: str, tmp_path: Path
) -> None:
    """A command that computes says what to install, and never that it has a bug."""
    (tmp_path / "sitecustomize.py").write_text(HIDES.format(name=hidden))
    done = subprocess.run(
        (sys.executable, "-m", program, *arguments),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    assert (code, True, False) == (done.returncode, INSTALL in told, "bug" in told), told


def test_no_other_line_is_advised() -> None:
    """No text advises to install the extra from a registry, which does not have it."""
    found = [path for path in ROOT.rglob("*.py") if "reenact[" + "llama]" in path.read_text()]
    pages = [page for page in ROOT.rglob("*.md") if "reenact[" + "llama]" in page.read_text()]
    assert [] == [path for path in (*found, *pages) if ".venv" not in path.parts]
