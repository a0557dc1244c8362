"""Record the golden logs anew: ``make golden``. Say why in CHANGELOG.md: old ones should replay."""

import sys
from pathlib import Path

import trio

from tests.model.scenarios import SCENARIOS

FOLDER = Path(__file__).parent


def main(names: list[str]) -> None:
    """Record the scenarios of these names, or all."""
    for name in names or SCENARIOS:
        path = FOLDER / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        trio.run(SCENARIOS[name], path)
        path.with_suffix(".gguf").unlink(missing_ok=True)
        path.chmod(0o644)
        sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
